"""Ends a connection whose other side has gone without a word: stopped, unplugged or cut off.

It takes the place of the keepalive that websockets has. That one waits without limit while the
buffers of the operating system are full, so a process that is stopped while a model is on its way
to it would hang its peer for ever; and it declares a peer dead when its pong is queued behind a
model on a slow network.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

# Whether the other side is there is judged by progress, not by the pong alone:
#
#     bytes came since the ping was asked for    it is there; its pong may be queued behind a model
#     the write buffer has shrunk                it is there; our ping may be queued behind a model
#     neither, for a whole interval              abort
#
# Training does not count as silence: it runs in another thread, so its worker answers pings.

_Base: Any = Connection if TYPE_CHECKING else object


class _KeptAlive(_Base):
    """Pings when it has heard nothing for `ping_interval`.

    It aborts when there is no sign of life for as long again. A sign of life is any byte received,
    or any byte of what waits to be sent that the other side has taken.

    Attributes:
        gave_up: whether it was aborted for that reason.
    """

    gave_up = False
    _heard = 0.0

    # asyncio's own callbacks, so that bytes count, and not only whole frames: on a slow network a
    # large frame takes longer than an interval.
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._heard = self.loop.time()

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        super().data_received(data)

    async def keepalive(self) -> None:
        interval: float = self.ping_interval
        while True:
            # Until the interval since the last byte is over; what arrives meanwhile moves the end.
            await asyncio.sleep(max(self._heard + interval - self.loop.time(), 0.001))
            asked, unsent = self.loop.time(), self.transport.get_write_buffer_size()
            if self._heard + interval > asked:
                continue
            try:
                # Sending the ping may itself hang, while the buffers are full. One deadline covers
                # both.
                await asyncio.wait_for(self._ping_and_pong(), interval)
            except (TimeoutError, asyncio.TimeoutError):
                if self._heard < asked and self.transport.get_write_buffer_size() >= unsent:
                    self.gave_up = True
                    # Not close(): a closing handshake would wait for the one who does not answer.
                    self.transport.abort()
                    return
            except ConnectionClosed:
                return

    async def _ping_and_pong(self) -> None:
        await (await self.ping())


class KeptAliveClient(_KeptAlive, ClientConnection):
    """The coordinator's end of a connection."""


class KeptAliveServer(_KeptAlive, ServerConnection):
    """The worker's end of a connection."""
