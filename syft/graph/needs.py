"""What guards are made of: one call for each thing that an argument needs.

A need that is not met is an `Unfit`, which `guards.guarded` turns into the operator's error.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from syft.graph.kinds import DTYPES

Guard = Callable[..., None]
"""Takes an operator's arguments by name; raises Unfit."""


FLOATS = frozenset(dtype for dtype in DTYPES.values() if dtype.is_floating_point)
"""The floating-point dtypes."""


class Unfit(Exception):
    """An argument that an operator must not be called with."""

    def __init__(self, argument: str, observed: object, expected: str) -> None:
        super().__init__(f"argument {argument!r} is {observed}; expected {expected}")


def need(fits: object, argument: str, observed: object, expected: str) -> None:
    """Raise Unfit unless `fits`; of an observed tensor, dtype and shape are told, no value."""
    if not fits:
        raise Unfit(argument, _shown(observed), expected)


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, (list, tuple)) and any(isinstance(item, Tensor) for item in value):
        return f"[{', '.join(map(_shown, value[:6]))}]"
    return f"{value!r:.60}"


def need_shape(argument: str, tensor: Tensor | None, *shape: int) -> None:
    """Check that a tensor, if there is one, has this shape."""
    need(tensor is None or tuple(tensor.shape) == shape, argument, tensor, f"shape {list(shape)}")


def need_floats(**tensors: Tensor | None) -> None:
    """Check that tensors are floating point, and all of one dtype."""
    (first, tensor), *_ = given = [(key, each) for key, each in tensors.items() if each is not None]
    need(tensor.dtype in FLOATS, first, tensor, "floating point")
    for key, each in given:
        need(each.dtype == tensor.dtype, key, each, f"the dtype of {first}, {tensor.dtype}")


def need_indices(argument: str, tensor: Tensor, end: int) -> None:
    """Check that a tensor holds indices from 0 to `end` - 1."""
    whole = tensor.dtype in (torch.int32, torch.int64)
    need(whole, argument, tensor, "int32 or int64")
    need(
        not tensor.numel() or int(tensor.min()) >= 0,
        argument,
        "below 0 somewhere",
        f"indices from 0 to {end - 1}",
    )
    need(
        not tensor.numel() or int(tensor.max()) < end,
        argument,
        "too large somewhere",
        f"indices below {end}",
    )
