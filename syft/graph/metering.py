"""Measures what a running model uses.

Reports it after every operator and every turn of a loop to the meter that bounds it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol

import torch

from syft.graph.operators import Operator
from syft.graph.scalars import CHANGES_LISTS

_PER_RESULT = 512
"""Bytes of what torch keeps of a tensor beside its elements: it counts where a loop makes millions
of small ones."""
_PER_ITEM = 16


class Meter(Protocol):
    """What bounds running models."""

    def check(self, made: int) -> None:
        """Raise an error if the model has used up what it may.

        `made` are the bytes that this forward pass made.
        """


meter: ContextVar[Meter | None] = ContextVar("meter", default=None)
"""What bounds the models that run in this context; None: nothing does."""


def account() -> Account | None:
    """Return the account of one forward pass; None if nothing bounds it."""
    bound = meter.get()
    return None if bound is None else Account(bound)


# Bytes are added up and never taken off. What is alive at any moment would be the fairer figure,
# but to know it means to follow every reference; and the sum also bounds the work of a model that
# makes and drops tensors in a loop.


class Account:
    """Adds up the bytes of the results of one forward pass, whether or not they are dropped again.

    Args:
        bound: what they are told to.
    """

    __slots__ = ("_bound", "_made")

    def __init__(self, bound: Meter) -> None:
        self._bound = bound
        self._made = 0

    def enter(self, operator: Operator, arguments: list[Any], result: Any) -> None:
        """Enter the result of an operator."""
        self._made += _made(operator, arguments, result)
        self._bound.check(self._made)

    def check(self) -> None:
        """Tell how much it is so far."""
        self._bound.check(self._made)


def _made(operator: Operator, arguments: list[Any], result: Any) -> int:
    """Return the bytes that an operator made.

    Those are the bytes of its results, but not of views and of what was there before.
    """
    # In place, or a view of an argument: no new memory but for the tensor object itself.
    if isinstance(result, torch.Tensor):
        if operator.writes is not None or (
            operator.shares and _address(result) in map(_address, arguments)
        ):
            return _PER_RESULT
        return result.nbytes + _PER_RESULT
    if operator.shares is not None:  # torch's own, with several results
        items = result if isinstance(result, (list, tuple)) else ()
        sizes = (item.nbytes for item in items if isinstance(item, torch.Tensor))
        return len(items) * _PER_RESULT + (0 if operator.shares else sum(sizes))
    # A list that grows in a loop is one result, which is there already; what is new are its items.
    if operator.name.partition(".")[0] in CHANGES_LISTS:
        more = arguments[-1] if arguments else None
        return _PER_ITEM * (len(more) if isinstance(more, list) else 4)
    return _PER_ITEM * len(result) + 64 if isinstance(result, (str, list, tuple, dict)) else 0


def _address(value: Any) -> Any:
    """Return where a tensor's memory begins.

    For each tensor and value of which that cannot be told, it is something else.
    """
    if not isinstance(value, torch.Tensor) or value.is_mkldnn or value.is_meta:
        return object()
    return value.untyped_storage().data_ptr()
