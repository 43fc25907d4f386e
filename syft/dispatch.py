"""A worker without a socket: requests in, replies out.

    request bytes -> Dispatcher.accept -> Job -> Dispatcher.run -> reply bytes

`VirtualWorker` runs the jobs where they arrive; `WebsocketServerWorker` runs the long ones in a
compute thread. Nothing here opens a socket or knows asyncio, so both behave the same and tests need
no network.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from syft import wire
from syft.access.guard import Guard
from syft.access.limits import Budget
from syft.commands import COMMANDS, MAX_NAME, check_arguments
from syft.exceptions import (
    AuditLogUnavailable,
    CallAbandoned,
    GetNotPermittedError,
    LimitExceeded,
    MalformedMessage,
    MessageTooLarge,
    RemoteOperationsOff,
    UnknownCommand,
)
from syft.graph import Receiver
from syft.graph.kinds import NUMBERS
from syft.graph.returned import state_of
from syft.objects import ObjectId, ObjectWrapper, is_private, pack_object, unpack_object
from syft.remote.executor import Executor, Objects
from syft.session import (
    Job,
    RunningCall,
    Session,
    SessionObjects,
    TrainingState,
    do_nothing,
    running,
)
from syft.wire.failures import describe_call, describe_request, failure

logger = logging.getLogger(__name__)

BACKGROUND_METHODS = frozenset({"fit", "evaluate"})
"""Methods of every worker that may take long; a server answers other requests meanwhile."""
QUICK_METHODS = frozenset({"list_objects", "objects_count", "clear_objects", "privacy_spent"})
"""Methods of every worker that are answered at once, also during training."""


class Worker(Objects, Protocol):
    """What a dispatcher uses of its worker."""

    id: ObjectId
    verbose: bool

    @property
    def allows_remote_operations(self) -> bool:
        """Whether coordinators may have it operate on remote tensors."""

    def set_obj(self, obj: Any) -> None:
        """Store an object under its id."""

    def get_obj(self, obj_id: ObjectId) -> Any:
        """Return the object with this id, or raise ObjectNotFoundError."""

    def clear_objects(self) -> Any:
        """Remove all objects."""

    def current_objects(self) -> dict[ObjectId, Any]:
        """Return a copy of the mapping from id to object."""

    def offered_objects(self) -> dict[ObjectId, Any]:
        """Return what the worker's owner offers to all coordinators."""

    def search_objects(self, query: Any) -> list[Any]:
        """Return the objects that carry all tags of `query`, or the one whose id is in it."""

    def train_config_from(self, fields: Mapping[str, Any]) -> Any:
        """Return the TrainConfig that a coordinator sent as plain values."""


# The life of a request, and the thread in which a server does each step:
#
#     accept     read, check, make a Job      the event loop; another thread if the frame is large
#                                             or holds a model
#     wait       calls only                   the queue of the compute thread
#     run        carry out, encode the reply  where COMMANDS says
#     record     write the audit line         the same thread
#     delivered  let go of a fetched object   the same thread
#
# Three things depend on this order.
#
# - The requests of one connection are accepted one after another. So a call sees the config that
#   was sent before it, and none that was sent later, however long it waits for its turn.
# - A reply is handed out after its line is in the audit log. If that line cannot be written, the
#   coordinator gets an error in place of the result: no result leaves the worker unrecorded.
# - A fetched object goes only after its reply was encoded, found small enough and recorded. So a
#   reply that is refused does not lose a trained model.


class Dispatcher:
    """Carries out requests on one worker.

    Args:
        worker: the worker; its id, object storage and methods are used.
        max_message_bytes: a reply of more bytes becomes an error that says so.
        allow_operators: operators that models may use beside those of syft/graph/operators.py.
        allow_torchscript: take models as TorchScript archives too, which trusts all coordinators.
        guard: what coordinators may use and ask for; None: as Limits says, and everything that the
            worker offers.

    Raises:
        ValueError: the guard's policy has privacy, and `allow_torchscript` is set: an archive's
            code could read the data by itself.
    """

    def __init__(
        self,
        worker: Worker,
        max_message_bytes: int = wire.MAX_MESSAGE_BYTES,
        allow_operators: Iterable[str] = (),
        allow_torchscript: bool = False,
        guard: Guard | None = None,
    ) -> None:
        self.worker = worker
        self.max_message_bytes = max_message_bytes
        self.sessions: dict[str, Session] = {}
        self.guard = guard if guard is not None else Guard(str(worker.id))
        if allow_torchscript and self.guard.policy.privacy is not None:
            raise ValueError(
                "allow_torchscript is set for a worker with a privacy budget: the code in an "
                "archive could read the data by itself; expected one or the other."
            )
        self.receiver = Receiver(self.guard.policy.check_model, allow_operators, allow_torchscript)
        self._commands: dict[str, Callable[..., Any]] = {
            "set": self._set,
            "get": self._get,
            "operate": self._operate,
            "delete": self._delete,
            "search": self._search,
            "train_config": self._train_config,
            "cancel": self._cancel,
        }

    def job(self, request: wire.Request, session: Session) -> Job:
        """Return the job for a request.

        Requests of one session must be turned into jobs in their order.

        Raises:
            UnknownCommand: there is no such command, or the worker offers no such method.
            MalformedMessage: the command has other arguments than it should.
            NotPermitted, LimitExceeded: the worker's owner does not allow it.
        """
        if request.command not in COMMANDS:
            raise UnknownCommand(str(self.worker.id), request.command[:MAX_NAME], sorted(COMMANDS))
        check_arguments(request.command, request.arguments)
        return (
            self._call(request, session)
            if request.command == "call"
            else self._command(request, session)
        )

    def _command(self, request: wire.Request, session: Session) -> Job:
        name, arguments = request.command, request.arguments
        if name == "operate" and not self.worker.allows_remote_operations:
            raise RemoteOperationsOff(str(self.worker.id))
        job = Job(
            request.id,
            describe_request(name, arguments),
            session,
            partial(self._within, session, self._commands[name], session, **arguments),
            COMMANDS[name].place,
        )
        if name == "get":  # an object that cannot be delivered stays
            job.delivered = partial(
                self._within, session, self._delivered, session, arguments["id"]
            )
        if name == "operate":
            job.is_silent, job.waits_for_room = not arguments["answer"], True
        return job

    def run(self, job: Job) -> bytes:
        """Run a job and return its reply, or its failure, as bytes; none if nothing is replied.

        Nothing is returned before it is in the audit log.
        """
        started = time.perf_counter()
        frame, outcome = self._frame_and_outcome(job)
        seconds = time.perf_counter() - started
        samples = job.budget.samples if job.budget is not None else None
        try:
            self.guard.record(
                job.session.caller, job.call, outcome, seconds, job.model_digest, samples
            )
            if job.delivered is not None and outcome == "done":
                job.delivered()
        except AuditLogUnavailable as error:
            outcome, frame = type(error).__name__, failure(job.request_id, job.call, error)
        level = logging.INFO if self.worker.verbose else logging.DEBUG
        told = outcome if outcome == "done" else f"failed ({outcome})"
        message = "worker %s: %s %s in %.1f ms, reply of %d bytes"
        logger.log(level, message, self.worker.id, job.call, told, 1000 * seconds, len(frame))
        return frame

    def _frame_and_outcome(self, job: Job) -> tuple[bytes, str]:
        if job.refusal is not None:
            return job.refusal
        try:
            if job.abandoned.is_set():
                raise CallAbandoned(str(self.worker.id))
            # A call may hang, or take the process down with it; then the log at least shows that it
            # began.
            if job.place == "compute":
                self.guard.record(job.session.caller, job.call, "started", 0, job.model_digest)
            result = job.run()
            if job.is_silent:
                return b"", "done"
            limit = min(self.max_message_bytes, job.session.max_message_bytes)
            reply = wire.Reply(job.request_id, result)
            try:
                frame = wire.encode(reply, max_bytes=limit)
                size = len(frame)
            except wire.TensorsTooLarge as error:
                size = error.size
            if size > limit:
                what = f"the reply to {job.call} of"
                raise MessageTooLarge(str(self.worker.id), what, size, limit)
            return frame, "done"
        # SystemExit: a method of the owner's that calls sys.exit() has failed; the worker goes on.
        except (Exception, SystemExit) as error:
            return failure(job.request_id, job.call, error), type(error).__name__

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

    def accept(self, frame: bytes, session: Session) -> Job:
        """Return the job for the request that `frame` holds.

        If the request is refused, the job has that as its reply. The error is told here and now: it
        would keep all that was read of the message alive.

        Raises:
            MalformedMessage: `frame` has no readable header, so there is no request to reply to.
        """
        request_id, call = wire.peek_id(frame), "a request"
        try:
            request = self.decode(frame)
            call = describe_request(request.command, request.arguments)
            return self.job(request, session)
        except Exception as error:
            refusal = failure(request_id, call, error), type(error).__name__
            return Job(request_id, call, session, do_nothing, refusal=refusal)

    def handle(self, frame: bytes, session: Session) -> bytes:
        """Carry out the request that `frame` holds and return its reply, or its failure, as bytes.

        Raises:
            MalformedMessage: `frame` has no readable header, so there is no request to reply to.
        """
        return self.run(self.accept(frame, session))

    def open_session(self, name: str) -> Session:
        """Return the session of this name, a new one or that of before.

        Raises:
            LimitExceeded: there are too many, and all of them are connected.
        """
        if name not in self.sessions:
            # In the order in which they were opened; the oldest makes room.
            idle = [session for session in self.sessions.values() if not session.connected]
            limit = self.guard.limits.sessions
            if len(self.sessions) >= limit and idle:
                self.end_session(idle[0])
            if len(self.sessions) >= limit:
                what = "the coordinators that are connected"
                raise LimitExceeded(
                    str(self.worker.id), what, len(self.sessions) + 1, limit, "sessions"
                )
            self.sessions[name] = Session(
                name, objects=SessionObjects(self.worker.id, self.worker.offered_objects)
            )
        return self.sessions[name]

    def end_session(self, session: Session) -> None:
        """Forget a session, with its objects."""
        # Its coordinator may have come back meanwhile, with a new session of this name.
        if self.sessions.get(session.name) is session:
            del self.sessions[session.name]
        self._within(session, self._clear, session)

    def callable_methods(self) -> list[str]:
        """Return the names of the methods that may be called from afar.

        They are those above and the owner's own: the public methods that a subclass of this
        package's workers defines. Overriding a method of this package, add_dataset for example,
        does not open it to the network.
        """
        own_classes = [cls for cls in type(self.worker).__mro__ if not _is_ours(cls)]
        own = {
            name
            for cls in own_classes
            for name, value in vars(cls).items()
            if isinstance(value, (staticmethod, classmethod)) or inspect.isfunction(value)
        }
        reserved = {
            name for cls in type(self.worker).__mro__ if cls not in own_classes for name in dir(cls)
        }
        public = {name for name in own if not name.startswith("_")} - reserved
        return sorted(public | BACKGROUND_METHODS | QUICK_METHODS)

    def _call(self, request: wire.Request, session: Session) -> Job:
        name, args, kwargs = (request.arguments[key] for key in ("name", "args", "kwargs"))
        call = describe_call(name, args, kwargs)
        if name not in self.callable_methods():
            raise UnknownCommand(str(self.worker.id), name, self.callable_methods())
        training = session.training  # as of now: a later TrainConfig is for later calls
        # The worker's own clear_objects() would leave the training state behind.
        method = (
            partial(self._clear, session) if name == "clear_objects" else getattr(self.worker, name)
        )
        abandoned = threading.Event()
        # Counted before it may be refused or abandoned, as on the coordinator's side.
        fit_number = (
            session.count_fit(training) if name == "fit" and training.config is not None else None
        )
        # Checked now rather than in its turn, so that a refused call takes no place in the queue.
        budget = self.guard.permit(name, method, args, kwargs)

        def run() -> Any:
            # The clock starts here: time spent in the queue does not count.
            budget.begin()
            budget.abandoned = abandoned
            with running(
                RunningCall(self.worker, session, training, abandoned, budget, fit_number)
            ):
                return method(*args, **kwargs)

        digest = training.model_digest if name in BACKGROUND_METHODS else None
        place = "thread" if name in QUICK_METHODS else COMMANDS["call"].place
        job = Job(
            request.id, call, session, run, place, abandoned, budget=budget, model_digest=digest
        )
        session.calls[request.id] = job
        return job

    def _within(
        self, session: Session, command: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Carry out a command while the worker's methods are about this session's objects.

        So methods that a subclass overrides, set_obj() for example, see what coordinators send.
        """
        budget = Budget(self.guard.worker, self.guard.limits.call_seconds)
        with running(
            RunningCall(self.worker, session, session.training, threading.Event(), budget)
        ):
            return command(*args, **kwargs)

    def _cancel(self, session: Session, request_id: int) -> None:
        """Abandon a call whose caller does not wait for it any more; do nothing if it is done."""
        job = session.calls.get(request_id)
        if job is not None:
            job.abandon()

    def _set(self, session: Session, objects: list[dict[str, Any]]) -> None:
        for packed in objects:
            if session.executor is not None:
                session.executor.delete(packed["id"])
            self._set_one(session, packed)

    def _set_one(self, session: Session, packed: Mapping[str, Any]) -> None:
        stored = unpack_object(packed["id"], packed)
        # No session store: a VirtualWorker is its own coordinator and needs no bounds against
        # itself. An object is admitted before it is hashed, so that one that is too large costs no
        # time.
        if session.objects is not None:
            self.guard.admit(session.caller, stored)
        if isinstance(stored, ObjectWrapper):
            stored.digests = self.guard.digest(stored)
        self.worker.set_obj(stored)

    def _operate(
        self,
        session: Session,
        stream: int,
        number: int,
        operations: list[Any],
        values: list[ObjectId],
        geometries: list[ObjectId],
        answer: bool,
    ) -> dict[str, Any]:
        if session.executor is None:
            session.executor = self._new_executor(session)
        limits = self.guard.limits
        budget = Budget(self.guard.worker, limits.call_seconds, bytes=limits.call_bytes)
        budget.begin()
        return session.executor.run(stream, number, operations, values, geometries, budget)

    def _new_executor(self, session: Session) -> Executor:
        # As in `_set`: nothing is counted where worker and coordinator are one.
        objects, hold = session.objects or self.worker, None
        if session.objects is not None:
            hold = partial(self.guard.hold, session.caller)
        store = partial(self._set_one, session)
        return Executor(str(self.worker.id), objects, self.guard.limits, store, hold)

    def _get(self, session: Session, id: ObjectId) -> Any:
        obj = self.worker.get_obj(id)
        if self._is_private(session, obj):
            raise GetNotPermittedError(str(self.worker.id), id)
        # Of a model only tensors travel; the coordinator puts them into the model that it sent.
        packed = pack_object(obj)
        state = _state(packed["obj"])
        return packed | {"state": state} | ({} if state is None else {"obj": None})

    @staticmethod
    def _is_private(session: Session, obj: Any) -> bool:
        executor = session.executor
        return is_private(obj) or (executor is not None and executor.is_private(obj))

    def _delete(self, session: Session, ids: list[ObjectId]) -> None:
        for obj_id in ids:
            if session.executor is not None:
                session.executor.delete(obj_id)
            self.worker.rm_obj(obj_id)

    def _delivered(self, session: Session, obj_id: ObjectId) -> None:
        """Keep nothing of an object that was fetched, unless the worker's owner offers it."""
        self._delete(session, [obj_id])
        training = session.training
        if training.kept.pop(obj_id, None) is not None and obj_id == training.config._model_id:
            training.optimizer = None  # it holds the parameters

    def _clear(self, session: Session, *args: Any, **kwargs: Any) -> None:
        """Remove the coordinator's objects and its training state. The arguments are ignored."""
        if session.executor is not None:
            session.executor.clear()
        self.worker.clear_objects()
        session.training = TrainingState()

    def _search(self, session: Session, query: Any) -> list[dict[str, Any]]:
        return [
            {
                "id": obj.id,
                "tags": sorted(getattr(obj, "tags", None) or ()),
                "description": getattr(obj, "description", None),
                **_geometry(None if self._is_private(session, obj) else obj),
            }
            for obj in self.worker.search_objects(query)
        ]

    def _train_config(
        self,
        session: Session,
        fields: dict[str, Any],
        fits: int = 0,
        objects: list[dict[str, Any]] = [],  # noqa: B006 - only read
    ) -> None:
        self._set(session, objects)
        config = self.worker.train_config_from(fields)
        stored = self.worker.current_objects()
        # A missing object is no error yet: fit() and evaluate() name it, and the owner's own
        # methods may do without.
        ids = (config._model_id, config._loss_fn_id, config._correction_id)
        kept = {key: stored[key] for key in ids if key in stored}
        for key in kept:
            if (
                session.objects is not None
                and (copied := session.objects.copy_of_offered(key)) is not None
            ):
                self.guard.admit(session.caller, copied)
                copied.digests = self.guard.digest(copied)
                kept[key] = copied
        digests = getattr(kept.get(config._model_id), "digests", None)
        session.training = TrainingState(config, kept=kept, model_digest=digests, fits_before=fits)


def _state(obj: Any) -> dict[str, torch.Tensor] | None:
    """Return what of a model or function travels back: its tensors by name, never its code.

    None for anything else.
    """
    if isinstance(obj, nn.Module):
        return state_of(obj)
    return {} if inspect.isroutine(obj) else None


def _geometry(obj: Any) -> dict[str, Any]:
    """Return what a pointer to an object has to know: of a tensor its shape, dtype and so on."""
    if not isinstance(obj, torch.Tensor):
        return {"shape": None}
    return {
        "shape": tuple(obj.shape),
        "stride": tuple(obj.stride()),
        "dtype": NUMBERS.get(obj.dtype),
        "requires_grad": obj.requires_grad,
    }


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in (
        __name__.partition(".")[0],
        "builtins",
        "abc",
        "typing",
    )
