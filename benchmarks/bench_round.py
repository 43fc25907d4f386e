"""Goal 2: a round, against the three fits alone in the same processes; where its time goes."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import torch

import run_websocket_client as rwc
import syft as sy
from benchmarks.harness import Report, Span, in_turn, ratio_row
from benchmarks.workers import TRAINERS, processes, proxies, recorder
from syft.frameworks.torch.fl import utils

LIMIT = 1.10


def run(smoke: bool = False) -> Report:
    """Measure it."""
    repeats, rounds = (1, 1) if smoke else (15, 3)
    ids = list(TRAINERS)
    with processes(ids) as ports, proxies(ids, ports) as workers:
        model = traced_model()
        asyncio.run(run_rounds(workers, model, 2))
        ours, alone = in_turn(
            lambda: asyncio.run(run_rounds(workers, model, rounds)),
            lambda: asyncio.run(_fits_alone(workers, model, rounds)),
            repeats,
        )
        spans = _recorded_round(workers, model)
    row = ratio_row(
        2, f"{rounds} rounds of ten batches on three workers", ours, alone, LIMIT, "the fits alone"
    )
    return Report([row], spans)


def traced_model() -> Any:
    """Return the tutorial's network, traced, with the tutorial's first weights."""
    torch.manual_seed(1)
    return torch.jit.trace(rwc.Net(), torch.zeros(1, 1, 28, 28))


async def run_rounds(workers: list[Any], model: Any, rounds: int = 1) -> Any:
    """Train on all workers, as the tutorial does, so many times; return the last average."""
    average = model
    for _ in range(rounds):
        fits = (rwc.fit_model_on_worker(worker, model, 32, 1, 10, 0.1) for worker in workers)
        average = utils.federated_avg(
            {name: trained for name, trained, _ in await asyncio.gather(*fits)}
        )
    return average


async def _fits_alone(workers: list[Any], model: Any, times: int) -> None:
    """Have every worker train `times` times over, all at once.

    Only one request and one reply per worker travel.
    """
    for worker in workers:
        config(model).send(worker)
    await asyncio.gather(*(worker.async_call("fit_alone", "mnist", times) for worker in workers))


def config(model: Any, batch_size: int = 32) -> sy.TrainConfig:
    """Return the tutorial's settings of one fit: ten batches of 32.

    It evaluates in batches of 128.
    """
    settings = {
        "batch_size": batch_size,
        "max_nr_batches": 10,
        "optimizer_args": {"lr": 0.1},
        "seed": 1,
    }
    return sy.TrainConfig(model, rwc.loss_fn, **settings)


def _recorded_round(workers: list[Any], model: Any) -> list[Span]:
    for worker in workers:
        worker.call("record")
    recorder.start("coordinator")
    asyncio.run(run_rounds(workers, model))
    spans = list(recorder.stop())
    for worker in workers:
        spans += [Span(*values) for values in worker.call("recorded")]
    end = max(span.end for span in spans if span.kind == "average")
    return [span for span in spans + _transfers(spans) if span.end <= end]


def _transfers(spans: list[Span]) -> list[Span]:
    """Return when a model was on its way: from the end of its encoding until its decoding.

    The spans are on the worker's row.
    """
    ways = []
    for encoded, decoded in itertools.permutations((span for span in spans if span.model), 2):
        if encoded.model == decoded.model and encoded.end <= decoded.start:
            worker = decoded.party if encoded.party == "coordinator" else encoded.party
            ways.append(Span(worker, "transfer", encoded.end, decoded.start))
    return ways
