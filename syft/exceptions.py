"""Every error a user of this package can meet.

SyftError
├── ConnectionFailed            (also ConnectionError)
│   ├── WorkerUnreachable       (also ConnectionRefusedError)  nobody accepts the connection
│   ├── ConnectionLost          the connection broke while a call was waiting for its reply
│   ├── AccessDenied            (also PermissionError)  the worker does not know this coordinator
│   └── HandshakeFailed         something answers, but not as a worker does
│       └── VersionMismatch     a worker that speaks another version of the protocol
├── CallAbandoned               a worker stopped training, because nobody waits for the result
├── CallTimeout                 (also TimeoutError)  no reply within the caller's `timeout`
├── AddressInUse                (also OSError)  a server worker cannot listen on its port
├── TokenNotKept                (also OSError)  a server worker cannot store the token that it made
├── ProtocolError               (also ValueError)
│   ├── MalformedMessage        bytes that are not a message of this protocol
│   ├── MessageTooLarge         more bytes than either side allows
│   ├── OperatorNotAllowed      a model or function that could do more than compute
│   ├── InvalidReply            a worker's reply does not fit the request
│   └── UnknownCommand          a command or remote method that the worker does not offer
├── NotSerializable             (also TypeError)  a value that cannot travel
│   ├── NotScriptable           a model or function that TorchScript cannot compile
│   └── NotConvertible          a model or function that a plain graph cannot carry
├── WorkerNotFoundException     (also KeyError)  an id that no worker of this process has
├── ObjectNotFoundError         (also KeyError)
├── GetNotPermittedError        an object that its owner marked as private
├── TensorsNotCollocatedException  (also ValueError)  an operation on tensors of different places
├── InvalidTensorForRemoteGet   (also ValueError)  a worker cannot fetch what it has itself
├── RemoteValueNeeded           (also RuntimeError)  the value of a tensor that is at a worker
├── RemoteOperationFailed       (also RuntimeError)  an operation on remote tensors failed
├── RemoteOperationsOff         (also PermissionError)  a worker that runs no such operations
├── OperationsLost              (also RuntimeError)  a worker has forgotten its remote tensors
├── DatasetNotFound             (also ValueError)
├── DatasetExists               (also ValueError)
├── DatasetEmpty                (also ValueError)
├── TrainConfigMissing          (also ValueError)
├── UnknownOptimizer            (also ValueError)
├── DeviceUnavailable           (also ValueError)
├── EmptyRoundError             (also ValueError)
├── LimitExceeded               (also RuntimeError)  more than the worker grants
├── NotPermitted                (also PermissionError)  something the worker's owner does not allow
├── PrivacyBudgetSpent          (also PermissionError)  a fit would tell more than is left to tell
├── PrivacyAccountDamaged       (also ValueError)  the file of what was spent cannot be read
├── AuditLogUnavailable         (also RuntimeError)  a worker cannot write to its audit log
├── ModelMismatchError          (also ValueError)
├── QuorumNotReached            (also RuntimeError)  too few workers answered in a round
├── CheckpointError             (also ValueError)
│   ├── CheckpointDamaged       a file that is not a checkpoint, or not a whole one
│   └── CheckpointMismatch      a checkpoint of another model, or of a run with other arguments
├── HistoryDamaged              (also ValueError)
└── RemoteError                 anything else that was raised on a worker; also of the built-in
                                type that was raised there, so `except ValueError` still works

An error holds its facts as attributes and builds its text from them (syft/facts.py). The built-in
bases are those that programs written for PySyft 0.2 catch. What another process says of an error is
fit for a terminal once it has passed `printable` or `from_fields`.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from functools import cache
from typing import Any

from syft.facts import KINDS, facts_of
from syft.facts import SyftError as SyftError  # with "as": names of this module, too
from syft.facts import plain as plain
from syft.facts import printable as printable
from syft.facts import to_fields as to_fields


class ConnectionFailed(SyftError, ConnectionError):
    """No usable connection to a worker."""


@dataclass(eq=False)
class WorkerUnreachable(ConnectionFailed, ConnectionRefusedError):
    """Nobody accepted a connection at the worker's address before the deadline."""

    worker: str
    url: str
    seconds: float
    attempts: int
    cause: str
    _text = (
        "worker {worker!r} did not accept a connection at {url} within {seconds:g} s ({attempts} "
        "attempts; the last one: {cause}). Is the server running at {url}? Start the workers "
        "first: python start_websocket_servers.py"
    )


@dataclass(eq=False)
class ConnectionLost(ConnectionFailed):
    """The connection ended while a call was waiting for its reply."""

    worker: str
    url: str
    call: str
    cause: str
    _text = (
        "the connection to worker {worker!r} at {url} was lost during {call}: {cause}. The next "
        "call connects again; whether this one took effect is unknown."
    )


@dataclass(eq=False)
class AccessDenied(ConnectionFailed, PermissionError):
    """A worker refused the connection: the token or client certificate is missing or wrong.

    Or the request came from a web page, or asked for another host (see
    syft/workers/websocket_access.py).

    Attributes:
        cause: what the worker saw.
        remedy: what to do, a sentence.
    """

    worker: str
    url: str
    cause: str
    remedy: str = (
        "Use the worker's token (SYFT_TOKEN, --token_file or token=) and, if it asks for one, a "
        "client certificate that it trusts (cert_path=, key_path=)."
    )
    _text = "worker {worker!r} at {url} denied access: {cause}. {remedy}"


@dataclass(eq=False)
class HandshakeFailed(ConnectionFailed):
    """Something listens at the address, but it did not answer as a worker does."""

    worker: str
    url: str
    cause: str
    _text = (
        "no worker answers at {url} (expected {worker!r}): {cause}. Check the port, and that both "
        "sides use TLS or neither does (secure=); a certificate that the system does not know is "
        "trusted with ca_path=."
    )


@dataclass(eq=False)
class VersionMismatch(HandshakeFailed):
    """The two sides speak different versions of the protocol."""

    worker: str
    url: str
    cause: str
    ours: int
    theirs: int
    _text = (
        "worker {worker!r} at {url} speaks protocol version {theirs}; this side speaks version "
        "{ours}. Run the same version of this package on both machines."
    )


@dataclass(eq=False)
class CallAbandoned(SyftError):
    """A worker stopped training, because nobody waits for the result."""

    worker: str
    _text = (
        "worker {worker!r} stopped training: its coordinator has disconnected or no longer waits "
        "for the result, or the worker is shutting down."
    )


@dataclass(eq=False)
class CallTimeout(SyftError, TimeoutError):
    """A call had no reply within the timeout its caller asked for."""

    worker: str
    call: str
    seconds: float
    _text = (
        "worker {worker!r} did not answer {call} within {seconds:g} s (timeout=). The worker is "
        "told to stop; a late reply is dropped."
    )


@dataclass(eq=False)
class AddressInUse(SyftError, OSError):
    """A server worker cannot listen on the address it was given."""

    worker: str
    url: str
    cause: str
    _text = (
        "worker {worker!r} cannot listen at {url}: {cause}. Stop the process that uses this port, "
        "or choose another port."
    )


@dataclass(eq=False)
class TokenNotKept(SyftError, OSError):
    """A server worker was given no token, and cannot store the one that it made.

    It would be stored where its user's programs find it.
    """

    worker: str
    url: str
    cause: str
    _text = (
        "worker {worker!r} at {url} has no token, and cannot store one of its own: {cause}. Give "
        "the worker and its coordinators a token (SYFT_TOKEN or token=), or pass token='' to let "
        "in every user of this machine."
    )


class ProtocolError(SyftError, ValueError):
    """A message breaks the rules of the protocol."""


@dataclass(eq=False)
class MalformedMessage(ProtocolError):
    """Bytes that are not a message of this protocol."""

    reason: str
    _text = "malformed message: {reason}."


@dataclass(eq=False)
class MessageTooLarge(ProtocolError):
    """A message is larger than the limit of the side that names it."""

    worker: str
    what: str
    size: int
    limit: int
    _text = (
        "message too large: {what} {worker!r} is {size} bytes; the limit is {limit} bytes. Raise "
        "max_message_bytes on the client and on the server."
    )


@dataclass(eq=False)
class OperatorNotAllowed(ProtocolError):
    """A model or function uses an operator that is not on the list of those allowed."""

    operator: str
    where: str
    advice: str = ""

    def __str__(self) -> str:
        advice = (
            self.advice or "Write it without, or have the receiver allow it (allow_operators=)."
        )
        return (
            f"this model or function is refused: {self.where} uses {self.operator}, which is not "
            f"on the list of allowed operators (syft/graph/operators.py). {advice}"
        )


@dataclass(eq=False)
class InvalidReply(ProtocolError):
    """A worker's reply does not fit the request."""

    worker: str
    what: str
    observed: str
    expected: str
    _text = (
        "worker {worker!r} sent an invalid reply: {what}: {observed}; expected {expected}. The "
        "whole reply is discarded."
    )


@dataclass(eq=False)
class UnknownCommand(ProtocolError):
    """A coordinator called something that the worker does not offer."""

    worker: str
    command: str
    available: list[str]
    _text = (
        "worker {worker!r} offers no remote method {command!r}; it offers: {available}. To offer "
        "methods of your own, define them as public methods of a subclass of the server worker."
    )


@dataclass(eq=False)
class NotSerializable(SyftError, TypeError):
    """A value cannot be sent to, or back from, a worker."""

    what: str
    reason: str
    _text = (
        "{what} cannot be sent: {reason}. What can be sent: tensors, numpy arrays, models, loss "
        "functions, numbers, strings, bytes, None, and lists, tuples and dicts of these."
    )


@dataclass(eq=False)
class NotConvertible(NotSerializable):
    """A model or function does something that a plain graph cannot express."""

    _text = (
        "{what} cannot be sent: it uses {reason}, which a plain graph cannot express. Rewrite it "
        "without that, or trace it with torch.jit.trace(model, example_input)."
    )


@dataclass(eq=False)
class NotScriptable(NotSerializable):
    """TorchScript cannot compile a plain model or function."""

    _text = (
        "{what} cannot be sent: torch.jit.script refused it ({reason}). Trace it with "
        "torch.jit.trace(model, example_input), or rewrite it so that torch.jit.script compiles it."
    )


@dataclass(eq=False)
class WorkerNotFoundException(SyftError, KeyError):
    """No worker of this process has this id."""

    worker: Any
    known: list[str]
    _text = (
        "no worker {worker!r} is known in this process; it knows: {known}. Create its proxy first, "
        "or register it with add_worker()."
    )


@dataclass(eq=False)
class ObjectNotFoundError(SyftError, KeyError):
    """A worker holds no object with this id."""

    worker: str
    obj_id: Any
    _text = (
        "worker {worker!r} has no object with id {obj_id!r}. It was fetched with get() or deleted, "
        "or the worker was restarted; send it again."
    )


@dataclass(eq=False)
class GetNotPermittedError(SyftError):
    """An object is marked as private by its owner, so it is not handed out."""

    worker: str
    obj_id: Any
    _text = "worker {worker!r} does not hand out the object with id {obj_id!r}: it is private."


@dataclass(eq=False)
class TensorsNotCollocatedException(SyftError, ValueError):
    """An operation on tensors of different places.

    It is no TypeError: torch's operators (`x + y`) would turn one into Python's "unsupported
    operand type(s)".
    """

    operation: str
    places: list[str]
    _text = (
        "{operation} needs tensors that are together; these are on {places}. Call .get() to have "
        "them here, .move(worker) or .send(worker) to have them there."
    )


@dataclass(eq=False)
class InvalidTensorForRemoteGet(SyftError, ValueError):
    """A worker was asked to fetch a tensor from another worker, but holds the tensor itself."""

    worker: str
    pointer: str
    _text = (
        "remote_get() of {pointer}: worker {worker!r} holds the tensor itself; expected a pointer "
        "to a pointer, as .send(bob).send(alice) makes one. Call .get() to have the tensor here."
    )


@dataclass(eq=False)
class RemoteValueNeeded(SyftError, RuntimeError):
    """Something asked for the value of a tensor that is at a worker."""

    operation: str
    _text = (
        "{operation} needs the values of a tensor that is at a worker: call .get() first "
        "(pointer.copy().get() leaves it there)."
    )


@dataclass(eq=False)
class RemoteOperationFailed(SyftError, RuntimeError):
    """An operation on remote tensors failed at the worker, some time ago.

    Attributes:
        operation: the operation.
        error: the type of its error.
        message: the text of its error.
        site: number of the place in the program that posted it.
        line: that place, once it is known: file and line.
    """

    worker: str
    operation: str
    error: str
    message: str
    site: int = 0
    line: str = ""

    is_private = False  # at the worker: whether it tells of values that must not leave it

    def __str__(self) -> str:
        posted = f", posted at {self.line}," if self.line else ""
        return (
            f"operation {self.operation}{posted} failed on worker {self.worker!r}: {self.error}: "
            f"{self.message}"
        )


@dataclass(eq=False)
class RemoteOperationsOff(SyftError, PermissionError):
    """A worker whose owner lets nobody operate on its tensors."""

    worker: str
    _text = (
        "worker {worker!r} runs no operations on remote tensors: it has datasets, and its owner "
        "has not allowed it (remote_operations=True, --remote_operations). Train with a "
        "TrainConfig instead."
    )


@dataclass(eq=False)
class OperationsLost(SyftError, RuntimeError):
    """A worker has not received all operations that were posted."""

    worker: str
    _text = (
        "worker {worker!r} was restarted, or has forgotten this program while it was away: its "
        "remote tensors are gone. Send models and tensors again."
    )


@dataclass(eq=False)
class DatasetNotFound(SyftError, ValueError):
    """A worker has no dataset with this key."""

    worker: str
    dataset_key: str
    available: list[str]
    _text = (
        "worker {worker!r} has no dataset {dataset_key!r} (unknown dataset); it has: {available}."
    )


@dataclass(eq=False)
class DatasetExists(SyftError, ValueError):
    """A dataset key is already in use."""

    worker: str
    dataset_key: str
    _text = (
        "worker {worker!r} already has a dataset {dataset_key!r}. Remove it first with "
        "remove_dataset(), or choose another key."
    )


@dataclass(eq=False)
class DatasetEmpty(SyftError, ValueError):
    """A dataset has no samples, so there is nothing to train on or to evaluate."""

    worker: str
    dataset_key: str
    _text = "dataset {dataset_key!r} on worker {worker!r} has 0 samples; at least 1 is needed."


@dataclass(eq=False)
class TrainConfigMissing(SyftError, ValueError):
    """fit() or evaluate() was called before a TrainConfig was sent."""

    worker: str
    _text = "worker {worker!r} has no TrainConfig. Send one first: TrainConfig(...).send(worker)."


@dataclass(eq=False)
class UnknownOptimizer(SyftError, ValueError):
    """torch.optim has no optimizer of this name."""

    name: str
    available: list[str]
    _text = "unknown optimizer {name!r}; torch.optim has: {available}."


@dataclass(eq=False)
class DeviceUnavailable(SyftError, ValueError):
    """A worker does not have the requested device."""

    worker: str
    device: str
    available: list[str]
    _text = "worker {worker!r} has no device {device!r}; it has: {available}."


@dataclass(eq=False)
class LimitExceeded(SyftError, RuntimeError):
    """A coordinator asked for more than the worker's owner grants."""

    worker: str
    what: str
    observed: float
    limit: float
    setting: str
    _text = (
        "worker {worker!r} refused the request: {what} ({observed:,.10g}) would exceed the limit "
        "of {limit:,.10g} ({setting}, set by the worker's owner)."
    )


@dataclass(eq=False)
class NotPermitted(SyftError, PermissionError):
    """A coordinator asked for something that the worker's owner does not allow."""

    worker: str
    setting: str
    asked: str
    allowed: list[str]
    _text = (
        "worker {worker!r} does not permit {asked!r}; its owner allows these {setting}: {allowed}."
    )


@dataclass(eq=False)
class PrivacyBudgetSpent(SyftError, PermissionError):
    """A fit would cost more differential privacy than the worker's owner has left to grant.

    Attributes:
        spent: epsilon of all fits so far.
        asked: epsilon with this fit.
        epsilon: what all fits together may cost.
        delta: the other half of the guarantee.
    """

    worker: str
    spent: float
    asked: float
    epsilon: float
    delta: float
    _text = (
        "worker {worker!r} has spent epsilon {spent:.4g} of {epsilon:.4g} (delta {delta:g}); with "
        "this fit it would be {asked:.4g}. Ask for fewer steps or smaller batches; what is spent "
        "does not come back."
    )


@dataclass(eq=False)
class PrivacyAccountDamaged(SyftError, ValueError):
    """The file in which a worker keeps what its fits have cost cannot be read."""

    path: str
    reason: str
    _text = (
        "privacy account {path!r} cannot be used: {reason}. Restore it: without it, what was spent "
        "is unknown, so the worker trains no more. Each worker needs an account of its own."
    )


@dataclass(eq=False)
class AuditLogUnavailable(SyftError, RuntimeError):
    """A worker cannot write to its audit log, so it does and returns nothing."""

    worker: str
    cause: str
    _text = (
        "worker {worker!r} refused the request: its audit log cannot be written ({cause}), and it "
        "does and returns nothing that it cannot record. The worker's owner has to make the file "
        "writable or free some space."
    )


class EmptyRoundError(SyftError, ValueError):
    """federated_avg() was given no model."""

    _text = (
        "nothing to average: `models` is empty; at least one model is needed. Did every worker "
        "fail this round?"
    )


@dataclass(eq=False)
class ModelMismatchError(SyftError, ValueError):
    """Models cannot be averaged, because their parameters differ in name, shape or dtype."""

    model: str
    name: str
    observed: str
    expected: str
    _text = (
        "models differ: parameter {name!r} of model {model!r} is {observed}; expected {expected}, "
        "as in the first model. All models of a round must have the same structure."
    )


@dataclass(eq=False)
class QuorumNotReached(SyftError, RuntimeError):
    """Too few workers answered in a round.

    Attributes:
        received: number of models received.
        needed: number of models the round needs.
        failures: worker id -> reason.
    """

    received: int
    needed: int
    failures: dict[str, str]

    def __str__(self) -> str:
        reasons = "; ".join(f"{worker}: {reason}" for worker, reason in self.failures.items())
        models = "1 model" if self.received == 1 else f"{self.received} models"
        return (
            f"received {models}; the round needs {self.needed} (min_workers). Failures: {reasons}."
        )


class CheckpointError(SyftError, ValueError):
    """A checkpoint cannot be used."""


@dataclass(eq=False)
class CheckpointDamaged(CheckpointError):
    """A file is not a checkpoint of this package, or not a whole one."""

    path: str
    reason: str
    _text = (
        "checkpoint {path!r} cannot be used: {reason}. Resume from another file, or start a new "
        "run."
    )


@dataclass(eq=False)
class CheckpointMismatch(CheckpointError):
    """A checkpoint belongs to another model, or to a run with other arguments."""

    path: str
    what: str
    observed: str
    expected: str
    _text = (
        "checkpoint {path!r} belongs to another run: its {what} is {observed}; expected "
        "{expected}. Resume with the model and the arguments of that run."
    )


@dataclass(eq=False)
class HistoryDamaged(SyftError, ValueError):
    """The file that a run's history should continue is not a history."""

    path: str
    line: str
    _text = (
        "history {path!r} cannot be continued: the line {line!r} does not describe a round. Name "
        "another file."
    )


@dataclass(eq=False)
class RemoteError(SyftError):
    """An error on a worker that is not one of this package's own.

    Attributes:
        worker: id of the worker.
        call: the call that failed, with its plain arguments.
        type_name: name of the exception's type on the worker, for example 'ValueError'.
        message: the exception's text.
        traceback: the traceback on the worker.
    """

    worker: str
    call: str
    type_name: str
    message: str
    traceback: str

    def __str__(self) -> str:
        return (
            f"worker {self.worker!r} failed in {self.call}: {self.type_name}: {self.message}\n"
            f"  --- traceback on worker {self.worker!r} ---\n{_indented(self.traceback)}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # By the name of the built-in type: the class was made at run time and has none of its own.
        return _remote_error, (to_fields(self),), {"remote_traceback": self.remote_traceback}

    @classmethod
    def of(cls, type_name: str, **fields: Any) -> RemoteError:
        """Return a RemoteError that is also of the built-in type `type_name`, where there is one.

        StopIteration is left out, since Python does not let it out of a coroutine.
        """
        try:
            return _remote_error_class(type_name)(type_name=type_name, **fields)
        except TypeError:  # the built-in type has a constructor of its own
            return RemoteError(type_name=type_name, **fields)


def _remote_error(fields: dict[str, Any]) -> RemoteError:
    return RemoteError.of(**fields)


def _remote_error_class(type_name: str) -> type[RemoteError]:
    base = vars(builtins).get(type_name)
    if not (isinstance(base, type) and issubclass(base, Exception)) or issubclass(
        RemoteError, base
    ):
        return RemoteError
    return _remote_error_of(type_name)


@cache  # for built-in types only: any other name is a worker's invention
def _remote_error_of(type_name: str) -> type[RemoteError]:
    base = getattr(builtins, type_name)
    if issubclass(base, (StopIteration, StopAsyncIteration)):
        return RemoteError
    return type("RemoteError", (RemoteError, base), {"__module__": __name__})


def from_fields(type_name: str, fields: Any) -> SyftError | None:
    """Return the error of this package that another process tells.

    Args:
        type_name: the error's name.
        fields: its facts. Texts in it are made printable.

    Returns:
        The error; None if there is no error of this name, or if it has other facts, or facts of
        other types.
    """
    cls = _own_class(type_name)
    facts = facts_of(cls) if cls is not None else {}
    if cls is None or not isinstance(fields, dict) or fields.keys() != facts.keys():
        return None
    try:
        fields = plain(fields)
        if not all(KINDS[kind](fields[name]) for name, kind in facts.items()):
            return None
        error = cls(**fields)
        str(error)
    except Exception:  # nested too deep, say, or with a number that its text cannot hold
        return None
    return error


def _own_class(type_name: Any) -> type[SyftError] | None:
    cls = globals().get(type_name) if isinstance(type_name, str) else None
    return (
        cls
        if isinstance(cls, type) and issubclass(cls, SyftError) and cls is not RemoteError
        else None
    )


def _indented(text: str) -> str:
    return "\n".join("  " + line for line in text.rstrip().splitlines())
