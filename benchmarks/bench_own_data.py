"""Goal 9: rounds on five workers of the example with a table, with the launcher's settings or none.

The workers are started as users start them, by `python -m syft.worker`, once without any settings
and once with those that the launcher of the tutorial gives its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import start_websocket_servers as launcher
import syft as sy
from benchmarks.harness import Report, free_ports, ratio_row
from benchmarks.workers import proxies
from syft.federated import run_round
from syft.frameworks.torch.fl import utils

LIMIT = 1.3
REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLE = REPOSITORY / "examples" / "own_data"
NAMES = ("athens", "berlin", "cairo", "delhi", "essen")
CONNECT_SECONDS = 300.0


def run(smoke: bool = False) -> Report:
    """Measure it."""
    names, rounds = (NAMES[:2], 1) if smoke else (NAMES, 10)
    ours, theirs = [], []
    for turn in range(1 if smoke else 3):
        # In turn: which of the two is first alternates.
        order = [(ours, {}, ()), (theirs, launcher.ENVIRONMENT, ("--threads", "1"))]
        for seconds, environment, words in order if turn % 2 else order[::-1]:
            with _workers(names, environment, words) as workers:
                seconds.append(asyncio.run(_seconds_a_round(workers, rounds)))
    what = f"a round on {len(names)} workers started without settings"
    return Report([ratio_row(9, what, ours, theirs, LIMIT, "with the launcher's")])


@contextlib.contextmanager
def _workers(
    names: tuple[str, ...], settings: dict[str, str], words: tuple[str, ...]
) -> Iterator[list[Any]]:
    environment = {key: value for key, value in os.environ.items() if key not in ALL_SETTINGS}
    environment |= {"PYTHONPATH": str(REPOSITORY)} | settings
    ports = free_ports(len(names))
    command = [sys.executable, "-m", "syft.worker", "--key", "patients", *words]
    started = [
        subprocess.Popen(
            [*command, "--id", name, "--port", str(port), "--dataset", "hospital:load", name],
            cwd=EXAMPLE,
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        for name, port in zip(names, ports, strict=True)
    ]
    try:
        with proxies(
            list(names), ports, connect=False, connect_timeout=CONNECT_SECONDS
        ) as connected:
            yield connected
    finally:
        for worker in started:
            worker.terminate()
        for worker in started:
            worker.wait()


ALL_SETTINGS = {*launcher.ENVIRONMENT, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "SYFT_TOKEN"}


async def _seconds_a_round(workers: list[Any], rounds: int) -> float:
    """Return the mean seconds of a round, the first included."""
    await asyncio.gather(*(worker.async_connect() for worker in workers))
    torch.manual_seed(1)
    model: nn.Module = nn.Sequential(
        nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 1), nn.Flatten(start_dim=0)
    )

    async def fit(worker: Any) -> Any:
        config = sy.TrainConfig(model, _loss, optimizer="Adam", optimizer_args={"lr": 0.005})
        config.send(worker)
        loss = await worker.async_fit("patients")
        return worker.id, (await config.model_ptr.async_get()).obj, loss

    start = time.perf_counter()
    for _ in range(rounds):
        result = await run_round(workers, fit, min_workers=len(workers))
        model = utils.federated_avg(result.models)
    return (time.perf_counter() - start) / rounds


def _loss(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(pred, target)
