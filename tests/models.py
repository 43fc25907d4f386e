"""Tiny models, loss functions and data that several test files share."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import RandomSampler

import syft as sy
from syft.federated.seeding import fit_seeds

FEATURES, CLASSES = 4, 3


class Classifier(nn.Module):
    """Two layers; log-probabilities of CLASSES classes. Its dropout is off by default."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES, 5)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(5, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(self.output(self.dropout(torch.relu(self.hidden(x)))), dim=1)


class Regressor(nn.Module):
    """One layer; one number."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).squeeze(1)


class Endless(nn.Module):
    """Loops for ever, unless its only parameter is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while bool(self.weight.sum() != 0):
            pass
        return x * self.weight


@torch.jit.script
def nll(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.nll_loss(pred, target)


@torch.jit.script
def mse(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(pred, target)


def classifier(seed: int = 0, dropout: float = 0.0) -> torch.jit.ScriptModule:
    """Return a scripted Classifier; the same seed gives the same weights.

    torch's generator stays as it is.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.jit.script(Classifier(dropout))


def same(one: Any, other: Any) -> bool:
    """Whether two tensors or models, or collections of them, are equal to the bit."""
    if isinstance(one, nn.Module):
        return same(one.state_dict(), other.state_dict())
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one.dtype == other.dtype and torch.equal(one, other)


def blobs(samples: int = 20, seed: int = 0) -> sy.BaseDataset:
    """Return `samples` points around CLASSES centres, with their classes."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(CLASSES, (samples,), generator=generator)
    data = torch.randn(samples, FEATURES, generator=generator) + 2 * F.one_hot(targets, FEATURES)
    return sy.BaseDataset(data, targets)


def make_config(model: Any = None, loss_fn: Any = nll, **settings: Any) -> sy.TrainConfig:
    """Return a TrainConfig with a seed and small batches; `settings` are further arguments of
    TrainConfig."""
    return sy.TrainConfig(
        classifier() if model is None else model,
        loss_fn,
        **{"batch_size": 8, "seed": 7, **settings},
    )


def train_locally(
    model: nn.Module,
    loss_fn: Any,
    dataset: Any,
    config: sy.TrainConfig,
    worker: str,
    fits: Iterable[int] = (0,),
) -> torch.Tensor:
    """Train `model` on all samples of `dataset` in plain torch, as `worker` does in fits of these
    numbers.

    Return the loss on the last batch.
    """
    optimizer = getattr(torch.optim, config.optimizer)(
        model.parameters(), **(config.optimizer_args or {})
    )
    loss = None
    for number in fits:
        generator = torch.Generator().manual_seed(fit_seeds(config.seed, worker, number).shuffling)
        sampler = RandomSampler(dataset, generator=generator)
        epochs = [
            torch.tensor(list(sampler if config.shuffle else range(len(dataset))))
            for _ in range(config.epochs)
        ]
        batches = [batch for order in epochs for batch in order.split(config.batch_size)]
        for batch in batches if config.max_nr_batches < 0 else batches[: config.max_nr_batches]:

            def closure(batch: torch.Tensor = batch) -> torch.Tensor:
                optimizer.zero_grad()
                loss = loss_fn(model(dataset.data[batch]), dataset.targets[batch])
                loss.backward()
                return loss

            loss = optimizer.step(closure)
    return loss
