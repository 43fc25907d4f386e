"""What a worker grants: bounds of every kind, the owner's policy, and a named error to whoever
wants more."""

import argparse
import asyncio
import dataclasses
import socket
import threading

import pytest
import torch
from websockets.exceptions import ConnectionClosed

import syft as sy
from syft import options, wire
from syft.access.limits import Budget, Ledger, Limits, SamplePool, size_of
from syft.access.policy import Enforcer, Policy
from syft.exceptions import ConnectionFailed, LimitExceeded, NotPermitted, SyftError
from syft.workers import websocket_server
from syft.workers.compute import ComputeThread
from tests.models import Endless, blobs, classifier, make_config
from tests.network import DEADLINE, eventually, in_time, raw


class Methods:
    """A worker's owner offers a method that waits, and one that names a dataset."""

    gate = threading.Event()

    def wait_for_gate(self):
        return self.gate.wait(DEADLINE)

    def size(self, dataset_key):
        return len(self.datasets[dataset_key])


class Worker(Methods, sy.WebsocketServerWorker):
    pass


class Local(Methods, sy.VirtualWorker):
    pass


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.delenv("SYFT_TOKEN", raising=False)
    monkeypatch.setattr(Methods, "gate", threading.Event())
    servers = []

    def start(**options):
        server = Worker(None, "127.0.0.1", 0, id="alice", **options)
        server.add_dataset(blobs(), "blobs")
        server.add_dataset(blobs(), "secret")
        server.start(block=False)
        servers.append(server)
        return server

    yield start
    Methods.gate.set()
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


@pytest.fixture(params=["websocket", "virtual"])
def worker(request, serve, connect):
    """Make a proxy of a new worker: of one behind a socket, or a worker of this process."""

    def make(**options):
        if request.param == "websocket":
            return connect(serve(**options))
        local = Local(id="alice", **options)
        local.add_dataset(blobs(), "blobs")
        local.add_dataset(blobs(), "secret")
        return local

    return make


def send(proxy, obj=None):
    return sy.local_worker.send(torch.ones(10) if obj is None else obj, proxy)


# Limits


def test_a_call_has_an_hour():
    assert Limits().call_seconds == 3600


def test_limits_are_frozen_and_above_zero():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().connections = 3  # type: ignore[misc]
    for name, expected in (("connections", "at least 1"), ("call_seconds", "a number above 0")):
        with pytest.raises(ValueError, match=rf"^Limits: {name} is 0; expected {expected}\.$"):
            Limits(**{name: 0})


def test_a_connection_over_the_limit_is_refused_until_another_closes(serve, connect):
    server = serve(limits=Limits(connections=2))
    first, _ = connect(server), connect(server)
    with pytest.raises(LimitExceeded) as caught:
        connect(server)
    assert (caught.value.worker, caught.value.observed, caught.value.limit) == ("alice", 3, 2)
    assert str(caught.value) == (
        "worker 'alice' refused the request: the open connections (3) would exceed the limit "
        "of 2 (connections, set by the worker's owner)."
    )
    assert first.objects_count_remote() == 0
    first.close()
    connect(server)


def test_a_new_session_takes_the_place_of_one_that_is_not_connected(serve, connect):
    server = serve(limits=Limits(sessions=2))
    first, second = connect(server), connect(server)
    pointer = send(first)
    with pytest.raises(LimitExceeded) as caught:
        connect(server)
    assert caught.value.setting == "sessions"
    first.close()
    sessions = server._dispatcher.sessions
    assert eventually(lambda: not all(session.connected for session in sessions.values()))
    # The session that was not connected made room, and its objects went.
    third = connect(server)
    assert third.objects_count_remote() == second.objects_count_remote() == 0
    pointer.garbage_collect_data = False


def test_a_coordinator_that_leaves_while_it_is_greeted_makes_room(serve, connect):
    server = serve(token="", limits=Limits(sessions=1))
    with raw(server, session=None) as connection:
        greeting = wire.Request(0, "hello", {"session": "in a hurry"})
        with connection.protocol_mutex:  # both frames in one piece, so they arrive together
            connection.protocol.send_binary(wire.encode(greeting))
            connection.protocol.send_close(1000)
            connection.socket.sendall(b"".join(connection.protocol.data_to_send()))
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=DEADLINE)
    sessions = server._dispatcher.sessions
    assert eventually(lambda: not all(session.connected for session in sessions.values()))
    assert connect(server).objects_count_remote() == 0


def test_objects_over_a_coordinators_or_the_common_limit_are_refused(serve, connect):
    server = serve(limits=Limits(objects=3, all_objects=4), data=[torch.ones(1)])
    first, second = connect(server), connect(server)
    pointers = [send(first) for _ in range(3)]
    with pytest.raises(
        LimitExceeded, match=r"the objects of one coordinator \(4\) would exceed the limit of 3"
    ):
        send(first)
    pointers.append(send(second))
    with pytest.raises(
        LimitExceeded,
        match=r"the objects of all coordinators \(5\) would exceed the limit of 4",
    ):
        send(second)
    assert (first.objects_count_remote(), second.objects_count_remote()) == (3, 1)
    pointers.pop(0).get()
    pointers.append(send(second))


def test_bytes_over_a_coordinators_or_the_common_limit_are_refused(serve, connect):
    server = serve(limits=Limits(object_bytes=1000, all_object_bytes=1500))
    first, second = connect(server), connect(server)
    kept = send(first, torch.zeros(200))
    with pytest.raises(
        LimitExceeded,
        match=r"bytes of one coordinator's objects \(1,200\) would exceed the limit of 1,000",
    ):
        send(first, torch.zeros(100))
    with pytest.raises(
        LimitExceeded,
        match=r"bytes of all coordinators' objects \(1,600\) would exceed the limit of 1,500",
    ):
        send(second, torch.zeros(200))
    del kept


def test_objects_that_were_cleared_do_not_count(serve, connect):
    proxy = connect(serve(limits=Limits(objects=1)))
    kept = [send(proxy)]
    proxy.clear_objects_remote()
    kept.append(send(proxy))


def test_a_model_that_was_sent_without_waiting_fails_the_next_call_if_it_is_too_large(
    serve, connect
):
    server = serve(limits=Limits(object_bytes=10))
    proxy = connect(server)
    make_config().send(proxy)
    with pytest.raises(LimitExceeded, match="object_bytes"):
        proxy.fit("blobs")


async def test_each_coordinator_has_a_queue_of_its_own_that_is_bounded(serve, connect):
    server = serve(limits=Limits(queued_calls=2))
    proxy, other = connect(server), connect(server)

    def queued():
        return sum(session.queued for session in server._dispatcher.sessions.values())

    waiting = [asyncio.ensure_future(proxy.async_call("wait_for_gate")) for _ in range(2)]
    assert await asyncio.to_thread(eventually, lambda: queued() == 2)
    with pytest.raises(LimitExceeded, match="queued_calls"):
        await proxy.async_call("wait_for_gate")
    # Another's queue is another's.
    elsewhere = asyncio.ensure_future(other.async_call("wait_for_gate"))
    assert await asyncio.to_thread(eventually, lambda: queued() == 3)
    Methods.gate.set()
    assert await in_time(asyncio.gather(*waiting, elsewhere)) == [True] * 3
    assert await asyncio.to_thread(eventually, lambda: queued() == 0)


def test_a_fit_ends_with_its_time_and_the_next_one_has_its_own(worker):
    proxy = worker(limits=Limits(call_seconds=1))
    make_config(epochs=10**9).send(proxy)
    with pytest.raises(LimitExceeded) as caught:
        proxy.fit("blobs", timeout=DEADLINE)
    assert caught.value.setting == "call_seconds" and 1 < caught.value.observed < 10
    make_config(epochs=1).send(proxy)
    assert proxy.fit("blobs") is not None


def test_a_model_that_loops_for_ever_ends_with_its_time(serve, connect):
    server = serve(limits=Limits(call_seconds=0.3, stuck_calls=1))
    proxy = connect(server)
    make_config(model=torch.jit.script(Endless())).send(proxy)
    for name in ("fit", "evaluate"):
        with pytest.raises(LimitExceeded, match="call_seconds"):
            proxy.call(name, "blobs", timeout=DEADLINE)
    assert proxy.call("size", "blobs") == 20  # no thread was left running


def test_a_model_that_makes_too_much_is_ended_also_in_the_threads_of_an_evaluation(serve, connect):
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


def test_calls_that_never_end_are_left_alone_and_counted(serve, connect, monkeypatch):
    monkeypatch.setattr(websocket_server, "STUCK_SECONDS", 0.1)
    server = serve(limits=Limits(call_seconds=0.2, stuck_calls=1))
    proxy = connect(server)
    with pytest.raises(LimitExceeded, match="call_seconds"):
        proxy.call("wait_for_gate", timeout=DEADLINE)
    assert proxy.objects_count_remote() >= 0  # it answers
    with pytest.raises(LimitExceeded, match="stuck_calls"):
        proxy.call("size", "blobs", timeout=DEADLINE)


def test_a_connection_without_a_handshake_is_closed_in_time(serve):
    server = serve(limits=Limits(handshake_seconds=0.2))
    assert silent(server) == b""


def test_a_session_with_a_huge_name_is_refused(serve, connect, monkeypatch):
    server = serve()
    monkeypatch.setattr(
        "syft.workers.websocket_link.uuid.uuid4", lambda: type("", (), {"hex": "x" * 65})
    )
    with pytest.raises(ConnectionFailed):
        connect(server)


class Wasteful(torch.nn.Module):
    """Makes more than it needs."""

    def __init__(self):
        super().__init__()
        self.output = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(self.output(x) + torch.zeros(x.size(0), 5000).sum(), 1)


def silent(server):
    """Connect, say nothing, and return what comes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as raw:
        return raw.recv(100)


# The policy


def test_a_policy_permits_the_listed_datasets_only(worker):
    proxy = worker(policy=Policy(datasets=["blobs"]))
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


def test_a_policy_permits_the_listed_calls_only(worker):
    proxy = worker(policy=Policy(calls=["evaluate", "size"]))
    make_config().send(proxy)
    assert proxy.evaluate("blobs")["nr_predictions"] == 20
    assert proxy.call("size", "blobs") == 20
    with pytest.raises(NotPermitted, match="'fit'"):
        proxy.fit("blobs")


def test_a_policy_permits_models_of_the_listed_structures_only(serve, connect):
    sent = {"structure": ""}
    server = serve()
    proxy = connect(server)
    server._dispatcher.receiver._permit = lambda digest: sent.update(structure=digest)
    kept = send(proxy, sy.ObjectWrapper(classifier(), id=1))
    assert len(sent["structure"]) == 64
    strict = connect(serve(policy=Policy(models=[sent["structure"]])))
    # Other parameters, same structure.
    again = send(strict, sy.ObjectWrapper(classifier(seed=3), id=2))
    with pytest.raises(NotPermitted, match="models"):
        send(strict, sy.ObjectWrapper(classifier(dropout=0.3), id=3))
    with pytest.raises(NotPermitted, match="models"):  # as an argument, too
        strict.call("size", [{"a": (classifier(dropout=0.3),)}])
    send(strict, torch.ones(3))
    del kept, again


def test_a_policy_bounds_the_steps_of_a_fit(worker):
    proxy = worker(policy=Policy(max_steps_per_fit=3))
    make_config(max_nr_batches=3).send(proxy)
    proxy.fit("blobs")
    make_config().send(proxy)  # 20 samples in batches of 8
    proxy.fit("blobs")
    for config in (
        make_config(epochs=2),
        make_config(batch_size=4),
        make_config(batch_size=4, max_nr_batches=4),
    ):
        config.send(proxy)
        with pytest.raises(LimitExceeded, match="max_steps_per_fit"):
            proxy.fit("blobs")


def test_a_policy_bounds_the_fits_of_all_coordinators_together(serve, connect):
    server = serve(policy=Policy(max_fits=2))
    for _ in range(2):
        proxy = connect(server)
        make_config().send(proxy)
        proxy.fit("blobs")
    with pytest.raises(LimitExceeded, match=r"the fits in all \(3\) would exceed the limit of 2"):
        proxy.fit("blobs")
    assert proxy.evaluate("blobs")


def test_a_policy_bounds_the_samples_of_a_call(worker):
    proxy = worker(policy=Policy(max_samples_per_call=20, max_steps_per_fit=3))
    for settings in (
        {},
        {"batch_size": 10**9},
        {"batch_size": 10**9, "epochs": 2, "max_nr_batches": 1},
    ):
        make_config(**settings).send(proxy)
        proxy.fit("blobs")  # 20 samples, whatever their batches
        proxy.evaluate("blobs")
    for settings, planned in (
        ({"batch_size": 10**9, "epochs": 2}, 40),
        ({"batch_size": 15, "epochs": 2, "max_nr_batches": 3}, 35),
    ):
        make_config(**settings).send(proxy)
        with pytest.raises(LimitExceeded) as caught:
            proxy.fit("blobs")
        assert (caught.value.observed, caught.value.setting) == (
            planned,
            "max_samples_per_call",
        )
    strict = worker(policy=Policy(max_samples_per_call=19))
    make_config(max_nr_batches=2).send(strict)
    strict.fit("blobs")
    with pytest.raises(
        LimitExceeded, match=r"the samples of one call \(20\) would exceed the limit of 19"
    ):
        strict.evaluate("blobs")


def test_a_policy_bounds_the_samples_of_all_calls_together(serve, connect):
    server = serve(policy=Policy(max_samples=50))
    first, second = connect(server), connect(server)
    for proxy in (first, second):
        make_config().send(proxy)
    first.fit("blobs")
    second.evaluate("blobs")
    for ask in (first.fit, first.evaluate, second.fit):
        with pytest.raises(
            LimitExceeded, match=r"the samples of all calls \(60\) would exceed the limit of 50"
        ):
            ask("blobs")
    make_config(max_nr_batches=1).send(first)
    first.fit("blobs")  # there are ten left, and these are eight


def test_a_policy_bounds_the_samples_of_a_batch(worker):
    proxy = worker(policy=Policy(max_batch_size=8))
    make_config(batch_size=8).send(proxy)
    proxy.fit("blobs")
    proxy.evaluate("blobs")
    make_config(batch_size=10**9).send(proxy)
    for ask in (proxy.fit, proxy.evaluate):
        with pytest.raises(
            LimitExceeded, match=r"the samples of one batch \(20\) would exceed the limit of 8"
        ):
            ask("blobs")


def test_what_a_call_reads_is_counted_whatever_it_planned():
    budget = Budget("alice", 60, batch_size=8, samples_per_call=20, pool=SamplePool("alice", 18))
    budget.check_plan(samples=8, batch_size=8)
    for samples, setting in (
        (8, None),
        (9, "max_batch_size"),
        (8, None),
        (8, "max_samples_per_call"),
        (3, "max_samples"),
    ):
        if setting is None:
            budget.spend(samples)
            continue
        with pytest.raises(LimitExceeded) as caught:
            budget.spend(samples)
        assert caught.value.setting == setting
    assert budget.samples == 16


@pytest.mark.parametrize(
    "asked",
    [["blobs"], {"blobs": 1}, torch.ones(2), None, "x" * 10**6],
    ids=lambda x: str(x)[:9],
)
def test_a_key_that_is_no_name_is_not_permitted(asked):
    enforcer = Enforcer("alice", Policy(datasets=["blobs"]))
    with pytest.raises(NotPermitted) as caught:
        enforcer.check_call("fit", lambda dataset_key: None, [asked], {})
    assert len(str(caught.value)) < 400


def test_the_scripts_options_bound_samples_and_batches():
    parser = argparse.ArgumentParser()
    options.add_worker_options(parser)
    args = parser.parse_args(["--max_samples", "500", "--max_batch_size", "64"])
    policy = Policy(**options.worker_options(parser, args)["policy"])
    assert (policy.max_samples, policy.max_batch_size, policy.max_samples_per_call) == (
        500,
        64,
        None,
    )


def test_one_name_is_no_list_of_names():
    with pytest.raises(ValueError, match="expected several names"):
        Policy(datasets="blobs")


# Data stay


def test_no_request_returns_a_dataset_or_an_object_without_tags(serve, connect):
    server = serve(data=[torch.full((3,), 7.0)])
    marks = [blobs(seed=0).data[0, 0].item(), blobs(seed=0).data[-1, -1].item()]
    proxy = connect(server)
    answers = [
        proxy.list_objects_remote(),
        proxy.search([]),
        proxy.search("blobs"),
        proxy.search("secret"),
    ]
    for obj_id in ("blobs", "secret", "datasets", 0, 1):
        with pytest.raises(SyftError):
            proxy.request_obj(obj_id)
    for name in (
        "datasets",
        "add_dataset",
        "remove_dataset",
        "get_obj",
        "current_objects",
        "__dict__",
        "_objects",
    ):
        with pytest.raises(SyftError):
            proxy.call(name)
    assert not any(f"{mark:.4f}" in str(answers) for mark in marks)
    assert (proxy.objects_count_remote(), proxy.list_objects_remote()) == (0, "{}")


def test_a_worker_knows_these_commands_and_calls_and_no_others(serve):
    server = serve()
    commands = ["cancel", "delete", "get", "operate", "search", "set", "train_config"]
    assert sorted(server._dispatcher._commands) == commands
    assert server._dispatcher.callable_methods() == [
        *(
            "clear_objects",
            "evaluate",
            "fit",
            "list_objects",
            "objects_count",
            "privacy_spent",
            "size",
            "wait_for_gate",
        )
    ]


# Accounts


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
def test_the_size_of_an_object_is_that_of_its_tensors_and_texts(obj, size):
    assert size_of(obj) == size_of(sy.ObjectWrapper(obj, id=1)) == size


@pytest.mark.parametrize(
    ("tags", "description", "size"),
    [(["#abc"], None, 4), (["#a", "#é"], "four", 9), ((), "\ud800", 3)],
    ids=str,
)
def test_the_size_of_an_object_includes_its_tags_and_description(tags, description, size):
    tensor = torch.zeros(1)
    tensor.tags, tensor.description = tags, description
    assert size_of(tensor) == 4 + size
    assert size_of(sy.ObjectWrapper(b"1234", 1, tags, description)) == 4 + size


def test_buffers_count_whether_a_state_dict_has_them_or_not():
    model = torch.nn.Linear(1, 1)
    model.register_buffer("kept", torch.zeros(10))
    model.register_buffer("not_kept", torch.zeros(100), persistent=False)
    assert size_of(model) == size_of(torch.jit.script(model)) == 4 * (2 + 110)


def test_an_object_counts_for_as_long_as_it_is_in_memory():
    ledger = Ledger("alice", Limits(object_bytes=100))
    for _ in range(5):
        ledger.add("me", torch.zeros(20))  # nobody keeps it
    stored = sy.ObjectWrapper(torch.zeros(20), 1)
    elsewhere = {"kept": stored}
    ledger.add("me", stored)
    del stored
    with pytest.raises(LimitExceeded, match=r"\(160\) would exceed the limit of 100"):
        ledger.add("me", torch.zeros(20))
    ledger.add("you", elsewhere["kept"])
    elsewhere.clear()
    ledger.add("me", torch.zeros(25))
    assert ledger._counts.keys() <= {"me"}  # nothing is left of coordinators without objects


def test_a_refused_object_is_not_entered():
    ledger, first, second = Ledger("alice", Limits(objects=1)), torch.zeros(1), torch.zeros(1)
    ledger.add("me", first)
    for _ in range(2):
        with pytest.raises(LimitExceeded):
            ledger.add("me", second)
    del first
    ledger.add("me", second)


def test_a_budget_may_be_spent_before_it_begins():
    Budget("alice", 1).spend(3)


# The compute thread


def test_the_compute_thread_works_in_order_and_passes_errors_on():
    compute = ComputeThread("alice", 60, 1)
    futures = [compute.submit(int, text) for text in ("1", "x", "3")]
    assert futures[0].result(DEADLINE) == 1
    with pytest.raises(ValueError):
        futures[1].result(DEADLINE)
    assert futures[2].result(DEADLINE) == 3
    compute.shutdown()


def test_a_stuck_job_does_not_stop_the_next():
    compute, gate = ComputeThread("alice", 0.1, 2), threading.Event()
    stuck, following = (
        compute.submit(gate.wait, DEADLINE),
        compute.submit(threading.current_thread),
    )
    with pytest.raises(LimitExceeded):
        stuck.result(DEADLINE)
    assert following.result(DEADLINE).daemon
    gate.set()
    compute.shutdown()


def test_the_end_waits_for_the_job_that_runs_but_not_for_ever():
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


def test_a_shutdown_forgets_the_jobs_that_wait():
    compute, gate, begun = ComputeThread("alice", 60, 1), threading.Event(), threading.Event()
    running = compute.submit(lambda: (begun.set(), gate.wait(DEADLINE)))
    assert begun.wait(DEADLINE)
    waiting = compute.submit(int)
    compute.shutdown(wait=False, cancel_futures=True)
    assert waiting.cancelled()
    gate.set()
    assert running.result(DEADLINE) == (None, True)


# Rules about datasets


def check_call(policy, *args, **kwargs):
    def size(dataset_key, nr_bins=1):
        """A method as an owner offers it."""

    Enforcer("alice", policy).check_call("size", size, args, kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs"), [(("blobs",), {}), ((), {"dataset_key": "blobs"}), (("blobs", 3), {})]
)
def test_a_dataset_is_checked_however_it_is_passed(args, kwargs):
    check_call(Policy(datasets=["blobs"]), *args, **kwargs)
    with pytest.raises(NotPermitted):
        check_call(Policy(datasets=["others"]), *args, **kwargs)


def test_of_arguments_that_do_not_fit_only_a_named_dataset_counts():
    allowed = Policy(datasets=["blobs"])
    # The method itself refuses this one.
    check_call(allowed, dataset_key="blobs", no_such_argument=1)
    for args, kwargs in (
        (("blobs", 1, 2, 3), {}),
        (("blobs",), {"no_such_argument": 1}),
        ((), {"dataset_key": "secret", "no_such_argument": 1}),
        ((), {}),
    ):
        with pytest.raises(NotPermitted):
            check_call(allowed, *args, **kwargs)


def test_methods_without_a_dataset_are_left_alone():
    policy = Policy(datasets=["blobs"])
    Enforcer("alice", policy).check_call("total", lambda numbers: sum(numbers), ([1, 2],), {})
