"""Optimizers with state, for a model that goes from worker to worker."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer


class Optims:
    """One optimizer for each worker: they share the parameters and have a state of their own.

    An optimizer with momentum or moments keeps tensors beside the parameters, and these stay on the
    worker when the model goes to the next one. So each worker needs an optimizer:

        optims = Optims(["bob", "alice"], torch.optim.Adam(model.parameters(), lr=0.1))
        model.send(data.location)
        optimizer = optims.get_optim(data.location.id)

    Source: PySyft 0.2.4, `syft.federated.floptimizer.Optims`.

    Args:
        workers: the workers, or their ids.
        optim: the optimizer to copy, made before the model is sent. Not modified.

    Attributes:
        optimizers: worker id, as text -> optimizer.
    """

    def __init__(self, workers: Iterable[Any], optim: Optimizer) -> None:
        self.workers = list(workers)
        self.optim = optim
        self.optimizers = {_key(worker): _with_own_state(optim) for worker in self.workers}

    def get_optim(self, worker: Any) -> Optimizer:
        """Return the optimizer for a worker, which is given itself or by its id.

        Raises:
            ValueError: there is none for this worker.
        """
        if _key(worker) not in self.optimizers:
            known = ", ".join(self.optimizers) or "no worker"
            raise ValueError(
                f"there is no optimizer for worker {_key(worker)!r}; there is one for: {known}. "
                "Name all workers when you make the Optims."
            )
        return self.optimizers[_key(worker)]

    def count(self) -> int:
        """Return the number of optimizers."""
        return len(self.optimizers)

    count_optims = count

    def __len__(self) -> int:
        return self.count()


def _key(worker: Any) -> str:
    return str(getattr(worker, "id", worker))


def _with_own_state(optim: Optimizer) -> Optimizer:
    """Return a copy of an optimizer, of the same parameters."""
    parameters = [each for group in optim.param_groups for each in group["params"]]
    return copy.deepcopy(optim, {id(each): each for each in parameters})
