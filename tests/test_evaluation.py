"""What a worker says of an evaluation, before anything is made of it."""

import numpy as np
import pytest

from syft.exceptions import InvalidReply
from syft.federated.evaluation import checked_evaluation

COUNTS = np.array([3.0, 1.0])
GOOD = {
    "loss": 0.5,
    "nr_correct_predictions": 3,
    "nr_predictions": 4,
    "histogram_predictions": COUNTS,
    "histogram_target": COUNTS,
}


def test_an_evaluation_as_asked_for_is_returned_as_it_came():
    assert checked_evaluation("testing", GOOD, nr_bins=2) is GOOD


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "an evaluation: NoneType"),
        ({"loss": None}, "'loss': None"),
        ({"loss": "low"}, "'loss': 'low'"),
        ({"nr_predictions": 0}, "3 of 0"),
        ({"nr_correct_predictions": 5}, "5 of 4"),
        ({"nr_correct_predictions": -1}, "'nr_correct_predictions': -1"),
        ({"nr_correct_predictions": True}, "'nr_correct_predictions': True"),
        ({"histogram_target": [1, 2]}, "'histogram_target': \\[1, 2\\]"),
        ({"histogram_target": np.array(["a", "b"])}, "'histogram_target'"),
        ({"histogram_predictions": np.zeros(3)}, "'histogram_predictions'"),
        ({"histogram_predictions": np.array([1.0, np.nan])}, "'histogram_predictions'"),
        ({"histogram_target": np.array([np.inf, 1.0])}, "'histogram_target'"),
        ({"histogram_target": np.array([-1, 1])}, "'histogram_target'"),
        ({"nr_correct_predictions": float("nan")}, "'nr_correct_predictions': nan"),
        ({"nr_predictions": float("inf")}, "'nr_predictions': inf"),
    ],
)
def test_anything_else_is_refused_by_the_workers_name(change, reason):
    result = None if change is None else GOOD | change
    with pytest.raises(InvalidReply, match=f"^worker 'testing' sent an invalid reply: .*{reason}"):
        checked_evaluation("testing", result, nr_bins=2)
