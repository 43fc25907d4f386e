"""Objects that workers hold, and pointers to them.

    coordinator                      worker
    ObjectPointer(id_at_location) -> ObjectStorage: id -> ObjectWrapper(model),
                                                          ObjectWrapper(loss), tensor, ...

An object is fetched with `pointer.get()`, which takes it off the worker, and is deleted when its
pointer goes. A pointer to a tensor is more: see syft/remote.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, Protocol

import torch

from syft.exceptions import MalformedMessage, ObjectNotFoundError

# How long an object lives on its worker:
#
# - A sent object stays until its pointer goes (`ObjectPointer.__del__`), `get()` fetches it, or the
#   session ends. A long program needs no clean-up of its own.
# - A model that the current config names stays usable without a pointer (`TrainingState.kept`).
# - Pointers from `search()` do not collect: their object is the owner's, or has a pointer already.
# - Nobody waits for a deletion. It may come late, and not at all if the connection is lost; the end
#   of the session makes up for that.

ObjectId = int | str


class IdProvider:
    """Gives out ids that are unlikely to be given out anywhere else, and never twice here.

    Args:
        given_ids: ids to give out first, the last one first.
    """

    def __init__(self, given_ids: list[ObjectId] | None = None) -> None:
        self.given_ids = given_ids if given_ids is not None else []
        # Not the global generator: seeding it in two processes must not make their ids equal.
        self._random = random.SystemRandom()

    def pop(self, *args: Any) -> ObjectId:
        """Return a new id: one of `given_ids` while there are some, else 62 random bits."""
        return self.given_ids.pop() if self.given_ids else self._random.getrandbits(62)

    def set_next_ids(self, given_ids: Iterable[ObjectId], check_ids: bool = True) -> None:
        """Set the ids that the next calls of pop() return, in reverse order.

        `check_ids` is accepted and ignored.
        """
        self.given_ids += list(given_ids)


ID_PROVIDER = IdProvider()


class ObjectWrapper:
    """Any object (in practice a model or a function) with an id, tags and a description.

    Args:
        obj: the object.
        id: its id on the worker that holds it.
        tags: words that `search` finds it by.
        description: free text.

    Attributes:
        digests: of a model on a worker with an audit log: its digests, as it was sent.
    """

    digests: dict[str, str] | None = None

    def __init__(
        self,
        obj: Any,
        id: ObjectId,
        tags: Iterable[str] | None = None,
        description: str | None = None,
    ) -> None:
        self.obj = obj
        self.id = id
        self.tags = tags
        self.description = description

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the wrapped object."""
        return self.obj(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<ObjectWrapper id:{self.id} obj:{self.obj}>"


def pack_object(obj: Any) -> dict[str, Any]:
    """Return what travels of an object, by name.

    obj          the tensor, or what the ObjectWrapper holds
    wrapped      whether it was in an ObjectWrapper
    tags         list of its tags
    description  its description, or None
    """
    # Tags are sorted so that equal objects make equal bytes; a set has another order in each
    # process.
    wrapped = isinstance(obj, ObjectWrapper)
    return {
        "obj": obj.obj if wrapped else obj,
        "wrapped": wrapped,
        "tags": sorted(getattr(obj, "tags", None) or ()),
        "description": getattr(obj, "description", None),
    }


def unpack_object(obj_id: ObjectId, packed: Mapping[str, Any]) -> Any:
    """Return the object that pack_object() took apart, under this id.

    Raises:
        MalformedMessage: `packed` is nothing of that kind.
    """
    try:
        obj, wrapped, tags, description = (
            packed[name] for name in ("obj", "wrapped", "tags", "description")
        )
    except (KeyError, TypeError, IndexError) as reason:
        raise MalformedMessage(
            f"no object: {reason!r}; expected obj, wrapped, tags and description"
        ) from None
    if not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        raise MalformedMessage(
            f"the tags of an object are of type {type(tags).__name__}; expected a list of strings"
        )
    if not isinstance(description, str | None):
        raise MalformedMessage(
            f"the description of an object is of type {type(description).__name__}; not a string"
        )
    if wrapped is True:
        return ObjectWrapper(obj, obj_id, tags, description)
    if not isinstance(obj, torch.Tensor):
        raise MalformedMessage(
            f"an object that is not wrapped is of type {type(obj).__name__}; expected a tensor"
        )
    obj.id = obj_id  # type: ignore[attr-defined]
    if tags:
        obj.tags = set(tags)  # type: ignore[attr-defined]
    if description is not None:
        obj.description = description  # type: ignore[attr-defined]
    return obj


class ObjectStorage:
    """Objects by id, safe to use from several threads."""

    def __init__(self) -> None:
        self._objects: dict[ObjectId, Any] = {}
        # Reentrant: a pointer may be garbage-collected while this thread is inside the store, and
        # its __del__ then removes an object from it (VirtualWorker).
        self._objects_lock = threading.RLock()

    def register_obj(self, obj: Any, obj_id: ObjectId | None = None) -> None:
        """Store an object under `obj_id`, or under its own id."""
        if obj_id is not None:
            obj.id = obj_id
        self.set_obj(obj)

    def de_register_obj(self, obj: Any, _recurse_torch_objs: bool = True) -> None:
        """Remove an object, if it is stored."""
        self.rm_obj(getattr(obj, "id", None))

    def set_obj(self, obj: Any) -> None:
        """Store an object under its attribute `id`; a former object of that id is replaced."""
        with self._objects_lock:
            self._objects[obj.id] = obj

    def put_obj(self, obj_id: ObjectId, obj: Any) -> None:
        """Store an object under this id; a former object of that id is replaced."""
        with self._objects_lock:
            self._objects[obj_id] = obj

    def own_obj(self, obj_id: ObjectId) -> Any:
        """Return the object with this id, or None."""
        return self._objects.get(obj_id)

    def own_objects(self) -> dict[ObjectId, Any]:
        """Return a copy of the mapping from id to object."""
        with self._objects_lock:
            return dict(self._objects)

    def offered_obj(self, obj_id: ObjectId) -> Any:
        """Return the object with this id that somebody else offers, or None."""
        return None

    def get_obj(self, obj_id: ObjectId) -> Any:
        """Return the object with this id.

        Raises:
            ObjectNotFoundError: there is none (also a KeyError).
        """
        with self._objects_lock:
            if obj_id not in self._objects:
                raise ObjectNotFoundError(str(getattr(self, "id", "")), obj_id)
            return self._objects[obj_id]

    def rm_obj(self, obj_id: ObjectId | None, force: bool = False) -> None:
        """Remove the object with this id, if there is one.

        `force` is accepted and makes no difference.
        """
        with self._objects_lock:
            self._objects.pop(obj_id, None)  # type: ignore[arg-type]

    def clear_objects(self, return_self: bool = True) -> Any:
        """Remove all objects; return the storage itself, or None."""
        with self._objects_lock:
            self._objects.clear()
        return self if return_self else None

    def current_objects(self) -> dict[ObjectId, Any]:
        """Return a copy of the mapping from id to object."""
        with self._objects_lock:
            return dict(self._objects)

    def offered_objects(self) -> dict[ObjectId, Any]:
        """Return what the owner of this store offers to others.

        These are the objects with tags that are not private.
        """
        # Not current_objects(): in a subclass these are the objects of the coordinator who asks.
        with self._objects_lock:
            own = dict(self._objects)
        return {
            key: obj
            for key, obj in own.items()
            if getattr(obj, "tags", None) and not is_private(obj)
        }

    def find_by_id(self, obj_id: ObjectId) -> Any:
        """Return the object with this id, or None."""
        return self.current_objects().get(obj_id)

    def find_by_tag(self, tag: ObjectId) -> list[Any]:
        """Return the objects that carry a tag, in the order in which they were stored."""
        return [
            obj
            for obj in self.current_objects().values()
            if tag in (getattr(obj, "tags", None) or ())
        ]

    def search_objects(self, query: ObjectId | Iterable[ObjectId]) -> list[Any]:
        """Return the objects that carry all tags of `query`, or the one whose id is in it.

        If `query` is empty, they are all objects with tags.
        """
        terms = [query] if isinstance(query, (str, int)) else list(query)
        for term in terms:
            # An id names one object, so it wins over tags.
            if (found := self.find_by_id(term)) is not None:
                return [found]
        tagged = [obj for obj in self.current_objects().values() if getattr(obj, "tags", None)]
        return [obj for obj in tagged if all(term in obj.tags for term in terms)]

    def list_objects(self, *args: Any) -> str:
        """Return the mapping from id to object, as text; of private objects the kind only."""
        return str(
            {
                key: _Hidden(obj) if is_private(obj) else obj
                for key, obj in self.current_objects().items()
            }
        )

    def objects_count(self, *args: Any) -> int:
        """Return the number of objects."""
        return len(self.current_objects())


def is_private(obj: Any) -> bool:
    """Return whether an object's owner has marked it as private."""
    return bool(getattr(obj, "private", False))


class _Hidden:
    """Stands for a private object in a list."""

    def __init__(self, obj: Any) -> None:
        self._kind = type(obj).__name__

    def __repr__(self) -> str:
        return f"<private {self._kind}>"


class Location(Protocol):
    """A worker that holds objects, as pointers and configs see it; in practice a proxy of it."""

    id: ObjectId

    def request_obj(self, obj_id: ObjectId) -> Any:
        """Fetch an object; it is not kept there."""

    async def async_request_obj(self, obj_id: ObjectId) -> Any:
        """Fetch an object as `request_obj` does, while other coroutines go on."""

    def _send_config(
        self, fields: dict[str, Any], objects: Mapping[ObjectId, ObjectWrapper], owner: Any
    ) -> list[ObjectPointer]:
        """Send a TrainConfig's settings and objects; return pointers to the objects.

        Args:
            fields: the settings.
            objects: the pointers' ids -> the objects.
            owner: the worker that holds the pointers.
        """

    def _forget(self, obj_id: ObjectId) -> None:
        """Have an object deleted, some time soon."""

    async def _in_thread(self, wait: Callable[[], Any]) -> Any:
        """Call a function that waits for the worker, while other coroutines go on."""


class ObjectPointer:
    """Stands for an object that a worker holds.

    Args:
        location: the worker that holds the object (a proxy of it).
        id_at_location: the object's id there.
        owner: the worker that holds this pointer, usually `syft.local_worker`.
        id: the pointer's own id.
        garbage_collect_data: delete the object when this pointer goes.
        tags: the object's tags.
        description: the object's description.
    """

    def __init__(
        self,
        location: Location,
        id_at_location: ObjectId,
        owner: Any = None,
        id: ObjectId | None = None,
        garbage_collect_data: bool = True,
        tags: Iterable[str] | None = None,
        description: str | None = None,
    ) -> None:
        self.location = location
        self.id_at_location = id_at_location
        self.owner = owner
        self.id = ID_PROVIDER.pop() if id is None else id
        self.garbage_collect_data = garbage_collect_data
        self.tags = set(tags or ())
        self.description = description
        self._process = os.getpid()

    def get(self, user: Any = None, reason: str = "", deregister_ptr: bool = True) -> Any:
        """Fetch the object; the worker keeps no copy.

        The arguments of PySyft 0.2 are accepted and ignored.

        Raises:
            ObjectNotFoundError: it was fetched or deleted before.
            ConnectionFailed: the worker is not reached any more.
        """
        # In this order: if it cannot be fetched, this pointer stays in charge of the object.
        obj = self.location.request_obj(self.id_at_location)
        self.garbage_collect_data = False
        return obj

    async def async_get(self) -> Any:
        """Fetch the object as `get` does, while other coroutines go on."""
        obj = await self.location.async_request_obj(self.id_at_location)
        self.garbage_collect_data = False
        return obj

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise an error: models are called where they are.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"cannot call {self!r}: it is a pointer; its object is on worker {self.location.id!r}. "
            "To call it here, call .get() first: pointer.get()(...)."
        )

    def __repr__(self) -> str:
        owner = getattr(self.owner, "id", self.owner)
        there = f"{self.location.id}:{self.id_at_location}"
        text = f"[{type(self).__name__} | {owner}:{self.id} -> {there}]"
        return text + "".join(f" {tag}" for tag in sorted(self.tags))

    def __del__(self) -> None:
        # A forked child's copies of its parent's pointers must not delete the parent's objects.
        # getattr: __init__ may have failed before the attribute was set.
        if getattr(self, "garbage_collect_data", False) and self._process == os.getpid():
            self.location._forget(self.id_at_location)


class LocalRegistry:
    """What this process knows: its local worker ("me"), its other workers, and the last hook."""

    def __init__(self) -> None:
        self.local_worker: Any = None
        self.workers: dict[ObjectId, Any] = {}
        self.hook: Any = None


registry = LocalRegistry()
