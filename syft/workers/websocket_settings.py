"""What both ends of a connection agree on: intervals, sizes of pieces, ports.

They are read where they are used (`settings.PING_INTERVAL`), so that a test can shorten them for
both ends at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeout

HANDSHAKE_TIMEOUT = 10.0
"""Seconds that a worker has for the opening handshake, once it has accepted the connection."""
PING_INTERVAL = 20.0
"""Seconds of silence after which a side pings.

As many again without an answer end the connection (40 in all).
"""
CLOSE_TIMEOUT = 2.0
"""Seconds that the other side has to take part in closing a connection."""
TIMEOUTS = (TimeoutError, asyncio.TimeoutError, FutureTimeout)
"""Three types before Python 3.11, one since."""

_FRAGMENT = 1024 * 1024
"""Bytes of a piece of a large message."""
_MAX_FRAGMENTS = 4000
"""websockets accepts at most 4,096 pieces of one message."""


def fragments(frame: bytes) -> bytes | Iterator[memoryview]:
    """Return a message as `websockets` shall send it: in pieces, if it is large.

    A message in one piece is copied as a whole at each step of sending and receiving; pieces are
    copied one by one, and pings pass between them.
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
