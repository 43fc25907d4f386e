"""VirtualWorker: a worker and its proxy in one process, with everything encoded on the way."""

import asyncio
import copy
import gc
import threading

import pytest
import torch
import torch.nn.functional as F

import syft as sy
from syft.exceptions import (
    CallTimeout,
    DatasetNotFound,
    NotSerializable,
    ObjectNotFoundError,
    RemoteError,
    UnknownCommand,
    WorkerNotFoundException,
)
from syft.objects import ObjectStorage, ObjectWrapper
from syft.workers.base import BaseWorker
from tests.models import Classifier, blobs, classifier, make_config, nll, train_locally
from tests.network import eventually

DEADLINE_S = 20


class Researcher(sy.VirtualWorker):
    """Offers methods of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.proceed = threading.Event()

    def scale(self, values, factor=2):
        return {"scaled": values * factor, "by": (factor,)}

    def fail(self, kind):
        raise {"ValueError": ValueError, "StopIteration": StopIteration}[kind]("reason")

    def wait(self):
        assert self.proceed.wait(DEADLINE_S)
        return "waited"


@pytest.fixture
def bob():
    return Researcher(id="bob")


@pytest.mark.parametrize(
    "kind", [torch.jit.script, lambda model: torch.jit.trace(model, blobs().data), copy.deepcopy]
)
@pytest.mark.parametrize(("epochs", "max_nr_batches"), [(1, -1), (3, -1), (3, 7)])
def test_a_round_with_one_worker_is_plain_local_training_bit_for_bit(
    alice, kind, epochs, max_nr_batches
):
    local = Classifier()
    config = make_config(kind(local), epochs=epochs, max_nr_batches=max_nr_batches).send(alice)
    loss = asyncio.run(alice.async_fit(dataset_key="blobs", return_ids=[0]))
    expected = train_locally(local, F.nll_loss, blobs(), config, "alice")
    trained = config.model_ptr.get().obj
    assert all(
        torch.equal(trained.state_dict()[name], value) for name, value in local.state_dict().items()
    )
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("optimizer_args", [{"lr": 0.01, "betas": (0.8, 0.9)}, None], ids=str)
def test_the_optimizer_keeps_its_state_between_calls(alice, optimizer_args):
    local = Classifier()
    config = make_config(
        torch.jit.script(local), optimizer="Adam", optimizer_args=optimizer_args
    ).send(alice)
    for _ in range(3):
        alice.call("fit", dataset_key="blobs")
    train_locally(local, F.nll_loss, blobs(), config, "alice", fits=range(3))
    assert torch.equal(config.get_model().obj.output.weight, local.output.weight)


def test_dropout_is_reproducible():
    losses, weights = [], []
    for seed in (1, 1, 2):
        alice = sy.VirtualWorker(id="alice")
        alice.add_dataset(blobs(), key="blobs")
        config = make_config(classifier(dropout=0.5), seed=seed, shuffle=False).send(alice)
        losses.append(asyncio.run(alice.async_fit("blobs")).item())
        weights.append(config.get_model().obj.output.weight)
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(weights[0], weights[1])


def test_evaluation_goes_the_same_ways(alice):
    make_config().send(alice)
    arguments = {"return_histograms": True, "nr_bins": 3}
    direct = alice.evaluate("blobs", **arguments)
    for result in (
        alice.call("evaluate", dataset_key="blobs", **arguments),
        asyncio.run(alice.async_evaluate("blobs", **arguments)),
    ):
        assert result.keys() == direct.keys()
        assert all(
            (result[key] == value).all() for key, value in direct.items() if "histogram" in key
        )
        assert all(result[key] == value for key, value in direct.items() if "histogram" not in key)
    assert direct["nr_predictions"] == 20


def test_a_model_can_be_wrapped_sent_used_and_fetched(alice):
    model = classifier()
    pointer = sy.local_worker.send(ObjectWrapper(model, id=12, tags=["#model"]), alice)
    assert isinstance(alice.get_obj(12), ObjectWrapper) and alice.get_obj(12).obj is not model
    fetched = pointer.get()
    assert (fetched.id, fetched.tags) == (12, ["#model"])
    assert torch.equal(fetched(blobs().data), model(blobs().data))
    assert alice.objects_count() == 0


def test_the_object_goes_with_its_pointer(alice):
    pointer = sy.local_worker.send(torch.ones(2), alice)
    assert alice.objects_count_remote() == 1
    del pointer
    assert alice.objects_count_remote() == 0


@pytest.mark.parametrize(
    "how", [{"garbage_collect_data": False}, {"create_pointer": False}], ids=str
)
def test_the_object_stays_if_it_shall(alice, how):
    pointer = sy.local_worker.send(torch.ones(2), alice, **how)
    assert (pointer is None) is ("create_pointer" in how)
    del pointer
    assert alice.objects_count() == 1


def test_a_config_that_was_sent_works_without_its_pointers(alice):
    make_config().send(alice)  # the pointers go at once
    assert alice.objects_count() == 0
    assert asyncio.run(alice.async_fit("blobs")) is not None
    assert alice.call("evaluate", dataset_key="blobs")["nr_predictions"] == 20


def test_rounds_leave_nothing_behind(alice):
    counts, model = set(), classifier()
    for _ in range(50):
        config = make_config(model, max_nr_batches=1).send(alice)
        alice.call("fit", dataset_key="blobs")
        config.model_ptr.get()
        counts.add(alice.objects_count())
        config = make_config(model).send(alice)
        alice.call("evaluate", dataset_key="blobs", return_loss=False)
        counts.add(alice.objects_count())
    # The loss function, once its model was fetched; a model and a loss function.
    assert counts == {1, 2}


def test_a_tensor_goes_with_its_pointer_but_never_while_python_collects_garbage(alice):
    sy.TorchHook(torch)
    pointer = torch.ones(2).send(alice)
    cycle = [torch.zeros(2).send(alice)]
    cycle.append(cycle)
    ids = [pointer.id_at_location, cycle[0].id_at_location]
    del pointer
    assert set(alice._objects) == {ids[1]}
    # Python 3.10 and 3.11 crash now and then if it is deleted in the middle of this.
    del cycle
    gc.collect()
    assert set(alice._objects) == {ids[1]}
    kept = torch.ones(1).send(alice)
    assert set(alice._objects) == {kept.id_at_location}


def test_what_was_fetched_is_gone(alice):
    config = make_config().send(alice)
    config.model_ptr.get()
    with pytest.raises(ObjectNotFoundError) as refused:
        config.model_ptr.get()
    assert isinstance(refused.value, KeyError)
    with pytest.raises(ObjectNotFoundError):
        alice.call("fit", dataset_key="blobs")


def test_objects_are_found_by_tags_and_by_id(alice):
    sy.TorchHook(torch)
    kept = [
        torch.zeros(2).tag("#x").send(alice),
        torch.zeros(3).tag("#x", "#y").describe("three").send(alice),
    ]
    assert [pointer.shape for pointer in alice.search("#x")] == [(2,), (3,)]
    (found,) = alice.search(["#x", "#y"])
    assert found.tags == {"#x", "#y"} and found.description == "three"
    assert [pointer.id_at_location for pointer in alice.search("#x", "#y")] == [
        kept[1].id_at_location
    ]
    assert [pointer.shape for pointer in alice.search(kept[0].id_at_location)] == [(2,)]
    assert alice.search("#none") == []
    assert alice.objects_count() == 2  # the pointers that were found collect nothing
    assert torch.equal(found.get(), torch.zeros(3))


def test_tensors_can_be_there_from_the_start():
    tensor = torch.ones(1)
    tensor.id = "ones"
    worker = sy.VirtualWorker(id="carol", data=[tensor, torch.zeros(1)])
    assert worker.objects_count() == 2 and worker.request_obj("ones").item() == 1


def test_objects_are_listed_counted_and_cleared(alice):
    config = make_config().send(alice)
    assert alice.objects_count_remote() == 2
    assert f"{config._model_id}: <ObjectWrapper" in alice.list_objects_remote()
    assert str(alice) == "<VirtualWorker id:alice #objects:2>"
    alice.clear_objects_remote()
    assert (alice.objects_count_remote(), alice.list_objects_remote()) == (0, "{}")
    assert alice.train_config is None


def test_methods_of_a_subclass_take_and_return_tensors(bob):
    for result in (
        bob.call("scale", torch.ones(2), factor=3),
        bob._send_msg_and_deserialize("scale", values=torch.ones(2), factor=3, return_ids=[0]),
        asyncio.run(bob.async_call("scale", torch.ones(2), 3)),
        asyncio.run(bob._async_send_msg_and_deserialize("scale", torch.ones(2), factor=3)),
    ):
        assert result["by"] == (3,) and result["scaled"].tolist() == [3, 3]


@pytest.mark.parametrize(
    "use",
    [lambda bob, *a: bob.call(*a), lambda bob, *a: asyncio.run(bob.async_call(*a))],
    ids=["call", "async_call"],
)
def test_errors_name_worker_and_call_and_keep_their_type(bob, use):
    with pytest.raises(
        ValueError, match=r"worker 'bob' failed in fail\('ValueError'\): ValueError: reason"
    ) as failed:
        use(bob, "fail", "ValueError")
    assert isinstance(failed.value, RemoteError)
    assert 'raise {"ValueError"' in failed.value.traceback == failed.value.remote_traceback
    with pytest.raises(RemoteError, match="StopIteration: reason"):
        use(bob, "fail", "StopIteration")
    with pytest.raises(UnknownCommand, match="offers no remote method 'add_dataset'"):
        use(bob, "add_dataset", [], "key")
    with pytest.raises(DatasetNotFound, match="worker 'bob' has no dataset 'mnist'") as refused:
        make_config().send(bob)
        use(bob, "fit", "mnist")
    assert (
        isinstance(refused.value, ValueError)
        and "federated_client.py" in refused.value.remote_traceback
    )
    assert use(bob, "scale", 1) == {"scaled": 2, "by": (2,)}


async def test_other_coroutines_go_on_during_a_call(bob):
    async def release():
        bob.proceed.set()

    assert await asyncio.gather(bob.async_call("wait"), release()) == ["waited", None]


TIMED_OUT = r"'bob' did not answer wait\(\) within 0\.01 s"


async def test_a_call_that_takes_too_long_is_given_up(bob):
    try:
        with pytest.raises(CallTimeout, match=TIMED_OUT):
            await bob.async_call("wait", timeout=0.01)
    finally:
        bob.proceed.set()  # the event loop waits for its threads


def test_a_blocking_call_that_takes_too_long_is_given_up(bob):
    try:
        with pytest.raises(CallTimeout, match=TIMED_OUT):
            bob.call("wait", timeout=0.01)
    finally:
        bob.proceed.set()
    assert bob.call("wait", timeout=DEADLINE_S) == "waited"


def test_a_fit_that_takes_too_long_ends_before_its_next_batch(alice):
    make_config(batch_size=1, epochs=10**6).send(alice)
    before = threading.active_count()
    with pytest.raises(CallTimeout):
        alice.call("fit", "blobs", timeout=0.2)
    assert eventually(lambda: threading.active_count() == before)


async def test_a_refusal_carries_the_remote_traceback_whoever_waits(bob):
    for call in (bob.async_call("add_dataset"), asyncio.to_thread(bob.call, "add_dataset")):
        with pytest.raises(UnknownCommand) as refused:
            await call
        assert "in accept" in refused.value.remote_traceback


def test_a_worker_sets_up_its_store_once(monkeypatch):
    times = []
    monkeypatch.setattr(
        ObjectStorage,
        "__init__",
        lambda self, init=ObjectStorage.__init__: [times.append(1), init(self)][1],
    )
    sy.VirtualWorker(id="once")
    assert times == [1]


def test_what_carries_no_requests_is_no_worker():
    with pytest.raises(TypeError, match="abstract"):
        BaseWorker(id="nobody")


def test_workers_find_each_other_by_id(alice):
    assert sy.local_worker.get_worker("alice") is alice
    assert sy.local_worker.get_worker(alice) is alice
    hidden = sy.VirtualWorker(id="hidden", auto_add=False)
    with pytest.raises(KeyError, match="no worker 'hidden' is known in this process"):
        sy.local_worker.get_worker("hidden")
    sy.local_worker.add_workers([hidden])
    assert sy.local_worker.get_worker("hidden") is hidden
    hidden.remove_worker_from_local_worker_registry()
    with pytest.raises(KeyError):
        sy.local_worker.get_worker("hidden")


def test_a_worker_that_is_not_known_is_an_error_unless_its_id_will_do(caplog):
    with pytest.raises(WorkerNotFoundException) as refused:
        sy.local_worker.get_worker("dave", fail_hard=True)
    assert isinstance(refused.value, KeyError) and "'me'" in str(refused.value)
    assert sy.local_worker.get_worker("dave", fail_hard=False) == "dave"
    assert caplog.messages == ["worker me: no worker 'dave' is known in this process"]


def test_an_id_that_a_worker_of_another_class_takes_is_logged(alice, caplog):
    again = sy.VirtualWorker(id="alice")
    assert sy.local_worker.get_worker("alice") is again and caplog.messages == []
    proxy = sy.WebsocketClientWorker(None, "localhost", 1, id="alice", connect=False)
    assert sy.local_worker.get_worker("alice") is proxy
    expected = (
        "worker alice: this id now means a WebsocketClientWorker; "
        "the VirtualWorker that had it is forgotten"
    )
    assert caplog.messages == [expected]


def test_an_object_can_be_fetched_from_another_worker_by_id(alice):
    pointer = sy.local_worker.send(torch.ones(1), "alice")
    assert sy.local_worker.request_obj(pointer.id_at_location, location="alice").item() == 1


def test_only_tensors_and_wrappers_are_sent(alice):
    with pytest.raises(
        TypeError, match="cannot send a list; expected a tensor or an ObjectWrapper"
    ):
        sy.local_worker.send([1], alice)


def test_a_pointer_is_not_sent_as_a_function(alice):
    with pytest.raises(
        NotSerializable,
        match=r"^\[PointerTensor \| me:.* -> alice:.*\] cannot be sent: .*\.get\(\)",
    ):
        alice.call("fit", sy.local_worker.send(torch.ones(1), alice))


def test_calls_are_noted_if_asked_for():
    quiet, noting = sy.VirtualWorker(id="quiet"), sy.VirtualWorker(id="noting", log_msgs=True)
    for worker in (quiet, noting):
        make_config(loss_fn=nll).send(worker)
    assert quiet.msg_history == []
    assert [call.partition("(")[0] for call in noting.msg_history] == ["train_config"]
