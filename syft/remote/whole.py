"""Functions of torch that are caught before torch takes them apart.

A recurrent layer would be hundreds of operations; it is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch

from syft.remote.tensor import SPECIAL, PointerTensor, apply


def _recurrent(operation: Any) -> Callable[..., Any]:
    """Return what stands for torch.lstm and its like: one operation rather than hundreds.

    A state that was not given is made of zeros in this process, which would be apart from the
    input: zeros are made at the worker.
    """

    def call(*args: Any) -> Any:
        packed = isinstance(args[3], (list, tuple))  # (data, batch_sizes, hx, params, ...)
        place = 2 if packed else 1
        state = args[place]
        if isinstance(state, (list, tuple)):
            state = [_zeros_like(each, args[0]) for each in state]
        else:
            state = _zeros_like(state, args[0])
        dropout, training = args[place + 4], args[place + 5]
        func = operation.data if packed else operation.input
        arguments = (*args[:place], state, *args[place + 1 :])
        with torch._C.DisableTorchFunctionSubclass():
            return apply(func, arguments, {}, is_random=bool(dropout and training))

    return call


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
