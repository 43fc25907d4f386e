"""The connection of one proxy: opened when it is needed, opened again when it was lost. It lives on the I/O thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import time
import uuid
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from syft import wire
from syft.exceptions import (
    ConnectionLost,
    HandshakeFailed,
    MalformedMessage,
    SyftError,
    VersionMismatch,
    WorkerUnreachable,
    printable,
)
from syft.failures import unwrap
from syft.structures import Structures
from syft.torchscript import MAX_STRUCTURE_BYTES
from syft.workers.io_thread import IOThread
from syft.workers.websocket_access import authorization, refusal
from syft.workers.websocket_keepalive import KeptAliveClient

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT = 10.0
"""Seconds a worker has for the opening handshake, once it has accepted the connection."""
PING_INTERVAL = 20.0
"""Seconds of silence after which a side pings; as many again without an answer end the connection (40 in all)."""
CLOSE_TIMEOUT = 2.0
"""Seconds a worker has to take part in closing a connection."""
TIMEOUTS = (TimeoutError, asyncio.TimeoutError, FutureTimeout)
"""Three types before Python 3.11, one since."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_random = random.SystemRandom()  # for jitter; the global generator is the program's
_FRAGMENT = 1024 * 1024
"""Bytes of a piece of a large message."""
_MAX_FRAGMENTS = 4000
"""websockets accepts no more than 4,096 pieces of one message."""


@dataclass(frozen=True)
class Peer:
    """Where a worker is, and how to reach it.

    Attributes:
        worker: the worker's id, for errors.
        host: host name or address.
        port: port.
        tls: the TLS context, or None.
        connect_timeout: seconds to wait for the worker to accept a connection.
        max_message_bytes: upper bound on one received message.
        token: the secret that the worker asks for, or None.
    """

    worker: str
    host: str
    port: int
    tls: ssl.SSLContext | None
    connect_timeout: float
    max_message_bytes: int
    token: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The address as the user wrote it: ws://host:port, or wss://host:port with TLS."""
        return f"{'ws' if self.tls is None else 'wss'}://{self.host}:{self.port}"

    @property
    def uri(self) -> str:
        """The address to connect to: 0.0.0.0, which is one to listen on, means this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"{'ws' if self.tls is None else 'wss'}://{f'[{host}]' if ':' in host else host}:{self.port}"


class Link:
    """A connection that is opened when needed, and opened again when lost.

    Args:
        io: the thread it lives on.
        peer: the worker.
        on_open: called with the link when the connection has been opened; what it returns is started as a task.

    Attributes:
        open: whether there is a connection.
        attempts: how often it was tried to connect since there was a connection; 0 if there is one.
        peer_limit: the most bytes that the worker accepts in one message, once it has said so.
        structures: structures of models; each connection sends them to the worker before a request that needs them.
    """

    def __init__(self, io: IOThread, peer: Peer, on_open: Callable[[Link], Coroutine[Any, Any, None] | None]) -> None:
        self.io = io
        self.open = False
        self.attempts = 0
        self.peer_limit = peer.max_message_bytes
        self.structures = Structures()
        self._peer = peer
        self._on_open = on_open
        self._session = uuid.uuid4().hex
        self._connection: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._opening = asyncio.Lock()
        self._failures: tuple[int, SyftError | None] = (0, None)
        self._doubted = False
        self._answering: asyncio.Task[None] | None = None
        self._posts: set[Future[bytes]] = set()
        self._sending = asyncio.Lock()
        self._taught: weakref.WeakKeyDictionary[ClientConnection, set[str]] = weakref.WeakKeyDictionary()
        self._error: SyftError | None = None
        io.links.add(self)

    async def request(self, request_id: int, call: str, frame: bytes, settle: bool = False) -> bytes:
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
        if settle and (error := await self._settled()) is not None:
            raise error
        waiting, reply = self._waiting, asyncio.get_running_loop().create_future()
        waiting[request_id] = reply
        reply.add_done_callback(lambda done: done.cancelled() or done.exception())  # sending may fail first
        try:
            # A message of which half was sent would end the connection: whoever stops waiting does not stop that.
            await asyncio.shield(self.io.start(self._send(connection, frame)))
            return await reply
        except (ConnectionClosed, OSError) as error:
            raise ConnectionLost(self._peer.worker, self._peer.url, call, _ending(connection, error)) from None
        except asyncio.CancelledError:
            self.io.start(self._cancel(connection, request_id))
            raise
        finally:
            waiting.pop(request_id, None)

    async def connection(self) -> ClientConnection:
        """Return the open connection; open it first if need be.

        Those who wait while another tries to open it share its failure: they do not try for as long again, in turn.
        """
        failures_before = self._failures[0]
        async with self._opening:
            failures, failure = self._failures
            if not self.open and failure is not None and failures > failures_before:
                raise failure
            if not self.open or self._connection is None:
                try:
                    self._connection = await self._open()
                except SyftError as error:
                    self._failures = failures + 1, error
                    raise
                self.open, self.attempts, self._failures, self._doubted = True, 0, (failures, None), False
                self._waiting = {}  # those of the former connection fail when its reader ends
                self._reader = self.io.start(self._read(self._connection, self._waiting))
                task = self._on_open(self)
                if task is not None:
                    self.io.start(task)
            return self._connection

    @property
    def answers(self) -> bool:
        """Whether there is a connection, and no call was given up on it since the worker last answered a ping."""
        return self.open and not self._doubted

    async def answer(self) -> None:
        """Return when the worker answers; connect to it first if need be.

        That goes on when the wait for it is cancelled, and who waits next joins in.
        """
        if self._answering is None or self._answering.done():
            self._answering = self.io.start(self._answer())
            self._answering.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._answering)

    async def close(self) -> None:
        """Close the connection, if there is one. What was posted is carried out before, if that takes no longer."""
        await self._settled(CLOSE_TIMEOUT)
        connection, reader = self._connection, self._reader
        self._connection, self.open = None, False
        if self._answering is not None:
            self._answering.cancel()
        if connection is not None:
            try:
                await asyncio.wait_for(connection.close(), CLOSE_TIMEOUT)
            except TIMEOUTS:  # it still waits for the worker to take what was sent before
                connection.transport.abort()
        if reader is not None:
            await asyncio.wait([reader])

    async def _send(self, connection: ClientConnection, frame: bytes) -> None:
        """Send a request, and before it the structures that it needs."""
        async with self._sending:
            await self._teach(connection)
            await connection.send(fragments(frame))

    async def _teach(self, connection: ClientConnection) -> None:
        """Send the structures that the worker does not know yet; nobody waits for the reply."""
        taught = self._taught.setdefault(connection, set())
        for key, archive in self.structures.besides(taught).items():
            taught.add(key)
            await connection.send(wire.encode(wire.Request(0, "learn", {"key": key, "archive": archive})))

    def post(self, future: Future[bytes]) -> None:
        """Keep a request that nobody waits for; note its error, if any, for the next call."""
        self._posts.add(future)
        future.add_done_callback(self._posted)

    def give_up(self) -> None:
        """Note that a call failed or was given up; no later one shall fail for what was posted before it."""
        self._doubted = True
        for future in list(self._posts):
            future.cancel()
        self._error = None

    async def _settled(self, timeout: float | None = None) -> SyftError | None:
        """Wait for what was posted; return the first error of it, once."""
        if self._posts:
            await asyncio.wait([asyncio.wrap_future(future) for future in self._posts], timeout=timeout)
        return self.take_error() if timeout is None else None

    def _posted(self, future: Future[bytes]) -> None:
        self._posts.discard(future)
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            try:
                unwrap(future.result(), self._peer.worker, structures=self.structures)
            except SyftError as failure:
                error = failure
        if isinstance(error, SyftError) and self._error is None:
            self._error = error

    def take_error(self) -> SyftError | None:
        """Return the first noted error, once."""
        error, self._error = self._error, None
        return error

    async def _open(self) -> ClientConnection:
        """Connect, trying again until the deadline, and introduce this side."""
        peer, seconds = self._peer, self._peer.connect_timeout
        deadline, attempts, pause = time.monotonic() + seconds, 0, _FIRST_PAUSE
        while True:
            attempts += 1
            self.attempts += 1
            left = max(deadline - time.monotonic(), 0.05)
            try:
                connection = await self._connect(left)
                break
            except ssl.SSLError as error:
                raise refusal(peer.worker, peer.url, error) from None
            except (OSError, *TIMEOUTS) as error:
                if peer.tls is not None and isinstance(error, ConnectionResetError):  # it does not speak TLS
                    raise refusal(peer.worker, peer.url, error) from None
                if time.monotonic() + pause >= deadline:
                    if isinstance(error, ConnectionResetError):  # somebody is there, and hangs up
                        raise HandshakeFailed(peer.worker, peer.url, _cause(error)) from None
                    raise WorkerUnreachable(peer.worker, peer.url, seconds, attempts, _cause(error)) from None
            except (InvalidHandshake, InvalidMessage, ConnectionClosed) as error:
                raise refusal(peer.worker, peer.url, error) from None
            await asyncio.sleep(pause * _random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE)
        try:
            await self._introduce(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _connect(self, seconds: float) -> ClientConnection:
        return await connect(
            self._peer.uri,
            ssl=self._peer.tls,
            compression=None,
            max_size=self._peer.max_message_bytes,
            open_timeout=min(seconds, HANDSHAKE_TIMEOUT),
            ping_interval=PING_INTERVAL,
            ping_timeout=PING_INTERVAL,
            close_timeout=CLOSE_TIMEOUT,
            proxy=None,
            create_connection=KeptAliveClient,
            additional_headers=authorization(self._peer.token),
        )

    async def _answer(self) -> None:
        connection = await self.connection()
        with contextlib.suppress(ConnectionClosed):
            await (await connection.ping())
            self._doubted = False

    async def _cancel(self, connection: ClientConnection, request_id: int) -> None:
        """Tell the worker that nobody waits for a request any more; its answer, with id 0, is dropped."""
        with contextlib.suppress(ConnectionClosed, OSError):
            await self._send(connection, wire.encode(wire.Request(0, "cancel", {"request_id": request_id})))

    async def _introduce(self, connection: ClientConnection) -> None:
        greeting = {"session": self._session, "max_message_bytes": self._peer.max_message_bytes}
        try:
            await connection.send(wire.encode(wire.Request(0, "hello", greeting)))
            answer = await asyncio.wait_for(connection.recv(), HANDSHAKE_TIMEOUT)
        except TIMEOUTS:
            cause = f"no answer to the greeting within {HANDSHAKE_TIMEOUT:g} s"
            raise HandshakeFailed(self._peer.worker, self._peer.url, cause) from None
        except ConnectionClosed as error:
            raise HandshakeFailed(self._peer.worker, self._peer.url, _cause(error)) from None
        theirs = wire.peek_version(answer) if isinstance(answer, bytes) else None
        if theirs not in (None, wire.VERSION):
            raise VersionMismatch(self._peer.worker, self._peer.url, "another version", wire.VERSION, theirs)
        try:
            self.peer_limit = int(unwrap(answer, self._peer.worker)["max_message_bytes"])  # type: ignore[arg-type]
        except (MalformedMessage, TypeError, KeyError, ValueError):
            cause = "it does not speak this package's protocol"
            raise HandshakeFailed(self._peer.worker, self._peer.url, cause) from None
        # Half a message, so that what teaches a structure is no larger than what carries a model.
        self.structures.max_bytes = min(MAX_STRUCTURE_BYTES, self.peer_limit // 2, self._peer.max_message_bytes // 2)

    async def _read(self, connection: ClientConnection, waiting: dict[int, asyncio.Future[bytes]]) -> None:
        """Hand each reply to the call that waits for it, until the connection ends."""
        try:
            while True:
                self._hand_over(await connection.recv(), waiting)
        except ConnectionClosed as error:
            cause = ConnectionResetError(_ending(connection, error))
        if connection is self._connection:
            self.open = False
        for reply in list(waiting.values()):
            if not reply.done():
                reply.set_exception(cause)

    def _hand_over(self, frame: str | bytes, waiting: dict[int, asyncio.Future[bytes]]) -> None:
        try:
            reply = waiting.get(wire.peek_id(frame))  # type: ignore[arg-type]
        except (MalformedMessage, TypeError) as error:
            logger.warning("worker %s sent a message that is dropped: %s", self._peer.worker, printable(str(error)))
            return
        if reply is not None and not reply.done():
            reply.set_result(frame)  # type: ignore[arg-type]


def fragments(frame: bytes) -> bytes | Iterator[memoryview]:
    """Return a message as `websockets` shall send it: in pieces, if it is large.

    A message in one piece is copied as a whole at each step of sending and receiving; pieces are copied one by one,
    and pings pass between them.
    """
    if len(frame) <= _FRAGMENT:
        return frame
    size = max(_FRAGMENT, -(-len(frame) // _MAX_FRAGMENTS))
    return (memoryview(frame)[start : start + size] for start in range(0, len(frame), size))


def parse_port(port: int | str) -> int:
    """Return a port as a number.

    Raises:
        ValueError: it is none.
    """
    try:
        number = int(port)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number <= 65535:
        raise ValueError(f"not a port: {port!r}; expected a number from 0 to 65535.")
    return number


def _ending(connection: ClientConnection, error: Exception) -> str:
    gave_up = isinstance(connection, KeptAliveClient) and connection.gave_up
    return f"no sign of life within {2 * PING_INTERVAL:g} s" if gave_up else _cause(error)


def _cause(error: BaseException) -> str:
    return printable(f"{type(error).__name__}: {error}", 500) if str(error) else type(error).__name__
