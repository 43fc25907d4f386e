"""Goal 7: all four workers ready, against `import torch, torchvision`."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.harness import Report, free_ports, in_turn, ratio_row

LIMIT = 1.5


def run(smoke: bool = False) -> Report:
    """Measure it."""
    ours, plain = in_turn(_start_and_stop, _import_torch, 1 if smoke else 5)
    return Report(
        [
            ratio_row(
                7,
                "four workers started and stopped",
                ours,
                plain,
                LIMIT,
                "import torch, torchvision",
            )
        ]
    )


def _start_and_stop() -> None:
    ports = map(str, free_ports(4))
    command = [
        sys.executable,
        "start_websocket_servers.py",
        "--ports",
        *ports,
        "--",
        sys.executable,
        "-S",
        "-c",
        "",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _import_torch() -> None:
    subprocess.run([sys.executable, "-c", "import torch, torchvision"], check=True)
