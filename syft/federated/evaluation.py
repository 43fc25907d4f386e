"""What a worker's evaluation came to, before anything is made of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from syft.exceptions import InvalidReply
from syft.objects import ObjectId

_NUMBERS = ("loss", "nr_correct_predictions", "nr_predictions")


def checked_evaluation(worker_id: ObjectId, result: Any, nr_bins: int = 0) -> dict[str, Any]:
    """Return the result of `worker.evaluate(..., return_histograms=True)` as it came.

    Args:
        worker_id: id of the worker that it came from, for errors.
        result: what the worker returned.
        nr_bins: number of bins of its two histograms; 0: it has none.

    Raises:
        InvalidReply: a count or the loss is missing or no number, or a histogram has other bins or
            no counts in them.
    """
    worker = str(worker_id)
    if not isinstance(result, dict):
        raise InvalidReply(worker, "an evaluation", type(result).__name__, "a dict")
    for name in _NUMBERS:
        value = result.get(name)
        types = (int, float) if name == "loss" else int
        if (
            isinstance(value, bool)
            or not isinstance(value, types)
            or (name != "loss" and value < 0)
        ):
            raise InvalidReply(worker, f"an evaluation's {name!r}", f"{value!r:.60}", "a number")
    if (
        not 0 <= result["nr_correct_predictions"] <= result["nr_predictions"]
        or result["nr_predictions"] == 0
    ):
        counts = f"{result['nr_correct_predictions']} of {result['nr_predictions']}"
        raise InvalidReply(
            worker, "an evaluation's correct predictions", counts, "at most as many as predictions"
        )
    for name in ("histogram_predictions", "histogram_target") if nr_bins else ():
        histogram = result.get(name)
        if not (isinstance(histogram, np.ndarray) and _holds_counts(histogram, nr_bins)):
            raise InvalidReply(
                worker, f"an evaluation's {name!r}", f"{histogram!r:.60}", f"{nr_bins} counts"
            )
    return result


def _holds_counts(histogram: np.ndarray, nr_bins: int) -> bool:
    """Whether an array has one count for each bin.

    Sums and percentages of NaN or infinity would fail later on.
    """
    numbers = histogram.shape == (nr_bins,) and histogram.dtype.kind in "fiu"
    return numbers and bool(np.all(np.isfinite(histogram) & (histogram >= 0)))
