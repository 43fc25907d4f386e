"""The operations of this process on their way to one worker.

    post -> buffer -> message number n -> sent -> carried out -> confirmed
            at most   in order, each      at most WINDOW of them are not confirmed yet: each
            BATCH     once                CONFIRMED_EVERY-th asks for a reply, which nobody waits for

Who posts an operation does not wait, unless the worker is WINDOW messages behind. Who wants a value
sends what is in the buffer, and waits for the reply to that message; so do all other calls of the
worker, which shall find the state that the program has reached.

Messages are kept until they are confirmed. When a connection breaks, the next one begins with all
that is not; the worker skips what it has carried out already. So nothing is done twice, and nothing
is left out, unless the worker itself has forgotten the session. Then all its tensors are gone, and
the stream starts again from 0 under another id.
"""

from __future__ import annotations

import itertools
import os
import secrets
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import FrameType
from typing import Any

import torch

from syft.exceptions import InvalidReply, RemoteOperationFailed
from syft.graph.kinds import DTYPES, NUMBERS
from syft.objects import ObjectId
from syft.remote.shapes import Geometry, geometry

BATCH = 32
"""Operations of a message, unless somebody waits."""
WINDOW = 32
"""Messages that a worker may be behind."""
CONFIRMED_EVERY = 8
FLUSH_SECONDS = 0.005
"""Seconds after which what is in the buffer is sent in any case."""
GARBAGE_SECONDS = 0.1
"""Seconds after which objects that nothing points to any more are deleted."""

_DTYPE_OF = {number: dtype for dtype, number in NUMBERS.items()}
_ids = itertools.count(secrets.randbits(60))


class Sites:
    """The places in the program that operations come from, as numbers.

    A worker hands the number back in an error; it does not learn the place.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[Any, int], int] = {}
        self._places: list[tuple[Any, int]] = []

    def current(self) -> int:
        """Return the number of the line that called torch or this package."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and _is_inner(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is None:
            return 0
        place = frame.f_code, frame.f_lineno
        number = self._numbers.get(place)
        if number is None:
            self._places.append(place)
            number = self._numbers[place] = len(self._places)
        return number

    def text(self, number: int) -> str:
        """Return a place as file and line; nothing if there is none of this number."""
        if not 0 < number <= len(self._places):
            return ""
        code, line = self._places[number - 1]
        return f"{code.co_filename}:{line}"


@lru_cache(4096)
def _is_inner(filename: str) -> bool:
    return filename.startswith(_INNER)


_INNER = tuple(os.path.dirname(module.__file__) + os.sep for module in (torch, syft.objects))
sites = Sites()


class Stream(ABC):
    """The way of operations to one worker.

    Safe to use from several threads.

    Args:
        worker: the worker's id, for errors.
        draw_seed: returns a seed from this process's generator.
    """

    def __init__(self, worker: str, draw_seed: Callable[[], int]) -> None:
        self.worker = worker
        self._draw_seed = draw_seed
        self._lock = threading.RLock()
        self._buffer: list[list[Any]] = []
        self._garbage: deque[ObjectId] = deque()
        self._restart()

    def _restart(self) -> None:
        self._id = secrets.randbits(62)
        self._number = 0

    def new_id(self) -> int:
        """Return an id for a result."""
        return next(_ids)

    def post(
        self,
        name: str,
        results: Sequence[int | None],
        arguments: list[Any],
        keywords: dict[str, Any],
        is_random: bool = False,
    ) -> None:
        """Have an operation carried out some time soon, after those that were posted before."""
        seed = self._draw_seed() if is_random else None
        operation = [
            name, results, arguments, keywords, sites.current(), torch.is_grad_enabled(), seed,
        ]  # fmt: skip
        with self._lock:
            self._buffer.append(operation)
            waiting = len(self._buffer)
        self._posted(waiting)

    def forget(self, obj_id: ObjectId) -> None:
        """Have an object deleted some time soon. Safe to call from `__del__`."""
        self._garbage.append(obj_id)

    def values(self, ids: Sequence[ObjectId]) -> list[dict[str, Any]]:
        """Wait for the values of objects.

        Raises:
            RemoteOperationFailed: an operation that one of them depends on failed at the worker.
            ObjectNotFoundError: there is none of this id.
            GetNotPermittedError: one is private.
            ConnectionFailed: the worker is not reached.
        """
        found = self._ask(values=list(ids))["values"]
        return [self._checked(each) for each in self._as_many(found, ids)]

    def geometries(self, ids: Sequence[ObjectId]) -> list[Geometry]:
        """Wait for the geometries of objects; raise as `values` does."""
        found = self._ask(geometries=list(ids))["geometries"]
        try:
            return [
                geometry(tuple(shape), tuple(stride), _DTYPE_OF[dtype])
                for shape, stride, dtype in self._as_many(found, ids)
            ]
        except (TypeError, ValueError, KeyError) as reason:
            raise self._invalid(repr(reason)) from None

    @abstractmethod
    def flush(self) -> None:
        """Send what is in the buffer."""

    @abstractmethod
    def _posted(self, waiting: int) -> None:
        """Note that so many operations are in the buffer."""

    @abstractmethod
    def _ask(self, **wanted: list[ObjectId]) -> dict[str, Any]:
        """Send what is in the buffer and wait for the answer."""

    def _message(self, answer: bool, **wanted: list[ObjectId]) -> dict[str, Any]:
        """Return the arguments of the next message. To be called with the lock held."""
        operations, self._buffer = self._buffer, []
        gone = []
        while self._garbage:
            gone.append(self._garbage.popleft())
        if gone:
            operations.append(["delete", [], gone, {}, 0, False, None])
        number, self._number = self._number, self._number + 1
        return {
            "stream": self._id,
            "number": number,
            "operations": operations,
            "values": wanted.get("values", []),
            "geometries": wanted.get("geometries", []),
            "answer": answer,
        }

    def _as_many(self, found: Any, ids: Sequence[ObjectId]) -> list[Any]:
        if not isinstance(found, list) or len(found) != len(ids):
            raise self._invalid(f"{type(found).__name__} for {len(ids)} ids")
        return found

    def _checked(self, found: Any) -> dict[str, Any]:
        fits = (
            isinstance(found, dict)
            and found.keys() == {"obj", "grad"}
            and isinstance(found["obj"], torch.Tensor)
            and isinstance(found["grad"], torch.Tensor | None)
        )
        if not fits:
            raise self._invalid(type(found).__name__)
        return found

    def _invalid(self, observed: str) -> InvalidReply:
        return InvalidReply(
            self.worker, "the values of remote tensors", observed, "a tensor and its gradient each"
        )


def with_line(error: BaseException) -> BaseException:
    """Return an error of the worker; that of an operation says where the program posted it."""
    if isinstance(error, RemoteOperationFailed) and not error.line:
        error.line = sites.text(error.site)
    return error
