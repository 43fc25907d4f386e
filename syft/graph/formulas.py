"""Formulas for what an operator makes and does, from its arguments by name.

Each returns the bytes of its results, or these and the multiplications. The operators that most
models use have one so that torch's way to measure (sizes.py), which takes two seconds and much
memory to load, is left for those that use others; the operators whose results depend on values in
tensors have one because there is no other way.

The shape letters: N batch, C channels, T steps, L and S queries and keys, H hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# A formula may say more than an operator makes, but not less: too much refuses a model at the edge
# of what is allowed, too little lets any model past. So an element counts for 4 bytes at least, and
# what is made on the way (windows, padding) is added. Shapes that do not fit one another are not
# refused here, since torch does that.

LEAST_BYTES = 4
"""Bytes that an element counts for at least, so that what is made as bool or uint8 is not too large
as a float."""
ITEM = 8
"""Bytes of an index, and of a number whose dtype is not looked at."""

Size = tuple[int, int]
Formula = Callable[..., "int | Size"]


def itemsize(*tensors: Tensor) -> int:
    """Return the bytes of an element of a result."""
    return max([LEAST_BYTES, *(tensor.element_size() for tensor in tensors)])


def per_dimension(value: Any, dimensions: int) -> Sequence[Any]:
    """Return a number for each dimension, where one may stand for all."""
    if not isinstance(value, (list, tuple)):
        return [value] * dimensions
    return value * dimensions if len(value) == 1 else value


def broadcast(*shapes: Sequence[int]) -> int:
    """Return how many elements tensors of these shapes have together, when they are broadcast.

    Shapes that do not fit give some number; torch refuses them.
    """
    size = 1
    for place in range(1, max(map(len, shapes), default=0) + 1):
        sizes = [shape[-place] for shape in shapes if len(shape) >= place]
        size *= 0 if 0 in sizes else max(sizes)
    return size


def pointwise(**arguments: Any) -> int:
    """Return the bytes of what has an element for each combination of its tensors' elements."""
    tensors = [value for value in arguments.values() if isinstance(value, Tensor)]
    return broadcast(*(tensor.shape for tensor in tensors)) * itemsize(*tensors)


# Products of matrices


def _linear(input: Tensor, weight: Tensor, **_: Any) -> Size:
    rows = math.prod(input.shape[:-1])
    outputs = weight.shape[0] if weight.dim() > 1 else 1
    return rows * outputs * itemsize(input), rows * outputs * weight.shape[-1]


def _matmul(
    self: Tensor, other: Tensor | None = None, mat2: Tensor | None = None, **_: Any
) -> Size:
    second = mat2 if other is None else other
    assert second is not None
    rows = self.shape[-2] if self.dim() > 1 else 1
    columns = second.shape[-1] if second.dim() > 1 else 1
    size = broadcast(self.shape[:-2], second.shape[:-2]) * rows * columns
    return size * itemsize(self), size * self.shape[-1]


def _added(self: Tensor, **matrices: Any) -> Size:
    first, second = (value for value in matrices.values() if isinstance(value, Tensor))
    size, work = _matmul(first, second)
    return max(size, pointwise(self=self)), work


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, **_: Any
) -> Size:
    batch = broadcast(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    pairs = batch * query.shape[-2] * key.shape[-2]  # L x S
    mask = 0 if attn_mask is None else attn_mask.numel()
    made = 2 * pairs + mask + batch * query.shape[-2] * value.shape[-1]
    return made * itemsize(query), pairs * (query.shape[-1] + value.shape[-1])


# Convolutions and pools


def _convolution(
    input: Tensor,
    weight: Tensor,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    transposed: bool = False,
    output_padding: Any = 0,
    **_: Any,
) -> Size:
    dimensions = weight.dim() - 2
    kernel = weight.shape[2:]
    images = input.shape[-dimensions:] if dimensions > 0 else ()
    steps, spread, more = (
        per_dimension(stride, dimensions),
        per_dimension(dilation, dimensions),
        per_dimension(output_padding, dimensions),
    )
    pads = per_dimension(
        {"valid": 0, "same": 0}.get(padding, padding) if isinstance(padding, str) else padding,
        dimensions,
    )
    if padding == "same":
        outputs = list(images)
    elif transposed:
        outputs = [
            (size - 1) * s - 2 * p + d * (k - 1) + m + 1
            for size, s, p, d, k, m in zip(images, steps, pads, spread, kernel, more, strict=False)
        ]
    else:
        outputs = [
            (size + 2 * p - d * (k - 1) - 1) // max(1, s) + 1
            for size, s, p, d, k in zip(images, steps, pads, spread, kernel, strict=False)
        ]
    batch = input.shape[0] if input.dim() == weight.dim() else 1
    channels = weight.shape[1] * max(1, groups) if transposed else weight.shape[0]
    places = math.prod(max(0, size) for size in outputs)
    made = batch * channels * places
    windows = math.prod(weight.shape[1:]) * (input.numel() if transposed else made)
    # Where oneDNN does not help, the windows of one image are laid out as a matrix; and images get
    # their padding.
    columns = (
        math.prod(weight.shape[1:]) * (math.prod(images) if transposed else places) * max(1, groups)
    )
    padded = (
        input.numel()
        // max(1, math.prod(images))
        * math.prod(size + 2 * abs(p) for size, p in zip(images, pads, strict=False))
    )
    return (made + columns + padded) * itemsize(input), windows


def _transposed(**arguments: Any) -> Size:
    return _convolution(transposed=True, **arguments)


def _pool(dimensions: int) -> Formula:
    def formula(
        self: Tensor,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        ceil_mode: bool,
        dilation: Any = 1,
        **_: Any,
    ) -> Size:
        kernel = per_dimension(kernel_size, dimensions)
        steps = per_dimension(stride, dimensions) if stride else kernel  # also for []
        outputs = [
            (size + 2 * p - d * (k - 1) - 1) // max(1, s) + 1 + bool(ceil_mode)
            for size, k, s, p, d in zip(
                self.shape[-dimensions:],
                kernel,
                steps,
                per_dimension(padding, dimensions),
                per_dimension(dilation, dimensions),
                strict=False,
            )
        ]
        made = math.prod(self.shape[:-dimensions]) * math.prod(max(0, size) for size in outputs)
        return made * (itemsize(self) + ITEM), made * math.prod(kernel)

    return formula


def _adaptive(dimensions: int) -> Formula:
    def formula(self: Tensor, output_size: Any) -> Size:
        outputs = math.prod(per_dimension(output_size, dimensions))
        made = math.prod(self.shape[:-dimensions]) * outputs
        return made * (itemsize(self) + ITEM), self.numel() + made

    return formula


def _padded(self: Tensor, pad: Sequence[int], **_: Any) -> int:
    sizes = list(self.shape)
    for place in range(len(pad) // 2):
        sizes[-1 - place] += pad[2 * place] + pad[2 * place + 1]
    return math.prod(max(0, size) for size in sizes) * itemsize(self)


# New tensors, and those made of others


def _new(size: Sequence[int], **_: Any) -> int:
    return math.prod(size) * ITEM


def _arange(end: float, start: float = 0, step: float = 1, **_: Any) -> int:
    if not all(map(math.isfinite, (start, end, step))) or step == 0:
        raise ValueError(
            f"aten::arange: from {start} to {end} in steps of {step}; expected finite numbers."
        )
    return max(0, math.ceil((end - start) / step) + 1) * ITEM


def _expanded(self: Tensor, size: Sequence[int], **_: Any) -> int:
    own = [1] * (len(size) - self.dim()) + list(self.shape)
    return math.prod(max(a, b) for a, b in zip(own, size, strict=False)) * itemsize(self)


def _repeated(self: Tensor, repeats: Sequence[int] = (), dims: Sequence[int] = (), **_: Any) -> int:
    return self.numel() * math.prod(max(0, times) for times in repeats or dims) * itemsize(self)


def _joined(tensors: Sequence[Tensor], **_: Any) -> int:
    return sum(tensor.numel() for tensor in tensors) * (itemsize(*tensors) if tensors else 0)


def _embedding(weight: Tensor, indices: Tensor, **_: Any) -> int:
    return indices.numel() * math.prod(weight.shape[1:]) * itemsize(weight)


def _index_select(self: Tensor, dim: int, index: Tensor) -> int:
    rest = [size for place, size in enumerate(self.shape) if place != dim % max(1, self.dim())]
    return index.numel() * math.prod(rest) * itemsize(self)


# Sequences


def _recurrent(hx: Any, params: list[Tensor], **given: Any) -> Size:
    rows = given["input"] if "input" in given else given["data"]
    steps = rows.numel() // max(1, rows.shape[-1])  # T of all sequences together
    gates = sum(weight.shape[0] for weight in params if weight.dim() == 2)
    return steps * gates * itemsize(rows), steps * sum(weight.numel() for weight in params)


def _pad_packed(data: Tensor, batch_sizes: Tensor, total_length: int, **_: Any) -> int:
    steps = max(batch_sizes.numel(), total_length)
    batch = int(batch_sizes[0])
    return steps * batch * (data.numel() // data.shape[0]) * itemsize(data) + batch * ITEM


def _ctc(log_probs: Tensor, target_lengths: Any, **_: Any) -> int:
    longest = max(
        target_lengths.tolist() if isinstance(target_lengths, Tensor) else target_lengths, default=0
    )
    steps, batch = log_probs.shape[:2]
    return (steps * batch * (2 * longest + 1) + log_probs.numel()) * 2 * ITEM


# What the values decide


def _largest(tensor: Tensor) -> int:
    return int(tensor.max()) if tensor.numel() else 0


def _encoded(tensor: Tensor, heads: int, hidden: int) -> Size:
    """Return what an attention layer, and a feed-forward one of `hidden` units, make and do."""
    batch, steps, width = tensor.shape
    made = batch * steps * (5 * width + hidden) + 2 * batch * heads * steps * steps
    work = batch * steps * (4 * width * width + 2 * width * hidden + 2 * steps * width)
    return made * itemsize(tensor), work


def _encoder_layer(src: Tensor, num_heads: int, ffn_weight_1: Tensor, **_: Any) -> Size:
    return _encoded(src, num_heads, ffn_weight_1.shape[0])


def _self_attention(query: Tensor, num_head: int, **_: Any) -> Size:
    return _encoded(query, num_head, 0)


def _combinations(self: Tensor, r: int, **_: Any) -> int:
    return int((r + 1) * self.numel() ** r * ITEM)


def _nonzero(self: Tensor) -> int:
    return self.numel() * max(1, self.dim()) * ITEM


def _index(self: Tensor, indices: Sequence[Tensor | None], **_: Any) -> int:
    shapes: list[tuple[int, ...]] = []
    taken, place = 1, 0
    for index in indices:
        used = 1
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            used = max(1, index.dim())
            shapes.append((int(index.count_nonzero()),))
        elif index is not None:
            shapes.append(tuple(index.shape))
        if index is not None:
            taken *= math.prod(max(1, size) for size in self.shape[place : place + used])
        place += used
    rest = math.prod(max(1, size) for size in self.shape) // max(1, taken)
    return broadcast(*shapes) * rest * ITEM


def _one_hot(self: Tensor, num_classes: int) -> int:
    return self.numel() * (num_classes if num_classes >= 0 else _largest(self) + 1) * ITEM


def _repeat_interleave(self: Tensor, repeats: Any, dim: int | None = None, **_: Any) -> int:
    if not isinstance(repeats, Tensor):
        return self.numel() * repeats * ITEM
    length = self.numel() if dim is None else self.size(dim)
    total = int(repeats.sum()) * (length if repeats.numel() == 1 else 1)
    return total * (self.numel() // max(1, length)) * ITEM


# What torch cannot measure


def _covariance(self: Tensor, **_: Any) -> int:
    rows = self.shape[0] if self.dim() > 1 else 1
    return (3 * rows * rows + 2 * self.numel()) * ITEM


def _lstsq(self: Tensor, b: Tensor, **_: Any) -> Size:
    return self.shape[-1] * max(1, b.numel()) * ITEM, 16 * self.numel() * min(self.shape[-2:])


def _istft(self: Tensor, n_fft: int, hop_length: int | None, length: int | None, **_: Any) -> int:
    hop = n_fft // 4 if hop_length is None else hop_length
    frames = self.shape[-1]
    batch = self.numel() // max(1, self.shape[-2] * frames)
    return batch * (frames * (4 * n_fft + hop) + (length or 0)) * 2 * ITEM


_POINTWISE = """
add sub mul div maximum minimum where eq ne lt le gt ge pow logical_and logical_or bitwise_and
bitwise_or masked_fill clamp mse_loss l1_loss smooth_l1_loss huber_loss kl_div binary_cross_entropy
binary_cross_entropy_with_logits
"""

BY_SHAPE: dict[str, Formula] = {
    **dict.fromkeys(_POINTWISE.split(), pointwise),
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "linalg_matmul"), _matmul),
    **{f"{name}{twin}": _added for name in ("addmm", "baddbmm", "addbmm") for twin in ("", "_")},
    "scaled_dot_product_attention": _attention,
    "_transformer_encoder_layer_fwd": _encoder_layer,
    "_native_multi_head_attention": _self_attention,
    "combinations": _combinations,
    **{f"conv{d}d": _convolution for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": _transposed for d in (1, 2, 3)},
    **dict.fromkeys(("_convolution", "_convolution_mode", "convolution"), _convolution),
    **{f"{kind}_pool{d}d": _pool(d) for kind in ("max", "avg") for d in (1, 2, 3)},
    **{f"max_pool{d}d_with_indices": _pool(d) for d in (1, 2, 3)},
    **{f"adaptive_{kind}_pool{d}d": _adaptive(d) for kind in ("max", "avg") for d in (1, 2, 3)},
    "constant_pad_nd": _padded,
    **dict.fromkeys(("zeros", "ones", "full", "empty", "rand", "randn", "randint"), _new),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty"), _new),
    "arange": _arange,
    "eye": lambda n, m=None, **_: n * (n if m is None else m) * ITEM,
    **dict.fromkeys(("tril_indices", "triu_indices"), lambda row, col, **_: 2 * row * col * ITEM),
    **dict.fromkeys(("expand", "broadcast_to"), _expanded),
    "expand_as": pointwise,
    **dict.fromkeys(("repeat", "tile"), _repeated),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack", "hstack", "vstack"), _joined),
    "embedding": _embedding,
    "index_select": _index_select,
    "randint_like": lambda self, **_: self.numel() * ITEM,
    **dict.fromkeys(
        ("unique_dim", "unique_consecutive"), lambda self, **_: 4 * self.numel() * ITEM
    ),
    **dict.fromkeys(("masked_select", "allclose"), pointwise),
    **dict.fromkeys(("cov", "corrcoef"), _covariance),
    "linalg_lstsq": _lstsq,
    "istft": _istft,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("_pack_padded_sequence", "sorted"), lambda **_: 0),
}
"""Formulas of shapes, dtypes and numbers, by the operator's name; with a dot, for one overload
only."""

BY_VALUES: dict[str, Formula] = {
    **dict.fromkeys(("nonzero", "nonzero_numpy", "argwhere"), _nonzero),
    "where.": lambda condition: _nonzero(condition),
    **dict.fromkeys(
        ("index.Tensor", "index.Tensor_hacked_twin", "index_put", "index_put_"), _index
    ),
    "bincount": lambda self, minlength, **_: max(_largest(self) + 1, minlength) * ITEM,
    "one_hot": _one_hot,
    "repeat_interleave": _repeat_interleave,
    "repeat_interleave.Tensor": lambda repeats, **_: int(repeats.sum()) * ITEM,
    "_pad_packed_sequence": _pad_packed,
    "ctc_loss": _ctc,
}
"""Formulas that look into tensors, so that they are worked out for each call."""
