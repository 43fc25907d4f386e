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

from syft import wire
from syft.access.guard import Caller
from syft.access.limits import Budget
from syft.commands import Place
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
    optimizer: Any = None
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
        session: who asks.
        run: does the work and returns the result.
        place: where a server runs it: in the event loop, in any thread, or in the compute thread when its turn comes.
        abandoned: set when nobody waits for the result any more; training then ends before its next batch.
        delivered: called when the reply is ready to be sent.
        budget: what the call of a method may use.
        model_digest: digests of the model that it is about.
    """

    request_id: int
    call: str
    session: Session
    run: Callable[[], Any]
    place: Place = "thread"
    abandoned: threading.Event = field(default_factory=threading.Event)
    delivered: Callable[[], None] | None = None
    budget: Budget | None = None
    model_digest: dict[str, str] | None = None

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
