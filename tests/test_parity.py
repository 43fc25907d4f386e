"""The virtual worker and the websocket worker on the same script: the same results, to the bit, and
the same errors."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import syft as sy
from syft.exceptions import RemoteError, SyftError
from syft.federated import ServerOptimizer
from syft.frameworks.torch.fl.utils import federated_avg
from tests.models import CLASSES, FEATURES, blobs, classifier, make_config, mse, nll, same
from tests.network import OwnError, RemoteMethods, Server, in_time, proxy_of, serving


class Virtual(RemoteMethods, sy.VirtualWorker):
    """The counterpart of `tests.network.Server` in this process."""

    def __init__(self) -> None:
        super().__init__(id="alice", auto_add=False)
        self.add_dataset(blobs(), key="blobs")


@contextlib.contextmanager
def both() -> Iterator[tuple[sy.workers.BaseWorker, sy.workers.BaseWorker]]:
    """A virtual worker, and a proxy of a websocket worker."""
    with serving(Server()) as server, proxy_of(server) as proxy:
        yield Virtual(), proxy


def trained(worker: Any, **settings: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    config = make_config(**settings)
    config.send(worker)
    loss = worker.call("fit", dataset_key="blobs")
    return loss, config.model_ptr.get().obj.state_dict()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"epochs": 2, "max_nr_batches": 4},
        {"shuffle": False, "optimizer": "Adam", "optimizer_args": {"betas": (0.8, 0.99)}},
        {"model": classifier(dropout=0.5), "epochs": 3},
        {"max_nr_batches": 0},
        {"epochs": 0},
    ],
    ids=["default", "epochs", "adam", "dropout", "no-batch", "no-epoch"],
)
def test_training_is_equal_to_the_bit(settings):
    with both() as workers:
        (loss, state), (other_loss, other_state) = (
            trained(worker, **settings) for worker in workers
        )
    if loss is None:
        assert other_loss is None
    else:
        assert torch.equal(loss, other_loss)
    assert state.keys() == other_state.keys()
    assert all(torch.equal(state[name], other_state[name]) for name in state)


def test_rounds_with_momentum_at_the_server_are_equal_to_the_bit():
    """They would enlarge any difference in the last digits."""
    with both() as workers:
        models = []
        for worker in workers:
            torch.manual_seed(1)
            model, optimizer = classifier(), ServerOptimizer("SGD", {"lr": 0.7, "momentum": 0.8})
            for _ in range(20):
                config = make_config(model, seed=None).send(worker)
                worker.call("fit", dataset_key="blobs")
                average = federated_avg({"alice": config.model_ptr.get().obj})
                model = optimizer.step(model, average)
            models.append(model)
    assert same(*models)


def test_the_loss_is_a_plain_number_in_a_tensor():
    with both() as workers:
        for loss in (trained(worker)[0] for worker in workers):
            assert not loss.requires_grad and loss.is_leaf
            assert loss.detach().item() == loss.item() > 0


def test_training_changes_the_model():
    with serving(Server()) as server, proxy_of(server) as proxy:
        _, state = trained(proxy)
    assert not torch.equal(state["output.weight"], classifier().state_dict()["output.weight"])


def evaluation(worker: Any) -> dict[str, Any]:
    make_config(optimizer_args=None).send(worker)
    return worker.call("evaluate", dataset_key="blobs", return_histograms=True, nr_bins=CLASSES)


def test_evaluation_is_equal():
    with both() as workers:
        virtual, remote = (evaluation(worker) for worker in workers)
    assert virtual.keys() == remote.keys()
    for name, value in virtual.items():
        assert type(remote[name]) is type(value)
        np.testing.assert_array_equal(remote[name], value)


async def test_a_threshold_arrives_whichever_way_it_goes():
    model, is_first = (
        torch.jit.script(torch.nn.Linear(FEATURES, 1)),
        (blobs().targets == 0).float().reshape(-1, 1),
    )
    expected = int(((model(blobs().data) > 0.25) == (is_first == 1)).sum())
    server, virtual = Server(), Virtual()
    for worker in (server, virtual):
        worker.add_dataset(sy.BaseDataset(blobs().data, is_first), key="first")
    with serving(server), proxy_of(server) as proxy:
        for worker in (virtual, proxy):
            make_config(model, mse).send(worker)
            results = [
                worker.evaluate("first", threshold=0.25),
                worker.call("evaluate", "first", threshold=0.25),
                await in_time(worker.async_evaluate("first", threshold=0.25)),
            ]
            assert [result["nr_correct_predictions"] for result in results] == [expected] * 3
            with pytest.raises(
                ValueError, match=r"the shape \(8, 1\); expected a column for each class, or"
            ):
                worker.call("evaluate", "first")


class WithoutThreshold(Server):
    """Its owner overrides evaluate() as PySyft 0.2 had it."""

    def evaluate(
        self,
        dataset_key,
        return_histograms=False,
        nr_bins=-1,
        return_loss=True,
        return_raw_accuracy=True,
        device="cpu",
    ):
        return {"dataset_key": dataset_key}


async def test_an_evaluation_without_a_threshold_does_not_mention_it():
    with serving(WithoutThreshold()) as server, proxy_of(server) as proxy:
        assert proxy.evaluate("blobs") == {"dataset_key": "blobs"}
        assert await in_time(proxy.async_evaluate("blobs", threshold=None)) == {
            "dataset_key": "blobs"
        }
        with pytest.raises(TypeError, match="threshold"):
            proxy.evaluate("blobs", threshold=0)


def test_stored_objects_are_equal():
    def script(worker: Any) -> list[Any]:
        x = torch.arange(6.0).reshape(2, 3)
        x.tags, x.description = {"#x", "#six"}, "six numbers"
        pointer = sy.local_worker.send(x, worker)
        found = worker.search("#x", "#six")
        fetched = pointer.get()
        return [
            worker.objects_count_remote(),
            [(each.shape, each.tags, each.description) for each in found],
            fetched.tolist(),
            fetched.tags,
            fetched.description,
        ]

    with both() as (virtual, remote):
        assert script(virtual) == script(remote)


def unknown_dataset(worker: Any) -> None:
    make_config().send(worker)
    worker.call("fit", dataset_key="nothing")


def unknown_optimizer(worker: Any) -> None:
    make_config(optimizer="Sgd").send(worker)
    worker.call("fit", dataset_key="blobs")


def wrong_optimizer_argument(worker: Any) -> None:
    make_config(optimizer_args={"lr": -1.0}).send(worker)
    worker.call("fit", dataset_key="blobs")


def wrong_shapes(worker: Any) -> None:
    make_config(model=torch.jit.script(torch.nn.Linear(FEATURES + 1, CLASSES)), loss_fn=nll).send(
        worker
    )
    worker.call("fit", dataset_key="blobs")


@pytest.mark.parametrize(
    ("script", "builtin"),
    [
        (unknown_dataset, ValueError),
        (unknown_optimizer, ValueError),
        (wrong_optimizer_argument, ValueError),
        (wrong_shapes, RuntimeError),
        (lambda worker: worker.call("fit", dataset_key="blobs"), ValueError),
        (
            lambda worker: worker.call("evaluate", dataset_key="blobs", return_histograms=True),
            ValueError,
        ),
        (lambda worker: worker.request_obj("nothing"), KeyError),
        (lambda worker: worker.call("add_dataset", dataset=None, key="new"), ValueError),
        (lambda worker: worker.call("scale", y=1), TypeError),
        (lambda worker: worker.call("thing"), TypeError),
        (lambda worker: worker.call("fail", kind="KeyError", text="key"), KeyError),
        (lambda worker: worker.call("fail", kind="OwnError", text="own"), RemoteError),
    ],
)
def test_errors_are_equal(script: Callable[[Any], Any], builtin: type[Exception]):
    errors = []
    with both() as workers:
        for worker in workers:
            with pytest.raises(builtin) as info:
                script(worker)
            errors.append(info.value)
    virtual, remote = errors
    assert isinstance(remote, SyftError) and not isinstance(remote, OwnError)
    assert type(remote) is type(virtual)
    for name, value in vars(virtual).items():
        if "traceback" not in name:
            assert getattr(remote, name) == value
    assert str(remote).splitlines()[0] == str(virtual).splitlines()[0]


async def test_asynchronous_calls_are_equal():
    async def script(worker: Any) -> list[Any]:
        config = make_config()
        config.send(worker)
        loss = await in_time(worker.async_fit(dataset_key="blobs", return_ids=[0]))
        counts = await in_time(worker.async_evaluate("blobs", return_loss=False))
        model = (await in_time(config.model_ptr.async_get())).obj
        doubled = await in_time(worker.async_call("scale", torch.ones(2)))
        return [loss.tolist(), counts, model.hidden.weight.tolist(), doubled.tolist()]

    with both() as (virtual, remote):
        assert await script(virtual) == await script(remote)
