"""Runs a plain graph: the model as the receiver has it.

A graph is compiled once to steps, one a node; running it is a loop over them. Every step sees only
the values that it names, and the list of values is all the memory that a graph has:

    values = [ arguments | state | training | results of nodes ... | constants, the first one last ]
               0, 1, ...                                             ..., -2, -1

A value is dropped after its last use, so that evaluation holds no more than it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from syft.exceptions import MalformedMessage
from syft.graph.check import Block, Node, Place, Structure, TensorConstant
from syft.graph.metering import Account, account
from syft.graph.operators import Operator
from syft.graph.scalars import MAX_ITEMS

_PER_BYTE, _PER_MODULE = 128, 3072
"""Bytes in memory of what a byte of a structure becomes, and of a module, measured."""


# A received model is an nn.Module like any other: optimizers, state_dict() and to() work on it. The
# names that this class adds begin with `graph_` or `_graph_`, since the modules and parameters of
# the sender's model may have any other.
#
# What a graph can do is what its operators can. It sees its values by number, and buffers through
# the two state operators; it has no access to the module, to Python or to anything else.


class GraphModule(nn.Module):
    """A model, or a loss function, that was received as a plain graph.

    Its parameters and buffers have the names that they have at the sender, aliases included.

    Args:
        structure: the graph.
        state: the tensors of `structure.state`, in that order; taken over without a copy.
        constants: the tensors among the constants; taken over too.
        digest: the digest of structure and constants.

    Attributes:
        graph_structure: the graph. These names leave the usual ones to the model's own modules.
        graph_digest: the digest of structure and constants.
        graph_arguments: names of the arguments of forward.

    Raises:
        MalformedMessage: the tensors are not those that the structure describes.
    """

    def __init__(
        self,
        structure: Structure,
        state: Sequence[torch.Tensor],
        constants: Sequence[torch.Tensor],
        digest: str = "",
    ) -> None:
        super().__init__()
        self.graph_structure = structure
        self.graph_digest = digest
        self.graph_arguments = [name for name, _ in structure.arguments]
        if len(state) != len(structure.state):
            raise MalformedMessage(
                f"a model came with {len(state)} tensors; its structure has {len(structure.state)}"
            )
        tensors = [
            _as_described(place, tensor)
            for place, tensor in zip(structure.state, state, strict=True)
        ]
        self._graph_places = [
            self._graph_register(place.name, tensor)
            for place, tensor in zip(structure.state, tensors, strict=True)
        ]
        for alias, index in structure.aliases.items():
            self._graph_register(alias, tensors[index])
        described = [each for each in structure.constants if isinstance(each, TensorConstant)]
        # else the digest would not tell them all
        if len({each.index for each in described}) != len(constants):
            raise MalformedMessage(
                f"a model came with {len(constants)} constants; its structure has {len(described)}"
            )
        for number, constant in enumerate(structure.constants):
            if isinstance(constant, TensorConstant):
                # As a buffer it follows the model to a device; as one that is not persistent it is
                # no state.
                tensor = _constant_tensor(constant, constants)
                self.register_buffer(f"_graph_constant_{number}", tensor, persistent=False)

    def graph_state(self) -> dict[str, torch.Tensor]:
        """Return the parameters and buffers by name, each tensor once.

        They share the model's memory.
        """
        return {
            place.name: (owner._parameters if place.is_parameter else owner._buffers)[leaf].detach()  # type: ignore[union-attr]
            for place, (owner, leaf) in zip(
                self.graph_structure.state, self._graph_places, strict=True
            )
        }

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """Run the graph.

        Args:
            *arguments: the arguments of the sender's forward.
            **named: the same by name.

        Raises:
            TypeError: an argument is missing, or there is one too many.
        """
        program = _program(self.graph_structure)
        values = self.graph_values(arguments, named, self.graph_tensors(), program)
        bound = account()
        if bound is not None:
            bound.check()  # here too: an optimizer may call a graph without operators for ever
        run(program.steps, values, bound, self)
        return checked_result(values[program.result])

    def graph_values(
        self, arguments: tuple[Any, ...], named: dict[str, Any], state: list[Any], program: Program
    ) -> list[Any]:
        """Return the values that a run starts from: see the top of this module."""
        values = [*self._graph_bound(arguments, named), *state, self.training]
        values += [None] * (program.count - len(values))
        constants = self._graph_constants
        return values + list(map(_fresh, constants))

    @property
    def graph_bytes(self) -> int:
        """Bytes of memory that this model takes beside its tensors, about."""
        return _PER_BYTE * self.graph_structure.size + _PER_MODULE * sum(1 for _ in self.modules())

    def graph_tensors(self) -> list[Any]:
        """Return the parameters and buffers themselves, in the structure's order."""
        return [
            owner._parameters.get(leaf, owner._buffers.get(leaf))
            for owner, leaf in self._graph_places
        ]

    def _graph_bound(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
        expected = self.graph_structure.arguments
        if len(arguments) == len(expected) and not named:
            return list(arguments)
        bound: dict[str, Any] = dict(zip(self.graph_arguments, arguments, strict=False))
        unknown = named.keys() - (set(self.graph_arguments) - bound.keys())
        if len(arguments) > len(expected) or unknown:
            given = len(arguments) + len(named)
            raise TypeError(
                f"the model takes the arguments {self.graph_arguments}; {given} were given "
                f"{sorted(unknown)}"
            )
        bound |= named
        for name, default in expected:
            if name not in bound:
                if default is None:
                    raise TypeError(
                        f"the model takes the arguments {self.graph_arguments}; {name!r} was not "
                        "given"
                    )
                bound[name] = _fresh(self._graph_constants[default])
        return [bound[name] for name in self.graph_arguments]

    @property
    def _graph_constants(self) -> list[Any]:
        """The constants, the first one last."""
        constants = enumerate(self.graph_structure.constants)
        return [
            self._buffers[f"_graph_constant_{number}"]
            if isinstance(constant, TensorConstant)
            else constant
            for number, constant in constants
        ][::-1]

    def _graph_replace(self, place: int, value: Any) -> None:
        """Carry out `self.buffer = value`, for a tensor like the one that is there."""
        expected, (owner, leaf) = self.graph_structure.state[place], self._graph_places[place]
        if not isinstance(value, torch.Tensor) or expected.is_parameter:
            raise TypeError(
                f"the model replaces {expected.name!r} by a {type(value).__name__}; only buffers "
                "can change"
            )
        if value.untyped_storage().nbytes() > value.nbytes:  # a part would keep the whole alive
            value = value.clone()
        owner._buffers[leaf] = _as_described(expected, value)

    def _graph_register(self, name: str, tensor: torch.Tensor) -> tuple[nn.Module, str]:
        *path, leaf = name.split(".")
        owner: nn.Module = self
        try:
            for part in path:
                if part not in owner._modules:
                    owner.add_module(part, nn.Module())
                owner = owner._modules[part]  # type: ignore[assignment]
            if isinstance(tensor, nn.Parameter):
                owner.register_parameter(leaf, tensor)
            else:
                owner.register_buffer(leaf, tensor)
        except KeyError as reason:  # the name of a module, or of a method of nn.Module
            raise MalformedMessage(
                f"a parameter or buffer cannot have the name {name!r}: {reason}"
            ) from None
        return owner, leaf


class Step:
    """A node, ready to run."""

    __slots__ = (
        "arguments",
        "blocks",
        "drops",
        "function",
        "keywords",
        "name",
        "operator",
        "results",
        "unpacks",
    )

    def __init__(self, node: Node, drops: list[int], function: Callable[..., Any]) -> None:
        operator = node.operator
        positional = len(node.arguments) if operator.positional is None else operator.positional
        self.name = operator.name
        self.operator = operator
        self.function = function
        self.arguments = node.arguments[:positional]
        # A sender with another torch may leave out arguments that this one has; they have defaults.
        self.keywords = tuple(zip(operator.keywords, node.arguments[positional:], strict=False))
        self.results = node.results
        self.unpacks = len(node.results) != 1 or operator.name in (
            "prim::ListUnpack",
            "prim::TupleUnpack",
        )
        self.drops = drops
        self.blocks: list[tuple[list[int], list[Step], list[int]]] = []


Prepare = Callable[[Operator], Callable[..., Any]]


class Program:
    """A structure, compiled.

    Args:
        structure: the structure.
        prepare: returns the function that computes an operator.
    """

    def __init__(self, structure: Structure, prepare: Prepare) -> None:
        self._prepare = prepare
        self.count = structure.count
        self.result = structure.body.results[0]
        self._fixed = len(structure.arguments) + len(structure.state) + 1
        self.steps, _ = self._block(structure.body, set())

    def _block(self, block: Block, kept: set[int]) -> tuple[list[Step], set[int]]:
        """Return the block's steps and all values that they use.

        `kept` are used after the block.
        """
        later = kept | set(block.results)
        defined = {number for node in block.nodes for number in node.results} | set(block.inputs)
        steps, used = [], set(block.results)
        # From the end: the first use that is met this way is the last one, after which to drop a
        # value. A block drops only what it has defined itself. What comes from outside is needed
        # again in the next turn of a loop.
        for node in reversed(block.nodes):
            inner = [self._block(each, set()) for each in node.blocks]
            uses = set(node.arguments).union(*(numbers for _, numbers in inner))
            drops = [number for number in (uses & defined) - later if number >= self._fixed]
            drops += [number for number in node.results if number not in later]
            step = Step(node, drops, self._prepare(node.operator))
            step.blocks = [
                (each.inputs, steps_, each.results)
                for each, (steps_, _) in zip(node.blocks, inner, strict=True)
            ]
            steps.append(step)
            later |= uses
            used |= uses
        return steps[::-1], used


def compiled(
    structure: Structure, prepare: Prepare = lambda operator: operator.function
) -> Program:
    """Return the program of a structure; that of the plain operators is remembered."""
    return Program(structure, prepare)


def _program(structure: Structure) -> Program:
    program = _programs.get(structure)
    if program is None:
        program = compiled(structure)
        _programs[structure] = program
    return program


_programs: WeakKeyDictionary[Structure, Program] = WeakKeyDictionary()


def run(steps: list[Step], values: list[Any], bound: Account | None, module: GraphModule) -> None:
    """Carry out steps on a list of values; see the top of this module."""
    for step in steps:
        if step.name in _CONTROL:
            _CONTROL[step.name](step, values, bound, module)
        else:
            arguments = [values[number] for number in step.arguments]
            try:
                result = step.function(
                    *arguments, **{name: values[number] for name, number in step.keywords}
                )
            except Exception as error:
                if hasattr(error, "add_note"):  # pragma: no branch - Python 3.10 has no notes
                    error.add_note(f"The model failed at {step.name}.")
                raise
            if bound is not None:
                bound.enter(step.operator, arguments, result)
            # This list would keep dropped values alive while the next step runs.
            del arguments
            if not step.unpacks:
                values[step.results[0]] = result
            elif step.results:
                for number, item in zip(step.results, result, strict=True):
                    values[number] = item
        for number in step.drops:
            values[number] = None


def _if(step: Step, values: list[Any], bound: Account | None, module: GraphModule) -> None:
    _, steps, results = step.blocks[0 if _truth(values[step.arguments[0]]) else 1]
    run(steps, values, bound, module)
    for number, result in zip(step.results, results, strict=True):
        values[number] = values[result]


def _loop(step: Step, values: list[Any], bound: Account | None, module: GraphModule) -> None:
    most, going, *carried = (values[number] for number in step.arguments)
    inputs, steps, results = step.blocks[0]
    turn = 0
    while turn < most and _truth(going):
        values[inputs[0]] = turn
        for number, value in zip(inputs[1:], carried, strict=True):
            values[number] = value
        # Even a body without operators takes time, and may be repeated without end.
        run(steps, values, bound, module)
        if bound is not None:
            bound.check()
        going, *carried = (values[number] for number in results)
        turn += 1
    for number, value in zip(step.results, carried, strict=True):
        values[number] = value


def _get_state(step: Step, values: list[Any], bound: Account | None, module: GraphModule) -> None:
    values[step.results[0]] = values[step.arguments[0]]


def _set_state(step: Step, values: list[Any], bound: Account | None, module: GraphModule) -> None:
    place, value = step.arguments
    module._graph_replace(place - len(module.graph_structure.arguments), values[value])
    values[place] = values[value]


_CONTROL: dict[str, Callable[[Step, list[Any], Account | None, GraphModule], None]] = {
    "prim::If": _if,
    "prim::Loop": _loop,
    "prim::GetAttr": _get_state,
    "prim::SetAttr": _set_state,
}


def checked_result(value: Any) -> Any:
    """Return what a model returned, if it has few enough parts to be looked at.

    Lists may share theirs.
    """
    waiting, seen = [value], 0
    while waiting and isinstance(value, (list, tuple, dict)):
        each = waiting.pop()
        if isinstance(each, (list, tuple, dict)):
            seen += len(each)
            if seen > MAX_ITEMS:
                raise ValueError(f"a model returned more than {MAX_ITEMS} values")
            waiting.extend(each.values() if isinstance(each, dict) else each)
    return value


def _fresh(constant: Any) -> Any:
    """Return a constant whose lists are new ones.

    So a graph that changes them changes its own.
    """
    if type(constant) in (list, tuple):
        return type(constant)(map(_fresh, constant))
    return constant


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"the model branches on a {type(value).__name__}; expected a bool")
    return value


def _as_described(place: Place, tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as the parameter or buffer that a structure describes.

    Raises:
        MalformedMessage: it has another shape or dtype.
    """
    if tuple(tensor.shape) != place.shape or tensor.dtype != place.dtype:
        raise MalformedMessage(
            f"tensor {place.name!r} of a model is {tuple(tensor.shape)} {tensor.dtype}; "
            f"its structure says {place.shape} {place.dtype}"
        )
    if not place.is_parameter:
        return tensor.detach()
    if place.requires_grad and not (tensor.is_floating_point() or tensor.is_complex()):
        raise MalformedMessage(
            f"parameter {place.name!r} of a model is {tensor.dtype}, which has no gradients"
        )
    return nn.Parameter(tensor.detach(), requires_grad=place.requires_grad)


def _constant_tensor(constant: TensorConstant, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    if not 0 <= constant.index < len(tensors):
        raise MalformedMessage(
            f"a model has the tensor {constant.index} as a constant; {len(tensors)} came with it"
        )
    tensor = tensors[constant.index]
    if tuple(tensor.shape) != constant.shape or tensor.dtype != constant.dtype:
        raise MalformedMessage(
            f"constant {constant.index} of a model is {tuple(tensor.shape)} {tensor.dtype}"
        )
    return tensor
