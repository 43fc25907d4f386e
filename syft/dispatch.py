"""A worker without a socket: requests in, replies out.

    request bytes -> wire.decode -> Dispatcher.job -> job.run() -> wire.encode -> reply bytes

`VirtualWorker` runs the jobs where they arrive; `WebsocketServerWorker` runs the long ones in a compute thread.
Nothing here opens a socket or knows asyncio, so both behave the same and tests need no network.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import nn

from syft import exceptions, wire
from syft.exceptions import (
    CallAbandoned,
    GetNotPermittedError,
    LimitExceeded,
    MalformedMessage,
    MessageTooLarge,
    RemoteError,
    SyftError,
    UnknownCommand,
)
from syft.fits import FitCounter
from syft.graph import GraphModule, Receiver
from syft.graph.metering import meter
from syft.guard import Guard
from syft.limits import Budget
from syft.objects import ObjectId, ObjectWrapper

if TYPE_CHECKING:
    from syft.workers.virtual import VirtualWorker

logger = logging.getLogger(__name__)

BACKGROUND_METHODS = frozenset({"fit", "evaluate"})
"""Methods of every worker that may take long; a server answers other requests meanwhile."""
QUICK_METHODS = frozenset({"list_objects", "objects_count", "clear_objects"})
"""Methods of every worker that are answered at once, also during training."""

_MAX_TRACEBACK = 20_000
_MAX_FITS = 2**63 - 1


@dataclass
class TrainingState:
    """What fit() and evaluate() work with.

    Attributes:
        config: the TrainConfig, or None.
        optimizer: the optimizer, built by the first fit() and kept (with its momentum) until the config changes.
        kept: the config's model and loss function. They stay usable when the coordinator drops its pointers to
            them, and go with the config, so that at most one model for each coordinator stays behind.
        model_digest: digests of the config's model as it was sent, for the audit log.
        fits_before: fits under the config's seed that the coordinator had asked for when it sent the config.
    """

    config: Any = None
    optimizer: torch.optim.Optimizer | None = None
    kept: dict[ObjectId, Any] = field(default_factory=dict)
    model_digest: dict[str, str] | None = None
    fits_before: int = 0


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
        fits: counts the coordinator's fits.
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
    fits: FitCounter = field(default_factory=FitCounter)

    def count_fit(self, training: TrainingState) -> int:
        """Count a fit of a training state, and return its number under the seed of the config."""
        return self.fits.next(getattr(training.config, "seed", None), training.fits_before)

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

    def abandon(self) -> None:
        """End it before its next batch; if it has not begun, it never will, and lets go of its model now."""
        self.abandoned.set()
        self.run = _nothing


@dataclass
class RunningCall:
    """The call of a worker's method that runs in the current context.

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


running_call: ContextVar[RunningCall | None] = ContextVar("running_call", default=None)


class Dispatcher:
    """Carries out requests on one worker.

    Args:
        worker: the worker; its id, object storage and methods are used.
        max_message_bytes: a reply of more bytes becomes an error that says so.
        allow_operators: operators that models may use beside those of syft/graph/operators.py.
        allow_torchscript: take models as TorchScript archives too, which trusts all coordinators.
    """

    def __init__(
        self,
        worker: VirtualWorker,
        max_message_bytes: int = wire.MAX_MESSAGE_BYTES,
        allow_operators: Iterable[str] = (),
        allow_torchscript: bool = False,
    ) -> None:
        self.worker = worker
        self.receiver = Receiver(
            lambda digest: self.guard.policy.check_model(digest), allow_operators, allow_torchscript
        )
        self.max_message_bytes = max_message_bytes
        self.sessions: dict[str, Session] = {}
        self.guard = Guard(str(worker.id))
        self._commands: dict[str, Callable[..., Any]] = {
            "set": self._set,
            "get": self._get,
            "delete": self._delete,
            "search": self._search,
            "train_config": self._train_config,
            "cancel": self._cancel,
        }

    def job(self, request: wire.Request, session: Session) -> Job:
        """Return the job for a request. Requests of one session must be turned into jobs in their order.

        Raises:
            UnknownCommand: there is no such command, or the worker offers no such method.
            MalformedMessage: the command has other arguments than it should.
            NotPermitted, LimitExceeded: the worker's owner does not allow it.
        """
        job = self._call(request, session) if request.command == "call" else self._command(request, session)
        job.session = session
        job.max_reply_bytes = min(self.max_message_bytes, session.max_message_bytes)
        return job

    def _command(self, request: wire.Request, session: Session) -> Job:
        if request.command not in self._commands:
            raise UnknownCommand(str(self.worker.id), request.command, sorted([*self._commands, "call"]))
        command = self._commands[request.command]
        try:
            inspect.signature(command).bind(session, **request.arguments)
        except TypeError as reason:
            raise MalformedMessage(f"command {request.command!r}: {reason}") from None
        call = describe_call(request.command, (), request.arguments)
        job = Job(request.id, call, lambda: command(session, **request.arguments))
        if request.command == "get":  # an object that cannot be delivered stays
            job.delivered = lambda: self._delivered(session, request.arguments["id"])
        return job

    def run(self, job: Job) -> bytes:
        """Run a job and return its reply, or its failure, as bytes."""
        started = time.perf_counter()
        outcome = "done"
        try:
            if job.abandoned.is_set():
                raise CallAbandoned(str(self.worker.id))
            frame = wire.encode(wire.Reply(job.request_id, job.run()))
            if len(frame) > job.max_reply_bytes:
                what = f"the reply to {job.call} of"
                raise MessageTooLarge(str(self.worker.id), what, len(frame), job.max_reply_bytes)
            if job.delivered is not None:
                job.delivered()
        except (Exception, SystemExit) as error:
            outcome = f"failed ({type(error).__name__})"
            frame = self.failure(job.request_id, job.call, error)
        level = logging.INFO if self.worker.verbose else logging.DEBUG
        milliseconds = 1000 * (time.perf_counter() - started)
        samples = job.budget.samples if job.budget is not None else None
        self.guard.record(job.session, job.call, outcome, milliseconds / 1000, job.model_digest, samples)
        message = "worker %s: %s %s in %.1f ms, reply of %d bytes"
        logger.log(level, message, self.worker.id, job.call, outcome, milliseconds, len(frame))
        return frame

    def decode(self, frame: bytes) -> wire.Request:
        """Return the request that `frame` holds, its models checked.

        Raises:
            NotPermitted: the owner does not allow a model or function in it.
            OperatorNotAllowed: a model or function in it uses an operator that is not allowed.
            MalformedMessage: it is no request.
        """
        request = wire.decode(frame, self.receiver)
        if not isinstance(request, wire.Request):
            raise MalformedMessage(f"a {type(request).__name__} where a Request is expected")
        return request

    def handle(self, frame: bytes, session: Session) -> bytes:
        """Carry out the request that `frame` holds and return its reply, or its failure, as bytes.

        Raises:
            MalformedMessage: `frame` has no readable header, so there is no request to reply to.
        """
        request_id = wire.peek_id(frame)
        try:
            request = self.decode(frame)
            job = self.job(request, session)
        except Exception as error:
            return self.failure(request_id, "a request", error)
        return self.run(job)

    def failure(self, request_id: int, call: str, error: BaseException) -> bytes:
        """Return the failure that tells `error` to the coordinator, as bytes."""
        text = _printable("".join(traceback.format_exception(error)))[-_MAX_TRACEBACK:]
        own = isinstance(error, SyftError) and not isinstance(error, RemoteError)
        fields = exceptions.to_fields(error) if own else {}  # type: ignore[arg-type]
        return wire.encode(wire.Failure(request_id, _type_name(error), _text(error), fields, call, text))

    def open_session(self, name: str) -> Session:
        """Return the session of this name, a new one or that of before.

        Raises:
            LimitExceeded: there are too many, and all of them are connected.
        """
        if name not in self.sessions:
            idle = [session for session in self.sessions.values() if not session.connected]
            limit = self.guard.limits.sessions
            if len(self.sessions) >= limit and idle:
                self.end_session(idle[0])
            if len(self.sessions) >= limit:
                what = "the coordinators that are connected"
                raise LimitExceeded(str(self.worker.id), what, len(self.sessions) + 1, limit, "sessions")
        return self.sessions.setdefault(name, Session(name))

    def end_session(self, session: Session) -> None:
        """Forget a session, with the objects that its coordinator would have deleted."""
        self.sessions.pop(session.name, None)
        self._delete(session, ids=list(session.owned))

    def callable_methods(self) -> list[str]:
        """Return the names of the methods that may be called from afar: those above and the owner's own.

        The owner's own are the public methods that a subclass of this package's workers defines. Overriding a
        method of this package, add_dataset for example, does not open it to the network.
        """
        own_classes = [cls for cls in type(self.worker).__mro__ if not _is_ours(cls)]
        own = {
            name
            for cls in own_classes
            for name, value in vars(cls).items()
            if isinstance(value, (staticmethod, classmethod)) or inspect.isfunction(value)
        }
        reserved = {name for cls in type(self.worker).__mro__ if cls not in own_classes for name in dir(cls)}
        public = {name for name in own if not name.startswith("_")} - reserved
        return sorted(public | BACKGROUND_METHODS | QUICK_METHODS)

    def _call(self, request: wire.Request, session: Session) -> Job:
        try:
            name, args, kwargs = (request.arguments[key] for key in ("name", "args", "kwargs"))
            call = describe_call(name, args, kwargs)
        except (KeyError, TypeError, AttributeError) as reason:
            raise MalformedMessage(
                f"command 'call' with the arguments {sorted(request.arguments)}: {reason!r}"
            ) from None
        if name == "clear_objects":
            return Job(request.id, call, lambda: self._clear(session))
        if name not in self.callable_methods():
            raise UnknownCommand(str(self.worker.id), name, self.callable_methods())
        training = session.training  # as of now: a later TrainConfig is for later calls
        method = getattr(self.worker, name)
        abandoned = threading.Event()
        # Counted before it may be refused or abandoned, as on the coordinator's side.
        fit_number = session.count_fit(training) if name == "fit" and training.config is not None else None
        budget = self.guard.permit(session, name, method, args, kwargs, call)

        def run() -> Any:
            budget.begin()
            budget.abandoned = abandoned
            bound = meter.set(budget)
            token = running_call.set(RunningCall(self.worker, session, training, abandoned, budget, fit_number))
            try:
                return method(*args, **kwargs)
            finally:
                running_call.reset(token)
                meter.reset(bound)

        job = Job(request.id, call, run, name not in QUICK_METHODS, abandoned, budget=budget)
        job.model_digest = training.model_digest if name in BACKGROUND_METHODS else None
        session.calls[request.id] = job
        return job

    def _cancel(self, session: Session, request_id: int) -> None:
        """Abandon a call whose caller does not wait for it any more; do nothing if it is done."""
        job = session.calls.get(request_id)
        if job is not None:
            job.abandon()

    def _set(
        self, session: Session, id: ObjectId, obj: Any, wrapped: bool, tags: Any, description: Any, collect: bool
    ) -> None:
        self.guard.admit(session, id, obj, self.worker.current_objects)
        if wrapped:
            obj = ObjectWrapper(obj, id, tags, description)
        else:
            obj.id, obj.tags, obj.description = id, tags, description
        self.worker.set_obj(obj)
        if collect:
            session.owned.add(id)

    def _get(self, session: Session, id: ObjectId) -> Any:
        kept = session.training.kept
        obj = kept[id] if id in kept else self.worker.get_obj(id)
        if getattr(obj, "private", False):
            raise GetNotPermittedError(str(self.worker.id), id)
        is_wrapper = isinstance(obj, ObjectWrapper)
        content = obj.obj if is_wrapper else obj
        state = _state(content)
        return {
            "obj": None if state is not None else content,
            "state": state,
            "wrapped": is_wrapper,
            "tags": list(getattr(obj, "tags", None) or ()),
            "description": getattr(obj, "description", None),
        }

    def _delete(self, session: Session, ids: list[ObjectId]) -> None:
        for obj_id in ids:
            self.worker.rm_obj(obj_id)
            self.guard.forget(obj_id)
            session.owned.discard(obj_id)

    def _delivered(self, session: Session, obj_id: ObjectId) -> None:
        self._delete(session, [obj_id])
        session.training.kept.pop(obj_id, None)

    def _clear(self, session: Session) -> None:
        """Remove all objects but those that belong to another coordinator that is connected now."""
        others = [other for other in self.sessions.values() if other is not session and other.connected]
        spared = set().union(*(other.owned for other in others))
        self._delete(session, [obj_id for obj_id in self.worker.current_objects() if obj_id not in spared])
        session.training = TrainingState()

    def _search(self, session: Session, query: Any) -> list[dict[str, Any]]:
        return [
            {
                "id": obj.id,
                "tags": sorted(obj.tags or ()),
                "description": getattr(obj, "description", None),
                "shape": tuple(obj.shape) if isinstance(obj, torch.Tensor) else None,
            }
            for obj in self.worker.search_objects(query)
        ]

    def _train_config(self, session: Session, fields: dict[str, Any], fits: int = 0) -> None:
        if type(fits) is not int or not 0 <= fits <= _MAX_FITS:
            reason = f"the fits before a config are {_shortly(fits)}; expected an integer from 0 to {_MAX_FITS}"
            raise MalformedMessage(reason)
        config = self.worker.train_config_from(fields)
        stored = self.worker.current_objects()
        ids = (config._model_id, config._loss_fn_id)
        kept = {key: stored[key] for key in ids if key in stored}
        digest = self.guard.digest(config._model_id)
        session.training = TrainingState(config, kept=kept, model_digest=digest, fits_before=fits)


def _state(obj: Any) -> dict[str, torch.Tensor] | None:
    """Return what of a model or function travels back: its tensors by name, never its code; None for anything else."""
    if isinstance(obj, GraphModule):
        return obj.graph_state()
    if isinstance(obj, nn.Module):
        named = chain(obj.named_parameters(), obj.named_buffers())
        return {name: tensor.detach() for name, tensor in named}
    return {} if inspect.isroutine(obj) else None


def unwrap(frame: bytes, worker_id: ObjectId) -> Any:
    """Return the result that a reply holds, or raise the error that it tells.

    Args:
        frame: the reply.
        worker_id: the worker's id, for errors.

    Raises:
        SyftError: the error of this package that the worker raised, with `remote_traceback`.
        RemoteError: any other error of the worker.
    """
    message = wire.decode(frame)
    if isinstance(message, wire.Reply):
        return message.result
    if not isinstance(message, wire.Failure):
        raise MalformedMessage(f"a {type(message).__name__} where a reply is expected")
    error = exceptions.from_fields(message.type, message.fields)
    if error is None:
        error = RemoteError.of(
            type_name=message.type,
            worker=str(worker_id),
            call=message.call,
            message=message.message,
            traceback=message.traceback,
        )
    error.remote_traceback = message.traceback
    raise error


def describe_call(name: str, args: Any, kwargs: dict[str, Any]) -> str:
    """Return a call as text, with long and large arguments shortened: fit(dataset_key='mnist')."""
    shown = [_shortly(value) for value in args] + [f"{key}={_shortly(value)}" for key, value in kwargs.items()]
    return f"{name}({', '.join(shown)})"


def _shortly(value: Any) -> str:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return f"<{type(value).__name__} {tuple(value.shape)}>"
    text = repr(value) if isinstance(value, (str, int, float, bool, bytes, type(None))) else f"<{type(value).__name__}>"
    return text if len(text) <= 60 else text[:57] + "..."


def _text(error: BaseException) -> str:
    try:
        return _printable(str(error))
    except Exception as reason:
        return f"<its text failed: {type(reason).__name__}>"


def _printable(text: str) -> str:
    """Return a text that UTF-8 can hold."""
    return text.encode(errors="backslashreplace").decode()


def _type_name(error: BaseException) -> str:
    """Return the bare name of built-in errors and of this package's own, else the qualified one."""
    cls = type(error)
    bare = cls.__module__ == "builtins" or isinstance(error, SyftError)
    return cls.__name__ if bare else f"{cls.__module__}.{cls.__qualname__}"


def _nothing() -> None:
    """Do nothing, in place of a job that was abandoned."""


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in (__name__.partition(".")[0], "builtins", "abc", "typing")
