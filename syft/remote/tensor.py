"""PointerTensor: a tensor that a worker holds, for the program to compute with.

It is a torch.Tensor without memory. torch hands each ATen operation on one to `__torch_dispatch__`,
below autograd, composite operations (linear, cross_entropy, ...) taken apart; here the operation is
posted to the worker, and its result is another PointerTensor at once.

Autograd happens at the worker, where the operations run with gradients on. C++ never learns here
that a pointer requires gradients; what a program sees of autograd are Python properties over this:

    _cell    what the tensor's values depend on: the set of leaves, shared with its views, since an
             operation in place on a view changes what its base depends on
    _leaf    of a leaf that requires gradients: whether its gradient exists

A `backward` can so tell which gradients there will be, without asking the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import torch
from torch import nn

from syft import wire
from syft.exceptions import (
    InvalidReply,
    InvalidTensorForRemoteGet,
    RemoteValueNeeded,
    TensorsNotCollocatedException,
)
from syft.objects import ID_PROVIDER, ObjectId, ObjectPointer, registry
from syft.remote import shapes
from syft.remote.shapes import Geometry
from syft.remote.stream import Stream
from syft.remote.through import ThroughStream

CPU = torch.device("cpu")


class Leaf:
    """The gradient of a leaf.

    Attributes:
        reference: the leaf's, as it is packed.
        has_grad: whether it exists, at the worker.
        fetched: whether the leaf has left the worker, so that it never will.
    """

    __slots__ = ("fetched", "has_grad", "reference")

    def __init__(self, reference: Any) -> None:
        self.reference = reference
        self.has_grad = self.fetched = False


class Cell:
    """The leaves that a tensor and its views depend on."""

    __slots__ = ("leaves",)

    def __init__(self, leaves: frozenset[Leaf]) -> None:
        self.leaves = leaves


NO_LEAVES: frozenset[Leaf] = frozenset()


SPECIAL: dict[Any, Callable[..., Any]] = {}
"""Functions of torch -> what stands for them on pointers (syft/remote/whole.py)."""


class PointerTensor(ObjectPointer, torch.Tensor):
    """Stands for a tensor that a worker holds; operations on it happen there.

    Source: PySyft 0.2.4, `syft.generic.pointers.pointer_tensor.PointerTensor`, and the wrapper
    around it.

    Args:
        location: the worker that holds the tensor (a proxy of it).
        id_at_location: the tensor's id there.
        owner: the worker that holds this pointer; None: `syft.local_worker`.
        id: the pointer's own id; None: a new one.
        garbage_collect_data: delete the tensor when this pointer goes.
        tags: the tensor's tags.
        description: the tensor's description.
        geometry: its shape, strides and dtype; None: the worker is asked, which is a round trip.
        requires_grad: whether it is a leaf that requires gradients.

    Attributes:
        location: the worker, or its proxy.
        id_at_location: the tensor's id there.
    """

    # posting.py is above this module, since it makes pointers: it fills this in.
    _apply: Callable[..., Any]
    _cell: Cell
    _geometry: Geometry
    _reference: Any
    _stream: Stream
    _grad: PointerTensor | None = None
    _leaf: Leaf | None = None
    _id: ObjectId | None = None
    _owner: Any = None

    @staticmethod
    def __new__(  # noqa: D102 - the class says it
        cls, location: Any, id_at_location: ObjectId | None = None, owner: Any = None,
        id: ObjectId | None = None, garbage_collect_data: bool = True,
        tags: Iterable[str] | None = None, description: str | None = None, *,
        geometry: Geometry | None = None, requires_grad: bool = False,
    ) -> PointerTensor:  # fmt: skip
        stream = location._stream()
        if id_at_location is None:  # it points to nothing, as PySyft's may
            id_at_location, geometry = stream.new_id(), shapes.geometry((0,), (1,), torch.float)
        elif geometry is None:
            geometry = stream.geometries([id_at_location])[0]
        pointer = new_pointer(location, stream, id_at_location, geometry, Cell(NO_LEAVES))
        pointer._owner, pointer._id = owner, id
        pointer.garbage_collect_data = garbage_collect_data
        pointer.tags, pointer.description = set(tags or ()), description
        if requires_grad:
            pointer._become_leaf()
        return pointer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Everything is set in __new__: results of operations, which are many, take a shorter way.
        pass

    # What torch does with it

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        special = SPECIAL.get(func)
        if special is not None:
            return special(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return cls._apply(func, args, kwargs or {})

    # Where it is

    @property
    def id(self) -> ObjectId:
        """The pointer's own id."""
        if self._id is None:
            self._id = ID_PROVIDER.pop()
        return self._id

    @id.setter
    def id(self, value: ObjectId) -> None:
        self._id = value

    @property
    def owner(self) -> Any:
        """The worker that holds this pointer."""
        return registry.local_worker if self._owner is None else self._owner

    @owner.setter
    def owner(self, value: Any) -> None:
        self._owner = value

    def get(
        self, user: Any = None, reason: str = "", deregister_ptr: bool = True,
        get_copy: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """Fetch the tensor, with its gradient if it has one; the worker keeps no copy.

        A pointer to a pointer gives the pointer: `x.send(bob).send(alice).get().get()`.

        Args:
            user: accepted for PySyft 0.2 programs and ignored.
            reason: as `user`.
            deregister_ptr: as `user`.
            get_copy: fetch a copy, and leave the tensor with its gradient at the worker.

        Returns:
            The tensor. It requires gradients as it did there, but has no history.

        Raises:
            RemoteOperationFailed: an operation that it depends on failed at the worker.
            ObjectNotFoundError: it was fetched or deleted before.
            GetNotPermittedError: its owner has marked it, or what it was made of, as private.
            ConnectionFailed: the worker is not reached any more.
        """
        pointer = self.copy() if get_copy else self
        return pointer.taken_back() if self._stream.beyond else fetch([pointer])[0]

    async def async_get(self) -> torch.Tensor:
        """Fetch the tensor as `get` does, while other coroutines go on."""
        tensor: torch.Tensor = await self.location._in_thread(self.get)
        return tensor

    def copy(self) -> PointerTensor:
        """Return a pointer to a copy of the tensor, at the same worker."""
        return self.clone()  # type: ignore[return-value]

    def move(self, location: Any, requires_grad: bool | None = None) -> PointerTensor:
        """Have another worker hold the tensor; it travels through this process.

        Args:
            location: the other worker, or its id.
            requires_grad: whether it then requires gradients; None: as before.

        Returns:
            This pointer, which then points there.
        """
        tensor = self.get()
        if requires_grad is not None:
            tensor.requires_grad_(requires_grad)
        become(self, registry.local_worker.send(tensor, location))
        return self

    def sent_on(
        self, location: Any, owner: Any = None, id: ObjectId | None = None, collect: bool = True
    ) -> PointerTensor:
        """Return a pointer to this one, which another worker then holds (syft/remote/through.py).

        The tensor goes when the new pointer goes, no longer when this one does.
        """
        stream = ThroughStream.of(location, self.location, self._stream)
        pointer = self._elsewhere(location, stream, self.id)
        pointer._reference, pointer._owner, pointer._id = self._reference, owner, id
        stream.hold(self.id, self.id_at_location)
        self.garbage_collect_data, pointer.garbage_collect_data = False, collect
        return pointer

    def taken_back(self) -> PointerTensor:
        """Return the pointer that this one points to; the worker holds it no longer."""
        stream = self._stream
        assert isinstance(stream, ThroughStream)
        id_at_target = stream.release(self.id_at_location)
        pointer = self._elsewhere(stream.target, stream.inner, id_at_target)
        pointer._id = self.id_at_location
        self.garbage_collect_data = False
        return pointer

    def _elsewhere(self, location: Any, stream: Stream, obj_id: ObjectId) -> PointerTensor:
        """Return another pointer to what this one stands for."""
        pointer = new_pointer(location, stream, obj_id, self._geometry, self._cell)
        pointer._leaf, pointer.garbage_collect_data = self._leaf, self.garbage_collect_data
        pointer.tags, pointer.description = set(self.tags), self.description
        return pointer

    def remote_get(self) -> PointerTensor:
        """Have the worker hold the tensor instead of a pointer to it; return this pointer.

        The tensor travels through this process.

        Raises:
            InvalidTensorForRemoteGet: the worker holds the tensor itself.
        """
        if not self._stream.beyond:
            raise InvalidTensorForRemoteGet(str(self.location.id), str(self))
        location = self.location
        tensor = self.taken_back().get()
        become(self, registry.local_worker.send(tensor, location))
        return self

    def remote_send(self, location: Any) -> PointerTensor:
        """Have another worker hold the tensor, and this one a pointer to it; return one to that.

        The tensor travels through this process.
        """
        here = self.location
        return self.move(location).sent_on(here)

    @property
    def child(self) -> PointerTensor:
        """This pointer: in PySyft 0.2 it was what a wrapper held."""
        return self

    @property
    def garbage_collection(self) -> bool:
        """Whether the worker's tensor goes when this pointer goes."""
        return self.garbage_collect_data

    @garbage_collection.setter
    def garbage_collection(self, value: bool) -> None:
        self.garbage_collect_data = value

    gc = garbage_collection

    @property
    def disable_gc(self) -> PointerTensor:
        """This pointer, after it was told to leave the worker's tensor there when it goes."""
        self.garbage_collect_data = False
        return self

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return ObjectPointer.__repr__(self)

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __del__(self) -> None:
        # Written for speed: each temporary result ends here.
        if self.__dict__.get("garbage_collect_data"):
            self._stream.forget(self.id_at_location)

    def __deepcopy__(self, memo: dict[int, Any]) -> PointerTensor:
        copied = self.detach().clone()
        if self._leaf is not None:
            copied.requires_grad_()
        if getattr(self, "_is_param", False):
            copied._is_param = True
        memo[id(self)] = copied
        return copied  # type: ignore[return-value]

    # What it is

    @property
    def shape(self) -> torch.Size:  # type: ignore[override]
        """Its shape."""
        return self._geometry.shape

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """Its dtype."""
        return self._geometry.dtype

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The CPU, whatever the worker computes with."""
        return CPU

    # Gradients

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to it, or through it."""
        return bool(self._cell.leaves)

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    @property
    def is_leaf(self) -> bool:  # type: ignore[override]
        """Whether no operation made it that gradients flow through."""
        return self._leaf is not None or not self._cell.leaves

    @property
    def grad_fn(self) -> Any:  # type: ignore[override]
        """None of a leaf; of any other tensor a text, since the graph is at the worker."""
        return None if self.is_leaf else f"<the graph is at worker {self.location.id!r}>"

    @property  # type: ignore[override]
    def grad(self) -> PointerTensor | None:
        """A pointer to its gradient, or None."""
        leaf = self._leaf
        if self._grad is None and leaf is not None and leaf.has_grad:
            gradient = new_pointer(
                self.location, self._stream, self._stream.new_id(), self._geometry, Cell(NO_LEAVES)
            )
            self._post("grad", [gradient.id_at_location], [self._reference])
            self._grad = gradient
        return self._grad

    @grad.setter
    def grad(self, value: PointerTensor | None) -> None:
        if value is None:
            if self._grad is not None or (self._leaf is not None and self._leaf.has_grad):
                self._post("set_grad", [], [self._reference, None])
        else:
            check_together("grad", [self, value])
            self._post("set_grad", [], [self._reference, value._reference])
        if self._leaf is not None:
            self._leaf.has_grad = value is not None
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self.grad = None

    @property
    def data(self) -> torch.Tensor:
        """The same values without their history, as a pointer."""
        return self.detach()

    @data.setter
    def data(self, value: Any) -> None:
        check_together("data", [self, value])
        if value.shape != self.shape or value.dtype != self.dtype:
            raise ValueError(
                f"cannot replace the data of {self!r}: got {tuple(value.shape)} {value.dtype}; "
                f"expected {tuple(self.shape)} {self.dtype}. Use the other tensor itself."
            )
        self.detach().copy_(value)

    def requires_grad_(self, requires_grad: bool = True) -> PointerTensor:
        """Have gradients flow to this leaf, or not; return it.

        Raises:
            RuntimeError: it is no leaf, or has no floating point values.
        """
        if not self.is_leaf and not requires_grad:
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables. Call .detach() first."
            )
        if requires_grad and not self._geometry.has_grads:
            raise RuntimeError(
                f"only floating point tensors require gradients; {self!r} is {self.dtype}."
            )
        if self.is_leaf and requires_grad != (self._leaf is not None):
            self._post("requires_grad", [], [self._reference, requires_grad])
            if requires_grad:
                self._become_leaf()
            else:
                self._leaf, self._cell = None, Cell(NO_LEAVES)
        return self

    def detach_(self) -> PointerTensor:
        """Cut its history off; return it."""
        self._post("aten::detach_", [], [self._reference])
        self._leaf, self._cell = None, Cell(NO_LEAVES)
        return self

    def backward(
        self,
        gradient: PointerTensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Compute the gradients of the leaves that it depends on, at the worker.

        They are added to those that are there. An error at the worker is raised by the next `get`
        of what depends on it.

        Args:
            gradient: the gradient of this tensor, at the same worker; None if it has one element.
            retain_graph: keep the graph for another backward.
            create_graph: not supported.
            inputs: not supported.

        Raises:
            RuntimeError: nothing that it depends on requires gradients; it has several elements,
                and `gradient` is None; or a leaf was fetched meanwhile.
            TensorsNotCollocatedException: `gradient` is elsewhere.
            NotImplementedError: `create_graph` or `inputs` is given.
        """
        if create_graph or inputs is not None:
            raise NotImplementedError(
                "backward() of a remote tensor takes neither create_graph nor inputs: gradients "
                "of gradients are not available. Fetch the tensors with .get() and compute here."
            )
        if not self._cell.leaves:
            raise RuntimeError(
                f"backward() of {self!r}: nothing that it depends on requires gradients. Call "
                ".requires_grad_() on a leaf, or compute outside of torch.no_grad()."
            )
        if gradient is None and self.numel() != 1:
            raise RuntimeError(
                f"backward() of {self!r}: grad can be implicitly created only for scalar outputs; "
                f"its shape is {tuple(self.shape)}. Pass the gradient of this shape."
            )
        if gradient is not None:
            check_together("backward", [self, gradient])
        if any(leaf.fetched for leaf in self._cell.leaves):
            raise RuntimeError(
                f"backward() of {self!r}: a tensor that it depends on was fetched from worker "
                f"{self.location.id!r} since. Call backward() before .get()."
            )
        reference = None if gradient is None else gradient._reference
        keep = bool(retain_graph)
        leaves = [leaf.reference for leaf in self._cell.leaves]
        self._post("backward", [], [self._reference, reference, keep, leaves])
        for leaf in self._cell.leaves:
            leaf.has_grad = True

    def retain_grad(self) -> NoReturn:
        """Raise an error: only leaves have gradients here."""
        raise NotImplementedError(
            "a remote tensor that is no leaf keeps no gradient. Make it a leaf: "
            "x = y.detach().requires_grad_()."
        )

    def register_hook(self, hook: Any) -> NoReturn:
        """Raise an error: a worker calls no functions of the coordinator."""
        raise NotImplementedError(
            "a remote tensor takes no hooks: its gradients are computed at the worker. Change "
            "pointer.grad after backward()."
        )

    def _become_leaf(self) -> None:
        self._leaf = Leaf(self._reference)
        self._cell = Cell(frozenset((self._leaf,)))

    def _post(self, name: str, results: list[ObjectId], arguments: list[Any]) -> None:
        self._stream.post(name, results, arguments)


def check_together(operation: str, tensors: list[Any]) -> None:
    """Check that tensors are all remote, and at the same worker.

    Raises:
        TensorsNotCollocatedException: they are not.
    """
    here = registry.local_worker
    places = [place_of(each) if isinstance(each, PointerTensor) else (here,) for each in tensors]
    if any(place[0] is here or place != places[0] for place in places):
        raise TensorsNotCollocatedException(operation, sorted(set(map(name_of_place, places))))


def place_of(pointer: PointerTensor) -> tuple[Any, ...]:
    """Return the workers on the way to a tensor: the last one holds it."""
    return pointer.location, *pointer._stream.beyond


def name_of_place(place: tuple[Any, ...]) -> str:
    """Return such a place as text."""
    return " -> ".join(map(_worker_name, place))


def _worker_name(worker: Any) -> str:
    # A notebook's cell that makes a worker may be run twice.
    is_current = registry.workers.get(worker.id, worker) is worker
    return str(worker.id) if is_current else f"a former {worker.id}"


def _value_needed(name: str) -> Callable[..., NoReturn]:
    def refuse(self: PointerTensor, *args: Any, **kwargs: Any) -> NoReturn:
        raise RemoteValueNeeded(name)

    return refuse


_VALUE_METHODS = """
item tolist numpy data_ptr untyped_storage storage __bool__ __float__ __int__ __index__ __complex__
__array__ __reduce_ex__ __dlpack__ __dlpack_device__
"""
for _name in _VALUE_METHODS.split():
    setattr(PointerTensor, _name, _value_needed(_name))


def new_pointer(
    location: Any, stream: Stream, obj_id: ObjectId, geometry: Geometry, cell: Cell
) -> PointerTensor:
    """Return a pointer to the result of an operation: in less time than the constructor takes."""
    pointer = torch.Tensor._make_wrapper_subclass(
        PointerTensor, geometry.shape, strides=geometry.stride, dtype=geometry.dtype, device=CPU
    )
    pointer.location = location
    pointer.id_at_location = obj_id
    pointer.garbage_collect_data = True
    pointer.tags = set()
    pointer.description = None
    pointer._stream = stream
    pointer._geometry = geometry
    pointer._cell = cell
    pointer._reference = wire.reference(obj_id)
    return pointer


def become(tensor: torch.Tensor, other: torch.Tensor) -> None:
    """Have two tensors change places: each is then what the other was, and the same object still.

    A parameter stays one.
    """
    # torch.utils.swap_tensors() does the same, but refuses tensors that have a weak reference, and
    # optimizers' hooks may hold some.
    classes = type(tensor), type(other)
    is_parameter = isinstance(tensor, nn.Parameter)
    torch._C._swap_tensor_impl(tensor, other)
    tensor.__class__, other.__class__ = _plain(classes[1]), _plain(classes[0])
    kept, given = dict(tensor.__dict__), dict(other.__dict__)
    tensor.__dict__.clear()
    tensor.__dict__.update(given)
    other.__dict__.clear()
    other.__dict__.update(kept)
    if is_parameter:
        # nn.Parameter's own test of what is one.
        tensor._is_param = True
        if not isinstance(tensor, PointerTensor):
            tensor.__class__ = nn.Parameter
            del tensor._is_param


def _plain(cls: type) -> type:
    return torch.Tensor if cls is nn.Parameter else cls


def fetch(pointers: list[PointerTensor]) -> list[torch.Tensor]:
    """Fetch several tensors of one worker at a time, as `PointerTensor.get` does."""
    stream = pointers[0]._stream
    found = stream.take([pointer.id_at_location for pointer in pointers])
    tensors = []
    for pointer, each in zip(pointers, found, strict=True):
        tensor, gradient = each["obj"], each["grad"]
        _check_fetched(pointer, tensor)
        if gradient is not None:
            _check_fetched(pointer, gradient)
        # As it was there; what an operation made comes without its history.
        tensor.requires_grad_(pointer.requires_grad and pointer._geometry.has_grads)
        tensor.grad = gradient
        if pointer.tags:
            tensor.tags = set(pointer.tags)
        if pointer.description is not None:
            tensor.description = pointer.description
        if pointer._leaf is not None:
            pointer._leaf.fetched = True
        pointer.garbage_collect_data = False
        tensors.append(tensor)
    return tensors


def _check_fetched(pointer: PointerTensor, tensor: torch.Tensor) -> None:
    expected = pointer._geometry
    if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
        raise InvalidReply(
            str(pointer.location.id),
            f"tensor {pointer.id_at_location!r}",
            f"of shape {tuple(tensor.shape)} and {tensor.dtype}",
            f"shape {tuple(expected.shape)} and {expected.dtype}",
        )
