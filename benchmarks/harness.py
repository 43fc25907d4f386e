"""What the benchmarks share: timing two things in turn, and rows of a table.

A shared machine is fast now and slow a minute later. So two things are never compared by times that
were taken one after the other: they run in turn (A B, B A, A B, ...), and what counts is the ratio
within each pair.
"""

from __future__ import annotations

import gc
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        goal: number of the goal, see README.md in this directory.
        what: what was measured.
        values: the measurements; their median is held against `limit`.
        unit: "x" for ratios.
        limit: the most that the median may be; None: there is no goal.
        note: the absolute numbers behind a ratio, for example.
    """

    goal: int
    what: str
    values: Sequence[float]
    unit: str
    limit: float | None = None
    note: str = ""

    @property
    def median(self) -> float:
        """The median of the values."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None if there is none."""
        return None if self.limit is None else self.median <= self.limit


@dataclass
class Report:
    """What one benchmark found: lines of the table, and what a picture is drawn from."""

    rows: list[Row]
    spans: list[Span] = field(default_factory=list)


@dataclass(frozen=True)
class Span:
    """A stretch of time in which a party did something.

    Times in seconds of the machine's monotonic clock.

    Attributes:
        model: what tells the model that was encoded or decoded; 0: none was.
    """

    party: str
    kind: str
    start: float
    end: float
    model: int = 0


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a call took, in seconds, and its result."""
    gc.collect()  # what the one left behind must not be paid for by the other
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def in_turn(
    ours: Callable[[], Any], reference: Callable[[], Any], repeats: int
) -> tuple[list[float], list[float]]:
    """Return the seconds that two things took, each `repeats` times, measured in turn."""
    seconds: dict[Callable[[], Any], list[float]] = {ours: [], reference: []}
    order = [ours, reference]
    for _ in range(repeats):
        for function in order:
            seconds[function].append(timed(function)[0])
        order.reverse()
    return seconds[ours], seconds[reference]


def ratio_row(
    goal: int,
    what: str,
    ours: Sequence[float],
    reference: Sequence[float],
    limit: float | None,
    against: str,
) -> Row:
    """Return the row for the ratios of two things that were measured in turn."""
    ratios = [a / b for a, b in zip(ours, reference, strict=True)]
    note = (
        f"{_seconds(statistics.median(ours))}; {against} {_seconds(statistics.median(reference))}"
    )
    return Row(goal, what, ratios, "x", limit, note)


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _seconds(value: float) -> str:
    return (
        f"{value:.1f} s"
        if value >= 10
        else f"{value:.2f} s"
        if value >= 1
        else f"{1000 * value:.1f} ms"
    )
