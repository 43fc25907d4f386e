"""Operations on remote tensors, on their way through a link.

All that touches the connection happens on the I/O thread, in one task at a time (`_pump`):

    message    not sent -> sent on this connection -> confirmed by a reply to it or to a later one
                  ^                |
                  +----------------+  the connection has ended: all that is not confirmed, again

Other threads append messages and wait for replies; the lock is for them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from syft.exceptions import (
    ConnectionLost,
    GetNotPermittedError,
    MessageTooLarge,
    NotSerializable,
    ObjectNotFoundError,
    RemoteOperationFailed,
    SyftError,
)
from syft.objects import ObjectId
from syft.remote import stream
from syft.remote.stream import BufferedStream, with_line
from syft.wire.failures import unwrap
from syft.workers.websocket_link import Link

_MAX_TRIES = 3
"""Connections that may end, one after the other, before a message is confirmed."""
_CARRIED_OUT = (
    RemoteOperationFailed, ObjectNotFoundError, GetNotPermittedError, MessageTooLarge,
    NotSerializable,
)  # fmt: skip
"""Errors in place of values: the message itself was carried out."""


class _Message:
    """One message.

    Attributes:
        number: its number in the stream.
        request_id: id of the request.
        frame: its bytes.
        reply: the future of who waits for the reply; None: nobody does.
        expected: the future of the reply on the current connection; None: it is not sent.
    """

    __slots__ = ("expected", "frame", "number", "reply", "request_id")

    def __init__(
        self, number: int, request_id: int, frame: bytes, reply: Future[bytes] | None
    ) -> None:
        self.number = number
        self.request_id = request_id
        self.frame = frame
        self.reply = reply
        self.expected: asyncio.Future[bytes] | None = None


class SocketStream(BufferedStream):
    """The way of operations to a worker behind a link.

    Args:
        worker: the worker's id, for errors.
        draw_seed: returns a seed from this process's generator.
        link: the link.
        encode: returns the id and the bytes of the request `operate` with these arguments.
        wait: waits for a reply, for as long as calls wait; the text describes what for.
    """

    def __init__(
        self,
        worker: str,
        draw_seed: Callable[[], int],
        link: Link,
        encode: Callable[[dict[str, Any]], tuple[int, bytes]],
        wait: Callable[[Future[bytes], str], bytes],
    ) -> None:
        super().__init__(worker, draw_seed)
        self._link = link
        self._encode = encode
        self._wait = wait
        self._messages: deque[_Message] = deque()
        self._error: SyftError | None = None
        self._connection: ClientConnection | None = None
        self._pumping = False
        self._tries = 0

    def flush(self) -> None:
        """Send what is in the buffer; wait first, if the worker is too far behind."""
        with self._lock:
            self._raise_error()
            self._enqueue()
            reply = self._enqueue_with_reply() if len(self._messages) >= stream.WINDOW else None
        if reply is not None:
            self._wait(reply, "operate()")

    def settled(self) -> Future[bytes] | None:
        """Send what is in the buffer.

        Returns:
            The future of the reply to all of it; None if nothing is left to wait for.
        """
        with self._lock:
            self._raise_error()
            if not (self._buffer or self._garbage or self._messages):
                return None
            return self._enqueue_with_reply()

    def forget(self, obj_id: ObjectId) -> None:
        """See Stream."""
        super().forget(obj_id)
        if len(self._garbage) == 1 and self._link.io.alive:
            self._link.io.call_later(stream.GARBAGE_SECONDS, self._flush_late)

    def _posted(self, waiting: int) -> None:
        if not self._link.io.alive:
            self._buffer.clear()
            raise RuntimeError(
                f"a remote tensor of worker {self.worker!r} belongs to the process that this one "
                "was forked from, or is used while the process ends. Send tensors in this process."
            )
        if waiting >= stream.BATCH:
            self.flush()
        elif waiting == 1:
            self._link.io.call_later(stream.FLUSH_SECONDS, self._flush_late)

    def _ask(self, **wanted: list[ObjectId]) -> dict[str, Any]:
        with self._lock:
            self._raise_error()
            reply = self._enqueue_with_reply(**wanted)
        try:
            answer = unwrap(self._wait(reply, f"operate({', '.join(wanted)})"), self.worker)
        except SyftError as error:
            raise with_line(error) from None
        if not isinstance(answer, dict) or not wanted.keys() <= answer.keys():
            raise self.invalid(type(answer).__name__)
        return answer

    # With the lock held

    def _enqueue_with_reply(self, **wanted: list[ObjectId]) -> Future[bytes]:
        reply: Future[bytes] = Future()
        self._enqueue(reply, **wanted)
        return reply

    def _enqueue(self, reply: Future[bytes] | None = None, **wanted: list[ObjectId]) -> None:
        """Make a message of what is in the buffer, and have it sent."""
        if reply is None and not self._buffer and not self._garbage:
            return
        answer = reply is not None or self._number % stream.CONFIRMED_EVERY == 0
        arguments = self._next_message(answer, **wanted)
        try:
            request_id, frame = self._encode(arguments)
        except SyftError:
            self._number -= 1  # what was in the message is lost, and no other one is
            raise
        self._messages.append(_Message(arguments["number"], request_id, frame, reply))
        self._link.io.start_soon(self._pump)

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise with_line(error)

    # On the I/O thread

    async def _flush_late(self) -> None:
        with self._lock:
            # What is to be deleted is not worth a new connection.
            if (self._buffer or self._link.open) and len(self._messages) < stream.WINDOW:
                try:
                    self._enqueue()
                except SyftError as error:
                    self._error = error

    async def _pump(self) -> None:
        """Send all messages that are not sent, on a connection that is opened if need be."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while (message := self._unsent()) is not None:
                connection = await self._link.connection()
                if connection is not self._connection:
                    self._connection = connection
                    self._send_again()
                    continue
                message.expected = self._link.expect(message.request_id)
                message.expected.add_done_callback(self._answered(message))
                try:
                    await self._link.send(connection, message.frame)
                except (ConnectionClosed, OSError):
                    self._lost_connection()
        except SyftError as error:
            self._fail(error, is_lost=False)
        finally:
            self._pumping = False

    def _unsent(self) -> _Message | None:
        with self._lock:
            return next((each for each in self._messages if each.expected is None), None)

    def _send_again(self) -> None:
        with self._lock:
            for message in self._messages:
                message.expected = None

    def _lost_connection(self) -> None:
        self._connection = None
        self._send_again()
        self._tries += 1
        if self._tries >= _MAX_TRIES:
            self._tries = 0
            cause = f"it ended {_MAX_TRIES} times in a row"
            raise ConnectionLost(self.worker, self._link.url, "operate()", cause)

    def _answered(self, message: _Message) -> Callable[[asyncio.Future[bytes]], None]:
        def answered(expected: asyncio.Future[bytes]) -> None:
            if expected.cancelled() or message.expected is not expected:
                return
            if expected.exception() is None:
                self._confirm(message, expected.result())
            else:
                self._again()

        return answered

    def _again(self) -> None:
        """Go on after the connection has ended: at once if somebody waits, else with the next."""
        try:
            self._lost_connection()
        except SyftError as error:
            self._fail(error, is_lost=False)
            return
        with self._lock:
            waited_for = any(each.reply is not None for each in self._messages)
        if waited_for:
            self._link.io.start_soon(self._pump)

    def _confirm(self, message: _Message, frame: bytes) -> None:
        """Note that a message was carried out, and so all those before it; or was refused."""
        self._tries = 0
        try:
            unwrap(frame, self.worker)
        except _CARRIED_OUT:
            pass
        except SyftError as error:
            self._fail(error, is_lost=True)
            return
        with self._lock:
            while self._messages and self._messages[0].number <= message.number:
                done = self._messages.popleft()
                done.expected = None
                self._link.unexpect(done.request_id)
                if done.reply is None or done.reply.done():
                    continue
                if done is message:
                    done.reply.set_result(frame)
                else:  # a worker replies in order
                    done.reply.set_exception(self.invalid("the reply to a later request"))

    def _fail(self, error: SyftError, is_lost: bool) -> None:
        """Tell an error to who waits, or else to who comes next.

        Args:
            error: the error.
            is_lost: whether the worker will not carry out what is under way, so that it is dropped.
        """
        with self._lock:
            waiting = [each for each in self._messages if each.reply is not None]
            for each in waiting:
                if each.reply is not None and not each.reply.done():
                    each.reply.set_exception(error)
                each.reply = None
            if not waiting:
                self._error = error
            if is_lost:
                for each in self._messages:
                    each.expected = None
                    self._link.unexpect(each.request_id)
                self._messages.clear()
                self._buffer.clear()
                self._restart()
