"""Functions of torch that are caught before torch takes them apart.

A recurrent layer would be hundreds of operations; it is one.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import _VF

from syft.remote.posting import apply
from syft.remote.tensor import SPECIAL, PointerTensor


def _recurrent(operation: Any) -> Callable[..., Any]:
    """Return what stands for torch.lstm and its like: one operation rather than hundreds.

    A state that was not given is made of zeros in this process, which would be apart from the
    input: zeros are made at the worker.
    """

    def call(*args: Any) -> Any:
        packed = isinstance(args[3], (list, tuple))  # (data, batch_sizes, hx, params, ...)
        place = 2 if packed else 1
        layers, dropout, training = args[place + 3 : place + 6]
        if dropout and training and layers > 1:
            return _layer_by_layer(call, place, args)
        state = args[place]
        if isinstance(state, (list, tuple)):
            state = [_zeros_like(each, args[0]) for each in state]
        else:
            state = _zeros_like(state, args[0])
        func = operation.data if packed else operation.input
        arguments = (*args[:place], state, *args[place + 1 :])
        with torch._C.DisableTorchFunctionSubclass():
            return apply(func, arguments, {}, is_random=False)

    return call


def _layer_by_layer(recurrent: Callable[..., Any], place: int, args: Any) -> Any:
    """Run a recurrent layer of several layers one by one, with dropout between them.

    The masks are then drawn in this process, as those of dropout elsewhere.

    Args:
        recurrent: torch.lstm or its like.
        place: the index of the state in its arguments; of a packed sequence it is 2.
        args: its arguments.
    """
    value = args[0]
    state, params, has_biases, layers, dropout, training, bidirectional = args[place : place + 7]
    is_batch_first = place == 1 and args[-1]
    value = value.transpose(0, 1) if is_batch_first else value
    sizes, last = ((args[1],), ()) if place == 2 else ((), (False,))
    size, directions = len(params) // layers, 2 if bidirectional else 1
    several = isinstance(state, (list, tuple))
    states = []
    for layer in range(layers):
        rows = slice(layer * directions, (layer + 1) * directions)
        part = [each[rows] for each in state] if several else state[rows]
        some = params[layer * size : (layer + 1) * size]
        value, *found = recurrent(
            value, *sizes, part, some, has_biases, 1, 0.0, training, bidirectional, *last
        )
        states.append(found)
        if layer + 1 < layers:
            value = F.dropout(value, dropout, True)
    value = value.transpose(0, 1) if is_batch_first else value
    return value, *(torch.cat(each) for each in zip(*states, strict=True))


def _undivided(function: Any, operation: Any) -> Callable[..., Any]:
    """Return what stands for a function that torch takes apart in one way or another.

    Which way depends on whether gradients are needed, and that is known at the worker. It makes a
    difference in the last bit of the gradients.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if kwargs.get("out") is not None:
                return function(*args, **kwargs)
            return apply(operation, args, kwargs)

    return call


def _opened(function: Any) -> Callable[..., Any]:
    """Return a Python function of torch that passes on the calls it makes, rather than itself.

    So the functions that it calls are caught one by one, too.
    """
    names = {**function.__globals__, "has_torch_function": lambda tensors: False}
    opened = FunctionType(function.__code__, names, function.__name__, function.__defaults__)
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened


_linear = _undivided(F.linear, torch.ops.aten.linear.default)
_matmul = _undivided(torch.matmul, torch.ops.aten.matmul.default)


def _pack(value: Any, lengths: torch.Tensor, batch_first: bool) -> Any:
    """Stand for torch._VF._pack_padded_sequence(): choose the rows, whose places are known here."""
    value = value.transpose(0, 1) if batch_first else value
    steps, batch = value.shape[:2]
    places = torch.arange(steps * batch).view(steps, batch)
    with torch._C.DisableTorchFunctionSubclass():
        chosen, sizes = _VF._pack_padded_sequence(places, lengths, False)
        return value.reshape(steps * batch, *value.shape[2:])[chosen], sizes


def _pad(
    data: Any, sizes: torch.Tensor, batch_first: bool, padding_value: float, total_length: int
) -> Any:
    """Stand for torch._VF._pad_packed_sequence(), as _pack() does."""
    rows = len(data)
    with torch._C.DisableTorchFunctionSubclass():
        places, lengths = _VF._pad_packed_sequence(
            torch.arange(rows), sizes, batch_first, rows, total_length
        )
        padding = data.new_full((1, *data.shape[1:]), padding_value)
        return torch.cat([data, padding])[places], lengths


def _cell(operation: Any) -> Callable[..., Any]:
    """Return what stands for torch.lstm_cell and its like: one operation, zeros as above."""

    def call(value: Any, state: Any, *weights: Any) -> Any:
        if isinstance(state, (list, tuple)):
            state = [_zeros_like(each, value) for each in state]
        else:
            state = _zeros_like(state, value)
        with torch._C.DisableTorchFunctionSubclass():
            return apply(operation, (value, state, *weights), {})

    return call


def _zeros_like(state: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    is_here = not isinstance(state, PointerTensor) and isinstance(like, PointerTensor)
    return like.new_zeros(state.shape) if is_here and not state.any() else state


def _backward_all(
    tensors: Any, grad_tensors: Any = None, retain_graph: Any = None, create_graph: bool = False,
    grad_variables: Any = None, inputs: Any = None,
) -> None:  # fmt: skip
    """Stand for torch.autograd.backward()."""
    roots = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
    given = [grad_tensors] if isinstance(grad_tensors, torch.Tensor) else grad_tensors
    gradients = [None] * len(roots) if given is None else list(given)
    # The roots may share parts of the graph, which only the last one may free.
    for number, (root, gradient) in enumerate(zip(roots, gradients, strict=True), 1):
        keep = retain_graph or number < len(roots)
        root.backward(gradient, retain_graph=keep, create_graph=create_graph, inputs=inputs)


def _no_gradients(*args: Any, **kwargs: Any) -> NoReturn:
    raise NotImplementedError(
        "torch.autograd.grad() takes no remote tensors: call backward(), and read .grad of the "
        "leaves."
    )


SPECIAL |= {
    _VF._pack_padded_sequence: _pack,
    _VF._pad_packed_sequence: _pad,
    F.linear: _linear,
    F.multi_head_attention_forward: _opened(F.multi_head_attention_forward),
    torch.matmul: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.Tensor.__matmul__: _matmul,
    torch.Tensor.__rmatmul__: lambda value, other: _matmul(other, value),
    torch.lstm: _recurrent(torch.ops.aten.lstm),
    torch.gru: _recurrent(torch.ops.aten.gru),
    torch.rnn_tanh: _recurrent(torch.ops.aten.rnn_tanh),
    torch.rnn_relu: _recurrent(torch.ops.aten.rnn_relu),
    torch.lstm_cell: _cell(torch.ops.aten.lstm_cell.default),
    torch.gru_cell: _cell(torch.ops.aten.gru_cell.default),
    torch.rnn_tanh_cell: _cell(torch.ops.aten.rnn_tanh_cell.default),
    torch.rnn_relu_cell: _cell(torch.ops.aten.rnn_relu_cell.default),
    torch.autograd.backward: _backward_all,
    torch.autograd.grad: _no_gradients,
}
