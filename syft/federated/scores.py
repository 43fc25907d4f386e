"""What an evaluation measures: the score of each batch, and their sum.

    batch -> model -> output, target -> Scorer.score -> Score --+
    batch -> model -> output, target -> Scorer.score -> Score --+--> Scorer.total -> what evaluate()
    ...                                                         |                    returns

Scores are made in whatever thread a batch is computed in, and added up in one. They hold sums, not
means: batches differ in size, and the mean of means is not the mean loss per sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

MAX_BINS = 10_000
"""The most bins of a histogram that evaluate() returns: as many classes as there may be."""


@dataclass(frozen=True)
class Score:
    """The score of one batch; what was not asked for is 0.

    Attributes:
        size: number of samples.
        loss: sum of their losses.
        correct: number of correct predictions.
        histograms: (2, nr_bins) counts, of the predictions and of the targets.
    """

    size: int
    loss: float
    correct: int
    histograms: np.ndarray


class Scorer:
    """Scores batches by what was asked for.

    Args:
        loss: whether to compute the loss.
        accuracy: whether to count correct predictions.
        histograms: whether to count predictions and targets by class.
        nr_bins: number of classes of the histograms.
        threshold: as FederatedClient.evaluate.

    Raises:
        ValueError: the threshold is no number; or histograms are asked for and `nr_bins` is below 1
            or above MAX_BINS.
    """

    def __init__(
        self, loss: bool, accuracy: bool, histograms: bool, nr_bins: int, threshold: float | None
    ) -> None:
        if threshold is not None and type(threshold) not in (int, float):
            raise ValueError(
                f"threshold is a {type(threshold).__name__}; expected a number, or None."
            )
        if histograms and not 1 <= nr_bins <= MAX_BINS:
            raise ValueError(
                f"no histograms: nr_bins is {nr_bins}; expected the number of classes, from 1 to "
                f"{MAX_BINS:,}."
            )
        self._loss = loss
        self._accuracy = accuracy
        self._histograms = histograms
        self._nr_bins = nr_bins if histograms else 0
        self._threshold = threshold

    def score(self, output: Any, target: torch.Tensor, loss_fn: Callable[..., Any]) -> Score:
        """Return the score of one batch.

        Args:
            output: what the model returned.
            target: the targets.
            loss_fn: returns the mean loss of the batch.

        Raises:
            ValueError: there is no class to predict, as FederatedClient.evaluate.
        """
        loss, correct, histograms = 0.0, 0, np.zeros((2, self._nr_bins))
        if self._accuracy or self._histograms:
            pred, expected = _classes(output, target, self._threshold)
            correct = int((pred == expected).sum())
            if self._histograms:
                histograms += [_histogram(each, self._nr_bins) for each in (pred, expected)]
        if self._loss:
            loss = loss_fn(output, target).item() * len(target)
        return Score(len(target), loss, correct, histograms)

    def total(self, scores: Iterable[Score]) -> dict[str, Any]:
        """Return the result of an evaluation, of at least one batch, under the names of PySyft."""
        count, loss, correct, histograms = 0, 0.0, 0, np.zeros((2, self._nr_bins))
        for score in scores:
            count += score.size
            loss += score.loss
            correct += score.correct
            histograms += score.histograms
        result: dict[str, Any] = {}
        if self._loss:
            result["loss"] = loss / count
        if self._accuracy:
            result |= {"nr_correct_predictions": correct, "nr_predictions": count}
        if self._histograms:
            result |= {"histogram_predictions": histograms[0], "histogram_target": histograms[1]}
        return result


def _classes(
    output: Any, target: torch.Tensor, threshold: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the predicted and the true classes of a batch, of the same shape.

    Args:
        output: what the model returned: (N, C, ...) scores, or one number a sample, (N,) or
            (N, 1, ...).
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
        raise _uncountable(
            f"{observed}, the targets have {tuple(target.shape)}", "one target for each number"
        )
    # Which ones they are is not told: they are the owner's.
    if not bool(((target == 0) | (target == 1)).all()):
        raise _uncountable(
            f"{observed}, and some targets are neither 0 nor 1", "two classes, 0 and 1"
        )
    return (output > threshold).reshape(-1), target.reshape(-1).bool()


def _uncountable(observed: str, expected: str, advice: str = "") -> ValueError:
    loss_alone = "For the loss alone, pass return_raw_accuracy=False and ask for no histograms."
    return ValueError(
        f"evaluate() cannot count predictions: {observed}; expected {expected}. "
        f"{advice}{loss_alone}"
    )


def _histogram(classes: torch.Tensor, nr_bins: int) -> np.ndarray:
    return torch.histc(classes.cpu().double(), bins=nr_bins, min=0, max=nr_bins).numpy()
