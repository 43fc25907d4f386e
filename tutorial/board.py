"""What --tensorboard writes: a run's rounds, for TensorBoard to draw and to compare with others.

    with Board("runs/momentum") as board:
        board.append(round=1, seconds=2.5, losses={"alice": 0.7})

It takes the same fields as `syft.federated.History`. TensorBoard shows them as curves over the
rounds:

    loss/alice            loss on the worker's last batch
    seconds/alice         seconds from the start of its training to its model's arrival
    epsilon/alice         what its fits have cost of its privacy budget, if it has one
    accuracy/federated    share of the test images that a model gets right
    test_loss/federated   its mean loss there
    round/seconds         seconds that the round took
    round/failures        number of workers that were left out
    round/learning_rate   learning rate of the workers
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

GROUPS = {
    "losses": "loss",
    "worker_seconds": "seconds",
    "epsilons": "epsilon",
    "accuracies": "accuracy",
    "test_losses": "test_loss",
}


class BoardMissing(Exception):
    """The package tensorboard is not installed."""

    def __str__(self) -> str:
        return "--tensorboard needs a package that is not here. Install it: pip install tensorboard"


class Board:
    """Writes a run's rounds for TensorBoard.

    Args:
        folder: each run needs a folder of its own; TensorBoard shows those below one folder
            together.
        last_round: the round to continue after; what the folder has of later rounds is hidden.

    Raises:
        BoardMissing: the package tensorboard is not installed.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], last_round: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise BoardMissing from None
        self._writer: Any = SummaryWriter(os.fspath(folder), purge_step=last_round + 1)

    def append(self, **fields: Any) -> None:
        """Write one round.

        Args:
            **fields: "round" and any of those at the top; others are left out, and so are values
                that are missing (None).
        """
        scalars = {
            f"{group}/{name}": value
            for field, group in GROUPS.items()
            for name, value in fields.get(field, {}).items()
        }
        scalars |= {f"round/{name}": fields.get(name) for name in ("seconds", "learning_rate")}
        scalars["round/failures"] = _count(fields.get("failures"))
        for name, value in scalars.items():
            if value is not None:
                self._writer.add_scalar(name, value, fields["round"])
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        self._writer.close()

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _count(failures: Mapping[str, str] | None) -> int | None:
    return None if failures is None else len(failures)
