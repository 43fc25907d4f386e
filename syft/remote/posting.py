"""Operations on pointers: checked, encoded and posted, their results made at once.

torch hands each ATen operation on a PointerTensor to `apply`, with composite operations (linear,
cross_entropy, ...) taken apart. It checks that all tensors are at one place, infers the geometry of
the results, and posts the operation with new ids for them.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves

from syft.exceptions import TensorsNotCollocatedException
from syft.graph.guards import contiguous
from syft.graph.kinds import NUMBERS
from syft.objects import registry
from syft.remote import shapes
from syft.remote.schemas import INDICES, Operation, operation_of
from syft.remote.shapes import Geometry, geometry_of
from syft.remote.stream import Stream
from syft.remote.tensor import (
    CPU,
    NO_LEAVES,
    Cell,
    Leaf,
    PointerTensor,
    check_together,
    name_of_place,
    new_pointer,
    place_of,
)


class _Call:
    """One operation on its way to the wire.

    Attributes:
        arguments: the operation's arguments.
        key: what the geometry of its results depends on.
        leaves: the leaves that its arguments depend on.
        location: the worker.
        stream: the way there.
    """

    __slots__ = ("arguments", "key", "leaves", "location", "operation", "stream")

    def __init__(self, operation: Operation, arguments: Any) -> None:
        self.operation = operation
        self.arguments = arguments
        self.key: list[Any] = [operation]
        self.leaves = NO_LEAVES
        self.location: Any = None
        self.stream: Any = None

    def all_encoded(self, named: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments, and those by name, as they travel."""
        operation = self.operation
        arguments = list(
            map(self.encoded, self.arguments, operation.computes_with, operation.takes_local)
        )
        keywords = {}
        for name, value in named.items():
            self.key.append(name)
            encoded = self.encoded(value, takes_local=name in INDICES)
            if encoded is not None:
                keywords[name] = encoded
        return arguments, keywords

    def encoded(self, value: Any, computes_with: bool = False, takes_local: bool = False) -> Any:
        """Return an argument as it travels."""
        kind = type(value)
        if kind is PointerTensor:
            if self.stream is not value._stream:
                if self.stream is not None and not self._is_at_place_of(value):
                    raise self.apart()
                self.location, self.stream = value.location, value._stream
            leaves = value._cell.leaves
            if leaves is not self.leaves and leaves:
                self.leaves = self.leaves | leaves if self.leaves else leaves
            self.key.append(value._geometry)
            return value._reference
        if kind is int or kind is float:
            self.key.append(kind if computes_with or kind is float else value)
            return value
        if value is None or kind is bool or kind is str:
            self.key.append(value)
            return value
        if isinstance(value, (list, tuple)):
            self.key.append(len(value))
            return [self.encoded(each, takes_local=takes_local) for each in value]
        return self._encoded_other(value, takes_local)

    def _encoded_other(self, value: Any, takes_local: bool) -> Any:
        name = self.operation.name
        if isinstance(value, torch.Tensor):
            is_exact = not (value.is_floating_point() or value.is_complex())
            if value.requires_grad or (value.dim() and not (takes_local and is_exact)):
                raise self.apart(str(registry.local_worker.id))
            self.key.append(geometry_of(value))
            return value.clone()  # it is sent later, and the program may change it
        if isinstance(value, torch.dtype):
            self.key.append(value)
            return NUMBERS[value]
        if isinstance(value, torch.memory_format):
            self.key.append(value)
            return _MEMORY_FORMATS[value]
        if value == CPU or value is torch.strided:  # what it would be anyway
            return None
        if isinstance(value, (torch.device, torch.layout)):
            raise ValueError(
                f"{name}: {value} is asked for; a remote tensor is strided, and stays on the "
                "device of its worker. Leave that argument out."
            )
        if isinstance(value, torch.Generator):
            raise ValueError(
                f"{name}: a generator is passed; the worker has its own, seeded from torch's "
                "generator here. Call torch.manual_seed(...), and leave the generator out."
            )
        raise TypeError(
            f"{name}: an argument is a {type(value).__name__}; expected tensors and plain values."
        )

    def _is_at_place_of(self, value: PointerTensor) -> bool:
        beyond = self.stream.beyond == value._stream.beyond
        return beyond and self.location is value.location

    def apart(self, *here: str) -> TensorsNotCollocatedException:
        """Return the error for tensors of this process or of two workers."""
        leaves = tree_leaves(self.arguments)
        there = {
            name_of_place(place_of(each)) for each in leaves if isinstance(each, PointerTensor)
        }
        return TensorsNotCollocatedException(self.operation.name, sorted(there | set(here)))


_MEMORY_FORMATS = {
    torch.contiguous_format: 0,
    torch.preserve_format: 1,
    torch.channels_last: 2,
    torch.channels_last_3d: 3,
}


def apply(func: Any, args: Any, kwargs: dict[str, Any], is_random: bool | None = None) -> Any:
    """Post an operation; return pointers to its results.

    Args:
        func: torch's operation.
        args: its arguments.
        kwargs: its arguments by name.
        is_random: whether it draws random numbers; None: as torch says.
    """
    operation = operation_of(func)
    if operation.view is not None:
        return _turn(operation, args, kwargs)
    if operation.name == "aten::bernoulli_.float":
        return _drawn_here(operation, *args, **kwargs)
    if operation.plain is not None and "out" in kwargs:
        return _apply_into(operation, args, dict(kwargs))
    is_dynamic = operation.is_dynamic
    if operation.name in _INDEXING:
        args = _with_places_of_masks(args)
        is_dynamic = operation.name == "aten::index.Tensor" and any(map(_is_mask, args[1]))
    call = _Call(operation, args)
    arguments, keywords = call.all_encoded(kwargs)
    records = torch.is_grad_enabled() and not operation.is_constant
    grads = call.leaves if records else NO_LEAVES
    targets = [None if index is None else args[index] for index in operation.targets]
    for target in targets:
        if target is not None:
            _check_target(call, target, grads)

    known = _UNKNOWN if is_dynamic else _inferred(call, args, kwargs)
    several = type(known) is list or len(targets) > 1
    outputs = known if type(known) is list else [known] * max(1, len(targets))
    # What is changed in place keeps its id, and what is no tensor gets none.
    ids = [
        None if each is None or target is not None else call.stream.new_id()
        for each, target in itertools.zip_longest(outputs, targets)
    ]
    is_random = operation.is_random if is_random is None else is_random
    call.stream.post(operation.name, ids, arguments, keywords, is_random)
    if known is _UNKNOWN:
        outputs = _asked(call.stream, ids)
    made = _pointers(call, ids, outputs, targets, grads)
    return made[0] if not several else made if len(targets) < 2 else tuple(made)


def _inferred(call: _Call, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return the geometry of the results, as `shapes.inferred` does."""
    try:
        run = lambda: _on_meta(call.operation, args, kwargs)  # noqa: E731
        return shapes.inferred(tuple(call.key), run)
    except NotImplementedError:  # torch knows no way without the values
        return _UNKNOWN


def _pointers(
    call: _Call, ids: list[Any], outputs: list[Any], targets: list[Any], grads: frozenset[Leaf]
) -> list[Any]:
    """Return the results: new pointers, and the pointers that were changed in place."""
    shared = None
    if call.operation.shares and torch.is_grad_enabled():
        base = call.arguments[0]
        # A leaf's own cell is the leaf; a view of it depends on it as any other result does.
        shared = base._cell if base._leaf is None else None
    made = []
    for obj_id, each, target in itertools.zip_longest(ids, outputs, targets):
        if obj_id is None:
            made.append(target)
        else:
            cell = shared or Cell(grads if each.has_grads else NO_LEAVES)
            made.append(new_pointer(call.location, call.stream, obj_id, each, cell))
    for target in targets:
        if target is not None and grads:
            target._cell.leaves |= grads
    return made


def _turn(operation: Operation, args: Any, kwargs: dict[str, Any]) -> Any:
    """Change the shape of a pointer in place; return it.

    The worker makes a view, and the pointer then points to that.
    """
    pointer = args[0]
    if pointer._leaf is not None:
        raise RuntimeError(f"{operation.name}: a leaf that requires gradients is changed in place.")
    view = apply(operation.view, args, kwargs)
    with no_dispatch():  # what C++ knows of the shape
        operation.func(*args, **kwargs)
    for name in ("id_at_location", "_reference", "_geometry"):
        there, here = getattr(view, name), getattr(pointer, name)
        setattr(pointer, name, there)
        setattr(view, name, here)
    view.garbage_collect_data, pointer.garbage_collect_data = pointer.garbage_collect_data, True
    return pointer


def _drawn_here(
    operation: Operation, pointer: Any, p: float = 0.5, generator: torch.Generator | None = None
) -> Any:
    """Fill a pointer with zeros and ones that this process draws; return it.

    So dropout has the mask that it would have here, and the worker cannot choose it. A byte an
    element travels for that.
    """
    call = _Call(operation, [pointer])
    call.encoded(pointer)
    _check_target(call, pointer, NO_LEAVES)
    about = pointer._geometry
    drawn = torch.empty_strided(about.shape, about.stride, dtype=about.dtype)
    drawn.bernoulli_(p, generator=generator)
    call.stream.post("aten::copy_", [None], [pointer._reference, drawn.bool()])
    return pointer


def _apply_into(operation: Operation, args: Any, kwargs: dict[str, Any]) -> Any:
    """Post an operation that writes its result into `out=`; return that tensor."""
    out = kwargs.pop("out")
    tensors = [each for each in args if isinstance(each, torch.Tensor)]
    check_together(operation.name, [out, *tensors])
    result = apply(operation.plain, args, kwargs)
    if result.shape != out.shape:
        raise RuntimeError(
            f"{operation.name}: the result has shape {tuple(result.shape)}, and out "
            f"{tuple(out.shape)}; a remote tensor cannot be resized. Leave `out` away."
        )
    return apply(torch.ops.aten.copy_.default, (out, result), {})


_UNKNOWN = object()
_INDEXING = frozenset({"aten::index.Tensor", "aten::index_put", "aten::index_put_"})


def _asked(stream: Stream, ids: list[int | None]) -> list[Geometry | None]:
    """Ask the worker for the geometry of results: a round trip."""
    answers = iter(stream.geometries([obj_id for obj_id in ids if obj_id is not None]))
    return [None if obj_id is None else next(answers) for obj_id in ids]


def _on_meta(operation: Operation, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on tensors without memory, as the worker runs it."""
    named = {name: _without_memory(value) for name, value in kwargs.items()}
    values = list(map(_without_memory, args))
    if operation.reads is not None:  # torch reads these values in any case
        values[operation.reads] = args[operation.reads]
    if operation.takes_contiguous:
        values = contiguous(values)
    return operation.func(*values, **named)


def _without_memory(value: Any) -> Any:
    if type(value) is PointerTensor:
        return value._geometry.without_memory()
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    if isinstance(value, (list, tuple)):
        return [_without_memory(each) for each in value]
    return torch.device("meta") if isinstance(value, torch.device) else value


def _is_mask(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in (torch.bool, torch.uint8)


def _with_places_of_masks(args: Any) -> list[Any]:
    """Return the arguments of indexing with the masks of this process as lists of places.

    How many elements they choose is then known here.
    """
    indices: list[Any] = []
    for index in args[1]:
        if _is_mask(index) and type(index) is not PointerTensor:
            indices += index.nonzero(as_tuple=True)
        else:
            indices.append(index)
    return [args[0], indices, *args[2:]]


def _check_target(call: _Call, target: Any, grads: frozenset[Leaf]) -> None:
    """Check what an operation changes in place."""
    if type(target) is not PointerTensor:
        raise call.apart(str(registry.local_worker.id))
    if target._leaf is not None and torch.is_grad_enabled():
        raise RuntimeError(
            f"{call.operation.name}: a leaf that requires gradients is changed in place. Do it "
            "within torch.no_grad()."
        )


PointerTensor._apply = staticmethod(apply)
