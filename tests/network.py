"""Servers, proxies and false peers on free ports of this machine, for the tests of the socket
layer."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as raw_connect
from websockets.sync.server import ServerConnection, serve

import syft as sy
from syft import wire
from tests.models import blobs, make_config

DEADLINE = 20.0
"""Seconds after which a test that waits has failed. Nothing here should take one."""


class RemoteMethods:
    """Methods such as users' subclasses of a worker offer."""

    entered: threading.Semaphore
    release: threading.Event
    order: list[str]

    def hold(self, name: str = "") -> str:
        """Keep the compute thread busy until the test sets `release`."""
        self.entered.release()
        if not self.release.wait(DEADLINE):
            raise TimeoutError("the test did not set `release`")
        self.order.append(name)
        return name

    def scale(self, x: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
        return x * factor

    def zeros(self, count: int) -> torch.Tensor:
        return torch.zeros(count)

    def thing(self) -> object:
        return object()

    def fail(self, kind: str, text: str) -> None:
        raise {
            error.__name__: error
            for error in (ValueError, RuntimeError, KeyError, SystemExit, OwnError)
        }[kind](text)


class Server(RemoteMethods, sy.WebsocketServerWorker):
    """A worker with the dataset "blobs" and remote methods.

    It needs no token, unless one is given.
    """

    def __init__(
        self, id: str = "alice", host: str = "127.0.0.1", port: int | str = 0, **settings: Any
    ) -> None:
        super().__init__(None, host, port, id=id, **{"token": "", **settings})
        self.add_dataset(blobs(), key="blobs")
        self.entered, self.release, self.order = threading.Semaphore(0), threading.Event(), []


class OwnError(Exception):
    """An error of a user's own."""


def wait_until_held(server: Server) -> None:
    """Wait until the server's compute thread is in hold()."""
    assert server.entered.acquire(timeout=DEADLINE), "hold() was not called in time"


@contextlib.contextmanager
def serving(server: sy.WebsocketServerWorker) -> Iterator[Any]:
    """Serve while the context lasts."""
    server.start(block=False)
    try:
        yield server
    finally:
        if isinstance(server, Server):
            server.release.set()
        server.stop()


@contextlib.contextmanager
def proxy_of(
    server: sy.WebsocketServerWorker,
    cls: type[sy.WebsocketClientWorker] = sy.WebsocketClientWorker,
    **settings: Any,
) -> Iterator[Any]:
    """A proxy of `server` that waits DEADLINE at most for anything, closed at the end."""
    with proxy_at(server.host, server.port, cls, **{"id": server.id, **settings}) as proxy:
        yield proxy


@contextlib.contextmanager
def proxy_at(
    host: str,
    port: int | str,
    cls: type[sy.WebsocketClientWorker] = sy.WebsocketClientWorker,
    **settings: Any,
) -> Iterator[Any]:
    """A proxy of what listens at an address, closed at the end."""
    proxy = cls(
        None, host, port, **{"id": "alice", "timeout": DEADLINE, "connect_timeout": 5.0, **settings}
    )
    try:
        yield proxy
    finally:
        proxy.close()
        proxy.remove_worker_from_local_worker_registry()


@contextlib.contextmanager
def raw(
    server: sy.WebsocketServerWorker, session: str | None = "raw"
) -> Iterator[ClientConnection]:
    """A bare WebSocket connection to a worker, greeted as `session` unless that is None."""
    with raw_connect(
        f"ws://{server.host}:{server.port}", compression=None, proxy=None
    ) as connection:
        if session is not None:
            exchange(connection, wire.Request(0, "hello", {"session": session}))
        yield connection


def exchange(connection: ClientConnection, request: wire.Request) -> Any:
    """Send a request and return the next message."""
    connection.send(wire.encode(request))
    return wire.decode(connection.recv(timeout=DEADLINE))


def call(name: str, request_id: int = 1, **kwargs: Any) -> wire.Request:
    """The request that calls a method of a worker."""
    return wire.Request(request_id, "call", {"name": name, "args": [], "kwargs": kwargs})


def greeting(max_message_bytes: Any = 2**20, **about: Any) -> bytes:
    """What a worker says first of itself."""
    told = {"torch": torch.__version__, "remote_operations": False, **about}
    return wire.encode(wire.Reply(0, {"max_message_bytes": max_message_bytes, **told}))


@contextlib.contextmanager
def false_worker(handler: Callable[[ServerConnection], None]) -> Iterator[int]:
    """A WebSocket server that is no worker: `handler` gets each connection. Yields its port."""
    with serve(handler, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join(DEADLINE)


@contextlib.contextmanager
def listener(handler: Callable[[socket.socket], None] | None = None) -> Iterator[int]:
    """A TCP listener; `handler` gets each connection, None leaves them unanswered.

    Yields its port.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        handler(connection)

        thread = threading.Thread(target=accept if handler else lambda: None)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(DEADLINE)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def assert_usable(proxy: sy.WebsocketClientWorker) -> None:
    """A call, a training and a status call work."""
    assert proxy.call("scale", torch.ones(1)).tolist() == [2.0]
    make_config().send(proxy)
    assert proxy.fit("blobs").shape == ()
    assert proxy.objects_count_remote() == 0


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether `condition` becomes true before the deadline, for what has no event to wait for."""
    deadline, never = time.monotonic() + DEADLINE, threading.Event()
    while not (done := condition()) and time.monotonic() < deadline:
        never.wait(0.01)
    return done


async def in_time(awaitable: Any) -> Any:
    """The result of `awaitable`, which has DEADLINE seconds."""
    return await asyncio.wait_for(awaitable, DEADLINE)
