"""Goal 5: a model of 100 MB there and back, against an echo of as many bytes by `websockets`."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from benchmarks.harness import Report, Row, in_turn, ratio_row
from benchmarks.workers import peak_memory, processes, proxies, reset_peak_memory
from syft.objects import ID_PROVIDER, ObjectWrapper

LIMIT_TIME, LIMIT_COPIES = 1.5, 3.0


def run(smoke: bool = False) -> Report:
    """Measure it."""
    megabytes, repeats = (4, 1) if smoke else (100, 7)
    rows = _model_against_echo(megabytes, repeats)
    if not smoke:
        rows += _model_against_echo(1000, 1, max_message_bytes=1_100_000_000)
    return Report(rows)


def _model_against_echo(megabytes: int, repeats: int, **settings: Any) -> list[Row]:
    size = 1_000_000 * megabytes
    model = torch.jit.script(_large_model(size))
    payload = bytes(size)
    with (
        processes(["worker"], **settings) as ports,
        proxies(["worker"], ports, **settings) as (worker,),
        _EchoServer() as echo,
    ):
        copies = _copies(worker, model, size)
        echo.exchange(payload)
        ours, plain = in_turn(
            lambda: there_and_back(worker, model), lambda: echo.exchange(payload), repeats
        )
    what = f"a model of {megabytes} MB there and back"
    rows = [ratio_row(5, what, ours, plain, LIMIT_TIME, "echo")]
    for party, count in copies.items():
        rows.append(
            Row(5, f"{what}: memory of the {party}", [count], "copies", LIMIT_COPIES, "at its peak")
        )
    return rows


def there_and_back(worker: Any, model: Any) -> Any:
    """Send a model to a worker, fetch it again, and return it."""
    pointer = worker._send_object(ObjectWrapper(model, ID_PROVIDER.pop()), owner=None)
    return pointer.get().obj


def _copies(worker: Any, model: Any, size: int) -> dict[str, float]:
    """Return by how many times the model's size the memory of each process rises.

    The rise is counted from before the first transfer. What the coordinator sends is not counted:
    it is there before.
    """
    if sys.platform != "linux":
        return {}
    before = {"coordinator": reset_peak_memory(), "worker": worker.call("reset_peak_memory")}
    there_and_back(worker, model)
    after = {"coordinator": peak_memory(), "worker": worker.call("peak_memory")}
    return {party: (after[party] - before[party]) / size for party in before}


def _large_model(size: int) -> nn.Module:
    """Return a model of about `size` bytes, in eight layers."""
    width = int((size / 4 / 8) ** 0.5)
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(8)))


class _EchoServer:
    """A process that sends back what it receives, and a connection to it.

    The connection is without compression, as ours is.
    """

    def __enter__(self) -> _EchoServer:
        context: Any = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run_echo, args=(theirs,))
        self._process.start()
        theirs.close()
        self._loop = asyncio.new_event_loop()
        uri = f"ws://127.0.0.1:{self._pipe.recv()}"
        self._connection = self._loop.run_until_complete(_connect(uri))
        return self

    def exchange(self, payload: bytes) -> None:
        """Send bytes and receive them again."""

        async def exchange() -> int:
            await self._connection.send(payload)
            return len(await self._connection.recv())

        assert self._loop.run_until_complete(exchange()) == len(payload)

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()
        self._pipe.close()
        self._process.join()


async def _connect(uri: str) -> Any:
    return await connect(uri, compression=None, max_size=None, proxy=None, ping_interval=None)


def _run_echo(pipe: Connection) -> None:
    async def main() -> None:
        async def echo(connection: Any) -> None:
            async for message in connection:
                await connection.send(message)

        async with serve(
            echo, "127.0.0.1", 0, compression=None, max_size=None, ping_interval=None
        ) as server:
            pipe.send(next(iter(server.sockets)).getsockname()[1])
            await asyncio.to_thread(_wait_for_end, pipe)

    asyncio.run(main())


def _wait_for_end(pipe: Connection) -> None:
    try:
        pipe.recv()
    except EOFError:
        return
