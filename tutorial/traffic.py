"""What travels between this process and its workers, counted message by message.

federated_dataloader.ipynb shows with it what an operation on a remote tensor costs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection

from syft import wire
from syft.graph import Receiver
from syft.workers.websocket_link import Link, Waiting


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        seconds: when it was sent or received; 0: when the counting began.
        sent: whether this process sent it; if not, a worker did.
        bytes: its size.
        command: what it asks for, as syft/commands.py names it; "reply" of one that was received.
        operations: number of operations on remote tensors in it; the deletion of those that
            nothing points to any more is one.
        waited_for: whether the program waits for its reply.
    """

    seconds: float
    sent: bool
    bytes: int
    command: str
    operations: int
    waited_for: bool


@dataclass
class Traffic:
    """The messages of a `with counting()`, complete at its end.

    Attributes:
        messages: the messages to and from all workers, in order.
        seconds: how long it took.
    """

    messages: list[Message] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def sent(self) -> list[Message]:
        """The messages that this process sent."""
        return [message for message in self.messages if message.sent]

    @property
    def received(self) -> list[Message]:
        """The messages that workers sent."""
        return [message for message in self.messages if not message.sent]

    @property
    def bytes(self) -> int:
        """The bytes of all messages, both ways."""
        return sum(message.bytes for message in self.messages)

    @property
    def operations(self) -> int:
        """The operations that were posted."""
        return sum(message.operations for message in self.messages)

    @property
    def waits(self) -> int:
        """How often the program waited for a reply."""
        return sum(message.waited_for for message in self.messages)


@contextmanager
def counting() -> Iterator[Traffic]:
    """Count all messages of this process while the context lasts.

    They are noted at the last place before the socket, and read when the context ends, so that the
    program is hardly slower meanwhile.
    """
    frames: list[tuple[float, bool, Any]] = []
    send, receive = Link.send, Link._hand_over
    traffic, start = Traffic(), time.perf_counter()

    async def noted_send(self: Link, connection: ClientConnection, frame: bytes) -> None:
        frames.append((time.perf_counter() - start, True, frame))
        await send(self, connection, frame)

    def noted_receive(self: Link, frame: str | bytes, waiting: Waiting) -> None:
        frames.append((time.perf_counter() - start, False, frame))
        receive(self, frame, waiting)

    Link.send, Link._hand_over = noted_send, noted_receive  # type: ignore[method-assign]
    try:
        yield traffic
    finally:
        traffic.seconds = time.perf_counter() - start
        Link.send, Link._hand_over = send, receive  # type: ignore[method-assign]
        traffic.messages += [_message(*each) for each in list(frames)]


def _message(seconds: float, sent: bool, frame: bytes) -> Message:
    command, operations, waited_for = "reply", 0, False
    if sent and wire.has_blobs(frame):  # a model or a function, which only a worker reads
        command = "model"
    elif sent:
        request = wire.decode(frame, Receiver())
        assert isinstance(request, wire.Request)
        command, arguments = request.command, request.arguments
        operations = len(arguments["operations"]) if command == "operate" else 0
        wanted = ("values", "geometries")
        waited_for = any(map(arguments.get, wanted)) if command == "operate" else command in (
            "call", "get", "search"
        )  # fmt: skip
    return Message(seconds, sent, len(frame), command, operations, waited_for)
