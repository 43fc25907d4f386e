"""Which operators a coordinator may have a worker run, and with what."""

import pytest
import torch

from syft.remote.operators import resolve, without_out

NEVER = """
aten::item aten::_local_scalar_dense aten::equal aten::allclose aten::is_nonzero aten::size
aten::as_strided aten::as_strided_ aten::set_ aten::set_.source_Tensor aten::resize_
aten::resize_as_ aten::_reshape_alias aten::data aten::record_stream aten::t_ aten::squeeze_
aten::transpose_ aten::maximum.out aten::add.out aten::rrelu_with_noise_ aten::mkldnn_rnn_layer
aten::max_pool2d_with_indices_backward aten::max_pool3d_with_indices_backward
aten::adaptive_max_pool2d_backward aten::_embedding_bag_dense_backward aten::_ctc_loss_backward
aten::embedding_dense_backward aten::nll_loss_backward aten::native_batch_norm_backward
aten::_foreach_add_.Scalar aten::requires_grad_ aten::tensor.float aten::append.t prim::device
aten::_cast_Float aten::save aten::from_file aten::nonsense aten::add.nonsense add relu
torch::relu
"""


@pytest.mark.parametrize("name", NEVER.split())
def test_what_a_coordinator_may_not_have_run_is_no_operator(name):
    assert resolve(name) is None


def test_no_kernel_of_a_backward_pass_is_allowed():
    for schema in torch._C._jit_get_all_schemas():
        if "backward" in schema.name:
            assert resolve(f"{schema.name}.{schema.overload_name}".rstrip(".")) is None


def test_an_operator_gives_tensors_and_nothing_else():
    for schema in torch._C._jit_get_all_schemas():
        if resolve(f"{schema.name}.{schema.overload_name}".rstrip(".")) is not None:
            assert {str(each.type) for each in schema.returns} <= {"Tensor", "List[Tensor]"}


def test_an_operator_is_called_as_torch_calls_it():
    operator = resolve("aten::_log_softmax")
    rows = torch.randn(3, 4)

    assert operator is not None and operator.name == "aten::_log_softmax"
    assert operator.function(rows, 1, False).equal(rows.log_softmax(1))


def test_a_view_that_hides_from_autograd_is_a_plain_view():
    operator = resolve("aten::_unsafe_view")
    rows = torch.zeros(3, 4)

    operator.function(rows, [12]).fill_(1)

    assert operator.name == "aten::_unsafe_view" and rows._version == 1


def test_what_writes_to_out_has_an_operator_that_gives_a_new_tensor():
    assert without_out("aten::maximum.out") == "aten::maximum"
    assert without_out("aten::div.out") == "aten::div.Tensor"
    assert without_out("aten::pow.Tensor_Scalar_out") == "aten::pow.Tensor_Scalar"
    assert without_out("aten::maximum") is None and without_out("aten::nonsense") is None


IMAGES = (1, 4, 8, 8)
BUILT = {
    "max_pool2d_with_indices": lambda x: run("max_pool2d_with_indices", x, [2, 2]),
    "max_pool3d_with_indices": lambda x: run("max_pool3d_with_indices", x, [2, 2, 2]),
    "adaptive_max_pool2d": lambda x: run("adaptive_max_pool2d", x, [2, 2]),
    "gather": lambda x: (run("gather", x, 0, index := torch.zeros(1, 4, 8, 8).long()), index),
    "index_select": lambda x: (run("index_select", x, 1, index := torch.tensor([0, 3])), index),
    "index": lambda x: (run("index.Tensor", x, [None, index := torch.tensor([0, 3])]), index),
    "scatter": lambda x: (
        run("scatter.src", torch.zeros(IMAGES), 1, index := torch.zeros(IMAGES).long(), x),
        index,
    ),
    "embedding": lambda x: (run("embedding", x.view(64, 4), index := torch.tensor([0, 3])), index),
    "embedding_bag": lambda x: run(
        "_embedding_bag", x.view(64, 4), torch.tensor([0, 3]), torch.tensor([0])
    )[:2],
    "nll_loss": lambda x: run_nll(x.view(64, 4), torch.zeros(64).long()),
    "sort": lambda x: run("sort", x),
    "cummax": lambda x: run("cummax", x, 3),
}


def run(name, *arguments):
    return resolve(f"aten::{name}").function(*arguments)


def run_nll(rows, target):
    return run("nll_loss_forward", rows, target, None, 1, -100)[0], target


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("through", ["itself", "detach", "_unsafe_view", "view.dtype", "alias"])
def test_indices_that_were_overwritten_end_the_backward_pass_with_an_error(name, through):
    images = torch.randn(IMAGES, requires_grad=True)
    result, indices = BUILT[name](images)

    if through == "_unsafe_view":
        target = run(through, indices, [-1])
    elif through == "view.dtype":
        target = run(through, indices, torch.float64)
    else:
        target = indices if through == "itself" else run(through, indices)
    run("fill_.Scalar", target, 10**6)

    assert indices._version > 0  # else what follows may end this process
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


def test_what_a_loss_keeps_for_its_backward_pass_is_not_handed_out():
    scores = torch.randn(10, 2, 5).log_softmax(-1).requires_grad_()
    arguments = (torch.tensor([[1, 2, 3], [2, 4, 1]]), [10, 9], [3, 2], 0, False)
    losses, kept = run("_ctc_loss", scores, *arguments)
    losses.sum().backward()

    expected = torch.nn.functional.ctc_loss(scores, *arguments[:3], reduction="sum")
    assert losses.sum().allclose(expected) and scores.grad is not None
    assert kept.shape == torch.ops.aten._ctc_loss(scores, *arguments)[1].shape
    assert not kept.any()
