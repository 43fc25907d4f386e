"""Formulas of the operators that torch takes others apart into (see formulas.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from syft.graph.formulas import BY_SHAPE, BY_VALUES, ITEM, Formula, broadcast, itemsize


def _same(count: int) -> Callable[..., int]:
    """Return the formula of an operator whose results are `count` times as large as its input."""

    def formula(self: Tensor, **_: Any) -> int:
        return count * self.numel() * ITEM

    return formula


def _trilinear(
    i1: Tensor, i2: Tensor, i3: Tensor, expand1: Sequence[int], expand2: Sequence[int],
    expand3: Sequence[int], **_: Any,
) -> tuple[int, int]:  # fmt: skip
    shapes = []
    for tensor, places in ((i1, expand1), (i2, expand2), (i3, expand3)):
        shape = list(tensor.shape)
        for place in sorted(places):
            shape.insert(place, 1)
        shapes.append(shape)
    size = broadcast(*shapes)
    return 2 * size * itemsize(i1, i2, i3), size


def _flash_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, **_: Any
) -> tuple[int, int]:
    pairs = query.numel() // max(1, query.shape[-1]) * key.shape[-2]
    mask = 0 if attn_mask is None else attn_mask.numel()
    return (2 * query.numel() + mask) * ITEM, pairs * 2 * query.shape[-1]


def _transform(self: Tensor, dim: Sequence[int], last_dim_size: int = 1, **_: Any) -> int:
    rest = self.numel() // max(1, self.shape[dim[-1]])
    return 4 * (self.numel() + rest * last_dim_size) * ITEM


INNER_BY_SHAPE: dict[str, Formula] = {
    **dict.fromkeys(("_unique2", "_to_copy", "diagonal_copy"), _same(4)),
    **{f"_adaptive_avg_pool{d}d": BY_SHAPE[f"adaptive_avg_pool{d}d"] for d in (2, 3)},
    "_trilinear": _trilinear,
    "_scaled_dot_product_flash_attention_for_cpu": _flash_attention,
    **dict.fromkeys(("_fft_c2c", "_fft_r2c", "_fft_c2r"), _transform),
}
INNER_BY_VALUES: dict[str, Formula] = {"_ctc_loss": BY_VALUES["ctc_loss"]}
"""The formulas, as in formulas.BY_SHAPE and formulas.BY_VALUES."""
