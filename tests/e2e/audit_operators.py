"""Call every allowed operator with hostile arguments, and say which calls crash, leak memory or
grow without bound.

A coordinator's graph may call any allowed operator with any tensors and constants, and so may its
operations on remote tensors, so an operator has to be safe by itself, or be guarded by a check, or
be refused. The operators are called as a graph calls them, behind the guards of
syft/graph/guards.py and the bounds of sizes.py; with --unguarded, torch's own are.

    python -m tests.e2e.audit_operators [--jobs N] [--cases N] [--seed N] [--unguarded] [NAME ...]

NAME is an operator without its overload, such as aten::conv2d, allowed or not; without names, the
whole list is audited (with --jobs 2 --cases 90 in about ten minutes). It needs Linux and a C
compiler. The table of findings is written to operator_audit.json.

When a new torch comes, or an operator is to be added to the list: run it over the whole list with a
new --seed, then with --cases 400 over what is new. Read what is not "safe" in the table, with
--unguarded to see what torch itself does; write a guard, or take the operator off the list; add a
valid call to `operator_samples.py` for what is "invalid"; run again until nothing is left.

How it works: the process starts itself again on `guarded_malloc.c`, under which each tensor ends at
an unmapped page and new memory is filled with a known byte. Each overload gets valid calls (torch's
own samples, the table in `operator_samples.py`, or tensors of plain shapes), and then the same
calls with one or two arguments made hostile; those of operators in place also with the tensor that
they change as another argument. A child process makes each call twice, with different bytes in the
new memory, forward and, where an argument is floating point, backward. The valid calls are made
once more for each of their arguments and results, which is overwritten before the backward pass.
The findings:

- crash: a signal. The innermost functions are named: an access outside of a tensor always ends
  here.
- leak: results that depend on the byte in new memory, so that they show what nobody wrote.
- write: something wrote in front of a block.
- unbounded: more than 1 GB or 2 s from small arguments.
- view: a result of more than 2**28 elements that takes no memory itself (expand), but whose copy
  would.
- alias: a result shares its memory with an argument, but not the version counter by which autograd
  notices that saved tensors were overwritten.
- unnoticed: an argument changed, or was overwritten before the backward pass, which gave other
  gradients then, and no version counter told autograd; or an argument changed its shape, though
  torch does not say that it does. Known, and harmless since it trusts no number: aten::kron.
- kind: a result that is not a plain tensor on the processor (meta, nested, sparse, quantized).
- invalid: no call among the samples succeeded, so that the hostile calls say little. Add one to the
  table.

Left out are the overloads that write to `out=`, those with names of dimensions, streams, storages
or C++ classes, and those of any number of arguments (prim::TupleUnpack), which cannot be called
without an interpreter.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from syft.graph import operators, sizes
from syft.graph.kinds import DTYPES
from syft.remote import operators as remote
from tests.e2e.operator_samples import SAMPLES

TIMEOUT = 3.0  # seconds of processor time a case
SLOW = 1.0  # seconds of processor time of one call that count as unbounded
LARGE = 1 << 30  # bytes that count as unbounded
MANY = 1 << 28  # elements of a view that count as unbounded
FINDINGS = 12  # deaths of one overload after which its audit ends
BYTES = (0xA5, 0x3C)  # what new memory holds in the first and in the second call

INTS = [
    0,
    -1,
    1,
    2,
    3,
    -2,
    7,
    64,
    1000,
    2**31 - 1,
    2**31,
    10**12,
    2**62,
    2**63 - 1,
    -(2**63),
    -(10**12),
]
FLOATS = [0.0, -1.0, 1.5, float("nan"), float("inf"), -float("inf"), 1e300, 1e18, 1e-300]
STRINGS = [
    "none", "mean", "sum", "constant", "reflect", "replicate", "circular", "valid", "same",
    "nearest", "linear", "bicubic", "bilinear", "fro", "nuc", "prod", "amax", "amin", "tanh",
    "gelu", "relu", "ij", "xy", "left", "right", "trunc", "floor", "reduced", "complete", "L", "U",
    "ij->ji", "...i,...j->ij", "a->aab", "", "x",
]  # fmt: skip
TRIED = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.uint8, torch.bool, torch.complex64, torch.uint16, torch.float8_e4m3fn, torch.qint8,
]  # fmt: skip


class Leave(Exception):
    """This mutation does not apply to this argument."""


# Hostile arguments


def _cast(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    def cast(t: torch.Tensor) -> torch.Tensor:
        if t.dtype == dtype:
            raise Leave
        return t.to(dtype)

    return cast


def _filled(value: float, kind: str = "any") -> Callable[[torch.Tensor], torch.Tensor]:
    def fill(t: torch.Tensor) -> torch.Tensor:
        if t.dtype == torch.bool or ((kind == "float") != t.is_floating_point() and kind != "any"):
            raise Leave
        return torch.full_like(t, value)

    return fill


def _forged(value: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def forge(t: torch.Tensor) -> torch.Tensor:
        if t.dtype not in (torch.int64, torch.int32) or t.numel() == 0:
            raise Leave
        t = t.clone(memory_format=torch.contiguous_format)
        t.view(-1)[-1] = value
        return t

    return forge


TENSORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "empty": lambda t: t.new_zeros(0),
    "0-dim": lambda t: t.reshape(-1)[0].clone(),
    "one": lambda t: t.reshape(-1)[:1].clone(),
    "ones of the rank": lambda t: t.reshape(-1)[0].clone().reshape([1] * t.dim()),
    "half": lambda t: t[: max(1, len(t) // 2)].clone(),
    "half of the last": lambda t: t[..., : max(1, t.shape[-1] // 2)].clone(),
    "one shorter": lambda t: t[:-1].clone(),
    "one longer": lambda t: torch.cat([t, t[:1]]),
    "three times": lambda t: torch.cat([t, t, t]),
    "no rows": lambda t: t[:0].clone(),
    "no columns": lambda t: t[..., :0].clone(),
    "a dimension before": lambda t: t[None].clone(),
    "a dimension behind": lambda t: t[..., None].clone(),
    "flat": lambda t: t.reshape(-1).clone(),
    "a row": lambda t: t[0].clone(),
    "expanded": lambda t: t.reshape(-1)[:1].clone().reshape([1] * t.dim()).expand(t.shape),
    "with gaps": lambda t: torch.stack([t, t], -1)[..., 0],
    "transposed": lambda t: t.mT.contiguous().mT if t.dim() > 1 else t.flip(0).clone(),
    "other shape": lambda t: t.mT.contiguous() if t.dim() > 1 else t.reshape(1, -1).clone(),
    "64 dimensions": lambda t: t.reshape(-1)[:1].clone().reshape([1] * 64),
    "70 dimensions": lambda t: t.reshape(-1)[:1].clone().reshape([1] * 70),
    "reversed": lambda t: t.flip(0).clone(),
    "-1": _filled(-1),
    "0": _filled(0),
    "nan": _filled(float("nan"), "float"),
    "inf": _filled(float("inf"), "float"),
    "1e30": _filled(1e30, "float"),
    "int max": _filled(2**31 - 1, "int"),
    "forged 10**6": _forged(10**6),
    "forged -10**6": _forged(-(10**6)),
    "forged 2**31 - 1": _forged(2**31 - 1),
    "forged -1": _forged(-1),
    "forged 5": _forged(5),
    "forged 100": _forged(100),
    **{f"to {dtype}": _cast(dtype) for dtype in TRIED[:-1]},
}
for _value in (2**63 - 1, -(2**63), 2**40):
    TENSORS[f"forged {_value}"] = lambda t, v=_value: _forged(v)(
        t.to(torch.int64) if t.dtype == torch.int32 else t
    )

Mutation = tuple[str, Any]  # ("tensor", name), ("value", value) or ("item", (index, Mutation))


def mutations(value: object, kind: str) -> list[Mutation]:
    """Return the hostile versions of an argument.

    Args:
        value: the argument of a valid call.
        kind: its type in the schema, such as "Optional[Tensor]".
    """
    found: list[Mutation] = [("value", None)] if kind.startswith("Optional") else []
    if isinstance(value, torch.Tensor):
        found += [("tensor", name) for name in TENSORS]
    elif "ScalarType" in kind:
        found += [("value", dtype) for dtype in TRIED]
    elif "Layout" in kind:
        found += [
            ("value", layout)
            for layout in (torch.sparse_coo, torch.sparse_csr, torch._mkldnn, torch.jagged)
        ]
    elif "MemoryFormat" in kind:
        found += [
            ("value", form)
            for form in (torch.channels_last, torch.channels_last_3d, torch.preserve_format)
        ]
    elif "Device" in kind:
        found += [("value", torch.device("meta"))]
    elif "Generator" in kind:
        return []
    elif isinstance(value, bool) or ("bool" in kind and "List" not in kind):
        found += [("value", not value)]
    elif "List" in kind:
        items = list(value) if isinstance(value, list | tuple) else []
        found += [
            ("value", []),
            ("value", items + items[-1:]),
            ("value", items[:-1]),
            ("value", items * 30),
        ]
        inner = re.sub(r"^(Optional\[)?List\[", "", kind)
        if "int" in inner or "Int" in inner:
            found += [("value", [n] * max(1, len(items))) for n in INTS]
        for i, item in enumerate(items[:4]):
            found += [("item", (i, mutation)) for mutation in mutations(item, inner)]
    elif isinstance(value, int) or "int" in kind or "Int" in kind:
        found += [("value", n) for n in INTS]
        if "number" in kind or "Scalar" in kind:
            found += [("value", x) for x in FLOATS] + [("value", 1j), ("value", True)]
    elif isinstance(value, float) or "float" in kind or "number" in kind:
        found += [("value", x) for x in FLOATS]
        if "number" in kind:
            found += [("value", n) for n in INTS] + [("value", 1j), ("value", True)]
    elif isinstance(value, complex):
        found += [("value", x * 1j) for x in FLOATS]
    elif isinstance(value, str) or "str" in kind:
        found += [("value", text) for text in STRINGS] + [("value", "x" * 10_000)]
    return found


def mutate(value: Any, mutation: Mutation) -> Any:
    """Return the hostile version of an argument.

    Raises:
        Leave: the mutation does not apply, for example rows of a tensor without dimensions.
    """
    kind, what = mutation
    if kind == "value":
        return what
    if kind == "item":
        index, inner = what
        return [mutate(item, inner) if i == index else item for i, item in enumerate(value)]
    try:
        return TENSORS[what](value)
    except (RuntimeError, IndexError, TypeError, NotImplementedError, OverflowError) as error:
        raise Leave from error


class Same:
    """An argument that is another one, or a view of it.

    Args:
        index: the other one.
        turned: its first two dimensions are swapped.
    """

    def __init__(self, index: int, turned: bool) -> None:
        self.index = index
        self.turned = turned


def linked(values: list[Any]) -> list[Any]:
    """Return values whose places of the kind Same hold the tensors that they stand for."""

    def link(value: Any) -> Any:
        if not isinstance(value, Same):
            return value
        other = values[value.index]
        return other.transpose(0, 1) if value.turned and other.dim() > 1 else other

    return [link(value) for value in values]


def exact(value: Any) -> Any:
    """Return a copy whose tensors have blocks of their own, as short as their elements allow."""
    if isinstance(value, list | tuple):
        return [exact(item) for item in value]
    if (
        not isinstance(value, torch.Tensor)
        or value.layout != torch.strided
        or value.is_meta
        or value.is_quantized
    ):
        return value
    value = value.detach()
    shape = value.shape
    for dim, stride in enumerate(value.stride()):
        if stride == 0 and shape[dim] > 1:
            value = value.narrow(dim, 0, 1)
    fresh = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
    fresh.copy_(value)
    # An expanded one is a view, of something that asks for no gradients.
    return fresh if fresh.shape == shape else fresh.expand(shape)


def described(value: Any) -> str:
    """Return an argument as one can type it, roughly."""
    if isinstance(value, Same):
        return f"argument {value.index}{', turned' if value.turned else ''}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(described, value[:8]))}{', ...' if len(value) > 8 else ''}]"
    if isinstance(value, torch.Tensor):
        shape = list(value.shape) if value.dim() < 10 else f"[1] * {value.dim()}"
        text = f"{str(value.dtype)[6:]}{shape}"
        if value.layout == torch.strided and not value.is_contiguous():
            text += f" strides {value.stride()}"
        if value.dtype in (torch.int64, torch.int32) and 0 < value.numel() <= 12:
            text += f" = {value.tolist()}"
        elif (
            value.is_floating_point()
            and value.dtype.itemsize > 1
            and not bool(value.reshape(-1).isfinite().all())
        ):
            text += " with nan or inf"
        return text
    text = repr(value)
    return text if len(text) < 60 else f"{text[:40]}... ({len(text)} characters)"


# Overloads and their valid calls


class Overload:
    """An overload: its schema and the function that calls it.

    Args:
        schema: its schema.
        guarded: call it as graphs do, behind its guards; one that graphs cannot call has no
            function then.
    """

    def __init__(self, schema: Any, guarded: bool) -> None:
        self.schema = schema
        self.name = f"{schema.name}.{schema.overload_name}".rstrip(".")
        found = torch._C._get_operation_overload(schema.name, schema.overload_name)
        self.call = found[0] if found else None
        if guarded:
            allowed = operators.is_allowed(schema.name)
            operator = (operators if allowed else remote).resolve(self.name)
            self.call = (
                operator.function
                if operator is not None and operator.positional is not None
                else None
            )
        self.guarded = guarded
        self.tags = found[2] if found else []
        self.pointwise = torch.Tag.pointwise in self.tags
        self.arguments = [(a.name, str(a.real_type), a.kwarg_only) for a in schema.arguments]

    def run(self, values: list[Any]) -> Any:
        """Return the result of a call with the values in the schema's order."""
        split = len([1 for _, _, by_name in self.arguments if not by_name])
        named = {
            name: value
            for (name, _, by_name), value in zip(self.arguments, values, strict=True)
            if by_name
        }
        return self.call(*values[:split], **named)


def overloads(names: list[str], guarded: bool) -> list[Overload]:
    """Return the overloads to audit, of all allowed operators or of those named, allowed or not."""
    left_out = re.compile(r"\bDimname\b|Stream|Storage|__torch__|AnyEnum|\.\.\.")
    found = []
    for schema in torch._C._jit_get_all_schemas():
        listed = operators.is_allowed(schema.name) or remote.is_allowed(schema.name)
        if schema.name not in names if names else not listed:
            continue
        if left_out.search(str(schema)) or any(a.is_out for a in schema.arguments):
            continue
        overload = Overload(schema, guarded)
        if overload.call:
            found.append(overload)
    # Those that take no tensor say least, and come last.
    return sorted(
        {o.name: o for o in found}.values(),
        key=lambda o: ("Tensor" not in str(o.schema), o.pointwise, o.name),
    )


class Recorder(TorchDispatchMode):
    """Notes the arguments of each operator that runs."""

    def __init__(self, calls: dict[str, list[tuple[Any, Any]]]) -> None:
        super().__init__()
        self.calls = calls

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema = func._schema
        kept = self.calls.setdefault(f"{schema.name}.{schema.overload_name}".rstrip("."), [])
        if len(kept) < 8:
            kept.append((args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def torch_samples() -> dict[str, list[tuple[Any, Any]]]:
    """Return calls of torch's own test samples, by overload where they were seen to run, else by
    operator."""
    # The module of the samples asks for a test helper that the samples do not need.
    sys.modules.setdefault("expecttest", types.SimpleNamespace(TestCase=object))  # type: ignore[arg-type]
    from torch.testing._internal.common_methods_invocations import op_db

    calls: dict[str, list[tuple[Any, Any]]] = {}
    for info in op_db:
        for dtype in (torch.float32, torch.int64):
            if dtype not in info.dtypes:
                continue
            try:
                samples = [
                    s for s, _ in zip(info.sample_inputs("cpu", dtype), range(6), strict=False)
                ]
            except Exception:
                continue
            for sample in samples:
                kept = calls.setdefault(f"aten::{info.aten_name or info.name.split('.')[-1]}", [])
                if len(kept) < 12:
                    kept.append(((sample.input, *sample.args), dict(sample.kwargs)))
                try:
                    with Recorder(calls), torch.no_grad():
                        info.op(sample.input, *sample.args, **sample.kwargs)
                except Exception:
                    continue
    return calls


def plain_values() -> list[Callable[[str, str], Any]]:
    """Return makers of arguments from names and types, for operators without samples."""
    torch.manual_seed(0)
    tensors = [
        torch.randn(3, 4), torch.rand(4), torch.randn(4, 4), torch.randn(2, 3, 8, 8),
        torch.randn(2, 3, 8), torch.randn(2, 3, 6, 6, 6), torch.tensor([2, 0, 1]),
        torch.tensor(1.5), torch.randn(3, 4) > 0, torch.randn(4, 4, dtype=torch.complex64),
        torch.tensor([[0, 1], [1, 0]]),
    ]  # fmt: skip

    def maker(tensor: torch.Tensor, number: int) -> Callable[[str, str], Any]:
        def make(name: str, kind: str) -> Any:
            if kind.startswith("Optional") and name not in ("dim",):
                return None
            inner = kind.removeprefix("Optional[")
            if inner.startswith("List["):
                length = tensor.dim() if name in ("size", "shape", "dims") else 2
                return [make(name, inner[5:])] * length
            values: dict[str, Any] = {
                "Tensor": tensor, "ScalarType": torch.float32, "bool": False, "complex": 1j,
                "str": "mean", "float": 0.5, "Device": torch.device("cpu"),
                "MemoryFormat": torch.contiguous_format, "Layout": torch.strided,
            }  # fmt: skip
            return next((value for word, value in values.items() if inner.startswith(word)), number)

        return make

    return [maker(tensor, number) for tensor in tensors for number in (1, 0, 2)]


def bind(overload: Overload, args: Any, kwargs: Any) -> list[Any] | None:
    """Return a call's values in the schema's order, with defaults; None if the call is of another
    overload."""
    values, args, kwargs = [], list(args), dict(kwargs)
    for argument, (name, _, _) in zip(overload.schema.arguments, overload.arguments, strict=True):
        if args and name not in kwargs:
            values.append(args.pop(0))
        elif name in kwargs:
            values.append(kwargs.pop(name))
        elif argument.has_default_value():
            values.append(argument.default_value)
        elif str(argument.type).startswith("Optional"):
            values.append(None)
        else:
            return None
    return None if args or kwargs else values


def candidates(overload: Overload, known: dict[str, list[tuple[Any, Any]]]) -> list[list[Any]]:
    """Return calls of an overload that may be valid, the best first."""
    name = overload.schema.name
    found = []
    own = [(args, {}) for args in SAMPLES.get(name, [])]
    for args, kwargs in own + known.get(overload.name, []) + known.get(name, []) + (
        known.get(name.rstrip("_"), []) + [(args, {}) for args in SAMPLES.get(name.rstrip("_"), [])]
        if name.endswith("_") and not name.endswith("__") else []
    ):  # fmt: skip
        values = bind(overload, args, kwargs)
        if values is not None:
            found.append(values)
    for make in plain_values():
        found.append([make(argument, kind) for argument, kind, _ in overload.arguments])
    return [
        values for values in found
        if sum(t.numel() for t in tensors_of(values)) < 200_000
    ]  # fmt: skip


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in a value."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_of(item)


# Running


class Guard:
    """The malloc of guarded_malloc.c, in the process that runs on it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        for name in ("largest", "peak", "underflows"):
            getattr(self._library, f"guard_{name}").restype = ctypes.c_uint64

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, f"guard_{name}")


def refuse(overload: Overload, values: list[Any]) -> None:
    """Leave a case that no graph can be: a model with tensors of other dtypes is refused when it
    arrives."""
    if overload.guarded and not all(
        t.dtype in DTYPES.values() and not t.is_meta for t in tensors_of(values)
    ):
        raise Leave


def with_gradients(value: Any, in_place: bool, copies: dict[int, torch.Tensor]) -> Any:
    """Return a value whose floating-point tensors ask for gradients.

    What changes in place must not be a leaf; a tensor that is there twice has one copy.
    """
    if isinstance(value, list | tuple):
        return [with_gradients(item, in_place, copies) for item in value]
    if isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex()):
        if id(value) not in copies:
            value.requires_grad_()
            copies[id(value)] = value.clone() if in_place else value
        return copies[id(value)]
    return value


def back(ends: list[torch.Tensor], form: int) -> None:
    """Go back from results, with gradients of one of three forms."""
    if form == 0:
        torch.autograd.backward(ends, [torch.ones_like(t) for t in ends])
    elif form == 1:  # expanded ones
        sum((t.sum() for t in ends), torch.zeros(())).abs().backward()
    else:  # with gaps, and one that is not finite
        given = []
        for t in ends:
            grad = torch.stack([torch.ones_like(t), torch.zeros_like(t)], -1)[..., 0]
            grad[(-1,) * t.dim()] = float("nan") if t.numel() else 0
            given.append(grad)
        torch.autograd.backward(ends, given)


def run_once(
    overload: Overload, values: list[Any], gradients: bool, form: int
) -> tuple[list[Any], list[Any]]:
    """Return the results of a call, and those together with the gradients."""
    in_place = overload.schema.name.endswith("_")
    leaves = list(tensors_of(values))
    if gradients:
        values = with_gradients(values, in_place, {})
    with torch.set_grad_enabled(gradients):
        result = overload.run(values)
        results = list(result) if isinstance(result, list | tuple) else [result]
        everything = list(results)
        if gradients:
            ends = [t for t in tensors_of(results) if t.requires_grad and t.numel() < MANY]
            if ends:
                back(ends, form)
            everything += [leaf.grad for leaf in leaves]
    return results, everything


def image(value: Any) -> Any:
    """Return what can be compared to the bit."""
    if isinstance(value, list | tuple):
        return [image(item) for item in value]
    if not isinstance(value, torch.Tensor):
        return repr(value)
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_nested:
        return f"kind {value.layout} {value.device} {value.dtype}"
    if value.numel() > MANY:
        return f"view {value.numel()}"
    value = value.detach().resolve_conj().resolve_neg().contiguous()
    return (
        str(value.dtype),
        tuple(value.shape),
        value.reshape(-1).view(torch.uint8).numpy().tobytes(),
    )


def examine(
    guard: Guard,
    overload: Overload,
    case: Callable[[], list[Any]],
    gradients: bool,
    form: int,
) -> dict[str, str]:
    """Return what is wrong with a case: the kind of finding -> what was observed.

    Runs in a child.
    """
    images, found = [], {}
    for level, byte in zip((2, 1), BYTES, strict=True):
        guard.fill(byte)
        torch.manual_seed(0)
        guard.arm(1)
        try:
            values = linked(exact(case()))
            refuse(overload, values)
            guard.arm(level)
            guard.reset()
            started = time.process_time()
            try:
                results, everything = run_once(overload, values, gradients, form)
            finally:
                took = time.process_time() - started
                if took > SLOW:
                    found["unbounded"] = f"{took:.1f} s"
                if guard.largest() > LARGE:
                    found["unbounded"] = f"asked for {guard.largest():.2e} bytes"
                elif guard.peak() > LARGE:
                    found["unbounded"] = f"held {guard.peak():.2e} bytes"
            guard.arm(1)
            seen = image(everything)
            del results, everything, values
        except Leave:
            return {}
        except MemoryError:
            return found
        except Exception as error:
            seen = f"error {type(error).__name__}"
            found.setdefault("error", str(error)[:80])
        finally:
            guard.arm(0)
        if guard.underflows():
            found["write"] = "in front of a block"
        images.append(seen)
        text = str(seen)[:2000]
        for kind in ("view", "kind"):
            if f"'{kind} " in text:
                found[kind] = text[text.index(kind) : text.index(kind) + 60].split("'")[0]
        if level == 2 and found.get("error") and "write" not in found:
            return found  # an error does not show memory
    if images[0] != images[1]:
        found["leak"] = difference(*images)
    return found


def difference(first: Any, second: Any) -> str:
    """Return where two images differ."""
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            if a != b:
                return f"result {i}: {difference(a, b)}"
    if isinstance(first, tuple) and isinstance(second, tuple) and first[:2] == second[:2]:
        size = getattr(torch, first[0][6:]).itemsize
        places = [i for i in range(len(first[2])) if first[2][i] != second[2][i]]
        raw = all(first[2][i] == BYTES[0] and second[2][i] == BYTES[1] for i in places)
        count = len({p // size for p in places})
        return f"{first[0][6:]}{list(first[1])}, {count} elements{', raw' if raw else ''}"
    return f"{str(first)[:60]} against {str(second)[:60]}"


def hidden(overload: Overload, values: list[Any]) -> dict[str, str]:
    """Return which result shares memory with an argument without its version counter, or which
    argument changes without it."""
    values = exact(values)
    given = [t for t in tensors_of(values) if t.layout == torch.strided]
    before = [(t._version, t.shape, image(t)) for t in given]
    with torch.no_grad():
        result = overload.run(values)
        for t, (version, shape, content) in zip(given, before, strict=True):
            turns = torch.Tag.inplace_view in overload.tags
            if (t.shape != shape and not turns) or (image(t) != content and t._version == version):
                return {"unnoticed": f"argument of {list(shape)}, now of {list(t.shape)}"}
        for number, out in enumerate(
            tensors_of(list(result) if isinstance(result, list | tuple) else [result])
        ):
            for t in given:
                if out is t or out.layout != torch.strided or out.is_meta or not out.numel():
                    continue
                if out.untyped_storage().data_ptr() == t.untyped_storage().data_ptr():
                    version = t._version
                    out.zero_()
                    if t._version == version:
                        return {"alias": f"result {number} of {list(out.shape)}"}
    return {}


HOSTILE = {"float": (float("nan"), 1e30, -1e18), "int": (2**31 - 1, -1, 2**62, -(2**63), 100)}


def overwritten(guard: Guard, overload: Overload, base: list[Any]) -> dict[str, str]:
    """Return what is wrong when one argument or result is overwritten before the backward pass.

    Runs in a child.
    """
    guard.fill(BYTES[0])

    def forward(which: int, value: float) -> tuple[int, list[Any]]:
        torch.manual_seed(0)
        guard.arm(1)
        values = exact(base)
        refuse(overload, values)
        leaves = [t for t in tensors_of(values) if t.is_floating_point() or t.is_complex()]
        values = with_gradients(values, overload.schema.name.endswith("_"), {})
        results = list(tensors_of([overload.run(values)]))
        given = list(tensors_of(values))
        ends = [t for t in results if t.requires_grad and t.numel() < MANY]
        everything = given + results
        if 0 <= which < len(everything):
            target = everything[which].detach()
            with torch.no_grad():
                target.fill_(min(value, 2 ** (8 * target.element_size() - 2)))
        if ends:
            # What a result holds must not decide here: ends are overwritten, too.
            torch.autograd.backward(ends, [torch.ones_like(t) for t in ends])
        return len(everything), [image(leaf.grad) for leaf in leaves if leaf.grad is not None]

    try:
        count, expected = forward(-1, 0)
    except Exception:
        guard.arm(0)
        return {}
    for which in range(min(count, 12)):
        for value in (*HOSTILE["int"], *HOSTILE["float"]):
            try:
                _, found = forward(which, value)
            except Exception:
                continue  # the counter, or the value does not fit
            finally:
                guard.arm(0)
            if found != expected and expected:
                return {"unnoticed": f"tensor {which} overwritten by {value}"}
    return {}


class Child:
    """A forked process that works through numbered cases and tells about each."""

    def __init__(self, work: Callable[[int], object], numbers: list[int], guard: Guard) -> None:
        read, write = os.pipe()
        self.crash = tempfile.TemporaryFile()  # noqa: SIM115
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                guard.report(self.crash.fileno())
                with os.fdopen(write, "w", buffering=1) as told:
                    for number in numbers:
                        told.write(json.dumps([number, "started"]) + "\n")
                        # ends the process, in the middle of a kernel too
                        signal.setitimer(signal.ITIMER_PROF, TIMEOUT)
                        told.write(json.dumps([number, work(number)]) + "\n")
            finally:
                os._exit(0)
        os.close(write)
        self._read = os.fdopen(read, "rb", buffering=0)

    def messages(self) -> Iterator[tuple[int, object]]:
        """Yield what the child tells; the last may be ("timeout") or ("signal N ...") of a case
        that did not end."""
        rest, current = b"", -1
        while True:
            ready, _, _ = select.select([self._read], [], [], 10 * TIMEOUT)
            chunk = self._read.read(1 << 16) if ready else None
            if not ready:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self._read.close()
                yield current, "timeout"
                return
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                number, what = json.loads(line)
                current = number
                if what != "started":
                    yield number, what
                    current = -1
        _, status = os.waitpid(self.pid, 0)
        self._read.close()
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
            yield current, "timeout"
        elif os.WIFSIGNALED(status) or current >= 0:
            self.crash.seek(0)
            yield (
                current,
                crash_text(self.crash.read().decode(errors="replace"))
                or f"signal, status {status}",
            )


def crash_text(report: str) -> str:
    """Return the signal and the innermost named functions of torch."""
    lines = report.splitlines()
    if not lines:
        return ""
    names = re.findall(r"\((_Z\w+|[a-z_]\w+)\+0x", "\n".join(lines[1:]))
    names = [n for n in names if not n.startswith(("guard_", "gsignal", "abort", "raise"))][:6]
    plain = (
        subprocess.run(["c++filt", *names], capture_output=True, text=True).stdout.split("\n")
        if names
        else []
    )
    short = [
        re.sub(r"\(.*|<.*", "", name)
        for name in plain
        if name and not name.startswith(("_Py", "Py"))
    ]
    where = dict.fromkeys(short) or re.findall(r"([^/]+\.so[.\d]*\(\+0x\w+)\)", report)[2:4]
    return f"{lines[0].split(' at ')[0]} in {' < '.join(where)}"


def audit(
    overload: Overload, known: dict[str, list[tuple[Any, Any]]], guard: Guard, count: int, seed: int
) -> dict[str, Any]:
    """Return the verdict on an overload."""
    tries = candidates(overload, known)

    def is_valid(number: int) -> object:
        try:
            guard.fill(BYTES[0])
            guard.arm(1)
            values = exact(tries[number])
            refuse(overload, values)
            overload.run(values)
            guard.arm(0)
            return "yes"
        except Exception as error:
            return f"{type(error).__name__}: {error}"[:150]

    found: dict[str, dict[str, Any]] = {}
    valid, why = [], ""
    left = list(range(len(tries)))
    while left and len(valid) < 40:
        for number, answer in Child(is_valid, left, guard).messages():
            left = [n for n in left if n > number]
            if answer == "yes":
                valid.append(number)
            else:
                why = why or str(answer)
                if str(answer).startswith(("signal", "timeout")):
                    kind = "crash" if str(answer).startswith("signal") else "unbounded"
                    note(found, kind, str(answer), overload, tries[number], False)
    shapes: dict[str, list[Any]] = {}
    for number in valid:
        shapes.setdefault(described(tries[number]), tries[number])
    bases = list(shapes.values())[:4] or tries[:3]
    cases: list[tuple[list[Any], list[tuple[int, Mutation]]]] = [(base, []) for base in bases]
    chooser = random.Random(f"{seed} {overload.name}")
    plain = overload.pointwise or "Tensor" not in str(overload.schema)
    budget = count // 3 if plain else count
    singles, doubles = [], []
    for base in bases:
        options = [
            [(i, m) for m in mutations(value, overload.arguments[i][1])]
            for i, value in enumerate(base)
        ]
        singles += [(base, [one]) for choices in options for one in choices]
        full = [choices for choices in options if choices]
        for _ in range(budget):
            if len(full) > 1:
                doubles.append((base, [chooser.choice(c) for c in chooser.sample(full, 2)]))
    chooser.shuffle(singles)
    cases += singles[: budget * 2 // 3 + (0 if doubles else budget)] + doubles[: budget // 3]

    if overload.schema.name.endswith("_"):
        for base in bases:
            tensors = [i for i, value in enumerate(base) if isinstance(value, torch.Tensor)]
            same = [(i, ("value", Same(0, turned))) for i in tensors for turned in (False, True)]
            cases += [(base, [one]) for one in same if one[0] > 0 and 0 in tensors]

    def build(number: int) -> list[Any]:
        base, changes = cases[number // 2]
        values = list(base)
        for index, mutation in changes:
            values[index] = mutate(values[index], mutation)
        return values

    def work(number: int) -> object:
        gradients = bool(number % 2)
        base = cases[number // 2][0]
        if gradients and not any(t.is_floating_point() or t.is_complex() for t in tensors_of(base)):
            return {}
        if number < 2 * len(bases) and valid:
            if gradients:
                found = overwritten(guard, overload, build(number))
            else:
                found = hidden(overload, build(number))
            if found:
                return found
        return examine(guard, overload, lambda: build(number), gradients, number // 2 % 3)

    left, deaths = list(range(2 * len(cases))), 0
    while left and deaths < FINDINGS:
        for number, answer in Child(work, left, guard).messages():
            left = [n for n in left if n > number]
            if number < 0:
                continue
            if isinstance(answer, str):
                deaths += 1
                answer = {"unbounded": "timeout"} if answer == "timeout" else {"crash": answer}
            for kind, observed in dict(answer).items():  # type: ignore[call-overload]
                if kind != "error":
                    note(found, kind, observed, overload, build(number), bool(number % 2))
    if not valid:
        found["invalid"] = {"observed": why, "times": 1}
    order = ("crash", "write", "leak", "unnoticed", "unbounded", "view", "kind", "alias", "invalid")
    verdict = next((kind for kind in order if kind in found), "safe")
    return {
        "schema": str(overload.schema),
        "verdict": verdict,
        "valid": len(valid),
        "cases": len(cases),
        **found,
    }


def note(
    found: dict[str, dict[str, Any]],
    kind: str,
    observed: str,
    overload: Overload,
    values: list[Any],
    backward: bool,
) -> None:
    """Keep a finding: up to four different observations of a kind, each with its first example."""
    entry = found.setdefault(kind, {"times": 0, "examples": {}})
    entry["times"] += 1
    key = re.sub(r"[\d.]+e\+\d+|\d+\.\d s", "N", observed)
    if len(entry["examples"]) < 4 and key not in entry["examples"]:
        call = ", ".join(
            f"{name}={described(value)}"
            for (name, _, _), value in zip(overload.arguments, values, strict=True)
        )
        entry["examples"][key] = {"observed": observed, "call": call, "backward": backward}


def main() -> None:
    """Audit the operators named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="operators without overload, such as aten::conv2d"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("operator_audit.json"), help="where the table goes"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument(
        "--unguarded", action="store_true", help="call torch's own operators, without guards"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="leave out torch's own samples, which take 20 s to make",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed tries other combinations")
    parser.add_argument("--cases", type=int, default=150, help="hostile calls an overload, at most")
    options = parser.parse_args()
    if "LD_PRELOAD" not in os.environ:
        source = Path(__file__).with_name("guarded_malloc.c")
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder, "guarded_malloc.so")
            subprocess.run(
                ["cc", "-shared", "-fPIC", "-O1", "-fno-builtin", "-o", library, source], check=True
            )
            command = [sys.executable, "-m", "tests.e2e.audit_operators", *sys.argv[1:]]
            raise SystemExit(
                subprocess.run(command, env={**os.environ, "LD_PRELOAD": str(library)}).returncode
            )
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    guard = Guard()
    # Lower bounds than a worker's, so that what passes them takes no time here and is seen.
    sizes.max_result_bytes.set(LARGE // 8)
    sizes.MAX_WORK = 1 << 26
    todo = overloads(options.names, guarded=not options.unguarded)
    known = {} if options.quick else torch_samples()
    lines = options.out.with_suffix(".lines")
    lines.unlink(missing_ok=True)
    jobs = []
    for share in range(options.jobs):
        pid = os.fork()
        if pid == 0:
            # One write to a file opened for appending is not mixed with those of the other jobs.
            with open(lines, "ab", buffering=0) as kept:
                for overload in todo[share :: options.jobs]:
                    verdict = audit(overload, known, guard, options.cases, options.seed)
                    kept.write(json.dumps([overload.name, verdict]).encode() + b"\n")
                    print(overload.name, verdict["verdict"], flush=True)
            os._exit(0)
        jobs.append(pid)
    failed = sum(os.waitpid(pid, 0)[1] != 0 for pid in jobs)
    table = dict(sorted(json.loads(line) for line in lines.read_text().splitlines()))
    options.out.write_text(json.dumps(table, indent=1))
    lines.unlink()
    if failed or len(table) < len(todo):
        raise SystemExit(
            f"audit failed: {len(table)} of {len(todo)} overloads have a verdict; see the "
            "traceback above."
        )


if __name__ == "__main__":
    main()
