"""Pointers to pointers: `x.send(bob).send(alice)`.

    this process                      alice                    bob
    PointerTensor, at alice  ......>  its pointer  ........>   the tensor

Workers do not talk to each other. This process keeps alice's pointer on her behalf, so operations
take the way that they took before, to bob. A worker of this process shows the pointer among its
objects; one behind a socket does not learn of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from syft.objects import ObjectId, ObjectPointer
from syft.remote.shapes import Geometry
from syft.remote.stream import Stream


class ThroughStream(Stream):
    """The way of operations through a worker, which holds pointers, to another one.

    Args:
        location: the worker that holds the pointers.
        target: the worker that they point to.
        inner: the way there.
    """

    def __init__(self, location: Any, target: Any, inner: Stream) -> None:
        super().__init__(inner.worker)
        self.beyond = (target, *inner.beyond)
        self.target = target
        self.inner = inner
        self._location = location
        self._ids: dict[ObjectId, ObjectId] = {}

    @classmethod
    def of(cls, location: Any, target: Any, inner: Stream) -> ThroughStream:
        """Return the way through a worker: the same one each time, for tensors to be together."""
        found = inner.ways_through.get(location)
        if found is None:
            found = inner.ways_through[location] = cls(location, target, inner)
        return found

    def hold(self, obj_id: ObjectId, id_at_target: ObjectId) -> None:
        """Have the worker hold a pointer under an id."""
        self._ids[obj_id] = id_at_target
        if self._location._shown is not None:
            pointer = ObjectPointer(self.target, id_at_target, self._location, obj_id, False)
            self._location._shown.put_obj(obj_id, pointer)

    def release(self, obj_id: ObjectId) -> ObjectId:
        """Have the worker hold a pointer no longer; return the id that it points to."""
        if self._location._shown is not None:
            self._location._shown.rm_obj(obj_id)
        return self._ids.pop(obj_id, obj_id)

    def new_id(self) -> int:
        """See Stream."""
        return self.inner.new_id()

    def post(
        self,
        name: str,
        results: Sequence[ObjectId | None],
        arguments: list[Any],
        keywords: dict[str, Any] | None = None,
        is_random: bool = False,
    ) -> None:
        """See Stream."""
        self.inner.post(name, results, arguments, keywords, is_random)
        for obj_id in results:
            if obj_id is not None:
                self.hold(obj_id, obj_id)

    def store(self, obj_id: ObjectId, tensor: torch.Tensor) -> None:
        """See Stream."""
        self.inner.store(obj_id, tensor)
        self.hold(obj_id, obj_id)

    def take(self, ids: Sequence[ObjectId]) -> list[dict[str, Any]]:
        """See Stream."""
        return self.inner.take([self.release(obj_id) for obj_id in ids])

    def geometries(self, ids: Sequence[ObjectId]) -> list[Geometry]:
        """See Stream."""
        return self.inner.geometries([self._ids.get(obj_id, obj_id) for obj_id in ids])

    def forget(self, obj_id: ObjectId) -> None:
        """See Stream."""
        self.inner.forget(self.release(obj_id))
