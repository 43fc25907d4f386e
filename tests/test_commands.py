"""The table of commands: whatever else a hostile coordinator sends is refused, by name, and changes
nothing."""

import inspect
import re

import pytest
import torch

import syft as sy
from syft import commands, wire
from syft.commands import COMMANDS, MAX_MANY, OBJECT, TRAIN_CONFIG, check_arguments
from syft.dispatch import Dispatcher
from syft.exceptions import MalformedMessage, UnknownCommand
from syft.wire.failures import unwrap
from tests.models import make_config

STORED = {"id": 1, "obj": torch.ones(1), "wrapped": False, "tags": ["#x"], "description": None}
FIELDS = make_config().to_fields()
FLAT = torch.ones(1).reshape([1] * 65)

DEEP = "end"
for _ in range(101):
    DEEP = [DEEP]

REFUSED = [
    ("call", "args", [DEEP]),
    *(("set", "objects", value) for value in (STORED, None, 5, [5], [None], [STORED] * 4097)),
    *(("get", "id", value) for value in ({}, [], None)),
    *(("delete", "ids", value) for value in (1, None, [[1]], [None], {"a": 1})),
    *(
        ("search", "query", value)
        for value in ({"a": 1}, None, 5, "#x", [None], [["#x"]], ["#x"] * 65, [torch.ones(1)])
    ),
    *(("cancel", "request_id", value) for value in ([], "1", None, 1.0)),
    *(("call", "name", value) for value in (["fit"], None, 5, "x" * 257)),
    *(("call", "args", value) for value in (3, None, {"a": 1}, "fit", [FLAT])),
    *(("call", "kwargs", value) for value in ([], None, {1: 1}, {"x" * 257: 1}, {"a": FLAT})),
    *(("train_config", "fields", value) for value in (None, [], {1: 1})),
    *(("train_config", "fits", value) for value in (-1, 2**63, 1.0, True, None)),
    *(("train_config", "objects", value) for value in (STORED, None, [5], [STORED] * 4097)),
    *(("operate", "stream", value) for value in (None, "1", 1.0, True, 2**64)),
    *(("operate", "number", value) for value in (-1, 2**63, 1.0, True, None)),
    *(("operate", "operations", value) for value in (None, {"a": 1}, [[]] * 4097)),
    *(
        ("operate", argument, value)
        for argument in ("values", "geometries")
        for value in (1, None, {"a": 1}, [None], [[1]], [1] * 4097)
    ),
    *(("operate", "answer", value) for value in (1, None)),
]
WRONG_OBJECTS = [
    *(("obj", value) for value in (DEEP, (DEEP,), {"a": DEEP})),
    *(
        ("id", value)
        for value in (torch.ones(1), [1], (1,), None, True, 1.5, b"x", 2**64, "x" * 257)
    ),
    *(
        ("tags", value)
        for value in (5, "#x", None, {}, ["x"] * 65, ["x" * 257], [5], [None], [["#x"]])
    ),
    *(("description", value) for value in (5, b"x", ["x"], "x" * 4097)),
    *(("obj", value) for value in (FLAT, [FLAT], {"a": (1, [FLAT])})),
    *(("wrapped", value) for value in (1, None)),
]
WRONG_FIELDS = [
    *(("batch_size", value) for value in (1.5, "8", None, torch.ones(1), [8], True)),
    *(("epochs", value) for value in (1.5, None, float("inf"))),
    *(("max_nr_batches", value) for value in (float("nan"), float("inf"), "1", None, True)),
    *(("proximal_mu", value) for value in (float("nan"), float("inf"), "1", None, True)),
    *(("model_id", value) for value in (torch.ones(1), [1], 2**64)),
    *(("correction_id", value) for value in (None, torch.ones(1), [1], {"x": torch.ones(1)})),
    *(("optimizer", value) for value in (None, 5, "x" * 257)),
    *(
        ("optimizer_args", value)
        for value in (
            5,
            [1],
            {1: 1},
            {"lr": "x" * 257},
            {"lr": torch.ones(65)},
            {"lr": {}},
            {"betas": [[0.9]]},
        )
    ),
    ("shuffle", 1),
    ("seed", 1.5),
]


@pytest.fixture
def pair():
    """A dispatcher with two coordinators, of which the second has stored a tagged tensor."""
    dispatcher = Dispatcher(sy.VirtualWorker(id="alice"))
    pair = [dispatcher.open_session(name) for name in ("hostile", "honest")]
    ask(dispatcher, pair[1], "set", objects=[{**STORED, "id": "theirs"}])
    return dispatcher, *pair


def ask(dispatcher, session, command, **arguments):
    return unwrap(
        dispatcher.handle(wire.encode(wire.Request(9, command, arguments)), session), "alice"
    )


def call(dispatcher, session, name):
    return ask(dispatcher, session, "call", name=name, args=[], kwargs={})


VALID = {
    "set": {"objects": [STORED]},
    "get": {"id": 1},
    "delete": {"ids": [1]},
    "search": {"query": ["#x"]},
    "cancel": {"request_id": 1},
    "call": {"name": "fit", "args": [], "kwargs": {}},
    "operate": {
        "stream": 1,
        "number": 0,
        "operations": [["delete", [], [1], {}, 0, False, None]],
        "values": [1],
        "geometries": [1],
        "answer": True,
    },
    "train_config": {"fields": FIELDS},
}


def refusal(command, arguments):
    """Return the text with which arguments are refused; an assertion fails where they are not."""
    try:
        check_arguments(command, arguments)
    except MalformedMessage as refused:
        return str(refused)
    raise AssertionError(f"{command} takes {arguments!r:.200}")


def test_an_argument_of_another_kind_is_named():
    for command, argument, value in REFUSED:
        text = refusal(command, {**VALID[command], argument: value})
        kind = COMMANDS[command].arguments[argument].text
        assert text.startswith(f"malformed message: command {command!r}: argument {argument!r} is ")
        assert f" ({type(value).__name__}); expected {kind}." in text and len(text) < 400


def test_a_field_of_a_config_of_another_kind_is_named():
    for field, value in WRONG_FIELDS:
        text = refusal("train_config", {"fields": {**FIELDS, field: value}})
        assert f"command 'train_config': argument '{field}' is " in text


def test_a_field_of_an_object_of_another_kind_is_named():
    for field, value in WRONG_OBJECTS:
        wrong = {"objects": [STORED, {**STORED, field: value}]}
        for command, arguments in (("set", wrong), ("train_config", {"fields": FIELDS, **wrong})):
            text = refusal(command, arguments)
            assert text.startswith(f"malformed message: command {command!r}: argument {field!r} is")
            assert f" ({type(value).__name__}); expected {OBJECT[field].text}." in text


@pytest.mark.parametrize(
    "fields", [{}, {"id": 1}, {**STORED, "more": 1}, {1: 2}, {"x" * 10**6: 1}], ids=len
)
def test_an_object_with_other_fields_is_refused(fields):
    text = refusal("set", {"objects": [fields]})
    assert text.startswith("malformed message: command 'set' has an object with the fields ")
    assert text.endswith(f"; expected {sorted(OBJECT)}.") and len(text) < 450


def test_what_coordinators_send_is_taken():
    for command in COMMANDS:
        check_arguments(command, VALID[command])
    check_arguments("train_config", {"fields": FIELDS, "fits": 1, "objects": [STORED]})
    check_arguments("set", {"objects": [STORED] * MAX_MANY})


@pytest.mark.parametrize(
    "arguments",
    [
        {"id": -(2**63)},
        {"id": 2**64 - 1},
        {"id": "x" * 256},
        {"tags": ["x" * 256] * 64},
        {"description": "x" * 4096},
        {"obj": FLAT[0], "wrapped": True},
        {"obj": DEEP[0], "wrapped": True},
        {"obj": [None, {"a": (1.5, b"x")}]},
    ],
    ids=str,
)
def test_bounds_are_inclusive(arguments):
    check_arguments("set", {"objects": [{**STORED, **arguments}]})


@pytest.mark.parametrize(
    "arguments",
    [{}, {"id": 1, "more": 2}, {"ids": 1}, {1: 2}, {"x" * 10**6: 1}],
    ids=lambda x: str(x)[:20],
)
def test_arguments_of_other_names_are_refused(arguments):
    with pytest.raises(
        MalformedMessage, match=r"command 'get' has the arguments .*; expected \['id'\]"
    ) as refused:
        check_arguments("get", arguments)
    assert len(str(refused.value)) < 400


ATTACKS = [
    {"id": torch.ones(1)},
    {"id": [1]},
    {"tags": 5},
    {"tags": ["x" * 8_000_000]},
    {"description": 5},
    {"obj": torch.ones(1).reshape([1] * 5000)},
]


@pytest.mark.parametrize("arguments", ATTACKS, ids=lambda arguments: next(iter(arguments)))
def test_nobody_else_notices_an_attack(arguments, pair):
    dispatcher, hostile, honest = pair
    named = f"argument '{next(iter(arguments))}'|a shape is no list of at most 64 sizes"
    with pytest.raises(MalformedMessage, match=named):
        ask(dispatcher, hostile, "set", objects=[{**STORED, **arguments}])
    with pytest.raises(MalformedMessage, match="argument 'query'"):
        ask(dispatcher, hostile, "search", query={"#x": 1})
    assert [found["id"] for found in ask(dispatcher, honest, "search", query=["#x"])] == ["theirs"]
    assert "theirs" in call(dispatcher, honest, "list_objects")
    assert call(dispatcher, honest, "objects_count") == 1


def test_an_unknown_command_is_named_in_short(pair):
    dispatcher, hostile, _ = pair
    with pytest.raises(UnknownCommand) as refused:
        ask(dispatcher, hostile, "x" * 10**6)
    assert len(str(refused.value)) < 700


def test_every_command_has_a_handler_of_these_arguments():
    dispatcher = Dispatcher(sy.VirtualWorker(id="alice"))
    assert sorted([*dispatcher._commands, "call"]) == sorted(COMMANDS)
    for name, handler in dispatcher._commands.items():
        assert list(inspect.signature(handler).parameters) == ["session", *COMMANDS[name].arguments]


def test_the_table_in_the_text_is_the_table_in_the_code():
    rows = re.findall(
        r"^    (\w*) +(\w+)  +\S.*$",
        commands.__doc__.split("---\n", 1)[1].split("\n\n")[0],
        re.MULTILINE,
    )
    named, command = {}, ""
    for first, argument in rows:
        command = first or command
        named.setdefault(command, []).append(argument)
    assert named == {name: list(command.arguments) for name, command in COMMANDS.items()}


def test_every_field_of_a_config_has_a_kind():
    assert FIELDS.keys() <= TRAIN_CONFIG.keys()
