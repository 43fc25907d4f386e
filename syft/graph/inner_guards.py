"""Checks of arguments of the operators that torch takes others apart into (see guards.py).

Kernels trust the operator around them to have checked what they get. Here a stranger may call them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from syft.graph.guards import GUARDS
from syft.graph.needs import Guard, need, need_floats, need_shape


def _weight_norm_interface(v: Tensor, g: Tensor, dim: int) -> None:
    need(v.dim() and dim in (0, v.dim() - 1), "dim", dim, f"0 or {v.dim() - 1}")
    need_shape("g", g, *[size if place == dim else 1 for place, size in enumerate(v.shape)])
    need_floats(v=v, g=g)


def _flash_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, **_: Any
) -> None:
    """Check attention.

    The shape letters: N batch, H heads, L queries, S keys, E embedding.
    """
    need(query.dim() == 4 and query.numel(), "query", query, "4 dimensions, not empty")
    batch, heads, queries, width = query.shape
    need(key.dim() == 4 and key.numel(), "key", key, "4 dimensions, not empty")
    keys = key.size(2)
    for argument, tensor in (("key", key), ("value", value)):
        need_shape(argument, tensor, batch, heads, keys, width)
    need_floats(query=query, key=key, value=value)
    if attn_mask is not None:
        wanted = (batch, heads, queries, keys)
        fits = attn_mask.dim() in (2, 4) and all(
            size in (1, full)
            for size, full in zip(attn_mask.shape[::-1], wanted[::-1], strict=False)
        )
        need(fits, "attn_mask", attn_mask, f"a shape that broadcasts to {list(wanted)}")


def _fft(self: Tensor, dim: Sequence[int], normalization: int, **_: Any) -> None:
    fits = len(set(dim)) == len(dim) > 0 and min(dim) >= 0 and max(dim) < self.dim()
    need(fits, "dim", dim, f"different numbers from 0 to {self.dim() - 1}")
    need(self.numel(), "self", self, "a tensor that is not empty")
    need(normalization in (0, 1, 2), "normalization", normalization, "0, 1 or 2")


def _fft_c2r(
    self: Tensor, dim: Sequence[int], normalization: int, last_dim_size: int, **_: Any
) -> None:
    _fft(self, dim, normalization)
    half = self.size(dim[-1])
    fits = last_dim_size >= 1 and last_dim_size // 2 + 1 == half
    need(fits, "last_dim_size", last_dim_size, f"{max(1, 2 * half - 2)} or {2 * half - 1}")


def _addbmm_(self: Tensor, batch1: Tensor, batch2: Tensor, **_: Any) -> None:
    """Check that the tensor does not grow, which it does in place."""
    need(batch1.dim() == batch2.dim() == 3, "batch1", batch1, "3 dimensions, as batch2")
    need_shape("self", self, batch1.size(1), batch2.size(2))


INNER_GUARDS: dict[str, Guard] = {
    "_ctc_loss": GUARDS["ctc_loss"],
    **dict.fromkeys(("_embedding_bag", "_embedding_bag_forward_only"), GUARDS["embedding_bag"]),
    "_weight_norm_interface": _weight_norm_interface,
    "_scaled_dot_product_flash_attention_for_cpu": _flash_attention,
    **dict.fromkeys(("_fft_c2c", "_fft_r2c"), _fft),
    "_fft_c2r": _fft_c2r,
    "addbmm_": _addbmm_,
    "_pdist_forward": GUARDS["pdist"],
}
"""The guards, as in guards.GUARDS."""
