"""Whose objects are whose: coordinators among themselves, and coordinators and the worker's
owner."""

import gc

import pytest
import torch

import syft as sy
from syft import wire
from syft.access.guard import Guard
from syft.dispatch import Dispatcher
from syft.exceptions import LimitExceeded, NotPermitted, ObjectNotFoundError
from syft.graph import GraphModule
from syft.limits import Limits
from syft.policy import Policy
from tests.models import blobs, classifier, nll
from tests.network import Server, proxy_of, serving
from tests.test_dispatch import Coordinator


class Owner(sy.VirtualWorker):
    """A worker whose owner offers methods that store and find objects."""

    def remember(self, obj_id, value):
        self.register_obj(torch.tensor(value), obj_id)

    def known(self):
        return sorted(map(str, self.current_objects()))

    def recall(self, obj_id):
        return self.get_obj(obj_id).tolist()

    def drop(self, obj_id):
        self.rm_obj(obj_id)

    def drop_all(self):
        return self.clear_objects(return_self=False)

    def tagged(self, tag):
        return [obj.tolist() for obj in self.find_by_tag(tag)]


def owned(obj_id, value, tags=(), private=False):
    tensor = torch.tensor(value)
    tensor.id, tensor.tags, tensor.private = obj_id, set(tags), private
    return tensor


OWNED = {
    "offered": owned("offered", 1.5, ["#x"]),
    "untagged": owned("untagged", 2.5),
    "private": owned("private", 3.5, ["#x"], private=True),
}


@pytest.fixture
def worker():
    worker = Owner(id="alice")
    for tensor in OWNED.values():
        worker.set_obj(tensor)
    worker.add_dataset(blobs(), "blobs")
    return worker


@pytest.fixture
def pair(worker):
    dispatcher = Dispatcher(worker)
    return Coordinator(dispatcher, "first"), Coordinator(dispatcher, "second")


def test_a_coordinator_sees_its_own_objects_and_what_the_owner_offers(pair):
    first, second = pair
    first.set("mine", torch.tensor(7.25), wrapped=False, tags=["#x"])
    for each, ids in ((first, {"mine", "offered"}), (second, {"offered"})):
        assert each.call("objects_count") == len(ids)
        assert {found["id"] for found in each.ask("search", query=["#x"])} == ids
        assert {found["id"] for found in each.ask("search", query=[])} == ids
        assert all(
            (obj_id in each.call("list_objects")) is (obj_id in ids) for obj_id in ("mine", *OWNED)
        )
    for obj_id in ("mine", "untagged", "private"):
        assert second.ask("search", query=[obj_id]) == []
        with pytest.raises(ObjectNotFoundError, match=f"has no object with id '{obj_id}'"):
            second.ask("get", id=obj_id)
        second.ask("delete", ids=[obj_id])
    assert not {"2.5", "3.5"} & set(
        first.call("list_objects").replace("(", " ").replace(")", " ").split()
    )
    assert first.ask("get", id="mine")["obj"].item() == 7.25


def test_two_coordinators_use_the_same_id_without_meeting(pair):
    for each, value in zip(pair, (1.0, 2.0), strict=True):
        each.set(5, torch.tensor(value), wrapped=False)
    pair[0].ask("delete", ids=[5])
    assert pair[1].ask("get", id=5)["obj"].item() == 2.0


def test_nobody_changes_what_the_owner_offers(pair, worker):
    first, second = pair
    first.set("offered", torch.tensor(-1.0), wrapped=False)
    assert (
        first.ask("get", id="offered")["obj"].item(),
        second.ask("get", id="offered")["obj"].item(),
    ) == (-1.0, 1.5)
    for _ in range(2):
        assert first.ask("get", id="offered")["obj"].item() == 1.5  # its own one was fetched
    first.ask("delete", ids=list(OWNED))
    first.call("clear_objects")
    assert worker.current_objects() == OWNED


def test_clearing_is_a_call_that_a_policy_may_refuse(worker):
    someone = Coordinator(
        Dispatcher(worker, guard=Guard("alice", policy=Policy(calls=["fit"]))), "someone"
    )
    someone.set(1, torch.ones(1), wrapped=False)
    with pytest.raises(NotPermitted, match="'clear_objects'"):
        someone.call("clear_objects")
    assert someone.ids() == {1, "offered"}


def test_training_uses_a_copy_of_a_model_that_the_owner_offers(pair, worker):
    offered = torch.jit.script(classifier())
    worker.set_obj(sy.ObjectWrapper(offered, "model", tags=["#model"]))
    before = classifier().output.weight
    for each in pair:
        each.set("loss", nll)
        each.train_config("model", "loss")
        assert each.call("fit", "blobs") is not None
        assert not torch.equal(each.ask("get", id="model")["state"]["output.weight"], before)
    assert torch.equal(offered.output.weight, before)
    assert torch.equal(worker.get_obj("model").obj.output.weight, before)


@pytest.mark.parametrize("obj_id", ["theirs", "untagged", "hidden"])
def test_a_config_cannot_name_a_model_of_others(pair, worker, obj_id):
    first, second = pair
    second.set("theirs", classifier())
    worker.set_obj(sy.ObjectWrapper(torch.jit.script(classifier()), "untagged"))
    hidden = sy.ObjectWrapper(torch.jit.script(classifier()), "hidden", tags=["#x"])
    hidden.private = True
    worker.set_obj(hidden)
    first.set("loss", nll)
    first.train_config(obj_id, "loss")
    for name in ("fit", "evaluate"):
        with pytest.raises(ObjectNotFoundError, match=obj_id):
            first.call(name, "blobs")


def test_methods_of_the_owners_own_work_on_the_objects_of_their_caller(pair, worker):
    first, second = pair
    first.call("remember", "kept", 1.0)
    second.call("remember", "kept", 2.0)
    assert (first.call("recall", "kept"), second.call("recall", "kept")) == (1.0, 2.0)
    assert first.call("known") == ["kept", "offered"]
    assert first.call("tagged", "#x") == [1.5]
    assert first.ask("get", id="kept")["obj"].item() == 1.0
    second.call("drop", "kept")
    second.call("drop", "offered")
    assert second.call("known") == ["offered"]
    first.call("remember", 1, 1.0)
    assert first.call("drop_all") is None and first.call("known") == ["offered"]
    assert worker.current_objects() == OWNED


def test_where_coordinator_and_owner_are_one_process_it_sees_all(worker):
    assert worker.objects_count_remote() == 3
    assert {pointer.id_at_location for pointer in worker.search("#x")} == {"offered", "private"}
    assert worker.request_obj("untagged").item() == 2.5 and worker.objects_count() == 2
    worker.clear_objects_remote()
    assert worker.objects_count() == 0


def test_a_proxy_that_connects_again_finds_its_objects():
    with serving(Server()) as server, proxy_of(server) as proxy, proxy_of(server) as other:
        pointer = sy.local_worker.send(torch.ones(2), proxy)
        proxy.close()
        assert (proxy.objects_count_remote(), other.objects_count_remote()) == (1, 0)
        assert pointer.get().tolist() == [1, 1]


def test_the_name_of_a_session_is_told_nobody():
    with serving(Server()) as server, proxy_of(server) as proxy:
        proxy.objects_count_remote()
        (session,) = server._dispatcher.sessions.values()
        assert len(session.name) == 32 and int(session.name, 16) >= 0
        assert session.name not in f"{session!r} {session.caller!r} {proxy.list_objects_remote()}"


# What counts


@pytest.fixture
def bounded(worker, monkeypatch):
    """A coordinator that may have 1,000 bytes in two objects, the graphs of small models aside."""
    monkeypatch.setattr(GraphModule, "graph_bytes", 0)
    limits = Limits(objects=2, object_bytes=1000)
    return Coordinator(Dispatcher(worker, guard=Guard("alice", limits)), "someone")


@pytest.mark.parametrize(
    ("tags", "description"),
    [([str(i) * 250 for i in range(4)], None), ([], "x" * 1000)],
    ids=["tags", "description"],
)
def test_tags_and_descriptions_count(bounded, tags, description):
    about = {"id": 1, "wrapped": False, "tags": tags, "description": description}
    with pytest.raises(LimitExceeded, match="object_bytes"):
        bounded.ask("set", objects=[{"obj": torch.ones(1), **about}])
    assert bounded.ids() == {"offered"}


def test_what_a_config_keeps_counts_until_the_next_config(bounded):
    bounded.set("model", torch.jit.script(torch.nn.Linear(100, 2)))
    bounded.set("loss", nll)
    bounded.train_config("model", "loss")
    bounded.ask("delete", ids=["model", "loss"])
    with pytest.raises(LimitExceeded, match=r"objects of one coordinator \(3\) would exceed"):
        bounded.set("another", torch.ones(1), wrapped=False)
    bounded.train_config("none", "none")
    bounded.set("another", torch.ones(225), wrapped=False)


def test_what_a_call_that_waits_will_use_counts(bounded):
    bounded.set("model", torch.jit.script(torch.nn.Linear(100, 2)))
    bounded.train_config("model", "loss")
    frame = wire.encode(wire.Request(3, "call", {"name": "fit", "args": ["blobs"], "kwargs": {}}))
    job = bounded.dispatcher.accept(frame, bounded.session)
    bounded.train_config("none", "none")
    bounded.ask("delete", ids=["model"])
    with pytest.raises(LimitExceeded, match="object_bytes"):
        bounded.set("another", torch.ones(100), wrapped=False)
    job.abandon()
    del job
    gc.collect()
    bounded.set("another", torch.ones(100), wrapped=False)


def test_a_copy_of_an_offered_model_counts(bounded, worker):
    worker.set_obj(
        sy.ObjectWrapper(torch.jit.script(torch.nn.Linear(1000, 1)), "large", tags=["#model"])
    )
    with pytest.raises(LimitExceeded, match="object_bytes"):
        bounded.train_config("large", "loss")
    assert bounded.session.training.config is None


def test_a_model_that_was_fetched_leaves_nothing_behind(bounded):
    bounded.set("model", classifier())
    bounded.set("loss", nll)
    bounded.train_config("model", "loss", optimizer="Adam")
    bounded.call("fit", "blobs")
    assert bounded.session.training.optimizer is not None
    bounded.ask("get", id="model")
    assert bounded.session.training.optimizer is None and bounded.ids() == {"loss", "offered"}
    bounded.set("model", classifier(seed=3))
    # The new one of this id is trained, not what is left of the old one.
    bounded.call("fit", "blobs")
    assert not torch.equal(
        bounded.ask("get", id="model")["state"]["output.weight"], classifier(seed=3).output.weight
    )
