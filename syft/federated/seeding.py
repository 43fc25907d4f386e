"""Seeds of trainings, and the one generator that torch has for a whole process.

What a fit draws is a function of three things, hashed together so that neighbouring numbers give
unrelated seeds:

    seed of the TrainConfig     what the user chose
    id of the worker            or workers with the same seed would draw the same order of samples
    number of the fit           or a config that is fitted in every round would train on the same
                                batches for ever

Both ends count the fits, and the proxy sends its count with each config (syft/fits.py), so a
restarted worker goes on as if nothing had happened.

The order of the samples has a generator of its own. Random layers such as dropout do not: they draw
from the generator of the process, so a seeded training sets that one and restores it afterwards.

That generator also belongs to the program around us, which draws the seeds of its next configs from
it. With virtual workers both live in one process, and several trainings may overlap:

    first training begins   the program's state is saved in `_kept`
    while any trains        the program's seeds are drawn from `_kept`, random layers draw from
                            torch's generator
    last training ends      the state in `_kept` goes back into torch's generator

So a program that called torch.manual_seed while nothing trained draws the same seeds, whatever
trains beside it. What overlapping trainings draw in their random layers depends on which comes
first; nothing here changes that.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch


class FitSeeds(NamedTuple):
    """The seeds of one fit.

    Attributes:
        shuffling: seed of the order of the samples.
        layers: seed of random layers.
    """

    shuffling: int
    layers: int


running_fit: ContextVar[FitSeeds | None] = ContextVar("running_fit", default=None)
"""The seeds of the fit that runs in the current context."""


def fit_seeds(seed: int, worker: str, number: int) -> FitSeeds:
    """Return the seeds of one fit, each in [0, 2**64).

    They are the same on every machine and in every version of Python.

    Args:
        seed: seed of the TrainConfig.
        worker: the worker's id.
        number: number of the fit under this seed, from 0 on.
    """

    def derived(stream: str) -> int:
        # Hashed, so that neighbouring seeds, numbers and ids have nothing to do with each other.
        text = f"{stream} {seed} {number} {worker}".encode(errors="surrogatepass")
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")

    return FitSeeds(derived("shuffling"), derived("layers"))


# torch has one generator a device for the whole process, and dropout draws from it. A training that
# seeds it would change what the program draws next. So the program's state is set aside when the
# first training begins, and put back when the last one has ended. What is drawn for the program
# meanwhile (draw_seed) comes from the copy. Trainings at the same time share the generator: that is
# the exception which TrainConfig names.


class _Kept:
    """The state of the program's generators, saved while trainings use torch's."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all trainings: none continues in the child of a fork."""
        self.lock = threading.Lock()
        self.trainings = 0
        self.cpu = torch.Generator()
        self.cuda: list[torch.Tensor] = []


_kept = _Kept()
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_kept.reset)


def draw_seed() -> int:
    """Return a seed from the program's generator, in [0, 2**62)."""
    with _kept.lock:
        generator = _kept.cpu if _kept.trainings else torch.default_generator
        return int(torch.randint(2**62, (), generator=generator).item())


def program_state() -> torch.Tensor:
    """Return the state of the program's generator on the CPU, (n,) uint8."""
    with _kept.lock:
        return _kept.cpu.get_state() if _kept.trainings else torch.get_rng_state()


def set_program_state(state: torch.Tensor) -> None:
    """Give the program's generator on the CPU a state."""
    with _kept.lock:
        _kept.cpu.set_state(state) if _kept.trainings else torch.set_rng_state(state)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seed torch's generators, so that random layers are reproducible.

    They are restored when no training uses them any more.

    Args:
        seed: None: leave them alone.
    """
    if seed is None:
        yield
        return
    with _kept.lock:
        if not _kept.trainings:
            _kept.cpu.set_state(torch.get_rng_state())
            _kept.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        _kept.trainings += 1
    try:
        torch.manual_seed(seed)
        yield
    finally:
        with _kept.lock:
            _kept.trainings -= 1
            if not _kept.trainings:
                torch.set_rng_state(_kept.cpu.get_state())
                if _kept.cuda:  # pragma: no cover - a GPU is needed
                    torch.cuda.set_rng_state_all(_kept.cuda)
