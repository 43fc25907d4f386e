"""The tutorial's job on Flower's simulation engine: same network, data, batches and evaluations.

Runs the app in flower/, and prints its evaluations as run_websocket_client.py logs them.

    python -m benchmarks.flower_job --training_rounds 40
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from syft.federated import read_history

LAUNCHER = Path(__file__).parent.parent / "flower" / "simulate.py"
TUTORIAL = "--clients 3 --fraction 1 --split digits --set evaluate-every=10 evaluate-clients=true"
IMAGES = 10_000


def main() -> None:
    """Train and evaluate, and print the losses and accuracies."""
    parser = argparse.ArgumentParser(
        description="Run the tutorial's job on Flower's simulation engine."
    )
    parser.add_argument("--training_rounds", type=int, default=40)
    rounds = parser.parse_args().training_rounds
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(LAUNCHER), "--rounds", str(rounds), "--output", folder]
        subprocess.run([*command, *TUTORIAL.split()], check=True)
        history = read_history(Path(folder) / "run.jsonl")
    for each in history:
        for name, accuracy in each.get("accuracies", {}).items():
            model = "Federated model" if name == "federated" else f"Model update {name}"
            print(
                f"{model}: Average loss: {each['test_losses'][name]:.4f}, Accuracy: "
                f"{round(accuracy * IMAGES)}/{IMAGES} ({100 * accuracy:.2f}%)"
            )


if __name__ == "__main__":
    main()
