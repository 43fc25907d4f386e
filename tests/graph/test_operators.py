"""Which operators a graph may call, and with what."""

import pytest
import torch

from syft.graph import kinds, operators
from syft.graph.scalars import SCALARS
from tests.graph.arriving import calls, of_inputs

NEVER = """
aten::save aten::from_file aten::load prim::rpc_async prim::fork aten::wait aten::resize_ aten::set_
aten::data aten::as_strided aten::record_stream aten::manual_seed aten::set_grad_enabled
prim::PythonOp prim::CallMethod prim::CreateObject prim::Enter cuda::stream c10d::allreduce
profiler::_record_function_enter aten::_foreach_add_ aten::empty_strided aten::empty_permuted
aten::_cast_Byte aten::sparse_coo_tensor aten::quantize_per_tensor aten::set_data
aten::requires_grad_ aten::ljust aten::rand.out
"""


def test_what_could_do_more_than_compute_is_not_allowed_unless_the_owner_says_so():
    for name in NEVER.split():
        assert not operators.is_allowed(name)
        assert operators.is_allowed(name, {name})


def test_no_operator_with_a_file_name_or_a_stream_is_allowed():
    for schema in torch._C._jit_get_all_schemas():
        words = {argument.name for argument in schema.arguments} | {
            str(a.type) for a in schema.arguments
        }
        if words & {"filename", "Stream", "Storage", "RRef", "Future"}:
            assert not operators.is_allowed(schema.name), schema


def test_only_what_torch_has_is_on_the_list():
    known = {schema.name for schema in torch._C._jit_get_all_schemas()}
    language = {name for name in operators.ALLOWED if name.startswith("prim::")}
    newer = {"aten::_upsample_lanczos2d_aa"}  # than torch 2.4
    assert operators.ALLOWED - known <= language | newer
    assert set(SCALARS) - known <= language


def test_the_twin_in_place_is_allowed_with_an_operator():
    assert operators.is_allowed("aten::relu_") and operators.is_allowed("aten::bernoulli_")
    assert not operators.is_allowed("aten::__and___") and not operators.is_allowed("prim::min_")


def test_every_overload_is_torchs_own_or_a_function_of_this_package():
    for schema in torch._C._jit_get_all_schemas():
        if operators.is_allowed(schema.name):
            name = f"{schema.name}.{schema.overload_name}" if schema.overload_name else schema.name
            operator = operators.resolve(name)
            types = " ".join(str(each.type) for each in schema.arguments)
            if operator is None or operator.positional is None or "Tensor" not in types:
                continue
            assert not any(each.is_out for each in schema.arguments)
            written = [
                each for each in schema.arguments if each.alias_info and each.alias_info.is_write
            ]
            assert len(written) <= 1 and all(str(each.type) == "Tensor" for each in written), name


def test_overloads_that_there_are_not_and_those_with_results_among_the_arguments_are_none():
    for name in (
        "aten::add.Nonsense",
        "aten::add.out",
        "aten::relu.default",
        "aten::sort.Tensor",
        "prim::min.x",
    ):
        assert operators.resolve(name) is None, name


def test_values_of_other_kinds_than_the_schema_says_are_refused():
    x = torch.ones(2, 3)
    for name, inputs in (
        ("aten::relu", (None,)),
        ("aten::relu", ("x",)),
        ("aten::relu", ([x],)),
        ("aten::view", (x, [x])),
        ("aten::view", (x, [[1]])),
        ("aten::view", (x, [1.5])),
        ("aten::view", (x, [1] * (kinds.MAX_LIST + 1))),
        ("aten::cat", ([x, None], 0)),
        ("aten::cat", ([x, [x]], 0)),
        ("aten::sum.dim_IntList", (x, x)),
        ("aten::dropout", (x, 0.5, 1)),
        ("aten::to.device", (x, "cpu", 6)),
        ("aten::bernoulli", (x, x)),
    ):
        with pytest.raises(TypeError, match=f"{name}: argument"):
            of_inputs(name, *inputs)


def test_there_are_no_sparse_and_no_quantized_tensors():
    zeros = "aten::zeros"
    assert calls(zeros, [2], 6, 0).dtype == torch.float32
    for dtype, layout in ((6, 1), (12, None), (13, 0), (999, 0)):
        with pytest.raises(ValueError, match="expected"):
            calls(zeros, [2], dtype, layout)


def test_numbers_that_are_no_memory_format_are_refused():
    x = torch.ones(2, 3)
    for name, inputs in (
        ("aten::clone", (x, 4)),
        ("aten::contiguous", (x, -1)),
        ("aten::empty_like", (x, None, None, None, None, 2**31)),
        ("aten::to.dtype", (x, 6, False, False, 4)),
    ):
        with pytest.raises(TypeError, match="memory_format"):
            of_inputs(name, *inputs)
    assert of_inputs("aten::clone", torch.ones(1, 2, 3, 4), 2).is_contiguous(
        memory_format=torch.channels_last
    )


def test_torchs_own_conversions_work():
    x = torch.ones(2, 3)
    assert of_inputs("aten::add_.Tensor", x.clone(), 1).sum() == 12  # as traces have it
    assert of_inputs("aten::mul.Scalar", x, True).sum() == 6
    assert of_inputs(
        "aten::conv1d", x.view(1, 2, 3), torch.ones(1, 2, 1), None, [1], [0]
    ).shape == (1, 1, 3)
    assert of_inputs("aten::max.dim", x, 1)[1].tolist() == [0, 0]
    assert of_inputs("aten::index.Tensor", x, [None, torch.tensor([0])]).shape == (2, 1)
