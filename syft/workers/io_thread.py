"""A thread with an event loop, on which all connections of this process live.

Blocking calls hand coroutines to it and wait; they work inside a running event loop (Jupyter) and
in any thread.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Protocol

# Three kinds of threads meet here:
#
#     a caller's thread     run() hands a coroutine over and waits; submit() hands it over only
#     the I/O thread        everything that touches a connection; it must never wait for a thread
#     any thread            start_soon() and call_later(), for `__del__`: garbage may be collected
#                           in any thread, this one included, so they neither wait nor raise


class Closable(Protocol):
    """Something that is closed when the process ends."""

    async def close(self) -> None:
        """Close it."""


class IOThread:
    """The I/O thread of a process; `IOThread.current()` returns this process's."""

    _current: IOThread | None = None
    _abandoned: list[IOThread] = []  # noqa: RUF012 - shared on purpose: the parents' threads, seen from a forked child
    _starting = threading.Lock()

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        # An event loop keeps weak references to its tasks only.
        self.tasks: set[asyncio.Task[Any]] = set()
        # Weak: a proxy that goes closes its link itself; the process closes those that are left.
        self.links: weakref.WeakSet[Closable] = weakref.WeakSet()
        self._process = os.getpid()
        self._stopped = False
        # A daemon, since it never ends by itself; stop() closes what is open when the process ends.
        self._thread = threading.Thread(target=self.loop.run_forever, name="syft-io", daemon=True)
        self._thread.start()

    @classmethod
    def current(cls) -> IOThread:
        """Return this process's I/O thread; start it first if need be."""
        with cls._starting:
            if cls._current is None:
                cls._current = cls()
            return cls._current

    @classmethod
    def after_fork(cls) -> None:
        """Leave the parent's thread alone in a forked child.

        The thread does not run here, and its loop must not be touched or even freed: parent and
        child share the selector that is inside it.
        """
        # Another thread of the parent may have held the old one when the process forked.
        cls._starting = threading.Lock()
        if cls._current is not None:
            cls._abandoned.append(cls._current)
            cls._current = None

    @property
    def alive(self) -> bool:
        """Whether the thread runs, in this process."""
        return self._process == os.getpid() and not self._stopped

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task, and keep it from being garbage-collected while it runs.

        To be called on the loop.
        """
        task = self.loop.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def start_soon(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Start a task on the loop, from any thread and from `__del__`.

        Nothing happens if the process is about to end.
        """
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(lambda: self.start(function()))

    def call_later(self, seconds: float, function: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Start a task on the loop in some seconds, as `start_soon` does."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(
                self.loop.call_later, seconds, lambda: self.start(function())
            )

    def submit(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Start a task on the loop, from any thread."""
        if not self.alive:  # nobody would ever carry it out
            coroutine.close()
            raise RuntimeError(
                "a worker was called when this process had closed its connections, as it ends. "
                "Import syft before atexit.register: what is registered later is called earlier."
            )
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, Any], timeout: float | None = None) -> Any:
        """Run a coroutine on the loop and wait for its result.

        If the wait is interrupted, the coroutine is cancelled.
        """
        # It would wait for itself. Closed, the coroutine is not reported as never awaited.
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError(
                "a blocking call to a worker was made on the I/O thread; use its async form there."
            )
        future = self.submit(coroutine)
        try:
            return future.result(timeout)
        except BaseException:
            # Ctrl-C and a timeout reach the coroutine as well, which takes back its request.
            future.cancel()
            raise

    def stop(self) -> None:
        """Close all connections, within half a second, when the process ends."""
        if self.alive:
            with contextlib.suppress(Exception):
                self.submit(self._close_all()).result(0.5)
            self._stopped = True
            self.loop.call_soon_threadsafe(self.loop.stop)

    async def _close_all(self) -> None:
        await asyncio.gather(*(link.close() for link in list(self.links)), return_exceptions=True)


def in_event_loop() -> bool:
    """Return whether an event loop runs in the calling thread, which must not be kept waiting."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _stop() -> None:
    if IOThread._current is not None:
        IOThread._current.stop()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=IOThread.after_fork)
