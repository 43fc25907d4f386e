"""How processes of the scripts end.

With their parent, by Ctrl-C while they import, or at once when they are done.

Nothing here imports torch.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from typing import Any, NoReturn

INTERRUPTED = 130
"""Exit status after Ctrl-C."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent(parent: int, number: int) -> None:
    """Have this process get a signal when its parent ends, even if that is killed.

    Does nothing but on Linux.

    Args:
        parent: the parent's process id. The thread of it that started this process should be its
            main thread: it is the end of the thread that counts.
        number: the signal.
    """
    if _libc is None:
        return
    _libc.prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it has ended meanwhile
        os._exit(INTERRUPTED)


def end_on_interrupt() -> None:
    """Have Ctrl-C end this process at once, with one line.

    Otherwise it would show a traceback of what it is importing.

    Where Ctrl-C is ignored, as in what a shell runs in the background, that stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def leave(status: int) -> NoReturn:
    """End this process at once.

    Taking an interpreter apart that has torch in it takes longer than users wait.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _end(*_: Any) -> None:
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)
