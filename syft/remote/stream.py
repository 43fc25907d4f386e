"""The operations of this process on their way to one worker.

    post -> buffer -> message number n -> sent -> carried out -> confirmed
            at most   in order, each      at most WINDOW of them are not confirmed yet: each
            BATCH     once                CONFIRMED_EVERY-th asks for a reply, and nobody waits

Who posts an operation does not wait, unless the worker is WINDOW messages behind. Who wants a value
sends what is in the buffer, and waits for the reply to that message; so do all other calls of the
worker, which shall find the state that the program has reached.

Messages are kept until they are confirmed. When a connection breaks, the next one begins with all
that is not; the worker skips what it has carried out already. So nothing is done twice, and nothing
is left out, unless the worker itself has forgotten the session. Then all its tensors are gone, and
the stream starts again from 0 under another id.
"""

from __future__ import annotations

import contextlib
import gc
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

from syft import wire
from syft.exceptions import InvalidReply, RemoteOperationFailed, RemoteOperationsOff
from syft.graph.kinds import NUMBERS
from syft.objects import ObjectId, pack_object
from syft.remote.shapes import Geometry, told_geometry

BATCH = 32
"""Operations of a message, unless somebody waits."""
WINDOW = 32
"""Messages that a worker may be behind."""
CONFIRMED_EVERY = 8
FLUSH_SECONDS = 0.005
"""Seconds after which what is in the buffer is sent in any case."""
GARBAGE_SECONDS = 0.1
"""Seconds after which objects that nothing points to any more are deleted."""
LARGE = 1024 * 1024
"""Tensors of more bytes are sent at once; smaller ones are copied, and travel with others."""

_TRAVEL = NUMBERS.keys() - {torch.complex128}
# Apart from IdProvider's ids, and cheaper: an operation takes some.
_ids = itertools.count(secrets.randbits(60))


class _Collection:
    """Knows whether Python collects garbage now, in any thread."""

    def __init__(self) -> None:
        self.runs = False
        gc.callbacks.append(self._note)

    def _note(self, phase: str, _: dict[str, int]) -> None:
        self.runs = phase == "start"


_collection = _Collection()


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


_PACKAGE = os.path.dirname(os.path.dirname(__file__))
_INNER = tuple(path + os.sep for path in (os.path.dirname(torch.__file__), _PACKAGE))
sites = Sites()


class Stream(ABC):
    """The way of operations to one worker.

    Args:
        worker: the worker's id, for errors.

    Attributes:
        beyond: the workers behind that one, if it only holds pointers to theirs.
        ways_through: worker that holds pointers to that one's tensors -> the way through it.
    """

    beyond: tuple[Any, ...] = ()

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.ways_through: dict[Any, Any] = {}

    def new_id(self) -> int:
        """Return an id for a result."""
        return next(_ids)

    @abstractmethod
    def post(
        self,
        name: str,
        results: Sequence[ObjectId | None],
        arguments: list[Any],
        keywords: dict[str, Any] | None = None,
        is_random: bool = False,
    ) -> None:
        """Have an operation carried out some time soon, after those that were posted before."""

    @abstractmethod
    def store(self, obj_id: ObjectId, tensor: torch.Tensor) -> None:
        """Have the worker keep a tensor of this process under an id, with its tags."""

    @abstractmethod
    def take(self, ids: Sequence[ObjectId]) -> list[dict[str, Any]]:
        """Wait for tensors, each with its gradient; then the worker keeps them no longer.

        Raises:
            RemoteOperationFailed: an operation that one of them depends on failed at the worker.
            ObjectNotFoundError: there is none of this id.
            GetNotPermittedError: one is private.
            ConnectionFailed: the worker is not reached.
        """

    @abstractmethod
    def geometries(self, ids: Sequence[ObjectId]) -> list[Geometry]:
        """Wait for the geometries of tensors; raise as `take` does."""

    @abstractmethod
    def forget(self, obj_id: ObjectId) -> None:
        """Have an object deleted some time soon. Safe to call from `__del__`."""


class BufferedStream(Stream):
    """A stream that gathers operations in a buffer. Safe to use from several threads.

    Args:
        worker: the worker's id, for errors.
        draw_seed: returns a seed from this process's generator.
    """

    def __init__(self, worker: str, draw_seed: Callable[[], int]) -> None:
        super().__init__(worker)
        self._draw_seed = draw_seed
        self._lock = threading.RLock()
        self._buffer: list[list[Any]] = []
        self._garbage: deque[ObjectId] = deque()
        self._restart()

    def _restart(self) -> None:
        self._id = secrets.randbits(62)
        self._number = 0

    def post(
        self,
        name: str,
        results: Sequence[ObjectId | None],
        arguments: list[Any],
        keywords: dict[str, Any] | None = None,
        is_random: bool = False,
    ) -> None:
        """See Stream."""
        seed = self._draw_seed() if is_random else None
        site, with_gradients = sites.current(), torch.is_grad_enabled()
        operation = [name, results, arguments, keywords or {}, site, with_gradients, seed]
        with self._lock:
            self._buffer.append(operation)
            waiting = len(self._buffer)
        self._posted(waiting)

    def store(self, obj_id: ObjectId, tensor: torch.Tensor) -> None:
        """See Stream."""
        if tensor.layout != torch.strided or tensor.dtype not in _TRAVEL:
            # Whether it can travel at all is found out here, where the program sends it.
            wire.encode(wire.Request(0, "set", {"obj": tensor.detach()}))
        packed = {"id": obj_id, **pack_object(tensor)}
        is_large = tensor.nbytes > LARGE
        if not is_large:
            # The program may change its tensor before this is sent.
            copied = tensor.detach().clone()
            packed["obj"] = copied.requires_grad_() if tensor.requires_grad else copied
        with self._lock:
            if is_large:
                self.flush()
            self.post("set", [obj_id], [packed])
            if is_large:
                self.flush()

    def forget(self, obj_id: ObjectId) -> None:
        """See Stream."""
        self._garbage.append(obj_id)

    def take(self, ids: Sequence[ObjectId]) -> list[dict[str, Any]]:
        """See Stream."""
        found = self._as_many(self._ask(values=list(ids))["values"], ids)
        values = [self._checked(each) for each in found]
        for obj_id in ids:
            self.forget(obj_id)
        return values

    def geometries(self, ids: Sequence[ObjectId]) -> list[Geometry]:
        """See Stream."""
        found = self._ask(geometries=list(ids))["geometries"]
        try:
            return [
                told_geometry(shape, stride, dtype)
                for shape, stride, dtype in self._as_many(found, ids)
            ]
        except (TypeError, ValueError) as reason:
            raise self.invalid(repr(reason)) from None

    @abstractmethod
    def flush(self) -> None:
        """Send what is in the buffer."""

    @abstractmethod
    def _posted(self, waiting: int) -> None:
        """Note that so many operations are in the buffer."""

    @abstractmethod
    def _ask(self, **wanted: list[ObjectId]) -> dict[str, Any]:
        """Send what is in the buffer and wait for the answer."""

    def _next_message(self, answer: bool, **wanted: list[ObjectId]) -> dict[str, Any]:
        """Empty the buffer into the arguments of a message. To be called with the lock held."""
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
            raise self.invalid(f"{type(found).__name__} for {len(ids)} ids")
        return found

    def _checked(self, found: Any) -> dict[str, Any]:
        if isinstance(found, dict) and found.keys() == {"obj", "grad"}:
            tensor, gradient = found["obj"], found["grad"]
            if isinstance(tensor, torch.Tensor) and isinstance(gradient, torch.Tensor | None):
                return found
        raise self.invalid(type(found).__name__)

    def invalid(self, observed: str) -> InvalidReply:
        """Return the error of a reply that is none."""
        return InvalidReply(
            self.worker, "the values of remote tensors", observed, "a tensor and its gradient each"
        )


class LocalStream(BufferedStream):
    """The way of operations to a worker in this process: each is carried out where it is posted.

    Args:
        worker: the worker's id, for errors.
        draw_seed: returns a seed from this process's generator.
        carry_out: carries out the request `operate` with these arguments, and returns its result.
    """

    def __init__(
        self,
        worker: str,
        draw_seed: Callable[[], int],
        carry_out: Callable[[dict[str, Any]], Any],
    ) -> None:
        super().__init__(worker, draw_seed)
        self._carry_out = carry_out
        self._busy = False

    def flush(self) -> None:
        """Carry out what is in the buffer."""
        if self._buffer or self._garbage:
            self._ask()

    def forget(self, obj_id: ObjectId) -> None:
        """See Stream."""
        super().forget(obj_id)
        # In the middle of an operation, that one sweeps up. While Python collects garbage, whatever
        # this thread was at is half done, Python's own work included: 3.10 and 3.11 crash if
        # a context variable is set within the setting of another. The next operation sweeps up.
        if not (self._busy or _collection.runs):
            self.flush()

    def _posted(self, waiting: int) -> None:
        self._ask()

    def _ask(self, **wanted: list[ObjectId]) -> dict[str, Any]:
        with self._lock:
            self._busy = True
            try:
                with _as_outside_of_torch(), torch.inference_mode(False):
                    result: dict[str, Any] = self._carry_out(
                        self._next_message(bool(wanted), **wanted)
                    )
                    while self._garbage:
                        self._carry_out(self._next_message(False))
                return result
            except RemoteOperationFailed as error:
                raise with_line(error) from None
            finally:
                self._busy = False


_INCLUDED, _EXCLUDED = (
    torch._C._dispatch_tls_local_include_set(),
    torch._C._dispatch_tls_local_exclude_set(),
)


def _as_outside_of_torch() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which torch is used as if no operation were being dispatched.

    Operations on pointers are posted from within that. Autograd is off there, and so is what
    follows writes into views: gradients through them would be wrong without a word.
    """
    guard: contextlib.AbstractContextManager[Any] = torch._C._ForceDispatchKeyGuard(
        _INCLUDED, _EXCLUDED
    )
    return guard


class PlainStream(Stream):
    """The way to a worker that carries out no operations: tensors are sent and fetched.

    Args:
        worker: the worker's id, for errors.
        store: stores a tensor at the worker.
        fetch: fetches one.
        forget: has one deleted.
    """

    def __init__(
        self,
        worker: str,
        store: Callable[[ObjectId, torch.Tensor], None],
        fetch: Callable[[ObjectId], Any],
        forget: Callable[[ObjectId], None],
    ) -> None:
        super().__init__(worker)
        self._store = store
        self._fetch = fetch
        self._forget = forget

    def post(
        self,
        name: str,
        results: Sequence[ObjectId | None],
        arguments: list[Any],
        keywords: dict[str, Any] | None = None,
        is_random: bool = False,
    ) -> None:
        """Raise an error.

        Raises:
            RemoteOperationsOff: always.
        """
        raise RemoteOperationsOff(self.worker)

    def store(self, obj_id: ObjectId, tensor: torch.Tensor) -> None:
        """See Stream."""
        self._store(obj_id, tensor)

    def take(self, ids: Sequence[ObjectId]) -> list[dict[str, Any]]:
        """See Stream."""
        return [{"obj": self._fetch(obj_id), "grad": None} for obj_id in ids]

    def geometries(self, ids: Sequence[ObjectId]) -> list[Geometry]:
        """Raise an error, as `post` does."""
        raise RemoteOperationsOff(self.worker)

    def forget(self, obj_id: ObjectId) -> None:
        """See Stream."""
        self._forget(obj_id)


def with_line(error: BaseException) -> BaseException:
    """Return an error of the worker; that of an operation says where the program posted it."""
    if isinstance(error, RemoteOperationFailed) and not error.line:
        error.line = sites.text(error.site)
    return error
