"""A short training on the real MNIST, with all four workers, twice: its log, its accuracy, the
model it saves."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from run_websocket_client import Net
from run_websocket_server import load_mnist
from tests.e2e.programs import REPOSITORY, free_ports, run

ROUNDS = 6
MODELS = ("Model update alice", "Model update bob", "Model update charlie", "Federated model")
TWICE = """
import subprocess, sys
for folder in ("first", "second"):
    with open(f"{folder}/log", "w") as log:
        status = subprocess.run(sys.argv[1:], cwd=folder, stderr=log).returncode
    if status:
        sys.exit(status)
"""
RESULT = re.compile(r"(.*): Average loss: (\d+\.\d{4}), Accuracy: (\d+)/10000 \((\d+\.\d\d)%\)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder in which `first` and `second` are the folders of two equal runs with the same
    workers."""
    folder = tmp_path_factory.mktemp("tutorial")
    for name in ("first", "second"):
        (folder / name).mkdir()
    ports = free_ports()
    addresses = [
        f"{name}=localhost:{port}"
        for name, port in zip(("alice", "bob", "charlie", "testing"), ports, strict=True)
    ]
    client = [
        sys.executable,
        str(REPOSITORY / "run_websocket_client.py"),
        "--training_rounds",
        str(ROUNDS),
        "--save_model",
    ]
    command = [sys.executable, "-c", TWICE, *client, "--workers", *addresses]
    ports_of_workers = ["--ports", *map(str, ports)]
    status, out, err = run(
        "start_websocket_servers.py", *ports_of_workers, "--", *command, folder=folder, cwd=folder
    )
    assert (status, err) == (0, ""), (out, [path.read_text() for path in folder.glob("*/log")])
    return folder


def messages(folder: Path, run: str) -> list[str]:
    """The messages that a run logged, except that it waits for workers that start."""
    lines = [
        line
        for line in (folder / run / "log").read_text().splitlines()
        if " | Waiting up to " not in line
    ]
    matches = [
        re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \| (.*)", line) for line in lines
    ]
    return [
        match[1] if match else f"no message: {line}"
        for match, line in zip(matches, lines, strict=True)
    ]


def results(folder: Path, run: str) -> list[tuple[str, float, int]]:
    """Model, loss and number of correct predictions of each evaluation of a run."""
    found = filter(None, map(RESULT.fullmatch, messages(folder, run)))
    return [(match[1], float(match[2]), int(match[3])) for match in found]


def test_the_log_names_each_round_and_each_evaluation(folder):
    expected = []
    for number in range(1, ROUNDS + 1):
        expected.append(f"Training round {number}/{ROUNDS}")
        if number in (1, ROUNDS):
            expected.append("Evaluating models")
            for model in MODELS:
                expected.append(rf"{model}: Percentage numbers 0-3: \d+%, 4-6: \d+%, 7-9: \d+%")
                expected.append(
                    rf"{model}: Average loss: \d+\.\d{{4}}, Accuracy: \d+/10000 \(\d+\.\d\d%\)"
                )
    expected.append(r"The federated model is saved in mnist_cnn\.pt")
    logged = messages(folder, "first")
    assert [
        line
        for line, pattern in zip(logged, expected, strict=True)
        if not re.fullmatch(pattern, line)
    ] == []


def test_shown_accuracies_are_those_of_the_counts(folder):
    for match in filter(None, map(RESULT.fullmatch, messages(folder, "first"))):
        assert float(match[4]) == pytest.approx(int(match[3]) / 100)


def test_workers_know_their_own_digits_first(folder):
    """After one round, a worker's model takes everything for digits that the worker holds."""
    logged = messages(folder, "first")
    assert "Model update alice: Percentage numbers 0-3: 100%, 4-6: 0%, 7-9: 0%" in logged
    assert "Model update bob: Percentage numbers 0-3: 0%, 4-6: 100%, 7-9: 0%" in logged
    assert "Model update charlie: Percentage numbers 0-3: 0%, 4-6: 0%, 7-9: 100%" in logged


def test_the_federated_accuracy_rises_above_that_of_each_worker(folder):
    first, last = [
        correct for model, _, correct in results(folder, "first") if model == "Federated model"
    ]
    assert last > first + 1000
    alone = [correct for model, _, correct in results(folder, "first")[-4:-1]]
    assert last > max(alone)


def test_saved_model_is_the_federated_one(folder):
    """Evaluated here, without any worker, a plain Net with its state gives what the log says."""
    model, data = Net(), load_mnist(training=False)
    model.load_state_dict(
        torch.load(folder / "first" / "mnist_cnn.pt", weights_only=True), strict=True
    )
    model.eval()
    correct, loss = 0, 0.0
    with torch.inference_mode():
        for images, digits in DataLoader(data, batch_size=500):
            output = model(images)
            correct += int((output.argmax(dim=1) == digits).sum())
            loss += F.nll_loss(output, digits, reduction="sum").item()
    name, logged_loss, logged_correct = results(folder, "first")[-1]
    assert name == "Federated model"
    assert correct == pytest.approx(logged_correct, abs=2)  # other batches may round another way
    assert loss / 10_000 == pytest.approx(logged_loss, abs=2e-4)


def test_the_same_run_gives_the_same_to_the_bit(folder):
    assert messages(folder, "first") == messages(folder, "second")
    first, second = (
        torch.load(folder / run / "mnist_cnn.pt", weights_only=True) for run in ("first", "second")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
