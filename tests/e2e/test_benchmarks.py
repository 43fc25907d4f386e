"""Each benchmark runs.

Its times are not asserted here, since they depend on the machine; its counts are.
"""

import importlib
import math
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import bench_start
from benchmarks.harness import Row, Span, in_turn, ratio_row


@pytest.mark.parametrize("name", benchmarks.NAMES)
def test_a_benchmark_runs(name: str) -> None:
    report = importlib.import_module(f"benchmarks.bench_{name}").run(smoke=True)
    assert report.rows
    assert all(math.isfinite(value) for row in report.rows for value in row.values)
    assert [row.what for row in report.rows if row.unit == "" and row.met is False] == []
    assert benchmarks.table(report.rows).count("\n") == len(report.rows) + 1


def test_the_start_of_the_workers_is_measured_until_all_serve() -> None:
    assert bench_start._start_and_stop() == 4


def test_two_things_run_in_turn() -> None:
    order: list[str] = []
    ours, reference = in_turn(lambda: order.append("ours"), lambda: order.append("reference"), 3)
    assert order == ["ours", "reference", "reference", "ours", "ours", "reference"]
    assert len(ours) == len(reference) == 3


def test_a_ratio_is_taken_within_each_pair() -> None:
    row = ratio_row(1, "job", [1.0, 20.0, 3.0], [2.0, 10.0, 3.0], 0.75, "plain")
    assert (list(row.values), row.median, row.met) == ([0.5, 2.0, 1.0], 1.0, False)


def test_the_table_tells_what_was_met() -> None:
    rows = [Row(1, "a", [0.5], "x", 0.75), Row(2, "b", [2], "", 1), Row(3, "c", [1e-7], "")]
    lines = benchmarks.table(rows).splitlines()[2:]
    assert "| 0.50 x | 0.50 x | 0.50 x | 0.75 x | met |" in lines[0]
    assert "| 2 | 2 | 2 | 1 | **missed** |" in lines[1]
    assert "| 1.0e-07 | 1.0e-07 | 1.0e-07 |  |  |" in lines[2]


def test_results_are_put_between_their_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{benchmarks.START}\nold\n{benchmarks.END}\nafter\n")
    benchmarks.write_results(readme, "new")
    assert readme.read_text() == f"before\n{benchmarks.START}\n\nnew\n{benchmarks.END}\nafter\n"


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    spans = [Span("coordinator", "serialise", 0.0, 0.1), Span("alice", "compute", 0.1, 0.4)]
    benchmarks.draw(spans, tmp_path / "round.png")
    assert (tmp_path / "round.png").read_bytes().startswith(b"\x89PNG")
