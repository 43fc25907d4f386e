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
                "four workers ready, and stopped again",
                ours,
                plain,
                LIMIT,
                "import torch, torchvision",
            )
        ]
    )


def _start_and_stop() -> int:
    """Start the workers, wait until the launcher says that all serve, and stop them.

    Return how many it said of.
    """
    ports = map(str, free_ports(4))
    command = [sys.executable, "start_websocket_servers.py", "--ports", *ports]
    ready = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        for line in launcher.stdout or ():
            ready += "ws://" in line
            if "Ctrl-C stops the workers" in line:
                launcher.terminate()
    if launcher.returncode or ready != 4:
        raise RuntimeError(f"{ready} workers were ready, status {launcher.returncode}; expected 4")
    return ready


def _import_torch() -> None:
    subprocess.run([sys.executable, "-c", "import torch, torchvision"], check=True)
