"""The settings of a run, from [tool.flwr.app.config] in pyproject.toml or `flwr run --run-config`.

Imports neither torch nor flwr: the launchers check settings before they start anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

MEANS = ("FedAvg", "FedAvgM", "FedProx", "FedAdagrad", "FedAdam", "FedYogi")
"""Flower's strategies that begin with the mean of the clients' models."""
STRATEGIES = (*MEANS, "FedMedian", "FedTrimmedAvg", "Krum")
WEIGHTS = ("equal", "samples")
IMAGES = 60_000
"""Training images of MNIST."""
TUTORIAL = ("alice", "bob", "charlie")
"""The tutorial's clients; each holds some digits."""


class SettingsError(ValueError):
    """A setting that is not known, or not possible. Its text is one line."""


@dataclass(frozen=True)
class Settings:
    """What a run is made of.

    Attributes:
        rounds: number of rounds.
        clients: number of clients of the run: as many as the first round waits for.
        split: who holds which training images: "digits", as in the tutorial, "iid", "shards:2" or
            "dirichlet:0.3", see `syft.federated.splits`.
        split_seed: its seed; each client computes the whole split and keeps its own part.
        least_samples: samples that each part of a Dirichlet split has at least.
        fraction: share of the clients that train in a round, above 0; at least one does.
        strategy: one of STRATEGIES, from flwr.serverapp.strategy.
        strategy_arguments: its further arguments, as "server_momentum=0.7".
        weights: "equal": each client counts the same in a mean. "samples": by the samples it holds.
        batch_size: samples per training batch.
        batches: training steps of a client in a round.
        lr: learning rate of the first round; it shrinks by a fiftieth a round, down to 1 % of it.
        seed: seed of the model, of the sampling of clients and of their batches.
        min_models: models that a round needs; with fewer, the run ends.
        wait_seconds: how long a round waits for clients that have not connected.
        round_seconds: how long a round waits for models.
        evaluate_every: the model is evaluated in round 1, in every so many rounds after it, and in
            the last.
        evaluate_clients: whether the clients' models are evaluated too then.
        history: file to which a line is written for each round; "": none.

    Raises:
        SettingsError: a value is not possible.
    """

    rounds: int = 40
    clients: int = 3
    split: str = "digits"
    split_seed: int = 1
    least_samples: int = 1
    fraction: float = 1.0
    strategy: str = "FedAvg"
    strategy_arguments: str = ""
    weights: str = "equal"
    batch_size: int = 32
    batches: int = 10
    lr: float = 0.1
    seed: int = 1
    min_models: int = 1
    wait_seconds: float = 120.0
    round_seconds: float = 600.0
    evaluate_every: int = 10
    evaluate_clients: bool = False
    history: str = ""

    def __post_init__(self) -> None:
        for name, allowed in (("strategy", STRATEGIES), ("weights", WEIGHTS)):
            if getattr(self, name) not in allowed:
                raise _refused(name, getattr(self, name), f"one of {', '.join(allowed)}")
        counts = "rounds clients least_samples batch_size batches min_models evaluate_every"
        for name in counts.split():
            if getattr(self, name) < 1:
                raise _refused(name, getattr(self, name), "an integer of at least 1")
        for name in ("lr", "wait_seconds", "round_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise _refused(name, getattr(self, name), "a number above 0")
        if not 0 < self.fraction <= 1:
            raise _refused("fraction", self.fraction, "a number above 0, at most 1")
        if self.min_models > self.sampled:
            expected = f"at most {self.sampled}, the clients that train in a round"
            raise _refused("min_models", self.min_models, expected)
        most = IMAGES // self._least_of_a_client() if self.split != "digits" else 10
        if self.clients > most:
            expected = f"at most {most:,} with {self.split!r} and {IMAGES:,} training images"
            raise _refused("clients", self.clients, expected)
        self.arguments()  # refuses what it cannot read

    @classmethod
    def of(cls, run_config: Mapping[str, Any]) -> Settings:
        """Return the settings of a run's configuration, whose names have hyphens.

        Raises:
            SettingsError: a name is not known, or a value is of another type or not possible.
        """
        known = {field.name.replace("_", "-"): field for field in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in run_config.items():
            if name not in known:
                raise SettingsError(f"no setting is called {name!r}; expected {', '.join(known)}.")
            default = known[name].default
            if isinstance(default, float) and type(value) is int:
                value = float(value)
            if type(value) is not type(default):
                raise _refused(name, value, f"a value of type {type(default).__name__}")
            values[known[name].name] = value
        return cls(**values)

    @property
    def sampled(self) -> int:
        """How many clients train in a round."""
        return max(1, round(self.fraction * self.clients))

    def arguments(self) -> dict[str, float]:
        """Return the strategy's further arguments.

        Raises:
            SettingsError: they are not of the form NAME=NUMBER.
        """
        pairs: dict[str, float] = {}
        for word in self.strategy_arguments.replace(",", " ").split():
            name, _, number = word.partition("=")
            try:
                pairs[name] = int(number) if re.fullmatch(r"\d+", number) else float(number)
            except ValueError:
                raise _refused(
                    "strategy_arguments", word, "NAME=NUMBER, as server_momentum=0.7"
                ) from None
        return pairs

    def name_of(self, number: int) -> str:
        """Return the name of a client, by its number from 0 on, if nobody gave it another."""
        is_tutorial = self.split == "digits" and self.clients == len(TUTORIAL)
        return TUTORIAL[number] if is_tutorial else f"client-{number}"

    def _least_of_a_client(self) -> int:
        """Return how many images each client has at least. As in the package, without torch."""
        name, _, number = self.split.partition(":")
        if self.split in ("digits", "iid"):
            return 1
        if name == "shards" and re.fullmatch("[1-9][0-9]*", number):
            return int(number)
        with suppress(ValueError):
            if name == "dirichlet" and 1e-6 <= float(number) <= 1e6:
                return self.least_samples
        expected = "digits, iid, shards:N, or dirichlet:ALPHA with ALPHA from 1e-6 to 1e6"
        raise _refused("split", self.split, expected)

    def is_due(self, round_number: int) -> bool:
        """Return whether a round ends with an evaluation."""
        return round_number == self.rounds or (round_number - 1) % self.evaluate_every == 0


def _refused(name: str, value: Any, expected: str) -> SettingsError:
    return SettingsError(f"{name.replace('_', '-')} is {value!r}; expected {expected}.")
