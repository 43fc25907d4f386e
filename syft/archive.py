"""A TorchScript archive before it is loaded: what is in its files.

torch.jit.load runs code of the archive: `__setstate__`, the values of class constants and the defaults of arguments;
and its compiler folds constants. So this is checked without loading anything:

    names of the files     those that torch.jit.save writes, and no others
    *.pkl                  only classes of the archive itself and torch's tensors; no deep or circular nesting
    code/*.py              only literals where loading evaluates, only allowed operators, bounded nesting
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
from collections.abc import Iterable
from typing import Any

import torch

from syft.archive_data import MAX_NESTING, vet_data
from syft.exceptions import MalformedMessage, OperatorNotAllowed
from syft.operators import is_allowed

_FILE = re.compile(
    r"data\.pkl|constants\.pkl|version|byteorder|(data|constants)/\d+|code/.+\.py(\.debug_pkl)?|\.\w+(/\w+)?"
)
_BUILTIN_NAMES = """
abs all annotate any bool chr complex dict divmod enumerate float getattr hasattr hash int isinstance len list max min
ord pow range reversed round sorted str sum tuple unchecked_cast uninitialized unwrap_optional zip
AssertionError Exception IndexError KeyError NotImplementedError RuntimeError TypeError ValueError
"""
_TYPE_NAMES = """
Any CONSTANTS Device Dict Enum Final List Module NamedTuple NoneType Optional Tensor Tuple Union __annotations__
__torch__ inf nan number self
"""
_KNOWN_NAMES = frozenset((_BUILTIN_NAMES + _TYPE_NAMES).split())
_ROOTS = ("torch", "ops", "__torch__")
_DEFINITIONS = (ast.ClassDef, ast.FunctionDef)


def vet_archive(structure: bytes, more: frozenset[str] = frozenset()) -> None:
    """Check an archive that has not been loaded.

    Raises:
        OperatorNotAllowed: its source names an operator that is not allowed.
        MalformedMessage: it is no archive of the kind that torch.jit.save writes.
    """
    if structure[:4] != b"PK\x03\x04" or structure[4:8] == b"PTMF":  # torch also loads flatbuffers, from this mark on
        raise MalformedMessage("a TorchScript archive cannot be read: it does not begin as a zip file")
    reader = reader_of(structure)
    names = reader.get_all_records()
    if len({name.lower() for name in names}) != len(names):  # torch finds names without regard to case
        raise MalformedMessage("a TorchScript archive holds two files of the same name")
    sources = {}
    for name in names:
        if not _FILE.fullmatch(name):
            raise MalformedMessage(f"a TorchScript archive holds a file {name[:80]!r}")
        if name.endswith(".py"):
            sources[name] = _parsed(name, reader.get_record(name))
        elif name.endswith("pkl"):
            vet_data(name, reader.get_record(name))
    defined = {node.name for tree in sources.values() for node in ast.walk(tree) if isinstance(node, _DEFINITIONS)}
    for name, tree in sources.items():
        _Source(name, defined, _local_names(tree), more).visit(tree)


def structure_digest(structure: bytes) -> str:
    """Return the SHA-256 of what an archive can do: its source and its data, without paths and line numbers."""
    reader, digest = reader_of(structure), hashlib.sha256()
    for name in sorted(reader.get_all_records()):
        if name.startswith(("code/", "data", "constants")) and not name.endswith(".debug_pkl"):
            record = reader.get_record(name)
            digest.update(f"{len(name)} {name} {len(record)} ".encode() + record)
    return digest.hexdigest()


def reader_of(structure: bytes) -> Any:
    """Return what torch.jit.load itself reads the archive with."""
    try:
        return torch._C.PyTorchFileReader(io.BytesIO(structure))
    except RuntimeError as reason:
        raise MalformedMessage(f"a TorchScript archive cannot be read: {str(reason)[:200]}") from reason


def _parsed(name: str, record: bytes) -> ast.Module:
    """Return the syntax tree of a source file. Serialised TorchScript is, by its syntax, Python."""
    text = record.decode("latin-1")
    if not text.isascii() or not text.replace("\n", "").isprintable():
        raise MalformedMessage(f"{name} of a TorchScript archive is no plain text")
    if re.search(r"__[gs]etstate__", text):
        raise OperatorNotAllowed("__setstate__", name)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as reason:
        raise MalformedMessage(f"{name} of a TorchScript archive is not readable: {reason}") from reason
    level: list[ast.AST] = [tree]
    for _ in range(MAX_NESTING):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return tree
    raise MalformedMessage(f"{name} of a TorchScript archive is nested more than {MAX_NESTING} levels deep")


class _Source(ast.NodeVisitor):
    """Checks the syntax tree of one source file.

    Args:
        name: the file's name.
        defined: names of the functions, methods and classes of all files.
        local: names that are assigned to, or are arguments, in this file.
        more: operators that the owner allows.
    """

    def __init__(self, name: str, defined: set[str], local: set[str], more: frozenset[str]) -> None:
        self._name = name
        self._defined = defined
        self._names = _KNOWN_NAMES | defined | local
        self._more = more

    def visit_Module(self, node: ast.Module) -> None:
        self._only(node.body, *_DEFINITIONS)
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._only(node.body, ast.FunctionDef, ast.Assign, ast.AnnAssign, ast.Pass)
        self._only(node.decorator_list)
        for statement in node.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                self._literal(statement.value)
            if isinstance(statement, ast.AnnAssign) and statement.value is not None:
                self._literal(statement.value)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self._literal(default)
        self._only(node.decorator_list)
        self.generic_visit(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._only([node])

    def visit_Name(self, node: ast.Name) -> None:
        if node.id not in self._names:
            self._vet({"print": "prim::Print", "fork": "prim::fork"}.get(node.id, node.id))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        path = _path(node)
        if path[0] == "torch" and len(path) == 2:
            self._vet(f"aten::{path[1]}")
        elif path[0] == "ops" and len(path) == 3:
            self._vet(f"{path[1]}::{path[2]}")
        else:
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        method = node.func.attr if isinstance(node.func, ast.Attribute) else None
        if method is not None and method not in self._defined and _path(node.func)[0] not in _ROOTS:
            self._vet(f"aten::{method}")
        self.generic_visit(node)

    def _vet(self, operator: str) -> None:
        if operator != "aten::device" and not is_allowed(operator, self._more):  # torch.device("cpu"): a constant
            raise OperatorNotAllowed(operator, self._name)

    def _literal(self, node: ast.expr) -> None:
        """Raise unless evaluating `node` computes nothing."""
        if isinstance(node, (ast.List, ast.Tuple)):
            for item in node.elts:
                self._literal(item)
            return
        while isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            node = node.operand
        if isinstance(node, ast.Call) and ".".join(_path(node.func)) in ("float", "torch.device") and not node.keywords:
            for item in node.args:
                self._only([item], ast.Constant)
        elif not isinstance(node, ast.Constant):
            raise OperatorNotAllowed("a computed value where loading evaluates", f"{self._name}, line {node.lineno},")

    def _only(self, nodes: Iterable[ast.AST], *kinds: type[ast.AST]) -> None:
        for node in nodes:
            if not isinstance(node, kinds):
                where = f"{self._name}, line {getattr(node, 'lineno', '?')}"
                raise MalformedMessage(f"{where}, of a TorchScript archive: {type(node).__name__}")


def _path(node: ast.expr) -> list[str]:
    """Return the names of a.b.c; the first one is empty if it does not begin with a name."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id if isinstance(node, ast.Name) else "", *reversed(names)]


def _local_names(tree: ast.AST) -> set[str]:
    return {
        node.arg if isinstance(node, ast.arg) else node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.arg) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    } - {"torch", "ops", "print", "fork"}
