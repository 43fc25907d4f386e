"""Goal 4: round trips and bytes of a round, counted by a proxy that also delays."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from benchmarks.bench_round import run_rounds, traced_model
from benchmarks.harness import Report, Row, in_turn
from benchmarks.workers import processes, proxies

LIMIT_TRIPS, LIMIT_SECONDS = 2, 0.2
ROUND_TRIP = 0.1
"""Seconds that the delaying proxy adds to a round trip."""


def run(smoke: bool = False) -> Report:
    """Measure it."""
    repeats = 1 if smoke else 15
    model = traced_model()
    with (
        processes(["alice"]) as ports,
        delaying_proxy(ports[0], 0) as no_delay,
        delaying_proxy(ports[0], ROUND_TRIP) as delay,
        proxies(["alice"], [no_delay.port]) as near,
        proxies(["alice"], [delay.port]) as far,
    ):
        asyncio.run(run_rounds(near, model))
        first = _counted(delay, far, model)
        later = _counted(delay, far, model)
        delayed, direct = in_turn(
            lambda: asyncio.run(run_rounds(far, model)),
            lambda: asyncio.run(run_rounds(near, model)),
            repeats,
        )
    extra = [a - b for a, b in zip(delayed, direct, strict=True)]
    parameters = sum(4 * p.numel() for p in model.parameters())
    return Report(
        [
            Row(4, "round trips of a worker's round", [first.trips, later.trips], "", LIMIT_TRIPS),
            Row(4, "a round with 100 ms of delay: what it costs more", extra, "s", LIMIT_SECONDS),
            _bytes_row("first round", first, parameters),
            _bytes_row("later rounds", later, parameters),
        ]
    )


def _bytes_row(which: str, traffic: Traffic, parameters: int) -> Row:
    extra = (traffic.up + traffic.down) / 2 - parameters
    note = f"{traffic.up:,} up, {traffic.down:,} down; the parameters: {parameters:,}"
    return Row(
        4, f"{which}: bytes beside the parameters, each way", [extra / 1000], "kB", None, note
    )


class Traffic:
    """What passed a proxy.

    Attributes:
        up: bytes towards the worker. down: bytes from it.
        trips: how many times bytes went up after bytes had come down (or at first).
    """

    def __init__(self) -> None:
        self.up = self.down = self.trips = 0
        self._last_was_up = False

    def count(self, size: int, upwards: bool) -> None:
        """Count bytes at the coordinator's end."""
        if upwards:
            self.up += size
            self.trips += not self._last_was_up
        else:
            self.down += size
        self._last_was_up = upwards


class DelayingProxy:
    """A TCP proxy that passes everything on half a round trip later."""

    def __init__(self, target: int, round_trip: float) -> None:
        self.traffic = Traffic()
        self.port = 0
        self._target = target
        self._delay = round_trip / 2
        self._writers: list[asyncio.StreamWriter] = []
        self._relays: list[asyncio.Task[None]] = []

    async def serve(self, ready: threading.Event, end: asyncio.Event) -> None:
        """Serve until the end."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await end.wait()
        server.close()
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, target_writer]
        for ends in ((reader, target_writer, True), (target_reader, writer, False)):
            self._relays.append(asyncio.create_task(self._relay(*ends)))

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upwards: bool
    ) -> None:
        loop = asyncio.get_running_loop()

        def deliver(data: bytes) -> None:
            if not upwards:
                self.traffic.count(len(data), upwards)
            writer.write(data)

        while data := await reader.read(1 << 20):
            if upwards:
                self.traffic.count(len(data), upwards)
            loop.call_later(self._delay, deliver, data)
        loop.call_later(self._delay, writer.close)


@contextlib.contextmanager
def delaying_proxy(target: int, round_trip: float) -> Iterator[DelayingProxy]:
    """Run a proxy before a port of this machine, in a thread, while the context lasts."""
    proxy, ready = DelayingProxy(target, round_trip), threading.Event()
    loop, end = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(proxy.serve(ready, end)))
    thread.start()
    ready.wait()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
        loop.close()


def _counted(proxy: DelayingProxy, workers: list[Any], model: Any) -> Traffic:
    """Return the traffic of one round."""
    proxy.traffic = traffic = Traffic()
    asyncio.run(run_rounds(workers, model))
    proxy.traffic = Traffic()
    return traffic
