"""Operators that compute with numbers, strings, lists and dicts, and the language's own.

They are Python functions of ours. A graph may call these with any arguments, so each is bounded by
itself: an integer has 64 bits, a string at most `MAX_TEXT` characters, a list at most `MAX_ITEMS`
items. What looks at the items of lists takes flat ones only: lists inside one another that share
their parts can have 2**60 items in sixty lists. What computes takes no tensors, which are for
torch's own operators. A tensor in a text is told by its shape only, so that no error and no log
line carries samples.
"""

from __future__ import annotations

import logging
import math
import operator
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from syft.graph.kinds import DTYPE_NUMBERS

logger = logging.getLogger("syft.models")

MAX_TEXT = 65_536
MAX_ITEMS = 1_000_000
_MAX_MESSAGE = 1_000
_MAX_SHOWN = 200
"""Values that are shown of a list in a text, those of inner lists included."""
_LINES_PER_SECOND = 20
"""Lines that models may write to the log; a loop could fill the disk with more."""

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
    """Return a result, if it is not too large.

    It may be no larger than TorchScript's own values, or than a graph may ask for.
    """
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise OverflowError("a model computed an integer of more than 64 bits")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise ValueError(f"a model made a text of {len(value)} characters; the limit is {MAX_TEXT}")
    if isinstance(value, (list, dict)) and len(value) > MAX_ITEMS:
        raise ValueError(f"a model made a list of {len(value)} items; the limit is {MAX_ITEMS}")
    return value


_SCALARS = frozenset({bool, int, float, complex, str, type(None), torch.device})
_CONTAINERS = (list, tuple, dict, str)


def _flat(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that takes scalars and flat lists of them only.

    Its result is bounded.
    """

    def checked(*arguments: Any) -> Any:
        for value in arguments:
            if type(value) not in _SCALARS and not (
                isinstance(value, (list, tuple)) and all(type(item) in _SCALARS for item in value)
            ):
                raise TypeError(
                    f"a model computes with a {_kind(value)}; expected numbers, texts or flat lists"
                )
        return _bounded(function(*arguments))

    return checked


def _inside(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose first argument is a list, tuple, dict or text."""

    def checked(items: Any, *arguments: Any) -> Any:
        if not isinstance(items, _CONTAINERS):
            raise TypeError(
                f"a model looks into a {_kind(items)}; expected a list, a tuple, a dict or a text"
            )
        return function(items, *arguments)

    return checked


def _kind(value: Any) -> str:
    return "list of lists or tensors" if isinstance(value, (list, tuple)) else type(value).__name__


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, list) and isinstance(b, list):
        return _extend(list(a), b)
    return _add_scalars(a, b)


_add_scalars = _flat(operator.add)


def _multiply(a: Any, b: Any) -> Any:
    items, times = (a, b) if isinstance(a, (list, str)) else (b, a)
    if not isinstance(items, (list, str)) or type(times) is not int:
        return _multiply_scalars(a, b)
    if len(items) * times > (MAX_TEXT if isinstance(items, str) else MAX_ITEMS):
        raise ValueError(
            f"a model made {times} copies of {len(items)} items; the limit is {MAX_ITEMS} in all"
        )
    return items * times


_multiply_scalars = _flat(operator.mul)


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int):
        if exponent < 0:
            return float(base) ** exponent
        # Refused before it is computed: the power could have any number of digits.
        if abs(base) > 1 and exponent > 63:
            raise OverflowError("a model computed an integer of more than 64 bits")
    return _bounded(base**exponent)


def _shift_left(a: int, b: int) -> int:
    # As int64 does it in TorchScript: what is shifted out is lost.
    return ((a << (b % 64)) + 2**63) % 2**64 - 2**63


def _factorial(number: int) -> int:
    # 20! is the last one of 64 bits.
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
    if not isinstance(items, list) or not isinstance(more, list):
        raise TypeError(f"a model extends a {_kind(items)} by a {_kind(more)}; expected lists")
    if len(items) + len(more) > MAX_ITEMS:
        raise ValueError(
            f"a model made a list of {len(items) + len(more)} items; the limit is {MAX_ITEMS}"
        )
    # A copy: a list may be extended by itself.
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
    if isinstance(items, dict):
        _check_key(item)
        return item in items
    return _contains_flat(items, item)


_contains_flat = _flat(operator.contains)


def _unwrap(value: Any) -> Any:
    if value is None:
        raise RuntimeError("a model unwraps an optional value that is None")
    return value


def _text(value: Any) -> str:
    """Return a value as text.

    Tensors are told by their shape: what is formatted here may leave the worker.
    """
    return _bounded(value) if isinstance(value, str) else _shown(value, [_MAX_SHOWN])


def _shown(value: Any, room: list[int]) -> str:
    """Return a value as text; `room` holds how many values may be shown, and counts down."""
    room[0] -= 1
    if room[0] < 0:
        return "..."
    if isinstance(value, torch.Tensor):
        return f"<Tensor {tuple(value.shape)} {value.dtype}>"
    if isinstance(value, dict):
        shown = (
            f"{_shown(key, room)}: {_shown(item, room)}"
            for key, item in list(value.items())[: room[0] + 1]
        )
        return f"{{{', '.join(shown)}}}"
    if isinstance(value, (list, tuple)):
        brackets = "[]" if isinstance(value, list) else "()"
        items = ", ".join(_shown(item, room) for item in value[: room[0] + 1])
        return f"{brackets[0]}{items}{brackets[1]}"
    return str(value)[:_MAX_MESSAGE]


def _joined(parts: list[str], separator: str = "") -> str:
    length = sum(map(len, parts)) + len(separator) * max(0, len(parts) - 1)
    if length > MAX_TEXT:
        raise ValueError(f"a model made a text of {length} characters; the limit is {MAX_TEXT}")
    return separator.join(parts)


def _format(template: str, *arguments: Any) -> str:
    """Fill the places {} of a text, the only ones that TorchScript knows."""
    parts = template.split("{}")
    texts = [_text(argument) for argument in arguments[: len(parts) - 1]]
    texts += ["{}"] * (len(parts) - 1 - len(texts))
    pairs = zip(texts, parts[1:], strict=True)
    return _joined([parts[0], *(piece for pair in pairs for piece in pair)])


_PLACE = re.compile(r"%([-+ #0]*)(\d{0,2})(\.\d{0,2})?([a-zA-Z%])")


def _percent_format(template: str, *arguments: Any) -> str:
    """Fill the places %d, %s, %.3f of a text; a width has at most two digits."""
    if len(arguments) == 1 and isinstance(arguments[0], tuple):
        (arguments,) = arguments
    values, parts, end = iter(arguments), [], 0
    for place in _PLACE.finditer(template):
        parts.append(template[end : place.start()])
        parts.append(_filled(place, values))
        end = place.end()
    return _joined([*parts, template[end:]])


def _filled(place: re.Match[str], values: Iterator[Any]) -> str:
    if place[4] == "%":
        return "%"
    value = next(values, None)
    if place[4] not in "sr" and type(value) not in _SCALARS:
        raise TypeError(f"a model formats a {_kind(value)} as a number")
    return place[0] % (_text(value) if place[4] in "sr" else value)


def _join(separator: str, texts: list[str]) -> str:
    return _joined(texts, separator)


def _replace(text: str, old: str, new: str, most: int = -1) -> str:
    if len(text) + (len(text) + 1) * len(new) > 16 * MAX_TEXT:
        raise ValueError(f"a model made a text of more than {MAX_TEXT} characters")
    return _bounded(text.replace(old, new, most))


def _raise(message: Any = "", name: str | None = None, *_: Any) -> None:
    error = _ERRORS.get(str(name).rpartition(".")[2], RuntimeError)
    raise error(_text(message)[:_MAX_MESSAGE])


def _print(*values: Any) -> None:
    _log(logging.INFO, " ".join(_text(value)[:_MAX_MESSAGE] for value in values[:_MAX_SHOWN]))


def _warn(message: Any, *_: Any) -> None:
    _log(logging.WARNING, _text(message))


_written: list[float] = [0.0] * _LINES_PER_SECOND
"""When the last lines were written, by time.monotonic(), the oldest first."""


def _log(level: int, text: str) -> None:
    """Write one line to the log, unless models have written many in the last second."""
    now = time.monotonic()
    if now - _written[0] >= 1:
        _written.append(now)
        del _written[0]
        # A newline could forge a line of the log.
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:_MAX_MESSAGE])
        logger.log(level, "%s", line)


def _check_key(key: Any) -> None:
    if not isinstance(key, (str, int, float, bool)):
        raise TypeError(f"a key of a dict is a {type(key).__name__}; expected a string or a number")


def _dict_construct(*items: Any) -> dict[Any, Any]:
    for key in items[::2]:
        _check_key(key)
    return dict(zip(items[::2], items[1::2], strict=True))


def _tensor(
    data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> torch.Tensor:
    """Return nested lists of numbers as a tensor; a dtype is TorchScript's number of it."""
    if dtype is not None and (type(dtype) is not int or dtype not in DTYPE_NUMBERS):
        raise ValueError(
            "a model makes a tensor of a dtype that is not one of those allowed in models"
        )
    waiting, seen = [data], 0
    while waiting:
        value, seen = waiting.pop(), seen + 1
        if isinstance(value, (list, tuple)) and seen + len(waiting) + len(value) <= MAX_ITEMS:
            waiting.extend(value)
        elif type(value) not in _SCALARS and not (
            isinstance(value, torch.Tensor) and value.numel() == 1
        ):
            raise ValueError(
                f"a model makes a tensor of a {_kind(value)}; expected up to {MAX_ITEMS} numbers "
                "in lists"
            )
    tensor = torch.tensor(data, device=device, requires_grad=requires_grad and dtype is None)
    return (
        tensor
        if dtype is None
        else torch.ops.aten.to.dtype(tensor, dtype).requires_grad_(requires_grad)
    )


def _same(value: Any) -> Any:
    return value


def _aten(**functions: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return {f"aten::{name}": function for name, function in functions.items()}


_MATH = """
acos acosh asin asinh atan atan2 atanh ceil copysign cos cosh degrees erf erfc exp expm1 fabs floor
fmod frexp gamma gcd isfinite isinf isnan ldexp lgamma log log10 log1p modf radians sin sinh sqrt
tan tanh
"""

SCALARS: dict[str, Callable[..., Any]] = {
    **{f"aten::{name}": _flat(getattr(math, name)) for name in _MATH.split()},
    **_aten(
        mathremainder=_flat(math.remainder),
        add=_add,
        add_=_extend,
        sub=_flat(operator.sub),
        mul=_multiply,
        div=_flat(operator.truediv),
        floordiv=_flat(operator.floordiv),
        remainder=_flat(operator.mod),
        divmod=_flat(lambda a, b: tuple(map(_bounded, divmod(a, b)))),
        pow=_flat(_power),
        neg=_flat(operator.neg),
        round=_flat(lambda number: float(round(number))),
        factorial=_flat(_factorial),
        __round_to_zero_floordiv=_flat(
            lambda a, b: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        ),
        __lshift__=_flat(_shift_left),
        __rshift__=_flat(lambda a, b: a >> min(b, 64)),
        __and__=_flat(operator.and_),
        __or__=_flat(operator.or_),
        __xor__=_flat(operator.xor),
        bitwise_not=_flat(operator.invert),
        __not__=_flat(operator.not_),
        __is__=operator.is_,
        __isnot__=operator.is_not,
        eq=_flat(operator.eq),
        ne=_flat(operator.ne),
        lt=_flat(operator.lt),
        le=_flat(operator.le),
        gt=_flat(operator.gt),
        ge=_flat(operator.ge),
        all=_flat(lambda items: all(items)),
        any=_flat(lambda items: any(items)),
        sum=_flat(sum),
        Int=_flat(int),
        Float=_flat(float),
        Bool=_flat(bool),
        Complex=_flat(complex),
        str=_text,
        real=_flat(lambda number: number.real),
        imag=_flat(lambda number: number.imag),
        len=_inside(len),
        list=_inside(list),
        copy=_inside(lambda items: items.copy()),
        clear=_inside(lambda items: items.clear()),
        slice=_inside(_slice),
        append=_inside(_append),
        extend=_extend,
        insert=_inside(_insert),
        pop=_inside(_pop),
        remove=_flat(lambda items, item: items.remove(item)),
        reverse=_inside(lambda items: items.reverse()),
        sort=_flat(_sort),
        sorted=_flat(lambda items: sorted(items)),
        index=_flat(lambda items, item: items.index(item)),
        count=_flat(lambda items, item: items.count(item)),
        Delete=_inside(_delete),
        _set_item=_inside(_set_item),
        __getitem__=_inside(lambda items, index: items[index]),
        __contains__=_contains,
        __range_length=_flat(_range_length),
        __derive_index=_flat(lambda index, start, step: index * step + start),
        _unwrap_optional=_unwrap,
        keys=_inside(lambda items: list(items.keys())),
        values=_inside(lambda items: list(items.values())),
        items=_inside(lambda items: list(items.items())),
        get=_inside(lambda items, key, default=None: items.get(key, default)),
        format=_format,
        percentFormat=_percent_format,
        join=_flat(_join),
        split=_flat(lambda text, separator=None, most=-1: text.split(separator, most)),
        strip=_flat(lambda text, characters=None: text.strip(characters)),
        startswith=_flat(lambda text, start, *_: text.startswith(start)),
        endswith=_flat(lambda text, end, *_: text.endswith(end)),
        upper=_flat(lambda text: text.upper()),
        lower=_flat(lambda text: text.lower()),
        replace=_flat(_replace),
        find=_flat(
            lambda text, part, start=0, end=-1: text.find(part, start, None if end == -1 else end)
        ),
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
    "prim::ListUnpack": _inside(tuple),
    "prim::TupleUnpack": _inside(tuple),
    "prim::TupleIndex": _inside(lambda items, index: items[index]),
    "prim::unchecked_cast": _same,
    "prim::unchecked_unwrap_optional": _unwrap,
    "prim::Uninitialized": lambda: None,
    "prim::min": _flat(min),
    "prim::max": _flat(max),
    "prim::abs": _flat(abs),
    "prim::rangelist": _flat(_range_list),
    "prim::type": lambda device: device.type,
    "prim::RaiseException": _raise,
    "prim::Print": _print,
}
"""Name of an operator -> function.

For operators whose schema has no tensor, and for the language's own.
"""

_LIST_CHANGES = """
append extend insert pop remove reverse sort clear Delete _set_item add_
"""
CHANGES_LISTS = frozenset(f"aten::{name}" for name in _LIST_CHANGES.split())
"""Operators that change a list; where a graph has one, it gets constants of its own for each
call."""
