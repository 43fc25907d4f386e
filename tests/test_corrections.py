"""TrainConfig(correction=...): what a worker adds to its gradients, and what it refuses to add."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import syft as sy
from syft import wire
from syft.access.guard import Guard
from syft.access.limits import Limits
from syft.dispatch import Dispatcher
from syft.exceptions import LimitExceeded, ObjectNotFoundError
from syft.policy import Policy
from syft.wire.failures import unwrap
from tests.models import blobs, classifier, make_config, nll, same
from tests.network import Server, proxy_of, serving
from tests.test_federated_client import client_with
from tests.test_privacy import NO_NOISE, simple  # noqa: F401 - a fixture


def correction_of(model: nn.Module, value: float = 0.25) -> dict[str, torch.Tensor]:
    return {
        name: torch.full_like(each, value)
        for name, each in model.named_parameters()
        if each.requires_grad
    }


def fitted(worker: Any, model: Any, **settings: Any) -> tuple[Any, nn.Module]:
    config = make_config(model, **{"max_nr_batches": 1, "shuffle": False, **settings}).send(worker)
    loss = worker.fit(dataset_key="blobs")
    return loss, config.model_ptr.get().obj


def check_shift(without: nn.Module, corrected: nn.Module, correction: Any) -> None:
    """Check that the correction made the difference between two models, in one step."""
    for (name, one), other in zip(without.named_parameters(), corrected.parameters(), strict=True):
        torch.testing.assert_close(other, one - 0.1 * correction[name])


def test_a_correction_is_added_to_each_gradient_and_not_to_the_loss(worker):
    correction = correction_of(classifier())
    loss, without = fitted(worker, classifier())
    told, corrected = fitted(worker, classifier(), correction=correction)
    assert torch.equal(told, loss)
    check_shift(without, corrected, correction)


def test_a_correction_is_for_one_config(worker):
    _, without = fitted(worker, classifier())
    fitted(worker, classifier(), correction=correction_of(classifier()))
    assert same(fitted(worker, classifier())[1], without)


class Shared(nn.Module):
    """Two names for one matrix, and a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.other.weight = self.one.weight
        self.output = nn.Linear(4, 3)
        self.output.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(self.output(self.other(self.one(x))), dim=1)


@pytest.mark.parametrize(
    "kind", [copy.deepcopy, torch.jit.script, lambda model: torch.jit.trace(model, blobs().data)]
)
def test_shared_parameters_have_one_correction_and_frozen_ones_none(worker, kind):
    model = kind(Shared())
    correction = correction_of(model)
    assert correction.keys() == {"one.weight", "output.weight"}
    _, without = fitted(worker, model)
    _, corrected = fitted(worker, model, correction=correction)
    assert torch.equal(corrected.output.bias, model.output.bias)
    torch.testing.assert_close(corrected.one.weight, without.one.weight - 0.1 * 0.25)
    torch.testing.assert_close(corrected.output.weight, without.output.weight - 0.1 * 0.25)


class Words(nn.Module):
    """Has a sparse gradient, and none for a parameter that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.unused = nn.Embedding(5, 3, sparse=True), nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(self.words(x), dim=1)


def test_sparse_and_missing_gradients_are_corrected():
    data = sy.BaseDataset(torch.tensor([1, 1, 2]), torch.tensor([0, 1, 2]))
    trained = []
    for settings in ({}, {"correction_id": 2}):
        torch.manual_seed(0)
        client = client_with(Words(), dataset=data, **settings)
        client.set_obj(sy.ObjectWrapper(correction_of(Words()), 2))
        client.fit("blobs")
        trained.append(client.current_model())
    without, corrected = trained
    torch.testing.assert_close(corrected.words.weight, without.words.weight - 0.1 * 0.25)
    torch.testing.assert_close(corrected.unused, torch.full((2,), -0.1 * 0.25))


NAME = "output.bias"
WRONG = [
    ({NAME: torch.full((3,), torch.nan)}, "is not finite; expected finite values only"),
    ({NAME: torch.full((3,), -torch.inf)}, "is not finite; expected finite values only"),
    ({NAME: torch.zeros(1, 3)}, r"is \(1, 3\) torch.float32; expected \(3,\) torch.float32"),
    ({NAME: torch.zeros(3).double()}, r"is \(3,\) torch.float64; expected \(3,\) torch.float32"),
    ({NAME: [0.0, 0.0, 0.0]}, r"is <list>; expected \(3,\) torch.float32"),
    ({NAME: torch.zeros(3).numpy()}, r"is <ndarray \(3,\)>; expected \(3,\) torch.float32"),
    ({NAME: None}, r"is missing; expected \(3,\) torch.float32"),
    ({"x" * 1000: torch.zeros(3)}, r"is \(3,\) torch.float32; expected missing"),
]


@pytest.mark.parametrize(("change", "text"), WRONG)
def test_a_worker_names_what_is_wrong_with_a_correction(worker, change, text):
    correction = correction_of(classifier()) | change
    name = next(iter(change))
    shown = f"'{name}'" if name == NAME else "'x{56}\\.\\.\\."
    with pytest.raises(ValueError, match=f"TrainConfig: the correction of {shown} {text}\\. Send"):
        fitted(worker, classifier(), correction=correction)
    fitted(worker, classifier(), correction=correction_of(classifier()))


@pytest.fixture
def wired(alice):
    """Return what sends a worker a correction straight over the wire, and has it fit."""
    dispatcher = Dispatcher(alice, guard=Guard("alice", Limits(objects=6, object_bytes=200_000)))
    session = dispatcher.open_session("hostile")

    def ask(command: str, **arguments: Any) -> Any:
        frame = wire.encode(wire.Request(1, command, arguments))
        return unwrap(dispatcher.handle(frame, session), "alice")

    def fit(sent: Any, /, id: Any = 3, **fields: Any) -> Any:
        about = {"wrapped": True, "tags": [], "description": None}
        objects = enumerate([classifier(), nll, sent], start=1)
        packed = [{"id": number, "obj": obj, **about} for number, obj in objects]
        ids = {"model_id": 1, "loss_fn_id": 2, "correction_id": id}
        ask("train_config", fields=make_config().to_fields() | ids | fields, objects=packed)
        loss = ask("call", name="fit", args=["blobs"], kwargs={})
        ask("delete", ids=[1, 2, 3])
        return loss

    return fit


def test_corrections_are_counted_while_they_last(wired):
    """Of objects there are the three of a config, and those of the one before until it is gone."""
    for _ in range(20):
        assert wired(correction_of(classifier())) is not None
    with pytest.raises(LimitExceeded, match="bytes of one coordinator's objects"):
        wired({**correction_of(classifier()), "more": torch.zeros(50_000)})


@pytest.mark.parametrize("value", [[], 5, torch.zeros(3), "x" * 1000], ids=type)
def test_a_correction_that_is_no_map_is_refused(wired, value):
    with pytest.raises(ValueError, match=r"the correction is .*; expected a map") as refused:
        wired(value)
    assert len(str(refused.value)) < 2000
    assert wired(correction_of(classifier())) is not None


def test_a_model_is_no_correction_and_a_missing_one_is_named(wired):
    with pytest.raises(ValueError, match="the correction is <GraphModule>; expected a map"):
        wired(None, id=1)
    for missing in ({"id": 4}, {"id": 3}):
        with pytest.raises(ObjectNotFoundError):
            wired(None, **missing)


def test_tensors_do_not_come_as_a_setting_which_no_limit_counts(wired):
    with pytest.raises(TypeError, match="multiple values for keyword argument 'correction'"):
        wired({}, correction={"x": torch.zeros(3)})


def test_a_private_worker_adds_it_to_its_noised_gradients(simple):  # noqa: F811
    """It is not clipped with them, and not a part of what the owner's budget is about."""
    correction, models = correction_of(classifier(), 100.0), []
    with serving(Server(policy=Policy(privacy=NO_NOISE))) as server, proxy_of(server) as proxy:
        for settings in ({}, {"correction": correction}):
            models.append(fitted(proxy, classifier(), batch_size=20, **settings)[1])
        spent = server._dispatcher.guard.policy.privacy.spent
    check_shift(*models, correction)
    assert spent == 2  # an epoch each
