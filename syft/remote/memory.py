"""The memory that autograd keeps for a backward pass, counted byte by byte."""

from __future__ import annotations

from typing import Any

import torch

from syft.exceptions import LimitExceeded


def storage_key(tensor: torch.Tensor) -> int:
    """Return what tells the memory of a tensor, which its views share, from all others."""
    key: int = tensor.untyped_storage()._cdata
    return key


class GraphMemory:
    """Counts the bytes that autograd keeps for a backward; a context for what may keep some.

    Args:
        worker: the worker's id, for errors.
        limit: how many it may keep.
    """

    def __init__(self, worker: str, limit: int) -> None:
        self._worker = worker
        self._limit = limit
        self._bytes = 0
        self._kept: dict[int, int] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> None:
        hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, _Saved.tensor_of)
        hooks.__enter__()
        self._hooks.append(hooks)

    def __exit__(self, *error: Any) -> None:
        self._hooks.pop().__exit__(*error)

    def _keep(self, tensor: torch.Tensor) -> _Saved:
        key, size = storage_key(tensor), tensor.untyped_storage().nbytes()
        count = self._kept.get(key, 0)
        if not count:
            if self._bytes + size > self._limit:
                raise LimitExceeded(
                    self._worker,
                    "the bytes that a coordinator's graphs keep",
                    self._bytes + size,
                    self._limit,
                    "graph_bytes",
                )
            self._bytes += size
        self._kept[key] = count + 1
        return _Saved(self, tensor, key, size)

    def release(self, key: int, size: int) -> None:
        """Count a saved tensor that is no longer there."""
        self._kept[key] -= 1
        if not self._kept[key]:
            del self._kept[key]
            self._bytes -= size


class _Saved:
    """A tensor that autograd keeps."""

    __slots__ = ("_key", "_memory", "_size", "tensor")

    def __init__(self, memory: GraphMemory, tensor: torch.Tensor, key: int, size: int) -> None:
        self.tensor = tensor
        self._memory = memory
        self._key = key
        self._size = size

    def tensor_of(self) -> torch.Tensor:
        """Return the tensor."""
        return self.tensor

    def __del__(self) -> None:
        self._memory.release(self._key, self._size)
