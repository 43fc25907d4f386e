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
from syft.remote.sending import pointer_to_sent
from syft.remote.tensor import PointerTensor, become, fetch

Model = TypeVar("Model", bound=nn.Module)


def send(model: Model, location: Any, **kwargs: Any) -> Model:
    """Send all parameters and buffers, with their gradients, to a worker; return this model.

    Source: PySyft 0.2.4, which sent no buffers.

    Args:
        model: the model.
        location: the worker, or its id.
        **kwargs: accepted for PySyft 0.2 programs and ignored.

    Raises:
        TypeError: it is traced or scripted.
        ValueError: it is at a worker already.
        WorkerNotFoundException: no worker of this process has this id (also a KeyError).
        RemoteOperationsOff: the worker's owner lets nobody operate on tensors there.
    """
    _check_is_plain(model, "send")
    if (there := _location(model)) is not None:
        raise ValueError(
            f"cannot send {_name(model)}: it is at worker {there.id!r}; expected a model of this "
            "process. Call .get() first, or .move(worker)."
        )
    worker = registry.local_worker.get_worker(location)
    for tensor in _tensors(model):
        become(tensor, pointer_to_sent(tensor, worker, None, None, True))
    return model


def get(model: Model, get_copy: bool = False) -> Model:
    """Fetch all parameters and buffers, with their gradients; the worker keeps no copy.

    Args:
        model: the model.
        get_copy: fetch a copy, and leave the model where it is.

    Returns:
        This model, or the copy.

    Raises:
        ValueError: it is in this process.
        RemoteOperationFailed: an operation that one of them depends on failed at the worker.
        ConnectionFailed: the worker is not reached any more.
    """
    if get_copy:
        return get(copied(model))
    pointers = [tensor for tensor in _tensors(model) if isinstance(tensor, PointerTensor)]
    if not pointers:
        raise ValueError(
            f"cannot get {_name(model)}: it is in this process already; expected a model that was "
            "sent. Nothing is left to do."
        )
    for pointer, tensor in zip(pointers, fetch(pointers), strict=True):
        become(pointer, tensor)
    return model


def move(model: Model, location: Any) -> Model:
    """Have another worker hold this model; it travels through this process. Return this model."""
    return send(get(model), location)


def copied(model: Model) -> Model:
    """Return a copy of this model, at the same place."""
    return copy.deepcopy(model)


class _Location:
    """The worker that holds a model's parameters; models of this process have no such attribute.

    It is no property, since torch.jit.script would compile it with every model.
    """

    def __get__(self, model: nn.Module | None, cls: type) -> Any:
        if model is None:
            return self
        worker = _location(model)
        if worker is None:
            raise AttributeError(
                f"{_name(model)} has no location: its parameters are in this process. To have them "
                "at a worker, call .send(worker)."
            )
        return worker


def add_methods() -> None:
    """Add these methods to nn.Module."""
    methods: dict[str, Any] = {
        "send": send,
        "get": get,
        "move": move,
        "copy": copied,
        "location": _Location(),
    }
    for name, method in methods.items():
        setattr(nn.Module, name, method)


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
