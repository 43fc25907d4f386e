"""Models whose parameters are at a worker.

    model.send(bob)    each parameter and buffer becomes a PointerTensor, and is still the same
                       object: optimizers that were made before go on with it
    model.get()        the same objects are local again, with their gradients

The model's code stays here, and posts its operations one by one (syft/remote/tensor.py). A model
that is traced or scripted cannot be sent this way, since TorchScript runs below the place where
operations are caught. It goes to a worker with a TrainConfig.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from syft.objects import registry
from syft.remote.tensor import PointerTensor, fetch, pointer_to_sent

Model = TypeVar("Model", bound=nn.Module)


def send(self: Model, location: Any, **kwargs: Any) -> Model:
    """Send all parameters and buffers, with their gradients, to a worker; return this model.

    Source: PySyft 0.2.4, which sent no buffers.

    Args:
        location: the worker, or its id.
        **kwargs: accepted for PySyft 0.2 programs and ignored.

    Raises:
        TypeError: it is traced or scripted.
        ValueError: it is at a worker already.
        WorkerNotFoundException: no worker of this process has this id (also a KeyError).
        RemoteOperationsOff: the worker's owner lets nobody operate on tensors there.
    """
    _check_is_plain(self, "send")
    if (there := _location(self)) is not None:
        raise ValueError(
            f"cannot send {_name(self)}: it is at worker {there.id!r}; expected a model of this "
            "process. Call .get() first, or .move(worker)."
        )
    worker = registry.local_worker.get_worker(location)
    for tensor in _tensors(self):
        become(tensor, pointer_to_sent(tensor, worker, None, None, True))
    return self


def get(self: Model) -> Model:
    """Fetch all parameters and buffers, with their gradients; the worker keeps no copy.

    Returns:
        This model.

    Raises:
        ValueError: it is in this process.
        RemoteOperationFailed: an operation that one of them depends on failed at the worker.
        ConnectionFailed: the worker is not reached any more.
    """
    pointers = [tensor for tensor in _tensors(self) if isinstance(tensor, PointerTensor)]
    if not pointers:
        raise ValueError(
            f"cannot get {_name(self)}: it is in this process already; expected a model that was "
            "sent. Nothing is left to do."
        )
    for pointer, tensor in zip(pointers, fetch(pointers), strict=True):
        become(pointer, tensor)
    return self


def move(self: Model, location: Any) -> Model:
    """Have another worker hold this model; it travels through this process. Return this model."""
    return send(get(self), location)


def copied(self: Model) -> Model:
    """Return a copy of this model, at the same place."""
    return copy.deepcopy(self)


def location(self: nn.Module) -> Any:
    """The worker that holds this model's parameters.

    Raises:
        AttributeError: they are in this process.
    """
    worker = _location(self)
    if worker is None:
        raise AttributeError(
            f"{_name(self)} has no location: its parameters are in this process. To have them at "
            "a worker, call .send(worker)."
        )
    return worker


def add_methods() -> None:
    """Add these methods to nn.Module."""
    methods: dict[str, Any] = {
        "send": send,
        "get": get,
        "move": move,
        "copy": copied,
        "location": property(location),
    }
    for name, method in methods.items():
        setattr(nn.Module, name, method)


def become(tensor: torch.Tensor, other: torch.Tensor) -> None:
    """Have two tensors change places: each is then what the other was, and the same object still.

    A parameter stays one.
    """
    # torch.utils.swap_tensors() does the same, but refuses tensors that have a weak reference, and
    # optimizers' hooks may hold some.
    classes = type(tensor), type(other)
    is_parameter = isinstance(tensor, nn.Parameter)
    torch._C._swap_tensor_impl(tensor, other)  # type: ignore[attr-defined]
    tensor.__class__, other.__class__ = _plain(classes[1]), _plain(classes[0])
    kept, given = dict(tensor.__dict__), dict(other.__dict__)
    tensor.__dict__.clear()
    tensor.__dict__.update(given)
    other.__dict__.clear()
    other.__dict__.update(kept)
    if is_parameter:
        # nn.Parameter's own test of what is one.
        tensor._is_param = True  # type: ignore[attr-defined]
        if not isinstance(tensor, PointerTensor):
            tensor.__class__ = nn.Parameter
            del tensor._is_param  # type: ignore[attr-defined]


def _plain(cls: type) -> type:
    return torch.Tensor if cls is nn.Parameter else cls


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    """Yield the parameters and buffers of a model, each once."""
    seen: set[int] = set()
    parts: Iterable[torch.Tensor] = (*model.parameters(), *model.buffers())
    for tensor in parts:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield tensor


def _location(model: nn.Module) -> Any:
    return next(
        (each.location for each in _tensors(model) if isinstance(each, PointerTensor)), None
    )


def _check_is_plain(model: nn.Module, action: str) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"cannot {action} {_name(model)}: it is a {type(model).__name__}, whose operations "
            "cannot be sent one by one; expected a plain nn.Module. Send the model that it was "
            "made of, or use a TrainConfig."
        )


def _name(model: nn.Module) -> str:
    return f"model {type(model).__name__}"
