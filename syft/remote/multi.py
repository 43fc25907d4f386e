"""One tensor at several workers: `x.send(bob, alice)`.

Each operation happens at each of them, with what that worker holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from syft.exceptions import TensorsNotCollocatedException
from syft.objects import ObjectId
from syft.remote.tensor import CPU, PointerTensor


class MultiPointerTensor(torch.Tensor):
    """Pointers to tensors of the same shape and dtype, one for each of several workers.

    Source: PySyft 0.2.4, `syft.generic.pointers.multi_pointer.MultiPointerTensor`.

    Args:
        pointers: the pointers.

    Attributes:
        child: worker id -> pointer.

    Raises:
        ValueError: two of them are at the same worker, or have different shapes or dtypes.
    """

    child: dict[ObjectId, PointerTensor]

    @staticmethod
    def __new__(cls, pointers: Sequence[PointerTensor]) -> MultiPointerTensor:  # noqa: D102
        child = {pointer.location.id: pointer for pointer in pointers}
        kinds = {(pointer.shape, pointer.dtype) for pointer in pointers}
        if len(child) != len(pointers) or len(kinds) != 1:
            found = ", ".join(
                f"{tuple(each.shape)} {each.dtype} on {each.location.id!r}" for each in pointers
            )
            raise ValueError(
                f"cannot combine these pointers: {found}; expected one for each worker, of the "
                "same shape and dtype."
            )
        first = pointers[0]
        combined: MultiPointerTensor = torch.Tensor._make_wrapper_subclass(
            cls, first.shape, strides=first.stride(), dtype=first.dtype, device=CPU
        )
        combined.child = child
        return combined

    def __init__(self, *args: Any) -> None:
        pass  # __new__ has set everything

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        several = [each for each in tree_leaves((args, kwargs)) if isinstance(each, cls)]
        workers = list(several[0].child)
        if any(each.child.keys() != several[0].child.keys() for each in several):
            places = sorted({str(worker) for each in several for worker in each.child})
            raise TensorsNotCollocatedException(func.__name__, places)
        results = []
        for worker in workers:
            part = lambda each: each.child[worker] if isinstance(each, cls) else each  # noqa: B023, E731
            results.append(func(*tree_map(part, args), **tree_map(part, kwargs or {})))
        return _combined(results)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return cls.__torch_function__(func, types, args, kwargs)

    @property
    def location(self) -> list[Any]:
        """The workers."""
        return [pointer.location for pointer in self.child.values()]

    @property
    def requires_grad(self) -> bool:  # type: ignore[override]
        """Whether gradients flow to the tensors, or through them."""
        return any(pointer.requires_grad for pointer in self.child.values())

    @property
    def grad(self) -> MultiPointerTensor | None:  # type: ignore[override]
        """Pointers to the gradients, or None."""
        gradients = [pointer.grad for pointer in self.child.values()]
        return None if None in gradients else MultiPointerTensor(gradients)

    def backward(self, *args: Any, **kwargs: Any) -> None:
        """Compute the gradients, at each worker; see PointerTensor.backward()."""
        for worker, pointer in self.child.items():
            part = lambda each: each.child[worker] if isinstance(each, type(self)) else each  # noqa: B023, E731
            pointer.backward(*tree_map(part, args), **tree_map(part, kwargs))

    def get(self, sum_results: bool = False) -> Any:
        """Fetch the tensors; the workers keep no copies.

        Args:
            sum_results: add them up.

        Returns:
            The list of tensors, in the order of the workers; or their sum.
        """
        tensors = [pointer.get() for pointer in self.child.values()]
        return torch.stack(tensors).sum(0) if sum_results else tensors

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"[{type(self).__name__} | {', '.join(map(str, self.child.values()))}]"

    __str__ = __repr__


def _combined(results: list[Any]) -> Any:
    """Return the results of the workers as one."""
    if isinstance(results[0], PointerTensor):
        return MultiPointerTensor(results)
    if isinstance(results[0], (list, tuple)):
        kind = type(results[0]) if type(results[0]) in (list, torch.Size) else tuple
        return kind(map(_combined, map(list, zip(*results, strict=True))))
    return results[0]
