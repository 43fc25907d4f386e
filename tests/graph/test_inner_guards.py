"""Arguments of inner operators that do not fit together, and what these operators make."""

from typing import Any

import pytest
import torch

from syft.graph.inner_formulas import INNER_BY_SHAPE, INNER_BY_VALUES
from syft.graph.inner_guards import INNER_GUARDS
from syft.graph.operators import resolve
from tests.graph.test_guards import call, copied, f, i

LOSSES = f(10, 2, 5).log_softmax(-1)
FLASH = "_scaled_dot_product_flash_attention_for_cpu"


def flash(*shapes: tuple[int, ...], mask: Any = None) -> tuple[Any, ...]:
    return (*(f(*shape) for shape in shapes), 0.0, False, {"attn_mask": mask})


CASES: dict[str, tuple[tuple[Any, ...], list[tuple[Any, ...]]]] = {
    "_ctc_loss": (
        (LOSSES, i(1, 2, 3, 4, 1), [10, 9], [3, 2], 0, False),
        [
            (LOSSES, i(1, 2, 3, 4, 9), [10, 9], [3, 2], 0, False),
            (LOSSES, i(1, 2, 3, 4, 1), [10, 99], [3, 2], 0, False),
            (LOSSES, i(1, 2, 3, 4, 1), [10, 9], [3, 20], 0, False),
            (LOSSES, i(1, 2, 3, 4, 1), [10, 9], [3, 2], 5, False),
        ],
    ),
    "_embedding_bag": (
        (f(5, 3), i(1, 4, 2), i(0, 2), False, 0, False, None),
        [
            (f(5, 3), i(1, 5, 2), i(0, 2), False, 0, False, None),
            (f(5, 3), i(1, -1, 2), i(0, 2), False, 0, False, None),
            (f(5, 3), i(1, 4, 2), i(0, 4), False, 0, False, None),
            (f(5, 3), i(1, 4, 2), i(0, 2), False, 7, False, None),
        ],
    ),
    "_weight_norm_interface": (
        (f(6, 4), f(6, 1), 0),
        [(f(6, 4), f(5, 1), 0), (f(6, 4), f(6), 0), (f(6, 4, 2), f(1, 4, 1), 1), (f(4), f(4), -1)],
    ),
    FLASH: (
        flash((2, 3, 4, 8), (2, 3, 6, 8), (2, 3, 6, 8), mask=f(4, 6)),
        [
            flash((2, 3, 4, 8), (2, 3, 6, 8), (1, 3, 6, 8)),
            flash((2, 3, 4, 8), (2, 3, 6, 8), (2, 3, 5, 8)),
            flash((2, 3, 4, 8), (2, 3, 6, 4), (2, 3, 6, 8)),
            flash((2, 3, 4, 8), (2, 1, 6, 8), (2, 1, 6, 8)),
            flash((3, 4, 8), (3, 6, 8), (3, 6, 8)),
            flash((2, 3, 0, 8), (2, 3, 6, 8), (2, 3, 6, 8)),
            flash((2, 3, 4, 8), (2, 3, 6, 8), (2, 3, 6, 8), mask=f(4, 5)),
        ],
    ),
    "_fft_r2c": ((f(4, 6), [1], 0, True), [(f(4, 6), [-2], 0, True), (f(4, 6), [2], 0, True)]),
    "_fft_c2c": (
        (torch.fft.fft(f(4, 6)), [0, 1], 0, True),
        [
            (torch.fft.fft(f(4, 6)), [1, 1], 0, True),
            (torch.fft.fft(f(4, 6)), [], 0, True),
            (torch.fft.fft(f(4, 6)), [1], 3, True),
        ],
    ),
    "_fft_c2r": (
        (torch.fft.rfft(f(4, 6)), [1], 2, 6),
        [
            (torch.fft.rfft(f(4, 6)), [1], 2, 60),
            (torch.fft.rfft(f(4, 6)), [1], 2, 0),
            (torch.fft.rfft(f(4, 6)), [1], 2, -6),
        ],
    ),
    "_pdist_forward": ((f(4, 3), 2.0), [(f(0, 5), 2.0), (f(4), 2.0)]),
    "addbmm_": (
        (f(3, 5), f(2, 3, 4), f(2, 4, 5)),
        [(f(1), f(2, 3, 4), f(2, 4, 5)), (f(3, 5), f(3, 4), f(4, 5))],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_guarded_inner_operator_gives_what_torch_gives(name: str) -> None:
    valid, _ = CASES[name]
    results = [
        call(function, copied(valid))
        for function in (getattr(torch.ops.aten, name).default, resolve(f"aten::{name}").function)
    ]
    torch.testing.assert_close(*(result[0] for result in results))


@pytest.mark.parametrize("name", CASES)
def test_a_guard_refuses_arguments_of_an_inner_operator_that_do_not_fit(name: str) -> None:
    for arguments in CASES[name][1]:
        with pytest.raises(ValueError, match=f"^aten::{name}: argument .* is .*; expected"):
            call(resolve(f"aten::{name}").function, copied(arguments))


def test_every_guard_of_an_inner_operator_is_tested() -> None:
    assert INNER_GUARDS.keys() - CASES.keys() == {"_embedding_bag_forward_only"}


FORMULAS: dict[str, tuple[Any, ...]] = {
    "_unique2": (f(100), True, True, True),
    "_to_copy": (f(100),),
    "diagonal_copy": (f(9, 9),),
    "_adaptive_avg_pool2d": (f(2, 3, 8, 8), [4, 5]),
    "_adaptive_avg_pool3d": (f(2, 3, 8, 8, 8), [4, 5, 6]),
    "_trilinear": (f(3, 4), f(5, 4, 4), f(3, 4), [1, 3], [0], [1, 2], [2, 3], 1),
    FLASH: CASES[FLASH][0],
    **{name: CASES[name][0] for name in ("_fft_r2c", "_fft_c2c", "_fft_c2r")},
    "_ctc_loss": CASES["_ctc_loss"][0],
}


def test_every_formula_of_an_inner_operator_is_tested() -> None:
    assert INNER_BY_SHAPE.keys() | INNER_BY_VALUES.keys() == FORMULAS.keys()


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_says_no_less_than_what_an_inner_operator_makes(name: str) -> None:
    operator = getattr(torch.ops.aten, name).default
    arguments, schema = FORMULAS[name], operator._schema.arguments
    result = call(operator, arguments)
    by_name = arguments[-1] if isinstance(arguments[-1], dict) else {}
    results = result if isinstance(result, tuple) else [result]
    made = sum(tensor.numel() * tensor.element_size() for tensor in results)
    values = {each.name: each.default_value for each in schema if each.has_default_value()}
    values |= dict(zip([each.name for each in schema], arguments, strict=False))
    size = (INNER_BY_SHAPE | INNER_BY_VALUES)[name](**values | by_name)

    assert made <= (size[0] if isinstance(size, tuple) else size) <= 100 * made


def test_a_large_result_of_an_inner_operator_is_refused_before_it_is_made() -> None:
    row, column = torch.zeros(1).expand(10**6, 1), torch.zeros(1).expand(1, 10**6)

    with pytest.raises(ValueError, match=r"would (make|do) \d+"):
        resolve("aten::_trilinear").function(row, column, row, [], [], [], [], 1)
