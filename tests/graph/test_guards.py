"""Guards of operators: a call that fits gives what torch gives, one that does not is refused."""

from typing import Any

import pytest
import torch
from torch import nn

from syft.exceptions import MalformedMessage, OperatorNotAllowed
from syft.graph import GraphModule, convert, read_structure, sizes
from syft.graph.formulas import BY_SHAPE, BY_VALUES
from syft.graph.guards import GUARDS, MAX_INT
from syft.graph.inner_guards import INNER_GUARDS
from syft.graph.operators import resolve
from syft.graph.sizes import max_result_bytes

LEAST = -(2**63)
TRUNC = {"rounding_mode": "trunc"}


def f(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) - 0.5


def i(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def recurrent(gates: int, packed: bool = False, **changes: Any) -> tuple[Any, ...]:
    """Return the arguments of a recurrent layer: 4 steps, batch 3, 5 features, 6 units; packed, 6
    rows in all."""
    parts: dict[str, Any] = {"input": f(6, 5) if packed else f(4, 3, 5)}
    parts |= {"batch_sizes": i(3, 2, 1)} if packed else {}
    parts["hx"] = [f(1, 3, 6), f(1, 3, 6)] if gates == 4 else f(1, 3, 6)
    parts["params"] = [f(gates * 6, 5), f(gates * 6, 6), f(gates * 6), f(gates * 6)]
    parts |= {
        "has_biases": True,
        "num_layers": 1,
        "dropout": 0.0,
        "train": False,
        "bidirectional": False,
    }
    parts |= {} if packed else {"batch_first": False}
    return tuple((parts | changes).values())


def cell(gates: int, **changes: Any) -> tuple[Any, ...]:
    hx = [f(3, 6), f(3, 6)] if gates == 4 else f(3, 6)
    parts = {
        "input": f(3, 5),
        "hx": hx,
        "w_ih": f(gates * 6, 5),
        "w_hh": f(gates * 6, 6),
        "b_ih": None,
        "b_hh": None,
    }
    return tuple((parts | changes).values())


def attention(**changes: Any) -> tuple[Any, ...]:
    parts: dict[str, Any] = {
        "query": f(2, 4, 8),
        "key": f(2, 4, 8),
        "value": f(2, 4, 8),
        "embed_dim": 8,
        "heads": 2,
    }
    parts |= {
        "qkv_weight": f(24, 8),
        "qkv_bias": f(24),
        "proj_weight": f(8, 8),
        "proj_bias": f(8),
        "mask": None,
    }
    return tuple((parts | changes).values())


def encoder(**changes: Any) -> tuple[Any, ...]:
    parts: dict[str, Any] = {
        "src": f(2, 4, 8),
        "embed_dim": 8,
        "heads": 2,
        "qkv_weight": f(24, 8),
        "qkv_bias": f(24),
    }
    parts |= {
        "proj_weight": f(8, 8),
        "proj_bias": f(8),
        "use_gelu": False,
        "norm_first": False,
        "eps": 1e-5,
    }
    parts |= {
        "weight_1": f(8),
        "bias_1": f(8),
        "weight_2": f(8),
        "bias_2": f(8),
        "ffn_1": f(16, 8),
        "ffn_bias": f(16),
    }
    parts |= {"ffn_2": f(8, 16), "ffn_bias_2": f(8), "mask": None, "mask_type": None}
    return tuple((parts | changes).values())


LOGS = f(10, 2, 5).log_softmax(-1)
CTC = (LOGS, torch.tensor([[1, 2, 3], [2, 4, 1]]), i(10, 9), i(3, 2), 0)
IMAGE, GRID = f(2, 3, 6, 6), f(2, 4, 4, 2)
BAG = (f(10, 3), i(1, 2, 4, 5, 4), i(0, 3), False, 0, False, None, False)
SCALED = {
    **{
        f"upsample_{kind}.": (f(2, 3, 6, 6), [12, 12], False, 2.0, 2.0)
        for kind in ("bilinear2d", "bicubic2d")
    },
    **{
        f"_upsample_{kind}2d_aa.": (f(2, 3, 6, 6), [12, 12], False, 2.0, 2.0)
        for kind in ("bilinear", "bicubic")
    },
    "upsample_linear1d.": (f(2, 3, 6), [12], False, 2.0),
    "upsample_trilinear3d.": (f(2, 3, 6, 6, 6), [12, 12, 12], False, 2.0, 2.0, 2.0),
    **{
        f"{kind}{d}d.": (f(2, 3, *[6] * d), [12] * d, *[2.0] * d)
        for kind in ("upsample_nearest", "_upsample_nearest_exact")
        for d in (1, 2, 3)
    },
}

CASES: dict[str, tuple[tuple[Any, ...], list[tuple[Any, ...]]]] = {
    "native_batch_norm.": (
        (f(3, 5, 4), f(5), f(5), f(5), f(5).abs(), False, 0.1, 1e-5),
        [
            (f(3, 5, 4), f(4), f(5), f(5), f(5), False, 0.1, 1e-5),
            (f(3, 5, 4), f(5), f(5), None, None, False, 0.1, 1e-5),
            (f(3, 5, 4), f(5).half(), f(5), f(5), f(5), False, 0.1, 1e-5),
        ],
    ),
    "native_group_norm.": (
        (f(2, 6, 4), f(6), f(6), 2, 6, 4, 3, 1e-5),
        [
            (f(2, 6, 4), f(6), f(6), 10**9, 6, 4, 3, 1e-5),
            (f(2, 6, 4), f(6), f(6), 2, 6, 4, 0, 1e-5),
        ],
    ),
    "_weight_norm.": (
        (f(6, 4), f(6, 1), 0),
        [(f(6, 4), f(1, 1), 0), (f(6, 4), f(6, 1), 5), (f(6, 4), f(6, 1), -1)],
    ),
    "ctc_loss.Tensor": (
        CTC,
        [
            (LOGS, torch.tensor([[1, 2, 9], [2, 4, 1]]), i(10, 9), i(3, 2), 0),
            (LOGS, CTC[1], i(10, 11), i(3, 2), 0),
            (LOGS, CTC[1], i(10), i(3), 0),
            (LOGS, i(1, 2, 3), i(10, 9), i(3, 2), 0),
        ],
    ),
    "ctc_loss.IntList": ((LOGS, CTC[1], [10, 9], [3, 2]), [(LOGS, CTC[1], [10, 9], [3, 200])]),
    "binary_cross_entropy.": ((f(3) + 0.5, f(3) + 0.5), [(f(1)[0] + 0.5, f(0))]),
    "_pack_padded_sequence.": (
        (f(4, 3, 5), i(4, 2, 1), False),
        [
            (f(4, 3, 5), i(5, 2, 1), False),
            (f(4, 3, 5), i(4, 2), False),
            (f(4, 3, 5), i(1, 2, 4), False),
        ],
    ),
    "_pad_packed_sequence.": (
        (f(7, 5), i(3, 2, 1, 1), False, 0.0, 4),
        [(f(7, 5), i(3, 2, 1), False, 0.0, 4), (f(7, 5), i(3, 2, 1, 100), False, 0.0, 4)],
    ),
    **{
        f"{name}.input": (
            recurrent(gates),
            [
                recurrent(gates, hx=[f(1, 1, 6), f(1, 3, 6)] if gates == 4 else f(1, 1, 6)),
                recurrent(
                    gates, params=[f(gates * 6, 4), f(gates * 6, 6), f(gates * 6), f(gates * 6)]
                ),
                recurrent(gates, num_layers=2),
            ],
        )
        for name, gates in (("lstm", 4), ("gru", 3), ("rnn_tanh", 1), ("rnn_relu", 1))
    },
    "lstm.data": (
        recurrent(4, packed=True),
        [recurrent(4, packed=True, batch_sizes=torch.zeros(0).long())],
    ),
    **{
        f"{name}_cell.": (cell(gates), [cell(gates, w_hh=f(gates * 6, 5))])
        for name, gates in (("lstm", 4), ("gru", 3), ("rnn_tanh", 1), ("rnn_relu", 1))
    },
    "_native_multi_head_attention.": (
        attention(),
        [attention(heads=0), attention(qkv_bias=torch.zeros(24).byte())],
    ),
    "_transformer_encoder_layer_fwd.": (
        encoder(),
        [encoder(heads=0), encoder(ffn_bias=f(8)), encoder(mask=torch.ones(1, 1) > 0, mask_type=1)],
    ),
    "embedding_bag.": (
        BAG,
        [
            (BAG[0], i(1, 2, 4, 5, 10), *BAG[2:]),
            (BAG[0], BAG[1], i(0, 6), *BAG[3:]),
            (BAG[0], BAG[1], i(3, 0), *BAG[3:]),
            (*BAG[:5], True, None, False),
        ],
    ),
    "repeat_interleave.self_Tensor": ((f(3), i(1, 0, 2), 0), [(f(3), i(1, 0, 2**40), 0)]),
    "chunk.": ((f(6, 2), 3), [(f(6, 2), 10**9)]),
    "split.Tensor": ((f(6, 2), 4), [(torch.zeros(1).expand(10**6), 1)]),
    "split_with_sizes.": ((f(6, 2), [2, 4]), [(f(6, 2), [0] * 70_000 + [6])]),
    "tensor_split.sections": ((f(6, 2), 3), [(f(6, 2), 10**9)]),
    "hsplit.int": ((f(6, 2), 2), [(f(6, 0), 10**9)]),
    "vsplit.int": ((f(6, 2), 2), [(f(0, 6), 10**9)]),
    "dsplit.int": ((f(6, 2, 2), 2), [(f(6, 2, 0), 10**9)]),
    "unbind.int": ((f(6, 2), 0), [(torch.zeros(1).expand(10**6), 0)]),
    **{
        f"{name}.": (
            (IMAGE, GRID, 0, 0, False),
            [
                (IMAGE, GRID, 3, 0, False),
                (IMAGE, GRID / 0, 0, 2, False),
                (IMAGE, GRID[:1], 0, 0, False),
            ],
        )
        for name in ("grid_sampler", "grid_sampler_2d")
    },
    "grid_sampler_3d.": (
        (f(2, 3, 4, 4, 4), f(2, 4, 4, 4, 3), 0, 0, False),
        [(f(2, 3, 4, 4, 4), f(2, 4, 4, 4, 3), 2, 0, False)],
    ),
    **{
        name: (call, [(*call[:-1], 1e-300), (*call[:-1], float("nan"))])
        for name, call in SCALED.items()
    },
    "__interpolate.scale_list": ((IMAGE, None, [2.0, 2.0]), [(IMAGE, None, [])]),
    "__upsample.size_list": ((IMAGE, [8, 8], None), [(IMAGE, [8], None)]),
    "__upsample_bilinear.size_list": ((IMAGE, [8, 8], None), [(IMAGE, [8], None)]),
    "__upsample_nearest.size_list": ((IMAGE, [8, 8], None), [(IMAGE, [8], None)]),
    "conv3d.": (
        (f(1, 1, 4, 4, 4), f(1, 1, 3, 3, 3), None, [2, 2, 2], [1, 1, 1]),
        [(f(1, 1, 2, 4, 4), f(1, 1, 4, 4, 4), None, [2, 2, 2], [3, 0, 0])],
    ),
    **{
        name: ((i(4, 6), i(6, 9)), [(i(LEAST), i(-1)), (i(3), i(LEAST))])
        for name in ("lcm.", "lcm_.")
    },
    "div.Tensor_mode": ((i(7, -9), i(-1, 2), TRUNC), [(i(LEAST), i(-1), TRUNC)]),
    "div.Scalar_mode": ((i(7, LEAST), 2, TRUNC), [(i(LEAST), -1, TRUNC)]),
    "pdist.": ((f(3, 4),), [(f(0, 4),)]),
    "matrix_power.": ((f(3, 3), 5), [(f(3, 3), LEAST)]),
    "linalg_matrix_power.": ((f(3, 3), 5), [(f(3, 3), LEAST)]),
    "combinations.": ((f(4), 3), [(f(4), 2**62)]),
    "to.prim_dtype": ((f(3), 7, False, True), [(f(3), None, False, True)]),
    "to.prim_other": ((f(3), False, False), [(f(3), False, True)]),
    "random_.from": ((f(3), 0, 9), [(f(3), 2**63 - 1, None)]),
    "binomial.": (
        (torch.full((3,), 9.0), torch.full((3,), 0.5)),
        [(f(3) / 0, torch.full((3,), 0.5))],
    ),
}

RULES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("zeros.", ([2],), {"dtype": torch.float32, "layout": torch.sparse_coo}),
    ("zeros.", ([2],), {"layout": 1}),
    ("zeros.", ([2],), {"device": torch.device("meta")}),
    ("zeros.", ([2],), {"pin_memory": True}),
    ("zeros.", ([2],), {"dtype": torch.qint8}),
    ("zeros.", ([2],), {"dtype": 999}),
    ("to.prim_dtype", (f(2), -1), {}),
    ("embedding.", (f(4, 2), i(1), -1, False, True), {}),
    ("gather.", (f(3), 0, i(1)), {"sparse_grad": True}),
    ("soft_margin_loss.", (f(0), f(), 7), {}),  # gave what nobody wrote
    ("conv2d.", (IMAGE, f(3, 3, 2, 2), None, [2**31 - 1, 1]), {}),
    ("replication_pad3d.", (f(1, 2, 2, 2), [2**63 - 1] * 6), {}),
    ("flatten.using_ints", (f(2), MAX_INT + 1), {}),
]

LARGE: dict[str, tuple[Any, ...]] = {
    "zeros.": ([10**5, 10**5],),
    "expand.": (f(1), [4, 2**29]),
    "repeat.": (f(10), [10**9]),
    "add.Tensor": (f(10**5, 1), f(1, 10**5)),
    "linear.": (f(10**5, 1), f(10**5, 1)),
    "matmul.": (f(10**5, 1), f(1, 10**5)),
    "sum.dim_IntList": (f(10**5, 10**5, 0), [-1]),
    "arange.": (10**10,),
    "constant_pad_nd.": (f(1), [0, 10**10 // 16]),
    "conv_transpose2d.input": (f(1, 1, 9, 9), f(1, 1, 1, 1), None, [10**4, 10**4]),
    "max_pool2d.": (f(3, 600, 600), [4999, 4999], [1, 1], [2499, 2499]),
    "upsample_nearest2d.vec": (IMAGE, [10**5, 10**5], None),
    "einsum.": ("a,b,c,d,e->abcde", [f(200)] * 5),
    "one_hot.": (i(2**40), -1),
    "bincount.": (i(2**40),),
    "repeat_interleave.self_int": (f(3), 2**29),
    "index.Tensor": (f(10, 10), [torch.zeros(10**5, 1).long(), torch.zeros(1, 10**5).long()]),
    "masked_select.": (f(10**5, 1), f(1, 10**5) > 0),
    "nonzero.": (torch.zeros(1).expand(2**29),),
    "histc.": (f(3), 2**30),
    "cdist.": (f(10**5, 1), f(10**5, 1)),
    "cov.": (f(10**5, 1),),
    "diag_embed.": (f(10**5),),
    "cat.": ([f(2**20)] * 4096,),
    "fft_fft.": (f(3), 2**30),
    "linalg_svd.": (f(10**5, 1),),
    "stack.": ([f(2**20)] * 4096,),
    "meshgrid.indexing": ([f(3000)] * 3, {"indexing": "ij"}),
}


def bare(name: str) -> Any:
    short, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, short), overload or "default")


def guarded(name: str) -> Any:
    operator = resolve(f"aten::{name}".removesuffix("."))
    assert operator is not None
    return operator.function


def call(function: Any, arguments: Any) -> Any:
    """Call a function; a dict at the end is passed by name."""
    *positional, last = arguments
    return function(*positional, **last) if isinstance(last, dict) else function(*positional, last)


def copied(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [copied(item) for item in value]
    return value.clone() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("name", CASES)
def test_a_guarded_operator_gives_what_torch_gives(name: str) -> None:
    valid, _ = CASES[name]
    results = []
    for function in (bare(name), guarded(name)):
        torch.manual_seed(0)
        result = call(function, copied(valid))
        results.append(result if isinstance(result, (tuple, list)) else [result])

    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_guard_refuses_arguments_that_do_not_fit_together(name: str) -> None:
    _, hostile = CASES[name]
    for arguments in hostile:
        with pytest.raises(ValueError, match=f"^aten::{name.removesuffix('.')}"):
            call(guarded(name), copied(arguments))


def test_every_guard_is_tested() -> None:
    tested = {name.partition(".")[0] for name in CASES}
    twins = {"div_", "divide", "divide_", "convolution", "_convolution", "split"}
    lanczos = {"_upsample_lanczos2d_aa"}  # of the newest torch only

    assert GUARDS.keys() - INNER_GUARDS.keys() - tested <= twins | lanczos


@pytest.mark.parametrize(("name", "arguments", "named"), RULES)
def test_a_rule_refuses_what_no_operator_takes(name: str, arguments: Any, named: Any) -> None:
    with pytest.raises(
        ValueError, match=f"^aten::{name.removesuffix('.')}: argument .* is .*; expected"
    ):
        guarded(name)(*arguments, **named)


@pytest.mark.parametrize("name", LARGE)
def test_what_would_make_too_much_or_run_too_long_is_refused_before_it_runs(name: str) -> None:
    with pytest.raises(ValueError, match=r"would (make|do) \d+"):
        call(guarded(name), LARGE[name])


def test_a_norm_over_all_dimensions_is_taken() -> None:
    v, g = f(6, 4), f(1)[0]

    assert torch.equal(guarded("_weight_norm.")(v, g, -1), torch._weight_norm(v, g, -1))


def test_an_error_names_operator_argument_what_was_seen_and_what_is_expected() -> None:
    with pytest.raises(ValueError) as caught:
        guarded("_weight_norm.")(f(6, 4), f(1, 1), 0)

    assert (
        str(caught.value)
        == "aten::_weight_norm: argument 'g' is float32[1, 1]; expected shape [6, 1]."
    )


def test_the_limit_of_what_an_operator_makes_can_be_set() -> None:
    token = max_result_bytes.set(1000)
    try:
        with pytest.raises(
            ValueError, match="aten::ones would make 2008 bytes; the limit of one operator is 1000"
        ):
            guarded("ones.")([251])
        assert guarded("ones.")([125]).sum() == 125
    finally:
        max_result_bytes.reset(token)
    assert guarded("ones.")([251]).sum() == 251


def test_measuring_draws_no_random_numbers() -> None:
    results = []
    for function in (bare("randn."), guarded("randn.")):
        torch.manual_seed(0)
        results.append(function([13, 7]))

    assert torch.equal(*results)


def test_a_shape_that_passed_once_says_nothing_about_another() -> None:
    pad = guarded("constant_pad_nd.")
    for _ in range(2):
        assert pad(f(2), [0, 3]).shape == (5,)
        with pytest.raises(ValueError, match="would make"):
            pad(f(2), [0, MAX_INT])


def test_kernels_that_read_tensors_as_if_contiguous_get_contiguous_ones() -> None:
    values, indices = guarded("median.dim")(torch.tensor([1.0]).expand(2), 0)
    assert values == 1
    assert 0 <= indices < 2

    expanded = recurrent(4, input=f(1, 1, 5).expand(4, 3, 5))
    plain = recurrent(4, input=f(1, 1, 5).expand(4, 3, 5).contiguous())
    assert torch.equal(guarded("lstm.input")(*expanded)[0], bare("lstm.input")(*plain)[0])


def test_unsafe_operators_share_the_version_of_what_they_take_apart() -> None:
    whole = i(1, 2, 3, 4)
    part, _ = guarded("unsafe_chunk.")(whole, 2)
    before = whole._version
    part.fill_(9)

    assert whole._version > before


@pytest.mark.parametrize("name", ["aten::values", "aten::mm.dtype", "aten::einsum.sublist"])
def test_overloads_that_nobody_can_guard_are_not_to_be_had(name: str) -> None:
    assert resolve(name) is None


FORMULAS: dict[str, tuple[Any, ...]] = {
    "linear.": (f(500, 6), f(700, 6)),
    "matmul.": (f(7, 1, 50, 6), f(5, 6, 70)),
    "addmm.": (f(1), f(50, 6), f(6, 70)),
    "scaled_dot_product_attention.": (f(2, 3, 40, 8), f(2, 3, 50, 8), f(2, 3, 50, 8)),
    "conv1d.": (f(2, 4, 80), f(60, 4, 3)),
    "conv2d.": (f(2, 4, 8, 8), f(60, 2, 3, 3), None, [1, 2], [9, 9], [1, 2], 2),
    "conv2d.padding": (f(2, 4, 8, 8), f(60, 4, 3, 3), None, [1], "same"),
    "conv_transpose2d.input": (f(2, 4, 8, 8), f(4, 60, 3, 3), None, [3, 2], [0, 1], [1, 0], 2),
    "max_pool2d.": (f(2, 4, 9, 9), [3], [1], [1], [1], True),
    "avg_pool1d.": (f(2, 4, 9), [3], [2]),
    "adaptive_avg_pool2d.": (f(2, 4, 9, 9), [30, 20]),
    "constant_pad_nd.": (f(2, 3), [1, 2, 3, 40]),
    "zeros.": ([30, 40],),
    "arange.start_step": (1, 9, 0.01),
    "eye.m": (30, 40),
    "tril_indices.": (30, 40),
    "expand.": (f(3, 1), [5, -1, 40]),
    "repeat.": (f(3, 2), [5, 1, 40]),
    "tile.": (f(3, 2), [40]),
    "cat.": ([f(3), f(50)],),
    "embedding.": (f(3, 40), i(1, 2, 0, 1)),
    "index_select.": (f(3, 40), 0, i(1, 2, 0, 1)),
    "add.Tensor": (f(60, 1), f(1, 70)),
    "where.self": (f(60, 1) > 0, f(1, 70), f(1)),
    "nonzero.": (f(60, 7).abs(),),
    "index.Tensor": (f(60, 7), [i(*range(60))[:, None], i(1, 2, 3)]),
    "masked_select.": (f(60, 1).abs(), f(1, 7) > -1),
    "one_hot.": (i(3, 50), -1),
    "bincount.": (i(3, 500),),
    "repeat_interleave.self_Tensor": (f(3, 5), i(1, 20, 3), 0),
    "repeat_interleave.self_int": (f(3, 5), 7, 0),
    "cov.": (f(60, 2),),
    "linalg_lstsq.": (f(9, 4), f(9, 5)),
    "istft.": (torch.ones(9, 30, dtype=torch.complex64), 16, None, None, torch.ones(16)),
    "lstm.input": recurrent(4),
    "_pad_packed_sequence.": (f(7, 5), i(3, 2, 1, 1), False, 0.0, 40),
    "unique_dim.": (f(60, 2), 0, True, True, True),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_says_no_less_than_what_is_made(name: str) -> None:
    result = call(guarded(name), FORMULAS[name])
    results = result if isinstance(result, (tuple, list)) else [result]
    made = sum(tensor.numel() * tensor.element_size() for tensor in results)
    table = BY_VALUES | BY_SHAPE
    formula = table.get(name) or table[name.partition(".")[0]]
    schema = bare(name)._schema.arguments
    arguments = {each.name: each.default_value for each in schema if each.has_default_value()}
    size = formula(
        **arguments | dict(zip([each.name for each in schema], FORMULAS[name], strict=False))
    )

    assert made <= (size[0] if isinstance(size, tuple) else size) <= 100 * made


MODELS: dict[str, tuple[nn.Module, torch.Tensor]] = {
    "network": (
        nn.Sequential(
            nn.Conv2d(1, 4, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(4, 3),
            nn.LogSoftmax(1),
        ),
        f(3, 1, 7, 7),
    ),
    "norm": (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1)),
        f(3, 1, 9, 9),
    ),
    "lstm": (nn.LSTM(4, 5), f(3, 2, 4)),
    "transformer": (nn.TransformerEncoderLayer(8, 2, 16), f(3, 2, 8)),
    "embedding": (
        nn.Sequential(nn.Embedding(70, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout()),
        i(3, 69),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_usual_models_need_no_measuring_which_takes_seconds_to_load(
    name: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sizes, "_Account", None)
    resolve.cache_clear()  # nothing is remembered
    model, inputs = MODELS[name]
    packed = convert(torch.jit.trace(model, inputs, check_trace=False))
    structure = read_structure(packed.structure)
    GraphModule(structure, packed.state, packed.constants)(inputs)


@pytest.mark.filterwarnings("ignore")
def test_a_transformer_in_its_fast_path_runs_and_nested_tensors_are_refused_with_advice() -> None:
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1
    ).eval()
    x, padding = f(2, 4, 8), torch.tensor([[False] * 4, [False, False, True, True]])

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
            return self.encoder(x, src_key_padding_mask=padding)

    with torch.no_grad():
        plain = convert(torch.jit.trace(encoder, x, check_trace=False))
        nested = convert(torch.jit.trace(Masked().eval(), (x, padding), check_trace=False))
        received = GraphModule(read_structure(plain.structure), plain.state, plain.constants).eval()
        assert torch.equal(received(x), encoder(x))

    assert b"_transformer_encoder_layer_fwd" in plain.structure
    with pytest.raises(
        OperatorNotAllowed, match=r"_nested_tensor_from_mask.*set_fastpath_enabled\(False\)"
    ):
        read_structure(nested.structure)


def test_a_model_with_tensors_of_other_dtypes_than_kernels_were_audited_with_is_refused() -> None:
    packed = convert(torch.jit.trace(nn.Linear(2, 2), f(1, 2)))

    with pytest.raises(MalformedMessage, match="'float8_e5m2' is no dtype"):
        read_structure(packed.structure.replace(b"\xa7float32", b"\xabfloat8_e5m2"))


BAG_SUM = (f(10, 3), i(1, 2, 4, 5, 4, 3), i(0, 4), False, 0, False, f(6))
"""An embedding bag whose samples have weights: two bags of ten embeddings, added up."""

MORE_CASES: dict[str, tuple[tuple[Any, ...], list[tuple[Any, ...]]]] = {
    "embedding_bag.": (
        BAG_SUM,
        [(*BAG_SUM[:4], 1, *BAG_SUM[5:]), (*BAG_SUM[:6], f(5))],
    ),
    "repeat_interleave.self_Tensor": (
        (f(3), i(1, 0, 2), 0, {"output_size": 3}),
        [(f(3), i(1, 0, 2), 0, {"output_size": 4})],
    ),
    "tensor_split.tensor_indices_or_sections": (
        (f(6, 2), i(2, 3)),
        [(f(6, 2), torch.zeros(70_000, dtype=torch.long))],
    ),
    "native_group_norm.": (
        (f(2, 4, 3), None, None, 2, 4, 3, 2, 1e-5),
        [(f(2, 4, 3), None, None, 2, 4, 3, 3, 1e-5)],
    ),
    "arange.start_step": ((0, 7, 2), [(0, 7, 0), (0, float("inf"), 1), (float("nan"), 7, 1)]),
}


@pytest.mark.parametrize("name", MORE_CASES)
def test_arguments_that_a_call_may_leave_out_are_checked_where_they_are_given(name: str) -> None:
    valid, hostile = MORE_CASES[name]
    expected, result = (call(each(name), copied(valid)) for each in (bare, guarded))
    assert all(
        map(
            torch.equal,
            torch.utils._pytree.tree_leaves(expected),
            torch.utils._pytree.tree_leaves(result),
        )
    )
    for arguments in hostile:
        with pytest.raises(ValueError, match=r"^aten::"):
            call(guarded(name), copied(arguments))


def test_a_number_of_sections_may_be_a_tensor() -> None:
    sections = torch.tensor(3)
    expected = torch.tensor_split(f(6, 2), sections)

    split = guarded("tensor_split.tensor_indices_or_sections")
    assert all(map(torch.equal, split(f(6, 2), sections), expected))
    with pytest.raises(ValueError, match="aten::tensor_split"):
        split(f(6, 2), torch.tensor(10**9))


def test_random_integers_need_no_bounds() -> None:
    results = []
    for function in (bare("random_."), guarded("random_.")):
        torch.manual_seed(0)
        results.append(function(torch.zeros(5)))

    assert torch.equal(*results)
