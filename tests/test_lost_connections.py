"""Connections that are closed or break: nothing is lost but the call in progress, and the next call
connects again."""

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import syft as sy
from syft import wire
from syft.exceptions import ConnectionLost
from syft.workers import websocket_settings as settings
from tests.models import classifier, make_config
from tests.network import (
    DEADLINE,
    Server,
    assert_usable,
    eventually,
    false_worker,
    greeting,
    proxy_at,
    serving,
    wait_until_held,
)


@pytest.mark.parametrize("end", ["close", "shutdown"])
def test_the_connection_can_be_closed_by_its_name_in_pysyft(proxy, end):
    assert proxy.ws and proxy.ws.connected
    getattr(proxy.ws, end)()
    assert not proxy.ws.connected
    assert_usable(proxy)
    assert proxy.ws.connected


def test_objects_and_config_survive_a_closed_connection(proxy):
    config = make_config(max_nr_batches=1)
    config.send(proxy)
    pointer = sy.local_worker.send(torch.ones(2), proxy)
    assert proxy.objects_count_remote() == 3
    proxy.close()
    proxy.close()
    proxy.connect()
    proxy.connect()
    assert proxy.fit("blobs").shape == ()
    assert not torch.equal(config.model_ptr.get().obj.hidden.weight, classifier().hidden.weight)
    assert pointer.get().tolist() == [1, 1]


def test_requests_keep_their_order_behind_one_that_is_sent_in_pieces(monkeypatch):
    monkeypatch.setattr(settings, "_FRAGMENT", 256)
    large = wire.Request(1, "set", {"obj": "x" * 1000})
    later = [wire.Request(number, "search", {"query": []}) for number in range(2, 30)]
    came = []

    def answer(connection):
        connection.recv()
        connection.send(greeting())
        for frame in connection:
            came.append(wire.peek_id(frame))
            connection.send(wire.encode(wire.Reply(came[-1], None)))

    async def send(link):
        connection = await link.connection()
        connection.pause_writing()  # as a network does that takes no more for now
        tasks = []
        for request in (large, *later):
            frame = wire.encode(request)
            tasks.append(link.io.start(link.request(request.id, request.command, frame)))
            if request.id == 10:
                connection.resume_writing()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    with false_worker(answer) as port, proxy_at("127.0.0.1", port) as proxy:
        link = proxy._usable_link()
        link.io.run(send(link), DEADLINE)
    assert came == list(range(1, 30))


def test_close_waits_for_what_was_sent(proxy):
    make_config().send(proxy)
    proxy.close()
    assert proxy.fit("blobs").shape == ()


def test_call_in_progress_when_its_connection_is_closed(server, proxy):
    with ThreadPoolExecutor() as pool:
        job = pool.submit(proxy.call, "hold")
        wait_until_held(server)
        proxy.close()
        with pytest.raises(ConnectionLost):
            job.result(DEADLINE)
    server.release.set()
    assert_usable(proxy)


def test_call_over_a_new_connection_while_the_old_one_is_being_closed(server, proxy):
    gate, closing = threading.Event(), threading.Event()
    connection = proxy._link._connection

    async def slow_close(close=connection.close) -> None:
        closing.set()
        await asyncio.to_thread(gate.wait, DEADLINE)
        await close()

    connection.close = slow_close
    with ThreadPoolExecutor() as pool:
        close = pool.submit(proxy.close)
        assert closing.wait(DEADLINE)
        job = pool.submit(proxy.call, "hold", "done")
        wait_until_held(server)
        gate.set()
        close.result(DEADLINE)
        server.release.set()
        assert job.result(DEADLINE) == "done"


def test_a_proxy_reconnects_to_a_restarted_worker(server, proxy):
    server.stop()
    with serving(Server(port=server.port)):
        assert_usable(proxy)


def test_a_connection_that_is_lost_during_a_call_ends_the_call(server, proxy):
    def stop() -> None:
        wait_until_held(server)
        server.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(ConnectionError) as info:
        proxy.call("hold")
    server.release.set()
    thread.join(DEADLINE)
    assert isinstance(info.value, ConnectionLost)
    assert f"the connection to worker 'alice' at {proxy.url} was lost during hold(): " in str(
        info.value
    )
    assert "1001" in info.value.cause


def test_a_connection_that_breaks_at_each_call_fails_each_call():
    def break_off(connection) -> None:
        connection.recv(timeout=DEADLINE)
        connection.send(greeting())
        connection.recv(timeout=DEADLINE)
        # close() alone says nothing while another thread reads.
        connection.socket.shutdown(socket.SHUT_RDWR)

    with false_worker(break_off) as port, proxy_at("127.0.0.1", port) as proxy:
        for _ in range(2):  # it connects again for each
            with pytest.raises(ConnectionLost, match=r"lost during objects_count\(\)"):
                proxy.objects_count_remote()


def test_deletions_open_no_connection_and_are_made_on_the_next_one(server, proxy):
    pointers = [sy.local_worker.send(sy.ObjectWrapper(torch.ones(1), id=n), proxy) for n in (1, 2)]
    assert proxy.objects_count_remote() == 2
    proxy.close()
    del pointers
    link = proxy._link
    link.io.run(proxy._collect(link))
    assert not link.open
    assert eventually(lambda: proxy.objects_count_remote() == 0)
