"""Attacks that once worked: each as a message or a graph that its author would send again."""

import asyncio
import struct

import msgpack
import pytest
import torch
from torch import nn

import syft as sy
from syft import wire
from syft.access.guard import Guard
from syft.access.limits import Limits
from syft.dispatch import Dispatcher
from syft.exceptions import (
    DatasetNotFound,
    LimitExceeded,
    MalformedMessage,
    NotSerializable,
    ObjectNotFoundError,
)
from syft.graph import GraphModule, Receiver, convert, read_structure
from syft.wire.failures import unwrap
from tests.graph.arriving import structure
from tests.models import blobs, classifier, make_config, nll


def ask(dispatcher, session, command, **arguments):
    frame = wire.encode(wire.Request(1, command, arguments))
    return unwrap(dispatcher.handle(frame, session), "alice")


def call(dispatcher, session, name, **kwargs):
    return ask(dispatcher, session, "call", name=name, args=[], kwargs=kwargs)


@pytest.fixture
def worker():
    worker = sy.VirtualWorker(id="alice", auto_add=False)
    worker.add_dataset(blobs(), key="blobs")
    return worker


def store(dispatcher, session, obj_id, obj):
    about = {"id": obj_id, "wrapped": True, "tags": [], "description": None}
    ask(dispatcher, session, "set", objects=[{"obj": obj, **about}])


def frame_of(result, blobs_, tensors=b""):
    parts = [msgpack.packb({"command": "set", "arguments": {"obj": result}}), tensors, *blobs_]
    head = struct.pack(">4sBBHQI", b"SYFT", wire.VERSION, 1, 0, 1, len(parts))
    return head + b"".join(struct.pack(">Q", len(part)) for part in parts) + b"".join(parts)


def ext(code, payload):
    return msgpack.ExtType(code, msgpack.packb(payload))


def test_a_blob_is_read_once_however_often_a_message_asks_for_it():
    no_tensors = struct.pack("<Q", 2) + b"{}"
    models = [ext(4, [0, [], [], True])] * 2
    texts = [ext(6, [0, False])] * 100_000
    graph = structure([0, [0], 1], operators=("aten::relu",))
    for values, blob in ((models, graph), (texts, b"x" * 1_000_000)):
        with pytest.raises(MalformedMessage, match="blob 0 is used twice"):
            wire.decode(frame_of(values, [blob], no_tensors), Receiver())


def test_a_model_is_told_from_a_small_message_by_the_number_of_its_parts():
    request = {"obj": nn.Linear(2, 1)}
    assert wire.has_blobs(wire.encode(wire.Request(1, "set", request)))
    assert not wire.has_blobs(wire.encode(wire.Request(1, "set", {"obj": torch.ones(2)})))


def test_long_texts_are_refused_at_both_ends(monkeypatch):
    monkeypatch.setattr("syft.wire.messages._MAX_TEXT", 10_000)
    with pytest.raises(NotSerializable, match=r"the limit is 10000\. Send bytes"):
        wire.encode(wire.Request(1, "call", {"text": "x" * 10_001}))
    no_tensors = struct.pack("<Q", 2) + b"{}"
    with pytest.raises(MalformedMessage, match="a text of 10001 bytes"):
        wire.decode(frame_of(ext(6, [0, True]), [b"x" * 10_001], no_tensors))


def test_what_the_owner_offers_is_never_trained_itself(worker):
    offered = torch.jit.script(nn.Linear(4, 3))
    worker.set_obj(sy.ObjectWrapper(offered, 4242, tags=["#model"]))
    before = offered.weight.clone()
    dispatcher = Dispatcher(worker)
    session = dispatcher.open_session("someone")
    store(dispatcher, session, 4242, classifier())  # hides the owner's
    store(dispatcher, session, 7, nll)
    fields = make_config().to_fields() | {"model_id": 4242, "loss_fn_id": 7}
    ask(dispatcher, session, "train_config", fields=fields)
    ask(dispatcher, session, "get", id=4242)
    with pytest.raises(ObjectNotFoundError):
        call(dispatcher, session, "fit", dataset_key="blobs")
    assert torch.equal(offered.weight, before)


def test_a_list_within_a_constant_belongs_to_one_call():
    packed = structure(
        [0, [-1, -2], 1],
        [1, [2, 0], 1],
        [2, [2], 1],
        operators=("prim::TupleIndex", "aten::append.t", "aten::len.t"),
        constants=({"tuple": [[]]}, 0),
        result=4,
    )
    model = GraphModule(read_structure(packed), [], [])
    assert [model(torch.ones(1)) for _ in range(3)] == [1, 1, 1]


class Keeper(nn.Module):
    """Makes much, and keeps a part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept = torch.ones(100_000)[:1]
        return x


def test_a_buffer_keeps_no_more_alive_than_itself():
    converted = convert(torch.jit.script(Keeper()))
    state = [tensor.clone() for tensor in converted.state]
    model = GraphModule(read_structure(converted.structure), state, converted.constants)
    model(torch.ones(1))
    assert model.kept.item() == 1 and model.kept.untyped_storage().nbytes() == 4


def test_a_key_of_a_dataset_is_shortened_without_making_a_text_of_it(worker):
    with pytest.raises(DatasetNotFound) as refused:
        make_config().send(worker)
        worker.call("evaluate", dataset_key=("\0" * 1000,))
    assert len(str(refused.value)) < 400


class Scalar(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight


def same(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return pred


def test_an_optimizer_that_calls_a_graph_without_operators_for_ever_ends_with_its_time(worker):
    settings = {"max_iter": 10**6, "max_eval": 10**6, "tolerance_grad": -1, "tolerance_change": -1}
    dispatcher = Dispatcher(worker, guard=Guard("alice", Limits(call_seconds=0.2)))
    session = dispatcher.open_session("someone")
    store(dispatcher, session, 1, torch.jit.script(Scalar()))
    store(dispatcher, session, 2, torch.jit.script(same))
    config = make_config(optimizer="LBFGS", optimizer_args=settings)
    fields = config.to_fields() | {"model_id": 1, "loss_fn_id": 2}
    ask(dispatcher, session, "train_config", fields=fields)
    with pytest.raises(LimitExceeded, match="call_seconds"):
        call(dispatcher, session, "fit", dataset_key="blobs")


def test_settings_of_optimizers_are_small_numbers(worker):
    dispatcher = Dispatcher(worker)
    fields = make_config(optimizer_args={"history_size": 200_000_000}).to_fields()
    with pytest.raises(MalformedMessage, match="argument 'optimizer_args'"):
        ask(dispatcher, dispatcher.open_session("someone"), "train_config", fields=fields)


@pytest.mark.parametrize("threshold", [torch.zeros(3), "0", True, [0]], ids=repr)
def test_a_threshold_is_a_number(worker, threshold):
    make_config().send(worker)
    with pytest.raises(ValueError, match=r"threshold is a .*; expected a number, or None"):
        asyncio.run(worker.async_evaluate("blobs", threshold=threshold))
