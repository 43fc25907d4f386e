"""The worker's side of the socket.

    server thread: event loop               compute thread
    accept, greet, read a frame ----------> fit, evaluate, the owner's own methods: one at a time,
    quick requests: answered at once           in the order in which they came
    pings, errors, other coordinators  <--- reply

The event loop has a thread of its own, so `start` works where a loop runs already (Jupyter).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import secrets
import ssl
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from syft import wire
from syft.access.limits import STUCK_SECONDS, Limits
from syft.access.policy import Policy
from syft.exceptions import AddressInUse, LimitExceeded, MalformedMessage, TokenNotKept, printable
from syft.objects import ObjectId
from syft.session import Job, Session
from syft.wire.failures import failure
from syft.workers import token_files
from syft.workers import websocket_settings as settings
from syft.workers.compute import ComputeThread
from syft.workers.threads import Threads, serving, warm_up
from syft.workers.virtual import VirtualWorker
from syft.workers.websocket_access import (
    FilePath,
    Gate,
    check_origins,
    identity,
    is_loopback,
    resolve_token,
    server_tls,
)
from syft.workers.websocket_keepalive import KeptAliveServer
from syft.workers.websocket_settings import fragments, parse_port

logger = logging.getLogger(__name__)

# One frame after another, for each connection:
#
#     read a frame -> accept -> a call:   put it in the queue of the compute thread -> next frame
#                               the rest: carry it out, send the reply              -> next frame
#
# The next frame is read only then. So the requests of a connection are accepted in their order, an
# object is stored before the call that needs it, and a coordinator that sends faster than it is
# served is held back by TCP rather than filling the worker's memory. Calls alone are overtaken, by
# the requests that come while they wait or run; their replies carry their ids.
#
# Connections and queued calls are counted by the event loop alone, so no lock guards these numbers.
# What other threads use of a session has a lock of its own (`objects`, `fits`) or is replaced as a
# whole (`training`).

SESSION_GRACE = 600.0
"""Seconds for which a worker keeps the objects of a coordinator that is not connected any more."""

_LONGEST_NAME = 64
_LARGE = 64 * 1024
"""Frames of more bytes are handled outside the event loop."""


class WebsocketServerWorker(VirtualWorker):
    """A worker that coordinators reach through a `WebsocketClientWorker`.

    Several coordinators may be connected at once; each has its own TrainConfig and gets its own
    replies. Data stay here: no request returns a dataset.

    To offer methods of your own, subclass this class and define them, public; call them with
    `proxy.call("name", ...)` or `await proxy.async_call("name", ...)`. They run one at a time with
    fit() and evaluate(), take and return tensors, arrays, models and plain values, and find the
    coordinator's model with `self.current_model()`.

    Source: PySyft 0.2.4, `syft.workers.websocket_server.WebsocketServerWorker`; the arguments
    after `key_path` are new.

    Args:
        hook: the TorchHook.
        host: address to listen on. "localhost": this machine only, over IPv4 and IPv6.
        port: port to listen on; 0: a free one, which `port` tells once started.
        id: the worker's id.
        log_msgs: accepted and kept as an attribute.
        verbose: whether to log every request, with its duration, at level INFO rather than DEBUG.
        data: tensors to store at once.
        loop: an event loop that is not running, to serve on; None: a new one.
        cert_path: file with the certificate chain; with `key_path`, the worker speaks TLS only.
        key_path: file with the private key.
        max_message_bytes: upper bound on one message, received or sent.
        token: the secret that a coordinator must send when it opens a connection; it is checked
            before any message is read. None: that of the environment variable SYFT_TOKEN; if that
            is not set either, a worker on loopback makes one at each start, which proxies of the
            same user on the same machine find by themselves (see syft/workers/token_files.py). "":
            none is needed.
        client_ca_path: file of the certificate authority; a coordinator must have a certificate
            signed by it. Only with `cert_path` and `key_path`.
        allow_origins: origins of web pages that may connect, such as "http://localhost:3000"; any
            other page that a browser shows is refused. A page cannot send a token: this is for
            workers without one, and for programs that send an Origin.
        allow_operators: names of operators that models may use beside those of
            syft/graph/operators.py.
        allow_torchscript: take models that a plain graph cannot carry as TorchScript archives.
            Loading one runs what is in it, and torch's loader trusts its input: only where every
            coordinator is trusted.
        limits: how much coordinators may use; None: as class Limits says.
        policy: what they may ask for; None: everything that the worker offers.
        audit_path: file for the audit log (syft/access/audit.py); None: no audit log.
        remote_operations: whether coordinators may operate on remote tensors here, and so read
            every tensor that they may operate on. None: as long as the worker has no datasets, and
            its policy has neither `models` nor `privacy`.
        threads: threads that torch computes with in this process. None: the processes of this user
            that serve on this machine share its cores (see syft/workers/threads.py).

    Attributes:
        stuck_calls: once stopped: calls that ran beyond their time and cannot be ended (see
            Limits). Their threads still run, so the process should end by os._exit: Python's way
            out aborts under them.

    Raises:
        ValueError: only one of cert_path and key_path is given, or client_ca_path without them; or
            the port, the token, an origin or the number of threads cannot be used; or
            `remote_operations` is True and the policy has `models` or `privacy`.
        OSError: the audit log cannot be opened.
    """

    _is_own_proxy = False

    def __init__(
        self,
        hook: Any,
        host: str,
        port: int | str,
        id: ObjectId = 0,
        log_msgs: bool = False,
        verbose: bool = False,
        data: Iterable[torch.Tensor] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        cert_path: FilePath | None = None,
        key_path: FilePath | None = None,
        *,
        max_message_bytes: int = wire.MAX_MESSAGE_BYTES,
        token: str | None = None,
        client_ca_path: FilePath | None = None,
        allow_origins: Iterable[str] = (),
        allow_operators: Iterable[str] = (),
        allow_torchscript: bool = False,
        limits: Limits | None = None,
        policy: Policy | None = None,
        audit_path: FilePath | None = None,
        remote_operations: bool | None = None,
        threads: int | None = None,
    ) -> None:
        if (cert_path is None) != (key_path is None):
            raise ValueError("TLS needs both cert_path and key_path; only one of them was given.")
        if client_ca_path is not None and cert_path is None:
            raise ValueError("client_ca_path is for TLS: give cert_path and key_path too.")
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}; expected a number of at least 1, or None.")
        against = policy.against_operations if policy is not None else []
        if remote_operations and against:
            raise ValueError(
                f"remote_operations is True for worker {str(id)!r}, whose policy has "
                f"{' and '.join(against)}: operations compute with what they reach, whatever the "
                "policy says; expected one or the other. Leave remote_operations out."
            )
        # A server is no proxy: the local worker does not list it, so one process may hold both of
        # an id.
        super().__init__(
            hook,
            id,
            data,
            log_msgs=log_msgs,
            verbose=verbose,
            auto_add=False,
            max_message_bytes=max_message_bytes,
            allow_operators=allow_operators,
            allow_torchscript=allow_torchscript,
            limits=limits,
            policy=policy,
            audit_path=audit_path,
        )
        self.host = host
        self.port = parse_port(port)
        self.loop = loop
        self.cert_path = cert_path
        self.key_path = key_path
        self.client_ca_path = client_ca_path
        self.remote_operations = remote_operations
        self._token = resolve_token(token)
        self._makes_token = token is None and self._token is None and is_loopback(host)
        self._allow_origins = check_origins(allow_origins)
        self.threads = threads
        self.stuck_calls = 0
        self._running: _Running | None = None

    @property
    def allows_remote_operations(self) -> bool:
        """Whether coordinators may operate on remote tensors here."""
        if not super().allows_remote_operations:
            return False
        return not self.datasets if self.remote_operations is None else self.remote_operations

    @property
    def url(self) -> str:
        """The address to connect to: ws://host:port, or wss://host:port with TLS."""
        return f"{'ws' if self.cert_path is None else 'wss'}://{self.host}:{self.port}"

    def start(self, block: bool = True) -> None:
        """Listen and serve.

        Args:
            block: whether to return only when the server is stopped, by Ctrl-C or by `stop` from
                another thread.

        Raises:
            AddressInUse: the address cannot be listened on (also an OSError).
            TokenNotKept: the token that it makes cannot be written (also an OSError).
            RuntimeError: the server is running already.
        """
        if self._running is not None:
            raise RuntimeError(
                f"worker {self.id!r} is already serving at {self.url}; call stop() first."
            )
        warm_up()  # whoever reaches the worker finds it ready to train
        # Only now: after a failed start() there is nothing to stop, and it may be tried again.
        running = _Running(self)
        running.start()
        self._running = running
        if self._token is None and not is_loopback(self.host):
            logger.warning(
                "worker %s listens on %s without a token: whoever reaches its port may run "
                "models on its data. Set SYFT_TOKEN or token=, or listen on localhost.",
                self.id,
                self.host,
            )
        logger.info(
            "worker %s serves at %s (listening on %s)", self.id, self.url, running.addresses()
        )
        if block:
            print(f"Worker {self.id} is serving at {self.url}. Press CTRL-C to stop.", flush=True)
            try:
                running.stopped.wait()
            except KeyboardInterrupt:
                logger.info("worker %s: interrupted, stopping", self.id)
            finally:
                self.stop()

    def stop(self) -> None:
        """Close all connections and stop serving.

        Training in progress ends before its next batch.
        """
        running, self._running = self._running, None
        if running is not None:
            running.stop()
            self.stuck_calls += running.stuck_calls


# From start() to stop():
#
#     starting thread         server thread                            compute thread
#     start(): wait           bind, publish the token, listen
#                             set _ready
#     (serve)                 one task for each connection ----------> one call after another
#     stop(): set _end -----> remove the token; cancel the queue
#                             close the connections; their calls are
#                             abandoned -----------------------------> end before the next batch
#     join <----------------- close the loop; set stopped
#     wait a little <------------------------------------------------- ended, or counts as stuck
#
# The token is published after the port is bound, which its file is named by, and before any
# connection is accepted, so that no proxy looks for it too early.


class _Running:
    """A server between start() and stop(): its threads, its socket and its connections."""

    def __init__(self, worker: WebsocketServerWorker) -> None:
        self._tls: ssl.SSLContext | None = None
        if worker.cert_path is not None and worker.key_path is not None:
            self._tls = server_tls(worker.cert_path, worker.key_path, worker.client_ca_path)
        self.stopped = threading.Event()
        self._worker = worker
        self._token = secrets.token_urlsafe(32) if worker._makes_token else worker._token
        self._dispatcher = worker._dispatcher
        usable = (
            worker.loop is not None and not worker.loop.is_running() and not worker.loop.is_closed()
        )
        self._loop = worker.loop if usable and worker.loop is not None else asyncio.new_event_loop()
        self._guard = self._dispatcher.guard
        limits = self._guard.limits
        self._compute = ComputeThread(
            str(worker.id), limits.call_seconds + STUCK_SECONDS, limits.stuck_calls
        )
        self._threads = Threads(worker.threads)
        self._server: Server | None = None
        self._thread = threading.Thread(target=self._serve, name=f"serve-{worker.id}", daemon=True)
        self._ready = threading.Event()
        self._error: BaseException | None = None

    def start(self) -> None:
        """Start the thread and wait until it listens."""
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            if isinstance(self._error, OSError) and not isinstance(self._error, TokenNotKept):
                cause = self._error.strerror or str(self._error)
                raise AddressInUse(str(self._worker.id), self._worker.url, cause) from None
            raise self._error

    def stop(self) -> None:
        """Stop the thread and wait until it has ended."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it ended in the meantime
                self._loop.call_soon_threadsafe(self._end.set)
            if threading.current_thread() is not self._thread:
                self._thread.join(5 + settings.CLOSE_TIMEOUT)
        self._compute.end(settings.CLOSE_TIMEOUT)

    @property
    def stuck_calls(self) -> int:
        """How many calls cannot be ended."""
        return self._compute.stuck

    def addresses(self) -> str:
        """Return the addresses that are listened on, as text."""
        sockets = self._server.sockets if self._server is not None else ()
        return ", ".join("{}:{}".format(*socket.getsockname()[:2]) for socket in sockets)

    def _serve(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        except BaseException as error:  # the starting thread raises it
            self._error = error
        finally:
            self._compute.shutdown(wait=False, cancel_futures=True)
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
            # After a failed start as well: start() waits for this.
            self._ready.set()
            self.stopped.set()

    async def _main(self) -> None:
        self._end = asyncio.Event()
        worker = self._worker
        # Two sockets, IPv4 and IPv6, would get two different free ports.
        host = "127.0.0.1" if worker.host == "localhost" and worker.port == 0 else worker.host
        async with serve(
            self._connection,
            host,
            worker.port,
            ssl=self._tls,
            process_request=Gate(
                self._guard,
                worker.host,
                self._token,
                worker._makes_token,
                worker.client_ca_path is not None,
                worker._allow_origins,
            ),
            compression=None,
            max_size=worker._dispatcher.max_message_bytes,
            # Frames that are read ahead of the one being answered; then TCP holds the sender back.
            max_queue=4,
            open_timeout=self._guard.limits.handshake_seconds,
            ping_interval=settings.PING_INTERVAL,
            ping_timeout=settings.PING_INTERVAL,
            close_timeout=settings.CLOSE_TIMEOUT,
            create_connection=KeptAliveServer,
            # The token file comes first; see above.
            start_serving=False,
        ) as self._server:
            worker.port = next(iter(self._server.sockets)).getsockname()[1]
            with self._published_token(), serving():
                await self._server.start_serving()
                self._ready.set()
                await self._end.wait()
            self._compute.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def _published_token(self) -> Iterator[None]:
        """Store the token for the user's programs, and remove it when the context ends.

        Only a token that the worker made itself is published.
        """
        with contextlib.ExitStack() as stack:
            if self._worker._makes_token and self._token is not None and self._server is not None:
                addresses = [socket.getsockname()[:2] for socket in self._server.sockets]
                try:
                    stack.enter_context(token_files.published(self._token, addresses))
                except OSError as reason:
                    raise TokenNotKept(
                        str(self._worker.id), self._worker.url, str(reason)
                    ) from None
            yield

    async def _connection(self, connection: ServerConnection) -> None:
        """Serve one connection until it ends."""
        session: Session | None = None
        jobs: dict[asyncio.Task[None], Job] = {}
        try:
            session = await self._greet(connection)
            async for frame in connection:
                await self._answer(connection, session, frame, jobs)
        except ConnectionClosed:
            pass
        except MalformedMessage as error:
            # No greeting, or no readable header: there is no request to reply to. 1002 means
            # "protocol error".
            logger.warning(
                "worker %s: a connection is closed: %s", self._worker.id, printable(str(error))
            )
            await connection.close(1002, str(error)[:120])
        finally:
            # Nobody is left to read these replies. A coordinator that comes back asks again.
            for task, job in jobs.items():
                job.abandon()
                task.cancel()
            if session is not None:
                self._disconnected(session)

    async def _greet(self, connection: ServerConnection) -> Session:
        """Read the greeting, answer it, and return the coordinator's session.

        The session is a new one or that of before.
        """
        seconds = self._guard.limits.handshake_seconds
        try:
            frame = await asyncio.wait_for(connection.recv(), seconds)
        except (TimeoutError, asyncio.TimeoutError):
            raise MalformedMessage(f"no greeting within {seconds:g} s") from None
        try:
            # No receiver: a greeting with a model in it is refused unread.
            request = wire.decode(_binary(frame))
        except MalformedMessage as error:
            # An answer in this side's version lets the other side name both versions.
            await connection.send(failure(0, "hello", error))
            raise
        arguments = (
            request.arguments
            if isinstance(request, wire.Request) and request.command == "hello"
            else {}
        )
        name, limit = (
            arguments.get("session"),
            arguments.get("max_message_bytes", wire.MAX_MESSAGE_BYTES),
        )
        if not isinstance(name, str) or len(name) > _LONGEST_NAME or not isinstance(limit, int):
            raise MalformedMessage("the first message is no greeting")
        try:
            session = self._dispatcher.open_session(name)
        except LimitExceeded as error:
            await connection.send(failure(0, "hello", error))
            raise MalformedMessage("there are too many coordinators") from None
        session.connections += 1
        # The coordinator is back in time; see _disconnected().
        if session.ending is not None:
            session.ending.cancel()
        session.max_message_bytes = limit
        session.who = identity(connection, self._token)
        about = {
            "id": self._worker.id,
            "max_message_bytes": self._dispatcher.max_message_bytes,
            "torch": str(torch.__version__),
            "remote_operations": self._worker.allows_remote_operations,
        }
        try:
            await connection.send(wire.encode(wire.Reply(0, about)))
        except BaseException:
            # It has gone already. The caller did not get the session, so it cannot do this.
            self._disconnected(session)
            raise
        logger.debug("worker %s: %s connected", self._worker.id, connection.remote_address)
        return session

    async def _answer(
        self,
        connection: ServerConnection,
        session: Session,
        frame: str | bytes,
        jobs: dict[asyncio.Task[None], Job],
    ) -> None:
        """Answer one request: at once if it is quick, else in its turn in the compute thread."""
        data = _binary(frame)
        accept = self._dispatcher.accept
        large = len(data) > _LARGE or wire.has_blobs(data)  # a model is work, however small
        job = await asyncio.to_thread(accept, data, session) if large else accept(data, session)
        if job.place == "compute":
            limit = self._guard.limits.queued_calls
            if job.waits_for_room:  # nothing of this connection is read meanwhile
                while session.queued >= limit and jobs:
                    await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            elif session.queued >= limit:
                what = "the calls of one coordinator that wait"
                refusal = LimitExceeded(
                    str(self._worker.id), what, session.queued + 1, limit, "queued_calls"
                )
                self._guard.record_refusal(session.caller, job.call, refusal)
                await connection.send(failure(job.request_id, job.call, refusal))
                return
            session.queued += 1
            task = asyncio.create_task(self._compute_and_reply(connection, job))
            jobs[task] = job
            task.add_done_callback(lambda done: self._finished(session, jobs, done))
        else:
            run = self._dispatcher.run
            at_once = job.place == "loop" and not large  # another thread would cost more
            await connection.send(
                fragments(run(job) if at_once else await asyncio.to_thread(run, job))
            )

    async def _compute_and_reply(self, connection: ServerConnection, job: Job) -> None:
        # A context of its own for each call: what a method sets in it is gone with the call, rather
        # than being found by the next one in the compute thread.
        context = contextvars.copy_context()
        try:
            reply = await self._loop.run_in_executor(
                self._compute, context.run, self._run_in_turn, job
            )
        except LimitExceeded as error:  # it did not end in time, and never may
            self._guard.record_refusal(job.session.caller, job.call, error, error.observed)
            reply = failure(job.request_id, job.call, error)
        if not reply:
            return
        # The coordinator may have gone; so has the use of its reply.
        with contextlib.suppress(ConnectionClosed):
            await connection.send(fragments(reply))

    def _run_in_turn(self, job: Job) -> bytes:
        """Run a job in the compute thread, with the threads that fall to this process now."""
        self._threads.apply()
        return self._dispatcher.run(job)

    @staticmethod
    def _finished(
        session: Session, jobs: dict[asyncio.Task[None], Job], task: asyncio.Task[None]
    ) -> None:
        session.queued -= 1
        jobs.pop(task)

    def _disconnected(self, session: Session) -> None:
        """Keep the session for a while, in case its coordinator comes back."""
        session.connections -= 1
        if session.connected:
            return

        def end() -> None:
            if self._dispatcher.sessions.get(session.name) is session:
                del self._dispatcher.sessions[session.name]
                # To free a million objects takes a while, which others need not wait for.
                self._loop.run_in_executor(None, self._dispatcher.end_session, session)

        session.ending = self._loop.call_later(SESSION_GRACE, end)


def _binary(frame: str | bytes) -> bytes:
    if isinstance(frame, str):
        raise MalformedMessage("a text message; messages of this protocol are binary")
    return frame
