"""Models and functions to plain graphs: what the sender does.

The graph is the one that TorchScript has of a traced or scripted model, with all calls inlined.
Constants are folded and dead branches dropped before it is written down; `training` stays a value,
so one graph serves both modes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import msgpack
import torch
from torch import nn

from syft.exceptions import NotConvertible
from syft.graph import script
from syft.graph.content import bytes_of
from syft.graph.memory import Memory

PARAMETER, BUFFER = 0, 1
"""Kinds of an entry of `state`."""
MAX_NODES = 50_000
"""Nodes of one graph. DenseNet121 has 2,000."""
MAX_DEPTH = 64
"""Levels of blocks inside one another."""


@dataclass(frozen=True, eq=False)
class Model:
    """A model or function, taken apart.

    Attributes:
        structure: the graph, as msgpack; see this package's docstring.
        state: the parameters and buffers, in the structure's order; they share the model's memory.
        constants: the tensors among the constants.
    """

    structure: bytes
    state: list[torch.Tensor]
    constants: list[torch.Tensor]

    @property
    def digest(self) -> str:
        """The SHA-256 of what the model can do.

        That is its structure and its constants, but not its parameters.
        """
        return digest_of(self.structure, self.constants)


def digest_of(structure: bytes, constants: Sequence[torch.Tensor]) -> str:
    """Return the SHA-256 of a structure and of the tensors among its constants.

    It is written in hexadecimal digits.
    """
    digest = hashlib.sha256(structure)
    for tensor in constants:
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def convert(obj: nn.Module | Callable[..., Any]) -> Model:
    """Return a model or function as a plain graph and tensors. `obj` is not modified.

    Args:
        obj: a traced or scripted model or function, or a plain one that torch.jit.script compiles.

    Raises:
        NotScriptable: `obj` is plain and cannot be compiled.
        NotConvertible: it does something that a plain graph cannot say; the error names it.
    """
    scripted = script.to_script(obj)
    # By identity here, by structure below: a model's parameters change between rounds, and a copy
    # of it has the same graph.
    if isinstance(scripted, script.ScriptFunction):
        if scripted not in _functions:
            _functions[scripted] = _Converter(scripted, None).model()
        return _functions[scripted]
    key, types = script.structure_key(scripted)
    known = _structures.get(key) if key is not None else None
    if known is None:
        known = (*_Converter(scripted, scripted).parts(), types)
        if key is not None:
            _structures.add(key, known)
    structure, constants, _ = known
    return Model(
        structure, [tensor.detach() for tensor in unique_tensors(scripted).values()], constants
    )


_functions: WeakKeyDictionary[script.ScriptFunction, Model] = WeakKeyDictionary()
"""A function never changes, and a loss function goes to each worker in each round."""
_structures: Memory[tuple[bytes, list[torch.Tensor], list[Any]]] = Memory(32)
"""A model goes to many workers, round after round.

With each structure: the types that its key tells by their id().
"""


def unique_tensors(module: nn.Module | None) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers by name, each tensor once, under its first name."""
    seen: dict[int, str] = {}
    return {
        name: tensor
        for name, tensor in script.named_tensors(module).items()
        if seen.setdefault(id(tensor), name) == name
    }


class _Converter:
    """Converts the graph of one model or function."""

    def __init__(self, scripted: Any, module: Any) -> None:
        self._what = script.describe(scripted)
        self._module = module
        self._tensors_of_module = script.named_tensors(module)
        self._state = list(unique_tensors(module))
        self._indices = {
            id(self._tensors_of_module[name]): index for index, name in enumerate(self._state)
        }
        self._places = {
            name: self._indices[id(tensor)] for name, tensor in self._tensors_of_module.items()
        }
        self._parameters = (
            {name for name, _ in module.named_parameters()} if module is not None else set()
        )
        # scripted nn.LSTM has one for each kind of input
        if module is not None and not hasattr(scripted, "forward"):
            self._refuse("no forward() of its own")
        self._schema = (scripted.forward if module is not None else scripted).schema
        self._graph = scripted.inlined_graph.copy()
        # Fewer nodes for each receiver to check and to run, and no operators in branches never
        # taken.
        torch._C._jit_pass_constant_propagation(self._graph)
        torch._C._jit_pass_dce(self._graph)
        self._numbers: dict[int, int] = {}  # a value's unique() -> its number
        self._paths: dict[int, str] = {}  # a module's unique() -> its path
        self._constants: list[Any] = []
        self._constant_numbers: dict[str, int] = {}
        self._tensors: list[torch.Tensor] = []
        self._operators: dict[str, int] = {}
        self._reassigned: set[str] = set()
        self._count = 0
        self._nodes = 0

    def model(self) -> Model:
        structure, constants = self.parts()
        return Model(structure, [], constants)

    def parts(self) -> tuple[bytes, list[torch.Tensor]]:
        """Return the structure and the tensors among its constants."""
        values = list(self._graph.inputs())
        if self._module is not None:
            self._paths[values[0].unique()] = ""
            values = values[1:]
        for value in values:
            self._define(value)
        arguments = (
            [self._argument(each) for each in self._schema.arguments[-len(values) :]]
            if values
            else []
        )
        self._count += len(self._state) + 1
        self._training = self._count - 1
        self._find_reassigned(self._graph)
        nodes = self._block(self._graph.nodes(), 0)
        (result,) = map(self._use, self._graph.outputs())  # several values come as one tuple
        tensors = self._tensors_of_module
        structure = {
            "arguments": arguments,
            "state": [self._described(name, tensors[name]) for name in self._state],
            "aliases": {name: self._places[name] for name in tensors if name not in self._state},
            "constants": self._constants,
            "operators": list(self._operators),
            "nodes": nodes,
            "result": result,
        }
        return msgpack.packb(structure), self._tensors

    def _described(self, name: str, tensor: torch.Tensor) -> list[Any]:
        kind = PARAMETER if name in self._parameters else BUFFER
        return [name, kind, tensor.requires_grad, _dtype_name(tensor), list(tensor.shape)]

    def _argument(self, argument: Any) -> list[Any]:
        has_default = argument.has_default_value()
        return (
            [argument.name, self._constant(argument.default_value)]
            if has_default
            else [argument.name]
        )

    def _block(self, nodes: Any, depth: int) -> list[Any]:
        if depth > MAX_DEPTH:
            self._refuse(f"blocks nested more than {MAX_DEPTH} deep")
        return [converted for node in nodes if (converted := self._node(node, depth)) is not None]

    def _node(self, node: Any, depth: int) -> list[Any] | None:
        kind = node.kind()
        if kind == "prim::Constant":
            self._numbers[node.output().unique()] = self._constant(_constant_value(node))
            return None
        if kind == "prim::GetAttr":
            return self._get_attribute(node)
        if kind == "prim::SetAttr":
            return self._set_attribute(node)
        if kind in (
            "prim::CallMethod",
            "prim::CallFunction",
            "prim::PythonOp",
            "prim::CreateObject",
        ):
            self._refuse(kind)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._refuse(f"a graph of more than {MAX_NODES} nodes")
        arguments = [self._use(value) for value in node.inputs()]
        if kind in ("prim::If", "prim::Loop"):
            blocks = [self._inner(block, depth) for block in node.blocks()]
            return [self._operator(kind), arguments, self._define_all(node), blocks]
        return [self._operator(_operator_name(node)), arguments, self._define_all(node)]

    def _inner(self, block: Any, depth: int) -> list[Any]:
        inputs = [self._define(value) for value in block.inputs()]
        nodes = self._block(block.nodes(), depth + 1)
        return [len(inputs), nodes, [self._use(value) for value in block.outputs()]]

    def _get_attribute(self, node: Any) -> list[Any] | None:
        owner, name, output = node.input().unique(), node.s("name"), node.output()
        if owner not in self._paths:
            self._refuse(f"the attribute {name!r} of an object that is no module")
        path = f"{self._paths[owner]}.{name}".lstrip(".")
        if path in self._places:
            # Usually the value is simply there, under its number. One that forward() replaces is
            # read anew, when the node is carried out.
            place = len(self._schema_inputs) + self._places[path]
            if path not in self._reassigned:
                self._numbers[output.unique()] = place
                return None
            return [self._operator("prim::GetAttr"), [place], self._define_all(node)]
        if name == "training" and str(output.type()) == "bool":
            self._numbers[output.unique()] = self._training
            return None
        value = self._attribute(path)
        if isinstance(value, torch._C.ScriptObject):
            self._paths[output.unique()] = path
            return None
        if isinstance(value, (list, tuple)) and any(
            isinstance(item, torch.Tensor) for item in value
        ):
            # nn.LSTM keeps its weights in a list, too
            items = [self._item(item, path) for item in value]
            return [self._operator("prim::ListConstruct"), items, self._define_all(node)]
        self._numbers[output.unique()] = self._constant(value, f"attribute {path!r}")
        return None

    def _item(self, tensor: Any, path: str) -> int:
        """Return the number of a tensor in a list that is an attribute.

        The tensor may be one of the model's parameters.
        """
        if id(tensor) in self._indices:
            return len(self._schema_inputs) + self._indices[id(tensor)]
        return self._constant(tensor, f"attribute {path!r}")

    def _set_attribute(self, node: Any) -> list[Any]:
        owner, value = node.inputs()
        path = f"{self._paths.get(owner.unique(), '?')}.{node.s('name')}".lstrip(".")
        if path not in self._places:
            self._refuse(f"a change of the attribute {path!r}, which is no tensor of the model,")
        place = len(self._schema_inputs) + self._places[path]
        return [self._operator("prim::SetAttr"), [place, self._use(value)], 0]

    @property
    def _schema_inputs(self) -> list[Any]:
        return self._schema.arguments[1 if self._module is not None else 0 :]

    def _attribute(self, path: str) -> Any:
        # past the names that Python's side of it has for itself, "graph" for one
        value = self._module._c
        for name in path.split("."):
            value = value.getattr(name)
        return value

    def _find_reassigned(self, block: Any) -> None:
        """Note which tensors of the model forward() replaces.

        So earlier reads keep what they read.
        """
        for node in script.nodes_of(block):
            if node.kind() == "prim::SetAttr":
                self._reassigned.add(node.s("name"))
        self._reassigned = {
            path for path in self._places if path.rpartition(".")[2] in self._reassigned
        }

    def _constant(self, value: Any, what: str = "a constant") -> int:
        """Return the number of a constant; equal ones are written down once."""
        packed = self._packed(value, what)
        key = repr(packed)
        if key not in self._constant_numbers:
            self._constants.append(packed)
            self._constant_numbers[key] = -len(self._constants)
        return self._constant_numbers[key]

    def _packed(self, value: Any, what: str) -> Any:
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, (list, tuple)) and not any(
            isinstance(item, torch.Tensor) for item in value
        ):
            items = [self._packed(item, what) for item in value]
            return {"tuple": items} if isinstance(value, tuple) else items
        if (
            isinstance(value, torch.Tensor)
            and value.layout == torch.strided
            and not value.is_quantized
        ):
            self._tensors.append(value.detach())
            return {"tensor": [len(self._tensors) - 1, _dtype_name(value), list(value.shape)]}
        return self._refuse(f"{what} of type {type(value).__name__}")

    def _operator(self, name: str) -> int:
        return self._operators.setdefault(name, len(self._operators))

    def _use(self, value: Any) -> int:
        if value.unique() not in self._numbers:
            self._refuse(f"a value of type {value.type()}")
        return self._numbers[value.unique()]

    def _define(self, value: Any) -> int:
        number = self._numbers[value.unique()] = self._count
        self._count += 1
        return number

    def _define_all(self, node: Any) -> int:
        return len([self._define(value) for value in node.outputs()])

    def _refuse(self, what: str) -> Any:
        raise NotConvertible(self._what, what)


def _operator_name(node: Any) -> str:
    """Return the name of a node's operator with its overload: "aten::add.Tensor"."""
    schema = node.schema()
    return node.kind() if schema == "(no schema)" else schema.partition("(")[0]


def _constant_value(node: Any) -> Any:
    return None if str(node.output().type()) == "NoneType" else node.output().toIValue()


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
