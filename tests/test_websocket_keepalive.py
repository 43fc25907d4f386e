"""Connections to a side that says nothing, takes nothing, or is merely slow."""

import asyncio
import itertools
import select
import socket
import threading

import pytest
import torch
from websockets.exceptions import ConnectionClosedError

from syft.exceptions import ConnectionLost
from syft.workers import websocket_keepalive, websocket_settings
from tests.bad_network import tcp_proxy
from tests.network import DEADLINE, Server, in_time, proxy_at, serving

INTERVAL = 0.3


@pytest.fixture(autouse=True)
def short_interval(monkeypatch):
    monkeypatch.setattr(websocket_settings, "PING_INTERVAL", INTERVAL)


class Frozen:
    """Relays to a worker until `freeze`; from then on it reads nothing and writes nothing, and
    closes nothing.

    Attributes:
        at_request: whether it freezes by itself at the next request, that is at more bytes than a
            ping has. A test that froze it before would have to send its request before the
            connection is given up.
    """

    def __init__(self, target: int) -> None:
        self.at_request = False
        self._frozen = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._target, self._sockets = target, []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.create_connection(("127.0.0.1", self._target))
        self._sockets = [near, far]
        for ends in itertools.permutations(self._sockets):
            self._threads.append(threading.Thread(target=self._relay, args=ends))
            self._threads[-1].start()

    def _relay(self, source: socket.socket, target: socket.socket) -> None:
        while not self._frozen.is_set():
            ready, _, _ = select.select([source], [], [], 0.01)
            if ready:
                data = source.recv(4096)
                if not data:
                    return
                if self.at_request and len(data) > 64:
                    self._frozen.set()
                    return
                target.sendall(data)

    def freeze(self) -> None:
        self._frozen.set()
        for thread in self._threads:
            thread.join(DEADLINE)

    def end(self) -> None:
        self.freeze()
        for each in (self._listener, *self._sockets):
            each.close()


@pytest.fixture
def frozen():
    with serving(Server()) as server:
        frozen = Frozen(server.port)
        yield frozen
        frozen.end()


@pytest.mark.parametrize("size", [1, 20_000_000], ids=["small", "larger than all buffers"])
async def test_a_side_that_is_frozen_is_given_up(frozen, size):
    with proxy_at("127.0.0.1", frozen.port, timeout=None) as proxy:
        assert proxy.call("scale", torch.ones(1)) == 2
        frozen.at_request = True
        with pytest.raises(ConnectionLost) as lost:
            await in_time(proxy.async_call("scale", torch.ones(size)))
        assert f"no sign of life within {2 * INTERVAL:g} s" in str(lost.value)


async def test_closing_does_not_wait_for_a_side_that_is_frozen(frozen, monkeypatch):
    monkeypatch.setattr(websocket_settings, "CLOSE_TIMEOUT", 0.1)
    monkeypatch.setattr(websocket_settings, "PING_INTERVAL", 600.0)
    with proxy_at("127.0.0.1", frozen.port, timeout=None) as proxy:
        assert proxy.call("scale", torch.ones(1)) == 2
        frozen.freeze()
        task = asyncio.ensure_future(proxy.async_call("scale", torch.ones(20_000_000)))
        await asyncio.sleep(0)
        await in_time(asyncio.to_thread(proxy.close))
        with pytest.raises(ConnectionLost):
            await in_time(task)


async def test_a_slow_network_is_not_a_dead_one(monkeypatch):
    """Request and reply take several intervals each, and a pong waits behind them."""
    monkeypatch.setattr(websocket_settings, "PING_INTERVAL", 0.6)
    with serving(Server()) as server, tcp_proxy(server.port) as network:
        network.bytes_per_second = 12_000_000
        with proxy_at("127.0.0.1", network.port, timeout=None) as proxy:
            x = torch.arange(4_500_000, dtype=torch.float32)
            assert torch.equal(await in_time(proxy.async_call("scale", x)), 2 * x)


async def test_a_worker_that_computes_answers_pings():
    with serving(Server()) as server, proxy_at("127.0.0.1", server.port, timeout=None) as proxy:
        threading.Timer(4 * INTERVAL, server.release.set).start()
        assert await in_time(proxy.async_call("hold", "done")) == "done"


class Wire:
    """The connection under a keepalive that hears nothing.

    Attributes:
        unsent: bytes that wait to be sent, each time that it is asked; the last number stays.
    """

    ping_interval = 0.001

    def __init__(self, *unsent, error=None):
        self.loop, self.transport = asyncio.get_running_loop(), self
        self.unsent, self.pings, self.aborted, self._error = list(unsent), 0, False, error

    def get_write_buffer_size(self):
        return self.unsent.pop(0) if len(self.unsent) > 1 else self.unsent[0]

    async def ping(self):
        self.pings += 1
        if self._error is not None:
            raise self._error
        return self.loop.create_future()  # there is no pong

    def abort(self):
        self.aborted = True


class KeptAliveWire(websocket_keepalive._KeptAlive, Wire):
    """A keepalive over such a connection."""


async def test_a_side_that_takes_bytes_without_a_pong_is_alive_until_it_takes_none():
    wire = KeptAliveWire(30, 20, 20, 10, 10)
    await in_time(wire.keepalive())
    assert (wire.pings, wire.gave_up, wire.aborted) == (3, True, True)


async def test_a_connection_that_ends_while_it_is_pinged_was_not_given_up():
    wire = KeptAliveWire(0, error=ConnectionClosedError(None, None))
    await in_time(wire.keepalive())
    assert (wire.pings, wire.gave_up, wire.aborted) == (1, False, False)
