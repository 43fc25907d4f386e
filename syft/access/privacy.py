"""Differential privacy as the owner of a worker's data grants it, and the account kept of it.

A worker with a `DifferentialPrivacy` in its policy trains by DP-SGD, whatever the coordinator asks
for (syft/federated/private_training.py). What a fit costs depends on numbers alone: how much noise,
which share of the samples each step draws, and how many steps. So it is known before the fit, and
entered in the account then:

    fit asked for --> cost computed --> too much? PrivacyBudgetSpent
                                    --> written to the file, synced --> training --> reply

A fit that fails or is abandoned half-way stays charged: some of its steps may have been seen. The
account is the worker's, not a coordinator's: many configs, sessions or coordinators share it, and
so does the worker that is started again with the same file.

The arithmetic is Opacus's, by Renyi differential privacy (Mironov, 2017; Mironov et al., 2019): an
upper bound on epsilon for the sampled Gaussian mechanism, where two data sets are neighbours if one
has a sample more than the other.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

from syft.exceptions import PrivacyAccountDamaged, PrivacyBudgetSpent
from syft.files import write_whole

if sys.platform != "win32":  # where there are no such locks
    import fcntl

FORMAT = 1
ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(11, 64)) + [2**x for x in range(6, 13)]
"""Orders of Renyi divergence that are tried; the best of them gives epsilon."""


@dataclass(frozen=True)
class DifferentialPrivacy:
    """How much fits may tell of any one sample of a worker's data.

    Attributes:
        noise_multiplier: standard deviation of the noise that is added to the sum of a step's
            gradients, in units of `max_grad_norm`.
        max_grad_norm: norm to which each sample's gradient is clipped.
        epsilon: what all fits together may cost.
        delta: the other half of the guarantee, for all fits together; well below 1 / samples.
        account: file that keeps what was spent over restarts, or a folder in which each worker has
            a file of its own. None: it is forgotten when the worker ends, so whoever can have it
            started again gets the budget anew.

    Raises:
        ValueError: a number is not above 0 and finite, or delta is not below 1.
    """

    noise_multiplier: float
    max_grad_norm: float
    epsilon: float
    delta: float
    account: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        for name in (each.name for each in fields(self) if each.name != "account"):
            value, most = getattr(self, name), 1 if name == "delta" else math.inf
            if not (isinstance(value, (int, float)) and 0 < value < most):
                expected = "a number above 0" + (" and below 1" if name == "delta" else "")
                raise ValueError(
                    f"DifferentialPrivacy: {name} is {value!r:.60}; expected {expected}."
                )


class PrivacySpent(TypedDict):
    """Where a worker's privacy budget stands, as coordinators are told.

    Keys:
        spent: epsilon of all fits so far.
        epsilon: what all fits together may cost.
        delta: the other half of the guarantee.
    """

    spent: float
    epsilon: float
    delta: float


class PrivacyAccount:
    """What a worker's fits have cost. Safe to use from several threads.

    Args:
        worker: the worker's id, for errors.
        privacy: what may be spent, and where it is kept.

    Attributes:
        spent: epsilon of all fits so far, at the delta of `privacy`.

    Raises:
        ModuleNotFoundError: Opacus is not installed.
        PrivacyAccountDamaged: the file is there, and cannot be read.
    """

    def __init__(self, worker: str, privacy: DifferentialPrivacy) -> None:
        self.privacy = privacy
        self._worker = worker
        self._lock = threading.Lock()
        self._path = None if privacy.account is None else Path(privacy.account).absolute()
        if self._path is not None and self._path.is_dir():
            name = "".join(char if char.isalnum() else f"-{ord(char):x}-" for char in worker)
            self._path /= f"{name}.privacy.json"
        self._history = [] if self._path is None else _read(self._path)
        self.spent = epsilon_of(self._history, privacy.delta)

    def told(self) -> PrivacySpent:
        """Return where the budget stands."""
        numbers = self.spent, self.privacy.epsilon, self.privacy.delta
        spent, epsilon, delta = map(float, numbers)
        return PrivacySpent(spent=spent, epsilon=epsilon, delta=delta)

    def charge(self, sample_rate: float, steps: int) -> None:
        """Enter a fit, before it begins.

        Args:
            sample_rate: probability with which each sample is drawn for a step.
            steps: number of steps.

        Raises:
            PrivacyBudgetSpent: it would cost more than is left. Nothing is entered then.
            PrivacyAccountDamaged: somebody else has changed the file. Nothing is entered then.
            OSError: the file cannot be written. Nothing is entered then.
        """
        if not steps:
            return
        entry = (float(self.privacy.noise_multiplier), float(sample_rate), int(steps))
        with self._lock:
            history = _added(self._history, entry)
            after = epsilon_of(history, self.privacy.delta)
            if not after <= self.privacy.epsilon:
                raise PrivacyBudgetSpent(
                    self._worker, self.spent, after, self.privacy.epsilon, self.privacy.delta
                )
            if self._path is not None:
                self._write(self._path, history)
            self._history, self.spent = history, after

    def _write(self, path: Path, history: list[tuple[float, float, int]]) -> None:
        with _locked(path):
            if _read(path) != self._history:
                raise PrivacyAccountDamaged(str(path), "it has changed since this worker wrote it")
            content = {"format": FORMAT, "worker": self._worker, "history": history}
            write_whole(path, (json.dumps(content) + "\n").encode())


def epsilon_of(history: Sequence[tuple[float, float, int]], delta: float) -> float:
    """Return the epsilon of all steps of a history; 0 if there are none, infinite if too large.

    Args:
        history: noise multiplier, sample rate and number of steps of each kind of step.
        delta: delta of the guarantee.

    Raises:
        ModuleNotFoundError: Opacus is not installed.
    """
    try:
        from opacus.accountants import RDPAccountant
    except ModuleNotFoundError as reason:
        if (reason.name or "").partition(".")[0] != "opacus":
            raise
        raise ModuleNotFoundError(
            "Policy(privacy=...) needs a package that is not here. Install it: pip install opacus",
            name="opacus",
        ) from None
    accountant = RDPAccountant()
    # Older versions of numpy take no integers of more than 64 bits.
    accountant.history = [(noise, rate, float(steps)) for noise, rate, steps in history]
    with warnings.catch_warnings():
        # That the best of the orders is the first or the last: the bound holds all the same.
        warnings.simplefilter("ignore")
        epsilon = float(accountant.get_epsilon(delta, alphas=ORDERS))
    # Below zero where delta alone grants more than the steps tell.
    return math.inf if math.isnan(epsilon) else max(0.0, epsilon)


def _added(
    history: Sequence[tuple[float, float, int]], entry: tuple[float, float, int]
) -> list[tuple[float, float, int]]:
    """Return a history with one entry more; entries of the same kind become one."""
    steps = {(noise, rate): steps for noise, rate, steps in history}
    steps[entry[:2]] = steps.get(entry[:2], 0) + entry[2]
    return [(noise, rate, number) for (noise, rate), number in steps.items()]


def _read(path: Path) -> list[tuple[float, float, int]]:
    """Return the history in a file; an empty one if there is no file."""
    try:
        content: Any = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}; expected {FORMAT}")
        history = [(noise, rate, steps) for noise, rate, steps in content["history"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as reason:
        raise PrivacyAccountDamaged(str(path), f"{type(reason).__name__}: {reason}") from None
    if not all(_is_entry(*entry) for entry in history):
        raise PrivacyAccountDamaged(str(path), "it has an entry that no fit makes")
    return [(float(noise), float(rate), steps) for noise, rate, steps in history]


def _is_entry(noise: Any, rate: Any, steps: Any) -> bool:
    numbers = (int, float)
    return (
        (isinstance(noise, numbers) and 0 < noise < math.inf)
        and (isinstance(rate, numbers) and 0 < rate <= 1)
        and (type(steps) is int and steps > 0)
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep all others that use an account file waiting while the context lasts.

    The lock is on a file beside it: the account itself is replaced by a new file at each entry.
    """
    with open(path.with_name(f".{path.name}.lock"), "ab") as file:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
