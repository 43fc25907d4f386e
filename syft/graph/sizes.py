"""How much an operator makes and how long it runs, told from its arguments before it runs.

A few numbers in a graph can ask for more memory than a machine has, or for days of computing:
zeros([10**6, 10**6]), a row plus a column, a pool whose kernel is as large as the image. No limit
reaches an operator that is running, and so it is measured first:

- on tensors without memory (torch's device "meta") the operator makes results without memory, whose
  sizes are added up, those of the operators inside it included. What is measured depends on shapes,
  dtypes and numbers only: remembered;
- where the values in tensors decide (one_hot, nonzero, ...), torch knows no such way, or an
  operator is in most models, by a formula (formulas.py).

Three kinds of operators are not measured, since their results hold no more than their inputs:
pointwise ones of one tensor, those that give no tensor, and views; but for those views that repeat
elements, which count as if they had been copied: whatever comes next would copy them. Small inputs
are not measured either, if nothing but tensors decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from syft.graph.formulas import BY_SHAPE, BY_VALUES, LEAST_BYTES, Formula, pointwise

# Three bounds that add up: this module bounds one operator, in advance, since it cannot be stopped;
# metering.py adds up what all operators of a forward pass have made; and the clock (Budget) ends a
# model between two operators.

MAX_RESULT_BYTES = 2 * 1024**3
max_result_bytes: ContextVar[int] = ContextVar("max_result_bytes", default=MAX_RESULT_BYTES)
"""Bytes that one operator may make in this context, what it makes on the way included."""
MAX_WORK = 2**40
"""Multiplications that one operator may do: seconds for a product of matrices, minutes for a
pool."""

_SMALL = 2**24
"""Elements that need no measuring: 64 MiB as float32."""
Check = Callable[[tuple[Any, ...], dict[str, Any]], None]
Small = Callable[[tuple[Any, ...]], bool]


def size_check(name: str, schema: Any, operation: Any, first: Check | None = None) -> Check | None:
    """Return what bounds the calls of an operator, or None.

    It raises a ValueError if a call would make too much or run too long; it is None if no call can.

    Args:
        name: the operator with its overload, for example "aten::add.Tensor".
        schema: its schema.
        operation: torch's operator.
        first: another check of shapes, dtypes and numbers, made before.
    """
    short = schema.name.removeprefix("aten::")
    formula = _of(BY_VALUES, short, schema)
    if formula is not None:
        return _both(first, _by_formula(name, schema, formula))
    formula = _of(BY_SHAPE, short, schema)
    if _holds_no_more(short, name, schema, operation, formula):
        return first
    check = (
        _by_measuring(name, schema, operation)
        if formula is None
        else _by_formula(name, schema, formula)
    )
    small = _what_is_small(short, schema)
    if small is None:
        return _remembered(_both(first, check))
    check = _remembered(check)

    def check_large(values: tuple[Any, ...], named: dict[str, Any]) -> None:
        if first is not None:
            first(values, named)
        if not small(values):
            check(values, named)

    return check_large


def _of(table: dict[str, Any], short: str, schema: Any) -> Any:
    return table.get(f"{short}.{schema.overload_name}") or table.get(short)


def _by_formula(name: str, schema: Any, formula: Formula) -> Check:
    names = [each.name for each in schema.arguments]
    defaults = {
        each.name: each.default_value for each in schema.arguments if each.has_default_value()
    }

    def check(values: tuple[Any, ...], named: dict[str, Any]) -> None:
        size = formula(**{**defaults, **dict(zip(names, values, strict=False)), **named})
        _compare(name, *(size if isinstance(size, tuple) else (size, 0)))

    return check


def _both(first: Check | None, second: Check) -> Check:
    if first is None:
        return second

    def check(values: tuple[Any, ...], named: dict[str, Any]) -> None:
        first(values, named)
        second(values, named)

    return check


def _holds_no_more(
    short: str, name: str, schema: Any, operation: Any, formula: Formula | None
) -> bool:
    tensors = sum("Tensor" in str(each.type) for each in schema.arguments)
    if short in _ONE_NUMBER or (
        tensors == 1 and (torch.Tag.pointwise in operation.tags or formula is pointwise)
    ):
        return True
    if formula is not None or short in _REPEATING_VIEWS or name in _REPEATING_VIEWS:
        return False
    gives_tensors = any("Tensor" in str(each.type) for each in schema.returns)
    return not gives_tensors or all(each.alias_info is not None for each in schema.returns)


_ONE_NUMBER = frozenset({"prim::NumToTensor", "prim::abs", "tensor", "as_tensor", "scalar_tensor"})
_REPEATING_VIEWS = frozenset({"unfold", "aten::view.dtype"})


# Inputs that are small enough


def _what_is_small(short: str, schema: Any) -> Small | None:
    if short in _NO_LARGER or f"{short}.{schema.overload_name}" in _NO_LARGER:
        return _no_larger
    if short == "linear":
        return _small_linear
    return _small if _only_tensors_decide(schema) else None


def _no_larger(values: tuple[Any, ...]) -> bool:
    """Return whether no tensor is empty.

    What reduces shape (10**6, 10**6, 0), which takes nothing, has 10**12 elements.
    """
    return all(value.numel() for value in values if isinstance(value, Tensor))


_NO_LARGER_NAMES = """
batch_norm group_norm instance_norm layer_norm native_layer_norm rms_norm softmax log_softmax
logsumexp glu prelu dropout alpha_dropout feature_dropout native_dropout bernoulli all any amax amin
argmax argmin count_nonzero cumprod cumsum max. max.dim mean median min. min.dim mode norm
linalg_vector_norm prod std std_mean sum var var_mean argsort kthvalue sort topk nll_loss nll_loss2d
nll_loss_nd cross_entropy_loss multi_margin_loss multilabel_margin_loss clone empty_like full_like
ones_like rand_like randn_like zeros_like type_as flip roll tril triu gather index_add index_fill
masked_scatter scatter scatter_add pixel_shuffle pixel_unshuffle
"""
_NO_LARGER = frozenset(_NO_LARGER_NAMES.split())
"""Operators whose results have no more elements than one of their inputs; with a dot, one
overload."""


def _small_linear(values: tuple[Any, ...]) -> bool:
    return 0 < values[0].numel() * values[1].shape[0] <= _SMALL


def _small(values: tuple[Any, ...]) -> bool:
    """Return whether all tensors together make few pairs: no result has more elements than that."""
    # The square for a single tensor: it may be combined with itself.
    pairs, only = 1, None
    for value in values:
        if isinstance(value, Tensor):
            only = value if pairs == 1 else None
            pairs *= value.numel()
        elif isinstance(value, (list, tuple)):
            return False
    if only is not None:
        pairs *= pairs
    return 0 < pairs <= _SMALL


def _only_tensors_decide(schema: Any) -> bool:
    types = [str(each.type) for each in schema.arguments if each.name not in _NEUTRAL]
    return any("Tensor" in each for each in types) and not any(
        "int" in each or "List[float]" in each for each in types
    )


_NEUTRAL = frozenset(
    {"dim", "reduction", "ignore_index", "groups", "num_groups", "padding_idx", "dtype"}
)
"""Numbers that decide no size."""


# Measuring


class _Account(TorchDispatchMode):
    """Adds up what the operators inside make and do."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made = self.viewed = self.work = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        result = operation(*arguments, **(named or {}))
        shares = all(each.alias_info is not None for each in operation._schema.returns)
        for tensor in _tensors(result):
            size = tensor.numel() * max(tensor.element_size(), LEAST_BYTES)
            # A view makes nothing; but one that repeats elements is as large as what will be made
            # of it.
            self.made += 0 if shares else size
            self.viewed = max(self.viewed, size)
        work = _WORK.get(operation._schema.name.removeprefix("aten::"))
        if work is not None:
            self.work += work(next(_tensors(result)), *arguments)
        return result


def _by_measuring(name: str, schema: Any, operation: Any) -> Check:
    makes_new = any(each.name == "device" for each in schema.arguments)

    def check(values: tuple[Any, ...], named: dict[str, Any]) -> None:
        named = {key: _without_memory(value) for key, value in named.items()}
        if makes_new:
            named["device"] = torch.device("meta")
        # No graph of gradients is needed for a measurement.
        with torch.no_grad(), _Account() as account:
            operation(*map(_without_memory, values), **named)
        _compare(name, max(account.made, account.viewed), account.work)

    return check


_REMEMBERED = 128
"""Calls of an operator that are remembered: as many as one graph has of them, mostly."""
_MAX_KEY = 256
"""Items of what is remembered."""


def _remembered(check: Check) -> Check:
    """Return a check that does nothing for shapes, dtypes and numbers which have passed it."""
    # Failures are not remembered: they end the call, and whoever repeats them pays for it.
    passed: set[Any] = set()

    def checked(values: tuple[Any, ...], named: dict[str, Any]) -> None:
        key = [max_result_bytes.get(), *named]
        _append_key(key, values)
        _append_key(key, named.values())
        known = tuple(key)
        if known not in passed:
            check(values, named)
            # Sender-chosen numbers are part of the keys, so memory is bounded in both directions.
            if len(passed) >= _REMEMBERED:
                passed.clear()
            if len(key) <= _MAX_KEY:
                passed.add(known)

    return checked


def _append_key(key: list[Any], values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, Tensor):
            key += (value.shape, value.dtype)
        elif isinstance(value, (list, tuple, str)):  # a text by its letters, so that they count
            key.append(len(value))
            if value and isinstance(value[0], (int, float, str)):
                key += value
            else:
                _append_key(key, value)
        else:
            key.append(value)


def _without_memory(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    return [_without_memory(item) for item in value] if isinstance(value, (list, tuple)) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _compare(name: str, size: int, work: int) -> None:
    limit = max_result_bytes.get()
    if size > limit:
        raise ValueError(
            f"{name} would make {size} bytes; the limit of one operator is {limit} bytes."
        )
    if work > MAX_WORK:
        raise ValueError(
            f"{name} would do {work} multiplications; the limit of one operator is {MAX_WORK}."
        )


# Work: multiplications from the (first) result and the arguments of the operators inside


def _product_work(out: Tensor, a: Tensor, b: Tensor, *_: Any) -> int:
    return a.numel() * b.shape[-1]


def _added_product_work(out: Tensor, added: Tensor, a: Tensor, b: Tensor, *_: Any) -> int:
    return a.numel() * b.shape[-1]


def _convolution_work(out: Tensor, image: Tensor, weight: Tensor, *others: Any) -> int:
    transposed = len(others) > 4 and others[4] is True
    kernel = weight.numel() // max(1, weight.shape[0])
    return (image if transposed else out).numel() * kernel


def _pool_work(dimensions: int) -> Callable[..., int]:
    def work(out: Tensor, image: Tensor, kernel: list[int], *_: Any) -> int:
        # one size may stand for all
        return out.numel() * math.prod(kernel) ** (dimensions if len(kernel) == 1 else 1)

    return work


def _matrix_work(out: Tensor, matrix: Tensor, *_: Any) -> int:
    """A decomposition of n x m takes some n m min(n, m)."""
    return 16 * matrix.numel() * min(matrix.shape[-2:])


_MATRICES = """
_linalg_det _linalg_eigh _linalg_slogdet _linalg_solve_ex _linalg_svd linalg_cholesky_ex
linalg_inv_ex linalg_qr linalg_matrix_exp linalg_pinv cholesky_inverse
"""
_WORK: dict[str, Callable[..., int]] = {
    **dict.fromkeys(("mm", "bmm"), _product_work),
    **dict.fromkeys(
        ("addmm", "addmm_", "baddbmm", "baddbmm_", "addbmm", "addbmm_"),
        _added_product_work,
    ),
    **dict.fromkeys(("convolution", "_convolution"), _convolution_work),
    "conv_tbc": lambda out, image, weight, *_: out.numel() * weight.shape[0] * weight.shape[1],
    **{
        f"{pool}{d}d": _pool_work(d) for pool in ("avg_pool", "fractional_max_pool") for d in (2, 3)
    },
    **{f"max_pool{d}d_with_indices": _pool_work(d) for d in (2, 3)},
    **dict.fromkeys(_MATRICES.split(), _matrix_work),
    "cholesky_solve": lambda out, b, matrix, *_: b.numel() * matrix.shape[-1],
    "_cdist_forward": lambda out, a, *_: out.numel() * a.shape[-1],
    "_pdist_forward": lambda out, a, *_: out.numel() * a.shape[-1],
    "_trilinear": lambda out, a, b, c, *_: out.numel() * a.shape[-1] * c.shape[-1],
}
