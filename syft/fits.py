"""Numbers of fits: how many fits one coordinator has asked of one worker under one seed.

    coordinator                          worker
    train_config(seed 7, fits=0)  ---->  starts at 0
    fit                           ---->  fit 0 under seed 7
    fit                           ---->  fit 1
                                         (is started again, and has forgotten everything)
    train_config(seed 7, fits=2)  ---->  starts at 2
    fit                           ---->  fit 2

Both ends count, each fit when it is asked for, so one that fails or is abandoned counts as well.
The coordinator sends its number with each config. A fit under another seed starts the count anew;
configs that are never fitted, those of evaluations for example, do not. syft/federated/seeding.py
derives the seeds of a fit from its number.
"""

from __future__ import annotations

import os
import threading

_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    # No thread of the parent holds it in the child.
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


class FitCounter:
    """Counts the fits of one coordinator on one worker, at either end.

    It may be used from several threads.
    """

    def __init__(self) -> None:
        self._seed: int | None = None
        self._fits = 0

    def so_far(self, seed: int | None) -> int:
        """Return how many fits there were under this seed; 0 if the last one was under another."""
        with _lock:
            return self._so_far(seed)

    def next(self, seed: int | None, at_least: int = 0) -> int:
        """Count a fit under this seed, and return its number.

        Args:
            seed: the seed of the fit's config.
            at_least: the number that the other end had counted to when it sent the config.
        """
        with _lock:
            number = max(self._so_far(seed), at_least)
            self._seed, self._fits = seed, number + 1
            return number

    def _so_far(self, seed: int | None) -> int:
        return self._fits if seed == self._seed else 0
