"""What torch tells of an ATen operation, as far as posting it takes."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from syft.exceptions import RemoteValueNeeded
from syft.graph.guards import takes_contiguous
from syft.remote.operators import without_out


class Operation:
    """An ATen operation, as it is posted.

    Attributes:
        name: its name with its overload, for example "aten::add.Tensor".
        func: torch's operation.
        computes_with: for each argument whether a number there is only computed with.
        takes_contiguous: whether the worker makes its tensors contiguous.
        targets: for each result the index of the argument that it is, changed in place, or None.
        shares: whether its result is a view of its first argument.
        is_random: whether it draws random numbers.
        is_dynamic: whether the shape of its result depends on values.
        is_constant: whether no gradients flow through it.
        reads: the index of an argument whose values torch needs to tell a shape, though the shape
            does not depend on them; or None.
        plain: for an operation with `out=`, the one that returns its result; else None.
        view: for one that changes the shape of a tensor in place, the one that returns a view of
            that shape; else None.
        takes_local: for each argument whether it may be a tensor of the coordinator that has more
            than one element: an index or a mask of whole numbers.
    """

    __slots__ = (
        "computes_with", "func", "is_constant", "is_dynamic", "is_random", "name", "plain", "reads",
        "shares", "takes_contiguous", "takes_local", "targets", "view",
    )  # fmt: skip

    def __init__(self, func: Any) -> None:
        schema = func._schema
        self.func = func
        self.name = schema.name + (f".{schema.overload_name}" if schema.overload_name else "")
        if torch.Tag.data_dependent_output in func.tags:
            raise RemoteValueNeeded(self.name.removeprefix("aten::"))
        base = schema.name.removeprefix("aten::")
        self.view = _VIEWS.get(self.name)
        if self.view is None and torch.Tag.inplace_view in func.tags:
            raise NotImplementedError(
                f"{self.name} changes the shape of a tensor in place, which a remote tensor cannot "
                "do; use the function that returns a new one."
            )
        self.computes_with = [str(each.type) in _NUMBERS for each in schema.arguments]
        names = [each.name for each in schema.arguments]
        self.reads = names.index("batch_sizes") if "batch_sizes" in names else None
        self.takes_contiguous = takes_contiguous(schema)
        self.takes_local = [each.name in INDICES for each in schema.arguments]
        aliases = [each.alias_info for each in schema.returns]
        written = {
            name: index
            for index, each in enumerate(schema.arguments)
            if each.alias_info is not None and each.alias_info.is_write
            for name in each.alias_info.before_set
        }
        self.targets = [
            None if alias is None else written.get(next(iter(alias.before_set), ""))
            for alias in aliases
        ]
        self.shares = self.name != "aten::detach" and any(
            alias is not None and not alias.is_write for alias in aliases
        )
        self.is_random = torch.Tag.nondeterministic_seeded in func.tags
        self.is_dynamic = torch.Tag.dynamic_output_shape in func.tags or base in _UNTAGGED
        self.is_constant = base in _CONSTANTS or base.startswith("new_") or base.endswith("_like")
        plain = without_out(self.name) if any(each.is_out for each in schema.arguments) else None
        self.plain = None if plain is None else _overload(plain)


def _overload(name: str) -> Any:
    """Return torch's operation with this name, for example "aten::add.Tensor"."""
    base, _, overload = name.removeprefix("aten::").partition(".")
    return getattr(getattr(torch.ops.aten, base), overload or "default")


_VIEWS = {
    "aten::squeeze_": torch.ops.aten.squeeze.default,
    "aten::squeeze_.dim": torch.ops.aten.squeeze.dim,
    "aten::squeeze_.dims": torch.ops.aten.squeeze.dims,
    "aten::t_": torch.ops.aten.t.default,
    "aten::transpose_": torch.ops.aten.transpose.int,
    "aten::unsqueeze_": torch.ops.aten.unsqueeze.default,
}
"""Operations that change the shape of a tensor in place, and those that give a view instead."""
INDICES = frozenset(
    {
        "batch_sizes", "condition", "index", "indices", "input_lengths", "lengths", "mask",
        "offsets", "repeats", "target_lengths",
    }
)  # fmt: skip
"""Names of arguments that say where, not what."""
_UNTAGGED = frozenset({"_pack_padded_sequence"})
"""Operations whose results' shapes depend on values, though torch does not say so."""
_CONSTANTS = frozenset({"detach"})
"""Operations whose floating point results require no gradients, beside `new_...` and `..._like`."""
_NUMBERS = frozenset({"number", "float", "Optional[number]", "Optional[float]", "Tensor"})


@cache  # as many as torch has operations
def operation_of(func: Any) -> Operation:
    """Return what is to be known of one of torch's operations."""
    return Operation(func)
