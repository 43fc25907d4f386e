"""Server optimizers: against torch's own on the same gradients, and against numbers by hand."""

import pytest
import torch
from torch import nn

from syft.exceptions import CheckpointMismatch, ModelMismatchError, UnknownOptimizer
from syft.federated import Checkpoint, ServerOptimizer
from syft.federated.federated_client import optimizer_names
from syft.frameworks.torch.fl.utils import federated_avg
from tests.models import classifier, same
from tests.test_utils import bits, kinds, normed, of

MOMENTUM = {"lr": 1.0, "momentum": 0.5}
USABLE = [name for name in optimizer_names() if name not in ("LBFGS", "SparseAdam")]


def arguments_of(name: str) -> dict[str, float]:
    return {"lr": 0.1} | ({"momentum": 0.9} if name in ("SGD", "RMSprop") else {})


class Matrix(nn.Module):
    """One matrix, which every optimizer takes; Muon takes nothing else."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(values)


def matrices(count: int) -> list[Matrix]:
    return [Matrix(torch.randn(3, 4)) for _ in range(count)]


def test_momentum_computed_by_hand():
    optimizer = ServerOptimizer("SGD", MOMENTUM)
    # Way to the average: 2, so 0 + 2. Then -1, with half of the 2 of before: 2 - 1 + 1.
    first = optimizer.step(of(0.0), of(2.0))
    second = optimizer.step(first, of(1.0))
    assert (first.weight.item(), second.weight.item()) == (2.0, 2.0)


def test_adam_computed_by_hand():
    """The first step of Adam is lr g / (|g| + eps)."""
    optimizer = ServerOptimizer("Adam", {"lr": 0.5, "eps": 1.0})
    moved = optimizer.step(of(1.0, 1.0), of(4.0, 0.0))
    assert moved.weight.tolist() == pytest.approx([1 + 0.5 * 3 / 4, 1 - 0.5 * 1 / 2])


def test_sgd_with_a_learning_rate_of_one_is_federated_averaging():
    models = [normed(batches) for batches in (1, 2, 3)]
    average = federated_avg(models)
    moved = ServerOptimizer().step(models[0], average)
    for name, tensor in average.state_dict().items():
        torch.testing.assert_close(moved.state_dict()[name], tensor)


@pytest.mark.parametrize("name", USABLE)
def test_every_optimizer_moves_the_model_as_it_does_in_torch(name):
    last, *averages = matrices(4)
    expected = Matrix(last.matrix.detach().clone())
    reference = getattr(torch.optim, name)(expected.parameters(), **arguments_of(name))
    optimizer = ServerOptimizer(name, arguments_of(name))
    for average in averages:
        expected.matrix.grad = expected.matrix.detach() - average.matrix.detach()
        reference.step()
        last = optimizer.step(last, average)
        assert same(last, expected)


@pytest.mark.parametrize("name", USABLE)
def test_a_resumed_optimizer_equals_one_without_a_break(name, tmp_path):
    model, *averages = matrices(6)
    optimizer = ServerOptimizer(name, arguments_of(name))
    for average in averages[:3]:
        model = optimizer.step(model, average)
    Checkpoint.of(model, 3, 0.1, {}, optimizer).save(tmp_path / "c")
    resumed, other = Matrix(torch.zeros(3, 4)), ServerOptimizer(name, arguments_of(name))
    Checkpoint.load(tmp_path / "c").restore(resumed, {}, other)
    for average in averages[3:]:
        model, resumed = optimizer.step(model, average), other.step(resumed, average)
        assert same(resumed, model)
    assert same(other.state(), optimizer.state())


def test_a_checkpoint_before_the_first_step_remembers_nothing(tmp_path):
    model, optimizer = classifier(), ServerOptimizer("SGD", MOMENTUM)
    assert optimizer.state() == {}
    Checkpoint.of(model, 1, 0.1, {}, optimizer).save(tmp_path / "c")
    Checkpoint.load(tmp_path / "c").restore(model, {}, ServerOptimizer("SGD", MOMENTUM))


def test_a_checkpoint_of_another_server_optimizer_is_refused(tmp_path):
    model, other = classifier(), classifier(seed=1)
    before = bits(other)
    Checkpoint.of(model, 1, 0.1, {}, ServerOptimizer("Adam", {"betas": (0.9, 0.99)})).save(
        tmp_path / "with"
    )
    Checkpoint.of(model, 1, 0.1, {}).save(tmp_path / "without")
    saved = '["Adam", {"betas": [0.9, 0.99]}]'
    for name, optimizer, observed, expected in (
        ("with", None, saved, "null"),
        ("with", ServerOptimizer("Adam", {"betas": (0.9, 0.9)}), saved, "0.9]"),
        ("without", ServerOptimizer(), "null", '["SGD", {"lr": 1.0}]'),
    ):
        with pytest.raises(CheckpointMismatch, match="its server optimizer is ") as refused:
            Checkpoint.load(tmp_path / name).restore(other, {}, optimizer)
        assert observed in str(refused.value) and expected in str(refused.value)
    assert bits(other) == before


@kinds
def test_models_of_every_kind_keep_their_buffers_and_frozen_parameters(kind):
    last, average = kind(normed(1)), federated_avg([kind(normed(2)), kind(normed(3))])
    before = bits(last), bits(average)
    optimizer = ServerOptimizer("SGD", MOMENTUM)
    moved = optimizer.step(optimizer.step(last, average), average)
    assert (bits(last), bits(average)) == before
    changed = {name for name, value in bits(moved).items() if value != before[1][name]}
    assert changed == {"layer.weight"}  # the layer behind it is untrained
    assert [each.requires_grad for each in moved.parameters()] == [
        each.requires_grad for each in average.parameters()
    ]


def test_what_it_remembers_is_told_by_name_and_copied():
    optimizer = ServerOptimizer("SGD", MOMENTUM)
    model = optimizer.step(of(0.0), of(2.0))
    state = optimizer.state()
    assert list(state) == ["weight.momentum_buffer"]
    state["weight.momentum_buffer"].zero_()
    assert optimizer.step(model, of(2.0)).weight.item() == 3.0


def test_the_arguments_are_copied():
    arguments = dict(MOMENTUM)
    optimizer = ServerOptimizer("SGD", arguments)
    arguments["momentum"] = 0.9
    assert optimizer.arguments == MOMENTUM


def test_models_of_another_structure_are_refused():
    optimizer = ServerOptimizer()
    with pytest.raises(ModelMismatchError, match="of model 'average'"):
        optimizer.step(of(1.0), of(1.0, 2.0))
    optimizer.step(of(1.0), of(2.0))
    with pytest.raises(ModelMismatchError, match="of model 'model'"):
        optimizer.step(of(1.0, 2.0), of(1.0, 2.0))


def test_an_optimizer_that_torch_does_not_have_is_refused():
    with pytest.raises(UnknownOptimizer, match="unknown optimizer 'FedAdam'"):
        ServerOptimizer("FedAdam")


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("LBFGS", None, "LBFGS cannot be a server optimizer: it evaluates the loss itself"),
        ("SparseAdam", None, "SparseAdam cannot be a server optimizer: it takes sparse"),
        ("Adam", {"momentum": 1}, r"Adam cannot be a server optimizer with \{'momentum': 1\}: "),
        ("SGD", {"lr": -1}, r"SGD cannot be a server optimizer with \{'lr': -1\}: Invalid"),
    ],
)
def test_what_cannot_be_a_server_optimizer_is_refused_before_the_first_round(
    name, arguments, reason
):
    with pytest.raises(ValueError, match=reason):
        ServerOptimizer(name, arguments)
