"""The coordinator's side of the socket: a proxy of a worker in another process or on another machine.

    caller's thread                        I/O thread (one for all proxies of the process)
    call() -> encode -> submit ----------> _Connection.request -> send -> socket
           <- decode <- future  <---------  _Connection._read: reply id -> its future

Blocking calls therefore work inside a running event loop (Jupyter), and proxies do not wait for each other.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import random
import ssl
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import torch
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from syft import wire
from syft.dispatch import describe_call, unwrap
from syft.exceptions import (
    CallTimeout,
    ConnectionFailed,
    ConnectionLost,
    HandshakeFailed,
    MalformedMessage,
    MessageTooLarge,
    SyftError,
    VersionMismatch,
    WorkerUnreachable,
)
from syft.objects import ObjectId
from syft.workers.base import BaseWorker, _fit_arguments

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
"""Seconds a proxy waits, by default, for its worker to accept a connection."""
HANDSHAKE_TIMEOUT = 10.0
"""Seconds a worker has for the opening handshake, once it has accepted the connection."""
PING_INTERVAL = 20.0
"""Seconds between pings. Two unanswered intervals end a connection, so a dead worker never hangs a call."""
CLOSE_TIMEOUT = 2.0
"""Seconds a worker has to take part in closing a connection."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_TIMEOUTS = (TimeoutError, asyncio.TimeoutError, FutureTimeout)  # three types before Python 3.11, one since


class WebsocketClientWorker(BaseWorker):
    """A proxy of a `WebsocketServerWorker`: what is asked of the proxy, the worker does.

    The proxy holds one connection, which serves blocking and asynchronous calls alike, and connects again at its
    next call when that was lost. It may be used from several threads. After a fork, the child's copy of the proxy
    connects anew and leaves its parent's connection and objects alone.

    Source: PySyft 0.2.4, `syft.workers.websocket_client.WebsocketClientWorker`; the arguments after `data` are new.

    Args:
        hook: the TorchHook.
        host: host name or address of the worker. 0.0.0.0, which is an address to listen on, means this machine.
        port: its port.
        secure: whether to use TLS; the worker's certificate is verified, its host name included.
        id: the id that the worker has for this program.
        is_client_worker: accepted and kept as an attribute.
        log_msgs: whether to keep the calls, as text, in `msg_history`.
        verbose: whether to log every call at level INFO rather than DEBUG.
        data: tensors to store in the proxy itself.
        timeout: seconds that blocking and asynchronous calls wait for their result, unless they say otherwise.
            None: as long as the worker answers pings; training may take hours.
        connect_timeout: seconds to wait for the worker to accept a connection.
        max_message_bytes: upper bound on one message, sent or received.
        ca_path: file of the certificate authority that signed the worker's certificate; None: the system's.
        verify: False turns the verification of the certificate off.

    Raises:
        WorkerUnreachable: nobody accepts the connection in time (also a ConnectionRefusedError).
        HandshakeFailed: something else than a worker listens there.
        VersionMismatch: the worker speaks another version of the protocol.
    """

    def __init__(
        self,
        hook: Any,
        host: str,
        port: int | str,
        secure: bool = False,
        id: ObjectId = 0,
        is_client_worker: bool = False,
        log_msgs: bool = False,
        verbose: bool = False,
        data: Iterable[torch.Tensor] | None = None,
        *,
        timeout: float | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        max_message_bytes: int = wire.MAX_MESSAGE_BYTES,
        ca_path: str | os.PathLike[str] | None = None,
        verify: bool = True,
    ) -> None:
        self.host = host
        self.port = _port(port)
        self.secure = secure
        self.timeout = timeout
        self.connect_timeout = connect_timeout
        self.max_message_bytes = max_message_bytes
        self._tls = _client_tls(ca_path, verify) if secure else None
        self._link: _Link | None = None
        self._garbage: deque[ObjectId] = deque()
        super().__init__(hook, id, data, is_client_worker, log_msgs, verbose, auto_add=False)
        self.connect()
        self.add_worker(self)

    @property
    def url(self) -> str:
        """The worker's address: ws://host:port, or wss://host:port with TLS."""
        return f"{'wss' if self.secure else 'ws'}://{self.host}:{self.port}"

    def connect(self) -> None:
        """Open the connection, unless it is open."""
        link = self._usable_link()
        link.io.run(link.connection())

    def close(self) -> None:
        """Close the connection. The worker keeps this proxy's objects for a while; the next call connects again."""
        link = self._link
        if link is not None and link.io.alive:
            link.io.run(link.close())

    def fit(self, dataset_key: str, **kwargs: Any) -> torch.Tensor | None:
        """Train on the worker, with the TrainConfig sent last, and wait for the end.

        Args:
            dataset_key: key of the dataset on the worker.
            **kwargs: `device`: where to train; `timeout`: seconds to wait; `return_ids`: ignored.

        Returns:
            The loss on the last batch, a scalar on the CPU.

        Raises:
            DatasetNotFound, UnknownOptimizer, TrainConfigMissing, DeviceUnavailable: as FederatedClient.fit; all are
                also ValueErrors.
            RemoteError: training failed on the worker; with the remote traceback.
        """
        device = kwargs.pop("device", "cpu")
        return self.call("fit", **_fit_arguments(dataset_key, device), **kwargs)

    def evaluate(
        self,
        dataset_key: str,
        return_histograms: bool = False,
        nr_bins: int = -1,
        return_loss: bool = True,
        return_raw_accuracy: bool = True,
        device: str | torch.device = "cpu",
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Evaluate on the worker, with the TrainConfig sent last, and wait for the end.

        Arguments, result and errors are those of `FederatedClient.evaluate`; `timeout`: seconds to wait.
        """
        return self.call(
            "evaluate",
            dataset_key=dataset_key,
            return_histograms=return_histograms,
            nr_bins=nr_bins,
            return_loss=return_loss,
            return_raw_accuracy=return_raw_accuracy,
            device=device,
            timeout=timeout,
        )

    def _exchange(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        link, request_id, call, frame = self._prepare(command, arguments)
        seconds = self.timeout if timeout is None else timeout
        try:
            reply = link.io.run(link.request(request_id, call, frame), seconds)
        except _TIMEOUTS as error:
            raise _in_time(error, self.id, call, seconds) from None
        return self._result(link, reply)

    async def _async_exchange(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        link, request_id, call, frame = self._prepare(command, arguments)
        seconds = self.timeout if timeout is None else timeout
        future = link.io.submit(link.request(request_id, call, frame))
        try:
            reply = await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except _TIMEOUTS as error:
            raise _in_time(error, self.id, call, seconds) from None
        return self._result(link, reply)

    def _post(self, command: str, **arguments: Any) -> None:
        link, request_id, call, frame = self._prepare(command, arguments)
        if not link.open:
            link.io.run(link.connection())
        link.io.submit(link.request(request_id, call, frame)).add_done_callback(link.posted)

    def _forget(self, obj_id: ObjectId) -> None:
        # Called by __del__ in any thread and at any time: it takes no lock, and never raises.
        self._garbage.append(obj_id)
        link = self._link
        if link is not None and link.io.alive and link.open:
            link.io.start_soon(lambda: self._collect(link))

    async def _collect(self, link: _Link) -> None:
        ids = []
        while self._garbage:
            ids.append(self._garbage.popleft())
        if ids:
            request_id = next(self._request_ids)
            frame = wire.encode(wire.Request(request_id, "delete", {"ids": ids}))
            with contextlib.suppress(SyftError):
                await link.request(request_id, "delete", frame)

    def _prepare(self, command: str, arguments: dict[str, Any]) -> tuple[_Link, int, str, bytes]:
        """Return the link to use, and the request's id, description and bytes."""
        if command == "call":
            call = describe_call(arguments["name"], arguments["args"], arguments["kwargs"])
        else:
            call = describe_call(command, (), arguments)
        request_id = next(self._request_ids)
        frame = wire.encode(wire.Request(request_id, command, arguments))
        link = self._usable_link()
        limit = min(self.max_message_bytes, link.peer_limit)
        if len(frame) > limit:
            raise MessageTooLarge(str(self.id), f"{call} to", len(frame), limit)
        self._note(call)
        level = logging.INFO if self.verbose else logging.DEBUG
        logger.log(level, "to worker %s: %s, %d bytes", self.id, call, len(frame))
        return link, request_id, call, frame

    def _result(self, link: _Link, reply: bytes) -> Any:
        earlier = link.take_error()
        if earlier is not None:  # what went wrong with an object that was sent without waiting
            raise earlier
        return unwrap(reply, self.id)

    def _usable_link(self) -> _Link:
        """Return this process's link; a child of a fork gets one of its own."""
        io = _IOThread.current()
        if self._link is None or self._link.io is not io:
            if self._link is not None:
                self._garbage.clear()  # these are the parent's objects
            self._link = _Link(io, self)
        return self._link

    def __str__(self) -> str:
        try:
            remote = str(self.objects_count_remote())
        except (ConnectionFailed, TimeoutError) as error:
            remote = f"unknown ({type(error).__name__})"
        return f"<{type(self).__name__} id:{self.id} #objects local:{self.objects_count()} #objects remote: {remote}>"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} id:{self.id} url:{self.url}>"

    def __del__(self) -> None:
        link = getattr(self, "_link", None)
        if link is not None and link.io.alive:
            link.io.start_soon(link.close)


class _Link:
    """The connection of one proxy, as the I/O thread sees it: opened when needed, opened again when lost."""

    def __init__(self, io: _IOThread, proxy: WebsocketClientWorker) -> None:
        self.io = io
        self.peer_limit = proxy.max_message_bytes
        self._proxy = weakref.proxy(proxy)  # the proxy owns the link, and closes it when it goes
        self._worker = str(proxy.id)
        self._url = proxy.url
        self._session = uuid.uuid4().hex
        self._connection: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._opening = asyncio.Lock()
        self._error: SyftError | None = None
        self.open = False
        io.links.add(self)

    async def request(self, request_id: int, call: str, frame: bytes) -> bytes:
        """Send a request and return its reply.

        Raises:
            ConnectionLost: the connection ended before the reply came.
        """
        connection = await self.connection()
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = reply
        try:
            await connection.send(frame)
            return await reply
        except (ConnectionClosed, OSError) as error:
            raise ConnectionLost(self._worker, self._url, call, _cause(error)) from None
        finally:
            self._waiting.pop(request_id, None)

    async def connection(self) -> ClientConnection:
        """Return the open connection; open it first if need be."""
        async with self._opening:
            if not self.open or self._connection is None:
                self._connection = await self._open()
                self.open = True
                self._reader = self.io.start(self._read(self._connection))
                self.io.start(self._proxy._collect(self))
            return self._connection

    async def close(self) -> None:
        """Close the connection, if there is one."""
        connection, reader = self._connection, self._reader
        self._connection, self.open = None, False
        if connection is not None:
            await connection.close()
        if reader is not None:
            await asyncio.wait([reader])

    def posted(self, future: Future[bytes]) -> None:
        """Note the error, if any, of a request that nobody waits for."""
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            try:
                unwrap(future.result(), self._worker)
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
        seconds = self._proxy.connect_timeout
        deadline, attempts, pause = time.monotonic() + seconds, 0, _FIRST_PAUSE
        while True:
            attempts += 1
            left = max(deadline - time.monotonic(), 0.05)
            try:
                connection = await self._connect(left)
                break
            except ssl.SSLError as error:
                raise HandshakeFailed(self._worker, self._url, _cause(error)) from None
            except (OSError, *_TIMEOUTS) as error:
                if time.monotonic() + pause >= deadline:
                    raise WorkerUnreachable(self._worker, self._url, seconds, attempts, _cause(error)) from None
            except (InvalidHandshake, InvalidMessage, ConnectionClosed) as error:
                raise HandshakeFailed(self._worker, self._url, _cause(error)) from None
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE)
        try:
            await self._introduce(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _connect(self, seconds: float) -> ClientConnection:
        proxy = self._proxy
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(proxy.host, proxy.host)
        return await connect(
            f"{'wss' if proxy.secure else 'ws'}://{f'[{host}]' if ':' in host else host}:{proxy.port}",
            ssl=proxy._tls,
            compression=None,
            max_size=proxy.max_message_bytes,
            open_timeout=min(seconds, HANDSHAKE_TIMEOUT),
            ping_interval=PING_INTERVAL,
            ping_timeout=PING_INTERVAL,
            close_timeout=CLOSE_TIMEOUT,
            proxy=None,
        )

    async def _introduce(self, connection: ClientConnection) -> None:
        try:
            await connection.send(wire.encode(wire.Request(0, "hello", {"session": self._session})))
            answer = await asyncio.wait_for(connection.recv(), HANDSHAKE_TIMEOUT)
        except _TIMEOUTS:
            cause = f"no answer to the greeting within {HANDSHAKE_TIMEOUT:g} s"
            raise HandshakeFailed(self._worker, self._url, cause) from None
        except ConnectionClosed as error:
            raise HandshakeFailed(self._worker, self._url, _cause(error)) from None
        theirs = wire.peek_version(answer) if isinstance(answer, bytes) else None
        if theirs is None:
            raise HandshakeFailed(self._worker, self._url, "it does not speak this package's protocol")
        if theirs != wire.VERSION:
            raise VersionMismatch(self._worker, self._url, "another version", wire.VERSION, theirs)
        self.peer_limit = unwrap(answer, self._worker)["max_message_bytes"]  # type: ignore[arg-type]

    async def _read(self, connection: ClientConnection) -> None:
        """Hand each reply to the call that waits for it, until the connection ends."""
        try:
            async for frame in connection:
                try:
                    request_id = wire.peek_id(frame)  # type: ignore[arg-type]
                except (MalformedMessage, TypeError) as error:
                    logger.warning("worker %s sent a message that is dropped: %s", self._worker, error)
                    continue
                waiting = self._waiting.get(request_id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(frame)  # type: ignore[arg-type]
        except ConnectionClosed:
            pass
        if connection is self._connection:
            self.open = False
        cause = ConnectionResetError(_closing(connection))
        for waiting in list(self._waiting.values()):
            if not waiting.done():
                waiting.set_exception(cause)


class _IOThread:
    """A thread with an event loop, on which all connections of this process live."""

    _current: _IOThread | None = None
    _abandoned: list[_IOThread] = []  # noqa: RUF012 - shared on purpose: the parents' threads, seen from a forked child
    _starting = threading.Lock()

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.links: weakref.WeakSet[_Link] = weakref.WeakSet()
        self._process = os.getpid()
        self._thread = threading.Thread(target=self.loop.run_forever, name="syft-io", daemon=True)
        self._thread.start()

    @classmethod
    def current(cls) -> _IOThread:
        """Return this process's I/O thread; start it first if need be."""
        with cls._starting:
            if cls._current is None:
                cls._current = cls()
            return cls._current

    @classmethod
    def after_fork(cls) -> None:
        """Leave the parent's thread alone in a forked child.

        The thread does not run here, and its loop must not be touched or even freed: parent and child share the
        selector that is inside it.
        """
        cls._starting = threading.Lock()
        if cls._current is not None:
            cls._abandoned.append(cls._current)
            cls._current = None

    @property
    def alive(self) -> bool:
        """Whether the thread runs, in this process."""
        return self._process == os.getpid() and not self.loop.is_closed()

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task on the loop, from the loop, and keep it from being collected while it runs."""
        task = self.loop.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def start_soon(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Start a task on the loop, from any thread and from `__del__`; do nothing if the process is about to end."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(lambda: self.start(function()))

    def submit(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Start a task on the loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, Any], timeout: float | None = None) -> Any:
        """Run a coroutine on the loop and wait for its result; cancel it if the wait is interrupted."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("a blocking call to a worker was made on the I/O thread; use its async form there.")
        future = self.submit(coroutine)
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Close all connections, within a second, when the process ends."""
        if self.alive:
            with contextlib.suppress(Exception):
                self.submit(self._close_all()).result(1)
            self.loop.call_soon_threadsafe(self.loop.stop)

    async def _close_all(self) -> None:
        await asyncio.gather(*(link.close() for link in list(self.links)), return_exceptions=True)


def _stop_io_thread() -> None:
    if _IOThread._current is not None:
        _IOThread._current.stop()


atexit.register(_stop_io_thread)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_IOThread.after_fork)


def _port(port: int | str) -> int:
    try:
        number = int(port)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number <= 65535:
        raise ValueError(f"not a port: {port!r}; expected a number from 0 to 65535.")
    return number


def _client_tls(ca_path: str | os.PathLike[str] | None, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_path)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _in_time(error: BaseException, worker: ObjectId, call: str, seconds: float | None) -> BaseException:
    """Return the error to raise for a TimeoutError: our own deadline's, or one that came from below as it is."""
    return error if isinstance(error, SyftError) or seconds is None else CallTimeout(str(worker), call, seconds)


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _closing(connection: ClientConnection) -> str:
    code, reason = connection.close_code, connection.close_reason
    return f"closed with code {code}" + (f" ({reason})" if reason else "")
