"""The guards of layers, whose weights, states and lengths have to fit one another.

They are those of normalisation, losses, sequences and recurrent layers, and attention. guards.py
says why there are guards, and calls them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from syft.graph.needs import FLOATS, Guard, need, need_floats, need_indices, need_shape

# Normalisation


def _native_batch_norm(input: Tensor, training: bool, **rest: Any) -> None:
    need(input.dim() >= 2, "input", input, "at least 2 dimensions")
    need_floats(input=input)
    vectors = {key: rest[key] for key in ("weight", "bias", "running_mean", "running_var")}
    dtype = next((vector.dtype for vector in vectors.values() if vector is not None), input.dtype)
    need(dtype in (input.dtype, torch.float32), "weight", dtype, f"{input.dtype} or float32")
    for key, vector in vectors.items():
        need_shape(key, vector, input.size(1))
        need(vector is None or vector.dtype == dtype, key, vector, f"{dtype}, as the others")
    mean, variance = vectors["running_mean"], vectors["running_var"]
    need((mean is None) == (variance is None), "running_var", variance, "given if running_mean is")
    need(training or mean is not None, "running_mean", None, "given if not training")


def _native_group_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    N: int,
    C: int,
    HxW: int,
    group: int,
    **_: Any,
) -> None:
    fits = (
        input.dim() >= 2 and tuple(input.shape[:2]) == (N, C) and math.prod(input.shape[2:]) == HxW
    )
    need(fits, "input", input, f"N = {N}, C = {C}, HxW = {HxW}")
    need(group > 0 and C % group == 0, "group", group, f"a divisor of {C}")
    need_shape("weight", weight, C)
    need_shape("bias", bias, C)
    need_floats(input=input)
    if weight is not None or bias is not None:
        need_floats(weight=weight, bias=bias)


def _weight_norm(v: Tensor, g: Tensor, dim: int) -> None:
    if dim == -1 and v.dim() and not g.dim():  # one norm for the whole of v
        return
    need(0 <= dim < v.dim(), "dim", dim, f"0 to {v.dim() - 1}")
    need_shape("g", g, *[size if place == dim else 1 for place, size in enumerate(v.shape)])
    need_floats(v=v, g=g)


# Losses


def _ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int,
    **_: Any,
) -> None:
    need(log_probs.dim() == 3, "log_probs", log_probs, "3 dimensions: steps, batch, classes")
    need_floats(log_probs=log_probs)
    steps, batch, classes = log_probs.shape
    need(targets.dim() in (1, 2), "targets", targets, "1 or 2 dimensions")
    need_indices("targets", targets, classes)
    need(0 <= blank < classes, "blank", blank, f"0 to {classes - 1}")
    longest = targets.size(1) if targets.dim() == 2 else targets.numel()
    _lengths("input_lengths", input_lengths, batch, steps)
    total = sum(_lengths("target_lengths", target_lengths, batch, longest))
    fits = targets.size(0) == batch if targets.dim() == 2 else total == targets.numel()
    need(
        fits,
        "targets",
        targets,
        f"a row for each of {batch} sequences, or as many as target_lengths in all",
    )


def _lengths(argument: str, given: Any, count: int, longest: int) -> list[int]:
    if isinstance(given, Tensor):
        need(
            given.dtype in (torch.int32, torch.int64) and given.dim() == 1,
            argument,
            given,
            "1 dimension of integers",
        )
        given = given.tolist()
    lengths: list[int] = given
    fits = len(lengths) == count and all(0 <= length <= longest for length in lengths)
    need(fits, argument, "something else", f"{count} lengths from 0 to {longest}")
    return lengths


def _binary_cross_entropy(self: Tensor, target: Tensor, **_: Any) -> None:
    need_shape("target", target, *self.shape)
    need_floats(self=self, target=target)


# Sequences


def _pack_padded_sequence(input: Tensor, lengths: Tensor, batch_first: bool) -> None:
    need(input.dim() >= 2, "input", input, "at least 2 dimensions")
    need(
        lengths.dim() == 1 and lengths.dtype == torch.int64,
        "lengths",
        lengths,
        "1 dimension of int64",
    )
    batch, steps = input.shape[:2] if batch_first else (input.size(1), input.size(0))
    values: list[int] = lengths.tolist()
    fits = len(values) == batch > 0 and values == sorted(values, reverse=True) and values[-1] >= 1
    need(fits and values[0] <= steps, "lengths", lengths, f"{batch} lengths from {steps} down to 1")


def _batch_sizes(batch_sizes: Tensor, rows: int) -> list[int]:
    fits = (
        batch_sizes.dim() == 1
        and batch_sizes.dtype == torch.int64
        and 0 < batch_sizes.numel() <= rows
    )
    need(fits, "batch_sizes", batch_sizes, f"1 to {rows} sizes, int64")
    sizes: list[int] = batch_sizes.tolist()
    fits = sizes[-1] >= 1 and sizes == sorted(sizes, reverse=True) and sum(sizes) == rows
    need(fits, "batch_sizes", batch_sizes, f"descending sizes whose sum is {rows}")
    return sizes


def _pad_packed_sequence(data: Tensor, batch_sizes: Tensor, **_: Any) -> None:
    need(data.dim() >= 1, "data", data, "at least 1 dimension")
    _batch_sizes(batch_sizes, data.size(0))


def _recurrent(gates: int) -> Guard:
    """Return the guard of a recurrent layer with so many gates.

    Its shape letters are those of torch.nn.LSTM.
    """

    def check(
        hx: Any, params: list[Tensor], has_biases: bool, num_layers: int, bidirectional: bool,
        dropout: float, input: Tensor | None = None, data: Tensor | None = None,
        batch_sizes: Any = None, batch_first: bool = False, **_: Any,
    ) -> None:  # fmt: skip
        need(0 < num_layers <= len(params), "num_layers", num_layers, f"1 to {len(params)}")
        need(0 <= dropout <= 1, "dropout", dropout, "0 to 1")
        states = list(hx) if isinstance(hx, (list, tuple)) else [hx]
        need(
            len(states) == (2 if gates == 4 else 1), "hx", states, "as many states as the layer has"
        )
        need(all(each.dim() == 3 and each.numel() for each in states), "hx", states, "3 dimensions")
        if data is not None:
            need(data.dim() == 2, "data", data, "2 dimensions")
            given, batch = data, _batch_sizes(batch_sizes, data.size(0))[0]
        else:
            assert input is not None
            need(input.dim() == 3 and input.numel(), "input", input, "3 dimensions, not empty")
            given, batch = input, input.size(0 if batch_first else 1)
        directions = 2 if bidirectional else 1
        # they differ for an LSTM with projections
        out, hidden = states[0].size(2), states[-1].size(2)
        need_shape("hx", states[0], num_layers * directions, batch, out)
        need_shape("hx", states[-1], num_layers * directions, batch, hidden)
        wanted = _recurrent_shapes(
            given.size(-1), gates * hidden, out, hidden, has_biases, num_layers, directions
        )
        need(
            [tuple(each.shape) for each in params] == wanted,
            "params",
            params,
            f"shapes {wanted[:4]!r:.120} ...",
        )
        need_floats(input=given, **{f"hx {place}": each for place, each in enumerate(states)})
        need_floats(input=given, **{f"params {place}": each for place, each in enumerate(params)})

    return check


def _recurrent_shapes(
    features: int, rows: int, out: int, hidden: int, has_biases: bool, layers: int, directions: int
) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    for layer in range(layers):
        one = [(rows, features if layer == 0 else out * directions), (rows, out)]
        biases: list[tuple[int, ...]] = [(rows,)] * 2 if has_biases else []
        shapes += [*one, *biases, *([(out, hidden)] if out != hidden else [])] * directions
    return shapes


def _cell(gates: int) -> Guard:
    def check(
        input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
    ) -> None:
        states = list(hx) if isinstance(hx, (list, tuple)) else [hx]
        need(
            len(states) == (2 if gates == 4 else 1), "hx", states, "as many states as the cell has"
        )
        need(input.dim() == 2 and states[0].dim() == 2, "input", input, "2 dimensions, as hx")
        hidden = states[0].size(1)
        for state in states:
            need_shape("hx", state, input.size(0), hidden)
        need_shape("w_ih", w_ih, gates * hidden, input.size(1))
        need_shape("w_hh", w_hh, gates * hidden, hidden)
        need_shape("b_ih", b_ih, gates * hidden)
        need_shape("b_hh", b_hh, gates * hidden)
        need_floats(
            input=input, hx=states[0], c=states[-1], w_ih=w_ih, w_hh=w_hh, b_ih=b_ih, b_hh=b_hh
        )

    return check


# Attention


def _need_attention(
    input: Tensor,
    embed_dim: int,
    heads: int,
    mask: Tensor | None,
    mask_type: int | None,
    **weights: Tensor,
) -> None:
    need(input.dim() == 3 and input.numel(), "input", input, "3 dimensions, not empty")
    batch, steps, embedding = input.shape
    need(embed_dim == embedding, "embed_dim", embed_dim, f"{embedding}, as the input has")
    need(heads > 0 and embedding % heads == 0, "num_heads", heads, f"a divisor of {embedding}")
    need_shape("qkv_weight", weights["qkv_weight"], 3 * embedding, embedding)
    need_shape("qkv_bias", weights["qkv_bias"], 3 * embedding)
    need_shape("proj_weight", weights["proj_weight"], embedding, embedding)
    need_shape("proj_bias", weights["proj_bias"], embedding)
    need_floats(input=input, **weights)
    shapes = {None: None, 0: (steps, steps), 1: (batch, steps), 2: (batch, heads, steps, steps)}
    need(
        mask is None or (mask_type is not None and mask_type in shapes),
        "mask_type",
        mask_type,
        "0, 1 or 2",
    )
    if mask is not None:
        need(
            mask.dtype == torch.bool or mask.dtype in FLOATS,
            "mask",
            mask,
            "bool or floating point",
        )
        need_shape("mask", mask, *(shapes[mask_type] or ()))


def _native_multi_head_attention(
    query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_head: int, mask: Tensor | None,
    mask_type: int | None, need_weights: bool, average_attn_weights: bool, **weights: Tensor,
) -> None:  # fmt: skip
    need_shape("key", key, *query.shape)
    need_shape("value", value, *query.shape)
    need_floats(query=query, key=key, value=value)
    _need_attention(query, embed_dim, num_head, mask, mask_type, **weights)


def _transformer_encoder_layer_fwd(
    src: Tensor, embed_dim: int, num_heads: int, use_gelu: bool, norm_first: bool, eps: float,
    mask: Tensor | None, mask_type: int | None, **weights: Tensor,
) -> None:  # fmt: skip
    _need_attention(src, embed_dim, num_heads, mask, mask_type, **weights)
    for key in ("norm_weight_1", "norm_bias_1", "norm_weight_2", "norm_bias_2", "ffn_bias_2"):
        need_shape(key, weights[key], embed_dim)
    width = weights["ffn_bias_1"].numel()
    need_shape("ffn_weight_1", weights["ffn_weight_1"], width, embed_dim)
    need_shape("ffn_bias_1", weights["ffn_bias_1"], width)
    need_shape("ffn_weight_2", weights["ffn_weight_2"], embed_dim, width)


LAYER_GUARDS: dict[str, Guard] = {
    "native_batch_norm": _native_batch_norm,
    "native_group_norm": _native_group_norm,
    "_weight_norm": _weight_norm,
    "ctc_loss": _ctc_loss,
    "binary_cross_entropy": _binary_cross_entropy,
    "_pack_padded_sequence": _pack_padded_sequence,
    "_pad_packed_sequence": _pad_packed_sequence,
    "lstm": _recurrent(4),
    "gru": _recurrent(3),
    "rnn_tanh": _recurrent(1),
    "rnn_relu": _recurrent(1),
    "lstm_cell": _cell(4),
    "gru_cell": _cell(3),
    "rnn_tanh_cell": _cell(1),
    "rnn_relu_cell": _cell(1),
    "_native_multi_head_attention": _native_multi_head_attention,
    "_transformer_encoder_layer_fwd": _transformer_encoder_layer_fwd,
}
