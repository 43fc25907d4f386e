"""The link of a proxy: what becomes of replies, late ones and senseless ones."""

import asyncio
import logging
import tracemalloc

import pytest
import torch
from websockets.exceptions import ConnectionClosedError

import syft as sy
from syft import wire
from syft.workers.io_thread import IOThread
from syft.workers.websocket_connect import Peer
from syft.workers.websocket_link import Link
from tests.network import in_time


@pytest.fixture
def link():
    return Link(
        IOThread.current(), Peer("alice", "localhost", 1, None, 1.0, 10_000), lambda link: None
    )


class Connection:
    """One that gives these frames and then ends."""

    def __init__(self, *frames):
        self._frames = list(frames)

    async def recv(self):
        if not self._frames:
            raise ConnectionClosedError(None, None)
        return self._frames.pop(0)


async def test_a_senseless_message_is_dropped_and_named_and_the_next_reply_arrives(link, caplog):
    reply, frame = asyncio.get_running_loop().create_future(), wire.encode(wire.Reply(1, "here"))
    with caplog.at_level(logging.WARNING):
        await link._read(Connection("text", b"garbage\x1b", frame), {1: reply})
    assert reply.result() == frame
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "worker alice sent a message that is dropped"
    ] * 2
    assert "\x1b" not in caplog.text


async def test_a_reply_that_nobody_waits_for_any_more_is_dropped(link):
    late = asyncio.get_running_loop().create_future()
    late.cancel()
    frames = [wire.encode(wire.Reply(number, None)) for number in (1, 2)]
    await link._read(Connection(*frames), {1: late})
    assert late.cancelled()


async def test_the_end_of_a_connection_fails_those_who_still_wait_on_it(link):
    done, waits = (asyncio.get_running_loop().create_future() for _ in range(2))
    done.set_result(b"reply")
    await link._read(Connection(), {1: done, 2: waits})
    assert done.result() == b"reply"
    with pytest.raises(ConnectionResetError):
        waits.result()


async def test_calls_that_ask_at_once_whether_the_worker_answers_share_one_ping(link, monkeypatch):
    pings, release = [], asyncio.Event()

    async def ping():
        pings.append(None)
        await release.wait()

    monkeypatch.setattr(link, "_ping", ping)
    monkeypatch.setattr(link.io, "start", asyncio.ensure_future)
    answers = [asyncio.ensure_future(link.answer()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    release.set()
    await in_time(asyncio.gather(*answers))
    assert len(pings) == 1


async def test_a_connection_whose_proxy_has_gone_opens_without_a_task(link, monkeypatch):
    started = []
    monkeypatch.setattr(link.io, "start", lambda coroutine: started.append(coroutine.close()))
    link._opened(Connection())
    assert link.open and link.answers and len(started) == 1  # the reader alone


def test_a_reply_is_not_kept_until_the_next_one_comes(proxy):
    pointer = sy.local_worker.send(torch.zeros(1_000_000), proxy)
    proxy.objects_count_remote()  # so that the request has been read, and is not counted
    tracemalloc.start()
    try:
        fetched = pointer.get()
        kept, at_most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert fetched.nbytes == 4_000_000 < at_most
    assert kept < 1_000_000
