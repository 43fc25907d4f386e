"""Messages of no use to a worker: each gets an error or ends its own connection, and nobody else
notices."""

import pytest
import torch
import websockets.exceptions

from syft import wire
from syft.exceptions import UnknownCommand
from syft.limits import Limits
from tests.network import DEADLINE, Server, call, exchange, raw, serving


@pytest.mark.parametrize(
    "name", ["stop", "add_dataset", "_dispatcher", "__init__", "datasets", "get_obj", "", "nothing"]
)
def test_nothing_else_can_be_called(proxy, name):
    with pytest.raises(UnknownCommand, match=f"no remote method '{name}'.*'hold'"):
        proxy.call(name)


def closing_code(connection) -> int:
    with pytest.raises(websockets.exceptions.ConnectionClosed) as info:
        connection.recv(timeout=DEADLINE)
    return info.value.rcvd.code


def test_first_message_that_is_no_greeting(server, proxy):
    fit = wire.encode(call("fit", dataset_key="blobs"))
    nameless = wire.encode(wire.Request(0, "hello", {"session": 1}))
    for message in (fit, nameless, wire.encode(wire.Reply(0, None))):
        with raw(server, session=None) as connection:
            connection.send(message)
            assert closing_code(connection) == 1002
    for message in ("hello", b"hello"):
        with raw(server, session=None) as connection:
            connection.send(message)
            assert isinstance(wire.decode(connection.recv(timeout=DEADLINE)), wire.Failure)
            assert closing_code(connection) == 1002
    assert proxy.objects_count_remote() == 0


def test_a_connection_without_a_message_is_closed_in_time():
    with (
        serving(Server(limits=Limits(handshake_seconds=0.2))) as server,
        raw(server, session=None) as connection,
    ):
        assert closing_code(connection) == 1002


@pytest.mark.parametrize("message", ["text", b"garbage", b"", wire.encode(call("fit"))[:15]])
def test_message_without_a_header_ends_the_connection(server, proxy, message):
    with raw(server) as connection:
        connection.send(message)
        assert closing_code(connection) == 1002
    assert proxy.objects_count_remote() == 0


SET = {"id": 1, "obj": torch.ones(1), "wrapped": False, "tags": [], "description": None}
OPERATE = {
    "stream": 1, "number": 0, "operations": [], "values": [], "geometries": [], "answer": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (wire.Request(5, "eval", {"code": "1"}), "UnknownCommand"),
        (wire.Request(5, "hello", {"session": "again"}), "UnknownCommand"),
        (wire.Request(5, "get", {}), "MalformedMessage"),
        (wire.Request(5, "call", {"name": "fit"}), "MalformedMessage"),
        (wire.Request(5, "call", {"name": ["fit"], "args": [], "kwargs": {}}), None),
        (wire.Request(5, "call", {"name": "hold", "args": 1, "kwargs": {}}), None),
        (wire.Request(5, "call", {"name": "hold", "args": [], "kwargs": {1: 1}}), None),
        (wire.Request(5, "set", {"objects": [{**SET, "obj": None}]}), None),
        (wire.Request(5, "set", {"objects": [{**SET, "id": [1]}]}), "MalformedMessage"),
        (wire.Request(5, "set", SET), "MalformedMessage"),
        (wire.Request(5, "operate", OPERATE), "RemoteOperationsOff"),
        (wire.Request(5, "operate", {**OPERATE, "operations": 1}), "MalformedMessage"),
        (wire.Request(5, "delete", {"ids": [[1]]}), None),
        (wire.Request(5, "search", {"query": None}), None),
        (wire.Request(5, "train_config", {"fields": {"model": 1}}), None),
        (wire.Reply(5, None), "MalformedMessage"),
    ],
)
def test_a_request_of_no_use_gets_a_failure(server, proxy, message, kind):
    with raw(server) as connection:
        failure = exchange(connection, message)
        assert isinstance(failure, wire.Failure)
        assert failure.id == 5
        assert kind in (failure.type, None)
        assert exchange(connection, call("objects_count")).result == 0
    assert proxy.objects_count_remote() == 0


def test_frame_that_is_cut_gets_a_failure(server):
    frame = wire.encode(wire.Request(5, "set", {"objects": [SET]}))
    with raw(server) as connection:
        connection.send(frame[:-1])
        failure = wire.decode(connection.recv(timeout=DEADLINE))
        assert (failure.id, failure.type) == (5, "MalformedMessage")
        assert exchange(connection, call("objects_count")).result == 0
