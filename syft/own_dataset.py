"""The dataset that a worker's owner names on the command line.

What cannot be trained on is an error where the worker is started, before any coordinator meets it;
what torch will most likely refuse is a warning there.
"""

from __future__ import annotations

import os
import pkgutil
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, default_collate

from syft.frameworks.torch.fl.dataset import BaseDataset

EXPECTED = (
    "expected a map-style dataset, such as sy.BaseDataset(data, targets), a class with __len__ and "
    "__getitem__, or a list of pairs"
)


class DatasetNotLoaded(Exception):
    """What `--dataset` names cannot be used; the text is one line that tells why."""


def load_dataset(function: str, *args: str) -> Any:
    """Return the dataset that a function makes.

    Args:
        function: `module:function`.
        args: its arguments.

    Raises:
        DatasetNotLoaded: there is no such function, or it fails, or what it returns is no dataset.
            A failure inside the module is shown with its traceback first.
    """
    shown = f"{function}({', '.join(map(repr, args))})"
    try:
        # Named by the owner of this process on the command line, never by a coordinator.
        load = pkgutil.resolve_name(function)
    except ValueError:
        raise DatasetNotLoaded(f"{function!r} is no MODULE:FUNCTION, e.g. hospital:load") from None
    except (ImportError, AttributeError) as error:
        if _inside(error, function):
            traceback.print_exc()
        raise DatasetNotLoaded(
            f"cannot find {function!r}: {error}; looked in {os.getcwd()} and what is installed"
        ) from None
    try:
        dataset = load(*args)
    except Exception as error:
        traceback.print_exc()
        raise DatasetNotLoaded(f"{shown} failed: {type(error).__name__}: {error}") from None
    _check(shown, dataset)
    return dataset


def described(dataset: Any) -> str:
    """Return the dtypes and shapes of the first sample's inputs and target, as text."""
    *inputs, target = _tensors(dataset[0])
    return ", ".join([*(f"input {_of(each)}" for each in inputs), f"target {_of(target)}"])


def doubts_about(dataset: Any) -> Iterator[str]:
    """Yield what most models and losses of torch will not take, a sentence each."""
    *inputs, target = _tensors(dataset[0])
    if any(each.dtype == torch.float64 for each in inputs if isinstance(each, torch.Tensor)):
        yield (
            "its inputs are float64, and layers of torch are float32; return float32, or have the "
            "coordinator train model.double()"
        )
    if target.dtype in (torch.bool, torch.int8, torch.int16, torch.int32):
        yield (
            f"its targets are {_of(target).partition(' ')[0]}; losses of torch take int64 where "
            "they are classes (cross_entropy), else float32 (mse_loss, binary_cross_entropy)"
        )
    whole = dataset.data if isinstance(dataset, BaseDataset) else inputs[0]
    if count := _not_finite(whole):
        yield (
            f"{count} of its inputs' values are not finite (NaN, from missing values or text?); "
            "models that are trained on them are not either"
        )


def _check(shown: str, dataset: Any) -> None:
    """Raise DatasetNotLoaded for what cannot be trained on, as its first sample tells."""
    cls = type(dataset)
    has_both = hasattr(cls, "__len__") and hasattr(cls, "__getitem__")
    if isinstance(dataset, IterableDataset) or not has_both:
        raise DatasetNotLoaded(f"{shown} returned an object of type {cls.__name__}; {EXPECTED}")
    try:
        samples = len(dataset)
        sample = dataset[0] if samples else ()
    except Exception as error:
        traceback.print_exc()
        raise DatasetNotLoaded(
            f"{shown} returned an object of type {cls.__name__} whose first sample, [0], cannot be "
            f"read: {type(error).__name__}: {error}; {EXPECTED}"
        ) from None
    if not samples:
        raise DatasetNotLoaded(f"{shown} returned a dataset without samples")
    if not isinstance(sample, (tuple, list)) or len(sample) < 2:
        raise DatasetNotLoaded(
            f"{shown}: its first sample is of type {type(sample).__name__}; expected a pair of "
            "input and target"
        )
    *inputs, target = _tensors(sample)
    usable = [*map(_has_tensors_only, inputs), isinstance(target, torch.Tensor)]
    names = [*("an input" for _ in inputs), "a target"]
    for name, given, is_usable in zip(names, sample, usable, strict=True):
        if not is_usable:
            raise DatasetNotLoaded(
                f"{shown}: its first sample has {name} of type {type(given).__name__} "
                f"({str(given)[:40]!r}), of which no tensor can be made; expected numbers, arrays "
                "or tensors"
            )


def _tensors(sample: Any) -> list[Any]:
    """Return a sample's parts as batches of one; what cannot be one stays as it is."""
    parts = []
    for part in sample:
        try:
            parts.append(default_collate([part]))
        except (TypeError, RuntimeError):
            parts.append(part)
    return parts


def _has_tensors_only(batch: Any) -> bool:
    if isinstance(batch, Mapping):
        return all(map(_has_tensors_only, batch.values()))
    if isinstance(batch, (tuple, list)):
        return all(map(_has_tensors_only, batch))
    return isinstance(batch, torch.Tensor)


def _not_finite(values: Any) -> int:
    """Return how many of an array's or tensor's values are infinite or NaN."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return int(np.count_nonzero(~np.isfinite(values)))
    if isinstance(values, torch.Tensor) and values.is_floating_point():
        return int((~values.isfinite()).sum())
    return 0


def _of(batch: Any) -> str:
    """Return dtype and shape of the one sample in a batch, as text."""
    if not isinstance(batch, torch.Tensor):
        return type(batch).__name__
    return f"{str(batch.dtype).removeprefix('torch.')} {tuple(batch.shape[1:])}"


def _inside(error: Exception, function: str) -> bool:
    """Return whether an error comes from what a module does, rather than from its absence."""
    module = function.partition(":")[0]
    missing = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
    return not missing and module not in sys.modules
