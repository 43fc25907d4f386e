"""Batches of a FederatedDataset: pointers, made where the samples are.

A loader has readers. Each reads the samples of one worker to their end, then goes on with the next
worker that no other reader is at. At every step each reader makes one batch:

    one reader                    all samples, worker after worker; a batch a step
    num_iterators=n               n readers, so batches of n workers a step; each reads everything
    iter_per_worker=True          a reader for each worker, which stays there

A batch costs one operation for the inputs and one for the targets, and no round trip.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import default_collate

from syft.frameworks.torch.fl.dataset import BaseDataset, FederatedDataset, whole_batch
from syft.objects import ObjectId

logger = logging.getLogger(__name__)


class FederatedDataLoader:
    """Goes through the samples on several workers in batches.

    Source: PySyft 0.2.4, `syft.FederatedDataLoader`. Its batches cost some messages for each
    sample, its `len` was too small where workers had incomplete batches, and with
    `iter_per_worker=True` and one worker it gave a pair instead of a dict.

    A `for` loop goes through it from the start. `next(loader)` gives the next step of the pass that
    the last `iter(loader)` began.

    Args:
        federated_dataset: the samples. Their numbers are noted now.
        batch_size: samples in a batch.
        shuffle: in a new order at every pass, drawn from torch's generator when the pass begins, so
            that `torch.manual_seed` makes it repeatable.
        num_iterators: number of workers whose batches come at one step; at most one less than there
            are workers, because a reader needs a free worker to go on with. The pass ends when one
            finds none.
        drop_last: leave out a worker's last batch if it is smaller than the others.
        collate_fn: makes a batch of a list of samples (pairs of pointers), which are then read one
            by one. By default a batch is read as a whole.
        iter_per_worker: give a batch of every worker at each step, until one of them has no more.
        **kwargs: other arguments of torch's DataLoader; ignored with a warning in the log.

    Yields:
        (data, target), two pointers to tensors on the same worker; or, with `iter_per_worker` or
        more than one reader, a dict with such a pair for each worker: worker -> (data, target).

    Attributes:
        workers: the ids of the workers.
        num_iterators: number of readers.

    Raises:
        TypeError: `federated_dataset` is no FederatedDataset.
        ValueError: `batch_size` or `num_iterators` is not a positive number.
    """

    def __init__(
        self,
        federated_dataset: FederatedDataset,
        batch_size: int = 8,
        shuffle: bool = False,
        num_iterators: int = 1,
        drop_last: bool = False,
        collate_fn: Callable[[list[Any]], Any] = default_collate,
        iter_per_worker: bool = False,
        **kwargs: Any,
    ) -> None:
        if not hasattr(federated_dataset, "workers"):
            raise TypeError(
                f"cannot load batches of a {type(federated_dataset).__name__}; expected a "
                "FederatedDataset. Make one with dataset.federate(workers), or use "
                "torch.utils.data.DataLoader for samples of this process."
            )
        for name, number in (("batch_size", batch_size), ("num_iterators", num_iterators)):
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} is {number!r}; expected a positive number.")
        if kwargs:
            logger.warning("FederatedDataLoader ignores these arguments: %s", ", ".join(kwargs))
        self.federated_dataset = federated_dataset
        self.workers = federated_dataset.workers
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.collate_fn = collate_fn
        self.iter_per_worker = iter_per_worker
        others = max(len(self.workers) - 1, 1)
        self.num_iterators = len(self.workers) if iter_per_worker else min(num_iterators, others)
        rounded = math.floor if drop_last else math.ceil
        self._batches = {
            worker_id: rounded(len(federated_dataset[worker_id]) / batch_size)
            for worker_id in self.workers
        }
        self._length = sum(1 for _ in _steps(self._batches, self.num_iterators))
        self._pass: Iterator[Any] | None = None

    def __len__(self) -> int:
        """Return the number of steps of a pass."""
        return self._length

    def __iter__(self) -> Iterator[Any]:
        generator = None
        if self.shuffle:
            # The order does not depend on what else is drawn from torch's generator meanwhile.
            seed = int(torch.empty((), dtype=torch.int64).random_())
            generator = torch.Generator().manual_seed(seed)
        self._pass = self._read(generator)
        return self._pass

    def __next__(self) -> Any:
        if self._pass is None:
            iter(self)
        return next(self._pass)  # type: ignore[arg-type]

    def _read(self, generator: torch.Generator | None) -> Iterator[Any]:
        orders: dict[int, torch.Tensor] = {}  # of the samples that each reader is at
        for step in _steps(self._batches, self.num_iterators):
            pairs = {}
            for reader, (worker_id, number) in enumerate(step):
                dataset = self.federated_dataset[worker_id]
                if number == 0:
                    orders[reader] = _order(len(dataset), generator)
                start = number * self.batch_size
                pairs[dataset.data.location] = self._batch(
                    dataset, orders[reader][start : start + self.batch_size]
                )
            yield pairs if self.iter_per_worker or self.num_iterators > 1 else pairs.popitem()[1]

    def _batch(self, dataset: Any, indices: torch.Tensor) -> Any:
        if self.collate_fn is default_collate and isinstance(dataset, BaseDataset):
            batch = whole_batch(dataset, indices)
            if batch is not None:
                return batch
        data, target = self.collate_fn([dataset[index] for index in indices.tolist()])
        return data, target


def _steps(batches: Mapping[ObjectId, int], readers: int) -> Iterator[list[tuple[Any, int]]]:
    """Yield what each reader reads at each step: a worker's id and the number of its batch.

    Args:
        batches: worker id -> number of its batches.
        readers: number of readers, at most as many as there are workers.
    """
    unread = [list(batches) for _ in range(readers)]
    at: list[Any] = list(batches)[:readers]
    done = [0] * readers
    while at:
        for reader in range(readers):
            while done[reader] == batches[at[reader]]:
                unread[reader].remove(at[reader])
                free = [worker_id for worker_id in unread[reader] if worker_id not in at]
                if not free:
                    return
                at[reader], done[reader] = free[0], 0
        yield list(zip(at, done, strict=True))
        done = [number + 1 for number in done]


def _order(samples: int, generator: torch.Generator | None) -> torch.Tensor:
    """Return the indices of samples: shuffled if there is a generator, else in order."""
    return (
        torch.arange(samples) if generator is None else torch.randperm(samples, generator=generator)
    )
