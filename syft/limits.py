"""How much of a worker coordinators may use, and the accounts that are kept of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Container
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import nn

from syft.exceptions import CallAbandoned, LimitExceeded
from syft.objects import ObjectId, ObjectWrapper


@dataclass(frozen=True)
class Limits:
    """Upper bounds of what a worker grants. Passing one is a LimitExceeded to the coordinator that passed it.

    The bound on one message is the worker's `max_message_bytes`. What is not bounded here is the memory that a single
    operator of a model takes, nor that of gradients: give the worker's process a limit of its own (a container,
    `ulimit -v`).

    Attributes:
        connections: open connections, of all coordinators.
        handshake_seconds: seconds for TLS and the opening handshake, and again for the greeting.
        sessions: coordinators that are known at a time. One that is not connected makes room for a new one.
        queued_calls: calls of one coordinator that wait or run in the compute thread.
        objects: objects that one coordinator has stored.
        object_bytes: bytes of these objects.
        all_objects: objects that all coordinators have stored.
        all_object_bytes: bytes of these objects.
        call_seconds: seconds that one fit, evaluation or call of an own method may run; it ends before its next batch,
            or before the next operator of its model.
        call_bytes: bytes of all results together that a model makes in one forward pass.
        stuck_calls: calls that ran on for STUCK_SECONDS beyond that, inside one batch. They cannot be ended; after so
            many of them, the worker takes no further calls until it is started again.

    Raises:
        ValueError: a limit is below 1, or handshake_seconds or call_seconds are not above 0.
    """

    connections: int = 64
    handshake_seconds: float = 10.0
    sessions: int = 64
    queued_calls: int = 64
    objects: int = 1024
    object_bytes: int = 2 * 1024**3
    all_objects: int = 8192
    all_object_bytes: int = 8 * 1024**3
    call_seconds: float = 24 * 3600.0
    call_bytes: int = 8 * 1024**3
    stuck_calls: int = 4

    def __post_init__(self) -> None:
        for limit in fields(self):
            value, seconds = getattr(self, limit.name), limit.name.endswith("_seconds")
            if not (value > 0 if seconds else value >= 1):
                raise ValueError(f"Limits cannot be made: {limit.name} is {value!r}; expected more.")


STUCK_SECONDS = 5.0
"""Seconds after `call_seconds` in which a call has to notice that its time is over."""


@dataclass
class Budget:
    """What one call may use, and has used.

    Attributes:
        worker: the worker's id, for errors.
        seconds: how long it may run.
        steps: training steps it may do; None: any number.
        samples: samples it has read.
        bytes: bytes that a model may make in one forward pass; None: any number.
        abandoned: set when nobody waits for the call any more.
        deadline: end of its time, by time.monotonic().
    """

    worker: str
    seconds: float
    steps: int | None = None
    samples: int = 0
    bytes: int | None = None
    abandoned: threading.Event = field(default_factory=threading.Event)
    deadline: float = field(init=False, default=float("inf"))

    def begin(self) -> None:
        """Start the clock."""
        self.deadline = time.monotonic() + self.seconds

    def check_steps(self, planned: float) -> None:
        """Raise LimitExceeded if a fit plans more training steps than it may do."""
        if self.steps is not None and planned > self.steps:
            raise LimitExceeded(self.worker, "the training steps of one fit", planned, self.steps, "max_steps_per_fit")

    def spend(self, samples: int) -> None:
        """Note that a batch is about to be used; raise LimitExceeded if the time is over."""
        self._check_time()
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
        if self.bytes is not None and made > self.bytes:
            what = "the bytes that a model makes in one forward pass"
            raise LimitExceeded(self.worker, what, made, self.bytes, "call_bytes")

    def _check_time(self) -> None:
        late = time.monotonic() - self.deadline
        if late > 0:
            raise LimitExceeded(
                self.worker, "the seconds of one call", self.seconds + late, self.seconds, "call_seconds"
            )


class Ledger:
    """Who has stored how many objects of how many bytes on a worker. What its owner stored does not count.

    Args:
        worker: the worker's id, for errors.
        limits: the bounds.
    """

    def __init__(self, worker: str, limits: Limits) -> None:
        self._worker = worker
        self._limits = limits
        self._entries: dict[ObjectId, tuple[str, int]] = {}
        self._lock = threading.Lock()

    def add(self, owner: str, obj_id: ObjectId, obj: Any) -> None:
        """Enter an object that a coordinator is about to store; one of the same id is replaced.

        Raises:
            LimitExceeded: it would be one too many, or too large.
        """
        size = size_of(obj)
        with self._lock:
            others = [entry for key, entry in self._entries.items() if key != obj_id]
            own = [entry for entry in others if entry[0] == owner]
            self._check("the objects of one coordinator", len(own) + 1, "objects")
            self._check("the bytes of one coordinator's objects", _bytes(own) + size, "object_bytes")
            self._check("the objects of all coordinators", len(others) + 1, "all_objects")
            self._check("the bytes of all coordinators' objects", _bytes(others) + size, "all_object_bytes")
            self._entries[obj_id] = (owner, size)

    def remove(self, obj_id: ObjectId) -> None:
        """Strike an object out, if it is there."""
        with self._lock:
            self._entries.pop(obj_id, None)

    def keep_only(self, stored: Container[ObjectId]) -> None:
        """Strike out all objects but those of these ids."""
        with self._lock:
            self._entries = {key: entry for key, entry in self._entries.items() if key in stored}

    def _check(self, what: str, observed: int, setting: str) -> None:
        limit = getattr(self._limits, setting)
        if observed > limit:
            raise LimitExceeded(self._worker, what, observed, limit, setting)


def size_of(obj: Any) -> int:
    """Return the bytes of a tensor, or of the parameters and buffers of a model and of its graph."""
    if isinstance(obj, ObjectWrapper):
        return size_of(obj.obj)
    if isinstance(obj, torch.Tensor):
        return obj.nbytes
    if isinstance(obj, nn.Module):
        tensors = sum(tensor.nbytes for tensor in (*obj.parameters(), *obj.buffers()))
        return tensors + getattr(obj, "graph_bytes", 0)
    if isinstance(obj, (list, tuple)):
        return sum(map(size_of, obj))
    if isinstance(obj, dict):
        return sum(map(size_of, obj.values()))
    return int(getattr(obj, "nbytes", 0)) or (len(obj) if isinstance(obj, (str, bytes)) else 0)


def _bytes(entries: list[tuple[str, int]]) -> int:
    return sum(size for _, size in entries)
