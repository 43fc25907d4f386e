"""Goal 1: the tutorial's job, its workers' start included, against one process of plain torch."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping

from benchmarks.harness import Report, Row, free_ports, in_turn, ratio_row

LIMIT = 0.75
_CORRECT = re.compile(
    r"(?:Federated model|Model update \w+): Average loss: [0-9.]+, Accuracy: (\d+)/\d+"
)


def run(smoke: bool = False) -> Report:
    """Measure it; where Flower is installed, against the job on its simulation engine too."""
    rounds, repeats = (1, 1) if smoke else (40, 3)
    rows = _compare(rounds, repeats, "plain_loop", "one plain process", LIMIT, smoke)
    if all(map(importlib.util.find_spec, ("flwr", "ray"))):
        rows += _compare(rounds, repeats, "flower_job", "Flower", None, smoke)
    return Report(rows)


def _compare(
    rounds: int, repeats: int, module: str, name: str, limit: float | None, smoke: bool
) -> list[Row]:
    """Return the rows of our job beside that of another module of the benchmarks."""
    outputs: dict[str, str] = {}

    # A smoke test shares its cores with whatever runs: threads shall not wait by spinning.
    environment = os.environ | ({"OMP_WAIT_POLICY": "passive"} if smoke else {})
    command = [sys.executable, "-m", f"benchmarks.{module}", "--training_rounds", str(rounds)]
    if smoke and module == "plain_loop":
        command += ["--test_images", "500"]

    def ours() -> None:
        outputs["ours"] = _output(_federated_command(rounds), environment)

    def other() -> None:
        outputs["other"] = _output(command, environment)

    ours_seconds, other_seconds = in_turn(ours, other, repeats)
    what = f"the job of {rounds} rounds, start included, beside {name}"
    correct = {
        which: [int(count) for count in _CORRECT.findall(output)]
        for which, output in outputs.items()
    }
    assert len(correct["ours"]) == len(correct["other"]) > 0
    last, other_last = correct["ours"][-1], correct["other"][-1]
    note = (
        f"of 10,000; {last / 100:.2f} % and {other_last / 100:.2f} % are right; "
        f"{len(correct['ours'])} evaluations"
    )
    return [
        ratio_row(1, what, ours_seconds, other_seconds, limit, name),
        Row(1, f"{what}: difference of the last count", [abs(last - other_last)], "", None, note),
    ]


def _federated_command(rounds: int) -> list[str]:
    ports = [str(port) for port in free_ports(4)]
    names = ("alice", "bob", "charlie", "testing")
    addresses = [f"{name}=localhost:{port}" for name, port in zip(names, ports, strict=True)]
    client = [
        sys.executable,
        "run_websocket_client.py",
        "--training_rounds",
        str(rounds),
        "--workers",
        *addresses,
    ]
    return [sys.executable, "start_websocket_servers.py", "--ports", *ports, "--", *client]


def _output(command: list[str], environment: Mapping[str, str]) -> str:
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, check=True, env=environment, text=True, **pipe).stdout  # type: ignore[call-overload]
