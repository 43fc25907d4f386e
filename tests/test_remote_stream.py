"""Operations on their way to a worker behind a socket: in order, each once, and no waiting."""

import asyncio
import contextlib
import logging
import os
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import syft as sy
from syft import wire
from syft.access import privacy
from syft.access.limits import Limits
from syft.access.policy import Policy
from syft.exceptions import (
    CallTimeout,
    ConnectionFailed,
    InvalidReply,
    ObjectNotFoundError,
    OperationsLost,
    RemoteOperationFailed,
    RemoteOperationsOff,
)
from syft.remote import stream
from syft.workers import websocket_settings
from tests.bad_network import tcp_proxy
from tests.network import DEADLINE, Server, eventually, false_worker, proxy_at, proxy_of, serving

NO_OPERATIONS = {
    "stream": 1,
    "number": 0,
    "operations": [],
    "values": [],
    "geometries": [],
    "answer": True,
}


@pytest.fixture
def server():
    with serving(Server("bob", remote_operations=True)) as server:
        yield server


@pytest.fixture
def bob(server):
    with proxy_of(server) as proxy:
        sy.TorchHook(torch)
        yield proxy


@pytest.fixture
def replies(server, monkeypatch):
    """The commands that the server has carried out, each with the size of its reply."""
    done = []
    run = server._dispatcher.run

    def counted(job):
        frame = run(job)
        done.append((job.call.partition("(")[0], len(frame)))
        return frame

    monkeypatch.setattr(server._dispatcher, "run", counted)
    return done


def losses_of(steps, bob):
    """Train a small model at a worker; return the losses, there, and the model."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data, target = torch.randn(6, 4).send(bob), torch.tensor([0, 1, 1, 0, 1, 0]).send(bob)
    model.send(bob)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        losses.append(nn.functional.cross_entropy(model(data), target))
        losses[-1].backward()
        optimizer.step()
    return losses, model


def test_training_steps_wait_for_no_reply(bob, replies):
    losses, _ = losses_of(10, bob)
    bob.objects_count_remote()
    answered = [size for name, size in replies if name == "operate" and size]
    sent = sum(name == "operate" for name, _ in replies)
    # Each eighth message is confirmed, and nobody waits for that; the last one settles.
    assert sent > 5
    assert len(answered) <= 2 + sent // stream.CONFIRMED_EVERY
    assert losses[-1].get() < losses[0].get()


def test_operations_of_a_step_travel_together(bob, replies):
    x = torch.ones(3).send(bob)
    for _ in range(100):
        x = x + 1
    assert x.get().tolist() == [101.0] * 3
    assert sum(name == "operate" for name, _ in replies) <= 2 + 101 // stream.BATCH


def test_the_worker_holds_no_more_after_many_steps_than_after_the_first(bob, server):
    losses, _model = losses_of(1, bob)
    first = bob.objects_count_remote()
    parameters = list(_model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    data, target = torch.randn(6, 4).send(bob), torch.tensor([0, 1, 1, 0, 1, 0]).send(bob)
    for _ in range(50):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(_model(data), target)
        loss.backward()
        optimizer.step()
    # The data, the target and the last loss of the second loop have come in addition.
    assert bob.objects_count_remote() == first + 3
    executor = next(iter(server._dispatcher.sessions.values())).executor
    del loss, losses
    bob.objects_count_remote()
    assert executor._graph._bytes == 0


def test_what_is_posted_is_carried_out_though_nobody_asks(bob, server):
    x = torch.ones(3).send(bob)
    y = x + 1
    session = next(iter(server._dispatcher.sessions.values()))
    assert eventually(lambda: session.objects.own_obj(y.id_at_location) is not None)


def test_what_nothing_points_to_is_deleted_though_nobody_asks(bob, server):
    x = torch.ones(3).send(bob)
    session = next(iter(server._dispatcher.sessions.values()))
    assert eventually(lambda: session.objects.objects_count() == 1)
    del x
    assert eventually(lambda: session.objects.objects_count() == 0)


@pytest.mark.parametrize("limit", ["cut_after", "cut_reply_after"])
def test_training_goes_on_over_a_new_connection(server, limit):
    sy.TorchHook(torch)
    with proxy_of(server) as bob:
        torch.manual_seed(1)
        expected = [loss.get() for loss in losses_of(8, bob)[0]]
    with tcp_proxy(server.port) as network, proxy_at("127.0.0.1", network.port, id="bob") as bob:
        torch.manual_seed(1)
        setattr(network, limit, 4000 if limit == "cut_after" else 400)
        losses, model = losses_of(8, bob)
        assert [loss.get() for loss in losses] == expected
        assert getattr(network, limit) is None  # the connection was cut
        model.get()


def test_an_operation_in_place_is_carried_out_once_however_often_it_is_sent(server):
    sy.TorchHook(torch)
    with tcp_proxy(server.port) as network, proxy_at("127.0.0.1", network.port, id="bob") as bob:
        x = torch.zeros(2).send(bob)
        bob.objects_count_remote()
        for number in range(1, 6):
            network.cut_reply_after = 1
            x += 1
            assert x.copy().get().tolist() == [number] * 2


def test_a_worker_that_was_restarted_has_lost_its_tensors_and_says_so(server):
    sy.TorchHook(torch)
    with proxy_of(server) as bob:
        x = torch.ones(2).send(bob)
        bob.objects_count_remote()
        server.stop()
        with serving(Server("bob", port=server.port, remote_operations=True)):
            with pytest.raises(OperationsLost, match="was restarted, or has forgotten"):
                (x + 1).get()
            with pytest.raises(ObjectNotFoundError):
                x.get()
            assert (torch.ones(2).send(bob) + 1).get().tolist() == [2, 2]


def test_a_worker_that_is_gone_is_told_within_the_deadline(server):
    sy.TorchHook(torch)
    with proxy_of(server, connect_timeout=0.2) as bob:
        x = torch.ones(2).send(bob)
        bob.objects_count_remote()
        server.stop()
        with pytest.raises(ConnectionFailed):
            (x + 1).get()
        with pytest.raises(ConnectionFailed):
            for _ in range(stream.BATCH * (stream.WINDOW + 2)):
                x = x + 1


def test_waiting_for_a_value_ends_with_the_time(server, bob):
    bob.timeout = 0.3
    x = torch.ones(2).send(bob)
    with pytest.MonkeyPatch.context() as patch:
        gate = threading.Event()
        run = server._dispatcher.run
        patch.setattr(
            server._dispatcher, "run", lambda job: (gate.wait(DEADLINE) and run(job)) or b""
        )
        with pytest.raises(CallTimeout, match="operate"):
            x.get()
        gate.set()
    bob.timeout = DEADLINE
    assert x.get().tolist() == [1, 1]


def test_an_error_names_the_line_that_posted_the_operation(bob):
    x = torch.ones(2, 2).send(bob)
    singular = torch.zeros(2, 2).send(bob)
    wrong = torch.linalg.inv(singular)  # this line
    later = wrong @ x
    with pytest.raises(RemoteOperationFailed) as failed:
        later.get()
    source = Path(__file__).read_text().splitlines()
    line = next(number for number, text in enumerate(source, 1) if text.endswith("  # this line"))
    assert failed.value.line == f"{__file__}:{line}"
    assert "singular" in str(failed.value) and f"posted at {__file__}:{line}" in str(failed.value)


def test_other_calls_find_what_was_posted_before(bob):
    x = torch.ones(2).tag("#x").send(bob)
    y = x + 1
    assert bob.objects_count_remote() == 2
    assert [found.id_at_location for found in bob.search("#x")] == [x.id_at_location]
    del y
    assert bob.objects_count_remote() == 1


async def test_async_calls_find_what_was_posted_before(bob):
    x = torch.ones(2).send(bob)
    y = x + 1
    assert await bob.async_call("objects_count") == 2
    assert (await y.async_get()).tolist() == [2, 2]


async def test_two_workers_compute_at_the_same_time(bob):
    with serving(Server("jim", remote_operations=True)) as other, proxy_of(other) as jim:
        x, y = torch.ones(2).send(bob), torch.ones(2).send(jim)
        values = await asyncio.gather((x + 1).async_get(), (y + 2).async_get())
        assert [value.tolist() for value in values] == [[2, 2], [3, 3]]


def test_close_waits_for_what_was_posted(server, bob):
    x = torch.zeros(2).send(bob)
    for _ in range(5):
        x += 1
    bob.close()
    session = next(iter(server._dispatcher.sessions.values()))
    assert session.objects.own_obj(x.id_at_location).tolist() == [5, 5]
    assert x.get().tolist() == [5, 5]


def test_a_program_may_change_its_tensor_once_it_is_sent(bob):
    small, large = torch.zeros(3), torch.zeros(stream.LARGE)
    pointers = [small.send(bob), large.send(bob)]
    small += 1
    large += 1
    assert [pointer.get().sum() for pointer in pointers] == [0, 0]


def test_a_program_may_change_its_indices_once_they_are_used(bob):
    x, index = torch.arange(4).send(bob), torch.tensor([0, 1])
    chosen = x[index]
    index += 2
    assert chosen.get().tolist() == [0, 1]


def test_a_tensor_that_is_too_large_is_refused_and_no_other_is_lost(server):
    sy.TorchHook(torch)
    with proxy_of(server, max_message_bytes=2 * stream.LARGE) as bob:
        x = torch.ones(2).send(bob) + 1
        with pytest.raises(sy.exceptions.MessageTooLarge):
            torch.zeros(stream.LARGE).send(bob)
        assert (x + 1).get().tolist() == [3, 3]


def test_a_tensor_that_cannot_travel_is_refused_and_no_other_is_lost(bob):
    x = torch.ones(2).send(bob) + 1
    with pytest.raises(sy.exceptions.NotSerializable):
        torch.ones(2).to_sparse().send(bob)
    with pytest.raises(sy.exceptions.NotSerializable):
        torch.ones(2, dtype=torch.complex128).send(bob)
    assert (x + 1).get().tolist() == [3, 3]


def test_operations_wait_for_a_place_in_the_queue_rather_than_be_refused():
    sy.TorchHook(torch)
    server = Server("bob", remote_operations=True, limits=Limits(queued_calls=1))
    with serving(server), proxy_of(server) as bob:
        x = torch.zeros(2).send(bob)
        for _ in range(10 * stream.BATCH):
            x = x + 1
        assert x.get().tolist() == [10 * stream.BATCH] * 2


def test_a_worker_with_datasets_runs_no_operations_unless_its_owner_says_so():
    sy.TorchHook(torch)
    with serving(Server("alice")) as server, proxy_of(server) as alice:
        x = torch.ones(2, requires_grad=True).tag("#x").send(alice)
        with pytest.raises(RemoteOperationsOff, match=r"has not allowed it \(remote_operations=Tr"):
            x + 1
        with pytest.raises(RemoteOperationsOff):
            nn.Linear(2, 1).send(alice)(x)
        assert alice.search("#x")[0].shape == (2,)
        fetched = x.get()
        assert fetched.tolist() == [1, 1] and fetched.requires_grad
        assert alice.objects_count_remote() == 0
        # Whatever a proxy believes: the worker refuses it itself.
        with pytest.raises(RemoteOperationsOff):
            alice._exchange("operate", **NO_OPERATIONS)


@pytest.mark.parametrize("rule", ["models", "privacy"])
def test_a_policy_that_operations_would_get_around_rules_them_out(monkeypatch, rule):
    monkeypatch.setattr(privacy, "epsilon_of", lambda history, delta: 0.0)
    budget = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "epsilon": 1.0, "delta": 1e-5}
    policy = Policy(**{rule: budget if rule == "privacy" else ["digest"]})
    with pytest.raises(ValueError) as refused:
        sy.WebsocketServerWorker(None, "localhost", 0, "a", policy=policy, remote_operations=True)
    assert str(refused.value) == (
        f"remote_operations is True for worker 'a', whose policy has {rule}: operations compute "
        "with what they reach, whatever the policy says; expected one or the other. Leave "
        "remote_operations out."
    )
    empty = sy.WebsocketServerWorker(None, "localhost", 0, "alice", policy=policy)
    with serving(empty) as server, proxy_of(server) as alice:
        sy.TorchHook(torch)
        x = torch.ones(2).send(alice)
        with pytest.raises(RemoteOperationsOff, match="or its policy has models or privacy"):
            x + 1
        # Whatever a proxy believes, or the attribute says later.
        server.remote_operations = True
        with pytest.raises(RemoteOperationsOff):
            alice._exchange("operate", **NO_OPERATIONS)
    guarded = sy.VirtualWorker(id="bob", auto_add=False, policy=policy)
    with pytest.raises(RemoteOperationsOff):
        (torch.ones(2).send(guarded) + 1).get()


def test_a_worker_that_gets_a_dataset_runs_no_more_operations():
    sy.TorchHook(torch)
    server = sy.WebsocketServerWorker(None, "127.0.0.1", 0, id="bob", token="")
    with serving(server), proxy_of(server) as bob:
        x = torch.ones(2).send(bob)
        assert (x + 1).get().tolist() == [2, 2]
        server.add_dataset(sy.BaseDataset(torch.ones(2), torch.ones(2)), "mine")
        with pytest.raises(RemoteOperationsOff):
            (x + 1).get()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_remote_tensors_of_its_own(bob):
    x = torch.ones(2).send(bob)
    bob.objects_count_remote()
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            try:
                x + 1
            except RuntimeError as error:
                if "forked" in str(error) and (torch.ones(2).send(bob) + 1).get().sum() == 4:
                    code = 0
        os._exit(code)
    deadline = time.monotonic() + DEADLINE
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ended == (child, 0)
    assert (x + 1).get().tolist() == [2, 2]
    assert bob.objects_count_remote() == 1


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [{"obj": torch.ones(2), "grad": None}] * 2,
        [{"obj": torch.ones(3), "grad": None}],
        [{"obj": torch.ones(2, dtype=torch.float64), "grad": None}],
        [{"obj": torch.ones(2), "grad": torch.ones(3)}],
        [{"obj": "text", "grad": None}],
        [{"obj": torch.ones(2)}],
        [torch.ones(2)],
    ],
    ids=repr,
)
def test_a_worker_that_lies_about_values_is_told_apart(value):
    def answer(connection):
        hello = {"id": "bob", "max_message_bytes": 10**6, "torch": "2", "remote_operations": True}
        connection.recv()
        connection.send(wire.encode(wire.Reply(0, hello)))
        for frame in connection:
            request = wire.decode(frame)
            if request.arguments["answer"]:
                result = {"values": value, "geometries": []}
                connection.send(wire.encode(wire.Reply(request.id, result)))

    sy.TorchHook(torch)
    with false_worker(answer) as port, proxy_at("127.0.0.1", port, id="bob") as bob:
        x = torch.ones(2).send(bob)
        with pytest.raises(InvalidReply):
            x.get()
        x.garbage_collect_data = False


def test_another_version_of_torch_at_the_worker_is_named(caplog):
    def answer(connection):
        hello = {"id": "bob", "max_message_bytes": 10**6, "remote_operations": True}
        connection.recv()
        connection.send(wire.encode(wire.Reply(0, hello | {"torch": "1.4.0\x1b[31m"})))
        for _ in connection:
            pass

    caplog.set_level(logging.WARNING)
    with false_worker(answer) as port, proxy_at("127.0.0.1", port, id="bob"):
        pass
    assert "worker bob runs torch 1.4.0\\x1b[31m, this process " in caplog.text


def test_messages_that_are_not_confirmed_are_few(bob, monkeypatch):
    monkeypatch.setattr(websocket_settings, "PING_INTERVAL", 5)
    x = torch.zeros(2).send(bob)
    stream_of = bob._stream()
    most = 0
    for _ in range(2 * stream.BATCH * stream.WINDOW):
        x = x + 1
        most = max(most, len(stream_of._messages))
    assert x.get().tolist() == [2 * stream.BATCH * stream.WINDOW] * 2
    assert most <= stream.WINDOW + 1


def test_what_a_coordinator_held_is_free_again_when_its_session_ends(server, bob):
    """Also if the session ends in the middle of a message."""
    session = next(iter(server._dispatcher.sessions.values()))
    entered, go_on = threading.Event(), threading.Event()
    x = torch.ones(1000).send(bob)
    kept = [x + number for number in range(10)]
    assert kept[-1].copy().get().sum() == 10_000
    ledger = server._dispatcher.guard._ledger
    assert ledger._all > 10
    carry_out = session.executor._carry_out

    def slow(*args):
        carry_out(*args)
        entered.set()
        assert go_on.wait(DEADLINE)

    session.executor._carry_out = slow
    more = kept[0] + 1
    bob._stream().flush()
    assert entered.wait(DEADLINE)
    server._dispatcher.end_session(session)
    go_on.set()
    # What was sent is struck out when the next object comes.
    assert eventually(lambda: ledger._all == len(ledger._gone) == 1)
    assert ledger._all_bytes == ledger._gone[0][1]
    for pointer in (x, more, *kept):
        pointer.garbage_collect_data = False
