"""Checks of arguments before an operator runs.

They are for operators whose torch kernels assume valid arguments.

Some kernels read or write beyond their tensors, divide by zero or never end if their arguments do
not fit together. No user's call does that, and so torch does not check it; a stranger's graph may.
The rules that hold for every operator come first (numbers, dtypes, layouts), then the guards of
single ones. They were found by the audit (tests/e2e/audit_operators.py), which calls every operator
with hostile arguments.

What a guard refuses is a ValueError that names the operator, the argument, what it is and what was
expected; values of tensors are not shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from syft.graph.formulas import per_dimension
from syft.graph.kinds import DTYPE_NUMBERS, DTYPES
from syft.graph.sizes import Check, size_check

MAX_INT = 2**30
"""Sizes, paddings, strides, dimensions: torch adds and multiplies them, mostly without a look at
the result."""
MAX_PARTS = 65_536
"""Tensors that one operator may give."""

_DTYPES = frozenset(DTYPES.values())

Guard = Callable[..., None]
Fits = Callable[[Any], bool]


class Unfit(Exception):
    """An argument that an operator must not be called with."""

    def __init__(self, argument: str, observed: object, expected: str) -> None:
        super().__init__(f"argument {argument!r} is {observed}; expected {expected}")


def guarded(name: str, schema: Any, operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return `operation` with its checks; itself if it needs none.

    Args:
        name: the operator with its overload, for example "aten::add.Tensor".
        schema: its schema.
        operation: torch's operator.
    """
    short = schema.name.removeprefix("aten::")
    check = size_check(name, schema, operation, _rules_check(name, schema, short))
    guard = _guard_check(name, schema, short)
    copies = short in _CONTIGUOUS or f"{short}.{schema.overload_name}" in _CONTIGUOUS
    if check is None and guard is None:
        return operation

    def call(*values: Any, **named: Any) -> Any:
        if guard is not None:
            guard(values, named)
        if check is not None:
            check(values, named)
        if copies:
            values = tuple(map(_contiguous, values))
        return operation(*values, **named)

    return call


def _guard_check(name: str, schema: Any, short: str) -> Check | None:
    guard = GUARDS.get(short)
    if guard is None:
        return None
    names = [argument.name for argument in schema.arguments]
    defaults = {one.name: one.default_value for one in schema.arguments if one.has_default_value()}

    def check(values: tuple[Any, ...], named: dict[str, Any]) -> None:
        try:
            guard(**{**defaults, **dict(zip(names, values, strict=False)), **named})
        except Unfit as unfit:
            raise ValueError(f"{name}: {unfit}.") from None

    return check


# Rules for every operator


def _rules_check(name: str, schema: Any, short: str) -> Check | None:
    rules = [
        (place, each.name, *rule)
        for place, each in enumerate(schema.arguments)
        if (rule := _rule(short, each))
    ]
    if not rules:
        return None

    def check(values: tuple[Any, ...], named: dict[str, Any]) -> None:
        count = len(values)
        for place, argument, fits, expected in rules:
            value = values[place] if place < count else named.get(argument)
            if value is not None and not fits(value):
                raise ValueError(
                    f"{name}: argument {argument!r} is {value!r:.60}; expected {expected}."
                )

    return check


def _rule(short: str, argument: Any) -> tuple[Fits, str] | None:
    """Return what an argument has to fulfil, if it is given, and how to say so."""
    kind = str(argument.type)
    known = _BY_NAME.get(argument.name)
    if known is not None and ("int" in kind or "bool" in kind or "Device" in kind):
        return known
    if "int" not in kind or short in _ANY_INT or argument.name == "memory_format":
        return None
    return (_small_ints if "List" in kind else _small_int), f"numbers from {-MAX_INT} to {MAX_INT}"


def _is_dtype(value: Any) -> bool:
    return (
        value in _DTYPES
        if isinstance(value, torch.dtype)
        else type(value) is int and value in DTYPE_NUMBERS
    )


def _is_device(value: Any) -> bool:
    return str(value).partition(":")[0] in ("cpu", "cuda")


_DTYPE = (_is_dtype, "a dtype of numbers with 8 to 64 bits")
_BY_NAME: dict[str, tuple[Fits, str]] = {
    "dtype": _DTYPE,
    "out_dtype": _DTYPE,
    "reduction": (lambda value: value in (0, 1, 2), "0, 1 or 2"),
    "layout": (lambda value: value is torch.strided or value == 0, "torch.strided"),
    "device": (_is_device, "the CPU or a GPU"),
    **dict.fromkeys(
        ("pin_memory", "sparse", "sparse_grad"), (lambda value: value is False, "False")
    ),
}
_ANY_INT = frozenset({"slice", "slice_scatter", "randint", "randint_like", "random_"})
"""Operators that take any int64: ends of slices are cut to the size, and random numbers have any
range."""


def _small_int(value: Any) -> bool:
    return -MAX_INT <= value <= MAX_INT


def _small_ints(values: Any) -> bool:
    if isinstance(values, int):  # one size may stand for all
        return -MAX_INT <= values <= MAX_INT
    return not values or (min(values) >= -MAX_INT and max(values) <= MAX_INT)


def _contiguous(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_contiguous(item) for item in value]
    return value.contiguous() if isinstance(value, Tensor) else value


# What guards are made of


def _need(fits: object, argument: str, observed: object, expected: str) -> None:
    if not fits:
        raise Unfit(argument, _shown(observed), expected)


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, (list, tuple)) and any(isinstance(item, Tensor) for item in value):
        return f"[{', '.join(map(_shown, value[:6]))}]"
    return f"{value!r:.60}"


def _need_shape(argument: str, tensor: Tensor | None, *shape: int) -> None:
    _need(tensor is None or tuple(tensor.shape) == shape, argument, tensor, f"shape {list(shape)}")


_FLOATS = frozenset(dtype for dtype in _DTYPES if dtype.is_floating_point)


def _need_floats(**tensors: Tensor | None) -> None:
    """Check that tensors are floating point, and all of one dtype."""
    (first, tensor), *_ = given = [(key, each) for key, each in tensors.items() if each is not None]
    _need(tensor.dtype in _FLOATS, first, tensor, "floating point")
    for key, each in given:
        _need(each.dtype == tensor.dtype, key, each, f"the dtype of {first}, {tensor.dtype}")


def _need_indices(argument: str, tensor: Tensor, end: int) -> None:
    whole = tensor.dtype in (torch.int32, torch.int64)
    _need(whole, argument, tensor, "int32 or int64")
    _need(
        not tensor.numel() or int(tensor.min()) >= 0,
        argument,
        "below 0 somewhere",
        f"indices from 0 to {end - 1}",
    )
    _need(
        not tensor.numel() or int(tensor.max()) < end,
        argument,
        "too large somewhere",
        f"indices below {end}",
    )


# Normalisation


def _native_batch_norm(input: Tensor, training: bool, **rest: Any) -> None:
    _need(input.dim() >= 2, "input", input, "at least 2 dimensions")
    _need_floats(input=input)
    vectors = {key: rest[key] for key in ("weight", "bias", "running_mean", "running_var")}
    dtype = next((vector.dtype for vector in vectors.values() if vector is not None), input.dtype)
    _need(dtype in (input.dtype, torch.float32), "weight", dtype, f"{input.dtype} or float32")
    for key, vector in vectors.items():
        _need_shape(key, vector, input.size(1))
        _need(vector is None or vector.dtype == dtype, key, vector, f"{dtype}, as the others")
    mean, variance = vectors["running_mean"], vectors["running_var"]
    _need((mean is None) == (variance is None), "running_var", variance, "given if running_mean is")
    _need(training or mean is not None, "running_mean", None, "given if not training")


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
    _need(fits, "input", input, f"N = {N}, C = {C}, HxW = {HxW}")
    _need(group > 0 and C % group == 0, "group", group, f"a divisor of {C}")
    _need_shape("weight", weight, C)
    _need_shape("bias", bias, C)
    _need_floats(input=input)
    if weight is not None or bias is not None:
        _need_floats(weight=weight, bias=bias)


def _weight_norm(v: Tensor, g: Tensor, dim: int) -> None:
    if dim == -1 and v.dim() and not g.dim():  # one norm for the whole of v
        return
    _need(0 <= dim < v.dim(), "dim", dim, f"0 to {v.dim() - 1}")
    _need_shape("g", g, *[size if place == dim else 1 for place, size in enumerate(v.shape)])
    _need_floats(v=v, g=g)


# Losses


def _ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int,
    **_: Any,
) -> None:
    _need(log_probs.dim() == 3, "log_probs", log_probs, "3 dimensions: steps, batch, classes")
    _need_floats(log_probs=log_probs)
    steps, batch, classes = log_probs.shape
    _need(targets.dim() in (1, 2), "targets", targets, "1 or 2 dimensions")
    _need_indices("targets", targets, classes)
    _need(0 <= blank < classes, "blank", blank, f"0 to {classes - 1}")
    longest = targets.size(1) if targets.dim() == 2 else targets.numel()
    _lengths("input_lengths", input_lengths, batch, steps)
    total = sum(_lengths("target_lengths", target_lengths, batch, longest))
    fits = targets.size(0) == batch if targets.dim() == 2 else total == targets.numel()
    _need(
        fits,
        "targets",
        targets,
        f"a row for each of {batch} sequences, or as many as target_lengths in all",
    )


def _lengths(argument: str, given: Any, count: int, longest: int) -> list[int]:
    if isinstance(given, Tensor):
        _need(
            given.dtype in (torch.int32, torch.int64) and given.dim() == 1,
            argument,
            given,
            "1 dimension of integers",
        )
        given = given.tolist()
    fits = len(given) == count and all(0 <= length <= longest for length in given)
    _need(fits, argument, "something else", f"{count} lengths from 0 to {longest}")
    return given


def _binary_cross_entropy(self: Tensor, target: Tensor, **_: Any) -> None:
    _need_shape("target", target, *self.shape)
    _need_floats(self=self, target=target)


# Sequences


def _pack_padded_sequence(input: Tensor, lengths: Tensor, batch_first: bool) -> None:
    _need(input.dim() >= 2, "input", input, "at least 2 dimensions")
    _need(
        lengths.dim() == 1 and lengths.dtype == torch.int64,
        "lengths",
        lengths,
        "1 dimension of int64",
    )
    batch, steps = input.shape[:2] if batch_first else (input.size(1), input.size(0))
    values: list[int] = lengths.tolist()
    fits = len(values) == batch > 0 and values == sorted(values, reverse=True) and values[-1] >= 1
    _need(
        fits and values[0] <= steps, "lengths", lengths, f"{batch} lengths from {steps} down to 1"
    )


def _batch_sizes(batch_sizes: Tensor, rows: int) -> list[int]:
    fits = (
        batch_sizes.dim() == 1
        and batch_sizes.dtype == torch.int64
        and 0 < batch_sizes.numel() <= rows
    )
    _need(fits, "batch_sizes", batch_sizes, f"1 to {rows} sizes, int64")
    sizes: list[int] = batch_sizes.tolist()
    fits = sizes[-1] >= 1 and sizes == sorted(sizes, reverse=True) and sum(sizes) == rows
    _need(fits, "batch_sizes", batch_sizes, f"descending sizes whose sum is {rows}")
    return sizes


def _pad_packed_sequence(data: Tensor, batch_sizes: Tensor, **_: Any) -> None:
    _need(data.dim() >= 1, "data", data, "at least 1 dimension")
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
        _need(0 < num_layers <= len(params), "num_layers", num_layers, f"1 to {len(params)}")
        _need(0 <= dropout <= 1, "dropout", dropout, "0 to 1")
        states = list(hx) if isinstance(hx, (list, tuple)) else [hx]
        _need(
            len(states) == (2 if gates == 4 else 1), "hx", states, "as many states as the layer has"
        )
        _need(
            all(each.dim() == 3 and each.numel() for each in states), "hx", states, "3 dimensions"
        )
        if data is not None:
            _need(data.dim() == 2, "data", data, "2 dimensions")
            given, batch = data, _batch_sizes(batch_sizes, data.size(0))[0]
        else:
            assert input is not None
            _need(input.dim() == 3 and input.numel(), "input", input, "3 dimensions, not empty")
            given, batch = input, input.size(0 if batch_first else 1)
        directions = 2 if bidirectional else 1
        # they differ for an LSTM with projections
        out, hidden = states[0].size(2), states[-1].size(2)
        _need_shape("hx", states[0], num_layers * directions, batch, out)
        _need_shape("hx", states[-1], num_layers * directions, batch, hidden)
        wanted = _recurrent_shapes(
            given.size(-1), gates * hidden, out, hidden, has_biases, num_layers, directions
        )
        _need(
            [tuple(each.shape) for each in params] == wanted,
            "params",
            params,
            f"shapes {wanted[:4]!r:.120} ...",
        )
        _need_floats(input=given, **{f"hx {place}": each for place, each in enumerate(states)})
        _need_floats(input=given, **{f"params {place}": each for place, each in enumerate(params)})

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
        _need(
            len(states) == (2 if gates == 4 else 1), "hx", states, "as many states as the cell has"
        )
        _need(input.dim() == 2 and states[0].dim() == 2, "input", input, "2 dimensions, as hx")
        hidden = states[0].size(1)
        for state in states:
            _need_shape("hx", state, input.size(0), hidden)
        _need_shape("w_ih", w_ih, gates * hidden, input.size(1))
        _need_shape("w_hh", w_hh, gates * hidden, hidden)
        _need_shape("b_ih", b_ih, gates * hidden)
        _need_shape("b_hh", b_hh, gates * hidden)
        _need_floats(
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
    _need(input.dim() == 3 and input.numel(), "input", input, "3 dimensions, not empty")
    batch, steps, embedding = input.shape
    _need(embed_dim == embedding, "embed_dim", embed_dim, f"{embedding}, as the input has")
    _need(heads > 0 and embedding % heads == 0, "num_heads", heads, f"a divisor of {embedding}")
    _need_shape("qkv_weight", weights["qkv_weight"], 3 * embedding, embedding)
    _need_shape("qkv_bias", weights["qkv_bias"], 3 * embedding)
    _need_shape("proj_weight", weights["proj_weight"], embedding, embedding)
    _need_shape("proj_bias", weights["proj_bias"], embedding)
    _need_floats(input=input, **weights)
    shapes = {None: None, 0: (steps, steps), 1: (batch, steps), 2: (batch, heads, steps, steps)}
    _need(
        mask is None or (mask_type is not None and mask_type in shapes),
        "mask_type",
        mask_type,
        "0, 1 or 2",
    )
    if mask is not None:
        _need(
            mask.dtype == torch.bool or mask.dtype in _FLOATS,
            "mask",
            mask,
            "bool or floating point",
        )
        _need_shape("mask", mask, *(shapes[mask_type] or ()))


def _native_multi_head_attention(
    query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_head: int, mask: Tensor | None,
    mask_type: int | None, need_weights: bool, average_attn_weights: bool, **weights: Tensor,
) -> None:  # fmt: skip
    _need_shape("key", key, *query.shape)
    _need_shape("value", value, *query.shape)
    _need_floats(query=query, key=key, value=value)
    _need_attention(query, embed_dim, num_head, mask, mask_type, **weights)


def _transformer_encoder_layer_fwd(
    src: Tensor, embed_dim: int, num_heads: int, use_gelu: bool, norm_first: bool, eps: float,
    mask: Tensor | None, mask_type: int | None, **weights: Tensor,
) -> None:  # fmt: skip
    _need_attention(src, embed_dim, num_heads, mask, mask_type, **weights)
    for key in ("norm_weight_1", "norm_bias_1", "norm_weight_2", "norm_bias_2", "ffn_bias_2"):
        _need_shape(key, weights[key], embed_dim)
    width = weights["ffn_bias_1"].numel()
    _need_shape("ffn_weight_1", weights["ffn_weight_1"], width, embed_dim)
    _need_shape("ffn_bias_1", weights["ffn_bias_1"], width)
    _need_shape("ffn_weight_2", weights["ffn_weight_2"], embed_dim, width)


# Indices


def _embedding_bag(
    weight: Tensor, indices: Tensor, offsets: Tensor, mode: int, per_sample_weights: Tensor | None,
    include_last_offset: bool, padding_idx: int | None = None, **_: Any,
) -> None:  # fmt: skip
    _need(weight.dim() == 2 and weight.size(0), "weight", weight, "2 dimensions, not empty")
    _need(indices.dim() == 1, "indices", indices, "1 dimension")
    fits = offsets.dim() == 1 and offsets.dtype == indices.dtype
    _need(fits, "offsets", offsets, f"1 dimension of {indices.dtype}")
    _need(mode in (0, 1, 2), "mode", mode, "0, 1 or 2")
    _need_indices("indices", indices, weight.size(0))
    count, places = indices.numel(), offsets.tolist()
    fits = bool(places) and places[0] == 0 and places == sorted(places) and places[-1] <= count
    _need(fits, "offsets", offsets, f"ascending offsets from 0 to at most {count}")
    _need(not include_last_offset or places[-1] == count, "offsets", offsets, f"{count} at the end")
    if per_sample_weights is not None:
        _need(mode == 0, "mode", mode, "0, for per_sample_weights")
        _need_shape("per_sample_weights", per_sample_weights, count)
    _need_floats(weight=weight, per_sample_weights=per_sample_weights)
    rows = weight.size(0)
    _need(
        padding_idx is None or -rows <= padding_idx < rows,
        "padding_idx",
        padding_idx,
        f"{-rows} to {rows - 1}",
    )


def _repeat_interleave(repeats: Any, output_size: int | None, **_: Any) -> None:
    if output_size is not None:
        fits = isinstance(repeats, Tensor) and int(repeats.sum()) == output_size
        _need(fits, "output_size", output_size, "None, or the sum of repeats")


def _parts(self: Tensor, dim: int | None = None, **rest: Any) -> None:
    """Check how many tensors a split gives."""
    ((argument, wanted),) = rest.items()
    if isinstance(wanted, Tensor):
        _need(wanted.numel() <= MAX_PARTS, argument, wanted, f"at most {MAX_PARTS} indices")
        wanted = int(wanted) if wanted.dim() == 0 else [0] * wanted.numel()
    if isinstance(wanted, (list, tuple)):
        parts = len(wanted)
    elif argument == "split_size":
        parts = -(-self.size(dim or 0) // max(1, wanted)) if self.dim() else 1
    else:
        parts = wanted
    _need(parts <= MAX_PARTS, argument, wanted, f"at most {MAX_PARTS} parts")


def _unbind(self: Tensor, dim: int) -> None:
    _need(
        self.dim() == 0 or self.size(dim) <= MAX_PARTS, "self", self, f"at most {MAX_PARTS} parts"
    )


# Images


def _grid_sampler(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, **_: Any
) -> None:
    dimensions = input.dim() - 2
    _need(
        dimensions in (2, 3) and all(input.shape[2:]),
        "input",
        input,
        "4 or 5 dimensions, no image empty",
    )
    fits = (
        grid.dim() == input.dim() and grid.size(-1) == dimensions and grid.size(0) == input.size(0)
    )
    _need(fits, "grid", grid, f"{input.size(0)} grids of {dimensions} coordinates")
    modes = (0, 1, 2) if dimensions == 2 else (0, 1)
    _need(interpolation_mode in modes, "interpolation_mode", interpolation_mode, f"one of {modes}")
    _need(padding_mode in (0, 1, 2), "padding_mode", padding_mode, "0, 1 or 2")
    _need_floats(input=input, grid=grid)
    _need(grid.isfinite().all(), "grid", "not finite somewhere", "finite coordinates")


_SCALES = ("scales", "scales_d", "scales_h", "scales_w")


def _upsample(
    output_size: Any, self: Tensor | None = None, input: Tensor | None = None, **rest: Any
) -> None:
    """Check that a size and a scale say the same.

    The overloads with a list of scales see to that themselves.
    """
    scales = {key: rest[key] for key in _SCALES if key in rest}
    image = self if self is not None else input
    assert image is not None
    _need(image.dim() >= 3 and all(image.shape[1:]), "self", image, "images that are not empty")
    if scales:
        _need(image.dim() == len(scales) + 2, "self", image, f"{len(scales) + 2} dimensions")
        _need(len(output_size) == len(scales), "output_size", output_size, f"{len(scales)} sizes")
        for size, wanted, (key, scale) in zip(
            image.shape[2:], output_size, scales.items(), strict=True
        ):
            fits = scale is None or (
                scale > 0 and math.isfinite(scale) and math.floor(size * scale) == wanted
            )
            _need(wanted > 0 and fits, key, scale, f"a scale that makes {wanted} of {size}")


def _interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, **_: Any) -> None:
    for key, given in (("size", size), ("scale_factor", scale_factor)):
        fits = not isinstance(given, (list, tuple)) or len(given) == input.dim() - 2
        _need(fits, key, given, f"{input.dim() - 2} numbers")


def _convolution(weight: Tensor, stride: Any, padding: Any, dilation: Any, **_: Any) -> None:
    """Check paddings of 3-D convolutions.

    Where they exceed half the kernel, gradients are read beyond the input.
    """
    if weight.dim() != 5 or isinstance(padding, str):
        return
    given = zip(
        per_dimension(stride, 3),
        per_dimension(padding, 3),
        per_dimension(dilation, 3),
        weight.shape[2:],
        strict=True,
    )
    for step, pad, spread, size in given:
        fits = step == 1 or 2 * pad <= spread * (size - 1)
        _need(
            fits,
            "padding",
            padding,
            f"at most {spread * (size - 1) // 2} for a kernel of {size} with stride {step}",
        )


# Numbers


def _need_negatives(argument: str, tensor: Tensor) -> None:
    """Check that no integer is the least of its dtype, whose negative does not exist."""
    if (
        tensor.numel()
        and tensor.dtype.is_signed
        and not (tensor.is_floating_point() or tensor.is_complex())
    ):
        fits = int(tensor.min()) > torch.iinfo(tensor.dtype).min
        _need(fits, argument, "the least integer somewhere", "integers whose negatives exist")


def _lcm(self: Tensor, other: Tensor) -> None:
    _need_negatives("self", self)
    _need_negatives("other", other)


def _divide(self: Tensor, other: Any, rounding_mode: str | None = None) -> None:
    """Check that the least integer is not divided by -1.

    Cut off to an integer, that ends the process.
    """
    whole = not any(
        isinstance(x, float) or (isinstance(x, Tensor) and x.is_floating_point())
        for x in (self, other)
    )
    if rounding_mode == "trunc" and whole and torch.any(torch.as_tensor(other == -1)):
        _need_negatives("self", self)


def _pdist(self: Tensor, **_: Any) -> None:
    _need(self.dim() == 2 and self.numel(), "self", self, "2 dimensions, not empty")


def _matrix_power(n: int, **_: Any) -> None:
    _need(abs(n) <= 2**20, "n", n, f"{-(2**20)} to {2**20}")


def _to(copy: bool = False, dtype: int | None = None, **others: Any) -> None:
    # TorchScript's own overloads, those without a memory format, copy to a dtype that nobody set.
    whole = dtype is not None or "memory_format" in others or "other" in others
    _need(not copy or whole, "copy", copy, "False, where no dtype is given")


def _combinations(r: int, **_: Any) -> None:
    _need(r <= 4, "r", r, "at most 4")


def _random(**arguments: Any) -> None:
    if "from" in arguments:
        _need(arguments["to"] is not None, "to", None, "a number")


def _binomial(count: Tensor, **_: Any) -> None:
    _need(count.isfinite().all(), "count", "not finite somewhere", "finite numbers")


GUARDS: dict[str, Guard] = {
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
    "embedding_bag": _embedding_bag,
    "repeat_interleave": _repeat_interleave,
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split"), _parts),
    **dict.fromkeys(("hsplit", "vsplit", "dsplit"), _parts),
    "unbind": _unbind,
    **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), _grid_sampler),
    **{f"_upsample_{kind}2d_aa": _upsample for kind in ("bilinear", "bicubic", "lanczos")},
    **{f"upsample_{kind}": _upsample for kind in ("linear1d", "bilinear2d", "bicubic2d")},
    "upsample_trilinear3d": _upsample,
    **{f"upsample_nearest{d}d": _upsample for d in (1, 2, 3)},
    **{f"_upsample_nearest_exact{d}d": _upsample for d in (1, 2, 3)},
    **dict.fromkeys(("__interpolate", "__upsample"), _interpolate),
    **dict.fromkeys(("__upsample_bilinear", "__upsample_nearest"), _interpolate),
    **dict.fromkeys(("conv3d", "convolution", "_convolution"), _convolution),
    **dict.fromkeys(("lcm", "lcm_"), _lcm),
    **dict.fromkeys(("div", "div_", "divide", "divide_"), _divide),
    "pdist": _pdist,
    **dict.fromkeys(("matrix_power", "linalg_matrix_power"), _matrix_power),
    "combinations": _combinations,
    "to": _to,
    "random_": _random,
    "binomial": _binomial,
}  # fmt: skip
"""The guards of single operators, each called with the arguments by name; for all overloads, and
not for the twins."""

_CONTIGUOUS_NAMES = """
ctc_loss lstm gru rnn_tanh rnn_relu median.dim nanmedian.dim _native_multi_head_attention
_transformer_encoder_layer_fwd _ctc_loss _weight_norm_interface
_scaled_dot_product_flash_attention_for_cpu _embedding_bag
"""
_CONTIGUOUS = frozenset(_CONTIGUOUS_NAMES.split())
"""Operators whose kernels read some tensors as if they were contiguous.

They get contiguous copies.
"""
