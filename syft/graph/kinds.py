"""What kinds of values torch's operators take, checked before they are called.

torch checks this too, but its error shows the wrong value by repr(): samples of the worker's data
if the value is a tensor, and a text without end if it is a list of lists that share their parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Test = Callable[[Any], bool]

_LEFT_TO_GUARDS = frozenset({"dtype", "layout"})
"""Arguments whose numbers mean something: guards.py knows which do."""
MAX_LIST = 1_000_000
"""Items of a list that torch's operators take."""
_KINDS: dict[str, Test] = {
    "Tensor": lambda value: (
        isinstance(value, torch.Tensor) or type(value) in (float, int, bool, complex)
    ),
    "int": lambda value: type(value) in (int, bool),
    "bool": lambda value: type(value) is bool,
    "float": lambda value: type(value) in (float, int),
    "number": lambda value: type(value) in (float, int, bool, complex),
    "complex": lambda value: type(value) in (complex, float, int),
    "str": lambda value: type(value) is str,
    "Device": lambda value: isinstance(value, torch.device),
    "Generator": lambda value: False,
}
_DTYPE_NAMES = """
bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 complex128
"""
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in _DTYPE_NAMES.split()}
"""Dtypes that tensors of a graph may have: those that all kernels were audited with."""
NUMBERS: dict[torch.dtype, int] = {
    dtype: torch.ops.prim.dtype.default(torch.empty(0, dtype=dtype)) for dtype in DTYPES.values()
}
"""TorchScript's numbers of them."""
DTYPE_OF = {number: dtype for dtype, number in NUMBERS.items()}
DTYPE_NUMBERS = DTYPE_OF.keys()


def checked(name: str, arguments: list[Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, which then refuses values of other kinds than its schema says.

    Args:
        name: the operator, for errors.
        arguments: the schema's.
        function: what computes the operator.
    """
    tests = [(each.name, str(each.type), _test(each)) for each in arguments]
    by_name = {each[0]: each for each in tests}

    def call(*values: Any, **named: Any) -> Any:
        for (argument, kind, fits), value in zip(tests, values, strict=False):
            if not fits(value):
                raise TypeError(
                    f"{name}: argument {argument!r} is a {type(value).__name__}; expected {kind}"
                )
        for key, value in named.items():
            argument, kind, fits = by_name[key]
            if not fits(value):
                raise TypeError(
                    f"{name}: argument {argument!r} is a {type(value).__name__}; expected {kind}"
                )
        return function(*values, **named)

    return call


def _test(argument: Any) -> Test:
    if argument.name == "memory_format":  # torch crashes at numbers that are none of these four
        return lambda value: (
            value is None
            or isinstance(value, torch.memory_format)
            or (type(value) is int and 0 <= value <= 3)
        )
    return (
        _test_of(str(argument.type)) if argument.name not in _LEFT_TO_GUARDS else lambda value: True
    )


def _test_of(kind: str) -> Test:
    outer, _, inner = kind.removesuffix("]").partition("[")
    if outer == "Optional":
        inner_test = _test_of(inner)
        return lambda value: value is None or inner_test(value)
    if outer == "List":
        each = _test_of(inner)
        return lambda value: (
            type(value) in (list, tuple) and len(value) <= MAX_LIST and all(map(each, value))
        )
    return _KINDS.get(kind, lambda value: False)
