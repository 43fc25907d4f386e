"""The server: several coordinators at once, the methods of a subclass, starting and stopping."""

import asyncio
import socket
import threading

import pytest
import torch

import syft as sy
from syft.exceptions import AddressInUse, ConnectionLost, TrainConfigMissing
from syft.session import Session
from syft.workers import websocket_server
from tests.models import blobs, make_config
from tests.network import (
    DEADLINE,
    Server,
    free_port,
    in_time,
    proxy_at,
    proxy_of,
    serving,
    wait_until_held,
)


@pytest.fixture
def other(server):
    with proxy_of(server) as other:
        yield other


# Several coordinators, and several calls


async def test_status_is_answered_during_training(server, proxy, other):
    pointer = sy.local_worker.send(torch.ones(2), proxy)
    job = asyncio.create_task(proxy.async_call("hold"))
    await asyncio.to_thread(wait_until_held, server)
    for each, count in ((proxy, 1), (other, 0)):
        assert each.objects_count_remote() == count
        assert (str(pointer.id_at_location) in each.list_objects_remote()) is (count == 1)
    assert not job.done()
    assert pointer.get().tolist() == [1, 1]
    server.release.set()
    assert await in_time(job) == ""


async def after(proxy) -> None:
    """Return when the worker has got what was asked of the proxy before."""
    await in_time(asyncio.create_task(proxy.async_call("objects_count")))


async def test_calls_wait_their_turn_in_order(server, proxy, other):
    jobs = []
    for name, each in (("1", proxy), ("2", other), ("3", proxy), ("4", other)):
        jobs.append(asyncio.create_task(each.async_call("hold", name)))
        await after(each)
    wait_until_held(server)
    assert not server.entered.acquire(blocking=False)
    server.release.set()
    assert await in_time(asyncio.gather(*jobs)) == ["1", "2", "3", "4"]
    assert server.order == ["1", "2", "3", "4"]


async def test_coordinators_get_their_own_replies(proxy, other):
    calls = [
        each.async_call("scale", torch.ones(1), factor=k)
        for k in range(20)
        for each in (proxy, other)
    ]
    results = await in_time(asyncio.gather(*calls))
    assert [result.item() for result in results] == [k for k in range(20) for _ in range(2)]


async def test_coordinators_have_their_own_configs(proxy, other):
    make_config(epochs=3, shuffle=False).send(proxy)
    alone = proxy.fit("blobs")
    with pytest.raises(TrainConfigMissing, match="'alice' has no TrainConfig"):
        other.fit("blobs")
    configs = {proxy: make_config(epochs=3, shuffle=False), other: make_config(max_nr_batches=0)}
    for each, config in configs.items():
        config.send(each)
    losses = await in_time(asyncio.gather(proxy.async_fit("blobs"), other.async_fit("blobs")))
    assert losses[0].item() == alone.item()
    assert losses[1] is None


class EndlessData(torch.utils.data.Dataset):
    """Tells when it is used; an epoch of it takes for ever."""

    def __init__(self) -> None:
        self.used, self.samples = threading.Event(), blobs()

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int):
        self.used.set()
        return self.samples[index % len(self.samples)]


def drop(proxy) -> None:
    """End a proxy's connection as a cut cable does: without a closing handshake."""
    link = proxy._link
    link.io.loop.call_soon_threadsafe(link._connection.transport.abort)


async def test_a_coordinator_that_disappears_does_not_block_the_others(server, proxy, other):
    endless = EndlessData()
    server.add_dataset(endless, key="endless")
    make_config(shuffle=False).send(proxy)
    make_config().send(other)
    training = asyncio.create_task(proxy.async_fit("endless"))
    assert await asyncio.to_thread(endless.used.wait, DEADLINE)
    queued = [
        asyncio.create_task(proxy.async_call("hold")),
        asyncio.create_task(other.async_fit("blobs")),
    ]
    await after(proxy)
    await after(other)
    drop(proxy)
    for task in (training, queued[0]):
        with pytest.raises(ConnectionLost):
            await in_time(task)
    assert (await in_time(queued[1])).shape == ()
    assert not server.entered.acquire(blocking=False), "a call that nobody waits for was made"
    assert proxy.call("scale", torch.ones(1)).tolist() == [2]


async def test_training_ends_when_the_server_is_stopped(server, proxy):
    endless = EndlessData()
    server.add_dataset(endless, key="endless")
    make_config(shuffle=False).send(proxy)
    training = asyncio.create_task(proxy.async_fit("endless"))
    assert await asyncio.to_thread(endless.used.wait, DEADLINE)
    (compute,) = [
        thread for thread in threading.enumerate() if thread.name.startswith("compute-alice")
    ]
    server.stop()
    with pytest.raises(ConnectionLost):
        await in_time(training)
    compute.join(DEADLINE)
    assert not compute.is_alive()


# Methods of a subclass


class Client(sy.WebsocketClientWorker):
    """A user's proxy, as PySyft 0.2 programs have them."""

    def scale(self, x, factor):
        return self._send_msg_and_deserialize("scale", x=x, factor=factor)

    async def async_scale(self, x, factor):
        return await self._async_send_msg_and_deserialize("scale", x=x, factor=factor)

    def evaluate(self, dataset_key, threshold):
        return self._send_msg_and_deserialize(
            "evaluate", dataset_key=dataset_key, threshold=threshold
        )


class Evaluator(Server):
    """A user's worker, whose evaluate() takes other arguments."""

    def evaluate(self, dataset_key, threshold):
        model = self.current_model()
        sure = model(self.datasets[dataset_key].data).exp().max(dim=1).values > threshold
        return {"sure": sure, "share": (int(sure.sum()), len(sure))}


async def test_methods_of_subclasses_can_be_called():
    x = torch.arange(3.0)
    with serving(Evaluator()) as server, proxy_of(server, Client) as proxy:
        assert proxy.scale(x, factor=3.0).tolist() == [0, 3, 6]
        assert (await in_time(proxy.async_scale(x, factor=0.5))).tolist() == [0, 0.5, 1]
        config = make_config()
        config.send(proxy)
        result = proxy.evaluate("blobs", threshold=0.5)
    expected = config.model(blobs().data).exp().max(dim=1).values > 0.5
    assert result["sure"].tolist() == expected.tolist()
    assert result["share"] == (int(expected.sum()), 20)


# Starting and stopping


def test_a_port_in_use_is_named_and_may_be_tried_again(server):
    second = Server("bob", port=server.port)
    with pytest.raises(
        OSError, match=f"worker 'bob' cannot listen at ws://127.0.0.1:{server.port}: "
    ) as info:
        second.start(block=False)
    assert isinstance(info.value, AddressInUse)
    server.stop()
    with serving(second), proxy_of(second) as proxy:  # it can be started once the port is free
        assert proxy.objects_count_remote() == 0


def test_a_worker_that_serves_cannot_be_started_again(server, proxy):
    with pytest.raises(RuntimeError, match="already serving at ws://"):
        server.start(block=False)
    assert proxy.objects_count_remote() == 0


def test_a_worker_may_be_stopped_twice_and_started_again(server):
    server.stop()
    server.stop()
    with socket.create_server(("127.0.0.1", server.port)):
        pass
    server.start(block=False)
    with proxy_of(server) as proxy:
        assert proxy.objects_count_remote() == 0


def test_stopping_a_server_that_was_not_started():
    Server().stop()


def test_blocking_start_returns_when_the_server_is_stopped():
    server, ready = Server(), threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(websocket_server._Running, "addresses", lambda running: ready.set())
        thread = threading.Thread(target=server.start)
        thread.start()
        assert ready.wait(DEADLINE)
    with proxy_of(server) as proxy:
        assert proxy.objects_count_remote() == 0
    assert thread.is_alive()
    server.stop()
    thread.join(DEADLINE)
    assert not thread.is_alive()


async def test_a_worker_can_be_started_under_a_running_event_loop():
    with serving(Server(loop=asyncio.get_running_loop())) as server, proxy_of(server) as proxy:
        assert proxy.objects_count_remote() == 0
        assert await in_time(proxy.async_call("scale", torch.ones(1))) == 2


def test_a_worker_runs_and_closes_the_loop_that_it_is_given():
    loop = asyncio.new_event_loop()
    with serving(Server(loop=loop)) as server, proxy_of(server) as proxy:
        assert proxy.objects_count_remote() == 0
        assert loop.is_running()
    assert loop.is_closed()


def test_a_port_may_be_given_as_text():
    with serving(Server(port="0")) as server, proxy_of(server) as proxy:
        assert isinstance(server.port, int)
        assert server.url == proxy.url == f"ws://127.0.0.1:{server.port}"


def test_localhost_is_this_machine_only():
    with serving(Server(host="localhost", port=free_port())) as server:
        hosts = {listening.getsockname()[0] for listening in server._running._server.sockets}
        assert hosts <= {"127.0.0.1", "::1"}
        for host in [*hosts, "localhost"]:
            with proxy_at(host, server.port) as proxy:
                assert proxy.objects_count_remote() == 0


# Whoever stops it


def test_ctrl_c_stops_a_worker_that_blocks(monkeypatch, capsys):
    class Interrupted(threading.Event):
        def wait(self, timeout=None):
            raise KeyboardInterrupt

    class Running(websocket_server._Running):
        def start(self):
            super().start()
            self.stopped = Interrupted()

    monkeypatch.setattr(websocket_server, "_Running", Running)
    server = Server()
    server.start(block=True)
    assert f"Worker alice is serving at ws://127.0.0.1:{server.port}. " in capsys.readouterr().out
    socket.create_server(("127.0.0.1", server.port)).close()  # the port is free again


def test_a_worker_may_be_stopped_from_its_own_event_loop(server):
    running = server._running
    running._loop.call_soon_threadsafe(server.stop)
    assert running.stopped.wait(DEADLINE)
    running._thread.join(DEADLINE)
    server.stop()


def test_a_worker_whose_thread_has_ended_can_be_stopped(server):
    running = server._running
    running._loop.call_soon_threadsafe(running._end.set)
    running._thread.join(DEADLINE)
    server.stop()
    assert server.stuck_calls == 0
    with serving(server), proxy_of(server) as proxy:
        assert proxy.objects_count_remote() == 0


def test_the_end_of_a_session_leaves_its_successor_alone(server, monkeypatch):
    later = []
    running = server._running
    monkeypatch.setattr(running._loop, "call_later", lambda seconds, end: later.append(end))
    former, successor = Session("name"), Session("name")
    former.connections = 1
    sessions = server._dispatcher.sessions
    sessions["name"] = former
    running._disconnected(former)
    sessions["name"] = successor
    (end,) = later
    end()
    assert sessions["name"] is successor
