"""Faults of real processes and networks: each ends by its deadline, and afterwards training goes on
by itself."""

import asyncio
import contextlib
import os
import signal
import time

import psutil
import pytest
import torch

import syft as sy
from syft.exceptions import CallTimeout, ConnectionLost, QuorumNotReached
from syft.federated import run_round
from syft.frameworks.torch.fl import utils
from syft.workers import websocket_settings
from tests.bad_network import Cable, tcp_proxy, why_no_cable
from tests.models import classifier, make_config, same
from tests.network import DEADLINE, in_time
from tests.processes import WorkerProcess, proxies_of, worker_processes

SOON = 1.0
"""Seconds of a round's deadline, far more than a round takes."""


@pytest.fixture(scope="module")
def processes():
    """Alice and Bob. A test that harms one leaves it as it found it."""
    with worker_processes("alice", "bob") as workers:
        yield workers


async def fit(worker, model=None, dataset="blobs", **settings):
    """Do what the tutorial's fit_model_on_worker does."""
    config = make_config(classifier() if model is None else model, **settings)
    config.send(worker)
    loss = await worker.async_fit(dataset)
    return worker.id, (await config.model_ptr.async_get()).obj, loss


async def fit_alone(worker, model=None, **settings):
    """Return the model that a coordinator gets whose first fit on the worker it is."""
    with proxies_of(worker) as (proxy,):
        return (await in_time(fit(proxy, model, **settings)))[1]


async def endless(worker):
    return await fit(worker, epochs=10**9)


def endless_on(name):
    """Return a fit that never ends on one worker."""
    return lambda worker: endless(worker) if worker.id == name else fit(worker)


async def one_round(proxies, fit=fit, **settings):
    return await in_time(run_round(proxies, fit, **settings))


async def rounds_until(proxies, everybody_back, limit=DEADLINE):
    """Run rounds until a condition on their results holds; return the rounds."""
    results, deadline = [], time.monotonic() + limit
    while time.monotonic() < deadline:
        results.append(await one_round(proxies, timeout=SOON))
        if everybody_back(results[-1]):
            return results
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within {limit} s: {results[-1]}")


def all_of(proxies):
    return lambda result: list(result.models) == [proxy.id for proxy in proxies]


async def after_it_has_begun(worker, harm):
    """Harm a worker as soon as it trains: it has got its config, and begins its fit."""
    await asyncio.sleep(0.3)
    harm()


async def test_a_worker_that_is_killed_takes_part_again_after_its_restart(processes):
    """kill -9 in the middle of a fit, without a deadline; the others' models count, and it comes
    back."""
    alice, bob = processes
    with proxies_of(alice, bob) as proxies:
        harm = asyncio.ensure_future(after_it_has_begun(bob, bob.kill))
        result = await one_round(proxies, endless_on("bob"))
        await harm
        assert list(result.models) == ["alice"]
        assert result.failures["bob"].startswith("connection lost: ")
        without = await one_round(proxies)
        assert list(without.models) == ["alice"]
        assert without.failures["bob"].startswith("connection lost: not reached in ")
        bob.start()
        await rounds_until(proxies, all_of(proxies))


async def test_too_few_are_an_error_that_says_so(processes):
    alice, bob = processes
    with proxies_of(alice, bob, connect_timeout=1.0) as proxies:
        bob.kill()
        with pytest.raises(
            QuorumNotReached, match=r"^received 1 model; .* bob: connection lost: not reached in "
        ):
            await one_round(proxies, min_workers=2)
        bob.start()
        await rounds_until(proxies, all_of(proxies))


async def test_a_worker_that_is_stopped_takes_part_again_when_it_continues(processes):
    """SIGSTOP costs one deadline, not one a round; after SIGCONT, nothing late gets into a
    round."""
    alice, bob = processes
    with proxies_of(alice, bob) as proxies:
        bob.signal(signal.SIGSTOP)
        try:
            result = await one_round(proxies, timeout=SOON)
            assert result.failures == {"bob": "timeout after 1 s"}
            started = time.monotonic()
            for _ in range(3):
                result = await one_round(proxies, timeout=DEADLINE)
                assert list(result.models) == ["alice"]
                assert "with no answer to a ping" in result.failures["bob"]
            assert time.monotonic() - started < DEADLINE / 2
        finally:
            bob.signal(signal.SIGCONT)
        await rounds_until(proxies, all_of(proxies))
        assert same((await fit(proxies[1], seed=8))[1], await fit_alone(bob, seed=8))


async def test_stopped_while_a_model_is_on_its_way_without_a_deadline(processes, monkeypatch):
    """The model is larger than all buffers; the keepalive ends the call."""
    monkeypatch.setattr(websocket_settings, "PING_INTERVAL", 0.5)
    alice, bob = processes
    with proxies_of(alice, bob) as proxies:
        large = torch.jit.trace(torch.nn.Linear(4, 3_000_000), torch.zeros(1, 4))
        bob.signal(signal.SIGSTOP)
        try:
            result = await one_round(
                proxies, lambda worker: fit(worker, large if worker.id == "bob" else None)
            )
            assert result.failures == {"bob": "connection lost: no sign of life within 1 s"}
        finally:
            bob.signal(signal.SIGCONT)
        await rounds_until(proxies, all_of(proxies))


async def test_a_fit_that_timed_out_leaves_the_worker_free(processes):
    with proxies_of(*processes) as proxies:
        result = await one_round(proxies, endless_on("bob"), timeout=SOON)
        assert result.failures == {"bob": "timeout after 1 s"}
        assert proxies[1].call("process", timeout=DEADLINE) == processes[1].pid


async def test_a_coordinator_that_is_gone_leaves_the_worker_free(processes):
    """Its proxy closes the connection in the middle of a fit; another coordinator does not wait."""
    with proxies_of(processes[0]) as (leaving,), proxies_of(processes[0]) as (staying,):
        task = asyncio.ensure_future(endless(leaving))
        await after_it_has_begun(processes[0], leaving.close)
        with pytest.raises(ConnectionLost):
            await in_time(task)
        assert staying.call("process", timeout=DEADLINE) == processes[0].pid


@pytest.mark.parametrize("direction", ["cut_after", "cut_reply_after"])
async def test_the_connection_is_cut_in_the_middle_of_a_message(processes, direction):
    alice, bob = processes
    model = torch.jit.trace(torch.nn.Linear(4, 100_000), torch.zeros(1, 4))
    with proxies_of(alice) as (near,), tcp_proxy(bob.port) as network:
        far = bob.proxy(network.port)
        setattr(network, direction, 1_000_000)
        result = await one_round([near, far], lambda worker: fit(worker, model))
        assert result.failures["bob"].startswith("connection lost: ")
        assert list(result.models) == ["alice"]
        again = await one_round(
            [near, far], lambda worker: fit(worker, model, seed=8), timeout=DEADLINE, min_workers=2
        )
        assert same(again.models["bob"], await fit_alone(bob, model, seed=8))
        far.close()


async def test_two_coordinators_do_not_disturb_each_other(processes):
    """Each gets, to the bit, what it gets alone."""

    async def train(proxies, seed):
        model = classifier(seed)
        for number in range(10):
            result = await one_round(
                proxies, lambda w, m=model, s=10 * seed + number: fit(w, m, seed=s), min_workers=2
            )
            model = utils.federated_avg(result.models)
        return model

    with proxies_of(*processes) as first, proxies_of(*processes) as second:
        alone = [await train(first, 1), await train(second, 2)]
        together = await asyncio.gather(train(first, 1), train(second, 2))
        for one, other in zip(alone, together, strict=True):
            assert same(one, other)


async def test_another_coordinators_fault_is_not_felt(processes):
    """One coordinator's call times out and another one's connection is cut, while a third one
    trains."""
    alice = processes[0]
    with (
        proxies_of(alice) as (good,),
        proxies_of(alice) as (bad,),
        tcp_proxy(alice.port) as network,
    ):
        cut = alice.proxy(network.port)
        network.cut_after = 100_000
        expected = [await fit_alone(alice, seed=seed) for seed in (1, 2)]
        model = torch.jit.trace(torch.nn.Linear(4, 100_000), torch.zeros(1, 4))
        config = make_config(epochs=10**9)
        config.send(bad)
        faults = [
            asyncio.ensure_future(bad.async_fit("blobs", timeout=0.5)),
            asyncio.ensure_future(fit(cut, model)),
        ]
        assert same((await in_time(fit(good, seed=1)))[1], expected[0])
        errors = await in_time(asyncio.gather(*faults, return_exceptions=True))
        assert [type(error) for error in errors] == [CallTimeout, ConnectionLost]
        assert same((await in_time(fit(good, seed=2)))[1], expected[1])
        cut.close()


async def test_rounds_leave_memory_threads_and_files_where_they_were(processes):
    """In the coordinator and in the worker, after a warm-up."""
    with proxies_of(processes[0]) as proxies:
        watched = [psutil.Process(), psutil.Process(processes[0].pid)]
        objects = proxies[0].objects_count_remote()

        async def rounds(count):
            model = classifier()
            for _ in range(count):
                model = utils.federated_avg(
                    (await one_round(proxies, lambda w, m=model: fit(w, m))).models
                )

        await rounds(60)
        before = [measure(process) for process in watched]
        await rounds(300)
        after = [measure(process) for process in watched]
        # asyncio's threads for short work; there are so many once all were needed
        pool = (os.cpu_count() or 1) + 4
        for (memory, threads, files), (memory_after, threads_after, files_after) in zip(
            before, after, strict=True
        ):
            assert memory_after - memory < 8 * 2**20
            assert threads_after <= threads + pool
            assert files_after == files
        assert proxies[0].objects_count_remote() <= objects


def measure(process):
    """Return a process's resident memory in bytes, and its numbers of threads and of open files."""
    return process.memory_info().rss, process.num_threads(), process.num_fds()


@pytest.fixture(scope="module")
def cable():
    reason = why_no_cable()
    if reason:
        pytest.skip(reason)
    cable = Cable()
    yield cable
    cable.end()


@pytest.fixture(scope="module")
def far(cable):
    """A worker at the other end of the cable."""
    worker = WorkerProcess("far", Cable.THERE, namespace=cable.namespace)
    yield worker
    worker.end()


async def test_a_network_that_delays_and_loses_packets(processes, cable, far):
    """100 ms of delay and 5 % loss, each way: slow, and the same result as on a good network."""
    with proxies_of(processes[0], far) as proxies, proxies_of(processes[0], far) as undisturbed:
        expected = [(await one_round(undisturbed, min_workers=2)).models for _ in range(5)]
        cable.delay, cable.loss = 0.1, 0.05
        try:
            for models in expected:
                result = await one_round(proxies, timeout=DEADLINE, min_workers=2)
                assert all(same(result.models[name], models[name]) for name in models)
        finally:
            cable.delay, cable.loss = 0.0, 0.0
        assert cable.lost > 0


async def test_a_cable_that_is_pulled_and_plugged_in_again(processes, cable, far):
    """Nothing tells the coordinator; the deadline ends the round, and training goes on with the
    other worker."""
    with proxies_of(processes[0], far) as proxies:
        cable.plugged = False
        try:
            assert (await one_round(proxies, timeout=SOON)).failures == {"far": "timeout after 1 s"}
            result = await one_round(proxies, timeout=DEADLINE)
            assert list(result.models) == ["alice"]
            assert result.seconds < SOON
        finally:
            cable.plugged = True
        await rounds_until(proxies, all_of(proxies))


async def test_a_cable_that_is_pulled_for_good(processes, cable, far, monkeypatch):
    """Without a deadline, the keepalive ends the call; afterwards it is tried to connect again."""
    monkeypatch.setattr(websocket_settings, "PING_INTERVAL", 0.5)
    with proxies_of(processes[0], far, connect_timeout=1.0) as proxies:
        cable.plugged = False
        try:
            result = await one_round(proxies)
            assert result.failures == {"far": "connection lost: no sign of life within 1 s"}
            with contextlib.suppress(QuorumNotReached):
                await one_round(proxies, min_workers=2)
            assert proxies[1].connection_attempts > 0
        finally:
            cable.plugged = True
        await rounds_until(proxies, all_of(proxies))


def test_a_worker_far_away_is_a_worker(far):
    with proxies_of(far) as (proxy,):
        assert isinstance(proxy, sy.WebsocketClientWorker)
        assert proxy.call("process") == far.pid
