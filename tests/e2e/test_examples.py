"""The examples: one from its one command on, both with workers in this process."""

import asyncio
import contextlib
import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import syft as sy
from syft.federated import read_history
from tests.e2e.programs import DEADLINE, ENVIRONMENT, REPOSITORY, free_ports, is_free
from tests.network import serving

EXAMPLES = REPOSITORY / "examples"


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """Return what copies an example to where it may write, and goes there."""

    def copy(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("*.log"))
        monkeypatch.chdir(folder)
        return folder

    return copy


def module(path: Path) -> Any:
    """Return a file of an example as a module."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    # Found there, the functions of a model can be compiled.
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@contextlib.contextmanager
def workers_for(train: Any, names: list[str], key: str, load: Any) -> Any:
    """Have workers of this process serve, and an example train on them."""
    with contextlib.ExitStack() as stack:
        ports = {}
        for name in names:
            server = sy.WebsocketServerWorker(None, "localhost", 0, id=name)
            server.add_dataset(load(name), key=key)
            ports[name] = stack.enter_context(serving(server)).port
        for addresses in (vars(train)[each] for each in vars(train) if each.isupper()):
            if isinstance(addresses, dict) and addresses.keys() <= ports.keys():
                addresses.update({name: ("localhost", ports[name]) for name in addresses})
        yield


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_the_example_with_a_table_starts_with_one_command_and_goes_on_later(copied, capsys):
    folder = copied("own_data")
    # The ports in its files, one after the other.
    first = first_of_free_ports(6)
    for file in (folder / "train.py", folder / "run.sh"):
        text = file.read_text()
        for number in range(6):
            text = text.replace(str(8801 + number), str(first + number))
        file.write_text(text)
    lines = run(folder, "--rounds", "1", "--deadline", "60")
    assert [line.partition(";")[0] for line in lines] == ["round 1: received 5 models, 0 failures"]

    train, hospital = module(folder / "train.py"), module(folder / "hospital.py")
    names = [*train.HOSPITALS, *train.EVALUATOR]
    with workers_for(train, names, "patients", hospital.load):
        asyncio.run(train.train(rounds=3, deadline=60, resume=True))
    history = read_history(folder / "hospitals.jsonl")
    assert [each["round"] for each in history] == [1, 2, 3]
    assert history[2]["accuracy"] > 0.7  # 0.5 by chance
    assert "round 3: received 5 models, 0 failures; accuracy in zurich: " in capsys.readouterr().out


def test_images_in_folders_train_a_network_of_torchvision(copied, capsys):
    folder = copied("images")
    subprocess.run([sys.executable, "draw.py"], check=True)
    train, pictures = module(folder / "train.py"), module(folder / "pictures.py")
    names = [*train.WORKERS, *train.EVALUATOR]
    with workers_for(train, names, "pictures", lambda name: pictures.load(f"pictures/{name}")):
        asyncio.run(train.train(rounds=1))
    assert re.fullmatch(
        r"round 1: \d+ of 120 images right, loss \d\.\d\d\n", capsys.readouterr().out
    )
    assert (folder / "pictures.pt").is_file()


def test_the_example_with_a_table_becomes_a_regression_on_another_table(copied, capsys):
    folder = copied("own_data")
    changes = {
        "nn.Linear(8, 64)": "nn.Linear(3, 64)",
        "binary_cross_entropy_with_logits": "mse_loss",
        '"patients", threshold=0': '"patients", return_raw_accuracy=False',
        'found["nr_correct_predictions"] / found["nr_predictions"]': 'found["loss"]',
    }
    text = (folder / "train.py").read_text()
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    (folder / "train.py").write_text(text)
    train = module(folder / "train.py")

    def load(name):
        inputs = torch.randn(64, 3)
        return sy.BaseDataset(inputs, inputs.sum(dim=1))

    with workers_for(train, [*train.HOSPITALS, *train.EVALUATOR], "patients", load):
        asyncio.run(train.train(rounds=15, deadline=60, resume=False))
    losses = [each["accuracy"] for each in read_history(folder / "hospitals.jsonl")]
    assert losses[-1] < losses[0] / 2
    assert "round 15: received 5 models, 0 failures" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["own_data", "images"])
def test_an_example_that_gets_no_access_ends_with_single_lines(copied, capsys, monkeypatch, name):
    folder = copied(name)
    (folder / "token").write_text("another")
    monkeypatch.setenv("SYFT_TOKEN", "")  # which the option sets
    monkeypatch.setattr(sys, "argv", ["train.py", "--rounds", "1", "--token_file", "token"])
    with serving(sy.WebsocketServerWorker(None, "127.0.0.1", 0, token="secret")) as server:
        text = re.sub(
            r'\("localhost", \d+\)',
            f'("127.0.0.1", {server.port})',
            (folder / "train.py").read_text(),
        )
        (folder / "train.py").write_text(text)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(folder / "train.py"), run_name="__main__")
    assert str(ended.value).startswith("error: ") and "the token is wrong" in str(ended.value)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("warning: worker '") for line in lines)


@pytest.mark.parametrize("name", ["own_data", "images"])
def test_the_command_starts_the_workers_that_the_example_trains_on(name):
    start, train = ((EXAMPLES / name / file).read_text() for file in ("run.sh", "train.py"))
    written = re.findall(r'"(\w+)": \("localhost", (\d+)\)', train)
    (first,) = re.findall(r"^port=(\d+)$", start, re.MULTILINE)
    (names,) = re.findall(r"^for name in (.*); do$", start, re.MULTILINE)
    expected = [(each, str(int(first) + number)) for number, each in enumerate(names.split())]
    assert written == expected


def test_the_example_with_a_table_is_short_enough_to_be_read_whole():
    lines = (EXAMPLES / "own_data" / "train.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 70


def run(folder: Path, *words: str) -> list[str]:
    """Run an example to its end, from another folder; return the lines it printed."""
    found = {"PYTHONPATH": str(REPOSITORY), "PYTHON": sys.executable, "SYFT_TOKEN": ""}
    done = subprocess.run(
        ["sh", str(folder / "run.sh"), *words],
        cwd=folder.parent,
        env=os.environ | ENVIRONMENT | found,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    logs = {path.name: path.read_text()[-2000:] for path in folder.glob("*.log")}
    assert done.returncode == 0, (done.stderr, logs)
    return done.stdout.splitlines()


def first_of_free_ports(count: int) -> int:
    """Return the first of some ports in a row that nobody listens on now."""
    while True:
        (first,) = free_ports(1)
        if first + count < 65536 and all(is_free(first + number) for number in range(count)):
            return first
