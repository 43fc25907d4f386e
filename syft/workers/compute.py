"""The thread in which a server computes.

One thread, one job at a time: two trainings at once would compete for the same cores and for
torch's one generator, and take longer together than one after the other. The event loop stays free,
so the worker answers pings, status requests and errors while it trains.

A thread cannot be killed from outside, and one operator, or a method of the owner's, can run on
where no check of ours does. So the clock is a second thread, a timer per job, and the two race for
the job's future under a lock:

    the job ends first       its outcome goes to the future; the timer is cancelled
    the timer fires first    the future fails; the thread is abandoned and counts as stuck; a new
                             one takes the next jobs. When the abandoned job ends after all, it
                             finds its future done and its thread ends.

An abandoned thread keeps its core and its memory. So the number of stuck jobs is limited, and
beyond it the worker takes no further jobs until it is restarted: that is better than a machine full
of threads that nobody can stop.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from syft.exceptions import LimitExceeded

logger = logging.getLogger(__name__)

_Item = tuple[Future[Any], Callable[[], Any]]


class ComputeThread(Executor):
    """Runs jobs one at a time, in the order in which they came.

    A job that does not end in time fails and its thread is abandoned (see above). The threads are
    daemons, so that none of them keeps the process alive.

    Args:
        worker: the worker's id, for errors and the thread's name.
        seconds: how long one job may run.
        most_stuck: how many jobs may be stuck; after that, no further job is accepted.

    Attributes:
        stuck: number of jobs that were abandoned.
    """

    def __init__(self, worker: str, seconds: float, most_stuck: int) -> None:
        self._worker = worker
        self._seconds = seconds
        self._most_stuck = most_stuck
        self._jobs: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.stuck = 0
        self._thread = self._start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return the future of fn(*args, **kwargs)."""
        future: Future[Any] = Future()
        # Read without the lock; at worst one job more is accepted.
        if self.stuck >= self._most_stuck:
            future.set_exception(
                LimitExceeded(
                    self._worker,
                    "the calls that never ended",
                    self.stuck + 1,
                    self._most_stuck,
                    "stuck_calls",
                )
            )
        else:
            self._jobs.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more jobs; cancel those that wait, if `cancel_futures`."""
        while cancel_futures:
            try:
                item = self._jobs.get_nowait()
            except queue.Empty:
                break
            if item is not None:
                item[0].cancel()
        # The end of the queue. Jobs that are put behind it never run.
        self._jobs.put(None)
        if wait:
            self._thread.join()

    def end(self, seconds: float) -> None:
        """Wait for the running job; abandon it if it takes longer than `seconds`."""
        self.shutdown(wait=False, cancel_futures=True)
        # A thread inside an operator cannot be stopped. It is counted rather than waited for; the
        # process then ends in another way (WebsocketServerWorker.stuck_calls).
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.stuck += 1

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._work, name=f"compute-{self._worker}", daemon=True)
        thread.start()
        return thread

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            future, call = item
            # It was cancelled while it waited: its connection ended, or the server stops.
            if not future.set_running_or_notify_cancel():
                continue
            # Beyond TIMEOUT_MAX (years), waiting raises an OverflowError.
            timer = threading.Timer(
                min(self._seconds, threading.TIMEOUT_MAX), self._give_up, [future]
            )
            timer.daemon = True
            timer.start()
            try:
                outcome, error = call(), None
            except BaseException as reason:  # whoever waits for the future raises it
                outcome, error = None, reason
            # It may have fired already; the lock decides who comes first.
            timer.cancel()
            with self._lock:
                if future.done():  # abandoned: another thread has taken over
                    return
                future.set_result(outcome) if error is None else future.set_exception(error)
            del item, future, call, outcome, error  # a waiting thread must not keep a model alive

    def _give_up(self, future: Future[Any]) -> None:
        with self._lock:
            if future.done():
                return
            self.stuck += 1
            future.set_exception(
                LimitExceeded(
                    self._worker,
                    "the seconds of one call",
                    self._seconds,
                    self._seconds,
                    "call_seconds",
                )
            )
            # Still under the lock: no moment without a thread that takes the next jobs.
            self._thread = self._start()
        message = (
            "worker %s: a call did not end within %g s; its thread keeps running. "
            "Restart the worker to stop it."
        )
        logger.error(message, self._worker, self._seconds)
