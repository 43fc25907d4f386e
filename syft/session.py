"""What a worker knows of a coordinator and of its calls, for as long as either lasts.

Session           one coordinator; it outlives a connection that breaks or is closed for a while
TrainingState     its TrainConfig and what belongs to it
Job               one request of it, ready to run
RunningCall       the call of a worker's method, seen from inside the method
SessionObjects    its objects
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from torch import nn

from syft import wire
from syft.access.guard import Caller
from syft.access.limits import Budget
from syft.commands import Place
from syft.fits import FitCounter
from syft.graph import clone
from syft.graph.metering import meter
from syft.objects import ObjectId, ObjectStorage, ObjectWrapper
from syft.remote.executor import Executor

# How the parts hang together on a worker:
#
#     Dispatcher.sessions: name -> Session
#                                   |-- training: TrainingState    replaced by each new config
#                                   |-- objects: SessionObjects    laid over what the owner offers
#                                   `-- calls: request id -> Job   while it waits or runs
#
# A coordinator is known by the name of its session, not by its connection. So one that comes back
# after a broken connection finds its model, its optimizer's momentum and its count of fits. A
# request belongs to the connection that it came over, though: nobody else gets its reply.
#
# A call takes hold of session.training when it is asked for, not when its turn comes. A new config
# makes a new TrainingState instead of changing the old one, so a coordinator may send the config of
# its next call while the present one runs or waits: each trains what it was asked to train.
#
# Sessions share no objects but those that the owner offers, and these they cannot change: an object
# of the same id only hides the owner's, and training takes a copy of an offered model.


class SessionObjects(ObjectStorage):
    """The objects of one coordinator and, for reading, those that the worker's owner offers to all.

    An object of the coordinator hides one of the owner with the same id; it never replaces it.

    Args:
        worker: the worker's id, for errors.
        offered: returns what the owner offers, id -> object.
    """

    def __init__(self, worker: ObjectId, offered: Callable[[], dict[ObjectId, Any]]) -> None:
        super().__init__()
        self.id = worker
        self._offered = offered

    def offered_obj(self, obj_id: ObjectId) -> Any:
        """Return the object with this id that the worker's owner offers, or None."""
        return self._offered().get(obj_id)

    def get_obj(self, obj_id: ObjectId) -> Any:
        """Return the object with this id.

        Raises:
            ObjectNotFoundError: the coordinator has none, and the owner offers none (also a
                KeyError).
        """
        objects = self.current_objects()
        return objects[obj_id] if obj_id in objects else super().get_obj(obj_id)

    def current_objects(self) -> dict[ObjectId, Any]:
        """Return a new mapping from id to object, of both kinds."""
        return {**self._offered(), **super().current_objects()}

    def copy_of_offered(self, obj_id: ObjectId) -> ObjectWrapper | None:
        """Return a copy of a model that the owner offers, for training.

        None if it is nothing of that kind.
        """
        own, obj = super().current_objects(), self.get_obj(obj_id)
        if (
            obj_id in own
            or not isinstance(obj, ObjectWrapper)
            or not isinstance(obj.obj, nn.Module)
        ):
            return None
        return ObjectWrapper(clone(obj.obj), obj_id, obj.tags, obj.description)


@dataclass
class TrainingState:
    """What fit() and evaluate() work with.

    Attributes:
        config: the TrainConfig, or None.
        optimizer: the optimizer, built by the first fit() and kept (with its momentum) until the
            config changes.
        kept: the config's model, loss function and correction. They stay usable when the
            coordinator drops its pointers to them, and go with the config, so that at most one
            model for each coordinator stays behind.
        model_digest: digests of the config's model as it was sent, for the audit log.
        fits_before: fits under the config's seed that the coordinator had asked for when it sent
            the config.
    """

    config: Any = None
    optimizer: Any = None
    kept: dict[ObjectId, Any] = field(default_factory=dict)
    model_digest: dict[str, str] | None = None
    fits_before: int = 0


@dataclass
class Session:
    """One coordinator, as a worker sees it.

    It outlives a connection that breaks or is closed for a while.

    Attributes:
        name: the session's id, 128 random bits chosen by the coordinator. It is a secret:
            whoever knows it can act as the coordinator.
        training: the coordinator's training state; no other coordinator sees or changes it.
        objects: the coordinator's objects; they go when the session ends. None: those of the worker
            itself, since coordinator and owner are one process.
        connections: number of its connections. There may be two for a while: a lost one is noticed
            late.
        calls: request id -> call of a method that waits for its turn or runs.
        max_message_bytes: the most bytes that the coordinator accepts in one message.
        who: where the coordinator is and how it showed who it is, for the audit log.
        queued: its calls that wait or run in the compute thread.
        ending: the server's timer, while the coordinator is away, after which the session is
            forgotten.
        fits: counts the coordinator's fits.
        executor: runs its operations on remote tensors; None before the first of them.
        kept_optimizer: what the optimizer of its last fit with keep_optimizer has left; None: there
            was none.
    """

    name: str = field(repr=False)
    training: TrainingState = field(default_factory=TrainingState)
    objects: SessionObjects | None = None
    connections: int = 0
    # Weak: a job is found, to be cancelled, for as long as anybody runs it or waits for it, and
    # nobody has to take it out afterwards.
    calls: WeakValueDictionary[int, Job] = field(default_factory=WeakValueDictionary)
    max_message_bytes: int = wire.MAX_MESSAGE_BYTES
    who: dict[str, Any] = field(default_factory=dict)
    queued: int = 0
    ending: Any = None
    fits: FitCounter = field(default_factory=FitCounter)
    executor: Executor | None = None
    kept_optimizer: Any = None

    def count_fit(self, training: TrainingState) -> int:
        """Count a fit of a training state, and return its number under the seed of the config."""
        return self.fits.next(getattr(training.config, "seed", None), training.fits_before)

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
        place: where a server runs it: in the event loop, in any thread, or in the compute thread
            when its turn comes.
        abandoned: set when nobody waits for the result any more; training then ends before its next
            batch.
        delivered: called when the reply is ready to be sent.
        budget: what the call of a method may use.
        model_digest: digests of the model that it is about.
        refusal: the reply and the outcome of a request that is refused.
        is_silent: whether nothing is replied if it succeeds.
        waits_for_room: whether it waits where the queue of calls is full, rather than be refused.
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
    refusal: tuple[bytes, str] | None = None
    is_silent: bool = False
    waits_for_room: bool = False

    def abandon(self) -> None:
        """End it before its next batch; if it has not begun, it never will.

        A job that has not begun lets go of its model now.
        """
        # The event ends a job that runs. One that waits is kept until its turn, so its closure,
        # which may hold a model among its arguments, is dropped now.
        self.abandoned.set()
        self.run = do_nothing


@dataclass
class RunningCall:
    """The call of a worker's method, or the command, that runs in the current context.

    Attributes:
        worker: the worker.
        session: who asks.
        training: the coordinator's training state when it asked.
        abandoned: set when nobody waits for the result any more.
        budget: what the call may use.
        fit_number: number of the fit, if this is one that has not begun to train.
    """

    worker: Any
    session: Session
    training: TrainingState
    abandoned: threading.Event
    budget: Budget
    fit_number: int | None = None


# Methods such as fit() take no argument that says for whom they work: their signatures are those of
# PySyft 0.2, and owners override them. So they find the coordinator here. It is a context variable,
# not an attribute of the worker, since several threads answer different coordinators at once, and
# not a thread's local variable, since evaluate() hands its context on to threads of its own.
running_call: ContextVar[RunningCall | None] = ContextVar("running_call", default=None)


@contextmanager
def running(call: RunningCall) -> Iterator[None]:
    """Set `running_call` to this call for the duration of the context.

    Its budget bounds every model that runs meanwhile.
    """
    # Reset afterwards, not cleared: an owner's method may call another worker of this process.
    token, bound = running_call.set(call), meter.set(call.budget)
    try:
        yield
    finally:
        meter.reset(bound)
        running_call.reset(token)


def do_nothing() -> None:
    """Do nothing, in place of a job that was abandoned or a step that is not asked for."""
