"""Structures of others: each that is no structure is refused, with the place, and in little time
and memory."""

import contextlib
import gc
import tracemalloc

import msgpack
import pytest
import torch
from torch import nn

from syft.exceptions import MalformedMessage, OperatorNotAllowed
from syft.graph import check, convert, read_structure
from syft.graph.check import MAX_STRUCTURE_BYTES, MAX_VALUES
from syft.graph.convert import MAX_NODES
from tests.graph.arriving import structure

RELU = {"operators": ("aten::relu",)}
ADD = {"operators": ("aten::add.Scalar",), "constants": (1,)}
IF = {"operators": ("prim::If",), "constants": (True,)}
LOOP = {"operators": ("prim::Loop",), "constants": (1, True)}
PLACE = ["w", 0, True, "float32", [2]]


def nested(levels, inner=()):
    value = list(inner)
    for _ in range(levels):
        value = [value]
    return value


def blocks_in_blocks(depth):
    nodes = []
    for _ in range(depth):
        nodes = [[0, [-1], 0, [[0, nodes, []], [0, [], []]]]]
    return nodes


def changed(**fields):
    """Return a structure with other fields, whatever they hold."""
    return msgpack.packb(msgpack.unpackb(structure()) | fields)


REFUSED = {
    "not msgpack": (b"\xc1", "no msgpack"),
    "more than one value": (b"\x01\x01", "no msgpack"),
    "not a map": (msgpack.packb([1]), "fields are not"),
    "field missing": (msgpack.packb({"arguments": []}), "fields are not"),
    "field too many": (structure(more=1), "fields are not"),
    "keys that are no texts": (msgpack.packb({1: 2}), "no msgpack|fields are not"),
    "field of another type": (structure(nodes={}), "nodes is dict; expected list"),
    "result that is a bool": (structure(result=True), "result is bool"),
    "result beyond the values": (structure(result=2), "used before it is defined"),
    "result beyond the constants": (structure(result=-1), "used before it is defined"),
    "argument without name": (changed(arguments=[[]]), "an argument is no"),
    "node of too few fields": (structure([0, [0]], **RELU), "a node is no"),
    "node that is a number": (structure(7, **RELU), "a node is no"),
    "operator beyond the list": (structure([1, [0], 1], **RELU), "operator of a node is 1"),
    "operator that is negative": (structure([-1, [0], 1], **RELU), "operator of a node is -1"),
    "operator that is a bool": (structure([False, [0], 1], **RELU), "operator of a node is False"),
    "value before it is defined": (structure([0, [2], 1], **RELU), "value 2 is used before"),
    "value that is a list": (structure([0, [[0]], 1], **RELU), "value list is used before"),
    "constant beyond the list": (structure([0, [0, -2], 1], **ADD), "value -2 is used before"),
    "too few arguments": (structure([0, [], 1], **RELU), "0 arguments; expected 1 to 1"),
    "too many arguments": (structure([0, [0, 0], 1], **RELU), "2 arguments; expected 1 to 1"),
    "a billion results": (structure([0, [0], 10**9], **RELU), "1000000000 results"),
    "results below 0": (structure([0, [0], -1], **RELU), "-1 results"),
    "blocks of an operator without": (
        structure([0, [0], 1, [[0, [], []]]], **RELU),
        "other blocks",
    ),
    "an If with one block": (structure([0, [-1], 0, [[0, [], []]]], **IF), "other blocks"),
    "an If with other results": (
        structure([0, [-1], 1, [[0, [], []], [0, [], []]]], **IF),
        "other inputs or results",
    ),
    "an If with inputs": (
        structure([0, [-1], 0, [[1, [], []], [0, [], []]]], **IF),
        "other inputs or results",
    ),
    "a Loop without its turn": (
        structure([0, [-1, -2], 0, [[0, [], [-2]]]], **LOOP),
        "other inputs or results",
    ),
    "a billion inputs of a block": (
        structure([0, [-1, -2], 0, [[10**9, [], [-2]]]], **LOOP),
        "1000000000 results",
    ),
    "a block that is no block": (structure([0, [-1, -2], 0, [7]], **LOOP), "a block is no"),
    "what a block defines, outside": (
        structure([0, [-1, -2], 0, [[1, [], [-2]]]], **LOOP, result=2),
        "value 2 is used",
    ),
    "blocks too deep": (structure(*blocks_in_blocks(70), **IF), "64 deep"),
    "more nodes than there may be": (
        structure(*[[0, [0], 0]] * (MAX_NODES + 1), **RELU),
        "more than 50000 nodes",
    ),
    "more values than there may be": (
        structure(*[[0, [0], MAX_VALUES // 2]] * 3, **RELU),
        "at most",
    ),
    "state that is no list": (structure(state=(7,)), "an entry of its state"),
    "a name with a slash": (structure(state=(["a/b", *PLACE[1:]],)), "no name of a parameter"),
    "a name with an empty part": (
        structure(state=(["a..b", *PLACE[1:]],)),
        "no name of a parameter",
    ),
    "a name with a line break": (structure(state=(["a\n", *PLACE[1:]],)), "no name of a parameter"),
    "a name that is too long": (
        structure(state=(["a" * 257, *PLACE[1:]],)),
        "no name of a parameter",
    ),
    "a name that is too deep": (
        structure(state=([".".join("a" * 70), *PLACE[1:]],)),
        "no name of a parameter",
    ),
    "a name that is a list": (structure(state=([[], *PLACE[1:]],)), "no name of a parameter"),
    "a name twice": (structure(state=(PLACE, PLACE)), "occurs twice"),
    "an argument twice": (structure(arguments=("x", "x")), "occurs twice"),
    "names with many modules": (
        structure(state=[[f"m{i}.w", *PLACE[1:]] for i in range(10_001)]),
        "2000 modules",
    ),
    "a kind that there is not": (structure(state=(["w", 2, True, "float32", [2]],)), "of kind 2"),
    "a flag that is a number": (structure(state=(["w", 0, 1, "float32", [2]],)), "requires_grad 1"),
    "a dtype that there is not": (structure(state=(["w", 0, True, "float33", [2]],)), "no dtype"),
    "a dtype that is a module": (structure(state=(["w", 0, True, "_inductor", [2]],)), "no dtype"),
    "a dtype that is quantized": (structure(state=(["w", 0, True, "quint8", [2]],)), "no dtype"),
    "a shape of many sizes": (
        structure(state=(["w", 0, True, "float32", [1] * 1800],)),
        "at most 64 sizes",
    ),
    "a negative size": (structure(state=(["w", 0, True, "float32", [-1]],)), "a shape is"),
    "a size that is a float": (structure(state=(["w", 0, True, "float32", [1.0]],)), "a shape is"),
    "an alias of nothing": (structure(aliases={"v": 0}), "alias 'v' is 0"),
    "an alias with a bad name": (
        structure(state=(PLACE,), aliases={"v/": 0}),
        "no name of a parameter",
    ),
    "a default that is no constant": (changed(arguments=[["x", -1]]), "no constant"),
    "a constant of bytes": (structure(constants=(b"x",)), "a constant is"),
    "a constant of an unknown kind": (structure(constants=({"model": 1},)), "a constant is"),
    "a constant with lists too deep": (structure(constants=(nested(20),)), "more than 16 deep"),
    "a constant with lists much too deep": (
        structure(constants=(nested(400),)),
        "more than 16 deep|no msgpack",
    ),
    "a tensor in a list": (
        structure(constants=([{"tensor": [0, "float32", []]}],)),
        "a constant is",
    ),
    "a device that there is not": (structure(constants=({"device": "moon"},)), "no device"),
    "a name of no operator": (
        structure(operators=("aten::add; rm -rf",)),
        "no name of an operator",
    ),
    "SetAttr of an argument": (
        structure([0, [0, 0], 0], operators=("prim::SetAttr",)),
        "no parameter or buffer",
    ),
    "GetAttr of a constant": (
        structure([0, [-1], 1], operators=("prim::GetAttr",), constants=(1,)),
        "no parameter or",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_structure_is_refused_with_the_place(name):
    packed, text = REFUSED[name]
    for _ in range(2):  # it is not let in because it has been here before
        with pytest.raises(MalformedMessage, match=text):
            read_structure(packed)


def test_operators_that_are_not_allowed_are_refused_by_name():
    for name in (
        "aten::save",
        "aten::from_file",
        "prim::PythonOp",
        "my::own",
        "aten::add.NoSuchOverload",
        "aten::add.out",
    ):
        with pytest.raises(OperatorNotAllowed) as caught:
            read_structure(structure(operators=(name,)))
        assert caught.value.operator in (name, name.partition(".")[0])


def test_what_one_owner_allows_is_refused_by_another():
    packed = structure([0, [0], 1], operators=("aten::special_i1",), result=2)
    read_structure(packed, ["aten::special_i1"])
    with pytest.raises(OperatorNotAllowed, match="special_i1"):
        read_structure(packed)


def test_a_structure_is_read_once_for_as_long_as_somebody_has_it(monkeypatch):
    packed = convert(nn.Linear(17, 13)).structure  # that no worker of another test still has
    first = read_structure(packed)
    assert read_structure(packed) is first
    del first
    gc.collect()
    monkeypatch.setattr(check, "_Reader", lambda *_: pytest.fail("read again"))
    with pytest.raises(pytest.fail.Exception):
        read_structure(packed)


def test_too_many_bytes_are_not_read():
    packed = structure(constants=("x" * MAX_STRUCTURE_BYTES,))
    with pytest.raises(MalformedMessage, match="the limit is 1048576"):
        read_structure(packed)


LARGE = {
    "empty lists": structure(constants=([[]] * 1_040_000,)),
    "empty lists as nodes": structure(nodes=[[]] * 1_040_000),
    "arguments of one node": structure([0, [0] * 1_040_000, 1], operators=("prim::ListConstruct",)),
    "nodes": structure(*[[0, [0], 1]] * 20_000, **RELU),
    "names that are deep": structure(
        state=[[f"{'a.' * 62}x{i}", 0, True, "float32", []] for i in range(6_000)]
    ),
    "names of many modules": structure(
        state=[[f"{'a.' * 60}{i}.x{i}.y", 0, True, "float32", []] for i in range(5_500)]
    ),
    "results of one block": structure([0, [-1], 0, [[0, [], [0] * 900_000], [0, [], []]]], **IF),
    "branches": structure(*[[0, [-1], 0, [[0, [], []], [0, [], []]]]] * 20_000, **IF),
    "branches in branches": structure(*blocks_in_blocks(60) * 100, **IF),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_structure_takes_bounded_memory(name):
    packed = LARGE[name]
    assert len(packed) <= MAX_STRUCTURE_BYTES
    tracemalloc.start()
    with contextlib.suppress(MalformedMessage):
        read_structure(packed)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(packed) + 64 * 2**20


def test_torch_alone_knows_the_operators_of_real_models():
    read = read_structure(convert(torch.jit.script(torch.nn.Linear(2, 2))).structure)
    assert [node.operator.name for node in read.body.nodes] == ["aten::linear"]


def test_a_structure_has_as_many_constants_and_as_long_texts_as_the_limits_say(monkeypatch):
    monkeypatch.setattr(check, "MAX_VALUES", 5)
    monkeypatch.setattr(check, "MAX_TEXT", 3)
    read_structure(structure(constants=(0, 1, 2)))
    read_structure(structure(constants=("abc",)))
    with pytest.raises(MalformedMessage, match="it has 6 constants; the limit is 5"):
        read_structure(structure(constants=(0,) * 6))
    with pytest.raises(MalformedMessage, match="a text of 4 characters; the limit is 3"):
        read_structure(structure(constants=("abcd",)))
