"""Datasets as workers hold them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate


class BaseDataset(Dataset):
    """Inputs and targets, with an optional transform of the inputs.

    Source: PySyft 0.2.4, `syft.frameworks.torch.fl.BaseDataset`. The transform gets each input as a numpy array,
    which is what torchvision's `ToTensor` expects; an image of shape (H, W) becomes a tensor (1, H, W).

    Args:
        data: the inputs: a tensor, an array or a list; one element a sample.
        targets: the targets, in the same order.
        transform: applied to each input when it is read; its result becomes a tensor.
        owner: accepted for PySyft 0.2 programs and kept as an attribute.

    Raises:
        ValueError: `data` and `targets` have different lengths.
    """

    def __init__(
        self, data: Any, targets: Any, transform: Callable[..., Any] | None = None, owner: Any = None, **kwargs: Any
    ) -> None:
        if len(data) != len(targets):
            raise ValueError(
                f"data and targets differ in length: {len(data)} and {len(targets)}; each sample needs one of each."
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
            sample = torch.as_tensor(self.transform_(sample.detach().numpy() if is_tensor else sample))
        return sample, self.targets[index]

    def __getitems__(self, indices: list[int]) -> list[tuple[Any, Any]]:
        """Return the samples with these indices; DataLoader calls this for each batch."""
        batch = self.batch(indices)
        return [self[index] for index in indices] if batch is None else list(zip(*batch, strict=True))

    def batch(self, indices: list[int] | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the samples with these indices as one batch of inputs and one of targets; None if that cannot be.

        It can be where inputs and targets are tensors, and images that are transformed are only converted and
        normalised: all of them at once then, with the same result to the bit.
        """
        convert = _batched(self.transform_, self.data)
        in_tensors = isinstance(self.data, torch.Tensor) and isinstance(self.targets, torch.Tensor)
        if convert is None or not in_tensors or type(self).__getitem__ is not BaseDataset.__getitem__:
            return None
        return convert(self.data[indices]), self.targets[indices]

    def transform(self, transform: Callable[[Any], Any]) -> None:
        """Replace all inputs by `transform` of them, at once.

        Raises:
            TypeError: the inputs are not one tensor.
        """
        if not isinstance(self.data, torch.Tensor):
            raise TypeError(f"transform() needs data in one torch.Tensor; it is in a {type(self.data).__name__}.")
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
    """A dataset whose samples are batches of another's, as a DataLoader would make them.

    Args:
        dataset: the other: any map-style dataset.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitem__(self, indices: torch.Tensor) -> Any:
        """Return the samples with these indices, (n,) int64, as a batch."""
        dataset = self._dataset
        batch = dataset.batch(indices) if isinstance(dataset, BaseDataset) else None
        if batch is not None:
            return batch
        numbers = indices.tolist()
        many = hasattr(dataset, "__getitems__")
        return default_collate(dataset.__getitems__(numbers) if many else [dataset[number] for number in numbers])


def _batched(transform: Any, data: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return what does to a batch of images what torchvision's ToTensor (and Normalize) do to each; None if unknown.

    Image by image, these two cost a third as much as training on the image.
    """
    if transform is None:
        return lambda inputs: inputs
    steps = getattr(transform, "transforms", [transform])
    names = [type(step).__name__ for step in steps if type(step).__module__ == "torchvision.transforms.transforms"]
    is_images = isinstance(data, torch.Tensor) and data.dtype == torch.uint8 and data.dim() == 3
    if not is_images or len(names) != len(steps) or names not in (["ToTensor"], ["ToTensor", "Normalize"]):
        return None

    def convert(images: torch.Tensor) -> torch.Tensor:
        batch = images.unsqueeze(1).to(torch.get_default_dtype()).div(255)
        return steps[1](batch) if len(steps) == 2 else batch

    return convert
