"""Goal 8: training by operations on remote tensors, against the same steps of local torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

import syft as sy
from benchmarks.harness import Report, Row, in_turn, ratio_row, timed
from benchmarks.plain_loop import Net
from benchmarks.workers import processes, proxies
from tutorial.traffic import counting

LIMIT_RATIO, LIMIT_SENT, LIMIT_PROCESSOR, LIMIT_GROWTH = 1.5, 60, 2, 10
IDS = ["worker", "other"]
BATCH = 32
SMALL_STEPS = 10
"""Steps that the worker may be behind without anybody waiting for it."""
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.01),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
    "Adam": lambda parameters: torch.optim.Adam(parameters),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters),
}


def run(smoke: bool = False) -> Report:
    """Measure it."""
    sy.TorchHook(torch)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as a worker has
    try:
        with processes(IDS) as ports, proxies(IDS, ports) as (worker, other):
            return Report(
                [
                    *_speed(worker, *((5, 2) if smoke else (100, 15))),
                    _sent_and_fetched(worker, 2 if smoke else 15),
                    *_waits(worker, other),
                    *_left_behind(worker, 20 if smoke else 1000),
                    *_differences(worker),
                ]
            )
    finally:
        torch.set_num_threads(threads)


def _speed(worker: Any, steps: int, repeats: int) -> list[Row]:
    """Return how long steps take beside local ones, and how long this process computes for one."""
    data, target = _batch()
    pointers = data.send(worker), target.send(worker)
    there, here = Net().send(worker), Net()
    optimizers = [OPTIMIZERS["SGD"](model.parameters()) for model in (there, here)]
    processor: list[float] = []

    def remote() -> None:
        start = time.process_time()
        for _ in range(steps):
            loss = _step(there, optimizers[0], *pointers)
        loss.get()
        processor.append(1000 * (time.process_time() - start) / steps)

    def local() -> None:
        for _ in range(steps):
            _step(here, optimizers[1], data, target)

    remote()  # shapes are inferred once
    processor.clear()
    ours, plain = in_turn(remote, local, repeats)
    what = f"{steps} steps of SGD on a batch of {BATCH} that is at the worker"
    return [
        ratio_row(8, what, ours, plain, LIMIT_RATIO, "local torch"),
        Row(8, "processor time of the coordinator", processor, "ms", LIMIT_PROCESSOR, "a step"),
    ]


def _sent_and_fetched(worker: Any, repeats: int) -> Row:
    data, target = (tensor.send(worker) for tensor in _batch())

    def once() -> None:
        model = Net().send(worker)
        optimizer = OPTIMIZERS["SGD"](model.parameters())
        _step(model, optimizer, data, target)
        model.get()

    once()
    values = [1000 * timed(once)[0] for _ in range(repeats)]
    note = "gradients come back, too; PySyft 0.2.4: 3,661 ms"
    return Row(8, "model sent, one step, model fetched", values, "ms", LIMIT_SENT, note)


def _waits(worker: Any, other: Any) -> list[Row]:
    """Return how often somebody waits in training steps, and in an epoch of a loader."""
    data, target = (tensor.send(worker) for tensor in _batch())
    model = Net().send(worker)
    optimizer = OPTIMIZERS["SGD"](model.parameters())
    _settle(worker)
    with counting() as steps:
        for _ in range(SMALL_STEPS):
            _step(model, optimizer, data, target)
        _settle(worker)
    samples = sy.BaseDataset(torch.rand(640, 4), torch.zeros(640))
    loader = sy.FederatedDataLoader(samples.federate((worker, other)), batch_size=64, shuffle=True)
    _settle(worker, other)
    with counting() as epoch:
        batches = list(loader)
        _settle(worker, other)
    rows = []
    for what, traffic, number in (("step", steps, SMALL_STEPS), ("batch", epoch, len(batches))):
        waits = sum(each.waited_for for each in traffic.sent if each.command == "operate")
        note = (
            f"{traffic.operations / number:.0f} operations in {len(traffic.sent) / number:.1f} "
            f"messages, {traffic.bytes / number:,.0f} bytes; PySyft 0.2.4: "
            f"{'114 round trips' if what == 'step' else '258 messages'}"
        )
        rows.append(Row(8, f"round trips a {what}", [waits / number], "", 0, note))
    return rows


def _left_behind(worker: Any, steps: int) -> list[Row]:
    """Return what many steps leave on the worker, beside the first one."""
    data, target = (tensor.send(worker) for tensor in _batch())
    model = Net().send(worker)
    optimizer = OPTIMIZERS["SGD"](model.parameters())
    objects, memory = [], []
    for number in range(1, steps + 1):
        _step(model, optimizer, data, target)
        if number in (1, max(steps // 10, 1), steps):
            objects.append(worker.objects_count_remote())
            memory.append(worker.call("reset_peak_memory") / 1e6)
    more, growth = [objects[-1] - objects[0]], [memory[-1] - memory[1]]
    note = f"{objects[0]} after the first step"
    return [
        Row(8, f"objects on the worker after {steps:,} steps: how many more", more, "", 0, note),
        Row(
            8, f"memory of the worker from step {max(steps // 10, 1):,} to {steps:,}: growth",
            growth, "MB", LIMIT_GROWTH, f"{memory[-1]:,.0f} MB in all",
        ),
    ]  # fmt: skip


def _differences(worker: Any) -> list[Row]:
    """Return by how much parameters differ from those of local training, for each optimizer."""
    rows = []
    data, target = _batch()
    pointers = data.send(worker), target.send(worker)
    for name, make in OPTIMIZERS.items():
        here = Net()
        there = here.copy().send(worker)
        for model, batch in ((here, (data, target)), (there, pointers)):
            optimizer = make(model.parameters())
            for _ in range(10):
                _step(model, optimizer, *batch)
        pairs = zip(here.parameters(), there.get().parameters(), strict=True)
        largest = max((a - b).abs().max().item() for a, b in pairs)
        rows.append(
            Row(8, f"ten steps of {name}: largest difference of a parameter", [largest], "", 0)
        )
    return rows


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(BATCH, 1, 28, 28, generator=generator)
    return images, torch.randint(0, 10, (BATCH,), generator=generator)


def _step(model: Any, optimizer: torch.optim.Optimizer, data: Any, target: Any) -> Any:
    optimizer.zero_grad()
    loss = F.nll_loss(model(data), target)
    loss.backward()
    optimizer.step()
    return loss


def _settle(*workers: Any) -> None:
    """Wait until all that was posted is done."""
    for worker in workers:
        worker.objects_count_remote()
