"""Federated averaging, robust averages, and small helpers around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from syft.exceptions import EmptyRoundError, ModelMismatchError
from syft.graph import clone

Models = Mapping[Any, nn.Module] | Sequence[nn.Module]
Weights = Mapping[Any, float] | Sequence[float]


def federated_avg(models: Models, weights: Weights | None = None) -> nn.Module:
    """Return a new model whose parameters are the weighted mean of those of `models`.

    Source: McMahan et al., AISTATS 2017, https://arxiv.org/abs/1602.05629, algorithm 1, server
    update. PySyft 0.2.4 overwrote the first model and left buffers as they were; here the inputs
    stay as they are and floating-point buffers (running means of batch normalisation, for example)
    are averaged like parameters.

    Args:
        models: worker id -> model, or a list of models; same parameter names and shapes. Plain,
            traced or scripted, on any device. Not modified.
        weights: worker id -> number of training samples, or a list in the order of `models`; each
            >= 0, their sum > 0. None: every worker counts the same.

    Returns:
        A copy of the first model on the CPU; each floating-point parameter and buffer p is
        sum_k w_k p_k / sum_k w_k (summed in double precision), of the same shape and dtype. Integer
        buffers are those of the first model.

    Raises:
        EmptyRoundError: `models` is empty.
        ModelMismatchError: a parameter is missing from one model, or has another shape or dtype
            there.
        ValueError: `weights` are not one number >= 0 for each model, or are all 0.
    """
    named = _by_id(models)
    shares = _shares(list(named), weights) if named else {}

    def mean(values: Iterator[torch.Tensor]) -> torch.Tensor:
        weighted = (share * value for share, value in zip(shares.values(), values, strict=True))
        total = next(weighted)
        for each in weighted:
            total += each
        return total

    return _combined(named, mean)


def coordinate_median(models: Models) -> nn.Module:
    """Return a new model, each of whose numbers is the median of those in `models`.

    Less than half of the models can be anything, such as noise or parameters with flipped signs:
    each number of the result still lies between numbers of the others. That suits workers whose
    data are alike. Where only one worker has seen a digit, the median leaves out what it has
    learned, as if it were the one to guard against.

    Source: Yin et al., ICML 2018, https://arxiv.org/abs/1803.01498, option I.

    Args:
        models: worker id -> model, or a list of models; as in `federated_avg`. Not modified.

    Returns:
        A copy of the first model on the CPU, as in `federated_avg`; of an even number of models,
        the mean of the two in the middle. Numbers that are no number (NaN) count as the largest.

    Raises:
        EmptyRoundError, ModelMismatchError: as in `federated_avg`.
    """
    return trimmed_mean(models, (len(models) - 1) // 2)


def trimmed_mean(models: Models, trim: int = 1) -> nn.Module:
    """Return a new model whose numbers are means without the smallest and the largest ones.

    Up to `trim` of the models can be anything, as with `coordinate_median`, which leaves out more.

    Source: Yin et al., ICML 2018, https://arxiv.org/abs/1803.01498, option II, where the numbers
    left out are a share of all.

    Args:
        models: worker id -> model, or a list of models; as in `federated_avg`. Not modified.
        trim: how many of the smallest values of each number are left out, and how many of the
            largest; 0: none, which is the mean.

    Returns:
        A copy of the first model on the CPU, as in `federated_avg`.

    Raises:
        EmptyRoundError, ModelMismatchError: as in `federated_avg`.
        ValueError: `trim` is negative, or nothing would be left of so few models.
    """
    named = _by_id(models)
    if named and not 0 <= 2 * trim < len(named):
        raise ValueError(
            f"cannot leave out {trim} models at either end: there are {len(named)}; expected at "
            f"least {2 * abs(trim) + 1}."
        )

    def middle(values: Iterator[torch.Tensor]) -> torch.Tensor:
        stacked = torch.stack(list(values))
        parts = torch.view_as_real(stacked) if stacked.is_complex() else stacked
        mean = parts.sort(dim=0).values[trim : len(stacked) - trim].mean(dim=0)
        return torch.view_as_complex(mean) if stacked.is_complex() else mean

    return _combined(named, middle)


def add_model(dst_model: nn.Module, src_model: nn.Module) -> nn.Module:
    """Return a new model with the sum of the parameters of two models. Neither is modified.

    Source: PySyft 0.2.4, which changed `dst_model`. Parameters that only `dst_model` has stay as
    they are.
    """
    result = clone(dst_model)
    others = dict(src_model.named_parameters())
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            if name in others:
                parameter.add_(others[name].to(parameter.device))
    return result


def scale_model(model: nn.Module, scale: float) -> nn.Module:
    """Return a new model with the parameters of `model` times `scale`. `model` is not modified."""
    result = clone(model)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.mul_(scale)
    return result


def extract_batches_per_worker(
    federated_train_loader: Iterable[tuple[Any, Any]],
) -> dict[Any, list[tuple[Any, Any]]]:
    """Return worker -> its batches, in the order of the loader.

    Source: PySyft 0.2.4, where the argument is a FederatedDataLoader; here any iterable of batches
    will do.

    Args:
        federated_train_loader: batches of data and target; `data.location` is the worker that holds
            them. Where it has `workers`, ids in `federated_dataset.datasets`, their order is that
            of the result, and a worker without a batch has an empty list. Otherwise the workers
            come in the order of their first batches.

    Raises:
        TypeError: the data of a batch have no location.
    """
    ids = getattr(federated_train_loader, "workers", ())
    batches: dict[Any, list[tuple[Any, Any]]] = {
        federated_train_loader.federated_dataset.datasets[worker_id].location: []  # type: ignore[attr-defined]
        for worker_id in ids
    }
    for number, (data, target) in enumerate(federated_train_loader):
        location = getattr(data, "location", None)
        if location is None:
            raise TypeError(
                f"batch {number} belongs to no worker: its data are a {type(data).__name__}; "
                "expected a pointer, which has a location. Send the data to a worker first."
            )
        batches.setdefault(location, []).append((data, target))
    return batches


def accuracy(pred_softmax: torch.Tensor, target: torch.Tensor) -> float:
    """Return the share of correct predictions.

    Args:
        pred_softmax: (N, C) scores; the class with the highest score is the prediction.
        target: (N,) or (N, 1) classes.
    """
    pred = pred_softmax.argmax(dim=1)
    return (pred == target.view(pred.shape)).sum().item() / len(target)


def create_gaussian_mixture_toy_data(nr_samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a balanced two-class toy dataset.

    Its points lie around (-5, -5) and around (5, 5), with deviation 1.

    Args:
        nr_samples: number of samples; rounded down to an even number.

    Returns:
        data: (nr_samples, 2) float32. targets: (nr_samples,) int64, 0 for the first half and 1 for
            the second.
    """
    half = nr_samples // 2
    data = torch.cat([torch.randn(half, 2) - 5, torch.randn(half, 2) + 5])
    return data, torch.cat([torch.zeros(half), torch.ones(half)]).long()


def iris_data_partial() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first ten samples of each class of the iris data set.

    Source: R. A. Fisher (1936), https://archive.ics.uci.edu/dataset/53/iris.

    Returns:
        data: (30, 4) float32, lengths and widths of sepals and petals in cm. targets: (30,) int64,
            classes 0, 1, 2.
    """
    rows = """
        5.1 3.5 1.4 0.2   4.9 3.0 1.4 0.2   4.7 3.2 1.3 0.2   4.6 3.1 1.5 0.2   5.0 3.6 1.4 0.2
        5.4 3.9 1.7 0.4   4.6 3.4 1.4 0.3   5.0 3.4 1.5 0.2   4.4 2.9 1.4 0.2   4.9 3.1 1.5 0.1
        7.0 3.2 4.7 1.4   6.4 3.2 4.5 1.5   6.9 3.1 4.9 1.5   5.5 2.3 4.0 1.3   6.5 2.8 4.6 1.5
        5.7 2.8 4.5 1.3   6.3 3.3 4.7 1.6   4.9 2.4 3.3 1.0   6.6 2.9 4.6 1.3   5.2 2.7 3.9 1.4
        6.3 3.3 6.0 2.5   5.8 2.7 5.1 1.9   7.1 3.0 5.9 2.1   6.3 2.9 5.6 1.8   6.5 3.0 5.8 2.2
        7.6 3.0 6.6 2.1   4.9 2.5 4.5 1.7   7.3 2.9 6.3 1.8   6.7 2.5 5.8 1.8   7.2 3.6 6.1 2.5
    """
    data = torch.tensor([float(value) for value in rows.split()]).view(30, 4)
    return data, torch.arange(3).repeat_interleave(10)


def _combined(
    models: Mapping[Any, nn.Module], combine: Callable[[Iterator[torch.Tensor]], torch.Tensor]
) -> nn.Module:
    """Return a copy of the first model whose floating-point tensors are combined ones.

    Args:
        models: worker id -> model. Not modified.
        combine: makes one tensor of those of all models, which come in double precision and in the
            order of the models.

    Raises:
        EmptyRoundError, ModelMismatchError: as in `federated_avg`.
    """
    if not models:
        raise EmptyRoundError
    tensors = {model_id: dict(_named_tensors(model)) for model_id, model in models.items()}
    first = next(iter(tensors))
    for model_id in models:
        check_same_structure(str(model_id), tensors[model_id], tensors[first])
    result: nn.Module = clone(models[first]).cpu()
    with torch.no_grad():
        for name, target in _named_tensors(result):
            if target.is_floating_point() or target.is_complex():
                # One at a time: all models in double precision may be more than fits into memory.
                target.copy_(combine(_wide(each[name]) for each in tensors.values()))
    return result


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _by_id(models: Models) -> dict[Any, nn.Module]:
    return dict(models) if isinstance(models, Mapping) else dict(enumerate(models))


def _shares(model_ids: list[Any], weights: Weights | None) -> dict[Any, float]:
    """Return model id -> share; the shares sum to 1."""
    if weights is None:
        return dict.fromkeys(model_ids, 1 / len(model_ids))
    numbers = (
        dict(weights)
        if isinstance(weights, Mapping)
        else dict(zip(model_ids, weights, strict=False))
    )
    if numbers.keys() != set(model_ids) or len(weights) != len(model_ids):
        raise ValueError(
            f"weights do not fit the models: {weights}; expected one for each of {model_ids}."
        )
    total = float(sum(numbers.values()))
    if not (min(numbers.values()) >= 0 and 0 < total < float("inf")):
        raise ValueError(
            f"weights cannot be averaged with: {weights}; expected numbers >= 0 whose sum is "
            "above 0."
        )
    return {model_id: float(numbers[model_id]) / total for model_id in model_ids}


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().to(torch.complex128 if tensor.is_complex() else torch.float64)


def check_same_structure(
    model: str, tensors: Mapping[str, torch.Tensor], first: Mapping[str, torch.Tensor]
) -> None:
    """Raise ModelMismatchError if two models differ in names, shapes or dtypes of their tensors."""
    for name in {**first, **tensors}:
        observed, expected = _describe(tensors.get(name)), _describe(first.get(name))
        if observed != expected:
            raise ModelMismatchError(model, name, observed, expected)


def _describe(tensor: torch.Tensor | None) -> str:
    return "missing" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}"
