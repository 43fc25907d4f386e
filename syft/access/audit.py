"""The audit log: JSON objects, one a line, for everything that coordinators ask of a worker.

    time      when the line was written, ISO 8601, UTC
    worker    the worker's id
    who       address, session (first 8 hexadecimal digits of its name's SHA-256), and how the
              coordinator showed who it is: token (such digits too), certificate (its subject)
    call      the request, with its plain arguments
    model     digest of the model: structure (SHA-256 of its graph and constants; of the file for a
              TorchScript archive) and values (SHA-256 of its parameters, as sent)
    samples   how many samples it read; null where nobody counts them
    outcome   "started", "done", or the error's name
    seconds   how long it took

Each request has a line with its outcome; its result is handed out after that line is written, and
never without. A call that computes (fit, evaluate, methods of the owner's own) has a line "started"
as well, without which it does not start.

No sample, no result, no token and no name of a session is written. A line has at most
MAX_LINE_BYTES; longer texts are cut.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from datetime import datetime, timezone
from typing import Any

from torch import nn

from syft.graph.content import bytes_of
from syft.graph.returned import state_of

MAX_LINE_BYTES = 8192  # follows from _MAX_TEXT; a test checks it
_MAX_TEXT = 1500  # of a text in a line, as JSON; a coordinator chooses no more than four of them


class AuditLog:
    """Appends to an audit log; several workers may share one file.

    Args:
        path: the file; it is made if need be, readable by its owner only.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = os.open(
            path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600
        )
        self._lock = threading.Lock()
        self._torn = False  # the last line was written in part

    def write(self, **fields: Any) -> None:
        """Append a line. It is one write, so that lines of several processes do not mix.

        Raises:
            OSError: it cannot be written, or not as a whole.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps(_cut({"time": now, **fields}), default=str).encode() + b"\n"
        with self._lock:
            data = b"\n" + line if self._torn else line
            written = os.write(self._file, data)
            self._torn = written < len(data)
            if self._torn:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


def _cut(value: Any) -> Any:
    """Return a value with its long texts cut."""
    if isinstance(value, dict):
        return {name: _cut(item) for name, item in value.items()}
    if isinstance(value, str) and len(json.dumps(value[:_MAX_TEXT])) > _MAX_TEXT:
        return json.dumps(value[:_MAX_TEXT])[1 : _MAX_TEXT - 20] + "..."
    return value


def fingerprint(secret: str) -> str:
    """Return 8 hexadecimal digits that identify a token or session without revealing it."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


def values_digest(model: nn.Module) -> str:
    """Return the SHA-256 of a model's parameters and buffers, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state_of(model).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()
