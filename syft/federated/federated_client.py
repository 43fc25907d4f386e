"""Training and evaluation on a worker's own data."""

from __future__ import annotations

import inspect
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler

from syft.exceptions import (
    CallAbandoned,
    DatasetEmpty,
    DatasetExists,
    DatasetNotFound,
    DeviceUnavailable,
    NotPermitted,
    ObjectNotFoundError,
    TrainConfigMissing,
    UnknownOptimizer,
)
from syft.federated.private_training import PrivateGradients
from syft.federated.scores import Score, Scorer
from syft.federated.seeding import FitSeeds, fit_seeds, running_fit, seeded
from syft.federated.train_config import TrainConfig
from syft.frameworks.torch.fl.dataset import Batches
from syft.graph import for_inference, loss_of
from syft.objects import ObjectId, ObjectStorage
from syft.session import (
    RunningCall,
    Session,
    SessionObjects,
    TrainingState,
    do_nothing,
    running_call,
)
from syft.wire.failures import abbreviated

# One worker, several owners of objects. Which store, which config and which optimizer a method
# works with depends on the call that runs in this context (syft/session.py):
#
#     a coordinator's call    the objects, the config and the optimizer of its session
#     none                    the worker's own: a program uses the worker as an object
#
# `_store` and `_training` make that choice for all methods here. Datasets are the exception: they
# are the owner's, and the same for everybody.


class FederatedClient(ObjectStorage):
    """Holds datasets and objects, and trains and evaluates models on the datasets.

    While a call of a remote coordinator runs, its methods that store, find and remove objects are
    about the objects of that coordinator; at all other times about this worker's own.

    Source: PySyft 0.2.4, `syft.federated.federated_client.FederatedClient`.

    Args:
        datasets: key -> dataset; None: none yet.
        **kwargs: arguments of the next base class, in a worker that of BaseWorker.

    Attributes:
        evaluation_threads: batches that evaluate() works on at a time, each in a thread of its own,
            if the model allows. More than one is worth while where torch computes with one thread
            (torch.set_num_threads): threads that each have a batch wait less for each other than
            threads that share one.
    """

    evaluation_threads = 1

    def __init__(self, datasets: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.datasets: dict[str, Any] = datasets if datasets is not None else {}
        self._session = Session("local")
        super().__init__(**kwargs)

    def add_dataset(self, dataset: Any, key: str) -> None:
        """Register a dataset.

        Args:
            dataset: any map-style dataset; each sample is a pair of input and target (or several
                inputs, and the target last).
            key: the name that fit() and evaluate() find it by.

        Raises:
            DatasetExists: the key is taken (also a ValueError).
        """
        if key in self.datasets:
            raise DatasetExists(self._name(), key)
        self.datasets[key] = dataset

    def remove_dataset(self, key: str) -> None:
        """Remove the dataset with this key, if there is one."""
        self.datasets.pop(key, None)

    def set_obj(self, obj: Any) -> None:
        """Store an object under its id.

        A TrainConfig becomes the current one, and a new optimizer will be built.
        """
        store = self._store()
        if isinstance(obj, TrainConfig):
            self.train_config = obj
            self.optimizer = None
        elif store is not None:
            store.set_obj(obj)
        else:
            super().set_obj(obj)

    def get_obj(self, obj_id: ObjectId) -> Any:
        """Return the object with this id.

        Raises:
            ObjectNotFoundError: there is none (also a KeyError).
        """
        kept, store = self._training().kept, self._store()
        if obj_id in kept:
            return kept[obj_id]
        return super().get_obj(obj_id) if store is None else store.get_obj(obj_id)

    def rm_obj(self, obj_id: ObjectId | None, force: bool = False) -> None:
        """Remove the object with this id, if there is one.

        `force` is accepted and makes no difference.
        """
        store = self._store()
        super().rm_obj(obj_id) if store is None else store.rm_obj(obj_id)

    def clear_objects(self, return_self: bool = True) -> Any:
        """Remove all objects; return this worker, or None."""
        store = self._store()
        super().clear_objects() if store is None else store.clear_objects()
        return self if return_self else None

    def current_objects(self) -> dict[ObjectId, Any]:
        """Return a copy of the mapping from id to object."""
        store = self._store()
        return super().current_objects() if store is None else store.current_objects()

    @property
    def train_config(self) -> TrainConfig | None:
        """The config that fit() and evaluate() use.

        It is that of the coordinator whose call runs, else this worker's.
        """
        return self._training().config

    @train_config.setter
    def train_config(self, config: Any) -> None:
        training = self._training()
        training.config, training.fits_before = config, 0

    @property
    def optimizer(self) -> Any:
        """The optimizer of the current config; None before its first fit()."""
        return self._training().optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Any) -> None:
        self._training().optimizer = optimizer

    def current_model(self) -> Any:
        """Return the model of the current TrainConfig, that of the coordinator whose call runs.

        It is for methods of your own, and cannot be called from afar.

        Raises:
            TrainConfigMissing: no TrainConfig was sent.
            ObjectNotFoundError: the model was fetched or deleted, or none was sent (also a
                KeyError).
        """
        training = self._training()
        return self._wrapped(training, self._config(training)._model_id)

    def fit(
        self, dataset_key: str, device: str | torch.device = "cpu", **kwargs: Any
    ) -> torch.Tensor | None:
        """Train the model of the current TrainConfig on a local dataset.

        Each fit draws other batches, in an order that follows from the config's seed, this worker's
        id and the number of the fit under that seed.

        Args:
            dataset_key: key of the dataset.
            device: where to train: "cpu", "cuda:1", torch.device, ... The model is on the CPU again
                afterwards.
            **kwargs: ignored, as in PySyft 0.2.

        Returns:
            The loss on the last batch, a scalar on the CPU, the proximal term included; None if
            `epochs` or `max_nr_batches` is 0, or the owner's policy has privacy.

        Raises:
            TrainConfigMissing: no TrainConfig was sent.
            DatasetNotFound: there is no dataset with this key (also a ValueError).
            DatasetEmpty: the dataset has no samples.
            UnknownOptimizer: torch.optim has no such optimizer (also a ValueError).
            DeviceUnavailable: this worker has no such device.
            PrivacyBudgetSpent: the fit would tell more of the data than the owner has left to
                grant (also a PermissionError).
            ValueError: the config's correction does not fit the model.
        """
        training = self._training()
        model, loss_fn = self._model_and_loss(training, dataset_key)
        device = self._device(device)
        with _on_device(model, device):
            # After the move: some optimizers make their state at once, where the parameters are.
            self._build_optimizer(training.config.optimizer, model, training.config.optimizer_args)
            loss = self._fit(model=model, dataset_key=dataset_key, loss_fn=loss_fn, device=device)
        if training.config.keep_optimizer:
            self._calling_session().kept_optimizer = _OptimizerState.of(training.optimizer)
        return loss

    def evaluate(
        self,
        dataset_key: str,
        return_histograms: bool = False,
        nr_bins: int = -1,
        return_loss: bool = True,
        return_raw_accuracy: bool = True,
        device: str | torch.device = "cpu",
        threshold: float | None = None,
    ) -> dict[str, Any]:
        """Evaluate the model of the current TrainConfig on a local dataset.

        The predicted class is the column with the largest output. For outputs of one column, (N,)
        or (N, 1), it is 1 where the output is above `threshold`, else 0, and the targets are 0
        or 1.

        Args:
            dataset_key: key of the dataset.
            return_histograms: whether to count predictions and targets by class.
            nr_bins: number of classes of the histograms.
            return_loss: whether to compute the loss.
            return_raw_accuracy: whether to count correct predictions.
            device: where to evaluate.
            threshold: for outputs of one column: 0 where they are logits, 0.5 where they are
                probabilities.

        Returns:
            A dict with those of these keys that were asked for: `loss`, the mean loss per sample
            (PySyft 0.2.4 divided it by the batch size once more); `nr_correct_predictions` and
            `nr_predictions`; `histogram_predictions` and `histogram_target`, (nr_bins,) float64
            counts.

        Raises:
            TrainConfigMissing, DatasetNotFound, DatasetEmpty, DeviceUnavailable: as in fit().
            ValueError: histograms are asked for and `nr_bins` is below 1 or above 10,000; or
                predictions are to be counted where there is no class to predict: outputs of one
                column without `threshold` or with other targets than 0 and 1, outputs of several
                columns with it, or outputs that are not one tensor.
        """
        scorer = Scorer(return_loss, return_raw_accuracy, return_histograms, nr_bins, threshold)
        model, loss_fn = self._model_and_loss(self._training(), dataset_key)
        device = self._device(device)
        loader = self._create_data_loader(dataset_key=dataset_key, shuffle=False)
        self._check_plan(loader, len(loader))
        return scorer.total(self._scores(scorer, model, loss_fn, loader, device))

    def train_config_from(self, fields: Mapping[str, Any]) -> TrainConfig:
        """Return the TrainConfig that a coordinator sent as plain values."""
        # Tensors come as objects, which the limits count, and not as settings.
        return TrainConfig(model=None, loss_fn=None, correction=None, owner=self, **fields)

    def _check_train_config(self) -> None:
        self._config(self._training())

    def _build_optimizer(
        self, optimizer_name: str, model: Any, optimizer_args: Mapping[str, Any] | None
    ) -> Any:
        """Return the current optimizer; build it if the config is new."""
        training = self._training()
        if training.optimizer is None:
            names = optimizer_names()
            if optimizer_name not in names:
                raise UnknownOptimizer(optimizer_name, names)
            training.optimizer = getattr(torch.optim, optimizer_name)(
                model.parameters(), **dict(optimizer_args or {})
            )
            if getattr(training.config, "keep_optimizer", False):
                _go_on(training.optimizer, self._calling_session().kept_optimizer)
        return training.optimizer

    def _create_data_loader(self, dataset_key: str, shuffle: bool = False) -> DataLoader:
        """Return a loader of the dataset's batches.

        A shuffled one outside a fit counts as a fit of its own.
        """
        config, dataset = self._config(self._training()), self.datasets[dataset_key]
        sampler: Sampler[int] = SequentialSampler(dataset)
        if shuffle:
            seeds = running_fit.get() or self._next_seeds()
            sampler = RandomSampler(
                dataset, generator=torch.Generator().manual_seed(seeds.shuffling)
            )
        # With a generator of its own, the loader leaves torch's global one alone.
        return DataLoader(
            Batches(dataset),
            # It makes a list of as many places.
            batch_size=max(1, min(config.batch_size, len(dataset))),
            sampler=sampler,
            collate_fn=Batches.collate,
            generator=torch.Generator(),
        )

    def _fit(
        self, model: Any, dataset_key: str, loss_fn: Any, device: str | torch.device = "cpu"
    ) -> torch.Tensor | None:
        training = self._training()
        config, optimizer, seeds = self._config(training), training.optimizer, self._next_seeds()
        token = running_fit.set(seeds)
        try:
            loader = self._create_data_loader(dataset_key=dataset_key, shuffle=config.shuffle)
        finally:
            running_fit.reset(token)
        proximal, correct = _proximal_term(model, config.proximal_mu), do_nothing
        if config._correction_id is not None:
            correct = _correcting(model, self._wrapped(training, config._correction_id))
        call = self._running_call()
        if call is not None and call.budget.privacy is not None:
            with seeded(seeds.layers):
                self._fit_privately(call, model, loss_fn, loader, proximal, correct, device)
            return None
        loss_fn, loss = loss_of(loss_fn), None
        model.train()
        with seeded(seeds.layers):
            for *inputs, target in self._batches(loader, config):
                inputs, target = [_to(each, device) for each in inputs], target.to(device)

                # Defaults bind this batch; the names alone would mean whatever they hold later.
                def closure(
                    inputs: list[Any] = inputs, target: torch.Tensor = target
                ) -> torch.Tensor:
                    optimizer.zero_grad()
                    loss = loss_fn(model(*inputs), target) + proximal()
                    loss.backward()
                    correct()
                    return loss

                loss = optimizer.step(closure)  # a closure, since LBFGS needs one
        return None if loss is None else loss.detach().cpu()

    def _fit_privately(
        self,
        call: RunningCall,
        model: Any,
        loss_fn: Any,
        loader: DataLoader,
        proximal: Callable[[], torch.Tensor | float],
        correct: Callable[[], None],
        device: str | torch.device,
    ) -> None:
        """Train by DP-SGD, as this worker's owner demands of every coordinator.

        Batches have the config's size on average; they are drawn at random in any case. What the
        optimizer remembers, and keeps for the next fit if the config asks for that, follows from
        noised gradients and costs nothing more; so do the proximal term and the correction.

        Raises:
            NotPermitted: the optimizer needs more of the data than one gradient a step.
            PrivacyBudgetSpent: the fit would cost more than is left.
        """
        config, account = self._config(call.training), call.budget.privacy
        assert account is not None
        if config.optimizer == "LBFGS":
            others = [name for name in optimizer_names() if name != "LBFGS"]
            raise NotPermitted(self._name(), "optimizers", config.optimizer, others)
        batch_size, steps = loader.batch_size or 1, self._planned_steps(loader, config)
        gradients = PrivateGradients(
            model,
            loss_fn,
            cast(Batches, loader.dataset),
            batch_size / len(loader.dataset),  # type: ignore[arg-type]
            account.privacy,
            device,
            check=lambda: call.budget.check(0),
        )
        account.charge(gradients.rate, steps)
        for _ in range(steps):
            # The size on average: how many samples were drawn is not to be told.
            call.budget.spend(batch_size)
            gradients.step()
            if config.proximal_mu:
                proximal().backward()  # type: ignore[union-attr]
            correct()
            call.training.optimizer.step()

    def _scores(
        self, scorer: Scorer, model: Any, loss_fn: Any, loader: DataLoader, device: torch.device
    ) -> Iterator[Score]:
        """Yield the score of each batch."""
        loss_fn = loss_of(loss_fn)
        model.eval()
        with _on_device(model, device):
            frozen = for_inference(model)

            def score(batch: Any) -> Score:
                *inputs, target = batch
                with torch.inference_mode():
                    output = frozen(*(_to(each, device) for each in inputs))
                    return scorer.score(output, target.to(device), loss_fn)

            # A model that cannot be frozen may change while it computes; its batches take turns.
            threads = self.evaluation_threads if frozen is not model else 1
            yield from _in_threads(threads, score, self._accounted(loader))

    def _batches(self, loader: DataLoader, config: TrainConfig) -> Iterator[Any]:
        """Return the batches of all epochs, at most `max_nr_batches` of them in all.

        Raises:
            LimitExceeded: these are more than this worker's owner allows.
        """
        steps = self._planned_steps(loader, config)
        epochs = (self._accounted(loader) for _ in range(config.epochs))
        # Over all epochs together: a bound inside each epoch would let the later ones run on.
        return islice(chain.from_iterable(epochs), min(steps, sys.maxsize))

    def _planned_steps(self, loader: DataLoader, config: TrainConfig) -> int:
        """Return the number of training steps of a fit.

        Raises:
            LimitExceeded: these are more than this worker's owner allows.
        """
        steps = config.epochs * len(loader)
        if config.max_nr_batches >= 0:
            steps = min(steps, math.ceil(config.max_nr_batches))
        self._check_plan(loader, steps, training=True)
        return steps

    @staticmethod
    def _check_plan(loader: DataLoader, batches: int, training: bool = False) -> None:
        """Raise LimitExceeded if the owner does not allow the call that runs so many batches."""
        call = running_call.get()
        if call is not None and batches:
            samples = len(loader.dataset)  # type: ignore[arg-type]
            batch_size = loader.batch_size or samples
            epochs, rest = divmod(batches, len(loader))
            planned = epochs * samples + min(rest * batch_size, samples)
            call.budget.check_plan(planned, min(batch_size, samples), batches if training else 0)

    def _accounted(self, loader: DataLoader) -> Iterator[Any]:
        """Yield batches for as long as somebody waits for the result.

        They are entered in the account of the call.
        """
        call = running_call.get()
        for batch in loader:
            if call is not None:
                if call.abandoned.is_set():
                    raise CallAbandoned(self._name())
                call.budget.spend(len(batch[-1]))
            yield batch

    def _model_and_loss(self, training: TrainingState, dataset_key: str) -> tuple[Any, Any]:
        config = self._config(training)
        if not isinstance(dataset_key, (str, int)) or dataset_key not in self.datasets:
            named = isinstance(dataset_key, str)
            shown = dataset_key[:256] if named else abbreviated(dataset_key)
            raise DatasetNotFound(self._name(), shown, [str(key) for key in self.datasets])
        if len(self.datasets[dataset_key]) == 0:
            raise DatasetEmpty(self._name(), dataset_key)
        return self._wrapped(training, config._model_id), self._wrapped(
            training, config._loss_fn_id
        )

    def _wrapped(self, training: TrainingState, obj_id: ObjectId | None) -> Any:
        """Return what is in the ObjectWrapper with this id; a config without a model sent None."""
        store = self._store()
        if obj_id is None or obj_id in training.kept:
            wrapper = training.kept.get(obj_id) if obj_id is not None else None
        elif store is not None:  # never what the owner offers, which training would change
            wrapper = store.own_objects().get(obj_id)
        else:
            wrapper = self.get_obj(obj_id)
        if wrapper is None or wrapper.obj is None:
            raise ObjectNotFoundError(self._name(), obj_id)
        return wrapper.obj

    def _device(self, device: str | torch.device) -> torch.device:
        available = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        try:
            found = torch.device(device)
        except RuntimeError:
            raise DeviceUnavailable(self._name(), str(device), available) from None
        if f"{found.type}:{found.index or 0}" not in [*available, "cpu:0"]:
            raise DeviceUnavailable(self._name(), str(device), available)
        return found

    def _next_seeds(self) -> FitSeeds:
        """Return the seeds of the fit that begins.

        It is the fit that was asked for, or one more of the worker's own.
        """
        call = self._running_call()
        if call is not None and call.fit_number is not None:
            number, call.fit_number = call.fit_number, None
        else:
            number = self._calling_session().count_fit(self._training())
        return fit_seeds(getattr(self._training().config, "seed", 0), self._name(), number)

    def _calling_session(self) -> Session:
        """Return the session of the coordinator whose call runs, else this worker's own."""
        call = self._running_call()
        return self._session if call is None else call.session

    def _store(self) -> SessionObjects | None:
        """Return the objects of the coordinator whose call runs.

        None: those of this worker are meant.
        """
        call = self._running_call()
        return None if call is None else call.session.objects

    def _training(self) -> TrainingState:
        call = self._running_call()
        return self._session.training if call is None else call.training

    def _running_call(self) -> RunningCall | None:
        """Return the coordinator's call that runs, if there is one."""
        call = running_call.get()
        return call if call is not None and call.worker is self else None

    def _config(self, training: TrainingState) -> TrainConfig:
        if training.config is None:
            raise TrainConfigMissing(self._name())
        return training.config

    def _name(self) -> str:
        return str(getattr(self, "id", type(self).__name__))


def _proximal_term(model: Any, mu: float) -> Callable[[], torch.Tensor | float]:
    """Return what computes mu / 2 |w - w0|^2.

    w are the trainable parameters of `model` then, w0 those of now.
    """
    if not mu:
        return lambda: 0.0
    parameters = [each for each in model.parameters() if each.requires_grad]
    start = [each.detach().clone() for each in parameters]

    def term() -> torch.Tensor | float:
        pairs = zip(parameters, start, strict=True)
        return mu / 2 * sum((now - then).abs().square().sum() for now, then in pairs)

    return term


def _correcting(model: Any, correction: Any) -> Callable[[], None]:
    """Return what adds a correction to the gradients of a model's trainable parameters.

    Raises:
        ValueError: it is not one finite tensor for each of them, of its shape and dtype.
    """
    parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
    if not isinstance(correction, Mapping):
        raise ValueError(
            f"TrainConfig: the correction is {abbreviated(correction)}; expected a map of names to "
            "tensors."
        )
    for name in {**parameters, **correction}:
        observed, expected = (_described(each.get(name)) for each in (correction, parameters))
        if observed == expected and not correction[name].isfinite().all():
            observed, expected = "not finite", "finite values only"
        if observed != expected:
            raise ValueError(
                f"TrainConfig: the correction of {abbreviated(name)} is {observed}; expected "
                f"{expected}. Send one tensor for each trainable parameter of the model."
            )
    pairs = [(each, correction[name].to(each.device)) for name, each in parameters.items()]

    def correct() -> None:
        for parameter, added in pairs:
            # Not in place: gradients may be sparse, or missing where the loss does not depend on
            # the parameter.
            gradient = parameter.grad
            parameter.grad = added.clone() if gradient is None else added + gradient

    return correct


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{tuple(value.shape)} {value.dtype}"
    return "missing" if value is None else abbreviated(value)


def optimizer_names() -> list[str]:
    """Return the names of the optimizers of torch.optim."""
    return sorted(
        name
        for name, value in vars(torch.optim).items()
        if inspect.isclass(value)
        and issubclass(value, torch.optim.Optimizer)
        and value is not torch.optim.Optimizer
    )


@dataclass(frozen=True)
class _OptimizerState:
    """What an optimizer knows after a fit, without the parameters that it changed.

    Attributes:
        kind: class of the optimizer.
        shapes: shapes of the parameters, in order.
        state: its state of each, as in its state_dict().
    """

    kind: type[torch.optim.Optimizer]
    shapes: list[torch.Size]
    state: Any

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer) -> _OptimizerState:
        shapes = [each.shape for group in optimizer.param_groups for each in group["params"]]
        return cls(type(optimizer), shapes, optimizer.state_dict()["state"])


def _go_on(optimizer: torch.optim.Optimizer, former: _OptimizerState | None) -> None:
    """Give an optimizer the state of a former one, if that was of its kind and size.

    Its own learning rate and other settings stay.
    """
    new = _OptimizerState.of(optimizer)
    if former is not None and (former.kind, former.shapes) == (new.kind, new.shapes):
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": former.state, "param_groups": groups})


@contextmanager
def _on_device(model: Any, device: torch.device | str) -> Iterator[None]:
    """Have the model on a device, and on the CPU again afterwards.

    Functions and CPU models cost nothing.
    """
    moved = torch.device(device).type != "cpu" and hasattr(model, "to")
    if moved:
        model.to(device)
    try:
        yield
    finally:
        if moved:
            model.to("cpu")


def _to(value: Any, device: torch.device | str) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _in_threads(
    threads: int, function: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
    """Yield the function's result for each item, in their order.

    `threads` of them are computed at a time, and a few more items are read ahead.
    """
    if threads <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        results: deque[Future[Any]] = deque()
        for item in items:
            # In this call's context: what bounds the call bounds its threads.
            results.append(pool.submit(copy_context().run, function, item))
            if len(results) > 2 * threads:
                yield results.popleft().result()
        while results:
            yield results.popleft().result()
