"""Which models and loss functions this process takes from others.

A TorchScript archive is looked at twice: before it is loaded, since loading runs code (archive.py), and before it
runs: the graph of each function and method, blocks included, may hold only the operators of operators.py. What passed
is remembered by its SHA-256, since the structure of a model is the same from round to round.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch

from syft.archive import structure_digest, vet_archive
from syft.exceptions import OperatorNotAllowed
from syft.operators import is_allowed

_REMEMBERED = 256

Value = TypeVar("Value")


class Memory(Generic[Value]):
    """Remembers values by key, and forgets what was not asked for longest. Safe to use from several threads.

    Args:
        size: how many are remembered.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Any, Value] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Any) -> Value | None:
        """Return the value, else None."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def add(self, key: Any, value: Value) -> None:
        """Remember a value."""
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._size:
                self._values.popitem(last=False)


_memory: Memory[str] = Memory(_REMEMBERED)
"""The structure_digest of archives that passed, by digest and by the operators that the owner allowed in addition."""


def load_vetted(structure: bytes, more: Iterable[str] = ()) -> Any:
    """Return the module that an archive holds, as torch.jit.load does, if all it can do is allowed.

    Args:
        structure: the archive's bytes.
        more: operators that the owner allows beside those of operators.py.

    Raises:
        OperatorNotAllowed: it uses an operator that is not allowed.
        MalformedMessage: it is no archive of the kind that torch.jit.save writes.
        RuntimeError, ValueError: torch cannot load it.
    """
    allowed_too = frozenset(more)
    key = (hashlib.sha256(structure).digest(), allowed_too)
    digest = _memory.get(key)
    if digest is None:
        vet_archive(structure, allowed_too)
    unit: Any = torch._C.CompilationUnit()
    load: Any = torch._C.import_ir_module_from_buffer
    module = load(unit, structure, torch.device("cpu"), {}, False)
    if digest is None:
        vet_functions(unit.get_functions(), allowed_too)
        digest = structure_digest(structure)
        _memory.add(key, digest)
    wrapped = torch.jit._recursive.wrap_cpp_module(module)
    wrapped.__dict__["_structure_digest"] = digest  # past TorchScript, which would make it an attribute of the model
    return wrapped


def vet_functions(functions: Iterable[Any], more: frozenset[str] = frozenset()) -> None:
    """Check the graphs of loaded functions and methods.

    Raises:
        OperatorNotAllowed: one uses an operator that is not allowed, or calls what cannot be known before it runs.
    """
    for function in functions:
        for node in _nodes(function.graph):
            operator = node.kind()
            where = function.qualified_name
            if not is_allowed(operator, more):
                raise OperatorNotAllowed(operator, where)
            if any("torch.classes." in str(value.type()) for value in (*node.inputs(), *node.outputs())):
                raise OperatorNotAllowed(f"{operator} of a class written in C++", where)
            if operator == "prim::CallMethod" and next(node.inputs()).type().kind() == "InterfaceType":
                raise OperatorNotAllowed("prim::CallMethod of an interface", where)
            if operator in ("prim::unchecked_cast", "prim::unchecked_unwrap_optional") and not _is_narrowing(node):
                raise OperatorNotAllowed(f"{operator} to {node.output().type()}", where)


def _nodes(block: Any) -> Iterator[Any]:
    stack = [block]
    while stack:
        for node in stack.pop().nodes():
            yield node
            stack.extend(node.blocks())


def _is_narrowing(node: Any) -> bool:
    """Return whether a cast is safe: from Optional[T] to T, or to a type without objects.

    torch checks plain values when they are used, but takes the class of an object on trust.
    """
    before, after = next(node.inputs()).type(), node.output().type()
    optional = before.kind() == "OptionalType" and before.getElementType() == after
    return optional or "__torch__" not in str(after)
