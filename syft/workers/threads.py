"""How many threads a worker computes with, and what its first fit would otherwise wait for.

Torch gives every process as many threads as there are cores. Where several workers share a machine,
these threads wait for each other: five workers on two cores took twelve times as long as with one
thread each. So the processes that serve share the cores:

    ~/.local/state/syft-serving/<machine>_<process id>    a file of each process that serves
    locked by the process, until it ends, in whatever way it does

    threads = cores / number of locked files, at least 1, and never more than torch had

They are counted again for each fit, because workers start one after the other. The number only ever
falls while a process serves: results depend on it in their last digits, and should not change
because another worker ended. Where a process is alone, torch's number stays.

Known is what this user runs on this machine; workers of other users, or in containers, are not.
They need `threads=`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from syft.workers import token_files

if sys.platform != "win32":  # where there are no such locks, and every process is alone
    import fcntl


class Threads:
    """The threads that the calls of one worker compute with.

    Args:
        number: how many; None: as many as fall to this process.
    """

    def __init__(self, number: int | None) -> None:
        self._number = number
        self._most = torch.get_num_threads()

    def apply(self) -> None:
        """Have torch compute with them, in the thread that calls this."""
        if self._number is None:
            others = _count()
            if others > 1:
                self._most = max(1, min(self._most, cores() // others))
        number = self._number or self._most
        if number != torch.get_num_threads():
            torch.set_num_threads(number)


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def warm_up() -> None:
    """Have torch import now what it imports with the first optimizer.

    That takes seconds, which would be missing from the deadline of the first round.
    """
    parameter = torch.zeros(1, requires_grad=True)
    parameter.grad = torch.zeros(1)
    torch.optim.SGD([parameter], lr=0.1).step()


@contextlib.contextmanager
def serving() -> Iterator[None]:
    """Count this process as one that serves while the context lasts.

    Several workers of one process count once. Where no file can be written, none counts.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(_locked(_folder() / f"{socket.gethostname()}_{os.getpid()}"))
        yield


def _folder() -> Path:
    return token_files.private_folder("syft-serving")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file with a lock on it while the context lasts."""
    if sys.platform == "win32":
        yield
        return
    # Shared with other workers of this process. Who counts asks for a lock of its own, in vain.
    while True:
        file = open(path, "ab")  # noqa: SIM115 - closed below, which releases the lock
        fcntl.flock(file, fcntl.LOCK_SH)
        # Who counted meanwhile may have removed it, before it was locked.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()
    try:
        yield
    finally:
        file.close()
        _remove_unlocked(path)


def _count() -> int:
    """Return how many processes serve; remove the files of those that have ended."""
    try:
        files = list(_folder().glob(f"{socket.gethostname()}_*"))
    except OSError:
        return 0
    return sum(not _remove_unlocked(path) for path in files)


def _remove_unlocked(path: Path) -> bool:
    """Remove a file unless it is locked; return whether it is gone."""
    if sys.platform == "win32":
        return True
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
