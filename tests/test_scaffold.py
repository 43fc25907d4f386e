"""SCAFFOLD: control variates by hand, and where they lead."""

from typing import Any

import pytest
import torch
from torch import nn

import syft as sy
from syft.exceptions import CheckpointMismatch, InvalidReply, ModelMismatchError
from syft.federated import Checkpoint, Scaffold, ServerOptimizer, run_round
from syft.frameworks.torch.fl.utils import federated_avg
from tests.models import Classifier, blobs, classifier, make_config, same
from tests.network import Server, proxy_of, serving

STEPS = {"max_nr_batches": 2, "epochs": 2, "optimizer_args": {"lr": 1 / 8}, "shuffle": False}
"""All numbers of the tests by hand are multiples of powers of two, so float32 has them exactly."""


class Slope(nn.Module):
    """A line through zero."""

    def __init__(self, slope: float = 0.0) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.slope * x


@torch.jit.script
def half_square(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (pred - target).square().mean() / 2


def pull(worker: sy.VirtualWorker, x: float, target: float) -> sy.VirtualWorker:
    """Give a worker one point: its gradient at the slope w is x (x w - target)."""
    worker.add_dataset(sy.BaseDataset(torch.tensor([x]), torch.tensor([target])), key="points")
    return worker


@pytest.fixture
def workers() -> list[sy.VirtualWorker]:
    """Two workers: gradient w - 1 at alice, 4 w + 4 at bob; their mean is zero at -0.6."""
    alice, bob = (sy.VirtualWorker(id=name) for name in ("alice", "bob"))
    return [pull(alice, 1.0, 1.0), pull(bob, 2.0, -2.0)]


def updates(scaffold: Scaffold | None, model: nn.Module, workers: Any, **settings: Any) -> Any:
    """Return worker id -> the model after a fit, taken in by `scaffold`."""
    models = {}
    for worker in workers:
        config = make_config(model, half_square, **{**STEPS, **settings})
        if scaffold is not None:
            scaffold.correct(config, worker.id)
        config.send(worker)
        worker.fit(dataset_key="points")
        models[worker.id] = config.model_ptr.get().obj
    if scaffold is not None:
        scaffold.update(model, models)
    return models


def slopes(models: Any) -> list[float]:
    return [model.slope.item() for model in models.values()]


def variates(scaffold: Scaffold) -> list[float]:
    return [each.item() for each in scaffold.state().values()]


@pytest.fixture
def scaffold() -> Scaffold:
    return Scaffold(["alice", "bob"])


@pytest.mark.parametrize("kind", ["virtual", "websocket"])
def test_two_rounds_computed_by_hand(scaffold, workers, kind):
    if kind == "virtual":
        check_two_rounds(scaffold, workers)
        return
    with (
        serving(pull(Server(), 1.0, 1.0)) as one,
        serving(pull(Server(id="bob"), 2.0, -2.0)) as other,
        proxy_of(one, id="alice") as alice,
        proxy_of(other, id="bob") as bob,
    ):
        check_two_rounds(scaffold, [alice, bob])


def check_two_rounds(scaffold, workers):
    model = Slope()
    models = updates(scaffold, model, workers)
    # Plain SGD: alice 0, 1/8, 15/64; bob 0, -1/2, -3/4. Mean gradients: way / (2 steps x 1/8).
    assert slopes(models) == [15 / 64, -3 / 4]
    assert variates(scaffold) == [-15 / 16, 3.0]
    # c is the mean, 33/32; so 63/32 is added to alice's gradients, and taken off bob's.
    assert scaffold.correction("alice")["slope"] == 63 / 32
    assert scaffold.correction("bob")["slope"] == -63 / 32
    model = federated_avg(models)
    assert model.slope == -33 / 128
    models = updates(scaffold, model, workers)
    # alice w + 31/32 from -33/128: -355/1024, -3477/8192. Bob 4 w + 65/32: -49/128, -57/128.
    assert slopes(models) == [-3477 / 8192, -57 / 128]
    # Again the means of their own gradients: w - 1 at -33/128 and -355/1024, and so on.
    assert variates(scaffold) == [-2667 / 2048, 87 / 32]


def test_who_is_left_out_keeps_its_control_variate_and_c_moves_by_the_share_of_the_others(
    scaffold, workers
):
    models = updates(scaffold, Slope(), workers)
    updates(scaffold, federated_avg(models), workers[:1])
    assert variates(scaffold) == [-2667 / 2048, 3.0]
    before, moved = 33 / 32, -2667 / 2048 + 15 / 16
    assert scaffold.correction("bob")["slope"] == before + moved / 2 - 3


def test_who_comes_for_the_first_time_is_corrected_by_c_alone(scaffold, workers):
    updates(scaffold, Slope(), workers[1:])
    assert scaffold.correction("alice")["slope"] == 3 / 2  # (0 + 3) / 2 - 0
    assert scaffold.correction("bob")["slope"] == 3 / 2 - 3


def test_corrections_add_up_to_zero_where_all_take_part(scaffold, alice):
    bob = sy.VirtualWorker(id="bob")
    bob.add_dataset(blobs(seed=1), key="blobs")
    model, models = classifier(), {}
    for worker in (alice, bob):
        config = scaffold.correct(make_config(model, max_nr_batches=2, epochs=2), worker.id)
        config.send(worker).model_ptr.garbage_collect_data = True
        worker.fit(dataset_key="blobs")
        models[worker.id] = config.model_ptr.get().obj
    assert scaffold.correction("alice") is None
    scaffold.update(model, models)
    one, other = (scaffold.correction(each) for each in ("alice", "bob"))
    assert one.keys() == dict(model.named_parameters()).keys()
    for name in one:
        assert one[name].abs().max() > 0
        torch.testing.assert_close(one[name], -other[name])


@pytest.mark.parametrize("everybody", [True, False], ids=["all", "every other"])
def test_it_comes_to_the_minimum_of_all_where_averaging_does_not(scaffold, workers, everybody):
    long = {"max_nr_batches": 10, "epochs": 10}
    averaged = corrected = Slope()
    for number in range(100):
        present = workers if everybody else [workers[number % 2]]
        averaged = federated_avg(updates(None, averaged, workers, **long))
        corrected = federated_avg(updates(scaffold, corrected, present, **long))
    # Alice ends at 1 - (7/8)^10 (1 - w), bob at -1 + (1/2)^10 (1 + w).
    assert averaged.slope.item() == pytest.approx(-0.15, abs=0.01)
    assert corrected.slope.item() == pytest.approx(-0.6, abs=0.01 if everybody else 0.2)


def test_a_server_optimizer_goes_on_top(scaffold, workers):
    optimizer = ServerOptimizer("SGD", {"lr": 1.0, "momentum": 0.5, "nesterov": True})
    model = Slope()
    for _ in range(60):
        models = updates(scaffold, model, workers)
        model = optimizer.step(model, federated_avg(models))
    assert model.slope.item() == pytest.approx(-0.6, abs=1e-3)


async def train(workers, model, rounds, scaffold, optimizer):
    async def fit(worker):
        config = make_config(model, half_square, **STEPS)
        scaffold.correct(config, worker.id).send(worker)
        loss = await worker.async_fit("points")
        return worker.id, (await config.model_ptr.async_get()).obj, loss

    for number in rounds:
        # Bob comes late, so the order of the first rounds is not that of the workers.
        present = workers[: 1 + (number > 1)] if number != 3 else workers[1:]
        models = (await run_round(present, fit)).models
        scaffold.update(model, models)
        model = optimizer.step(model, federated_avg(models))
    return model


async def test_a_resumed_run_equals_one_without_a_break(tmp_path, workers):
    def new() -> tuple[Scaffold, ServerOptimizer]:
        # Bob before alice, who is the first to take part.
        return Scaffold(["bob", "alice", "carla"]), ServerOptimizer(
            "SGD", {"lr": 0.9, "momentum": 0.3}
        )

    whole = new()
    expected = await train(workers, torch.jit.script(Slope(0.3)), range(1, 7), *whole)
    first, resumed, model = new(), new(), torch.jit.script(Slope())
    half = await train(workers, torch.jit.script(Slope(0.3)), range(1, 4), *first)
    Checkpoint.of(half, 3, 0.1, {}, first[1], first[0]).save(tmp_path / "c")
    Checkpoint.load(tmp_path / "c").restore(model, {}, resumed[1], resumed[0])
    assert same(resumed[0].state(), first[0].state())
    model = await train(workers, model, range(4, 7), *resumed)
    assert same(model, expected) and same(resumed[0].state(), whole[0].state())


def test_a_checkpoint_of_other_workers_is_refused(tmp_path, scaffold):
    model = classifier()
    Checkpoint.of(model, 1, 0.1, {}, scaffold=scaffold).save(tmp_path / "with")
    Checkpoint.of(model, 1, 0.1, {}).save(tmp_path / "without")
    Checkpoint.load(tmp_path / "with").restore(model, {}, scaffold=Scaffold(["alice", "bob"]))
    for name, other, text in (
        ("with", None, 'its SCAFFOLD is ["alice", "bob"]; expected null.'),
        ("with", Scaffold(["bob", "alice"]), 'expected ["bob", "alice"].'),
        ("without", scaffold, 'its SCAFFOLD is null; expected ["alice", "bob"].'),
    ):
        with pytest.raises(CheckpointMismatch) as refused:
            Checkpoint.load(tmp_path / name).restore(model, {}, scaffold=other)
        assert text in str(refused.value)


def test_what_it_tells_and_loads_is_copied(scaffold, workers):
    updates(scaffold, Slope(), workers)
    state, other = scaffold.state(), Scaffold(["alice", "bob"])
    assert list(state) == ["0.slope", "1.slope"]
    other.load(state)
    for tensor in state.values():
        tensor.zero_()
    assert variates(scaffold) == variates(other) == [-15 / 16, 3.0]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"optimizer": "Adam"}, "optimizer is 'Adam'; expected 'SGD'"),
        (
            {"optimizer_args": {"lr": 0.1, "momentum": 0.9}},
            "optimizer_args is {'lr': 0.1, 'momentum': 0.9}; expected 'lr' alone",
        ),
        ({"optimizer_args": None}, "optimizer_args is {}; expected 'lr' alone"),
        ({"proximal_mu": 0.1}, "proximal_mu is 0.1; expected 0"),
        ({"max_nr_batches": -1}, "max_nr_batches is -1; expected the number of steps, at least 1"),
        ({"epochs": 1}, r"epochs is 1; expected 2 \(max_nr_batches\) or more"),
    ],
    ids=str,
)
def test_a_config_whose_steps_are_not_those_of_plain_sgd_is_refused(scaffold, settings, text):
    config = make_config(**{**STEPS, **settings})
    with pytest.raises(ValueError, match=f"^Scaffold: {text}\\.$"):
        scaffold.correct(config, "alice")
    usual = {"lr": 0.1, "momentum": 0, "nesterov": False}
    scaffold.correct(make_config(**{**STEPS, "optimizer_args": usual}), "alice")


def test_unknown_workers_and_updates_without_a_config_are_refused(scaffold):
    for ids in ([], ["alice", "alice"]):
        with pytest.raises(ValueError, match=r"^Scaffold: workers are \["):
            Scaffold(ids)
    with pytest.raises(ValueError, match=r"^Scaffold: no worker 'carla'; expected one of \['alice"):
        scaffold.correct(make_config(**STEPS), "carla")
    with pytest.raises(ValueError, match=r"^Scaffold: worker 'bob' was sent no config of this"):
        scaffold.update(Slope(), {"bob": Slope(1.0)})


def test_updates_that_do_not_fit_or_are_enormous_change_nothing(scaffold):
    def sent() -> None:
        for worker in ("alice", "bob"):
            scaffold.correct(make_config(**STEPS), worker)

    sent()
    with pytest.raises(ModelMismatchError, match="of model 'bob'"):
        scaffold.update(Slope(), {"alice": Slope(1.0), "bob": Classifier()})
    with pytest.raises(InvalidReply, match="'bob'"):
        scaffold.update(Slope(), {"alice": Slope(1.0), "bob": Slope(3e38)})
    assert scaffold.state() == {}
    scaffold.update(Slope(), {"alice": Slope(1.0), "bob": Slope(2.0)})
    sent()
    with pytest.raises(ModelMismatchError, match="of model 'model'"):
        scaffold.update(Classifier(), {"alice": Classifier()})
