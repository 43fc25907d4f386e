"""The coordinator's side of the socket: a proxy of a worker.

The worker is in another process or on another machine.

    caller's thread                        I/O thread (one for all proxies of the process)
    call() -> encode -> submit ----------> Link: request id -> a future; send
           <- decode <- future  <--------- Link: reply id -> its future

Blocking calls therefore work inside a running event loop (Jupyter), and proxies do not wait for
each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

import torch

from syft import wire
from syft.access.privacy import PrivacySpent
from syft.exceptions import CallTimeout, ConnectionFailed, MessageTooLarge, SyftError
from syft.federated.seeding import draw_seed
from syft.objects import ObjectId, pack_object
from syft.remote.stream import PlainStream, Stream
from syft.wire.failures import describe_request, unwrap
from syft.workers import websocket_settings as settings
from syft.workers.base import BaseWorker, _fit_arguments, _threshold_argument
from syft.workers.io_thread import IOThread, in_event_loop
from syft.workers.websocket_access import FilePath, client_tls, resolve_token, warn_of_open_token
from syft.workers.websocket_connect import Peer
from syft.workers.websocket_link import Link
from syft.workers.websocket_settings import TIMEOUTS, parse_port
from syft.workers.websocket_stream import SocketStream

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
"""Seconds a proxy waits, by default, for its worker to accept a connection."""
CONNECT_TIMEOUT_VARIABLE = "SYFT_CONNECT_TIMEOUT"
"""The environment variable with another default.

The launcher sets it, since the command it runs may be the first.
"""
GARBAGE_DELAY = 0.5
"""Seconds until a worker is told of objects to delete, unless another request goes there first."""


# Who does what:
#
# - Encoding and decoding take place in the caller's thread. They take the time (a model becomes a
#   graph, its tensors are copied), while the I/O thread has pings to answer for all proxies.
# - What was sent belongs to the session on the worker, so a proxy that connects again finds it
#   there. Only fits are counted at both ends, since a worker that is started anew has forgotten
#   them (syft/fits.py).
# - Deletions are gathered (`_garbage`) and sent along with the next request, or GARBAGE_DELAY
#   later. `__del__` runs in any thread and at any moment, so all it does is append to a deque.
# - After a fork, parent and child must not share a socket. The child notices by its own I/O thread
#   that its link is the parent's, and makes a new one, with a session of its own.


class WebsocketClientWorker(BaseWorker):
    """A proxy of a `WebsocketServerWorker`: what is asked of the proxy, the worker does.

    The proxy holds one connection, which serves blocking and asynchronous calls alike. If it is
    lost, the next call connects again. A proxy may be used from several threads. After a fork, the
    child's copy opens a connection of its own and leaves its parent's connection and objects alone.

    Source: PySyft 0.2.4, `syft.workers.websocket_client.WebsocketClientWorker`; the arguments after
    `data` are new.

    Args:
        hook: the TorchHook.
        host: host name or address of the worker. 0.0.0.0, which is an address to listen on, means
            this machine.
        port: its port.
        secure: whether to use TLS; the worker's certificate is verified, its host name included.
        id: the id that the worker has for this program.
        is_client_worker: accepted and kept as an attribute.
        log_msgs: whether to keep the calls, as text, in `msg_history`.
        verbose: whether to log every call at level INFO rather than DEBUG.
        data: tensors to store in the proxy itself.
        timeout: seconds that calls, blocking or asynchronous, wait for their result unless they
            name another limit. None: as long as the worker answers pings; training may take hours.
        connect_timeout: seconds to wait for the worker to accept a connection. None: the value of
            the environment variable SYFT_CONNECT_TIMEOUT if it is set, else 10.
        max_message_bytes: upper bound on one message, sent or received.
        ca_path: file of the certificate authority that signed the worker's certificate; None: the
            system's.
        verify: False turns the verification of the certificate off.
        connect: False: connect at the first call, rather than here.
        token: the secret that the worker asks for, sent when a connection is opened. None: that of
            the environment variable SYFT_TOKEN, if it is set, else that of a worker on loopback
            which this user started without one (see syft/workers/token_files.py); "": none.
        cert_path: file with a certificate chain that shows the worker who this is, if it asks for
            one.
        key_path: file with its private key; None: it is in `cert_path`.
        allow_torchscript: send models that a plain graph cannot carry as TorchScript archives; the
            worker must allow that too.

    Raises:
        AccessDenied: the token or the client certificate is missing or wrong (also a
            PermissionError).
        WorkerUnreachable: nothing accepts the connection in time (also a ConnectionRefusedError).
        HandshakeFailed: something other than a worker listens there.
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
        connect_timeout: float | None = None,
        max_message_bytes: int = wire.MAX_MESSAGE_BYTES,
        ca_path: FilePath | None = None,
        verify: bool = True,
        connect: bool = True,
        token: str | None = None,
        cert_path: FilePath | None = None,
        key_path: FilePath | None = None,
        allow_torchscript: bool = False,
    ) -> None:
        self.host = host
        self.port = parse_port(port)
        self.secure = secure
        self.timeout = timeout
        self.connect_timeout = _connect_timeout() if connect_timeout is None else connect_timeout
        self.max_message_bytes = max_message_bytes
        self._tls = client_tls(ca_path, verify, cert_path, key_path) if secure else None
        self._token = resolve_token(token)
        self._finds_token = token is None and self._token is None
        if not secure:
            if ca_path or cert_path or key_path:
                raise ValueError(
                    "ca_path, cert_path and key_path are for TLS: give secure=True too."
                )
            warn_of_open_token(self._token, host)
        self._allow_torchscript = allow_torchscript
        self._link: Link | None = None
        self._operations: tuple[Link | None, SocketStream | None] = None, None
        self._garbage: deque[ObjectId] = deque()
        super().__init__(hook, id, data, is_client_worker, log_msgs, verbose, auto_add=False)
        if connect:
            self.connect()
        self.add_worker(self)

    @property
    def url(self) -> str:
        """The worker's address: ws://host:port, or wss://host:port with TLS."""
        return f"{'wss' if self.secure else 'ws'}://{self.host}:{self.port}"

    @property
    def ws(self) -> _Socket:
        """The connection, for PySyft 0.2 programs that close it or ask whether it is open."""
        return _Socket(self)

    @property
    def connection_attempts(self) -> int:
        """Connection attempts since the last open connection; 0 while there is one."""
        return self._link.attempts if self._link is not None else 0

    def connect(self) -> None:
        """Open the connection, unless it is open."""
        link = self._usable_link()
        link.io.run(link.connection())

    async def async_connect(self) -> None:
        """Open the connection unless it is open, and return when the worker answers.

        Attempts are repeated for `connect_timeout` seconds, with pauses that double up to one
        second, plus jitter. After a call that timed out, the worker has to answer a ping first.

        Raises:
            WorkerUnreachable, HandshakeFailed, VersionMismatch: as this class.
        """
        link = self._usable_link()
        while not link.answers:
            await asyncio.wrap_future(link.io.submit(link.answer()))

    def close(self) -> None:
        """Close the connection, once what was sent is carried out.

        The worker keeps this proxy's objects for a while; the next call connects again.
        """
        link = self._link
        if link is not None and link.io.alive:
            # Whoever closes does not care for a worker that cannot be reached any more.
            with contextlib.suppress(SyftError):
                if link.open and (operations := self._operations_to_settle()) is not None:
                    self._wait_for(operations, "operate()", settings.CLOSE_TIMEOUT)
            link.io.run(link.close())

    def fit(self, dataset_key: str, **kwargs: Any) -> torch.Tensor | None:
        """Train on the worker, with the TrainConfig sent last, and wait for the end.

        Args:
            dataset_key: key of the dataset on the worker.
            **kwargs: `device`: where to train; `timeout`: seconds to wait; `return_ids`: ignored.

        Returns:
            The loss on the last batch, a scalar on the CPU.

        Raises:
            DatasetNotFound, UnknownOptimizer, TrainConfigMissing, DeviceUnavailable: as
                FederatedClient.fit; all are also ValueErrors.
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
        threshold: float | None = None,
    ) -> dict[str, Any]:
        """Evaluate on the worker, with the TrainConfig sent last, and wait for the end.

        Arguments, result and errors are those of `FederatedClient.evaluate`; `timeout`: seconds to
        wait.
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
            **_threshold_argument(threshold),
        )

    def privacy_spent(self) -> PrivacySpent | None:
        """Return where the worker's privacy budget stands: `spent` of `epsilon`, at `delta`.

        Returns:
            Three numbers by these names; None if the worker's policy has no privacy.

        Raises:
            NotPermitted: the worker's owner does not tell.
            UnknownCommand: the worker is of an earlier version.
        """
        return self._privacy_spent(self.call("privacy_spent"))

    def _exchange(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        if (operations := self._operations_to_settle()) is not None:
            self._wait_for(operations, "operate()")
        link, request_id, call, frame = self._prepare(command, arguments)
        seconds = self.timeout if timeout is None else timeout
        # A `get` takes the object off the worker, so it is not sent if an earlier post failed.
        with self._waiting(link, call, seconds):
            reply = link.io.run(
                link.request(request_id, call, frame, settle=command == "get"), seconds
            )
        return self._result(link, reply)

    async def _async_exchange(
        self, command: str, timeout: float | None = None, **arguments: Any
    ) -> Any:
        if (operations := self._operations_to_settle()) is not None:
            with self._waiting(self._usable_link(), "operate()", self.timeout):
                await asyncio.wait_for(asyncio.wrap_future(operations), self.timeout)
        link, request_id, call, frame = self._prepare(command, arguments)
        seconds = self.timeout if timeout is None else timeout
        future = link.io.submit(link.request(request_id, call, frame, settle=command == "get"))
        with self._waiting(link, call, seconds):
            reply = await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        return self._result(link, reply)

    def _operations_to_settle(self) -> Future[bytes] | None:
        """Send the operations that were posted, so that calls find what they have made.

        Returns:
            The future of the reply; None if there is nothing to wait for.
        """
        link, operations = self._operations
        return operations.settled() if operations is not None and link is self._link else None

    def _stream(self) -> Stream:
        link = self._usable_link()
        if link.greeting is None:
            link.io.run(link.connection())
        if link.greeting is not None and not link.greeting.remote_operations:
            return PlainStream(str(self.id), self._store, self.request_obj, self._forget)
        former, stream = self._operations
        if stream is None or former is not link:
            encode = lambda arguments: self._prepare("operate", arguments)[1::2]  # noqa: E731
            stream = SocketStream(str(self.id), draw_seed, link, encode, self._wait_for)
            self._operations = link, stream
        return stream

    def _store(self, obj_id: ObjectId, tensor: torch.Tensor) -> None:
        self._exchange("set", objects=[{"id": obj_id, **pack_object(tensor)}])

    def _wait_for(self, reply: Future[bytes], call: str, timeout: float | None = None) -> bytes:
        async def replied() -> bytes:
            return await asyncio.wrap_future(reply)

        link = self._usable_link()
        seconds = self.timeout if timeout is None else timeout
        with self._waiting(link, call, seconds):
            frame: bytes = link.io.run(replied(), seconds)
        return frame

    @contextlib.contextmanager
    def _waiting(self, link: Link, call: str, seconds: float | None) -> Iterator[None]:
        """Wait for a reply; tell the link if the wait is given up, for whatever reason."""
        try:
            yield
        except BaseException as error:
            link.give_up()
            if isinstance(error, TIMEOUTS):
                raise CallTimeout(str(self.id), call, seconds or 0) from None
            raise

    def _post(self, command: str, **arguments: Any) -> None:
        link, request_id, call, frame = self._prepare(command, arguments)
        # A loop must not wait; there, the next call tells the failure.
        if not link.open and not in_event_loop():
            link.io.run(link.connection())
        link.posts.add(link.io.submit(link.request(request_id, call, frame)))

    def _forget(self, obj_id: ObjectId) -> None:
        # Called by __del__ in any thread and at any time: it takes no lock, and never raises.
        self._garbage.append(obj_id)
        self._sent.pop(obj_id, None)
        link = self._link
        if link is not None and link.io.alive and link.open:
            link.io.call_later(GARBAGE_DELAY, lambda: self._collect(link))

    async def _collect(self, link: Link) -> None:
        # What is to be deleted is not worth a new connection; the next one begins with it.
        if not link.open:
            return
        ids = []
        while self._garbage:
            ids.append(self._garbage.popleft())
        if ids:
            request_id = next(self._request_ids)
            frame = wire.encode(wire.Request(request_id, "delete", {"ids": ids}))
            try:
                await link.request(request_id, "delete", frame)
            except SyftError as error:
                logger.debug("worker %s: %d objects are left to it: %s", self.id, len(ids), error)

    def _prepare(self, command: str, arguments: dict[str, Any]) -> tuple[Link, int, str, bytes]:
        """Return the link to use, and the request's id, description and bytes."""
        call = describe_request(command, arguments)
        link = self._usable_link()
        arguments = self._count_fits(command, arguments)
        if self._garbage and link.open:
            link.io.start_soon(lambda: self._collect(link))  # it travels with the request
        request_id = next(self._request_ids)
        frame = wire.encode(wire.Request(request_id, command, arguments), self._allow_torchscript)
        limit = min(self.max_message_bytes, link.peer_limit)
        if len(frame) > limit:
            raise MessageTooLarge(str(self.id), f"{call} to", len(frame), limit)
        self._note(call)
        level = logging.INFO if self.verbose else logging.DEBUG
        logger.log(level, "to worker %s: %s, %d bytes", self.id, call, len(frame))
        return link, request_id, call, frame

    def _result(self, link: Link, reply: bytes) -> Any:
        # Something that was sent without waiting failed. What this call returned may rest on an
        # older model or config than the user thinks, so the error comes in place of the result.
        earlier = link.posts.take_error()
        if earlier is not None:
            raise earlier
        return unwrap(reply, self.id)

    def _usable_link(self) -> Link:
        """Return this process's link; a child of a fork gets one of its own."""
        io = IOThread.current()
        if self._link is None or self._link.io is not io:
            if self._link is not None:
                self._garbage.clear()  # these are the parent's objects
                self._forget_fits()  # and its fits
            about = (
                str(self.id),
                self.host,
                self.port,
                self._tls,
                self.connect_timeout,
                self.max_message_bytes,
            )
            peer = Peer(*about, self._token, self._finds_token)
            # Weak: the proxy owns the link, and closes it when it goes.
            collect = weakref.WeakMethod(self._collect)
            self._link = Link(io, peer, lambda link: (method := collect()) and method(link))
        return self._link

    def __str__(self) -> str:
        try:
            remote = str(self.objects_count_remote())
        except (ConnectionFailed, TimeoutError) as error:
            remote = f"unknown ({type(error).__name__})"
        return (
            f"<{type(self).__name__} id:{self.id} #objects local:{self.objects_count()} "
            f"#objects remote: {remote}>"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} id:{self.id} url:{self.url}>"

    def __del__(self) -> None:
        link = getattr(self, "_link", None)
        if link is not None and link.io.alive:
            link.io.start_soon(link.close)


class _Socket:
    """What PySyft 0.2 programs use of the connection of a proxy."""

    def __init__(self, proxy: WebsocketClientWorker) -> None:
        self._proxy = proxy

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        link = self._proxy._link
        return link is not None and link.open

    def close(self) -> None:
        """Close the connection; the proxy's next call connects again."""
        self._proxy.close()

    shutdown = close


def _connect_timeout() -> float:
    text = os.environ.get(CONNECT_TIMEOUT_VARIABLE) or str(CONNECT_TIMEOUT)
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise ValueError(f"{CONNECT_TIMEOUT_VARIABLE} is {text!r}; expected a number of seconds.")
