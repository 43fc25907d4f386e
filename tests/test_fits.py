"""Many fits: which samples each one draws, and how both ends count them."""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import syft as sy
from syft.dispatch import Job
from syft.exceptions import DatasetNotFound, NotPermitted, TrainConfigMissing
from syft.fits import FitCounter
from syft.policy import Policy
from tests.models import FEATURES, classifier, make_config
from tests.network import Server, eventually, in_time, proxy_of, serving, wait_until_held

SAMPLES = 100


class Samples:
    """Samples that note in which order they are read."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.read.append(index)
        return torch.zeros(FEATURES), 0

    def take(self) -> list[int]:
        """Return what was read since the last time."""
        read, self.read = self.read, []
        return read


class Worker(Server):
    """Offers a method of its owner's that fits twice."""

    def fit_twice(self) -> None:
        for _ in range(2):
            self.fit("samples")


def one_sample(**settings: Any) -> sy.TrainConfig:
    """Return a config that reads one sample a fit, and changes nothing."""
    return make_config(
        **{"batch_size": 1, "max_nr_batches": 1, "optimizer_args": {"lr": 0.0}, **settings}
    )


def virtual(worker_id: str = "alice") -> tuple[sy.VirtualWorker, Samples]:
    worker, samples = sy.VirtualWorker(id=worker_id, auto_add=False), Samples()
    worker.add_dataset(samples, key="samples")
    return worker, samples


@contextlib.contextmanager
def remote(**settings: Any) -> Iterator[tuple[sy.WebsocketClientWorker, Samples, Worker]]:
    worker, samples = Worker(**settings), Samples()
    worker.add_dataset(samples, key="samples")
    with serving(worker), proxy_of(worker) as proxy:
        yield proxy, samples, worker


def picks(worker: Any, samples: Samples, fits: int) -> list[int]:
    """Return what so many fits of the config sent last read."""
    for _ in range(fits):
        worker.call("fit", dataset_key="samples")
    return samples.take()


def expected_picks(fits: int, seed: int = 7) -> list[int]:
    """Return what the first fits under a seed read."""
    worker, samples = virtual()
    one_sample(seed=seed).send(worker)
    return picks(worker, samples, fits)


# What is drawn


def test_a_second_fit_trains_on_other_batches():
    found = expected_picks(12)
    assert len(found) == 12 and len(set(found)) > 8
    with remote() as (proxy, samples, _):
        one_sample().send(proxy)
        assert picks(proxy, samples, 12) == found


def test_many_fits_read_all_samples_about_as_often():
    worker, samples = virtual()
    worker.set_obj(sy.ObjectWrapper(classifier(), "model"))
    worker.set_obj(sy.ObjectWrapper(torch.nn.functional.nll_loss, "loss"))
    settings = {"batch_size": 1, "max_nr_batches": 1, "optimizer_args": {"lr": 0.0}, "seed": 7}
    worker.set_obj(sy.TrainConfig(None, None, model_id="model", loss_fn_id="loss", **settings))
    fits = 1000
    for _ in range(fits):
        worker.fit("samples")
    counts, mean = Counter(samples.take()), fits / SAMPLES
    assert counts.keys() == set(range(SAMPLES))
    chi_square = sum((count - mean) ** 2 / mean for count in counts.values())
    assert 40 < chi_square < 180  # 99 degrees of freedom: mean 99, standard deviation 14


def test_each_epoch_reads_every_sample_once_in_an_order_of_its_own():
    worker, samples = virtual()
    make_config(epochs=3, batch_size=7).send(worker)
    for _ in range(2):
        worker.call("fit", dataset_key="samples")
    read = samples.take()
    orders = [tuple(read[start : start + SAMPLES]) for start in range(0, 6 * SAMPLES, SAMPLES)]
    assert all(sorted(order) == list(range(SAMPLES)) for order in orders)
    assert len(set(orders)) == 6 and len(read) == 6 * SAMPLES


def test_two_workers_draw_different_batches_of_one_config():
    config, orders = make_config(), []
    for worker_id in ("alice", "bob"):
        worker, samples = virtual(worker_id)
        config.send(worker)
        worker.call("fit", dataset_key="samples")
        orders.append(samples.take())
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])


@pytest.mark.parametrize("call", ["call", "async_fit", "fit"])
def test_rounds_whose_configs_have_the_same_seed_draw_different_batches(call):
    worker, samples = virtual()
    found = []
    for _ in range(12):
        torch.manual_seed(1)
        one_sample(seed=None).send(worker)
        if call == "async_fit":
            asyncio.run(worker.async_fit("samples"))
        else:
            worker.call("fit", dataset_key="samples") if call == "call" else worker.fit("samples")
        found += samples.take()
        one_sample(seed=0, batch_size=50).send(worker)  # only fits count
        worker.call("evaluate", dataset_key="samples")
        samples.take()
    torch.manual_seed(1)
    assert found == expected_picks(12, seed=sy.TrainConfig(None, None).seed)


def test_another_seed_starts_anew():
    worker, samples = virtual()
    for seed in (7, 8, 7):
        one_sample(seed=seed).send(worker)
        assert picks(worker, samples, 3) == expected_picks(3, seed)


def test_a_config_that_is_set_locally_counts_its_own_fits():
    worker, samples = virtual()
    sent = one_sample().send(worker)
    found = picks(worker, samples, 2)
    for seed in (8, 7, 7):
        config = sy.TrainConfig(
            None, None, model_id=sent._model_id, loss_fn_id=sent._loss_fn_id, seed=seed
        )
        config.batch_size, config.max_nr_batches = 1, 1
        worker.set_obj(config)
        worker.fit("samples")
        worker.fit("samples")
    assert found + samples.take() == expected_picks(2) + expected_picks(2, 8) + expected_picks(4)


def test_a_loader_outside_a_fit_is_shuffled_anew_each_time():
    worker, samples = virtual()
    make_config().send(worker)
    loaders = [worker._create_data_loader("samples", shuffle=True) for _ in range(2)]
    orders = []
    for loader in loaders:
        list(loader)
        orders.append(samples.take())
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]) == list(range(SAMPLES))


# The same again


@pytest.mark.parametrize("lost_after", [1, 2])
def test_a_worker_that_was_restarted_goes_on_where_it_was(lost_after):
    def run(restart: bool) -> torch.Tensor:
        model = classifier(dropout=0.5)
        with contextlib.ExitStack() as stack:
            worker = stack.enter_context(serving(Server()))
            proxy = stack.enter_context(proxy_of(worker))
            for number in range(4):
                if restart and number == lost_after:
                    worker.stop()
                    stack.enter_context(serving(Server(port=worker.port)))
                config = make_config(model, batch_size=3).send(proxy)
                proxy.fit("blobs")
                model = config.get_model().obj
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    whole, interrupted = run(restart=False), run(restart=True)
    assert torch.equal(whole, interrupted)


# Both ends count alike


@pytest.mark.parametrize("again", [True, False], ids=["sent-again", "sent-once"])
def test_a_fit_that_fails_counts(again):
    worker, samples = virtual()
    with remote() as (proxy, remote_samples, _):
        for each, read in ((worker, samples), (proxy, remote_samples)):
            one_sample().send(each)
            with pytest.raises(DatasetNotFound):
                each.call("fit", dataset_key="nothing")
            if again:
                one_sample().send(each)
            assert picks(each, read, 2) == expected_picks(3)[1:]


@pytest.mark.parametrize("again", [True, False], ids=["sent-again", "sent-once"])
def test_a_fit_that_is_not_permitted_counts(again):
    with remote(policy=Policy(datasets=["samples"])) as (proxy, samples, _):
        one_sample().send(proxy)
        with pytest.raises(NotPermitted):
            proxy.fit("blobs")
        if again:
            one_sample().send(proxy)
        assert picks(proxy, samples, 2) == expected_picks(3)[1:]


@pytest.mark.parametrize("again", [True, False], ids=["sent-again", "sent-once"])
async def test_a_fit_that_is_given_up_in_the_queue_counts(again):
    with remote() as (proxy, samples, worker):
        one_sample().send(proxy)
        held = asyncio.ensure_future(proxy.async_call("hold"))
        await asyncio.to_thread(wait_until_held, worker)
        fit = asyncio.ensure_future(proxy.async_fit("samples"))
        (session,) = worker._dispatcher.sessions.values()

        def queued() -> list[Job]:
            return [job for job in session.calls.values() if job.call.startswith("fit")]

        assert await asyncio.to_thread(eventually, lambda: len(queued()) == 1)
        fit.cancel()
        assert await asyncio.to_thread(
            eventually, lambda: all(job.abandoned.is_set() for job in queued())
        )
        worker.release.set()
        await in_time(held)
        if again:
            one_sample().send(proxy)
        assert picks(proxy, samples, 2) == expected_picks(3)[1:]


def test_a_fit_without_a_config_counts_for_none():
    with remote() as (proxy, samples, _):
        with pytest.raises(TrainConfigMissing):
            proxy.fit("samples")
        one_sample().send(proxy)
        assert picks(proxy, samples, 2) == expected_picks(2)


def test_fits_of_the_owners_methods_draw_other_batches_too():
    with remote() as (proxy, samples, _):
        for _ in range(3):
            one_sample().send(proxy)
            proxy.call("fit_twice")
        assert samples.take() == expected_picks(6)


def test_each_coordinator_counts_its_own():
    with remote() as (proxy, samples, worker), proxy_of(worker) as other:
        one_sample().send(proxy)
        assert picks(proxy, samples, 2) == expected_picks(2)
        one_sample().send(other)
        assert picks(other, samples, 2) == expected_picks(2)
        assert picks(proxy, samples, 1) == expected_picks(3)[2:]


def test_the_count_goes_on_from_what_the_other_end_had_counted():
    counter = FitCounter()
    assert [counter.next(7) for _ in range(3)] == [0, 1, 2]
    assert (counter.so_far(7), counter.so_far(8)) == (3, 0)
    assert [counter.next(7, at_least=5), counter.next(7, at_least=5)] == [5, 6]
    assert [counter.next(8), counter.next(7)] == [0, 0]


def test_no_two_threads_get_the_same_number():
    counter, numbers = FitCounter(), []

    def count() -> None:
        for _ in range(500):
            numbers.append(counter.next(7))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(8 * 500))
