"""Runs the benchmarks and prints their table.

python -m benchmarks                     # all goals; minutes
python -m benchmarks --only round start  # some of them
python -m benchmarks --smoke             # every benchmark once, small: does it run?
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.harness import Report, Row, Span
from syft.workers.threads import cores

NAMES = (
    "job",
    "round",
    "evaluate",
    "round_trips",
    "transfer",
    "many_workers",
    "start",
    "remote",
    "own_data",
)
HERE = Path(__file__).parent
START, END = "<!-- results -->", "<!-- end of results -->"


def main() -> int:
    """Run the benchmarks that the command line names; return 1 if a goal is missed, else 0."""
    args = define_and_get_arguments()
    rows: list[Row] = []
    for name in args.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        start = time.monotonic()
        report: Report = importlib.import_module(f"benchmarks.bench_{name}").run(args.smoke)
        print(
            table(report.rows),
            f"({time.monotonic() - start:.0f} s)\n",
            sep="\n",
            file=sys.stderr,
            flush=True,
        )
        rows += report.rows
        if report.spans and not args.smoke:
            draw(report.spans, HERE / "round.png")
    rows.sort(key=lambda row: row.goal)
    text = f"{conditions()}\n\n{table(rows)}\n"
    print(text)
    if args.write:
        write_results(HERE / "README.md", text)
    return 1 if any(row.met is False for row in rows) and not args.smoke else 0


def define_and_get_arguments(args: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments; an error exits with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the project's speed."
    )
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES)
    )
    parser.add_argument(
        "--smoke", action="store_true", help="run everything once, small; the numbers mean nothing"
    )
    parser.add_argument(
        "--write", action="store_true", help="put the table into benchmarks/README.md"
    )
    return parser.parse_args(args)


def conditions() -> str:
    """Return when, where and with what was measured."""
    names = ("torch", "torchvision", "websockets", "safetensors", "msgpack")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    load = os.getloadavg()[2] if hasattr(os, "getloadavg") else float("nan")
    return (
        f"{datetime.datetime.now():%Y-%m-%d %H:%M}, {_processor()}, {cores()} cores, "
        f"{platform.system()}, Python {platform.python_version()}, {versions}. Load average over "
        f"the last 15 minutes: {load:.1f}."
    )


def table(rows: Iterable[Row]) -> str:
    """Return rows as a table in Markdown."""
    lines = [
        "| goal | what | min | median | max | limit | | |",
        "|--:|---|--:|--:|--:|--:|---|---|",
    ]
    for row in rows:
        numbers = [
            _number(value, row.unit) for value in (min(row.values), row.median, max(row.values))
        ]
        limit = "" if row.limit is None else _number(row.limit, row.unit)
        verdict = {True: "met", False: "**missed**", None: ""}[row.met]
        lines.append(
            f"| {row.goal} | {row.what} | {' | '.join(numbers)} | {limit} | {verdict} | "
            f"{row.note} |"
        )
    return "\n".join(lines)


def draw(spans: list[Span], path: Path) -> None:
    """Draw what each party did when, as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parties = list(dict.fromkeys(span.party for span in spans))
    colours = {
        "serialise": "#d95f02",
        "transfer": "#e6ab02",
        "compute": "#1b9e77",
        "average": "#7570b3",
    }
    start = min(span.start for span in spans)
    figure, axes = pyplot.subplots(figsize=(9, 0.5 * len(parties) + 1.4), layout="constrained")
    for kind, colour in colours.items():
        chosen = [span for span in spans if span.kind == kind]
        for span in chosen:
            left, width = 1000 * (span.start - start), 1000 * (span.end - span.start)
            axes.barh(parties.index(span.party), width, left=left, color=colour, height=0.6)
        total = sum(1000 * (span.end - span.start) for span in chosen)
        axes.barh(0, 0, color=colour, label=f"{kind}: {total:.0f} ms in all")
    axes.set_yticks(range(len(parties)), parties)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds since the round began; white: waiting")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(colours), frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write_results(path: Path, text: str) -> None:
    """Put the results between their marks in a file."""
    before, _, rest = path.read_text().partition(START)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{START}\n\n{text}\n{END}{after}")


def _number(value: float, unit: str) -> str:
    shown = f"{value:.2f}" if unit else f"{value:.0f}" if value == int(value) else f"{value:.1e}"
    return f"{shown} {unit}".rstrip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
