"""The proxy: blocking and asynchronous calls, errors, timeouts, interrupts."""

import asyncio
import contextlib
import re
import signal
import threading

import pytest
import torch

import syft as sy
from syft.exceptions import CallTimeout, NotSerializable, RemoteError
from tests.models import make_config
from tests.network import (
    DEADLINE,
    Server,
    assert_usable,
    in_time,
    proxy_of,
    serving,
    wait_until_held,
)

# Blocking and asynchronous calls


async def test_blocking_and_asynchronous_calls_mix_inside_a_running_event_loop(proxy):
    assert_usable(proxy)
    blocking = proxy.evaluate("blobs")
    proxy.close()
    assert await in_time(proxy.async_evaluate("blobs")) == blocking
    proxy.fit(dataset_key="blobs", return_ids=[0])
    assert (await in_time(proxy.async_evaluate("blobs")))["loss"] != blocking["loss"]


async def test_three_workers_train_at_the_same_time():
    barrier = threading.Barrier(3)

    class Meeting(Server):
        def fit(self, *args, **kwargs):
            barrier.wait(DEADLINE)  # passes only when all three are here
            return super().fit(*args, **kwargs)

    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(serving(Meeting(name))) for name in ("alice", "bob", "charlie")
        ]
        proxies = [stack.enter_context(proxy_of(server)) for server in servers]
        for proxy in proxies:
            make_config(shuffle=False).send(proxy)
        losses = await in_time(
            asyncio.gather(*(proxy.async_fit("blobs", return_ids=[0]) for proxy in proxies))
        )
    assert len({loss.item() for loss in losses}) == 1


def test_one_proxy_serves_several_threads(proxy):
    results: dict[int, list[float]] = {}

    def use(number: int) -> None:
        results[number] = [
            proxy.call("scale", torch.tensor(float(number)), factor=k).item() for k in range(20)
        ]

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert results == {number: [float(number * k) for k in range(20)] for number in range(4)}


def test_blocking_call_on_the_io_thread_is_refused(proxy):
    async def block() -> None:
        proxy.objects_count_remote()

    with pytest.raises(RuntimeError, match="I/O thread"):
        proxy._link.io.run(block())
    assert_usable(proxy)


def test_the_text_of_a_proxy_counts_the_objects(proxy):
    pointer = sy.local_worker.send(torch.ones(2), proxy)
    assert str(proxy) == "<WebsocketClientWorker id:alice #objects local:0 #objects remote: 1>"
    assert pointer.get().tolist() == [1, 1]


def test_the_text_of_a_proxy_without_a_worker_counts_no_objects(server):
    with proxy_of(server, connect_timeout=0.1) as proxy:
        server.stop()
        assert "#objects remote: unknown" in str(proxy)
        assert repr(proxy) == f"<WebsocketClientWorker id:alice url:ws://127.0.0.1:{server.port}>"


# Errors


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, KeyError])
def test_an_error_of_a_remote_method_is_raised_here_with_its_traceback(proxy, kind):
    with pytest.raises(kind) as info:
        proxy.call("fail", kind=kind.__name__, text="no such thing")
    error = info.value
    assert isinstance(error, RemoteError)
    assert (error.worker, error.type_name) == ("alice", kind.__name__)
    assert error.call == f"fail(kind='{kind.__name__}', text='no such thing')"
    assert "no such thing" in error.message
    assert re.search(r'File ".*network\.py", line \d+, in fail\n', error.traceback)
    assert str(error).startswith(
        f"worker 'alice' failed in {error.call}: {kind.__name__}: {error.message}\n"
    )
    assert_usable(proxy)


def test_a_remote_method_that_exits_fails_the_call_alone(proxy):
    with pytest.raises(RemoteError, match="SystemExit"):
        proxy.call("fail", kind="SystemExit", text="bye", timeout=5)
    assert_usable(proxy)


def test_a_result_that_cannot_travel_fails_the_call_alone(proxy):
    with pytest.raises(NotSerializable, match=r"builtins\.object"):
        proxy.call("thing")
    assert_usable(proxy)


def test_an_argument_that_cannot_travel_fails_the_call_alone(proxy):
    with pytest.raises(NotSerializable, match=r"builtins\.object"):
        proxy.call("scale", object())
    assert_usable(proxy)


def test_failed_send_surfaces_at_the_next_call():
    class Full(Server):
        full = True

        def set_obj(self, obj):
            if self.full:
                raise OSError("no room")
            super().set_obj(obj)

    with serving(Full()) as server, proxy_of(server) as proxy:
        make_config().send(proxy)
        with pytest.raises(RemoteError, match=r"train_config\(.*OSError: no room"):
            proxy.objects_count_remote()
        server.full = False
        assert_usable(proxy)


def test_fetching_an_object_loses_nothing_when_it_tells_of_a_failed_send():
    class Picky(Server):
        def train_config_from(self, fields):
            raise OSError("no room")

    with serving(Picky()) as server, proxy_of(server) as proxy:
        pointer = sy.local_worker.send(torch.ones(2), proxy)
        make_config().send(proxy)
        with pytest.raises(RemoteError, match="no room"):
            pointer.get()
        assert pointer.get().tolist() == [1, 1]


# Timeouts, cancellation, interrupts


def test_a_call_that_times_out_leaves_the_proxy_usable(server, proxy):
    with pytest.raises(TimeoutError) as info:
        proxy.call("hold", timeout=0.1)
    assert isinstance(info.value, CallTimeout)
    assert (info.value.worker, info.value.call, info.value.seconds) == ("alice", "hold()", 0.1)
    assert proxy.objects_count_remote() == 0
    server.release.set()
    assert_usable(proxy)  # in particular, no call gets the late answer


async def test_an_asynchronous_call_that_times_out_leaves_the_proxy_usable(server, proxy):
    with pytest.raises(CallTimeout):
        await proxy.async_call("hold", timeout=0.1)
    server.release.set()
    assert_usable(proxy)


def test_the_timeout_of_a_proxy_holds_unless_a_call_has_its_own(server):
    with proxy_of(server, timeout=0.1) as proxy:
        with pytest.raises(CallTimeout):
            proxy.call("hold")
        server.release.set()
        assert proxy.call("hold", timeout=DEADLINE) == ""


async def test_a_call_that_is_cancelled_leaves_the_proxy_usable(server, proxy):
    task = asyncio.create_task(proxy.async_call("hold"))
    await asyncio.to_thread(wait_until_held, server)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.release.set()
    assert_usable(proxy)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs a signal to the main thread")
def test_a_call_that_is_interrupted_leaves_the_proxy_usable(server, proxy):
    interrupted = threading.Event()

    def interrupt() -> None:
        wait_until_held(server)
        # Again after seconds: Python 3.11 can lose a signal when two threads meet in its flags.
        while True:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            if interrupted.wait(3):
                break

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        proxy.call("hold")
    interrupted.set()
    thread.join(DEADLINE)
    server.release.set()
    assert_usable(proxy)
