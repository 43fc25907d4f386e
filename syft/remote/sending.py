"""Pointers to tensors that were sent to a worker, or found there."""

from __future__ import annotations

from typing import Any

import torch

from syft.objects import ID_PROVIDER, ObjectId
from syft.remote.shapes import Geometry, geometry, told_geometry
from syft.remote.tensor import PointerTensor


def pointer_to_sent(
    tensor: torch.Tensor, location: Any, owner: Any, id: ObjectId | None, collect: bool
) -> PointerTensor:
    """Send a tensor, with its gradient, to a worker; return a pointer to it there."""
    stream, obj_id = location._stream(), _id_to_send(tensor)
    stream.store(obj_id, tensor)
    pointer = PointerTensor(
        location,
        obj_id,
        owner,
        id,
        collect,
        getattr(tensor, "tags", None),
        getattr(tensor, "description", None),
        geometry=_contiguous(tuple(tensor.shape), tensor.dtype),
        requires_grad=tensor.requires_grad,
    )
    if tensor.is_leaf and tensor.grad is not None:
        pointer.grad = pointer_to_sent(tensor.grad, location, owner, None, True)
    return pointer


def pointer_to_stored(
    location: Any,
    id: ObjectId,
    tags: list[str],
    description: str | None,
    shape: Any,
    stride: Any,
    dtype: Any,
    requires_grad: bool,
) -> PointerTensor:
    """Return a pointer to a tensor that a search has found; the tensor stays when it goes.

    Raises:
        TypeError, ValueError: what the worker tells of it is no geometry.
    """
    about = told_geometry(shape, stride, dtype)
    return PointerTensor(
        location, id, None, None, False, tags, description, geometry=about,
        requires_grad=requires_grad is True and about.has_grads,
    )  # fmt: skip


def _id_to_send(tensor: torch.Tensor) -> ObjectId:
    """Return the id that a tensor gets at a worker: its own.

    Sent again, while a pointer to what was sent before may be there, it is another object: it gets
    a new id, there and here.
    """
    known = tensor.__dict__
    if known.get("_was_sent") or known.get("id") is None:
        known["id"] = ID_PROVIDER.pop()
    known["_was_sent"] = True
    obj_id: ObjectId = known["id"]
    return obj_id


def _contiguous(shape: tuple[int, ...], dtype: torch.dtype) -> Geometry:
    """Return the geometry of what arrives of a tensor: its elements, in order."""
    return geometry(shape, torch.empty(shape, device="meta").stride(), dtype)
