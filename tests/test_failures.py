"""How failures are told: what is odd in them, on either side, reaches no terminal and raises
nothing else."""

import logging
import re

import pytest
import torch

import syft as sy
from syft import exceptions, wire
from syft.exceptions import (
    DatasetExists,
    DatasetNotFound,
    InvalidReply,
    LimitExceeded,
    MalformedMessage,
    RemoteError,
    SyftError,
    UnknownCommand,
    from_fields,
    plain,
    printable,
)
from syft.wire.failures import describe_call, describe_request, failure, unwrap

ODD = "\x1b[2J\x1b]0;owned\x07\r\nfake: line\u202egnp.exe\x9b31m\x7f\u2028\u2066\ud800"
SAFE = (
    r"\x1b[2J\x1b]0;owned\x07\x0d" + "\n" + r"fake: line\u202egnp.exe\x9b31m\x7f\u2028\u2066\ud800"
)
CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def test_calls_are_described_briefly():
    arguments = {"key": "mnist", "data": torch.zeros(2, 3), "long": "x" * 100, "model": [1]}
    text = describe_call("fit", (1, None), arguments)
    assert (
        text
        == f"fit(1, None, key='mnist', data=<Tensor (2, 3)>, long='{'x' * 56}..., model=<list>)"
    )


def test_descriptions_have_one_line_of_bounded_length_whatever_the_names():
    text = describe_call(ODD, [ODD], {ODD: ODD, "x" * 10**6: torch.ones(1).reshape([1] * 60)})
    assert not CONTROL.search(text) and "\n" not in text and len(text) <= 1000
    assert len(describe_call("fit", [1] * 10**4, {})) <= 1000


def test_a_request_is_described_by_the_call_that_it_asks_for():
    assert (
        describe_request("call", {"name": "fit", "args": [1], "kwargs": {"a": 2}}) == "fit(1, a=2)"
    )
    assert describe_request("get", {"id": 5}) == "get(id=5)"
    assert describe_request("call", {"name": 5}) == "call(name=5)"
    assert describe_request("call", {1: 2}) == "call(1=2)"


def test_a_reply_that_cannot_be_read_is_an_error_that_names_the_worker(monkeypatch):
    with pytest.raises(MalformedMessage, match="the reply of worker 'alice': 4 bytes; a header"):
        unwrap(b"SYFT", "alice")
    worker = sy.VirtualWorker(id="alice")
    packed = {"obj": 1, "state": None, "wrapped": False, "tags": 5, "description": None}
    monkeypatch.setitem(worker._dispatcher._commands, "get", lambda session, id: packed)
    with pytest.raises(MalformedMessage, match="the reply of worker 'alice': the tags of an obj"):
        worker.request_obj(1)


def test_unwrap_takes_replies_and_failures_only():
    assert unwrap(wire.encode(wire.Reply(1, "pong")), "alice") == "pong"
    with pytest.raises(MalformedMessage, match="a Request where a reply is expected"):
        unwrap(wire.encode(wire.Request(1, "get")), "alice")
    with pytest.raises(exceptions.DatasetExists) as raised:
        fields = {"worker": "alice", "dataset_key": "mnist"}
        unwrap(
            wire.encode(wire.Failure(1, "DatasetExists", "", fields, "call", "Traceback")), "alice"
        )
    assert raised.value.remote_traceback == "Traceback"


def test_odd_characters_become_printable():
    assert printable(ODD) == SAFE and printable(SAFE) == SAFE
    assert printable("naïve 数据 \t\n🎓") == "naïve 数据 \t\n🎓"
    assert printable("x" * 10**6, most=5) == "xxxxx"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ODD, SAFE),
        ([ODD, (1,)], [SAFE, [1]]),
        ({ODD: ODD}, {SAFE: SAFE}),
        (2**64, 2.0**64),
        (10**400, float("inf")),
        (torch.ones(1), "<Tensor>"),
        (None, None),
        (True, True),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_facts_become_plain(value, expected):
    assert plain(value) == expected


def test_long_lists_of_facts_are_cut():
    assert len(plain(list(range(10**6)))) == len(plain({str(i): i for i in range(10**4)})) == 1000


def raised(frame):
    with pytest.raises(SyftError) as caught:
        unwrap(frame, "alice")
    return caught.value


class Odd(Exception):
    """An error whose facts and text are whatever a coordinator sent."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError(ODD),
        Odd(ODD),
        DatasetNotFound("alice", ODD, [ODD]),
        UnknownCommand("alice", ODD, []),
        exceptions.ObjectNotFoundError("alice", torch.ones(10**4)),
        exceptions.ObjectNotFoundError("alice", object()),
        LimitExceeded("alice", "samples", 10**400, 5, "max_samples"),
        ValueError("x" * 50_000_000),
        DatasetNotFound("alice", "x" * 50_000_000, []),
    ],
    ids=lambda error: f"{type(error).__name__}",
)
def test_every_error_is_told_and_nothing_odd_is_in_it(error):
    frame = failure(1, f"fit({ODD})", error)
    assert len(frame) < 100_000
    told = raised(frame)
    for text in (str(told), repr(vars(told)), told.remote_traceback):
        assert not CONTROL.search(text)


def hostile(type="ValueError", message="", fields=None, call="fit()", traceback=""):
    return wire.encode(wire.Failure(1, type, message, fields or {}, call, traceback))


# Surrogates cannot travel.
TRAVELS = ODD[:-1]


def test_what_a_hostile_worker_says_is_made_printable():
    told = raised(hostile(TRAVELS, TRAVELS, {}, TRAVELS, TRAVELS))
    assert isinstance(told, RemoteError)
    for text in (
        str(told),
        told.type_name,
        told.call,
        told.message,
        told.traceback,
        told.remote_traceback,
    ):
        assert not CONTROL.search(text)
    told = raised(
        hostile(
            "DatasetExists", fields={"worker": TRAVELS, "dataset_key": TRAVELS}, traceback=TRAVELS
        )
    )
    assert isinstance(told, DatasetExists)
    assert not CONTROL.search(f"{told} {told.worker} {told.dataset_key} {told.remote_traceback}")


NESTED = "end"
for _ in range(300):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("type_name", "fields"),
    [
        ("DatasetNotFound", {"worker": "alice", "dataset_key": "mnist", "available": 5}),
        ("DatasetNotFound", {"worker": "alice", "dataset_key": "mnist", "available": [5]}),
        ("DatasetNotFound", {"worker": "alice", "dataset_key": "mnist", "available": NESTED}),
        ("DatasetNotFound", {"worker": "alice", "dataset_key": "mnist"}),
        (
            "DatasetNotFound",
            {"worker": "alice", "dataset_key": "mnist", "available": [], "more": 1},
        ),
        ("DatasetExists", {"worker": ["alice"], "dataset_key": "mnist"}),
        ("DatasetExists", {"1": "alice", "none": "mnist"}),
        (
            "LimitExceeded",
            {"worker": "alice", "what": "x", "observed": "many", "limit": None, "setting": "x"},
        ),
        ("MessageTooLarge", {"worker": "alice", "what": "x", "size": {}, "limit": 1.5}),
        (
            "WorkerUnreachable",
            {"worker": "a", "url": "u", "seconds": "s", "attempts": 1, "cause": "c"},
        ),
        ("QuorumNotReached", {"received": 1, "needed": 2, "failures": [1]}),
        ("QuorumNotReached", {"received": 1, "needed": 2, "failures": {"bob": 5}}),
        ("AddressInUse", {"worker": 1, "url": 2, "cause": 3}),
        ("RemoteError", {}),
        ("SyftErrors", {}),
        ("ExceptionGroup", {}),
        ("StopIteration", {}),
        ("UnicodeDecodeError", {}),
        ("SystemExit", {}),
        ("KeyboardInterrupt", {}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_odd_facts_become_a_remote_error_and_nothing_else(type_name, fields):
    told = raised(hostile(type_name, "reason", fields))
    assert isinstance(told, RemoteError) and not isinstance(told, (SystemExit, KeyboardInterrupt))
    assert (told.type_name, told.message) == (type_name, "reason") and "reason" in str(told)
    assert from_fields(type_name, fields) is None


def test_the_names_that_workers_made_up_are_not_kept_for_ever():
    before = exceptions._remote_error_of.cache_info().currsize
    for number in range(100):
        raised(hostile(f"Odd{number}"))
    assert exceptions._remote_error_of.cache_info().currsize == before


class Echo(sy.VirtualWorker):
    """Raises what it is told."""

    def raise_it(self, text):
        raise ValueError(text)


def test_neither_log_nor_error_holds_what_a_coordinator_would_print(caplog):
    worker = Echo(id="alice", verbose=True)
    with caplog.at_level(logging.DEBUG, "syft"):
        for name, kwargs in (
            (TRAVELS, {}),
            ("raise_it", {"text": TRAVELS}),
            ("raise_it", {TRAVELS: 1}),
        ):
            with pytest.raises(SyftError) as caught:
                worker.call(name, **kwargs)
            assert not CONTROL.search(f"{caught.value} {caught.value.remote_traceback}")
    assert len(caplog.messages) == 3
    assert not any(CONTROL.search(line) or "\n" in line for line in caplog.messages)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        5,
        "text",
        {"obj": 1},
        [1],
        {"obj": "x", "wrapped": False, "tags": [], "description": None},
    ],
)
def test_what_is_no_object_is_an_invalid_reply(answer, monkeypatch):
    worker = sy.VirtualWorker(id="alice")
    monkeypatch.setitem(worker._dispatcher._commands, "get", lambda session, id: answer)
    with pytest.raises(InvalidReply, match="worker 'alice' sent an invalid reply"):
        worker.request_obj(1)


FOUND = {
    "id": 1, "tags": [], "description": None,
    "shape": [2], "stride": [1], "dtype": 6, "requires_grad": False,
}  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        None,
        5,
        [5],
        [{}],
        [{"id": 1, "tags": 5, "description": None, "shape": None}],
        [{"id": 1, "tags": [], "description": None, "shape": "x"}],
        *([FOUND | {"shape": shape}] for shape in ([2**63], [-1], ["2"], [2.0], [[2]], [2, 2], 5)),
        *([FOUND | {"stride": stride}] for stride in ([2**63], [-1], [], None)),
        *([FOUND | {"dtype": dtype}] for dtype in (99, "x", [6])),
        [FOUND | {"shape": [2**32] * 2, "stride": [2**32, 1]}],
        [FOUND | {"shape": [1] * 65, "stride": [1] * 65}],
        [FOUND | {"more": 1}],
    ],
    ids=lambda answer: str(answer)[:120],
)
def test_what_is_no_result_of_a_search_is_a_malformed_message(answer, monkeypatch):
    worker = sy.VirtualWorker(id="alice")
    monkeypatch.setitem(worker._dispatcher._commands, "search", lambda session, query: answer)
    with pytest.raises(MalformedMessage, match="of worker 'alice': no result of a search"):
        worker.search("#x")
