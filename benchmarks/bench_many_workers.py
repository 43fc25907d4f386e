"""Goal 6: what a coordinator spends on each of many workers, and the memory averaging needs."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

import syft as sy
from benchmarks.harness import Report, Row
from benchmarks.workers import peak_memory, processes, proxies, reset_peak_memory
from syft.dispatch import Dispatcher
from syft.frameworks.torch.fl import utils

LIMIT_MILLISECONDS, LIMIT_MODELS = 5.0, 4.0


def run(smoke: bool = False) -> Report:
    """Measure it."""
    counts, rounds = ((2, 4), 1) if smoke else ((16, 32, 64), 5)
    rows = [_virtual(count, rounds) for count in counts]
    rows.append(_growth(rows[0], rows[-1], counts[-1] / counts[0]))
    rows.append(_processes(2 if smoke else 16, rounds))
    rows.append(_memory(4 if smoke else 64, 1_000 if smoke else 2_000_000))
    return Report(rows)


def _virtual(count: int, rounds: int) -> Row:
    """Virtual workers: what they do themselves, in this process too, is not counted."""
    workers: list[Any] = [
        sy.VirtualWorker(id=f"w{index}", auto_add=False) for index in range(count)
    ]
    for worker in workers:
        worker.add_dataset(_samples(), key="data")
    with _not_counting_workers() as theirs:
        milliseconds = asyncio.run(_milliseconds_a_worker(workers, rounds, theirs))
    return Row(
        6,
        f"{count} virtual workers: coordinator",
        milliseconds,
        "ms",
        LIMIT_MILLISECONDS,
        _each(count),
    )


def _growth(few: Row, many: Row, factor: float) -> Row:
    growth = many.median / few.median
    return Row(
        6,
        f"the same, {factor:g} times as many workers: growth",
        [growth],
        "x",
        1.5,
        "linear: 1 x a worker",
    )


def _processes(count: int, rounds: int) -> Row:
    """Worker processes: what counts is the processor time of this process alone."""
    ids = [f"w{index}" for index in range(count)]
    with processes(ids) as ports, proxies(ids, ports) as workers:
        for worker in workers:
            worker.call("hold_samples", _samples().data, _samples().targets)
        milliseconds = asyncio.run(_milliseconds_a_worker(workers, rounds))
    return Row(
        6,
        f"{count} worker processes: coordinator",
        milliseconds,
        "ms",
        LIMIT_MILLISECONDS,
        _each(count),
    )


def _memory(count: int, parameters: int) -> Row:
    """Averaging: the memory beyond that of the models, in models."""
    models = {index: _model(parameters) for index in range(count)}
    utils.federated_avg({0: models[0]})
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not be there for it
    before = reset_peak_memory()
    utils.federated_avg(models)
    used = (peak_memory() - before) / (4 * parameters)
    note = f"of {parameters / 1e6:g} million parameters each"
    return Row(
        6, f"averaging {count} models: memory it needs", [used], "models", LIMIT_MODELS, note
    )


def _model(parameters: int) -> nn.Module:
    return nn.Sequential(*(nn.Linear(parameters // 8, 1, bias=False) for _ in range(8)))


@contextlib.contextmanager
def _not_counting_workers() -> Iterator[list[float]]:
    """Note the processor seconds that virtual workers spend on requests."""
    spent: list[float] = []
    originals = {name: getattr(Dispatcher, name) for name in ("decode", "run")}

    def noted(original: Callable[..., Any]) -> Callable[..., Any]:
        def function(*args: Any) -> Any:
            start = time.thread_time()
            try:
                return original(*args)
            finally:
                spent.append(time.thread_time() - start)

        return function

    try:
        for name, original in originals.items():
            setattr(Dispatcher, name, noted(original))
        yield spent
    finally:
        for name, original in originals.items():
            setattr(Dispatcher, name, original)


async def _milliseconds_a_worker(
    workers: list[Any], rounds: int, theirs: Sequence[float] = ()
) -> list[float]:
    """Return the processor time of a round for each worker, less the seconds in `theirs`."""
    model = torch.jit.script(
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.LogSoftmax(dim=1))
    )
    loss_fn = torch.jit.script(_nll)
    model = await _round(workers, model, loss_fn)
    milliseconds = []
    for _ in range(rounds):
        start = time.process_time() - sum(theirs)
        model = await _round(workers, model, loss_fn)
        milliseconds.append(1000 * (time.process_time() - sum(theirs) - start) / len(workers))
    return milliseconds


async def _round(workers: list[Any], model: Any, loss_fn: Any) -> Any:
    async def fit(worker: Any) -> Any:
        config = sy.TrainConfig(model, loss_fn, batch_size=4, max_nr_batches=1, seed=1)
        config.send(worker)
        await worker.async_fit("data")
        return (await config.model_ptr.async_get()).obj

    return utils.federated_avg(await asyncio.gather(*(fit(worker) for worker in workers)))


def _nll(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return nn.functional.nll_loss(pred, target)


def _samples() -> sy.BaseDataset:
    return sy.BaseDataset(torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64))


def _each(count: int) -> str:
    return f"a worker a round; {count} workers"
