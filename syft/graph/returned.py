"""A model that comes back from a worker.

It is the sender's own, with the tensors that the worker returned.

Nothing of a reply but tensors is used, and only tensors like those that were sent: so a worker can
change what a model has learned, which is its part, but not what the model does, to this process or
to the next worker.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from syft.exceptions import InvalidReply
from syft.graph.convert import unique_tensors
from syft.graph.interpret import GraphModule
from syft.graph.script import ScriptFunction, clone


def is_model(obj: Any) -> bool:
    """Return whether `obj` is a model or function, of which only tensors come back."""
    return isinstance(obj, (nn.Module, ScriptFunction)) or inspect.isroutine(obj)


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers of a model by name; they share its memory.

    Constants of a received graph are no part of it.
    """
    if isinstance(model, GraphModule):
        return model.graph_state()
    return {name: tensor.detach() for name, tensor in unique_tensors(model).items()}


def with_state(sent: nn.Module | Callable[..., Any], state: Any, worker: str) -> Any:
    """Return a copy of a model with other parameters and buffers; a function as it is.

    Args:
        sent: the model or function that was sent. Not modified.
        state: name -> tensor, as it came back; taken over without a copy.
        worker: id of the worker that it came from, for errors.

    Raises:
        InvalidReply: the tensors are not like those of `sent` in name, shape and dtype; or one
            holds a value that is not finite, and was not sent there (a mask of attention is a
            buffer that holds infinities).
    """
    expected = unique_tensors(sent) if isinstance(sent, nn.Module) else {}
    if not isinstance(state, dict) or state.keys() != expected.keys():
        observed = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise InvalidReply(
            worker,
            "the names of a model's tensors",
            f"{observed!s:.200}",
            f"{sorted(expected)!s:.200}",
        )
    for name, tensor in state.items():
        _check(worker, name, tensor, expected[name])
    if not isinstance(sent, nn.Module):
        return sent
    model = clone(sent)
    taken: set[int] = set()
    with torch.no_grad():
        for name, own in unique_tensors(model).items():
            address = state[name].data_ptr()
            if own.device.type == "cpu" and address not in taken:
                # a second parameter in the same memory would change with the first
                taken.add(address)
                own.data = state[name]
            else:
                own.copy_(state[name])
    return model


def _check(worker: str, name: str, tensor: Any, like: torch.Tensor) -> None:
    observed = _described(tensor) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
    if observed != _described(like):
        raise InvalidReply(worker, f"parameter {name!r}", observed, _described(like))
    check_finite(worker, name, tensor, like)


def check_finite(
    worker: str, name: str, tensor: torch.Tensor, like: torch.Tensor | None = None
) -> None:
    """Check the values of a parameter or buffer that a worker returned.

    Args:
        worker: id of the worker, for errors.
        name: name of the parameter or buffer.
        tensor: what came back.
        like: what was sent, whose values may come back as they are; None: only finite values may.

    Raises:
        InvalidReply: some values are not finite.
    """
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return
    finite = torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor)
    if like is not None and not finite.all():
        sent = like.detach().cpu()
        finite |= (tensor == sent) | (tensor.isnan() & sent.isnan())
    if not finite.all():
        observed = f"{finite.numel() - int(finite.sum())} values that are not finite"
        raise InvalidReply(worker, f"parameter {name!r}", observed, "finite values only")


def _described(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"
