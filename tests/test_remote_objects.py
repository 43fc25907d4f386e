"""How long a worker keeps what a coordinator sent it, and that nothing is left behind on either
side."""

import asyncio
import gc
import threading

import psutil
import pytest
import torch

import syft as sy
from syft import wire
from syft.workers import websocket_server
from syft.workers.io_thread import IOThread
from tests.models import make_config
from tests.network import (
    DEADLINE,
    Server,
    call,
    eventually,
    exchange,
    free_port,
    proxy_of,
    raw,
    serving,
)


def test_objects_go_when_their_pointers_go(proxy):
    pointers = [sy.local_worker.send(torch.ones(2), proxy) for _ in range(3)]
    assert proxy.objects_count_remote() == 3
    del pointers[0]
    assert proxy.objects_count_remote() == 2
    pointers.clear()
    assert proxy.objects_count_remote() == 0


def test_objects_go_whose_pointers_went_while_the_connection_was_closed(proxy):
    pointers = [sy.local_worker.send(torch.ones(2), proxy) for _ in range(3)]
    proxy.close()
    del pointers[:2]
    assert eventually(lambda: proxy.objects_count_remote() == 1)


def test_rounds_leave_no_objects_behind(proxy):
    for _ in range(3):
        config = make_config(max_nr_batches=1)
        config.send(proxy)
        proxy.fit("blobs")
        config.model_ptr.get()
    assert proxy.objects_count_remote() == 1  # the loss function of the last one
    del config
    assert proxy.objects_count_remote() == 0


def test_objects_stay_whose_pointers_do_not_collect_them(proxy):
    sy.local_worker.send(torch.ones(2), proxy, garbage_collect_data=False)
    sy.local_worker.send(torch.ones(2), proxy, create_pointer=False)
    assert proxy.objects_count_remote() == 2
    proxy.clear_objects_remote()
    assert proxy.objects_count_remote() == 0


def test_tagged_tensors_of_the_worker_are_found_and_fetched(server, proxy):
    sy.TorchHook(torch)
    server.load_data(
        [
            torch.arange(3).tag("#data", "#small").describe("three numbers"),
            torch.zeros(3).tag("#data"),
        ]
    )
    (pointer,) = proxy.search("#data", "#small")
    assert pointer.tags == {"#data", "#small"}
    fetched = pointer.get()
    assert fetched.tolist() == [0, 1, 2]
    assert (fetched.tags, fetched.description) == ({"#data", "#small"}, "three numbers")
    assert len(proxy.search("#data")) == 2  # what the owner offers, it offers to all, and again


def test_clearing_spares_other_coordinators_that_are_connected(server, proxy):
    kept = sy.local_worker.send(torch.ones(2), proxy)
    with proxy_of(server) as other:
        gone = sy.local_worker.send(torch.ones(2), other)
        other.clear_objects_remote()
        assert proxy.objects_count_remote() == 1
        with pytest.raises(KeyError):
            gone.get()
    assert kept.get().tolist() == [1, 1]


def send_tensor(connection, obj_id: str) -> None:
    about = {"id": obj_id, "wrapped": False, "tags": [], "description": None}
    objects = [{"obj": torch.ones(1), **about}]
    assert exchange(connection, wire.Request(1, "set", {"objects": objects})).result is None


def test_objects_go_when_their_coordinator_does_not_come_back(server, proxy, monkeypatch):
    monkeypatch.setattr(websocket_server, "SESSION_GRACE", 0.01)
    gone = threading.Event()
    end_session = server._dispatcher.end_session
    monkeypatch.setattr(
        server._dispatcher, "end_session", lambda session: [end_session(session), gone.set()]
    )
    own = sy.local_worker.send(torch.ones(2), proxy)
    with raw(server, session="a") as connection:
        send_tensor(connection, "of a")
        store = server._dispatcher.sessions["a"].objects
        assert (proxy.objects_count_remote(), store.objects_count()) == (1, 1)
    assert gone.wait(5)
    assert store.objects_count() == 0
    assert proxy.objects_count_remote() == 1
    assert own.get().tolist() == [1, 1]


def test_objects_stay_when_their_coordinator_has_a_second_connection(server, monkeypatch):
    """The first connection ends only after the second was made, as when a network fails for a
    while."""
    monkeypatch.setattr(websocket_server, "SESSION_GRACE", 0)
    with raw(server, session="a") as second:
        with raw(server, session="a") as first:
            send_tensor(first, "of a")
        for number in range(10):
            assert exchange(second, call("objects_count", request_id=number)).result == 1


class Timer:
    """Calls a function when the test says so."""

    def __init__(self, function) -> None:
        self.fire = function

    def cancel(self) -> None:
        self.fire = lambda: None


def test_a_second_absence_is_as_long_as_the_first(server, monkeypatch):
    timers, loop = [], server._running._loop

    def call_later(delay, function, *args, call_later=loop.call_later, **settings):
        if delay != websocket_server.SESSION_GRACE:
            return call_later(delay, function, *args, **settings)
        timers.append(Timer(function))
        return timers[-1]

    monkeypatch.setattr(loop, "call_later", call_later)
    with raw(server, session="a") as connection:
        send_tensor(connection, "of a")
    assert eventually(lambda: len(timers) == 1)
    with raw(server, session="a"):
        pass
    assert eventually(lambda: len(timers) == 2)
    fired = threading.Event()
    loop.call_soon_threadsafe(lambda: [timers[0].fire(), fired.set()])
    assert fired.wait(DEADLINE)
    assert server._dispatcher.sessions["a"].objects.objects_count() == 1


def open_things() -> tuple[int, set[str]]:
    """The number of file descriptors, and the threads but those of a running server's own pools."""
    gc.collect()
    names = {thread.name for thread in threading.enumerate()}
    return psutil.Process().num_fds(), {
        name for name in names if not name.startswith(("asyncio_", "compute-"))
    }


def no_more_than(before: tuple[int, set[str]]) -> bool:
    """Whether nothing is open that was not; what earlier tests had left may be gone by now."""
    files, threads = open_things()
    return files <= before[0] and threads <= before[1]


# Nothing is left open

needs_file_descriptors = pytest.mark.skipif(
    not hasattr(psutil.Process, "num_fds"), reason="no file descriptors here"
)


@needs_file_descriptors
def test_nothing_is_left_open_by_proxies_that_are_closed(server, proxy):
    before = open_things()
    for _ in range(20):
        with proxy_of(server, id="bob") as other:
            make_config().send(other)
            other.fit("blobs")
    assert eventually(lambda: no_more_than(before))


@needs_file_descriptors
def test_nothing_is_left_open_by_proxies_that_are_dropped(server, proxy):
    before, others = open_things(), []
    for _ in range(5):
        others.append(sy.WebsocketClientWorker(None, "127.0.0.1", server.port, id="bob"))
        others[-1].objects_count_remote()
        others[-1].remove_worker_from_local_worker_registry()
    assert open_things()[0] > before[0]
    others.clear()
    assert eventually(lambda: no_more_than(before))


@needs_file_descriptors
def test_nothing_is_left_open_by_servers_that_are_stopped(proxy):
    before, threads = open_things(), threading.active_count()
    for _ in range(5):
        with serving(Server()) as server, proxy_of(server, id="bob") as other:
            other.call("scale", torch.ones(1))
    assert eventually(lambda: no_more_than(before) and threading.active_count() <= threads)


@needs_file_descriptors
def test_nothing_is_left_open_by_proxies_that_find_no_worker(proxy):
    before = open_things()
    for port in [free_port() for _ in range(3)]:
        with pytest.raises(ConnectionError):
            sy.WebsocketClientWorker(None, "127.0.0.1", port, id="bob", connect_timeout=0.1)
    assert eventually(lambda: no_more_than(before))


def test_closing_a_proxy_ends_all_its_tasks(server):
    loop = IOThread.current().loop
    of_others = asyncio.all_tasks(loop)
    with proxy_of(server) as proxy:
        pointer = sy.local_worker.send(torch.ones(2), proxy)
        del pointer
        proxy.objects_count_remote()
    assert eventually(lambda: asyncio.all_tasks(loop) <= of_others)
