"""The history of a run: a file with one JSON object per round, for plots and scripts.

Each object is on a line of its own, which is flushed when its round ends, so a run that is killed
loses at most the round it was in. A killed run can leave half a line at the end; reading and
resuming both skip it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from syft.exceptions import HistoryDamaged
from syft.files import write_whole


class History:
    """Writes a run's history, one line per round, each as soon as its round is over.

    Args:
        path: the file.
        last_round: the round to continue after. Lines of later rounds are removed, as is an
            unfinished last line, so that none is recorded twice. 0: start a new file.

    Raises:
        OSError: the file cannot be written.
        HistoryDamaged: the file should be continued, and one of its lines does not describe a
            round. It is left unchanged.
    """

    def __init__(self, path: str | os.PathLike[str], last_round: int = 0) -> None:
        if last_round:
            kept = [line for line in _lines(Path(path)) if _round(path, line) <= last_round]
            write_whole(path, "".join(line + "\n" for line in kept).encode())
        self._file = open(path, "a" if last_round else "w", encoding="utf-8")  # noqa: SIM115 - close() closes it

    def append(self, **fields: Any) -> None:
        """Write one line.

        Args:
            **fields: "round" and any other plain values. NaN and infinity become null, since JSON
                has neither.
        """
        self._file.write(json.dumps(_finite(fields)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> History:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_history(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the rounds of a history, in order."""
    return [json.loads(line) for line in _lines(Path(path))]


def _lines(path: Path) -> Iterator[str]:
    """Yield the complete lines of a history."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield line.rstrip("\n")


def _round(path: str | os.PathLike[str], line: str) -> int:
    try:
        return int(json.loads(line)["round"])
    except (ValueError, TypeError, KeyError):
        raise HistoryDamaged(os.fspath(path), line[:80]) from None


def _finite(value: Any) -> Any:
    """Return the value with None in place of numbers that JSON cannot express."""
    if isinstance(value, dict):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
