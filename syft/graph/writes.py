"""Operators that change an argument without telling autograd.

Autograd keeps tensors for the backward pass and counts how often each was changed, so that it can
refuse to work with what was overwritten. Some kernels write without being counted: batch norm its
running statistics, for example. If these are another view of the indices of a pool, the backward
pass would trust whatever indices the batch's mean makes. So such an operator gets copies of what it
changes, and copying them back is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_STATISTICS = ("running_mean", "running_var")
_UNCOUNTED: dict[str, tuple[str, ...]] = {
    "batch_norm": _STATISTICS,
    "native_batch_norm": _STATISTICS,
    "rrelu_with_noise": ("noise",),
    "rrelu_with_noise_": ("noise",),
}
"""The arguments, by operator."""


def counted(schema: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` such that autograd counts all that it writes.

    Args:
        schema: the operator's.
        function: what computes the operator.
    """
    changed = _UNCOUNTED.get(schema.name.removeprefix("aten::"))
    if changed is None:
        return function
    names = [each.name for each in schema.arguments]
    places = [names.index(name) for name in changed]
    training = names.index("training")

    def call(*values: Any, **named: Any) -> Any:
        writes = changed != _STATISTICS or values[training]
        written = {place: values[place] for place in places if writes and values[place] is not None}
        copies = {place: tensor.detach().clone() for place, tensor in written.items()}
        result = function(
            *(copies.get(place, value) for place, value in enumerate(values)), **named
        )
        with torch.no_grad():
            for place, tensor in written.items():
                tensor.copy_(copies[place])
        return result

    return call
