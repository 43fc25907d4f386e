"""The audit log: one JSON object a line for everything that coordinators ask of a worker.

    time      when the request was carried out, ISO 8601, UTC
    worker    the worker's id
    who       address, session, and how the coordinator showed who it is: token (first 8 hexadecimal digits of the
              token's SHA-256), certificate (its subject)
    call      the request, with its plain arguments
    model     digest of the model: structure (SHA-256 of its source) and values (SHA-256 of its parameters, as sent)
    samples   how many samples it read; null where nobody counts them
    outcome   "done", or the error's name
    seconds   how long it took

No sample, no result and no token is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from datetime import datetime, timezone
from typing import Any

import torch
from torch import nn


class AuditLog:
    """Appends to an audit log; several workers may share one file.

    Args:
        path: the file; it is made if need be, readable by its owner only.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        self._lock = threading.Lock()

    def write(self, **fields: Any) -> None:
        """Append a line. It is one write, so that lines of several processes do not mix."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, **fields}, default=str)
        with self._lock:
            os.write(self._file, line.encode() + b"\n")

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


def fingerprint(secret: str) -> str:
    """Return what tells tokens apart without giving them away."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


def values_digest(model: nn.Module) -> str:
    """Return the SHA-256 of a model's parameters and buffers, in the order of their names."""
    digest = hashlib.sha256()
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in sorted(named.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
