"""Structures of models that both ends of a connection know, so that only parameters travel from then on.

    coordinator                                  worker
    add(key, archive)  --- learn {key: archive}  --->  add(key, archive)      once a connection
    a model            --- key, tensors          --->  model(key)             every time after that
    model(key)         <-- key, tensors          ---   a model with a structure that is known here

The coordinator decides what is learned. The key is the structure's digest (`archive.structure_digest`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from syft import torchscript
from syft.exceptions import MalformedMessage
from syft.torchscript import MAX_STRUCTURE_BYTES, MAX_STRUCTURES


class Structures:
    """The structures that one end of a connection knows. Safe to use from several threads.

    Attributes:
        max_bytes: the largest archive that is remembered.
    """

    def __init__(self) -> None:
        self.max_bytes = MAX_STRUCTURE_BYTES
        self._archives: dict[str, bytes] = {}
        self._templates: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        return key in self._archives

    def add(self, key: str, archive: bytes) -> bool:
        """Remember a structure, unless it is too large or there are too many; return whether it is known now."""
        with self._lock:
            if key not in self._archives:
                if len(archive) > self.max_bytes or len(self._archives) >= MAX_STRUCTURES:
                    return False
                self._archives[key] = archive
            return True

    def besides(self, keys: set[str]) -> dict[str, bytes]:
        """Return the structures with other keys than these: key -> archive."""
        with self._lock:
            return {key: archive for key, archive in self._archives.items() if key not in keys}

    def model(self, key: str, allow_operators: Iterable[str] = ()) -> Any:
        """Return a new model of a known structure, whose tensors are empty.

        Args:
            key: the structure's key.
            allow_operators: operators that it may use beside those of operators.py.

        Raises:
            OperatorNotAllowed: it uses an operator that is not allowed.
            MalformedMessage: the structure is not known, or cannot be read.
        """
        with self._lock:
            if key not in self._archives:
                raise MalformedMessage(f"structure {key!r:.20} was not sent on this connection")
            if key not in self._templates:
                self._templates[key] = torchscript.load_structure(self._archives[key], allow_operators)
            template = self._templates[key]
        model = torchscript.clone(template)
        model.__dict__["_structure_digest"] = template.__dict__["_structure_digest"]  # what vetting found, not the key
        return model
