"""The bytes of a tensor: what travels of it, and what digests are made of."""

from __future__ import annotations

import torch


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the elements of a dense tensor as bytes, in row-major order.

    They are the tensor's own memory where it is on the CPU and contiguous, else a copy.
    """
    # Conjugation and negation may be pending: a flag, while the memory holds the former values.
    dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    # Not view(-1) or reshape(-1): these keep an odd stride of a single element, such as that of
    # torch.ones(4)[::4], which cannot be seen as bytes.
    flat = dense.as_strided((dense.numel(),), (1,))
    return flat.view(torch.uint8).numpy().data
