"""The same model, made fast for evaluation on the CPU.

What it is made of is the receiver's own graph and tensors.

Two things make a convolutional network up to twice as fast, and change its results by rounding
only:

- batch normalisation with fixed statistics is a scale and a shift: they go into the convolution
  before it;
- another layout. Where convolutions are followed by what oneDNN can do, tensors stay in its own
  layout, in which pooling is ten times as fast; elsewhere they are kept with the channels last.

Nothing is computed here that does not depend on the model's size alone, so a hostile graph gains no
time by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch

from syft.graph.check import Block, Node, Structure, TensorConstant
from syft.graph.interpret import GraphModule, checked_result, compiled, run
from syft.graph.metering import account
from syft.graph.operators import Operator

_CONVOLUTIONS = ("aten::conv2d", "aten::_convolution")
_BATCH_NORM = "aten::batch_norm"
_FOLLOWING_NAMES = """
aten::relu aten::relu_ aten::max_pool2d aten::avg_pool2d aten::adaptive_avg_pool2d aten::add.Tensor
aten::add_.Tensor aten::sigmoid aten::tanh aten::dropout aten::size aten::size.int aten::dim
"""
_FOLLOWING = frozenset(_FOLLOWING_NAMES.split())
"""Operators that take a tensor in oneDNN's layout, and give one."""


def for_inference(model: Any) -> Any:
    """Return a faster equivalent of a received model, or the model itself.

    There is a faster one in eval mode on the CPU only. The results differ by rounding only. `model`
    is not modified; what is returned does not follow later changes of its parameters. It may be
    called from several threads at once.
    """
    usable = (
        isinstance(model, GraphModule)
        and not model.training
        and torch.backends.mkldnn.is_available()
    )
    # In this order: without the branches for training, fewer models change their own state.
    if not usable or any(tensor.device.type != "cpu" for tensor in model.graph_state().values()):
        return model
    structure = _for_evaluation(model.graph_structure)
    return model if _changes_state(structure) else _FastModel(model, structure)


class _FastModel:
    """A model, as it was when this was made."""

    def __init__(self, model: GraphModule, structure: Structure) -> None:
        self._model = model
        self._state = model.graph_tensors()
        folded = _Folding(structure, self._state).structure()
        # An operator that writes to a copy in another layout would leave the original as it was.
        if _loses_writes(folded):
            self._program = compiled(folded, lambda operator: operator.function)
            return
        blocked = _stays_in_layout(folded)
        self._program = compiled(folded, _for_blocked if blocked else _for_channels_last)
        with torch.no_grad():
            for index in _weights_of_convolutions(folded):
                weight = self._state[index].detach()
                if weight.dtype == torch.float32 and weight.dim() == 4:
                    last = weight.contiguous(memory_format=torch.channels_last)
                    self._state[index] = weight.to_mkldnn() if blocked else last

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        values = self._model.graph_values(arguments, named, self._state, self._program)
        run(self._program.steps, values, account(), self._model)
        return _plain(checked_result(values[self._program.result]))


class _Folding:
    """Puts batch normalisation into the convolution before it.

    The folded weight takes the place of the convolution's weight in the list of state, and the
    folded bias that of the normalisation's bias; so each of them must have no other use.
    """

    def __init__(self, structure: Structure, state: list[Any]) -> None:
        self._structure = structure
        self._state = state
        self._first = len(structure.arguments)
        self._training = self._first + len(structure.state)
        self._uses: Counter[int] = Counter(
            number for node in _nodes(structure.body) for number in node.arguments
        )
        for block in _blocks(structure.body):
            self._uses.update(block.results)
        self._queries: Counter[int] = Counter(
            node.arguments[0] for node in _nodes(structure.body) if node.operator.name in _QUERIES
        )

    def structure(self) -> Structure:
        """Return the structure without the normalisations that were folded.

        The list of state is changed to fit.
        """
        return replace(self._structure, body=self._folded(self._structure.body))

    def _folded(self, block: Block) -> Block:
        convolutions = {
            node.results[0]: node for node in block.nodes if node.operator.name in _CONVOLUTIONS
        }
        changed: dict[int, Node] = {}  # id of a node -> what stands there now
        for node in block.nodes:
            before = (
                convolutions.get(node.arguments[0]) if node.operator.name == _BATCH_NORM else None
            )
            if before is not None and self._fits(before, node):
                self._fold(before, node)
                arguments = [*before.arguments]
                arguments[2] = node.arguments[2]
                changed[id(before)] = replace(before, arguments=arguments)
                changed[id(node)] = Node(_SAME, [node.arguments[0]], node.results)
        nodes = [changed.get(id(node), node) for node in block.nodes]
        return Block(
            block.inputs,
            [replace(n, blocks=[self._folded(b) for b in n.blocks]) for n in nodes],
            block.results,
        )

    def _fits(self, convolution: Node, norm: Node) -> bool:
        if len(norm.arguments) < 8 or len(convolution.arguments) < 7:
            return False
        training = norm.arguments[5]
        frozen = training == self._training or (training < 0 and self._constant(training) is False)
        own = [convolution.arguments[1], *norm.arguments[1:3]]
        bias = convolution.arguments[2]
        output = convolution.results[0]
        transposed = convolution.operator.name == "aten::_convolution" and (
            self._constant(convolution.arguments[6]) is not False
        )
        return (
            frozen
            and not transposed
            and all(self._is_state(number) and self._uses[number] == 1 for number in own)
            and all(self._is_state(number) for number in norm.arguments[3:5])
            and (self._is_state(bias) or (bias < 0 and self._constant(bias) is None))
            and self._uses[output] - self._queries[output] == 1
            and all(
                self._of(number).dtype == torch.float32 for number in [*own, *norm.arguments[3:5]]
            )
            and all(
                self._of(number).shape == self._of(own[0]).shape[:1]
                for number in norm.arguments[1:5]
            )
            and self._of(own[0]).dim() == 4
            and isinstance(self._constant(norm.arguments[7]), float)
        )

    def _fold(self, convolution: Node, norm: Node) -> None:
        weight, (gamma, beta, mean, variance) = (
            convolution.arguments[1],
            map(self._of, norm.arguments[1:5]),
        )
        bias = 0 if convolution.arguments[2] < 0 else self._of(convolution.arguments[2])
        with torch.no_grad():
            scale = gamma / torch.sqrt(variance + self._constant(norm.arguments[7]))
            self._state[weight - self._first] = self._of(weight) * scale.reshape(-1, 1, 1, 1)
            self._state[norm.arguments[2] - self._first] = (bias - mean) * scale + beta

    def _is_state(self, number: int) -> bool:
        return self._first <= number < self._training

    def _of(self, number: int) -> torch.Tensor:
        return self._state[number - self._first]

    def _constant(self, number: int) -> Any:
        return self._structure.constants[-1 - number] if number < 0 else None


_QUERIES = ("aten::dim", "aten::size", "aten::size.int")
_SAME = Operator("syft::same", lambda value: value, 1, 1)


def _for_blocked(operator: Operator) -> Callable[..., Any]:
    """Return what computes an operator on tensors in oneDNN's layout, and on plain ones."""
    function = operator.function
    if operator.name in _CONVOLUTIONS:
        return lambda tensor, weight, *others: _convolved(function, tensor, weight, *others)
    if operator is _SAME:
        return function
    if operator.name in _FOLLOWING:
        return lambda *values, **named: _following(function, *values, **named)
    # Whatever oneDNN's layout is not known to suit gets plain tensors: slower, never wrong.
    return lambda *values, **named: function(*map(_plain, values), **named)


def _for_channels_last(operator: Operator) -> Callable[..., Any]:
    """Return what computes an operator where tensors have their channels last.

    Convolutions get and give such tensors there.
    """
    function = operator.function
    if operator.name in _CONVOLUTIONS:
        return lambda tensor, *others: function(_channels_last(tensor), *others)
    return _RESHAPES.get(operator.name, function)


_RESHAPES: dict[str, Callable[..., Any]] = {
    "aten::view": torch.ops.aten.reshape.default,
    "aten::view_as": torch.ops.aten.reshape_as.default,
}
"""What stands in for operators that refuse tensors with their channels last."""


def _channels_last(tensor: Any) -> Any:
    is_images = isinstance(tensor, torch.Tensor) and tensor.dim() == 4
    return tensor.contiguous(memory_format=torch.channels_last) if is_images else tensor


def _convolved(
    function: Callable[..., Any], tensor: Any, weight: Any, bias: Any = None, *others: Any
) -> Any:
    """Convolve in oneDNN's layout, if that can be."""
    if (
        weight.is_mkldnn
        and isinstance(tensor, torch.Tensor)
        and tensor.dtype == torch.float32
        and tensor.dim() == 4
    ):
        try:
            blocked = tensor if tensor.is_mkldnn else tensor.to_mkldnn()
            return function(
                blocked,
                weight,
                bias if bias is None or bias.is_mkldnn else bias.to_mkldnn(),
                *others,
            )
        except RuntimeError:  # it knows fewer cases than torch does
            pass
    return function(_plain(tensor), _plain(weight), _plain(bias), *others)


def _following(function: Callable[..., Any], *values: Any, **named: Any) -> Any:
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    if tensors and all(tensor.is_mkldnn for tensor in tensors):
        try:
            return function(*values, **named)
        except RuntimeError:
            pass
    return function(*map(_plain, values), **named)


def _plain(value: Any) -> Any:
    """Return a value with its tensors, also those in lists, in torch's own layout."""
    if isinstance(value, torch.Tensor):
        return value.to_dense() if value.is_mkldnn else value
    if isinstance(value, (list, tuple)) and any(isinstance(item, torch.Tensor) for item in value):
        return type(value)(
            item.to_dense() if isinstance(item, torch.Tensor) and item.is_mkldnn else item
            for item in value
        )
    return value


def _stays_in_layout(structure: Structure) -> bool:
    """Return whether oneDNN can do what is done with the results of convolutions."""
    nodes = list(_nodes(structure.body))
    convolved = {node.results[0] for node in nodes if node.operator.name in _CONVOLUTIONS}
    known = _FOLLOWING.union(_CONVOLUTIONS, [_SAME.name])
    convolved |= {
        n.results[0] for n in nodes if n.operator is _SAME and n.arguments[0] in convolved
    }
    return all(
        node.operator.name in known for node in nodes if convolved.intersection(node.arguments)
    )


def _loses_writes(structure: Structure) -> bool:
    """Return whether a write could be lost where values are copied to another layout.

    It is not if what is written to, and all that it is a view of, is looked at only once: by what
    writes to it, or by what makes the next view of it.
    """
    shared = _Shared(structure)
    uses = Counter(number for node in _nodes(structure.body) for number in node.arguments)
    uses.update(structure.body.results)
    inner = [
        node
        for block in _blocks(structure.body)
        if block is not structure.body
        for node in block.nodes
    ]
    if any(node.operator.writes is not None for node in inner):
        return True
    written = {
        shared.group(n.arguments[n.operator.writes])
        for n in _nodes(structure.body)
        if n.operator.writes is not None
    }
    return any(
        uses[number] > 1 and shared.group(number) in written
        for node in _nodes(structure.body)
        for number in _sharing(node)
    )


def _sharing(node: Node) -> Iterable[int]:
    """Return the arguments whose memory the results of a node may share."""
    if node.operator.shares is None:
        return node.arguments
    return [node.arguments[index] for index in node.operator.shares if index < len(node.arguments)]


class _Shared:
    """Which values may share their memory: groups of them."""

    def __init__(self, structure: Structure) -> None:
        self._parents: dict[int, int] = {}
        # Numbers, texts and the flag `training` have no memory to share.
        self._plain = {
            -1 - index
            for index, each in enumerate(structure.constants)
            if type(each) is not TensorConstant
        }
        self._plain.add(len(structure.arguments) + len(structure.state))
        for node in _nodes(structure.body):
            self._join(
                [
                    *_sharing(node),
                    *node.results,
                    *(n for b in node.blocks for n in (*b.inputs, *b.results)),
                ]
            )

    def group(self, number: int) -> int:
        """Return what is the same for all values of a group."""
        while (parent := self._parents.get(number, number)) != number:
            self._parents[number] = number = self._parents.get(parent, parent)
        return number

    def _join(self, numbers: list[int]) -> None:
        numbers = [number for number in numbers if number not in self._plain]
        for number in numbers[1:]:
            self._parents[self.group(number)] = self.group(numbers[0])


def _weights_of_convolutions(structure: Structure) -> set[int]:
    """Return the indices in the list of state of what convolutions take as weights."""
    first = len(structure.arguments)
    weights = {
        node.arguments[1] for node in _nodes(structure.body) if node.operator.name in _CONVOLUTIONS
    }
    return {number - first for number in weights if first <= number < first + len(structure.state)}


def _changes_state(structure: Structure) -> bool:
    """Return whether a node may write to a parameter, buffer or constant, which threads share."""
    shared = _Shared(structure)
    first = len(structure.arguments)
    own = {shared.group(number) for number in range(first, first + len(structure.state))}
    own |= {shared.group(number) for number in range(-len(structure.constants), 0)}
    return any(
        node.operator.name == "prim::SetAttr"
        or (
            node.operator.writes is not None
            and shared.group(node.arguments[node.operator.writes]) in own
        )
        for node in _nodes(structure.body)
    )


def _for_evaluation(structure: Structure) -> Structure:
    """Return a structure without the branches that are for training alone."""
    training = len(structure.arguments) + len(structure.state)
    names: dict[int, int] = {}

    def branch(node: Node) -> Block | None:
        """Return the branch that an If takes; None if that is not known."""
        if node.operator.name != "prim::If":
            return None
        condition = names.get(node.arguments[0], node.arguments[0])
        # for_inference() is for models in eval mode only.
        if condition == training:
            return node.blocks[1]
        if condition < 0 and type(structure.constants[-1 - condition]) is bool:
            return node.blocks[0 if structure.constants[-1 - condition] else 1]
        return None

    def renamed(numbers: list[int]) -> list[int]:
        return [names.get(number, number) for number in numbers]

    def pruned(block: Block) -> Block:
        nodes: list[Node] = []
        for node in block.nodes:
            taken = branch(node)
            if taken is None:
                inner = [pruned(each) for each in node.blocks]
                nodes.append(replace(node, arguments=renamed(node.arguments), blocks=inner))
            else:
                inlined = pruned(taken)
                nodes.extend(inlined.nodes)
                names.update(zip(node.results, inlined.results, strict=True))
        return Block(block.inputs, nodes, renamed(block.results))

    return replace(structure, body=pruned(structure.body))


def _blocks(block: Block) -> Iterator[Block]:
    yield block
    for node in block.nodes:
        for inner in node.blocks:
            yield from _blocks(inner)


def _nodes(block: Block) -> Iterator[Node]:
    for each in _blocks(block):
        yield from each.nodes
