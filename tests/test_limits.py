"""What a worker grants: bounds of every kind, the owner's policy, and a named error to whoever wants more."""

import asyncio
import dataclasses
import threading

import pytest
import torch

import syft as sy
from syft.exceptions import ConnectionFailed, LimitExceeded, NotPermitted, SyftError
from syft.limits import Budget, Ledger, Limits, size_of
from syft.policy import Policy
from syft.workers import websocket_server
from syft.workers.compute import ComputeThread
from tests.models import blobs, classifier, make_config

DEADLINE = 30


class Worker(sy.WebsocketServerWorker):
    """A worker whose owner offers a method that waits, and one that names a dataset."""

    gate = threading.Event()

    def wait_for_gate(self):
        return self.gate.wait(DEADLINE)

    def size(self, dataset_key):
        return len(self.datasets[dataset_key])


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.delenv("SYFT_TOKEN", raising=False)
    monkeypatch.setattr(Worker, "gate", threading.Event())
    servers = []

    def start(**options):
        server = Worker(None, "127.0.0.1", 0, id="alice", **options)
        server.add_dataset(blobs(), "blobs")
        server.add_dataset(blobs(), "secret")
        server.start(block=False)
        servers.append(server)
        return server

    yield start
    Worker.gate.set()
    for server in servers:
        server.stop()


@pytest.fixture
def connect():
    proxies = []

    def make(server):
        proxies.append(sy.WebsocketClientWorker(None, "127.0.0.1", server.port, id="alice"))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


def send(proxy, obj=None):
    return sy.local_worker.send(torch.ones(10) if obj is None else obj, proxy)


class TestLimits:
    def test_are_frozen_and_bounded(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            Limits().connections = 3  # type: ignore[misc]
        for name in ("connections", "call_seconds"):
            with pytest.raises(ValueError, match=name):
                Limits(**{name: 0})

    def test_connections(self, serve, connect):
        server = serve(limits=Limits(connections=2))
        first, _ = connect(server), connect(server)
        with pytest.raises(LimitExceeded) as caught:
            connect(server)
        assert (caught.value.worker, caught.value.observed, caught.value.limit) == ("alice", 3, 2)
        assert str(caught.value) == (
            "worker 'alice' refuses: the open connections would be 3; the limit is 2 (connections, set by the "
            "worker's owner)."
        )
        assert first.objects_count_remote() == 0
        first.close()
        connect(server)

    def test_sessions(self, serve, connect):
        server = serve(limits=Limits(sessions=2))
        first, second = connect(server), connect(server)
        pointer = send(first)
        with pytest.raises(LimitExceeded) as caught:
            connect(server)
        assert caught.value.setting == "sessions"
        first.close()
        wait_until(lambda: any(not session.connected for session in server._dispatcher.sessions.values()))
        third = connect(server)  # the session that was not connected made room, and its objects went
        assert third.objects_count_remote() == second.objects_count_remote() == 0
        pointer.garbage_collect_data = False

    def test_objects(self, serve, connect):
        server = serve(limits=Limits(objects=3, all_objects=4), data=[torch.ones(1)])
        first, second = connect(server), connect(server)
        pointers = [send(first) for _ in range(3)]
        with pytest.raises(LimitExceeded, match="the objects of one coordinator would be 4; the limit is 3"):
            send(first)
        pointers.append(send(second))
        with pytest.raises(LimitExceeded, match="the objects of all coordinators would be 5; the limit is 4"):
            send(second)
        assert first.objects_count_remote() == 5  # one is the owner's own
        pointers.pop(0).get()
        pointers.append(send(second))

    def test_bytes(self, serve, connect):
        server = serve(limits=Limits(object_bytes=1000, all_object_bytes=1500))
        first, second = connect(server), connect(server)
        kept = send(first, torch.zeros(200))
        with pytest.raises(
            LimitExceeded, match="bytes of one coordinator's objects would be 1,200; the limit is 1,000"
        ):
            send(first, torch.zeros(100))
        with pytest.raises(
            LimitExceeded, match="bytes of all coordinators' objects would be 1,600; the limit is 1,500"
        ):
            send(second, torch.zeros(200))
        del kept

    def test_what_the_owner_removed_does_not_count(self, serve, connect):
        server = serve(limits=Limits(objects=1))
        proxy = connect(server)
        kept = [send(proxy)]
        server.clear_objects()
        kept.append(send(proxy))

    def test_a_model_that_is_sent_without_waiting(self, serve, connect):
        server = serve(limits=Limits(object_bytes=10))
        proxy = connect(server)
        make_config().send(proxy)
        with pytest.raises(LimitExceeded, match="object_bytes"):
            proxy.fit("blobs")

    async def test_queued_calls(self, serve, connect):
        server = serve(limits=Limits(queued_calls=2))
        proxy, other = connect(server), connect(server)
        waiting = [asyncio.ensure_future(proxy.async_call("wait_for_gate")) for _ in range(2)]
        await until(lambda: sum(session.queued for session in server._dispatcher.sessions.values()) == 2)
        with pytest.raises(LimitExceeded, match="queued_calls"):
            await proxy.async_call("wait_for_gate")
        elsewhere = asyncio.ensure_future(other.async_call("wait_for_gate"))  # another's queue is another's
        await until(lambda: sum(session.queued for session in server._dispatcher.sessions.values()) == 3)
        Worker.gate.set()
        assert await asyncio.wait_for(asyncio.gather(*waiting, elsewhere), DEADLINE) == [True] * 3
        await until(lambda: sum(session.queued for session in server._dispatcher.sessions.values()) == 0)

    def test_time_of_a_fit(self, serve, connect):
        server = serve(limits=Limits(call_seconds=1))
        proxy = connect(server)
        make_config(epochs=10**9).send(proxy)
        with pytest.raises(LimitExceeded) as caught:
            proxy.fit("blobs", timeout=DEADLINE)
        assert caught.value.setting == "call_seconds" and 1 < caught.value.observed < 10
        make_config(epochs=1).send(proxy)
        assert proxy.fit("blobs") is not None

    def test_a_model_that_loops_for_ever_ends_with_its_time(self, serve, connect):
        server = serve(limits=Limits(call_seconds=1, stuck_calls=1))
        proxy = connect(server)
        make_config(model=torch.jit.script(Endless())).send(proxy)
        for name in ("fit", "evaluate"):
            with pytest.raises(LimitExceeded, match="call_seconds"):
                proxy.call(name, "blobs", timeout=DEADLINE)
        assert proxy.call("size", "blobs") == 20  # no thread was left running

    def test_a_model_that_makes_too_much_also_in_the_threads_of_an_evaluation(self, serve, connect):
        server = serve(limits=Limits(call_bytes=10_000))
        proxy = connect(server)
        for threads in (1, 2):
            server.evaluation_threads = threads
            make_config(model=torch.jit.script(Wasteful())).send(proxy)
            for name in ("fit", "evaluate"):
                with pytest.raises(LimitExceeded, match="call_bytes"):
                    proxy.call(name, "blobs", timeout=DEADLINE)
            make_config().send(proxy)
            assert proxy.evaluate("blobs")["nr_predictions"] == 20

    def test_calls_that_never_end_are_left_alone_and_counted(self, serve, connect, monkeypatch):
        monkeypatch.setattr(websocket_server, "STUCK_SECONDS", 0.1)
        server = serve(limits=Limits(call_seconds=0.2, stuck_calls=1))
        proxy = connect(server)
        with pytest.raises(LimitExceeded, match="call_seconds"):
            proxy.call("wait_for_gate", timeout=DEADLINE)
        assert proxy.objects_count_remote() >= 0  # it answers
        with pytest.raises(LimitExceeded, match="stuck_calls"):
            proxy.call("size", "blobs", timeout=DEADLINE)

    def test_no_handshake_in_time(self, serve):
        server = serve(limits=Limits(handshake_seconds=0.2))
        assert silent(server) == b""

    def test_a_huge_name_of_a_session(self, serve, connect, monkeypatch):
        server = serve()
        monkeypatch.setattr("syft.workers.websocket_link.uuid.uuid4", lambda: type("", (), {"hex": "x" * 65}))
        with pytest.raises(ConnectionFailed):
            connect(server)


class Endless(torch.nn.Module):
    """Loops until its only parameter is zero."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while bool(self.weight.sum() != 0):
            pass
        return x * self.weight


class Wasteful(torch.nn.Module):
    """Makes more than it needs."""

    def __init__(self):
        super().__init__()
        self.output = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(self.output(x) + torch.zeros(x.size(0), 5000).sum(), 1)


def silent(server):
    """Connect, say nothing, and return what comes."""
    import socket

    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as raw:
        return raw.recv(100)


def wait_until(true):
    deadline = threading.Event()
    for _ in range(10 * DEADLINE):
        if true():
            return
        deadline.wait(0.1)
    raise AssertionError("not in time")


async def until(true):
    async def watch():
        while not true():
            await asyncio.sleep(0)

    await asyncio.wait_for(watch(), DEADLINE)


class TestPolicy:
    def test_datasets(self, serve, connect):
        proxy = connect(serve(policy=Policy(datasets=["blobs"])))
        make_config().send(proxy)
        proxy.fit("blobs")
        assert proxy.call("size", "blobs") == 20
        for ask in (
            lambda: proxy.fit("secret"),
            lambda: proxy.evaluate("secret"),
            lambda: proxy.call("size", "secret"),
            lambda: proxy.call("size", dataset_key="secret"),
        ):
            with pytest.raises(NotPermitted) as caught:
                ask()
            assert isinstance(caught.value, PermissionError)
            assert str(caught.value) == (
                "worker 'alice' does not permit 'secret'; its owner allows these datasets: 'blobs'."
            )

    def test_calls(self, serve, connect):
        proxy = connect(serve(policy=Policy(calls=["evaluate", "size"])))
        make_config().send(proxy)
        assert proxy.evaluate("blobs")["nr_predictions"] == 20
        assert proxy.call("size", "blobs") == 20
        with pytest.raises(NotPermitted, match="'fit'"):
            proxy.fit("blobs")

    def test_models(self, serve, connect):
        sent = {"structure": ""}
        server = serve()
        proxy = connect(server)
        server._dispatcher.guard.policy.check_model = lambda digest: sent.update(structure=digest)
        kept = send(proxy, sy.ObjectWrapper(classifier(), id=1))
        assert len(sent["structure"]) == 64
        strict = connect(serve(policy=Policy(models=[sent["structure"]])))
        again = send(strict, sy.ObjectWrapper(classifier(seed=3), id=2))  # other parameters, same structure
        with pytest.raises(NotPermitted, match="models"):
            send(strict, sy.ObjectWrapper(classifier(dropout=0.3), id=3))
        with pytest.raises(NotPermitted, match="models"):  # as an argument, too
            strict.call("size", [{"a": (classifier(dropout=0.3),)}])
        send(strict, torch.ones(3))
        del kept, again

    def test_steps_of_a_fit(self, serve, connect):
        proxy = connect(serve(policy=Policy(max_steps_per_fit=3)))
        make_config(max_nr_batches=3).send(proxy)
        proxy.fit("blobs")
        make_config().send(proxy)  # 20 samples in batches of 8
        proxy.fit("blobs")
        for config in (make_config(epochs=2), make_config(batch_size=4), make_config(batch_size=4, max_nr_batches=4)):
            config.send(proxy)
            with pytest.raises(LimitExceeded, match="max_steps_per_fit"):
                proxy.fit("blobs")

    def test_fits_in_all(self, serve, connect):
        server = serve(policy=Policy(max_fits=2))
        for _ in range(2):
            proxy = connect(server)
            make_config().send(proxy)
            proxy.fit("blobs")
        with pytest.raises(LimitExceeded, match="the fits in all would be 3; the limit is 2"):
            proxy.fit("blobs")
        assert proxy.evaluate("blobs")

    def test_one_name_is_no_list_of_names(self):
        with pytest.raises(ValueError, match="expected several names"):
            Policy(datasets="blobs")


class TestDataStays:
    """No request returns a dataset or a sample of it. What load_data stored are objects: their owner put them there."""

    def test_what_can_be_asked_for(self, serve, connect):
        server = serve(data=[torch.full((3,), 7.0)])
        marks = [blobs(seed=0).data[0, 0].item(), blobs(seed=0).data[-1, -1].item()]
        proxy = connect(server)
        answers = [proxy.list_objects_remote(), proxy.search([]), proxy.search("blobs"), proxy.search("secret")]
        for obj_id in ("blobs", "secret", "datasets", 0, 1):
            with pytest.raises(SyftError):
                proxy.request_obj(obj_id)
        for name in ("datasets", "add_dataset", "remove_dataset", "get_obj", "current_objects", "__dict__", "_objects"):
            with pytest.raises(SyftError):
                proxy.call(name)
        assert not any(f"{mark:.4f}" in str(answers) for mark in marks)
        assert proxy.objects_count_remote() == 1 and "7." in proxy.list_objects_remote()

    def test_only_these_commands(self, serve):
        server = serve()
        commands = ["cancel", "delete", "get", "search", "set", "train_config"]
        assert sorted(server._dispatcher._commands) == commands
        assert server._dispatcher.callable_methods() == [
            *("clear_objects", "evaluate", "fit", "list_objects", "objects_count", "size", "wait_for_gate")
        ]


class TestAccounts:
    @pytest.mark.parametrize(
        "obj, size",
        [
            (torch.zeros(3, dtype=torch.int64), 24),
            (torch.nn.Linear(2, 3), 36),
            (torch.nn.BatchNorm1d(2), 4 * 8 + 8),
            ([torch.zeros(2), {"a": torch.zeros(1)}], 12),
            ("abc", 3),
            (None, 0),
            (5, 0),
        ],
    )
    def test_size(self, obj, size):
        assert size_of(obj) == size_of(sy.ObjectWrapper(obj, id=1)) == size

    def test_replaced(self):
        ledger = Ledger("alice", Limits(object_bytes=100))
        for _ in range(5):
            ledger.add("me", 1, torch.zeros(20))
        ledger.remove(1)
        ledger.remove(1)

    def test_a_refused_object_is_not_entered(self):
        ledger = Ledger("alice", Limits(objects=1))
        ledger.add("me", 1, None)
        for _ in range(2):
            with pytest.raises(LimitExceeded):
                ledger.add("me", 2, None)
        ledger.remove(1)
        ledger.add("me", 2, None)

    def test_budget_before_it_begins(self):
        Budget("alice", 1).spend(3)


class TestComputeThread:
    def test_in_order_and_with_errors(self):
        compute = ComputeThread("alice", 60, 1)
        futures = [compute.submit(int, text) for text in ("1", "x", "3")]
        assert futures[0].result(DEADLINE) == 1
        with pytest.raises(ValueError):
            futures[1].result(DEADLINE)
        assert futures[2].result(DEADLINE) == 3
        compute.shutdown()

    def test_a_stuck_job_does_not_stop_the_next(self):
        compute, gate = ComputeThread("alice", 0.1, 2), threading.Event()
        stuck, following = compute.submit(gate.wait, DEADLINE), compute.submit(threading.current_thread)
        with pytest.raises(LimitExceeded):
            stuck.result(DEADLINE)
        assert following.result(DEADLINE).daemon
        gate.set()
        compute.shutdown()

    def test_end_waits_for_what_runs_but_not_for_ever(self):
        compute, gate = ComputeThread("alice", 60, 1), threading.Event()
        compute.submit(int).result(DEADLINE)
        compute.end(DEADLINE)
        assert compute.stuck == 0
        compute, begun = ComputeThread("alice", 60, 1), threading.Event()
        running = compute.submit(lambda: (begun.set(), gate.wait(DEADLINE)))
        assert begun.wait(DEADLINE)
        compute.end(0.05)
        assert compute.stuck == 1
        gate.set()
        running.result(DEADLINE)

    def test_shutdown_forgets_what_waits(self):
        compute, gate, begun = ComputeThread("alice", 60, 1), threading.Event(), threading.Event()
        running = compute.submit(lambda: (begun.set(), gate.wait(DEADLINE)))
        assert begun.wait(DEADLINE)
        waiting = compute.submit(int)
        compute.shutdown(wait=False, cancel_futures=True)
        assert waiting.cancelled()
        gate.set()
        assert running.result(DEADLINE) == (None, True)
