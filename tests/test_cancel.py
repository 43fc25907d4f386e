"""Calls that are given up: the worker stops them, and later calls are as if they had never been."""

import asyncio
import contextlib
import itertools
import threading

import pytest
import torch

import syft as sy
from syft import wire
from syft.exceptions import CallTimeout, ConnectionFailed
from tests.models import blobs, classifier, make_config
from tests.network import (
    DEADLINE,
    Server,
    call,
    eventually,
    exchange,
    free_port,
    in_time,
    proxy_of,
    raw,
    serving,
)


class Counting(sy.BaseDataset):
    """Counts the samples that are read."""

    def __init__(self) -> None:
        super().__init__(*_tensors(blobs()))
        self.read = 0
        self.reading = threading.Event()

    def __getitem__(self, index):
        self.read += 1
        self.reading.set()
        return super().__getitem__(index)


def _tensors(dataset):
    return dataset.data, dataset.targets


@pytest.fixture(autouse=True)
def counting(server):
    """The server's dataset "counting"."""
    server.add_dataset(Counting(), key="counting")


@pytest.fixture
def proxy(server):
    """A proxy that waits for ever."""
    with proxy_of(server, timeout=None) as proxy:
        yield proxy


def endless():
    return make_config(epochs=10**9)


def is_free(proxy) -> bool:
    """Whether the worker's compute thread does something else: own methods wait for their turn."""
    return proxy.call("zeros", 1, timeout=DEADLINE).shape == (1,)


async def test_a_fit_that_times_out_ends_at_its_next_batch(proxy):
    endless().send(proxy)
    with pytest.raises(CallTimeout):
        await in_time(proxy.async_fit("counting", timeout=0.1))
    assert is_free(proxy)


def test_a_blocking_fit_that_times_out_ends_too(proxy):
    endless().send(proxy)
    with pytest.raises(CallTimeout):
        proxy.fit("counting", timeout=0.1)
    assert is_free(proxy)


async def test_a_fit_that_is_cancelled_ends_at_its_next_batch(server, proxy):
    endless().send(proxy)
    task = asyncio.ensure_future(proxy.async_fit("counting"))
    assert await asyncio.to_thread(server.datasets["counting"].reading.wait, DEADLINE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await in_time(task)
    assert is_free(proxy)


async def test_an_evaluation_that_times_out_ends_too(server, proxy):
    server.add_dataset(_Repeated(), key="long")
    make_config().send(proxy)
    with pytest.raises(CallTimeout):
        await in_time(proxy.async_evaluate("long", timeout=0.1))
    assert is_free(proxy)


class _Repeated(Counting):
    """As good as endless."""

    def __len__(self):
        return 10**7

    def __getitem__(self, index):
        return super().__getitem__(index % len(self.data))


def test_a_call_that_waits_for_its_turn_never_runs(server):
    """The one before it goes on, and what it would have trained is let go."""
    with proxy_of(server) as first, proxy_of(server) as second:
        holder = threading.Thread(target=first.call, args=("hold",))
        holder.start()
        assert server.entered.acquire(timeout=DEADLINE)
        make_config().send(second)
        with pytest.raises(CallTimeout):
            second.fit("counting", timeout=0.1)
        (session,) = (
            each
            for each in server._dispatcher.sessions.values()
            if each.training.config is not None
        )
        assert eventually(lambda: all(job.abandoned.is_set() for job in session.calls.values()))
        server.release.set()
        holder.join(DEADLINE)
        assert is_free(second)
    assert server.datasets["counting"].read == 0


def test_cancelling_what_is_done_or_never_was_does_nothing(server):
    with raw(server) as connection:
        exchange(connection, call("objects_count", request_id=5))
        for request_id in (5, 77):
            reply = exchange(connection, wire.Request(9, "cancel", {"request_id": request_id}))
            assert (reply.id, reply.result) == (9, None)


def test_nobody_cancels_the_calls_of_others(server):
    with raw(server, session="first") as first, raw(server, session="second") as second:
        first.send(wire.encode(call("hold", request_id=3)))
        assert server.entered.acquire(timeout=DEADLINE)
        exchange(second, wire.Request(1, "cancel", {"request_id": 3}))
        server.release.set()
        assert wire.decode(first.recv(timeout=DEADLINE)) == wire.Reply(3, "")


def test_what_was_posted_before_a_lost_call_fails_no_later_one(server, proxy, monkeypatch):
    """The worker goes while it is sent a config; when it is back, a new config and fit are not told
    of the old."""
    holding = threading.Thread(target=_ignore_lost, args=(proxy.call, "hold"))
    holding.start()
    assert server.entered.acquire(timeout=DEADLINE)
    link, gate = proxy._link, threading.Event()
    monkeypatch.setattr(
        server._dispatcher, "_commands", {"set": lambda *_, **__: gate.wait(DEADLINE)}
    )
    make_config().send(proxy)
    link.io.run(_abort(link))
    holding.join(DEADLINE)
    for each in (gate, server.release):
        each.set()
    monkeypatch.undo()
    assert eventually(lambda: not len(link.posts))
    make_config().send(proxy)
    assert torch.isfinite(proxy.fit("blobs", timeout=DEADLINE))


def _ignore_lost(function, *args):
    with contextlib.suppress(ConnectionFailed):
        function(*args)


async def _abort(link):
    link._connection.transport.abort()


async def test_a_post_in_an_event_loop_never_waits_for_a_connection():
    """What cannot be sent is told by the next call, once, after one time-out for all of it."""
    proxy = sy.WebsocketClientWorker(
        None, "127.0.0.1", free_port(), id="bob", connect=False, connect_timeout=0.3
    )
    ticks = itertools.count()
    ticking = asyncio.ensure_future(_tick(ticks))
    make_config(classifier()).send(proxy)
    with pytest.raises(ConnectionRefusedError):
        await in_time(proxy.async_fit("blobs"))
    ticking.cancel()
    assert next(ticks) > 5
    assert 1 < proxy.connection_attempts < 12
    assert proxy._link.posts.take_error() is None


async def _tick(ticks):
    while True:
        next(ticks)
        await asyncio.sleep(0.01)


async def test_connecting_goes_on_after_a_wait_for_it_was_cancelled():
    server = Server(port=free_port())
    proxy = sy.WebsocketClientWorker(
        None, "127.0.0.1", server.port, connect=False, connect_timeout=DEADLINE
    )
    with pytest.raises((TimeoutError, asyncio.TimeoutError)):
        await asyncio.wait_for(proxy.async_connect(), 0.2)
    assert proxy.connection_attempts > 0
    with serving(server):
        assert await asyncio.to_thread(eventually, lambda: proxy._link.open)
        assert proxy.connection_attempts == 0
        await in_time(proxy.async_connect())
        assert proxy.objects_count_remote() == 0
        proxy.close()


def test_closing_ends_the_attempts_to_connect():
    proxy = sy.WebsocketClientWorker(
        None, "127.0.0.1", free_port(), connect=False, connect_timeout=DEADLINE
    )
    with pytest.raises((TimeoutError, asyncio.TimeoutError)):
        asyncio.run(asyncio.wait_for(proxy.async_connect(), 0.05))
    proxy.close()
    assert proxy._link._answering.done()
