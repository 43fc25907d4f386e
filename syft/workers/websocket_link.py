"""The connection of one proxy, and the calls that share it. It lives on the I/O thread.

    state    what a call does                            what ends the state
    -------  ------------------------------------------  -------------------------------------------
    closed   opens the connection; other calls wait for  it opens; or the attempt fails, for all
             that attempt and share its failure          that wait, and the next call makes another
    open     sends its request; the reader hands over    the connection ends: every call that waits
             the reply with the same id, in whatever     raises ConnectionLost; or a call is given
             order replies come                          up: doubted
    doubted  the same; but `answer` (async_connect)      the connection ends; or the ping is
             sends a ping first, since the worker may    answered
             hang

One task reads each connection. It owns the futures of the calls that wait on that connection, so a
new connection starts with none, and a late reply of the old one finds nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from syft import wire
from syft.exceptions import ConnectionLost, MalformedMessage, SyftError, printable
from syft.workers import websocket_settings as settings
from syft.workers.io_thread import IOThread
from syft.workers.websocket_connect import Greeting, Peer, cause_of, open_connection
from syft.workers.websocket_keepalive import KeptAliveClient
from syft.workers.websocket_posts import Posts

logger = logging.getLogger(__name__)

# One call, from its thread to the reply and back:
#
#     caller's thread              I/O thread
#     submit(request(...)) ------> connection(): open it if need be, one attempt at a time
#                                  waiting[id] = future; send; await the future
#                                  _read: a frame arrives -> its id -> the future of that id
#     result of the submit <------ reply
#
# - Coroutines of a Link run on the I/O thread alone, so no lock guards its state; the asyncio lock
#   in `connection` is there because it is held across an await. Callers' threads read single
#   attributes (`open`, `attempts`, `answers`), use `posts` and call `give_up`.
# - A future is in `waiting` before its request is sent, since the reply may be there before `send`
#   returns.
# - `waiting` belongs to one connection, and a call keeps hold of the one that it registered in. The
#   reader of a lost connection therefore fails the calls of that connection, even if the next one
#   is open by then.
# - Requests go out in the order in which they were submitted, since a fit must not overtake its
#   config; only a `get` waits longer. The event loop starts them in that order, and two fair locks,
#   `_opening` and `_sending`, keep it. (`websockets` alone lets a newcomer overtake those that wait
#   behind a message in pieces.)
# - A call that is given up does not end the connection, which others use. Its id is taken out of
#   `waiting`, so its late reply is dropped, and the worker is told to stop.

Waiting = dict[int, "asyncio.Future[bytes]"]


class Link:
    """A connection that is opened when needed, and opened again when lost.

    Args:
        io: the thread it lives on.
        peer: the worker.
        on_open: called with the link when the connection has been opened; what it returns is
            started as a task.

    Attributes:
        open: whether there is a connection.
        attempts: connection attempts since the last open connection; 0 while there is one.
        greeting: what the worker has said of itself; None before the first connection.
        posts: requests that nobody waits for.
        session: name of the session. Whoever knows it gets the session's objects, so it is random
            and not shown.
    """

    def __init__(
        self, io: IOThread, peer: Peer, on_open: Callable[[Link], Coroutine[Any, Any, None] | None]
    ) -> None:
        self.io = io
        self.open = False
        self.attempts = 0
        self.greeting: Greeting | None = None
        self.posts = Posts(peer.worker)
        self.session = uuid.uuid4().hex
        self._peer = peer
        self._on_open = on_open
        self._connection: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: Waiting = {}
        self._sending = asyncio.Lock()
        self._opening = asyncio.Lock()
        # How many attempts have failed so far, and the last error; see connection().
        self._failures: tuple[int, SyftError | None] = (0, None)
        self._doubted = False
        self._answering: asyncio.Task[None] | None = None
        io.links.add(self)

    @property
    def url(self) -> str:
        """The worker's address, for errors."""
        return self._peer.url

    @property
    def peer_limit(self) -> int:
        """The most bytes that the worker accepts in one message, as far as is known."""
        return (self.greeting or self._peer).max_message_bytes

    async def request(
        self, request_id: int, call: str, frame: bytes, settle: bool = False
    ) -> bytes:
        """Send a request and return its reply.

        Args:
            request_id: the request's id.
            call: the request as text, for errors.
            frame: the request.
            settle: wait for what was posted before, and raise its error rather than send this.

        Raises:
            ConnectionLost: the connection ended before the reply came.
        """
        connection = await self.connection()
        # For a request that takes an object off the worker: raised afterwards, the error of a post
        # would take the place of a reply that cannot be had again.
        if settle:
            await self.posts.settle()
            if (error := self.posts.take_error()) is not None:
                raise error
        waiting, turn = self._waiting, self._sending
        reply = self.expect(request_id)
        try:
            # A message of which half was sent would end the connection: giving up the wait does not
            # stop the sending.
            await self.send(connection, frame)
            return await reply
        except (ConnectionClosed, OSError) as error:
            raise ConnectionLost(
                self._peer.worker, self._peer.url, call, _ending(connection, error)
            ) from None
        except asyncio.CancelledError:
            self.io.start(_cancel(connection, turn, request_id))
            raise
        finally:
            waiting.pop(request_id, None)

    def expect(self, request_id: int) -> asyncio.Future[bytes]:
        """Return the future of a reply on the open connection; it fails if the connection ends.

        To be called on the I/O thread.
        """
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        # Whoever waits may have gone.
        reply.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._waiting[request_id] = reply
        return reply

    def unexpect(self, request_id: int) -> None:
        """Drop the reply to a request, should it come."""
        self._waiting.pop(request_id, None)

    async def send(self, connection: ClientConnection, frame: bytes) -> None:
        """Send a message when it is its turn, whole even if the wait for that is given up.

        Raises:
            ConnectionClosed, OSError: the connection has ended.
        """
        await asyncio.shield(self.io.start(_send(connection, self._sending, frame)))

    async def connection(self) -> ClientConnection:
        """Return the open connection; open it first if need be.

        Calls that wait while another one tries to open it share its failure, rather than try as
        long again in turn.
        """
        failures_before = self._failures[0]
        async with self._opening:
            # More failures than when this call came: an attempt failed while it waited for the
            # lock.
            failures, failure = self._failures
            if not self.open and failure is not None and failures > failures_before:
                raise failure
            if not self.open or self._connection is None:
                try:
                    self._connection, self.greeting = await open_connection(
                        self._peer, self.session, self._count_attempt
                    )
                except SyftError as error:
                    self._failures = failures + 1, error
                    raise
                self._opened(self._connection)
            return self._connection

    @property
    def answers(self) -> bool:
        """Whether there is a connection that is not in doubt.

        No call was given up on it since the worker last answered a ping.
        """
        return self.open and not self._doubted

    async def answer(self) -> None:
        """Return when the worker answers; connect to it first if need be.

        The attempt goes on when the wait for it is cancelled, and the next call of this joins it.
        """
        if self._answering is None or self._answering.done():
            self._answering = self.io.start(self._ping())
            self._answering.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._answering)

    async def close(self) -> None:
        """Close the connection, if there is one, once what was posted is carried out.

        CLOSE_TIMEOUT later it is closed in any case.
        """
        await self.posts.settle(settings.CLOSE_TIMEOUT)
        # Before anything else is awaited: a call that comes meanwhile opens another connection, and
        # the end of this one is not taken for the end of that.
        connection, reader = self._connection, self._reader
        self._connection, self.open = None, False
        if self._answering is not None:
            self._answering.cancel()
        if connection is not None:
            try:
                await asyncio.wait_for(connection.close(), settings.CLOSE_TIMEOUT)
            except settings.TIMEOUTS:  # it still waits for the worker to take what was sent before
                connection.transport.abort()
        # The reader ends with the connection, and fails the calls that still wait.
        if reader is not None:
            await asyncio.wait([reader])

    def give_up(self) -> None:
        """Note that a call failed or was given up.

        No later one shall fail for what was posted before it.
        """
        self._doubted = True
        self.posts.give_up()

    def _count_attempt(self) -> None:
        self.attempts += 1

    def _opened(self, connection: ClientConnection) -> None:
        self.open, self.attempts, self._doubted = True, 0, False
        self._failures = self._failures[0], None
        self._waiting = {}  # those of the former connection fail when its reader ends
        self._sending = asyncio.Lock()
        self._reader = self.io.start(self._read(connection, self._waiting))
        task = self._on_open(self)
        if task is not None:
            self.io.start(task)

    async def _ping(self) -> None:
        connection = await self.connection()
        # No deadline here: the keepalive ends a connection on which nothing comes back.
        with contextlib.suppress(ConnectionClosed):
            await (await connection.ping())
            self._doubted = False

    async def _read(self, connection: ClientConnection, waiting: Waiting) -> None:
        """Hand each reply to the call that waits for it, until the connection ends."""
        try:
            while True:
                frame = await connection.recv()
                self._hand_over(frame, waiting)
                del frame  # or a large reply would be kept until the next one has come
        except ConnectionClosed as error:
            cause = ConnectionResetError(_ending(connection, error))
        # Not if it was closed on purpose, or another one has been opened since.
        if connection is self._connection:
            self.open = False
        for reply in list(waiting.values()):
            if not reply.done():
                reply.set_exception(cause)

    def _hand_over(self, frame: str | bytes, waiting: Waiting) -> None:
        try:
            reply = waiting.get(wire.peek_id(frame))  # type: ignore[arg-type]
        except (MalformedMessage, TypeError) as error:
            logger.warning(
                "worker %s sent a message that is dropped: %s",
                self._peer.worker,
                printable(str(error)),
            )
            return
        if reply is not None and not reply.done():
            reply.set_result(frame)  # type: ignore[arg-type]


async def _send(connection: ClientConnection, turn: asyncio.Lock, frame: bytes) -> None:
    async with turn:
        await connection.send(settings.fragments(frame))


async def _cancel(connection: ClientConnection, turn: asyncio.Lock, request_id: int) -> None:
    """Tell the worker that nobody waits for a request any more.

    Its answer, with id 0, is dropped.
    """
    frame = wire.encode(wire.Request(0, "cancel", {"request_id": request_id}))
    with contextlib.suppress(ConnectionClosed, OSError):
        await _send(connection, turn, frame)


def _ending(connection: ClientConnection, error: Exception) -> str:
    gave_up = isinstance(connection, KeptAliveClient) and connection.gave_up
    return (
        f"no sign of life within {2 * settings.PING_INTERVAL:g} s" if gave_up else cause_of(error)
    )
