"""The data files of a TorchScript archive: what they would build, found out without building it.

They are written in the operations of pickle, which torch's own reader carries out when it loads an archive. Here they
are only gone through: which classes they name, and how deep what they build is nested.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pickletools import genops  # takes such a file apart; runs and builds nothing
from typing import Any

from syft.exceptions import MalformedMessage, OperatorNotAllowed

MAX_NESTING = 200
"""Levels of nested expressions, blocks or containers; more could overflow torch's stack."""

_CLASS = re.compile(r"__torch__\.(?!torch\.classes\.)[\w.]+")
_STORAGE = re.compile(r"torch\.[A-Z]\w*Storage")
_CLASSES = """
torch._utils._rebuild_tensor_v2 torch._utils._rebuild_parameter collections.OrderedDict torch.device
torch.jit._pickle.build_intlist torch.jit._pickle.build_doublelist torch.jit._pickle.build_boollist
torch.jit._pickle.build_tensorlist torch.jit._pickle.restore_type_tag
"""
_KNOWN_CLASSES = frozenset(_CLASSES.split())
_PLAIN = """
EMPTY_DICT EMPTY_LIST EMPTY_TUPLE BINUNICODE BININT BININT1 BININT2 LONG1 BINFLOAT NEWTRUE NEWFALSE NONE GLOBAL
"""


def vet_data(name: str, record: bytes) -> None:
    """Check what a data file would build: known classes only, and no deep or circular nesting."""
    try:
        operations = [(code.name, argument) for code, argument, _ in genops(record)]
    except Exception as reason:  # ValueError of several kinds, and what the codecs raise
        raise MalformedMessage(f"{name} of a TorchScript archive is not readable: {reason}") from reason
    builder = _Builder(name)
    for operation, argument in operations:
        builder.do(operation, argument)


class _Value:
    """Something that a data file builds: how deep it is nested, and whether it is part of something else already."""

    def __init__(self, depth: int = 0) -> None:
        self.depth = depth
        self.used = False


class _Builder:
    """Goes through a data file's operations and keeps only the depth of what they build."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stack: list[_Value | None] = []  # None is a mark
        self._memo: dict[int, _Value] = {}

    def do(self, operation: str, argument: Any) -> None:
        if operation == "GLOBAL":
            self._check_class(argument.replace(" ", "."))
        action = self._ACTIONS.get(operation)
        if action is None:
            raise MalformedMessage(f"{self._name} of a TorchScript archive: operation {operation}")
        try:
            action(self, argument)
        except MalformedMessage:
            raise
        except (IndexError, KeyError, AttributeError, ValueError) as reason:
            raise MalformedMessage(f"{self._name} of a TorchScript archive: {operation} on nothing") from reason

    def _check_class(self, cls: str) -> None:
        if "torch.classes." in cls:
            raise OperatorNotAllowed(f"a class written in C++, {cls}", self._name)
        if not (_CLASS.fullmatch(cls) or cls in _KNOWN_CLASSES or _STORAGE.fullmatch(cls)):
            raise MalformedMessage(f"{self._name} of a TorchScript archive: class {cls[:80]!r}")

    def _push(self, argument: Any = None) -> None:
        self._stack.append(_Value())

    def _marked(self) -> list[_Value]:
        """Take off and return what lies above the last mark."""
        at = len(self._stack) - 1 - self._stack[::-1].index(None)
        items = self._stack[at + 1 :]
        del self._stack[at:]
        return items  # type: ignore[return-value]

    def _container(self, items: list[_Value]) -> None:
        value = _Value()
        self._stack.append(value)
        self._fill(value, items)

    def _fill(self, container: _Value | None, items: list[_Value]) -> None:
        for item in items:
            item.used = True
        if container is None or container.used:  # else it could hold itself
            raise MalformedMessage(f"{self._name} of a TorchScript archive changes a value that is in use")
        for item in items:
            container.depth = max(container.depth, item.depth + 1)
        if container.depth > MAX_NESTING:
            raise MalformedMessage(
                f"{self._name} of a TorchScript archive is nested more than {MAX_NESTING} levels deep"
            )

    def _take(self, count: int) -> list[_Value]:
        items = self._stack[-count:]
        if len(items) < count or None in items:
            raise IndexError(count)
        del self._stack[-count:]
        return items  # type: ignore[return-value]

    def _into_last(self, items: list[_Value]) -> None:
        self._fill(self._stack[-1], items)

    def _remember(self, index: int) -> None:
        self._memo[index] = self._stack[-1]  # type: ignore[assignment]

    _ACTIONS: dict[str, Callable[[_Builder, Any], None]] = {  # noqa: RUF012 - never changed
        **dict.fromkeys(_PLAIN.split(), _push),
        "PROTO": lambda self, argument: None,
        "STOP": lambda self, argument: None,
        "MARK": lambda self, argument: self._stack.append(None),
        "TUPLE": lambda self, argument: self._container(self._marked()),
        "TUPLE1": lambda self, argument: self._container(self._take(1)),
        "TUPLE2": lambda self, argument: self._container(self._take(2)),
        "TUPLE3": lambda self, argument: self._container(self._take(3)),
        "REDUCE": lambda self, argument: self._container(self._take(2)),
        "NEWOBJ": lambda self, argument: self._container(self._take(2)),
        "BINPERSID": lambda self, argument: self._container(self._take(1)),
        "BUILD": lambda self, argument: self._into_last(self._take(1)),
        "APPEND": lambda self, argument: self._into_last(self._take(1)),
        "APPENDS": lambda self, argument: self._into_last(self._marked()),
        "SETITEM": lambda self, argument: self._into_last(self._take(2)),
        "SETITEMS": lambda self, argument: self._into_last(self._marked()),
        "BINPUT": lambda self, argument: self._remember(argument),
        "LONG_BINPUT": lambda self, argument: self._remember(argument),
        "BINGET": lambda self, argument: self._stack.append(self._memo[argument]),
        "LONG_BINGET": lambda self, argument: self._stack.append(self._memo[argument]),
    }
