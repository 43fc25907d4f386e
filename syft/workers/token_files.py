"""The token that a worker on loopback makes when it was given none.

It is in a file that its user's programs find:

    worker, user u                                  proxy, user u, same machine
    bind 127.0.0.1:8777
    write ~/.local/state/syft-workers/
          <machine>_127.0.0.1_8777, mode 600
    listen <---------------------------- connect -- to 127.0.0.1:8777, by whatever name
                                                    read the file of that address and port;
                                                    none: send no token
           <---------------- Authorization: Bearer ...
    stop: remove the file

So whoever can read the user's files may use the user's workers, and nobody else on the machine: no
other user, no container that only shares the network. Programs of the user need not know of it.

- The file is written before the worker listens and read after the connection is open, so it is the
  listener's. One that a crash left behind does no harm: the next worker there overwrites it, and a
  worker without a token takes any.
- It is named by the address and not only by the port. Who listens on another loopback address gets
  no token from those who look for this worker.
- A home directory outlives sessions, is the same in all of them (cron, ssh, systemd:
  XDG_RUNTIME_DIR is not) and cannot be written by others, as /tmp can. Several machines may share
  it, hence the machine's name.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

FOLDER_VARIABLE = "XDG_STATE_HOME"
"""The environment variable with another directory than ~/.local/state; the same on both sides."""

Address = tuple[str, int]
"""An address of this machine, as numbers, and a port."""


@contextlib.contextmanager
def published(token: str, addresses: Iterable[Address]) -> Iterator[None]:
    """Store the token where the user's programs find it, and remove it when the context ends.

    They find it under each of the addresses.

    Raises:
        OSError: the files cannot be written where nobody else reads them.
    """
    paths = [_path(address) for address in addresses]
    process = os.getpid()
    try:
        for path in paths:
            _make_private(path.parent)
            _write(path, token)
        yield
    finally:
        # A child of a fork leaves its parent's alone, also when its interpreter ends.
        if os.getpid() == process:
            for path in paths:
                path.unlink(missing_ok=True)


def find(address: Address) -> str | None:
    """Return the token of the user's worker at an address; None if there is none that made one."""
    try:
        # Checked on reading too: a directory that others can write may hold a token of theirs, and
        # this side would send it as if it were the user's.
        path = _path(address)
        return path.read_text(encoding="ascii") if _is_private(path.parent) else None
    except (OSError, UnicodeDecodeError):
        return None


def private_folder(name: str) -> Path:
    """Return a directory for what only this user's programs may read; make it if need be.

    Raises:
        OSError: it cannot be made, or others can enter it.
    """
    _make_private(folder := _home() / name)
    return folder


def _path(address: Address) -> Path:
    host, port = address
    return _home() / "syft-workers" / f"{socket.gethostname()}_{host.replace(':', '-')}_{port}"


def _home() -> Path:
    try:
        return Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / ".local" / "state")
    except RuntimeError as reason:
        raise OSError(str(reason)) from None


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_private(folder):
        raise PermissionError(
            f"{folder} should be a directory of this user that others cannot enter (mode 700)"
        )


def _is_private(folder: Path) -> bool:
    """Return whether a directory is one that nobody else can write or read."""
    # lstat: a link is no directory of ours, whatever it leads to.
    found = folder.lstat()
    # On Windows, permissions are no bits, and a home directory is its user's as it is.
    ours = os.name == "nt" or (found.st_uid == os.geteuid() and not found.st_mode & 0o077)
    return ours and stat.S_ISDIR(found.st_mode)


def _write(path: Path, token: str) -> None:
    """Write a file, whole or not at all; only its user may read it."""
    handle, draft = tempfile.mkstemp(dir=path.parent)  # mode 600
    with open(handle, "w", encoding="ascii") as file:
        file.write(token)
    # At once: a reader finds the old token or the new one, never half of it.
    os.replace(draft, path)
