"""Reads a structure that came from somebody else.

All of it is checked before anything is made of it.

What is checked here costs no more than reading: bounds of size first, then types, names, and that
every value is defined before it is used. What a graph computes is bounded when it runs
(interpret.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn
from weakref import WeakValueDictionary

import torch

from syft.exceptions import MalformedMessage, OperatorNotAllowed
from syft.graph.convert import BUFFER, MAX_DEPTH, MAX_NODES, PARAMETER
from syft.graph.kinds import DTYPES
from syft.graph.operators import ADVICE, Operator, is_allowed, resolve
from syft.graph.scalars import MAX_TEXT
from syft.graph.unpacking import collector_paused, unpack

# The order of the checks, each of which bounds what the next one costs:
#
#     bytes       before msgpack makes objects of them: one byte may become a list, 64 in memory
#     fields      exactly these, each of its type
#     constants   how many, with all that is inside them
#     names       how many modules they need: each prefix of a name becomes an nn.Module
#     operators   each name once, against the list; nodes refer to them by number
#     nodes       one pass: what a node uses must be defined by then, in a block that encloses it
#
# So nothing is looked at twice, and a structure that passes needs no checks while it runs, but for
# those of its values.

MAX_STRUCTURE_BYTES = 1024 * 1024
"""Bytes of a structure. That of DenseNet121 has 69,000."""
MAX_VALUES = 4 * MAX_NODES
MAX_DIMENSIONS = 64
MAX_MODULES = 2_000
MAX_NESTING = 16
"""Levels of lists in a constant."""

_MAX_NAME = 256
_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")  # a module of torchvision's regnet is called "block1-0"
_OPERATOR = re.compile(r"\w+::\w+(\.\w+)?", re.ASCII)
_FIELDS = {
    "arguments": list,
    "state": list,
    "aliases": dict,
    "constants": list,
    "operators": list,
    "nodes": list,
    "result": int,
}


@dataclass(frozen=True)
class Place:
    """A parameter or buffer, as a structure describes it."""

    name: str
    is_parameter: bool
    requires_grad: bool
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TensorConstant:
    """A constant that is a tensor: which one of those that travel beside the structure."""

    index: int
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Block:
    """Nodes in their order, the values that they start from, and those that they end with."""

    inputs: list[int]
    nodes: list[Node]
    results: list[int]


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One operation: the values that it takes, and those that it gives."""

    operator: Operator
    arguments: list[int]
    results: list[int]
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Structure:
    """A checked structure; see this package's docstring.

    Shared by all models of it, so never changed.

    Attributes:
        arguments: (name, number of the default or None) of each argument of forward.
        state: the parameters and buffers.
        aliases: further name -> index in `state`.
        constants: the constants; tensors as TensorConstant.
        body: the graph.
        count: how many values there are, constants aside.
        size: bytes of the structure as it came.
    """

    arguments: list[tuple[str, int | None]]
    state: list[Place]
    aliases: dict[str, int]
    constants: list[Any]
    body: Block
    count: int
    size: int

    def __deepcopy__(self, memo: Any) -> Structure:
        return self


def read_structure(packed: bytes, allow_operators: Iterable[str] = ()) -> Structure:
    """Return the structure that these bytes hold.

    Args:
        packed: msgpack; see this package's docstring.
        allow_operators: operators that it may use beside those of operators.py.

    Raises:
        OperatorNotAllowed: it uses an operator that is not allowed.
        MalformedMessage: it is no structure; the reason names the place.
    """
    # The allowed operators are part of the key: what one worker allows, another one of this process
    # may refuse.
    key = (hashlib.sha256(packed).digest(), frozenset(allow_operators))
    structure = _known.get(key)
    if structure is None:
        with collector_paused():
            structure = _Reader(packed, key[1]).structure()
        _known[key] = structure
    return structure


_known: WeakValueDictionary[tuple[bytes, frozenset[str]], Structure] = WeakValueDictionary()
"""The structure of a model is the same from round to round.

It is known for as long as there is a model of it.
"""


class _Reader:
    """Reads one structure."""

    def __init__(self, packed: bytes, allow_operators: frozenset[str]) -> None:
        self._size = len(packed)
        if len(packed) > MAX_STRUCTURE_BYTES:
            _refuse(f"it has {len(packed)} bytes; the limit is {MAX_STRUCTURE_BYTES}")
        try:
            fields = unpack(packed, strict_map_key=True)
        except Exception as reason:
            # msgpack raises ValueErrors of many kinds, TypeError and RecursionError
            raise MalformedMessage(
                f"a model's structure is no msgpack: {type(reason).__name__}: {reason}"
            ) from reason
        if not isinstance(fields, dict) or fields.keys() != _FIELDS.keys():
            _refuse(f"its fields are not {sorted(_FIELDS)}")
        for name, kind in _FIELDS.items():
            if type(fields[name]) is not kind:
                _refuse(f"{name} is {type(fields[name]).__name__}; expected {kind.__name__}")
        self._fields = fields
        self._allow_operators = allow_operators
        self._nodes = 0
        self._items = 0

    def structure(self) -> Structure:
        """Return what was read, checked."""
        fields = self._fields
        self._constants = fields["constants"]
        if len(self._constants) > MAX_VALUES:
            _refuse(f"it has {len(self._constants)} constants; the limit is {MAX_VALUES}")
        # in place: a copy of a million empty lists is as large again
        for index, value in enumerate(self._constants):
            self._constants[index] = self._constant(value)
        arguments = [self._argument(each) for each in fields["arguments"]]
        state = [self._place(each) for each in fields["state"]]
        # A name that occurs twice would replace a parameter that was registered before.
        names = [place.name for place in state] + list(fields["aliases"])
        if len(set(names)) < len(names) or len({name for name, _ in arguments}) < len(arguments):
            _refuse("a name occurs twice")
        for name, index in fields["aliases"].items():
            self._name(name)
            _index(index, len(state), f"alias {name!r}")
        modules: set[str] = set()
        for name in names:
            modules.update(name[: end.start()] for end in re.finditer(r"\.", name))
            if len(modules) > MAX_MODULES:
                _refuse(f"its names need more than {MAX_MODULES} modules")
        self._operators = [self._operator(each) for each in fields["operators"]]
        # Values are numbered in the order of their definition, so a byte for each one tells whether
        # it may be used here; those of a block that has ended are 0 again.
        self._defined = bytearray(b"\1") * (len(arguments) + len(state) + 1)
        self._state = range(len(arguments), len(arguments) + len(state))
        nodes = self._block(fields.pop("nodes"), 0)
        body = Block([], nodes, [self._value(fields["result"])])
        return Structure(
            arguments,
            state,
            fields["aliases"],
            self._constants,
            body,
            len(self._defined),
            self._size,
        )

    def _argument(self, described: Any) -> tuple[str, int | None]:
        if (
            type(described) is not list
            or len(described) not in (1, 2)
            or not isinstance(described[0], str)
        ):
            _refuse("an argument is no [name] or [name, default]")
        default = described[1] if len(described) == 2 else None
        if default is not None and (
            type(default) is not int or not -len(self._constants) <= default < 0
        ):
            _refuse(f"the default of argument {_shown(described[0])} is no constant")
        return described[0][:_MAX_NAME], default

    def _place(self, described: Any) -> Place:
        if type(described) is not list or len(described) != 5:
            _refuse("an entry of its state is no [name, kind, requires_grad, dtype, shape]")
        name, kind, requires_grad, dtype, shape = described
        self._name(name)
        if kind not in (PARAMETER, BUFFER) or type(requires_grad) is not bool:
            _refuse(f"{name!r} is of kind {_shown(kind)}, requires_grad {_shown(requires_grad)}")
        return Place(name, kind == PARAMETER, requires_grad, _dtype(dtype), _shape(shape))

    def _name(self, name: Any) -> None:
        if (
            type(name) is not str
            or len(name) > _MAX_NAME
            or not _NAME.fullmatch(name)
            or name.count(".") > MAX_DEPTH
        ):
            _refuse(f"{_shown(name)} is no name of a parameter or buffer")

    def _constant(self, value: Any, depth: int = 0) -> Any:
        if type(value) is str and len(value) > MAX_TEXT:
            _refuse(f"a constant is a text of {len(value)} characters; the limit is {MAX_TEXT}")
        if value is None or type(value) in (bool, int, float, str):
            return value
        self._items += len(value) if type(value) is list else 1
        if self._items > MAX_VALUES:
            _refuse(f"its constants have more than {MAX_VALUES} items")
        if depth == MAX_NESTING:
            _refuse(f"a constant has lists more than {MAX_NESTING} deep")
        if type(value) is list:
            for index, item in enumerate(value):
                value[index] = self._constant(item, depth + 1)
            return value
        if type(value) is dict and len(value) == 1:
            ((kind, content),) = value.items()
            if (
                kind == "complex"
                and type(content) is list
                and [type(each) for each in content] == [float, float]
            ):
                return complex(*content)
            if kind == "device" and type(content) is str:
                return _device(content)
            if kind == "tuple" and type(content) is list:
                return tuple(self._constant(content, depth + 1))
            if (
                kind == "tensor"
                and depth == 0
                and type(content) is list
                and len(content) == 3
                and type(content[0]) is int
            ):
                return TensorConstant(content[0], _dtype(content[1]), _shape(content[2]))
        _refuse(f"a constant is {_shown(value)}")

    def _operator(self, name: Any) -> Operator:
        if type(name) is not str or len(name) > _MAX_NAME or not _OPERATOR.fullmatch(name):
            _refuse(f"{_shown(name)} is no name of an operator")
        # The list has operators, and with each of them all its overloads.
        base = name.partition(".")[0]
        if not is_allowed(base, self._allow_operators):
            raise OperatorNotAllowed(base, "its graph", ADVICE.get(base, ""))
        operator = _CONTROL.get(name) or resolve(name)
        if operator is None:
            raise OperatorNotAllowed(name, "its graph")
        return operator

    def _block(self, nodes: Any, depth: int) -> list[Node]:
        if type(nodes) is not list or depth > MAX_DEPTH:
            _refuse(f"a block is no list, or lies more than {MAX_DEPTH} deep")
        return [self._node(node, depth) for node in nodes]

    def _node(self, node: Any, depth: int) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            _refuse(f"it has more than {MAX_NODES} nodes")
        if (
            type(node) is not list
            or len(node) not in (3, 4)
            or type(node[1]) is not list
            or type(node[2]) is not int
        ):
            _refuse("a node is no [operator, arguments, number of results]")
        operator = self._operators[_index(node[0], len(self._operators), "the operator of a node")]
        arguments = [self._value(number) for number in node[1]]
        blocks = node[3] if len(node) == 4 else []
        if type(blocks) is not list or len(blocks) != {"prim::If": 2, "prim::Loop": 1}.get(
            operator.name, 0
        ):
            _refuse(f"{operator.name} has other blocks than it should")
        self._check_arguments(operator, arguments)
        inner = [self._inner(block, depth) for block in blocks]
        self._check_blocks(operator, arguments, node[2], inner)
        return Node(operator, arguments, self._define(node[2]), inner)

    def _check_arguments(self, operator: Operator, arguments: list[int]) -> None:
        count = len(arguments)
        if operator.positional is not None:
            most = operator.positional + len(operator.keywords)
            if not operator.required <= count <= most:
                _refuse(
                    f"{operator.name} has {count} arguments; expected {operator.required} to {most}"
                )
        reads_state = operator.name in ("prim::SetAttr", "prim::GetAttr")
        if reads_state and (not arguments or arguments[0] not in self._state):
            _refuse(f"{operator.name} of what is no parameter or buffer")

    def _check_blocks(
        self, operator: Operator, arguments: list[int], count: int, blocks: list[Block]
    ) -> None:
        if operator.name == "prim::If":
            fits = len(arguments) == 1 and all(
                len(block.results) == count and not block.inputs for block in blocks
            )
        elif operator.name == "prim::Loop":
            (block,) = blocks
            fits = len(arguments) == count + 2 and len(block.inputs) == count + 1 == len(
                block.results
            )
        else:
            return
        if not fits:
            _refuse(f"{operator.name} has blocks with other inputs or results than it should")

    def _inner(self, block: Any, depth: int) -> Block:
        if (
            type(block) is not list
            or len(block) != 3
            or type(block[0]) is not int
            or type(block[2]) is not list
        ):
            _refuse("a block is no [number of inputs, nodes, results]")
        first = len(self._defined)
        inputs = self._define(block[0])
        nodes = self._block(block[1], depth + 1)
        results = [self._value(number) for number in block[2]]
        self._defined[first:] = bytes(len(self._defined) - first)  # not to be seen from outside
        return Block(inputs, nodes, results)

    def _value(self, number: Any) -> int:
        if type(number) is int and -len(self._constants) <= number < 0:
            return number
        if (
            type(number) is not int
            or not 0 <= number < len(self._defined)
            or not self._defined[number]
        ):
            _refuse(f"value {_shown(number)} is used before it is defined")
        return number

    def _define(self, count: int) -> list[int]:
        if not 0 <= count <= MAX_VALUES - len(self._defined):
            _refuse(f"a node has {count} results; all values together are at most {MAX_VALUES}")
        first = len(self._defined)
        self._defined += b"\1" * count
        return list(range(first, first + count))


# If, Loop and the two that read and replace buffers have blocks or reach the module, so they are no
# functions of their arguments. They are here to be checked like the others.


def _control(name: str, required: int, most: int) -> Operator:
    def run(*arguments: Any) -> NoReturn:
        raise AssertionError(f"{name} is carried out by the interpreter")

    return Operator(name, run, required, most)


_CONTROL = {
    operator.name: operator
    for operator in (
        _control("prim::If", 1, 1),
        _control("prim::Loop", 2, MAX_NODES),
        _control("prim::GetAttr", 1, 1),
        _control("prim::SetAttr", 2, 2),
    )
}


def _index(number: Any, size: int, what: str) -> int:
    if type(number) is not int or not 0 <= number < size:
        _refuse(f"{what} is {_shown(number)}; expected 0 to {size - 1}")
    return number


def _dtype(name: Any) -> torch.dtype:
    if type(name) is not str or name not in DTYPES:
        _refuse(f"{_shown(name)} is no dtype that a model may have")
    return DTYPES[name]


def _shape(sizes: Any) -> tuple[int, ...]:
    if type(sizes) is not list or len(sizes) > MAX_DIMENSIONS:
        _refuse(f"a shape is no list of at most {MAX_DIMENSIONS} sizes")
    if not all(type(size) is int and size >= 0 for size in sizes):
        _refuse(f"a shape is {_shown(sizes)}")
    return tuple(sizes)


def _device(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError:
        _refuse(f"{_shown(name)} is no device")


def _shown(value: Any) -> str:
    """Return what is wrong with a value as text.

    repr() of lists deep inside one another would fail.
    """
    return type(value).__name__ if isinstance(value, (list, dict)) else f"{value!r:.60}"


def _refuse(reason: str) -> NoReturn:
    raise MalformedMessage(f"a model's structure cannot be used: {reason}")
