"""TorchHook: the names that PySyft 0.2 added to torch, without changing any that torch has."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from syft.frameworks.torch.fl.dataset import dataset_federate
from syft.generic.absent import MODEL_METHODS, TENSOR_METHODS, AbsentAttribute, absent_method
from syft.objects import ID_PROVIDER, ObjectId, registry
from syft.remote import modules
from syft.remote.multi import MultiPointerTensor
from syft.remote.shapes import geometry_of
from syft.remote.tensor import PointerTensor, become


class TorchHook:
    """Adds PySyft 0.2's names to torch. Existing functions and methods of torch stay as they are.

    Added are `torch.native_<name>` for the functions of torch, torch.nn.functional and torch.Tensor
    (the same functions; PySyft kept torch's originals under these names); on tensors `send`,
    `send_`, `get_`, `copy`, `create_pointer`, `combine`, `tag`, `describe`, `id`, `owner` and
    `location`; on torch.nn.Module `send`, `get`, `move`, `copy` and `location`; on
    torch.utils.data.Dataset `federate`; and `torch.hook`, the last hook made. Those that PySyft
    added and that are not here, such as `fix_precision`, raise an AttributeError that says so.
    Making a second hook does no harm.

    Source: PySyft 0.2.4, `syft.TorchHook`.

    Args:
        torch: the module torch.
        local_worker: the worker that stands for this process; None: `syft.local_worker`.
        is_client: the attribute `is_client_worker` of the local worker, set by the first hook if
            `local_worker` is None. Nothing depends on it.
        verbose: accepted and ignored.
        seed: accepted and ignored.

    Attributes:
        local_worker: the worker that stands for this process, "me".
        torch: the module torch.
    """

    def __init__(
        self,
        torch: ModuleType,
        local_worker: Any = None,
        is_client: bool = True,
        verbose: bool = False,
        seed: Any = None,
    ) -> None:
        self.torch = self.framework = torch
        if local_worker is not None:
            registry.local_worker = local_worker
        elif registry.hook is None:
            registry.local_worker.is_client_worker = is_client
        self.local_worker = registry.local_worker
        registry.hook = torch.hook = self  # type: ignore[attr-defined]
        if not hasattr(torch, "native_masked_select"):
            _add_native_names()
        _add_tensor_methods()
        modules.add_methods()
        _add_absent_names()
        torch.utils.data.Dataset.federate = dataset_federate


def _add_native_names() -> None:
    torch.native_masked_select = _masked_select  # type: ignore[attr-defined]
    for namespace in (torch, torch.nn.functional, torch.Tensor):
        for name in dir(namespace):
            native = f"native_{name}"
            if not name.startswith(("_", "native_")) and not hasattr(namespace, native):
                value = getattr(namespace, name)
                if callable(value) and not isinstance(value, (type, ModuleType)):
                    setattr(namespace, native, value)


def _masked_select(input: torch.Tensor, mask: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    """Return torch.masked_select; masks of uint8 work too, as in the torch of PySyft 0.2."""
    return torch.masked_select(input, mask.bool() if mask.dtype == torch.uint8 else mask, **kwargs)


def _add_tensor_methods() -> None:
    for method in (_send, _send_, _get_, _copy, _create_pointer, _combine, _tag, _describe):
        setattr(torch.Tensor, method.__name__.removeprefix("_"), method)
    torch.Tensor.id = property(_id, _set_id)  # type: ignore[attr-defined]
    torch.Tensor.owner = property(_owner)  # type: ignore[attr-defined]
    torch.Tensor.location = None  # type: ignore[attr-defined]


def _add_absent_names() -> None:
    for name in TENSOR_METHODS.keys() - dir(torch.Tensor):
        setattr(torch.Tensor, name, AbsentAttribute(name))
    for name in set(MODEL_METHODS) - set(dir(torch.nn.Module)):
        setattr(torch.nn.Module, name, absent_method(name))


def _send(
    self: torch.Tensor, *location: Any, garbage_collect_data: bool | None = None, **kwargs: Any
) -> PointerTensor:
    """Send this tensor to a worker, and return a pointer to it.

    Its gradient, tags and description go with it.
    """
    if kwargs.pop("inplace", False):
        return _send_(self, *location)
    return registry.local_worker.send(
        self, list(location), garbage_collect_data=garbage_collect_data, **kwargs
    )


def _send_(self: torch.Tensor, *location: Any) -> PointerTensor:
    """Send this tensor to a worker; it becomes the pointer to it itself, and is returned."""
    become(self, _send(self, *location))
    return self  # type: ignore[return-value]


def _get_(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Fetch the tensor that this one points to, which becomes that tensor, and is returned."""
    if not isinstance(self, PointerTensor):
        raise ValueError(
            "get_() of a tensor that is in this process; expected a pointer, as .send(worker) "
            "makes one. Nothing is left to do."
        )
    become(self, self.get())
    return self


def _copy(self: torch.Tensor) -> torch.Tensor:
    """Return a copy of this tensor."""
    return self.clone()


def _create_pointer(
    self: torch.Tensor, location: Any = None, id_at_location: ObjectId | None = None,
    register: bool = False, owner: Any = None, ptr_id: ObjectId | None = None,
    garbage_collect_data: bool | None = None, **kwargs: Any,
) -> PointerTensor:  # fmt: skip
    """Return a pointer to a tensor of this one's shape and dtype that a worker holds already.

    Args:
        self: the tensor.
        location: the worker; None: the local one.
        id_at_location: the tensor's id there; None: this one's.
        register: accepted for PySyft 0.2 programs and ignored.
        owner: the worker that holds the pointer; None: the local one.
        ptr_id: the pointer's own id; None: a new one.
        garbage_collect_data: delete the tensor when the pointer goes. None: yes.
        **kwargs: as `register`.
    """
    return PointerTensor(
        registry.local_worker if location is None else registry.local_worker.get_worker(location),
        _id(self) if id_at_location is None else id_at_location,
        owner,
        ptr_id,
        garbage_collect_data is not False,
        geometry=geometry_of(self),
    )


def _combine(self: torch.Tensor, *pointers: PointerTensor) -> MultiPointerTensor:
    """Return this pointer and others, to other workers, as one tensor."""
    if not isinstance(self, PointerTensor):
        raise ValueError("combine() of a tensor of this process; expected pointers. Send it first.")
    return MultiPointerTensor([self, *pointers])


def _id(self: torch.Tensor) -> ObjectId:
    """The tensor's id, given at first use."""
    if self.__dict__.get("id") is None:
        self.__dict__["id"] = ID_PROVIDER.pop()
    return self.__dict__["id"]


def _set_id(self: torch.Tensor, value: ObjectId) -> None:
    self.__dict__["id"] = value


def _owner(self: torch.Tensor) -> Any:
    """The worker that holds the tensor: the local worker."""
    return self.__dict__.get("_owner") or registry.local_worker


def _tag(self: torch.Tensor, *tags: str) -> torch.Tensor:
    """Add tags to this tensor, for `search`, and return it."""
    self.tags = {*(getattr(self, "tags", None) or ()), *tags}  # type: ignore[attr-defined]
    return self


def _describe(self: torch.Tensor, description: str) -> torch.Tensor:
    """Set this tensor's description and return it."""
    self.description = description  # type: ignore[attr-defined]
    return self
