"""Requests that nobody waits for: what `TrainConfig.send` sends, say.

Their errors are not lost. The next call that waits raises the first of them, since it is what that
call builds on.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

from syft.exceptions import SyftError
from syft.wire.failures import unwrap


class Posts:
    """The posted requests of one proxy that have no reply yet, and the first error of the rest.

    Args:
        worker: the worker's id, for errors.
    """

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._futures: set[Future[bytes]] = set()
        self._error: SyftError | None = None

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: Future[bytes]) -> None:
        """Keep the future of a reply."""
        # Added first: a future that is done already calls back at once, in this thread.
        self._futures.add(future)
        future.add_done_callback(self._answered)

    def give_up(self) -> None:
        """Cancel those without a reply, and forget the error: no later call shall fail for them."""
        # A copy, since cancelling one takes it out of the set.
        for future in list(self._futures):
            future.cancel()
        self._error = None

    async def settle(self, timeout: float | None = None) -> None:
        """Wait until all have their reply, or for `timeout` seconds."""
        # A copy in one step, since other threads add to the set and take away.
        futures = list(self._futures)
        if futures:
            await asyncio.wait(map(asyncio.wrap_future, futures), timeout=timeout)

    def take_error(self) -> SyftError | None:
        """Return the first error, once."""
        error, self._error = self._error, None
        return error

    def _answered(self, future: Future[bytes]) -> None:
        self._futures.discard(future)
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            try:
                unwrap(future.result(), self._worker)
            except SyftError as failure:
                error = failure
        # The first one: later posts may have failed only because it did.
        if isinstance(error, SyftError) and self._error is None:
            self._error = error
