"""What a backward pass makes, told node by node to what bounds it.

A backward pass can take far more memory and time than what was built: a number that was expanded a
thousand times to a million, at no cost, gets a thousand gradients of a million numbers before the
first is added up; each element taken from a large tensor gets a gradient as large as that tensor.
What is saved for it says nothing about that. So each node tells what it made, and may be the last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from torch import Tensor

Tell = Callable[[int], None]

telling: ContextVar[Tell | None] = ContextVar("telling", default=None)
"""Whom the backward pass of this thread tells the bytes that each node made; an error that it
raises ends the pass. It is no part of the hooks: these live as long as the graph, and the cycle
would never be collected."""

_WATCHED = "syft"


def watch(*results: Tensor) -> None:
    """Have the nodes that the results of an operation come from tell what they make.

    Args:
        *results: what the operation gave. Of a view that was changed in place, the tensor behind it
            is watched, too.
    """
    for tensor in results:
        for each in (tensor, tensor._base):
            node = each.grad_fn if each is not None else None
            if node is None:
                continue
            metadata: Any = node.metadata  # a dict of what belongs to the node
            if _WATCHED not in metadata:
                metadata[_WATCHED] = True
                node.register_hook(_tell)


def _tell(made: Sequence[Tensor | None], _: Any) -> None:
    tell = telling.get()
    if tell is not None:
        tell(sum(_bytes(gradient) for gradient in made if gradient is not None))


def _bytes(gradient: Tensor) -> int:
    return min(gradient.nbytes, gradient.untyped_storage().nbytes())
