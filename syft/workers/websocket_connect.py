"""How a proxy gets to its worker.

It ends with one connection, opened and introduced, or an error that says why there is none.

    try to connect ──> the opening handshake ──> the greeting ──────────> an open connection
        │                  │                        │
        │ nobody there     │ 401, no WebSocket,     │ silence, another protocol,
        │ yet: pause,      │ a certificate that     │ another version of it
        │ try again        │ is not trusted         │
        v                  v                        v
    WorkerUnreachable  AccessDenied,            HandshakeFailed,
    at the deadline    HandshakeFailed          VersionMismatch

Only the first kind is worth another attempt: a worker may just be starting. Pauses double, with
jitter, so that many coordinators that lost the same worker do not all come back at the same moment.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from syft import wire
from syft.exceptions import (
    HandshakeFailed,
    MalformedMessage,
    VersionMismatch,
    WorkerUnreachable,
    printable,
)
from syft.wire.failures import unwrap
from syft.workers import token_files
from syft.workers import websocket_settings as settings
from syft.workers.websocket_access import authorization, refusal
from syft.workers.websocket_keepalive import KeptAliveClient

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_random = random.SystemRandom()  # for jitter; the global generator is the program's


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
        finds_token: whether to look for the token that a worker of this user made.
    """

    worker: str
    host: str
    port: int
    tls: ssl.SSLContext | None
    connect_timeout: float
    max_message_bytes: int
    token: str | None = field(default=None, repr=False)
    finds_token: bool = False

    @property
    def url(self) -> str:
        """The address as the user wrote it: ws://host:port, or wss://host:port with TLS."""
        return f"{'ws' if self.tls is None else 'wss'}://{self.host}:{self.port}"

    @property
    def uri(self) -> str:
        """The address to connect to: 0.0.0.0, which is one to listen on, means this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        scheme = "ws" if self.tls is None else "wss"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"


class Greeting(NamedTuple):
    """What a worker says of itself.

    Attributes:
        max_message_bytes: the most bytes that it accepts in one message.
        torch: its version of torch.
        remote_operations: whether coordinators may operate on remote tensors there.
    """

    max_message_bytes: int
    torch: str
    remote_operations: bool


class _TokenFinder(KeptAliveClient):
    """A connection that sends the token of the worker it has reached.

    It does so if that is a worker of this user.
    """

    async def handshake(self, additional_headers: Any = None, *args: Any, **kwargs: Any) -> None:
        # The address that was reached, whatever name was asked for: the token goes nowhere else.
        address = self.remote_address  # None if the worker has reset the connection already
        token = token_files.find(address[:2]) if address else None
        await super().handshake(
            {**(additional_headers or {}), **authorization(token)}, *args, **kwargs
        )


async def open_connection(
    peer: Peer, session: str, count_attempt: Callable[[], None] = lambda: None
) -> tuple[ClientConnection, Greeting]:
    """Connect to a worker, trying again until the deadline, and introduce this side.

    Args:
        peer: the worker.
        session: name of the session that the connection belongs to.
        count_attempt: called before each attempt.

    Returns:
        connection: the open connection. greeting: what the worker says of itself.

    Raises:
        WorkerUnreachable: nobody accepted a connection before the deadline.
        AccessDenied: the worker asks for another token, or for a client certificate.
        HandshakeFailed: something else than a worker of this protocol listens there.
        VersionMismatch: the worker speaks another version of the protocol.
    """
    connection = await _connect_in_time(peer, count_attempt)
    # Closed here if that fails or is cancelled: the caller does not have it yet.
    try:
        return connection, await _introduce(connection, peer, session)
    except BaseException:
        await connection.close()
        raise


async def _connect_in_time(peer: Peer, count_attempt: Callable[[], None]) -> ClientConnection:
    seconds = peer.connect_timeout
    deadline, attempts, pause = time.monotonic() + seconds, 0, _FIRST_PAUSE
    while True:
        attempts += 1
        count_attempt()
        try:
            return await connect_once(peer, max(deadline - time.monotonic(), 0.05))
        # Before OSError, of which it is one: a certificate does not become right by waiting.
        except ssl.SSLError as error:
            raise refusal(peer.worker, peer.url, error) from None
        except (OSError, *settings.TIMEOUTS) as error:
            hung_up = isinstance(error, ConnectionResetError)
            if hung_up and peer.tls is not None:  # it does not speak TLS
                raise refusal(peer.worker, peer.url, error) from None
            # Any other reset is worth another attempt: a port forwarder may accept before its
            # worker listens.
            if time.monotonic() + pause >= deadline:
                if hung_up:  # somebody is there
                    raise HandshakeFailed(peer.worker, peer.url, cause_of(error)) from None
                raise WorkerUnreachable(
                    peer.worker, peer.url, seconds, attempts, cause_of(error)
                ) from None
        except (InvalidHandshake, InvalidMessage, ConnectionClosed) as error:
            raise refusal(peer.worker, peer.url, error) from None
        await asyncio.sleep(pause * _random.uniform(0.5, 1))
        pause = min(2 * pause, _LONGEST_PAUSE)


async def connect_once(peer: Peer, seconds: float) -> ClientConnection:
    """Connect, opening handshake included, within `seconds`."""
    return await connect(
        peer.uri,
        ssl=peer.tls,
        compression=None,  # float32 parameters do not compress
        max_size=peer.max_message_bytes,
        open_timeout=min(seconds, settings.HANDSHAKE_TIMEOUT),
        ping_interval=settings.PING_INTERVAL,
        ping_timeout=settings.PING_INTERVAL,
        close_timeout=settings.CLOSE_TIMEOUT,
        proxy=None,
        create_connection=_TokenFinder if peer.finds_token else KeptAliveClient,
        additional_headers=authorization(peer.token),
    )


async def _introduce(connection: ClientConnection, peer: Peer, session: str) -> Greeting:
    """Exchange greetings; return the worker's."""
    greeting = {
        "session": session,
        "max_message_bytes": peer.max_message_bytes,
        "torch": str(torch.__version__),
    }
    try:
        await connection.send(wire.encode(wire.Request(0, "hello", greeting)))
        answer = await asyncio.wait_for(connection.recv(), settings.HANDSHAKE_TIMEOUT)
    except settings.TIMEOUTS:
        cause = f"no answer to the greeting within {settings.HANDSHAKE_TIMEOUT:g} s"
        raise HandshakeFailed(peer.worker, peer.url, cause) from None
    except ConnectionClosed as error:
        raise HandshakeFailed(peer.worker, peer.url, cause_of(error)) from None
    # Before it is decoded: to this side, a message of another version is only malformed.
    version = wire.peek_version(answer) if isinstance(answer, bytes) else None
    if version not in (None, wire.VERSION):
        raise VersionMismatch(peer.worker, peer.url, "another version", wire.VERSION, version)
    try:
        told = unwrap(answer, peer.worker)  # type: ignore[arg-type]
        theirs = printable(str(told["torch"]), 40)
        _compare_versions(peer.worker, theirs)
        return Greeting(int(told["max_message_bytes"]), theirs, told["remote_operations"] is True)
    except (MalformedMessage, TypeError, KeyError, ValueError):
        cause = "it does not speak this package's protocol"
        raise HandshakeFailed(peer.worker, peer.url, cause) from None


def _compare_versions(worker: str, theirs: str) -> None:
    """Warn of a worker with another minor version of torch.

    Kernels differ between them, so the same training ends with other last digits; and operations
    that one of them lacks fail.
    """
    if theirs.split(".")[:2] != str(torch.__version__).split(".")[:2]:
        logger.warning(
            "worker %s runs torch %s, this process %s: results differ in the last digits, and "
            "operations on remote tensors that only one of them has fail",
            worker,
            theirs,
            torch.__version__,
        )


def cause_of(error: BaseException) -> str:
    """Return an error as the cause of another one."""
    return (
        printable(f"{type(error).__name__}: {error}", 500) if str(error) else type(error).__name__
    )
