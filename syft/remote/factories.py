"""Tensors that are made for a worker: `worker.remote.torch.zeros(2)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from syft.objects import registry
from syft.remote.tensor import PointerTensor

FACTORIES = frozenset(
    {
        "arange", "eye", "full", "linspace", "ones", "rand", "randint", "randn", "randperm",
        "tensor", "zeros",
    }
)  # fmt: skip


class Remote:
    """The frameworks that a worker makes tensors with.

    Source: PySyft 0.2.4, `worker.remote`. The tensors are made in this process and sent, so random
    numbers are those of its generator.

    Args:
        worker: the worker, or its proxy.

    Attributes:
        frameworks: their names.
        torch: functions of torch, which return pointers.
    """

    frameworks = ("torch",)

    def __init__(self, worker: Any) -> None:
        self.torch = _Torch(worker)


class _Torch:
    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def __getattr__(self, name: str) -> Callable[..., PointerTensor]:
        if name not in FACTORIES:
            raise AttributeError(
                f"remote.torch has no {name!r}; it has: {', '.join(sorted(FACTORIES))}. Call torch."
                f"{name} here, with tensors of this process or with pointers."
            )

        def make(*args: Any, **kwargs: Any) -> PointerTensor:
            tensor = getattr(torch, name)(*args, **kwargs)
            pointer: PointerTensor = registry.local_worker.send(tensor, self._worker)
            return pointer

        return make
