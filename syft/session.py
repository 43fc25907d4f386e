"""What a worker knows of a coordinator and of its calls, for as long as either lasts.

Session           one coordinator; it outlives a connection that breaks or is closed for a while
TrainingState     its TrainConfig and what belongs to it
Job               one request of it, ready to run
RunningCall       the call of a worker's method, seen from inside the method
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import torch

from syft import wire
from syft.access.guard import Caller
from syft.access.limits import Budget
from syft.objects import ObjectId
from syft.structures import Structures


@dataclass
class TrainingState:
    """What fit() and evaluate() work with.

    Attributes:
        config: the TrainConfig, or None.
        optimizer: the optimizer, built by the first fit() and kept (with its momentum) until the config changes.
        kept: the config's model and loss function. They stay usable when the coordinator drops its pointers to
            them, and go with the config, so that at most one model for each coordinator stays behind.
        model_digest: digests of the config's model as it was sent, for the audit log.
    """

    config: Any = None
    optimizer: torch.optim.Optimizer | None = None
    kept: dict[ObjectId, Any] = field(default_factory=dict)
    model_digest: dict[str, str] | None = None


@dataclass
class Session:
    """One coordinator, as a worker sees it. It outlives a connection that breaks or is closed for a while.

    Attributes:
        name: the session's id, chosen by the coordinator.
        training: the coordinator's training state; no other coordinator sees or changes it.
        owned: ids of the objects that the coordinator sent and that go when it goes.
        connections: number of its connections. There may be two for a while: a lost one is noticed late.
        calls: request id -> call of a method that waits for its turn or runs.
        max_message_bytes: the most bytes that the coordinator accepts in one message.
        who: where the coordinator is and how it showed who it is, for the audit log.
        queued: its calls that wait or run in the compute thread.
        ending: the server's timer, while the coordinator is away, after which the session is forgotten.
        structures: the structures that the coordinator has sent.
    """

    name: str
    training: TrainingState = field(default_factory=TrainingState)
    owned: set[ObjectId] = field(default_factory=set)
    connections: int = 0
    calls: WeakValueDictionary[int, Job] = field(default_factory=WeakValueDictionary)
    max_message_bytes: int = wire.MAX_MESSAGE_BYTES
    who: dict[str, Any] = field(default_factory=dict)
    queued: int = 0
    ending: Any = None
    structures: Structures = field(default_factory=Structures)

    @property
    def caller(self) -> Caller:
        """Who asks, as the guard knows it."""
        return Caller(self.name, self.who)

    @property
    def connected(self) -> bool:
        """Whether a connection of this session is open."""
        return self.connections > 0


@dataclass
class Job:
    """One request, ready to run.

    Attributes:
        call: the request as text, for logs and errors.
        run: does the work and returns the result.
        in_background: the job may take long.
        abandoned: set when nobody waits for the result any more; training then ends before its next batch.
        max_reply_bytes: a reply of more bytes becomes an error that says so.
        delivered: called when the reply is ready to be sent.
        session: who asks.
        budget: what the call may use.
        model_digest: digests of the model that it is about.
        structures: the structures that the coordinator knows.
    """

    request_id: int
    call: str
    run: Callable[[], Any]
    in_background: bool = False
    abandoned: threading.Event = field(default_factory=threading.Event)
    max_reply_bytes: int = wire.MAX_MESSAGE_BYTES
    delivered: Callable[[], None] | None = None
    session: Session | None = None
    budget: Budget | None = None
    model_digest: dict[str, str] | None = None
    structures: Structures | None = None

    @property
    def caller(self) -> Caller | None:
        """Who asks."""
        return self.session.caller if self.session is not None else None

    def abandon(self) -> None:
        """End it before its next batch; if it has not begun, it never will, and lets go of its model now."""
        self.abandoned.set()
        self.run = _nothing


@dataclass
class RunningCall:
    """The call of a worker's method that runs in the current context."""

    worker: Any
    training: TrainingState
    abandoned: threading.Event
    budget: Budget


running_call: ContextVar[RunningCall | None] = ContextVar("running_call", default=None)


def _nothing() -> None:
    """Do nothing, in place of a job that was abandoned."""
