"""The history of a run: a file with one JSON object a line and round, for plots and scripts."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from syft.exceptions import HistoryDamaged
from syft.federated.checkpoint import write_whole


class History:
    """Appends one line a round; each is in the file as soon as its round is over.

    Args:
        path: the file.
        last_round: go on after this round: lines of later rounds, and one that was cut short, go. 0: start anew.

    Raises:
        OSError: the file cannot be written.
        HistoryDamaged: a line of the file that shall go on is no round. The file is as it was.
    """

    def __init__(self, path: str | os.PathLike[str], last_round: int = 0) -> None:
        if last_round:
            kept = [line for line in _lines(Path(path)) if _round(path, line) <= last_round]
            write_whole(path, "".join(line + "\n" for line in kept).encode())
        self._file = open(path, "a" if last_round else "w", encoding="utf-8")  # noqa: SIM115 - close() closes it

    def append(self, **fields: Any) -> None:
        """Write one line. `fields`: "round" and any others, of plain values; NaN and infinity become null."""
        self._file.write(json.dumps(_finite(fields)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> History:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def read_history(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the rounds of a history, in order."""
    return [json.loads(line) for line in _lines(Path(path))]


def _lines(path: Path) -> Iterator[str]:
    """Yield the whole lines of a history; a run that was killed may have left half of one at the end."""
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
    """Return a value that JSON can hold."""
    if isinstance(value, dict):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
