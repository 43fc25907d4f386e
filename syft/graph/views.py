"""A bound on views of views of complex numbers.

Torch keeps with a view how to make it anew from the tensor at its root. For most views it is their
strides that say so; for those that show complex numbers as pairs of real ones, or conjugated, and
for each view of these, it is a chain of functions, and each further view gets a copy of the whole
chain. A few thousand of them in a row would take gigabytes, which nothing else counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

MAX_VIEWS = 64
"""Views of views behind one of complex numbers."""

_START_NAMES = """
_conj _neg_view adjoint conj imag mH matrix_H real view_as_complex view_as_real
"""
_START = frozenset(_START_NAMES.split())
"""Operators that begin such a chain."""
_UNDECLARED = frozenset(
    ("atleast_1d", "atleast_2d", "atleast_3d", "broadcast_tensors", "einsum", "meshgrid")
)
"""Operators that give views, though their schemas do not say so."""
_MARK = "_views_behind"


def bounded(name: str, schema: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, which then refuses views of too many views.

    Args:
        name: the operator, for errors.
        schema: its schema.
        function: what computes the operator.
    """
    short = schema.name.removeprefix("aten::")
    starts = short in _START
    views = any(each.alias_info and not each.alias_info.is_write for each in schema.returns)
    if not (starts or views or short in _UNDECLARED):
        return function

    def call(*values: Any, **named: Any) -> Any:
        behind = max((getattr(each, _MARK, 0) for each in _tensors(values)), default=0)
        if behind >= MAX_VIEWS:
            raise ValueError(
                f"{name} would make view {behind + 1} of views of complex numbers; the limit is "
                f"{MAX_VIEWS}. Clone the tensor."
            )
        result = function(*values, **named)
        if behind or starts:
            for each in _tensors([result]):
                if each._is_view() and not any(each is given for given in _tensors(values)):
                    setattr(each, _MARK, behind + 1)
        return result

    return call


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
