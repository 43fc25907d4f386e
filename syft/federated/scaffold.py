"""SCAFFOLD: control variates against the drift of workers with uneven data.

    scaffold = Scaffold(["alice", "bob", "charlie"])
    while ...:
        # in fit(worker): config = scaffold.correct(TrainConfig(...), worker.id), then as always
        result = await run_round(workers, fit)
        scaffold.update(model, result.models)
        model = federated_avg(result.models)

A worker that makes many steps on its own data goes where these data pull it, and so does the
average of workers that are pulled in different directions. SCAFFOLD estimates the pull: c_i is the
mean gradient of worker i, c the mean of all c_i. To each of its gradients worker i adds c - c_i, so
its own pull is replaced by that of all.

    coordinator                              worker i
    x, correction c - c_i       ---------->  K steps y <- y - lr (gradient + c - c_i), from y = x
    y_i                         <----------  y
    c_i <- c_i - c + (x - y_i) / (K lr)      (keeps nothing)

The new c_i is the mean of the gradients without their corrections ("option II" of the paper). The
coordinator computes it from what it knows anyway. In the paper the workers keep their c_i and
return the change; here they keep nothing, so a worker that is restarted loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from syft.federated.server_optimizer import trainable
from syft.federated.train_config import TrainConfig
from syft.frameworks.torch.fl.utils import check_same_structure
from syft.graph.returned import check_finite
from syft.objects import ObjectId


class Scaffold:
    """The control variates of all workers of a run.

    Source: Karimireddy et al., ICML 2020, https://arxiv.org/abs/1910.06378, algorithm 1, option II.

    Only c_i is kept for each worker, zero until its first round: c is their mean over all workers.
    So workers that are left out of a round keep their c_i, and c moves by the others' share alone,
    as in the paper. The next model may be the average of the updates, or what a ServerOptimizer
    makes of it. All updates must have the same weight in the average, as they have in c. One worker
    that returns nonsense spoils c for all, so a median of the updates is of no help here.

    Workers with a privacy budget may take part: corrections follow from updates that have left
    them, and are added to gradients that have their noise already, so they cost no privacy. The
    noise is in the control variates, too.

    Args:
        workers: ids of all workers that may take part in a round.

    Raises:
        ValueError: there are none, or two with the same id.
    """

    def __init__(self, workers: Iterable[ObjectId]) -> None:
        self.workers = list(workers)
        if not self.workers or len(set(self.workers)) < len(self.workers):
            raise ValueError(
                f"Scaffold: workers are {self.workers}; expected at least one, different ids."
            )
        self._variates: dict[ObjectId, dict[str, torch.Tensor]] = {}
        self._mean: dict[str, torch.Tensor] = {}
        # Learning rate times steps of each fit of this round.
        self._lengths: dict[ObjectId, float] = {}

    def correct(self, config: TrainConfig, worker: ObjectId) -> TrainConfig:
        """Give a config the correction of a worker, and remember its steps for update().

        Args:
            config: the config of the worker's fit. Modified. Its steps must be those of plain SGD,
                and their number known, also where a worker has few samples: so
                `max_nr_batches=10, epochs=10` for ten steps.
            worker: the worker's id.

        Returns:
            The config.

        Raises:
            ValueError: the control variate would not follow from such a fit; or this is none of the
                workers.
        """
        self._check_known(worker)
        steps, arguments = config.max_nr_batches, config.optimizer_args or {}
        used = sorted(name for name, value in arguments.items() if value)
        for name, observed, is_fit, expected in (
            ("optimizer", config.optimizer, config.optimizer == "SGD", "'SGD'"),
            ("optimizer_args", arguments, used == ["lr"], "'lr' alone"),
            ("proximal_mu", config.proximal_mu, not config.proximal_mu, "0"),
            ("max_nr_batches", steps, steps >= 1, "the number of steps, at least 1"),
            ("epochs", config.epochs, config.epochs >= steps, f"{steps} (max_nr_batches) or more"),
        ):
            if not is_fit:
                raise ValueError(f"Scaffold: {name} is {observed!r}; expected {expected}.")
        config.correction = self.correction(worker)
        self._lengths[worker] = steps * arguments["lr"]
        return config

    def correction(self, worker: ObjectId) -> dict[str, torch.Tensor] | None:
        """Return c - c_i by parameter; None before the first update(), when it is zero."""
        own = self._variates.get(worker, {})
        return {name: c - own[name] if own else c for name, c in self._mean.items()} or None

    def update(self, model: nn.Module, models: Mapping[ObjectId, nn.Module]) -> None:
        """Take in the updates of a round.

        Args:
            model: the model that the workers were sent. Not modified.
            models: worker id -> the model that it returned, after a fit by a config of correct().
                Not modified. Workers that are left out keep their control variates.

        Raises:
            ValueError: correct() was not called for one of them since the last update.
            ModelMismatchError: a model has other trainable parameters than `model`, or `model` has
                others than in the last round.
            InvalidReply: a control variate is not finite: the worker returned enormous values.
        """
        start = {name: each.detach().cpu() for name, each in trainable(model).items()}
        if self._variates:
            check_same_structure("model", start, self._mean)
        variates = {}
        for worker, returned in models.items():
            if worker not in self._lengths:
                raise ValueError(
                    f"Scaffold: worker {worker!r} was sent no config of this round. Call "
                    "correct(config, worker) before the config is sent."
                )
            end, length = trainable(returned), self._lengths[worker]
            check_same_structure(str(worker), end, start)
            correction = self.correction(worker) or {}
            variates[worker] = {
                name: (x - end[name].detach().cpu()) / length - correction.get(name, 0)
                for name, x in start.items()
            }
            for name, variate in variates[worker].items():
                check_finite(str(worker), name, variate)
        # All at once: the corrections of a round follow from what was known when it began.
        self._take(self._variates | variates)

    def state(self) -> dict[str, torch.Tensor]:
        """Return copies of all control variates; empty at first.

        The names are those of the parameters, each after the number of its worker, from 0 on, and a
        dot: "2.conv1.weight".
        """
        return {
            f"{number}.{name}": tensor.clone()
            for number, worker in enumerate(self.workers)
            for name, tensor in self._variates.get(worker, {}).items()
        }

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Continue where another Scaffold, of the same workers, has left off.

        Args:
            state: its state(). Copied.
        """
        variates: dict[ObjectId, dict[str, torch.Tensor]] = {}
        for key, tensor in state.items():
            number, _, name = key.partition(".")
            variates.setdefault(self.workers[int(number)], {})[name] = tensor.clone()
        self._take(variates)

    def _take(self, variates: dict[ObjectId, dict[str, torch.Tensor]]) -> None:
        """Begin a round with these control variates."""
        self._variates, self._lengths = variates, {}
        # In the workers' order, whoever came first, so that a resumed run adds up the same.
        known = [variates[worker] for worker in self.workers if worker in variates]
        self._mean = {
            name: torch.stack([each[name] for each in known]).sum(0) / len(self.workers)
            for name in (known[0] if known else ())
        }

    def _check_known(self, worker: ObjectId) -> None:
        if worker not in self.workers:
            raise ValueError(f"Scaffold: no worker {worker!r}; expected one of {self.workers}.")
