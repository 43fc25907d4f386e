"""How much of a worker coordinators may use, and the accounts that are kept of it."""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter, deque
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import nn

from syft.access.privacy import PrivacyAccount
from syft.exceptions import CallAbandoned, LimitExceeded
from syft.objects import ObjectWrapper


@dataclass(frozen=True)
class Limits:
    """How much of a worker coordinators may use.

    A coordinator that exceeds a limit gets a LimitExceeded.

    The bound on one message is the worker's `max_message_bytes`. `call_bytes` does not count
    gradients or messages in flight, so give the worker's process a memory limit of its own as well
    (a container, `ulimit -v`).

    Attributes:
        connections: open connections, of all coordinators.
        handshake_seconds: seconds for TLS and the opening handshake, and again for the greeting.
        sessions: coordinators that are known at a time. One that is not connected makes room for a
            new one.
        queued_calls: calls of one coordinator that wait or run in the compute thread.
        objects: objects that one coordinator has stored, or that are still in use.
        object_bytes: bytes of these objects, their tags and descriptions included.
        all_objects: objects that all coordinators have stored.
        all_object_bytes: bytes of these objects.
        call_seconds: seconds that one fit, evaluation or call of an own method may run; it ends
            before its next batch, or before the next operator of its model.
        call_bytes: bytes of all results together that a model makes in one forward pass.
        graph_bytes: bytes that autograd keeps of one coordinator's operations on remote tensors,
            for their backward.
        graph_operations: operations in these graphs.
        stuck_calls: calls that ran on for STUCK_SECONDS beyond `call_seconds`, inside one operator
            or a method of the owner's own. They cannot be ended; after this many, the worker takes
            no further calls until it is restarted.

    Raises:
        ValueError: a limit is below 1, or handshake_seconds or call_seconds are not above 0.
    """

    connections: int = 64
    handshake_seconds: float = 10.0
    sessions: int = 64
    queued_calls: int = 64
    objects: int = 16_384
    object_bytes: int = 2 * 1024**3
    all_objects: int = 65_536
    all_object_bytes: int = 8 * 1024**3
    call_seconds: float = 3600.0
    call_bytes: int = 8 * 1024**3
    stuck_calls: int = 4
    graph_bytes: int = 2 * 1024**3
    graph_operations: int = 200_000

    def __post_init__(self) -> None:
        for limit in fields(self):
            value, seconds = getattr(self, limit.name), limit.name.endswith("_seconds")
            if not (value > 0 if seconds else value >= 1):
                expected = "a number above 0" if seconds else "at least 1"
                raise ValueError(f"Limits: {limit.name} is {value!r}; expected {expected}.")


STUCK_SECONDS = 5.0
"""Seconds after `call_seconds` in which a call has to notice that its time is over."""


@dataclass
class Budget:
    """What one call may use, and has used.

    Attributes:
        worker: the worker's id, for errors.
        seconds: how long it may run.
        steps: training steps it may do, if it is a fit; None: any number.
        batch_size: samples that a batch may have; None: any number.
        samples_per_call: samples it may read; None: any number.
        pool: samples that all calls together may still read; None: any number.
        bytes: bytes that a model may make in one forward pass; None: any number.
        privacy: the account of what fits tell; None: there is no differential privacy.
        abandoned: set when nobody waits for the call any more.
        samples: samples it has read.
        deadline: end of its time, by time.monotonic().
    """

    worker: str
    seconds: float
    steps: int | None = None
    batch_size: int | None = None
    samples_per_call: int | None = None
    pool: SamplePool | None = None
    bytes: int | None = None
    privacy: PrivacyAccount | None = None
    abandoned: threading.Event = field(default_factory=threading.Event)
    samples: int = field(init=False, default=0)
    deadline: float = field(init=False, default=float("inf"))

    def begin(self) -> None:
        """Start the clock."""
        self.deadline = time.monotonic() + self.seconds

    def check_plan(self, samples: int, batch_size: int, steps: int = 0) -> None:
        """Check what a call is about to read, before it reads the first sample.

        Args:
            samples: samples in all, each counted as often as it is read.
            batch_size: samples of its largest batch.
            steps: training steps; 0 for an evaluation.

        Raises:
            LimitExceeded: it is more than the call may use.
        """
        self._check("the training steps of one fit", steps, self.steps, "max_steps_per_fit")
        self._check("the samples of one batch", batch_size, self.batch_size, "max_batch_size")
        self._check(
            "the samples of one call", samples, self.samples_per_call, "max_samples_per_call"
        )
        if self.pool is not None:
            self.pool.check(samples)

    def spend(self, samples: int) -> None:
        """Note that a batch is about to be used.

        Raises:
            LimitExceeded: the time is over, or the batch is one too many whatever was planned.
        """
        # Whatever check_plan() said: a method of the owner's may read more than was planned.
        self._check_time()
        self._check("the samples of one batch", samples, self.batch_size, "max_batch_size")
        self._check(
            "the samples of one call",
            self.samples + samples,
            self.samples_per_call,
            "max_samples_per_call",
        )
        if self.pool is not None:
            self.pool.take(samples)
        self.samples += samples

    def check(self, made: int) -> None:
        """Check a running model, as syft.graph.metering.Meter says.

        Raises:
            LimitExceeded: the time is over, or the model made too many bytes.
            CallAbandoned: nobody waits for the result any more.
        """
        if self.abandoned.is_set():
            raise CallAbandoned(self.worker)
        self._check_time()
        self._check(
            "the bytes that a model makes in one forward pass", made, self.bytes, "call_bytes"
        )

    def _check_time(self) -> None:
        late = time.monotonic() - self.deadline
        if late > 0:
            raise LimitExceeded(
                self.worker,
                "the seconds of one call",
                self.seconds + late,
                self.seconds,
                "call_seconds",
            )

    def _check(self, what: str, observed: int, limit: int | None, setting: str) -> None:
        if limit is not None and observed > limit:
            raise LimitExceeded(self.worker, what, observed, limit, setting)


class SamplePool:
    """The samples that all calls together may read, from the worker's start on.

    Safe to use from several threads.

    Args:
        worker: the worker's id, for errors.
        limit: how many samples, each counted as often as it is read.
    """

    def __init__(self, worker: str, limit: int) -> None:
        self._worker = worker
        self._limit = limit
        self._taken = 0
        self._lock = threading.Lock()

    def check(self, samples: int) -> None:
        """Raise LimitExceeded if there are fewer samples left."""
        if self._taken + samples > self._limit:
            what = "the samples of all calls"
            raise LimitExceeded(
                self._worker, what, self._taken + samples, self._limit, "max_samples"
            )

    def take(self, samples: int) -> None:
        """Take so many samples out; raise LimitExceeded if there are fewer left."""
        with self._lock:
            self.check(samples)
            self._taken += samples


class Ledger:
    """How many objects, of how many bytes, coordinators have sent to a worker.

    What its owner stored does not count.

    An object counts for as long as it is in memory: in its coordinator's store, in the training
    that uses it, or in a call that waits. So each entry hangs on a weak reference. It is struck out
    when the next object comes, since an object may go at any time, in any thread, also in one that
    holds the lock.

    Args:
        worker: the worker's id, for errors.
        limits: the bounds.
    """

    def __init__(self, worker: str, limits: Limits) -> None:
        self._worker = worker
        self._limits = limits
        self._counts: Counter[str] = Counter()  # by coordinator
        self._bytes: Counter[str] = Counter()
        self._all = self._all_bytes = 0
        self._gone: deque[tuple[str, int]] = deque()
        self._lock = threading.Lock()

    def add(self, owner: str, obj: ObjectWrapper | torch.Tensor) -> None:
        """Enter an object that is about to be stored for a coordinator.

        Raises:
            LimitExceeded: it would be one too many, or too large.
        """
        size = size_of(obj)
        with self._lock:
            # Struck out here, under the lock, and not when an object goes: see above.
            while self._gone:
                gone, freed = self._gone.popleft()
                self._count(gone, -1, -freed)
            self._check_room(owner, 1, size)
            self._count(owner, 1, size)
        # Without `atexit`, which would call it for each object when the process ends.
        weakref.finalize(obj, self._gone.append, (owner, size)).atexit = False

    def hold(self, owner: str, objects: int, size: int) -> None:
        """Count results of a coordinator's operations, or fewer of them.

        Args:
            owner: the coordinator.
            objects: how many more there are; below 0: how many fewer.
            size: how many bytes more; below 0: how many fewer.

        Raises:
            LimitExceeded: that is too many.
        """
        with self._lock:
            if objects > 0:
                self._check_room(owner, objects, size)
            self._count(owner, objects, size)

    def _check_room(self, owner: str, objects: int, size: int) -> None:
        count, held = self._counts[owner] + objects, self._bytes[owner] + size
        self._check("the objects of one coordinator", count, "objects")
        self._check("the bytes of one coordinator's objects", held, "object_bytes")
        self._check("the objects of all coordinators", self._all + objects, "all_objects")
        self._check(
            "the bytes of all coordinators' objects", self._all_bytes + size, "all_object_bytes"
        )

    def _count(self, owner: str, objects: int, size: int) -> None:
        self._counts[owner] += objects
        self._bytes[owner] += size
        self._all += objects
        self._all_bytes += size
        if not self._counts[owner]:
            del self._counts[owner], self._bytes[owner]

    def _check(self, what: str, observed: int, setting: str) -> None:
        limit = getattr(self._limits, setting)
        if observed > limit:
            raise LimitExceeded(self._worker, what, observed, limit, setting)


def size_of(obj: Any) -> int:
    """Return the bytes of a tensor, or of a model with its graph.

    Tags and descriptions count too.
    """
    about = (
        size_of([*(getattr(obj, "tags", None) or ()), getattr(obj, "description", None)])
        if _is_object(obj)
        else 0
    )
    if isinstance(obj, ObjectWrapper):
        return size_of(obj.obj) + about
    if isinstance(obj, torch.Tensor):
        return obj.nbytes + about
    if isinstance(obj, nn.Module):
        tensors = sum(tensor.nbytes for tensor in (*obj.parameters(), *obj.buffers()))
        return tensors + getattr(obj, "graph_bytes", 0)
    if isinstance(obj, (list, tuple)):
        return sum(map(size_of, obj))
    if isinstance(obj, dict):
        return sum(map(size_of, obj.values()))
    if isinstance(obj, str):
        return len(obj.encode(errors="surrogatepass"))
    return len(obj) if isinstance(obj, bytes) else int(getattr(obj, "nbytes", 0))


def _is_object(obj: Any) -> bool:
    return isinstance(obj, (ObjectWrapper, torch.Tensor))
