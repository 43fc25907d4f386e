"""Training and evaluation on a worker's own data."""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler

from syft.dispatch import RunningCall, Session, TrainingState, running_call
from syft.exceptions import (
    CallAbandoned,
    DatasetEmpty,
    DatasetExists,
    DatasetNotFound,
    DeviceUnavailable,
    ObjectNotFoundError,
    TrainConfigMissing,
    UnknownOptimizer,
)
from syft.federated.seeding import FitSeeds, fit_seeds, running_fit, seeded
from syft.federated.train_config import TrainConfig
from syft.frameworks.torch.fl.dataset import Batches
from syft.graph import for_inference, loss_of
from syft.objects import ObjectId, ObjectStorage


class FederatedClient(ObjectStorage):
    """Holds datasets and objects, and trains and evaluates models on the datasets.

    Source: PySyft 0.2.4, `syft.federated.federated_client.FederatedClient`.

    Args:
        datasets: key -> dataset; None: none yet.

    Attributes:
        evaluation_threads: batches that evaluate() works on at a time, each in a thread of its own, if the model
            allows. More than one is worth while where torch computes with one thread (torch.set_num_threads):
            threads that each have a batch wait less for each other than threads that share one.
    """

    evaluation_threads = 1

    def __init__(self, datasets: dict[str, Any] | None = None) -> None:
        ObjectStorage.__init__(self)  # not super(): in a worker, that is BaseWorker
        self.datasets: dict[str, Any] = datasets if datasets is not None else {}
        self._session = Session("local")

    def add_dataset(self, dataset: Any, key: str) -> None:
        """Register a dataset.

        Args:
            dataset: any map-style dataset; each sample is a pair of input and target (or several inputs, and the
                target last).
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
        """Store an object under its id. A TrainConfig becomes the current one, and a new optimizer will be built."""
        if isinstance(obj, TrainConfig):
            self.train_config = obj
            self.optimizer = None
        else:
            super().set_obj(obj)

    def get_obj(self, obj_id: ObjectId) -> Any:
        """Return the object with this id.

        Raises:
            ObjectNotFoundError: there is none (also a KeyError).
        """
        kept = self._training().kept
        return kept[obj_id] if obj_id in kept else super().get_obj(obj_id)

    @property
    def train_config(self) -> TrainConfig | None:
        """The config that fit() and evaluate() use: that of the coordinator whose call runs, else this worker's."""
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

    def fit(self, dataset_key: str, device: str | torch.device = "cpu", **kwargs: Any) -> torch.Tensor | None:
        """Train the model of the current TrainConfig on a local dataset.

        Each fit draws other batches, in an order that follows from the config's seed, this worker's id and the number
        of the fit under that seed.

        Args:
            dataset_key: key of the dataset.
            device: where to train: "cpu", "cuda:1", torch.device, ... The model is on the CPU again afterwards.
            **kwargs: ignored, as in PySyft 0.2.

        Returns:
            The loss on the last batch, a scalar on the CPU; None if `epochs` or `max_nr_batches` is 0.

        Raises:
            TrainConfigMissing: no TrainConfig was sent.
            DatasetNotFound: there is no dataset with this key (also a ValueError).
            DatasetEmpty: the dataset has no samples.
            UnknownOptimizer: torch.optim has no such optimizer (also a ValueError).
            DeviceUnavailable: this worker has no such device.
        """
        model, loss_fn = self._model_and_loss(dataset_key)
        device = self._device(device)
        with _on_device(model, device):
            config = self._config()
            self._build_optimizer(config.optimizer, model, config.optimizer_args)
            return self._fit(model=model, dataset_key=dataset_key, loss_fn=loss_fn, device=device)

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

        The predicted class is the column with the largest output. For outputs of one column, (N,) or (N, 1), it is 1
        where the output is above `threshold`, else 0, and the targets are 0 or 1.

        Args:
            dataset_key: key of the dataset.
            return_histograms: whether to count predictions and targets by class.
            nr_bins: number of classes of the histograms.
            return_loss: whether to compute the loss.
            return_raw_accuracy: whether to count correct predictions.
            device: where to evaluate.
            threshold: for outputs of one column: 0 where they are logits, 0.5 where they are probabilities.

        Returns:
            A dict with those of these keys that were asked for: `loss`, the mean loss per sample (PySyft 0.2.4
            divided it by the batch size once more); `nr_correct_predictions` and `nr_predictions`;
            `histogram_predictions` and `histogram_target`, (nr_bins,) float64 counts.

        Raises:
            TrainConfigMissing, DatasetNotFound, DatasetEmpty, DeviceUnavailable: as in fit().
            ValueError: histograms are asked for and `nr_bins` is below 1; or predictions are to be counted where
                there is no class to predict: outputs of one column without `threshold` or with other targets than 0
                and 1, outputs of several columns with it, or outputs that are not one tensor.
        """
        if return_histograms and nr_bins < 1:
            raise ValueError(f"no histograms without bins: nr_bins is {nr_bins}; expected the number of classes.")
        model, loss_fn = self._model_and_loss(dataset_key)
        device = self._device(device)
        loader = self._create_data_loader(dataset_key=dataset_key, shuffle=False)
        loss_fn = loss_of(loss_fn)
        counts = np.zeros((2, max(nr_bins, 0)))
        total_loss, correct, count = 0.0, 0, 0

        def outcome(batch: Any) -> tuple[int, float, int, np.ndarray]:
            """Return a batch's size, summed loss, correct predictions and histograms, 0 where not asked for."""
            *inputs, target = batch
            loss, right, histograms = 0.0, 0, np.zeros_like(counts)
            with torch.inference_mode():
                output, target = frozen(*(_to(each, device) for each in inputs)), target.to(device)
                if return_raw_accuracy or return_histograms:
                    pred, expected = _classes(output, target, threshold)
                    right = int((pred == expected).sum())
                    if return_histograms:
                        histograms += [_histogram(pred, nr_bins), _histogram(expected, nr_bins)]
                if return_loss:
                    loss = loss_fn(output, target).item() * len(target)
            return len(target), loss, right, histograms

        model.eval()
        with _on_device(model, device):
            frozen = for_inference(model)
            # A model that cannot be frozen may change while it computes; its batches take turns.
            threads = self.evaluation_threads if frozen is not model else 1
            for size, loss, right, histograms in _in_threads(threads, outcome, self._accounted(loader)):
                count += size
                total_loss += loss
                correct += right
                counts += histograms
        result: dict[str, Any] = {}
        if return_loss:
            result["loss"] = total_loss / count
        if return_raw_accuracy:
            result |= {"nr_correct_predictions": correct, "nr_predictions": count}
        if return_histograms:
            result |= {"histogram_predictions": counts[0], "histogram_target": counts[1]}
        return result

    def train_config_from(self, fields: Mapping[str, Any]) -> TrainConfig:
        """Return the TrainConfig that a coordinator sent as plain values."""
        return TrainConfig(model=None, loss_fn=None, owner=self, **fields)

    def _check_train_config(self) -> None:
        if self.train_config is None:
            raise TrainConfigMissing(self._name())

    def _build_optimizer(self, optimizer_name: str, model: Any, optimizer_args: Mapping[str, Any] | None) -> Any:
        """Return the current optimizer; build it if the config is new."""
        if self.optimizer is None:
            names = optimizer_names()
            if optimizer_name not in names:
                raise UnknownOptimizer(optimizer_name, names)
            self.optimizer = getattr(torch.optim, optimizer_name)(model.parameters(), **dict(optimizer_args or {}))
        return self.optimizer

    def _create_data_loader(self, dataset_key: str, shuffle: bool = False) -> DataLoader:
        """Return a loader of the dataset's batches. A shuffled one outside a fit counts as a fit of its own."""
        config, dataset = self._config(), self.datasets[dataset_key]
        sampler: Sampler[int] = SequentialSampler(dataset)
        if shuffle:
            seeds = running_fit.get() or self._next_seeds()
            sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(seeds.shuffling))
        # With a generator of its own, the loader leaves torch's global one alone.
        return DataLoader(
            Batches(dataset),
            batch_size=config.batch_size,
            sampler=sampler,
            collate_fn=Batches.collate,
            generator=torch.Generator(),
        )

    def _fit(
        self, model: Any, dataset_key: str, loss_fn: Any, device: str | torch.device = "cpu"
    ) -> torch.Tensor | None:
        config, seeds = self._config(), self._next_seeds()
        token = running_fit.set(seeds)
        try:
            loader = self._create_data_loader(dataset_key=dataset_key, shuffle=config.shuffle)
        finally:
            running_fit.reset(token)
        loss_fn, loss = loss_of(loss_fn), None
        model.train()
        with seeded(seeds.layers):
            for *inputs, target in self._batches(loader, config):
                inputs, target = [_to(each, device) for each in inputs], target.to(device)

                def closure(inputs: list[Any] = inputs, target: torch.Tensor = target) -> torch.Tensor:
                    self.optimizer.zero_grad()
                    loss = loss_fn(model(*inputs), target)
                    loss.backward()
                    return loss

                loss = self.optimizer.step(closure)  # a closure, since LBFGS needs one
        return None if loss is None else loss.detach().cpu()

    def _batches(self, loader: DataLoader, config: TrainConfig) -> Iterator[Any]:
        """Return the batches of all epochs, at most `max_nr_batches` of them in all.

        Raises:
            LimitExceeded: these are more than this worker's owner allows.
        """
        limit = math.ceil(config.max_nr_batches) if config.max_nr_batches >= 0 else None
        call = running_call.get()
        if call is not None:
            steps = config.epochs * len(loader)
            call.budget.check_steps(steps if limit is None else min(limit, steps))
        epochs = (self._accounted(loader) for _ in range(config.epochs))
        return islice(chain.from_iterable(epochs), limit)

    def _accounted(self, loader: DataLoader) -> Iterator[Any]:
        """Yield batches for as long as somebody waits for the result; enter them in the account of the call."""
        call = running_call.get()
        for batch in loader:
            if call is not None:
                if call.abandoned.is_set():
                    raise CallAbandoned(self._name())
                call.budget.spend(len(batch[-1]))
            yield batch

    def _model_and_loss(self, dataset_key: str) -> tuple[Any, Any]:
        self._check_train_config()
        if dataset_key not in self.datasets:
            raise DatasetNotFound(self._name(), str(dataset_key), [str(key) for key in self.datasets])
        if len(self.datasets[dataset_key]) == 0:
            raise DatasetEmpty(self._name(), dataset_key)
        config = self._config()
        model, loss_fn = (self._wrapped(obj_id) for obj_id in (config._model_id, config._loss_fn_id))
        return model, loss_fn

    def _wrapped(self, obj_id: ObjectId | None) -> Any:
        """Return what is in the ObjectWrapper with this id; a config without a model sent None."""
        wrapper = None if obj_id is None else self.get_obj(obj_id)
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
        """Return the seeds of the fit that begins: the one that was asked for, or one more of the worker's own."""
        call = self._running_call()
        if call is not None and call.fit_number is not None:
            number, call.fit_number = call.fit_number, None
        else:
            number = (self._session if call is None else call.session).count_fit(self._training())
        return fit_seeds(getattr(self._config(), "seed", 0), self._name(), number)

    def _training(self) -> TrainingState:
        call = self._running_call()
        return self._session.training if call is None else call.training

    def _running_call(self) -> RunningCall | None:
        """Return the coordinator's call that runs, if there is one."""
        call = running_call.get()
        return call if call is not None and call.worker is self else None

    def _config(self) -> TrainConfig:
        self._check_train_config()
        return self.train_config  # type: ignore[return-value]

    def _name(self) -> str:
        return str(getattr(self, "id", type(self).__name__))


def optimizer_names() -> list[str]:
    """Return the names of the optimizers of torch.optim."""
    return sorted(
        name
        for name, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
    )


@contextmanager
def _on_device(model: Any, device: torch.device | str) -> Iterator[None]:
    """Have the model on a device, and on the CPU again afterwards. Functions and CPU models cost nothing."""
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


def _in_threads(threads: int, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Yield the function's result for each item, in their order; so many at a time, and few more read ahead."""
    if threads <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        results: deque[Future[Any]] = deque()
        for item in items:
            results.append(pool.submit(copy_context().run, function, item))  # what bounds this call bounds its threads
            if len(results) > 2 * threads:
                yield results.popleft().result()
        while results:
            yield results.popleft().result()


def _classes(output: Any, target: torch.Tensor, threshold: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the predicted and the true classes of a batch, of the same shape.

    Args:
        output: what the model returned: (N, C, ...) scores, or one number a sample, (N,) or (N, 1, ...).
        target: the targets; classes.
        threshold: above it, one number means class 1.

    Raises:
        ValueError: as FederatedClient.evaluate.
    """
    if not isinstance(output, torch.Tensor):
        raise _uncountable(f"the model returned a {type(output).__name__}", "one tensor")
    shape, one_column = tuple(output.shape), output.dim() < 2 or output.shape[1] == 1
    if not one_column:
        if threshold is not None:
            observed = f"the model's output has the shape {shape}, and threshold is {threshold}"
            raise _uncountable(observed, "one column, or no threshold")
        pred = output.argmax(dim=1)
        return pred, target.view_as(pred)
    observed = f"the model's output has the shape {shape}"
    if threshold is None:
        advice = "Pass threshold=0 if it is a logit, threshold=0.5 if it is a probability. "
        raise _uncountable(observed, "a column for each class, or a threshold", advice)
    if target.numel() != output.numel():
        raise _uncountable(f"{observed}, the targets have {tuple(target.shape)}", "one target for each number")
    if not bool(((target == 0) | (target == 1)).all()):  # which ones they are is not told: they are the owner's
        raise _uncountable(f"{observed}, and some targets are neither 0 nor 1", "two classes, 0 and 1")
    return (output > threshold).reshape(-1), target.reshape(-1).bool()


def _uncountable(observed: str, expected: str, advice: str = "") -> ValueError:
    loss_alone = "For the loss alone, pass return_raw_accuracy=False and ask for no histograms."
    return ValueError(f"evaluate() cannot count predictions: {observed}; expected {expected}. {advice}{loss_alone}")


def _histogram(classes: torch.Tensor, nr_bins: int) -> np.ndarray:
    return torch.histc(classes.cpu().double(), bins=nr_bins, min=0, max=nr_bins).numpy()
