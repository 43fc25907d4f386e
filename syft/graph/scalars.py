"""Operators that compute with numbers, strings, lists and dicts, and the language's own: Python functions of ours.

A graph may call these with any arguments, so each is bounded by itself: an integer has 64 bits, a string at most
`MAX_TEXT` characters, a list at most `MAX_ITEMS` items. A tensor in a text is told by its shape only, so that no error
and no log line carries samples.
"""

from __future__ import annotations

import logging
import math
import operator
import re
from collections.abc import Callable
from typing import Any

import torch

logger = logging.getLogger("syft.models")

MAX_TEXT = 65_536
MAX_ITEMS = 1_000_000
_MAX_MESSAGE = 1_000

_ERRORS: dict[str, type[Exception]] = {
    error.__name__: error
    for error in (
        AssertionError,
        Exception,
        IndexError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    )
}


def _bounded(value: Any) -> Any:
    """Return a result, if it is no larger than TorchScript's own values, or than a graph may ask for."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise OverflowError("a model computed an integer of more than 64 bits")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise ValueError(f"a model made a text of {len(value)} characters; the limit is {MAX_TEXT}")
    if isinstance(value, (list, dict)) and len(value) > MAX_ITEMS:
        raise ValueError(f"a model made a list of {len(value)} items; the limit is {MAX_ITEMS}")
    return value


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: _bounded(function(*arguments))


def _multiply(a: Any, b: Any) -> Any:
    if isinstance(a, (list, str)) or isinstance(b, (list, str)):
        items, times = (a, b) if isinstance(a, (list, str)) else (b, a)
        if len(items) * times > (MAX_TEXT if isinstance(items, str) else MAX_ITEMS):
            raise ValueError(f"a model made {times} copies of {len(items)} items; the limit is {MAX_ITEMS} in all")
    return _bounded(a * b)


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int):
        if exponent < 0:
            return float(base) ** exponent
        if abs(base) > 1 and exponent > 63:
            raise OverflowError("a model computed an integer of more than 64 bits")
    return _bounded(base**exponent)


def _shift_left(a: int, b: int) -> int:
    return ((a << (b % 64)) + 2**63) % 2**64 - 2**63


def _factorial(number: int) -> int:
    return math.factorial(number) if number <= 20 else _bounded(2**63)


def _range_length(low: int, high: int, step: int) -> int:
    if step == 0:
        raise ValueError("range() arg 3 must not be zero")
    return len(range(low, high, step))


def _range_list(number: int) -> list[int]:
    if number > MAX_ITEMS:
        raise ValueError(f"a model made a list of {number} items; the limit is {MAX_ITEMS}")
    return list(range(number))


def _slice(items: Any, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    return items[start:end:step]


def _set_item(items: Any, index: Any, value: Any) -> Any:
    if isinstance(items, dict):
        _check_key(index)
        _bounded(items)
    items[index] = value
    return items


def _delete(items: Any, index: Any) -> None:
    del items[index]


def _append(items: list[Any], value: Any) -> list[Any]:
    items.append(value)
    return _bounded(items)


def _extend(items: list[Any], more: list[Any]) -> list[Any]:
    if len(items) + len(more) > MAX_ITEMS:
        raise ValueError(f"a model made a list of {len(items) + len(more)} items; the limit is {MAX_ITEMS}")
    items.extend(list(more))
    return items


def _insert(items: list[Any], index: int, value: Any) -> None:
    items.insert(index, value)
    _bounded(items)


def _pop(items: Any, *arguments: Any) -> Any:
    return items.pop(*arguments)


def _sort(items: list[Any], reverse: bool = False) -> None:
    items.sort(reverse=reverse)


def _contains(items: Any, item: Any) -> bool:
    return item in items


def _unwrap(value: Any) -> Any:
    if value is None:
        raise RuntimeError("a model unwraps an optional value that is None")
    return value


def _text(value: Any) -> str:
    """Return a value as text. Tensors are told by their shape: what is formatted here may leave the worker."""
    if isinstance(value, torch.Tensor):
        return f"<Tensor {tuple(value.shape)} {value.dtype}>"
    if isinstance(value, (list, tuple)):
        brackets = "[]" if isinstance(value, list) else "()"
        return f"{brackets[0]}{', '.join(map(_text, value[:100]))}{brackets[1]}"
    return _bounded(value) if isinstance(value, str) else str(value)[:_MAX_MESSAGE]


def _format(template: str, *arguments: Any) -> str:
    """Fill the places {} of a text, the only ones that TorchScript knows."""
    parts = template.split("{}")
    texts = [_text(argument) for argument in arguments[: len(parts) - 1]]
    texts += ["{}"] * (len(parts) - 1 - len(texts))
    return _bounded(parts[0] + "".join(text + part for text, part in zip(texts, parts[1:], strict=True)))


_PLACE = re.compile(r"%([-+ #0]*)(\d{0,2})(\.\d{0,2})?([a-zA-Z%])")


def _percent_format(template: str, *arguments: Any) -> str:
    """Fill the places %d, %s, %.3f of a text; a width has at most two digits."""
    values = iter(arguments)

    def filled(place: re.Match[str]) -> str:
        if place[4] == "%":
            return "%"
        value = next(values)
        return place[0] % (_text(value) if place[4] in "sr" else value)

    return _bounded(_PLACE.sub(filled, template))


def _join(separator: str, texts: list[str]) -> str:
    if len(separator) * len(texts) + sum(map(len, texts)) > MAX_TEXT:
        raise ValueError(f"a model made a text of more than {MAX_TEXT} characters")
    return separator.join(texts)


def _replace(text: str, old: str, new: str, most: int = -1) -> str:
    if len(text) + (len(text) + 1) * len(new) > 16 * MAX_TEXT:
        raise ValueError(f"a model made a text of more than {MAX_TEXT} characters")
    return _bounded(text.replace(old, new, most))


def _raise(message: str, name: str | None = None, *_: Any) -> None:
    error = _ERRORS.get((name or "RuntimeError").rpartition(".")[2], RuntimeError)
    raise error(str(message)[:_MAX_MESSAGE])


def _print(*values: Any) -> None:
    logger.info("%s", " ".join(map(_text, values))[:_MAX_MESSAGE])


def _warn(message: str, *_: Any) -> None:
    logger.warning("%s", str(message)[:_MAX_MESSAGE])


def _check_key(key: Any) -> None:
    if not isinstance(key, (str, int, float, bool)):
        raise TypeError(f"a key of a dict is a {type(key).__name__}; expected a string or a number")


def _dict_construct(*items: Any) -> dict[Any, Any]:
    for key in items[::2]:
        _check_key(key)
    return dict(zip(items[::2], items[1::2], strict=True))


def _tensor(data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> torch.Tensor:
    """Return nested lists of numbers as a tensor; a dtype is TorchScript's number of it."""
    tensor = torch.tensor(data, device=device, requires_grad=requires_grad and dtype is None)
    return tensor if dtype is None else torch.ops.aten.to.dtype(tensor, dtype).requires_grad_(requires_grad)


def _same(value: Any) -> Any:
    return value


def _aten(**functions: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return {f"aten::{name}": function for name, function in functions.items()}


_MATH = """
acos acosh asin asinh atan atan2 atanh ceil copysign cos cosh degrees erf erfc exp expm1 fabs floor fmod frexp gamma
gcd isfinite isinf isnan ldexp lgamma log log10 log1p modf radians sin sinh sqrt tan tanh
"""

SCALARS: dict[str, Callable[..., Any]] = {
    **{f"aten::{name}": _checked(getattr(math, name)) for name in _MATH.split()},
    **_aten(
        mathremainder=math.remainder,
        add=_checked(operator.add),
        add_=_extend,
        sub=_checked(operator.sub),
        mul=_multiply,
        div=operator.truediv,
        floordiv=_checked(operator.floordiv),
        remainder=_checked(operator.mod),
        divmod=lambda a, b: tuple(map(_bounded, divmod(a, b))),
        pow=_power,
        neg=_checked(operator.neg),
        round=lambda number: float(round(number)),
        factorial=_factorial,
        __round_to_zero_floordiv=_checked(lambda a, b: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)),
        __lshift__=_shift_left,
        __rshift__=lambda a, b: a >> min(b, 64),
        __and__=operator.and_,
        __or__=operator.or_,
        __xor__=operator.xor,
        bitwise_not=operator.invert,
        __not__=operator.not_,
        __is__=operator.is_,
        __isnot__=operator.is_not,
        eq=operator.eq,
        ne=operator.ne,
        lt=operator.lt,
        le=operator.le,
        gt=operator.gt,
        ge=operator.ge,
        all=lambda items: all(items),
        any=lambda items: any(items),
        sum=_checked(sum),
        Int=_checked(int),
        Float=float,
        Bool=bool,
        Complex=complex,
        str=_text,
        real=lambda number: number.real,
        imag=lambda number: number.imag,
        len=len,
        list=list,
        copy=lambda items: items.copy(),
        clear=lambda items: items.clear(),
        slice=_slice,
        append=_append,
        extend=_extend,
        insert=_insert,
        pop=_pop,
        remove=lambda items, item: items.remove(item),
        reverse=lambda items: items.reverse(),
        sort=_sort,
        sorted=lambda items: sorted(items),
        index=lambda items, item: items.index(item),
        count=lambda items, item: items.count(item),
        Delete=_delete,
        _set_item=_set_item,
        __getitem__=lambda items, index: items[index],
        __contains__=_contains,
        __range_length=_range_length,
        __derive_index=lambda index, start, step: _bounded(start + index * step),
        _unwrap_optional=_unwrap,
        keys=lambda items: list(items.keys()),
        values=lambda items: list(items.values()),
        items=lambda items: list(items.items()),
        get=lambda items, key, default=None: items.get(key, default),
        format=_format,
        percentFormat=_percent_format,
        join=_join,
        split=lambda text, separator=None, most=-1: text.split(separator, most),
        strip=lambda text, characters=None: text.strip(characters),
        startswith=lambda text, start, *_: text.startswith(start),
        endswith=lambda text, end, *_: text.endswith(end),
        upper=lambda text: text.upper(),
        lower=lambda text: text.lower(),
        replace=_replace,
        find=lambda text, part, start=0, end=-1: text.find(part, start, None if end == -1 else end),
        warn=_warn,
        tensor=_tensor,
        is_grad_enabled=torch.is_grad_enabled,
        is_autocast_enabled=torch.is_autocast_enabled,
        is_autocast_cpu_enabled=lambda: torch.is_autocast_enabled("cpu"),
        is_scripting=lambda: False,
    ),
    "prim::ListConstruct": lambda *items: list(items),
    "prim::TupleConstruct": lambda *items: items,
    "prim::DictConstruct": _dict_construct,
    "prim::ListUnpack": tuple,
    "prim::TupleUnpack": tuple,
    "prim::TupleIndex": lambda items, index: items[index],
    "prim::unchecked_cast": _same,
    "prim::unchecked_unwrap_optional": _unwrap,
    "prim::Uninitialized": lambda: None,
    "prim::min": lambda *numbers: min(*numbers),
    "prim::max": lambda *numbers: max(*numbers),
    "prim::abs": _checked(abs),
    "prim::rangelist": _range_list,
    "prim::type": lambda device: device.type,
    "prim::RaiseException": _raise,
    "prim::Print": _print,
}
"""Name of an operator -> function, for operators whose schema has no tensor, and for the language's own."""

_LIST_CHANGES = """
append extend insert pop remove reverse sort clear Delete _set_item add_
"""
CHANGES_LISTS = frozenset(f"aten::{name}" for name in _LIST_CHANGES.split())
"""Operators that change a list; where a graph has one, it gets constants of its own for each call."""
