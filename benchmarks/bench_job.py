"""Goal 1: the tutorial's job, its workers' start included, against the same job as one plain torch process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping

from benchmarks.harness import Report, Row, free_ports, in_turn, ratio_row

LIMIT = 0.75
_RESULT = re.compile(r"(?:Federated model|Model update \w+): Average loss: ([0-9.]+), Accuracy: (\d+)/10000")


def run(smoke: bool = False) -> Report:
    """Measure it."""
    rounds, repeats = (1, 1) if smoke else (40, 3)
    outputs: dict[str, str] = {}

    # Threads of a process that shares its cores wait for each other; a smoke test shares them with whatever runs.
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if smoke else {})
    plain_loop = [sys.executable, "-m", "benchmarks.plain_loop", "--training_rounds", str(rounds)]

    def ours() -> None:
        outputs["ours"] = _output(_federated_command(rounds), environment)

    def plain() -> None:
        outputs["plain"] = _output(plain_loop, environment)

    ours_seconds, plain_seconds = in_turn(ours, plain, repeats)
    what = f"the job of {rounds} rounds, start included"
    results = {name: _RESULT.findall(output) for name, output in outputs.items()}
    pairs = list(zip(results["ours"], results["plain"], strict=True))
    loss = max(abs(float(a[0]) - float(b[0])) for a, b in pairs)
    count = max(abs(int(a[1]) - int(b[1])) for a, b in pairs)
    final = f"final accuracy {int(results['ours'][-1][1]) / 100:.2f} % and {int(results['plain'][-1][1]) / 100:.2f} %"
    return Report(
        [
            ratio_row(1, what, ours_seconds, plain_seconds, LIMIT, "one plain process"),
            Row(1, f"{what}: largest difference of a loss", [loss], "", None, f"{len(pairs)} evaluations"),
            Row(1, f"{what}: largest difference of a count", [count], "", None, final),
        ]
    )


def _federated_command(rounds: int) -> list[str]:
    ports = [str(port) for port in free_ports(4)]
    names = ("alice", "bob", "charlie", "testing")
    addresses = [f"{name}=localhost:{port}" for name, port in zip(names, ports, strict=True)]
    client = [sys.executable, "run_websocket_client.py", "--training_rounds", str(rounds), "--workers", *addresses]
    return [sys.executable, "start_websocket_servers.py", "--ports", *ports, "--", *client]


def _output(command: list[str], environment: Mapping[str, str]) -> str:
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, check=True, env=environment, text=True, **pipe).stdout  # type: ignore[call-overload]
