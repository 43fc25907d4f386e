"""How a failure on a worker is told to its coordinator, and raised there again.

Either side may be hostile. What a coordinator put into names and values, and what a worker says of
its errors, is made printable by the one who sends it and by the one who shows it: no escape codes
reach a log or a terminal.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from syft import exceptions, wire
from syft.exceptions import MalformedMessage, RemoteError, SyftError, printable
from syft.objects import ObjectId

_MAX_TRACEBACK = 20_000
_MAX_CALL = 1000


def failure(request_id: int, call: str, error: BaseException) -> bytes:
    """Return the failure that tells `error` to the coordinator, as bytes."""
    # The end of it: the last frames are those nearest to the error.
    text = printable("".join(traceback.format_exception(error))[-_MAX_TRACEBACK:])
    # A RemoteError here comes from a further worker; to this coordinator it is an error like
    # others.
    own = isinstance(error, SyftError) and not isinstance(error, RemoteError)
    fields = exceptions.to_fields(error) if own else {}  # type: ignore[arg-type]
    return wire.encode(
        wire.Failure(request_id, _type_name(error), _text(error), fields, printable(call), text)
    )


def unwrap(frame: bytes, worker_id: ObjectId) -> Any:
    """Return the result that a reply holds, or raise the error that it tells.

    Args:
        frame: the reply.
        worker_id: the worker's id, for errors.

    Raises:
        SyftError: the error of this package that the worker raised, with `remote_traceback`.
        RemoteError: any other error of the worker.
        MalformedMessage: the reply cannot be read; it names the worker.
    """
    try:
        message = wire.decode(frame)
        if isinstance(message, wire.Request):
            raise MalformedMessage("a Request where a reply is expected")
    except MalformedMessage as malformed:
        raise malformed_reply(worker_id, malformed.reason) from None
    if isinstance(message, wire.Reply):
        return message.result
    error, text = exceptions.from_fields(message.type, message.fields), printable(message.traceback)
    if error is None:
        error = RemoteError.of(
            type_name=printable(message.type, 200),
            worker=str(worker_id),
            call=printable(message.call),
            message=printable(message.message),
            traceback=text,
        )
    error.remote_traceback = text
    raise error


def malformed_reply(worker_id: ObjectId, reason: str) -> MalformedMessage:
    """Return the error of a reply that cannot be read, with the worker that sent it."""
    return MalformedMessage(f"the reply of worker {str(worker_id)!r}: {reason}")


def describe_request(command: str, arguments: Mapping[str, Any]) -> str:
    """Return a request as text: the call that it asks for, or the command with its arguments."""
    if command == "call":
        name, args, kwargs = (arguments.get(key) for key in ("name", "args", "kwargs"))
        if (
            isinstance(name, str)
            and isinstance(args, (list, tuple))
            and isinstance(kwargs, Mapping)
        ):
            return describe_call(name, args, kwargs)
    if command == "operate":
        counts = {
            name: len(value)
            for name in ("operations", "values", "geometries")
            if isinstance(value := arguments.get(name), (list, tuple)) and value
        }
        return describe_call(command, (), {"number": arguments.get("number"), **counts})
    if command in ("set", "train_config") and isinstance(arguments.get("objects"), (list, tuple)):
        objects = [each for each in arguments["objects"] if isinstance(each, Mapping)]
        ids = {"ids": ", ".join(abbreviated(each.get("id")) for each in objects[:8])}
        return describe_call(
            command, (), {key: each for key, each in arguments.items() if key != "objects"} | ids
        )
    return describe_call(command, (), arguments)


def describe_call(name: str, args: Any, kwargs: Mapping[str, Any]) -> str:
    """Return a call as text of at most 1,000 characters, such as fit(dataset_key='mnist').

    Long parts are shortened.
    """
    shown = [abbreviated(value) for value in args] + [
        f"{_name(key)}={abbreviated(value)}" for key, value in kwargs.items()
    ]
    text = f"{_name(name)}({', '.join(shown)})"
    return text if len(text) <= _MAX_CALL else text[: _MAX_CALL - 4] + "...)"


def _name(name: Any) -> str:
    """Return a name as it is, if it looks like one; else as text that is fit for a line."""
    return (
        name
        if isinstance(name, str) and name.isidentifier() and len(name) <= 60
        else abbreviated(name)
    )


def abbreviated(value: Any) -> str:
    """Return a value as text of at most 60 characters; tensors and arrays by their shapes."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        shape = f"{tuple(value.shape)}" if value.ndim <= 8 else f"of {value.ndim} dimensions"
        return f"<{type(value).__name__} {shape}>"
    if isinstance(value, (str, bytes)):
        value = value[:60]  # what is longer is cut anyway
    text = (
        repr(value)
        if isinstance(value, (str, int, float, bytes, type(None)))
        else f"<{type(value).__name__}>"
    )
    return text if len(text) <= 60 else text[:57] + "..."


def _text(error: BaseException) -> str:
    try:
        return printable(str(error))
    except Exception as reason:
        return f"<its text failed: {type(reason).__name__}>"


def _type_name(error: BaseException) -> str:
    """Return the bare name of built-in errors and of this package's own, else the qualified one."""
    cls = type(error)
    bare = cls.__module__ == "builtins" or isinstance(error, SyftError)
    return cls.__name__ if bare else f"{cls.__module__}.{cls.__qualname__}"
