"""Datasets as workers hold them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate


class BaseDataset(Dataset):
    """Inputs and targets, with an optional transform of the inputs.

    Source: PySyft 0.2.4, `syft.frameworks.torch.fl.BaseDataset`. The transform gets each input as a
    numpy array, which is what torchvision's `ToTensor` expects; an image of shape (H, W) becomes a
    tensor (1, H, W).

    Args:
        data: the inputs: a tensor, an array or a list; one element a sample.
        targets: the targets, in the same order.
        transform: applied to each input when it is read; its result becomes a tensor.
        owner: accepted for PySyft 0.2 programs and kept as an attribute.

    Raises:
        ValueError: `data` and `targets` have different lengths.
    """

    def __init__(
        self,
        data: Any,
        targets: Any,
        transform: Callable[..., Any] | None = None,
        owner: Any = None,
        **kwargs: Any,
    ) -> None:
        if len(data) != len(targets):
            raise ValueError(
                f"data and targets differ in length: {len(data)} and {len(targets)}; each sample "
                "needs one of each."
            )
        self.data = data
        self.targets = targets
        self.transform_ = transform
        self.owner = owner

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
        batch = _whole_batch(self, indices)
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

    def get_data(self) -> Any:
        """Return the inputs."""
        return self.data

    def get_targets(self) -> Any:
        """Return the targets."""
        return self.targets

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} samples)"


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
        batch = _whole_batch(dataset, indices) if isinstance(dataset, BaseDataset) else None
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


def _whole_batch(dataset: BaseDataset, indices: list[int]) -> tuple[torch.Tensor, Any] | None:
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
