"""The shape of a result before anybody has computed it.

A pointer has a shape, strides and a dtype at once, while its tensor may not even have been
computed. They are inferred by running the operation on tensors without memory (torch's device
"meta"), once for each combination of what they depend on: that costs 200 us, and looking it up
again 1 us.

What they depend on is the key: the operation, the geometry of its tensors, and its other arguments;
but of numbers that are only computed with (a learning rate, Adam's bias correction) the type alone.
Otherwise a number that changes with every step would miss for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any

import torch

from syft.commands import MAX_DIMENSIONS
from syft.graph.kinds import DTYPE_OF

MAX_REMEMBERED = 4096
"""Calls whose result's geometry is remembered, and geometries."""


class Geometry:
    """What is known of a tensor that is elsewhere: shape, strides in elements, dtype.

    Equal ones are the same object while they are remembered, so that keys of the cache compare
    them by identity.
    """

    __slots__ = ("dtype", "has_grads", "shape", "stride")

    def __init__(self, shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape = torch.Size(shape)
        self.stride = stride
        self.dtype = dtype
        self.has_grads = dtype.is_floating_point or dtype.is_complex

    def without_memory(self) -> torch.Tensor:
        """Return a tensor of this geometry on the device "meta"."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")


@lru_cache(MAX_REMEMBERED)
def geometry(shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> Geometry:
    """Return the geometry with this shape, these strides and this dtype."""
    return Geometry(shape, stride, dtype)


def told_geometry(shape: Any, stride: Any, dtype: Any) -> Geometry:
    """Return the geometry that a worker tells of a tensor.

    Args:
        shape: its sizes.
        stride: its strides, in elements.
        dtype: the number of its dtype.

    Raises:
        TypeError, ValueError: it is none.
    """
    sizes, strides = tuple(shape), tuple(stride)
    are_numbers = all(type(each) is int and 0 <= each < 2**63 for each in (*sizes, *strides))
    are_few = len(sizes) == len(strides) <= MAX_DIMENSIONS
    if not (are_numbers and are_few and math.prod(sizes) < 2**63 and dtype in DTYPE_OF):
        raise ValueError(f"no geometry: {sizes!r:.99}, {strides!r:.99}, {dtype!r:.99}")
    return geometry(sizes, strides, DTYPE_OF[dtype])


def geometry_of(tensor: torch.Tensor) -> Geometry:
    """Return the geometry of a tensor that is here."""
    return geometry(tuple(tensor.shape), tensor.stride(), tensor.dtype)


_known: dict[Hashable, Any] = {}
_UNKNOWN = object()


def inferred(key: Hashable, run: Callable[[], Any]) -> Any:
    """Return the geometry of an operation's results: one, None for no tensor, or a list of these.

    Args:
        key: what they depend on.
        run: runs the operation on tensors without memory.

    Raises:
        Exception: whatever torch raises for arguments that do not fit.
    """
    result = _known.get(key, _UNKNOWN)
    if result is _UNKNOWN:
        with torch.no_grad():
            result = _geometries(run())
        if len(_known) >= MAX_REMEMBERED:
            _known.clear()
        _known[key] = result
    return result


def _geometries(result: Any) -> Any:
    if isinstance(result, torch.Tensor):
        return geometry_of(result)
    if isinstance(result, (list, tuple)):
        return [_geometries(each) for each in result]
    return None
