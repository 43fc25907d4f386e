"""Datasets: in this process, on a worker, or spread over several.

BaseDataset         inputs and targets: tensors or, once they are sent, pointers to a worker's
dataset_federate    cuts any dataset into parts, one for each worker
FederatedDataset    these parts, by the ids of their workers
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate

from syft.objects import ID_PROVIDER, ObjectId, registry

logger = logging.getLogger(__name__)


class BaseDataset(Dataset):
    """Inputs and targets, with an optional transform of the inputs.

    Source: PySyft 0.2.4, `syft.frameworks.torch.fl.BaseDataset`. The transform gets each input as a
    numpy array, which is what torchvision's `ToTensor` expects; an image of shape (H, W) becomes a
    tensor (1, H, W).

    Args:
        data: the inputs: a tensor, an array, a list, or a pointer to a tensor; one element a
            sample.
        targets: the targets, in the same order.
        transform: applied to each input when it is read; its result becomes a tensor. Not for
            pointers.
        owner: accepted for PySyft 0.2 programs and kept; None: the local worker.
        id: the dataset's id; None: a new one.
        tags: words that `search` finds the tensors by, once they are on a worker.
        description: free text that goes with the tags.

    Raises:
        ValueError: `data` and `targets` have different lengths, or there is a transform of inputs
            that are on a worker.
    """

    def __init__(
        self,
        data: Any,
        targets: Any,
        transform: Callable[..., Any] | None = None,
        owner: Any = None,
        id: ObjectId | None = None,
        tags: Iterable[str] | None = None,
        description: str | None = None,
        **kwargs: Any,
    ) -> None:
        if len(data) != len(targets):
            raise ValueError(
                f"data and targets differ in length: {len(data)} and {len(targets)}; each sample "
                "needs one of each."
            )
        if transform is not None and _location(data) is not None:
            raise ValueError(
                f"these inputs are on worker {_location(data).id!r}, where a transform cannot run; "
                "expected inputs of this process. Transform them before they are sent."
            )
        self.data = data
        self.targets = targets
        self.transform_ = transform
        self._owner = owner
        self.id = ID_PROVIDER.pop() if id is None else id
        self.tags = set(tags) if tags is not None else None
        self.description = description

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return the input (transformed) and the target with this index."""
        sample = self.data[index]
        if self.transform_ is not None:
            is_tensor = isinstance(sample, torch.Tensor)
            sample = torch.as_tensor(
                self.transform_(sample.detach().numpy() if is_tensor else sample)
            )
        return sample, self.targets[index]

    def __getitems__(self, indices: list[int]) -> list[tuple[Any, Any]]:
        """Return the samples with these indices; DataLoader calls this for each batch."""
        batch = whole_batch(self, indices)
        return (
            [self[index] for index in indices] if batch is None else list(zip(*batch, strict=True))
        )

    def transform(self, transform: Callable[[Any], Any]) -> None:
        """Replace all inputs by `transform` of them, at once.

        Raises:
            TypeError: the inputs are not one tensor.
        """
        if not isinstance(self.data, torch.Tensor):
            raise TypeError(
                "transform() needs data in one torch.Tensor; it is in a "
                f"{type(self.data).__name__}."
            )
        self.data = transform(self.data)

    @property
    def owner(self) -> Any:
        """Who was given as the owner; else the local worker."""
        # It is no attribute, since a dataset is copied and pickled, and a worker is not.
        return registry.local_worker if self._owner is None else self._owner

    def get_data(self) -> Any:
        """Return the inputs."""
        return self.data

    def get_targets(self) -> Any:
        """Return the targets."""
        return self.targets

    @property
    def location(self) -> Any:
        """The worker that holds the samples.

        Raises:
            AttributeError: they are in this process.
        """
        location = _location(self.data)
        if location is None:
            raise AttributeError(
                f"{self!r} has no location: its samples are in this process. "
                "To send them to a worker, call .send(worker)."
            )
        return location

    def tag(self, *tags: str) -> BaseDataset:
        """Add tags, which the tensors get when they are sent, and return this dataset."""
        self.tags = {*(self.tags or ()), *tags}
        return self

    def describe(self, description: str) -> BaseDataset:
        """Set the description, which the tensors get when they are sent; return this dataset."""
        self.description = description
        return self

    def send(self, location: Any) -> BaseDataset:
        """Send the samples to a worker, and return this dataset, which then has pointers to them.

        Source: PySyft 0.2.3. Version 0.2.4 returned a pointer to a copy. The transform is applied
        to all samples now, once, and then gone: one that draws random numbers draws no more.

        Args:
            location: the worker, or its id.

        Raises:
            ValueError: the samples are on a worker already, or do not make one tensor.
            WorkerNotFoundException: no worker of this process has this id (also a KeyError).
        """
        _check_is_here(self, "send")
        worker = registry.local_worker.get_worker(location)
        is_ready = self.transform_ is None and all(
            isinstance(part, torch.Tensor) for part in (self.data, self.targets)
        )
        # Subclasses that read samples in their own way do so on the worker.
        raw = BaseDataset(self.data, self.targets, self.transform_)
        tensors = (self.data, self.targets) if is_ready else _samples(raw, list(range(len(self))))
        self.data, self.targets = (self._send_tensor(tensor, worker) for tensor in tensors)
        self.transform_ = None
        return self

    def _send_tensor(self, tensor: torch.Tensor, worker: Any) -> Any:
        if self.tags:
            tensor.tags = {*(getattr(tensor, "tags", None) or ()), *self.tags}  # type: ignore[attr-defined]
        if self.description is not None:
            tensor.description = self.description  # type: ignore[attr-defined]
        return registry.local_worker.send(tensor, worker)

    def get(self) -> BaseDataset:
        """Fetch the samples; the worker keeps no copy. Return this dataset.

        Raises:
            ValueError: they are in this process.
        """
        if _location(self.data) is None:
            raise ValueError(
                f"cannot get {self!r}: its samples are in this process; expected pointers, as "
                ".send(worker) makes them. Nothing is left to do."
            )
        self.data, self.targets = self.data.get(), self.targets.get()
        return self

    def federate(self, workers: Iterable[Any]) -> FederatedDataset:
        """Cut the samples into parts, one for each worker; see dataset_federate()."""
        return dataset_federate(self, workers)

    def __repr__(self) -> str:
        location = _location(self.data)
        where = "" if location is None else f" on worker {location.id!r}"
        return f"{type(self).__name__}({len(self)} samples{where})"


class FederatedDataset:
    """Datasets on several workers, by the ids of their workers.

    Source: PySyft 0.2.4, `syft.FederatedDataset`, which kept only the last one of two datasets on a
    worker.

    Args:
        datasets: BaseDatasets that were sent, or that hold pointers; one for each worker.

    Attributes:
        datasets: worker id -> dataset.

    Raises:
        ValueError: a dataset is in this process, or on two workers, or two are on the same one.
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets: dict[ObjectId, Any] = {}
        for number, dataset in enumerate(datasets):
            worker_id = _worker_id(dataset, number)
            if worker_id in self.datasets:
                raise ValueError(
                    f"two datasets are on worker {worker_id!r}; expected one for each worker. Join "
                    "their data and their targets with torch.cat, or federate them apart."
                )
            self.datasets[worker_id] = dataset

    @property
    def workers(self) -> list[ObjectId]:
        """The ids of the workers, in the order of the datasets."""
        return list(self.datasets)

    def __getitem__(self, worker_id: ObjectId) -> Any:
        return self.datasets[worker_id]

    def __len__(self) -> int:
        return sum(map(len, self.datasets.values()))

    def get_dataset(self, worker: Any) -> Any:
        """Take a worker's dataset out of this one, fetch its samples and return it.

        Source: PySyft 0.2.6.

        Args:
            worker: the worker, or its id.

        Raises:
            KeyError: this worker has none.
        """
        worker_id = getattr(worker, "id", worker)
        dataset = self.datasets[worker_id].get()
        del self.datasets[worker_id]
        return dataset

    def __repr__(self) -> str:
        workers = ", ".join(map(str, self.workers))
        return f"{type(self).__name__}({len(self)} samples on: {workers})"


def dataset_federate(dataset: Any, workers: Iterable[Any]) -> FederatedDataset:
    """Cut a dataset into consecutive parts of equal size and send one to each worker.

    Source: PySyft 0.2.4, where it was a method of every torch.utils.data.Dataset, as it is here
    once a TorchHook was made.

    Args:
        dataset: any map-style dataset whose samples are an input and a target. Not modified. Each
            sample is read once, so that its transforms are applied here and now.
        workers: the workers, or their ids, in the order of the parts. Each gets
            ceil(samples / workers) samples and the last one the rest. If nothing is left for a
            worker, a warning is logged.

    Raises:
        TypeError: `dataset` has no length.
        ValueError: there are no samples or no workers; or a sample is not a pair; or the samples do
            not make tensors; or they are on a worker already.
        WorkerNotFoundException: no worker of this process has one of the ids (also a KeyError).
    """
    _check_is_here(dataset, "federate")
    receivers = [registry.local_worker.get_worker(worker) for worker in workers]
    if not hasattr(dataset, "__len__"):
        raise TypeError(
            f"cannot federate a {type(dataset).__name__}: it has no length; expected a map-style "
            "dataset. Read its samples into a BaseDataset first."
        )
    samples = len(dataset)
    if not samples or not receivers:
        raise ValueError(
            f"cannot federate {samples} samples over {len(receivers)} workers; expected at least "
            "one of each."
        )
    size = math.ceil(samples / len(receivers))
    source, datasets = _converted_at_once(dataset), []
    for number, worker in enumerate(receivers):
        part = list(range(number * size, min((number + 1) * size, samples)))
        if not part:
            logger.warning("no samples are left for worker %s: %d in all", worker.id, samples)
            continue
        logger.info("sending %d of %d samples to worker %s", len(part), samples, worker.id)
        datasets.append(BaseDataset(*_samples(source, part)).send(worker))
    return FederatedDataset(datasets)


class Batches(Dataset):
    """A dataset that hands out samples in whole batches.

    It is for a DataLoader with `collate_fn=Batches.collate`.

    Args:
        dataset: where the samples come from: any map-style dataset. Its attributes are this one's
            too.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        if name == "_dataset":  # it is not set yet
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index]

    def __getitems__(self, indices: list[int]) -> Any:
        """Return the samples with these indices as a batch."""
        dataset = self._dataset
        batch = whole_batch(dataset, indices) if isinstance(dataset, BaseDataset) else None
        if batch is not None:
            inputs, targets = batch
            return inputs, targets if isinstance(targets, torch.Tensor) else default_collate(
                targets
            )
        many = hasattr(dataset, "__getitems__")
        return default_collate(
            dataset.__getitems__(indices) if many else [dataset[index] for index in indices]
        )

    @staticmethod
    def collate(batch: Any) -> Any:
        """Return what is a batch already."""
        return batch


def _location(data: Any) -> Any:
    """Return the worker that holds the tensor that `data` points to; None if it is here."""
    return getattr(data, "location", None)


def _check_is_here(dataset: Any, action: str) -> None:
    location = _location(getattr(dataset, "data", None))
    if location is not None:
        raise ValueError(
            f"cannot {action} {dataset!r}: its samples are on worker {location.id!r}; expected "
            "samples of this process. Call .get() first."
        )


def _worker_id(dataset: Any, number: int) -> ObjectId:
    """Return the id of the one worker that holds a dataset of a FederatedDataset."""
    locations = [_location(part) for part in (dataset.data, dataset.targets)]
    ids = [getattr(location, "id", None) for location in locations]
    if None in locations or ids[0] != ids[1]:
        places = [
            "in this process" if one is None else f"on worker {one.id!r}" for one in locations
        ]
        raise ValueError(
            f"dataset {number} is not on one worker: its data are {places[0]}, its targets "
            f"{places[1]}. Send both to the same worker first: dataset.send(worker)."
        )
    return ids[0]  # type: ignore[return-value]


def _samples(dataset: Any, indices: list[int]) -> tuple[Any, Any]:
    """Return the samples with these indices as one tensor of inputs and one of targets."""
    name = type(dataset).__name__
    try:
        batch = Batches(dataset).__getitems__(indices)
    except (RuntimeError, TypeError) as reason:
        raise ValueError(
            f"the samples of this {name} do not make one tensor: {reason}; expected inputs and "
            "targets of one size and type each. Change them first, by a transform for example."
        ) from reason
    if not isinstance(batch, (list, tuple)) or len(batch) != 2:
        parts = len(batch) if isinstance(batch, (list, tuple)) else 1
        raise ValueError(
            f"a sample of this {name} has {parts} parts; expected two: an input and a target."
        )
    return batch[0], batch[1]


def _converted_at_once(dataset: Any) -> Any:
    """Return torchvision's MNIST, or one of its kin, as a BaseDataset; any other as it is.

    Its images become the same tensors, to the bit, but all at once: in a tenth of the time.
    """
    read = type(dataset).__getitem__
    is_mnist = (read.__module__, read.__qualname__) == (
        "torchvision.datasets.mnist",
        "MNIST.__getitem__",
    )
    if not is_mnist or dataset.transform is None or dataset.target_transform is not None:
        return dataset
    whole = BaseDataset(dataset.data, dataset.targets, dataset.transform)
    return dataset if _batched(whole.transform_, whole.data) is None else whole


def whole_batch(
    dataset: BaseDataset, indices: list[int] | torch.Tensor
) -> tuple[torch.Tensor, Any] | None:
    """Return samples as one batch of inputs and one of targets; None if that cannot be.

    It can be where the inputs are a tensor, and images that are transformed are only converted and
    normalised: all of them at once then, with the same result to the bit.
    """
    cls = type(dataset)
    # A subclass may compute its samples in a way of its own.
    is_ours = (
        cls.__getitem__ is BaseDataset.__getitem__ and cls.__getitems__ is BaseDataset.__getitems__
    )
    convert = _batched(dataset.transform_, dataset.data) if is_ours else None
    if convert is None or not isinstance(dataset.data, torch.Tensor):
        return None
    chosen, targets = torch.as_tensor(indices), dataset.targets
    is_tensor = isinstance(targets, torch.Tensor)
    return convert(dataset.data[chosen]), targets[chosen] if is_tensor else [
        targets[index] for index in indices
    ]


def _batched(transform: Any, data: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return a function that transforms a whole batch of images at once.

    It does to the batch what torchvision's ToTensor (and Normalize) do to each image. None if the
    transform is another one.

    Image by image, these two cost a third as much as training on the image.
    """
    if transform is None:
        return lambda inputs: inputs
    steps = getattr(transform, "transforms", [transform])
    names = [
        type(step).__name__
        for step in steps
        if type(step).__module__ == "torchvision.transforms.transforms"
    ]
    is_images = isinstance(data, torch.Tensor) and data.dtype == torch.uint8 and data.dim() == 3
    if (
        not is_images
        or len(names) != len(steps)
        or names not in (["ToTensor"], ["ToTensor", "Normalize"])
    ):
        return None

    def convert(images: torch.Tensor) -> torch.Tensor:
        batch = images.unsqueeze(1).to(torch.get_default_dtype()).div(255)
        return steps[1](batch) if len(steps) == 2 else batch

    return convert
