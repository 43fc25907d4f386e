"""Checks of arguments before an operator runs.

They are for operators whose torch kernels assume valid arguments.

Some kernels read or write beyond their tensors, divide by zero or never end if their arguments do
not fit together. No user's call does that, and so torch does not check it; a stranger's graph may.
The rules that hold for every operator come first (numbers, dtypes, layouts), then the guards of
single ones; those of layers are in layer_guards.py. They were found by the audit
(tests/e2e/audit_operators.py), which calls every operator with hostile arguments.

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
from syft.graph.layer_guards import LAYER_GUARDS
from syft.graph.needs import Guard, Unfit, need, need_floats, need_indices, need_shape
from syft.graph.sizes import Check, size_check

MAX_INT = 2**30
"""Sizes, paddings, strides, dimensions: torch adds and multiplies them, mostly without a look at
the result."""
MAX_PARTS = 65_536
"""Tensors that one operator may give."""

_DTYPES = frozenset(DTYPES.values())

Fits = Callable[[Any], bool]


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
    copies = takes_contiguous(schema)
    if check is None and guard is None:
        return operation

    # In this order: the formulas of sizes.py count on arguments that fit one another.
    def call(*values: Any, **named: Any) -> Any:
        if guard is not None:
            guard(values, named)
        if check is not None:
            check(values, named)
        if copies:
            values = tuple(map(contiguous, values))
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
            # By name, so that one guard serves all overloads, whatever the order of arguments.
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
    # The type is looked at too, since operators give the same name to different things.
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
    return not values or (min(values) >= -MAX_INT and max(values) <= MAX_INT)


def takes_contiguous(schema: Any) -> bool:
    """Return whether an operator gets contiguous copies of its tensors."""
    short = schema.name.removeprefix("aten::")
    return short in _CONTIGUOUS or f"{short}.{schema.overload_name}" in _CONTIGUOUS


def contiguous(value: Any) -> Any:
    """Return an argument with contiguous tensors."""
    if isinstance(value, (list, tuple)):
        return [contiguous(item) for item in value]
    return value.contiguous() if isinstance(value, Tensor) else value


# Indices


def _embedding_bag(
    weight: Tensor, indices: Tensor, offsets: Tensor, mode: int, per_sample_weights: Tensor | None,
    include_last_offset: bool, padding_idx: int | None = None, **_: Any,
) -> None:  # fmt: skip
    need(weight.dim() == 2 and weight.size(0), "weight", weight, "2 dimensions, not empty")
    need(indices.dim() == 1, "indices", indices, "1 dimension")
    fits = offsets.dim() == 1 and offsets.dtype == indices.dtype
    need(fits, "offsets", offsets, f"1 dimension of {indices.dtype}")
    need(mode in (0, 1, 2), "mode", mode, "0, 1 or 2")
    need_indices("indices", indices, weight.size(0))
    count, places = indices.numel(), offsets.tolist()
    fits = bool(places) and places[0] == 0 and places == sorted(places) and places[-1] <= count
    need(fits, "offsets", offsets, f"ascending offsets from 0 to at most {count}")
    need(not include_last_offset or places[-1] == count, "offsets", offsets, f"{count} at the end")
    if per_sample_weights is not None:
        need(mode == 0, "mode", mode, "0, for per_sample_weights")
        need_shape("per_sample_weights", per_sample_weights, count)
    need_floats(weight=weight, per_sample_weights=per_sample_weights)
    rows = weight.size(0)
    need(
        padding_idx is None or -rows <= padding_idx < rows,
        "padding_idx",
        padding_idx,
        f"{-rows} to {rows - 1}",
    )


def _repeat_interleave(repeats: Any, output_size: int | None, **_: Any) -> None:
    if output_size is not None:
        fits = isinstance(repeats, Tensor) and int(repeats.sum()) == output_size
        need(fits, "output_size", output_size, "None, or the sum of repeats")


def _parts(self: Tensor, dim: int | None = None, **rest: Any) -> None:
    """Check how many tensors a split gives."""
    ((argument, wanted),) = rest.items()
    if isinstance(wanted, Tensor):
        need(wanted.numel() <= MAX_PARTS, argument, wanted, f"at most {MAX_PARTS} indices")
        wanted = int(wanted) if wanted.dim() == 0 else [0] * wanted.numel()
    if isinstance(wanted, (list, tuple)):
        parts = len(wanted)
    elif argument == "split_size":
        parts = -(-self.size(dim or 0) // max(1, wanted)) if self.dim() else 1
    else:
        parts = wanted
    need(parts <= MAX_PARTS, argument, wanted, f"at most {MAX_PARTS} parts")


def _unbind(self: Tensor, dim: int) -> None:
    need(self.dim() == 0 or self.size(dim) <= MAX_PARTS, "self", self, f"at most {MAX_PARTS} parts")


# Images


def _grid_sampler(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, **_: Any
) -> None:
    dimensions = input.dim() - 2
    need(
        dimensions in (2, 3) and all(input.shape[2:]),
        "input",
        input,
        "4 or 5 dimensions, no image empty",
    )
    fits = (
        grid.dim() == input.dim() and grid.size(-1) == dimensions and grid.size(0) == input.size(0)
    )
    need(fits, "grid", grid, f"{input.size(0)} grids of {dimensions} coordinates")
    modes = (0, 1, 2) if dimensions == 2 else (0, 1)
    need(interpolation_mode in modes, "interpolation_mode", interpolation_mode, f"one of {modes}")
    need(padding_mode in (0, 1, 2), "padding_mode", padding_mode, "0, 1 or 2")
    need_floats(input=input, grid=grid)
    need(grid.isfinite().all(), "grid", "not finite somewhere", "finite coordinates")


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
    need(image.dim() >= 3 and all(image.shape[1:]), "self", image, "images that are not empty")
    if scales:
        need(image.dim() == len(scales) + 2, "self", image, f"{len(scales) + 2} dimensions")
        need(len(output_size) == len(scales), "output_size", output_size, f"{len(scales)} sizes")
        for size, wanted, (key, scale) in zip(
            image.shape[2:], output_size, scales.items(), strict=True
        ):
            fits = scale is None or (
                scale > 0 and math.isfinite(scale) and math.floor(size * scale) == wanted
            )
            need(wanted > 0 and fits, key, scale, f"a scale that makes {wanted} of {size}")


def _interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, **_: Any) -> None:
    for key, given in (("size", size), ("scale_factor", scale_factor)):
        fits = not isinstance(given, (list, tuple)) or len(given) == input.dim() - 2
        need(fits, key, given, f"{input.dim() - 2} numbers")


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
        need(
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
        need(fits, argument, "the least integer somewhere", "integers whose negatives exist")


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
    need(self.dim() == 2 and self.numel(), "self", self, "2 dimensions, not empty")


def _matrix_power(n: int, **_: Any) -> None:
    need(abs(n) <= 2**20, "n", n, f"{-(2**20)} to {2**20}")


def _to(copy: bool = False, dtype: int | None = None, **others: Any) -> None:
    # TorchScript's own overloads, those without a memory format, copy to a dtype that nobody set.
    whole = dtype is not None or "memory_format" in others or "other" in others
    need(not copy or whole, "copy", copy, "False, where no dtype is given")


def _combinations(r: int, **_: Any) -> None:
    need(r <= 4, "r", r, "at most 4")


def _random(**arguments: Any) -> None:
    if "from" in arguments:
        need(arguments["to"] is not None, "to", None, "a number")


def _binomial(count: Tensor, **_: Any) -> None:
    need(count.isfinite().all(), "count", "not finite somewhere", "finite numbers")


GUARDS: dict[str, Guard] = {
    **LAYER_GUARDS,
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
