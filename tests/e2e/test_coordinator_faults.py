"""run_websocket_client.py with workers that fail, Ctrl-C, and a run that is resumed; small workers, real processes."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import safetensors.torch
import torch

import run_websocket_client as rwc
from syft.exceptions import ConnectionLost
from syft.federated import read_history
from tests.network import DEADLINE, eventually
from tests.processes import worker_processes

ROOT = Path(__file__).parents[2]
NAMES = ("alice", "bob", "charlie", "testing")


@pytest.fixture(scope="module")
def workers():
    with worker_processes(*NAMES) as workers:
        yield dict(zip(NAMES, workers, strict=True))


@contextlib.contextmanager
def coordinator(workers, directory, *arguments):
    """Run the script in a directory; kill it if it has not ended at the end."""
    addresses = [f"{name}=127.0.0.1:{worker.port}" for name, worker in workers.items()]
    command = [sys.executable, str(ROOT / "run_websocket_client.py"), *arguments, "--workers", *addresses]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=directory, env=environment, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def run(workers, directory, *arguments):
    """Run the script to its end; return its exit status and the lines of standard error."""
    with coordinator(workers, directory, *arguments) as process:
        _, errors = process.communicate(timeout=5 * DEADLINE)
        return process.returncode, errors.splitlines()


def rounds_in(directory):
    return read_history(directory / "history") if (directory / "history").exists() else []


def wait_for_rounds(directory, condition):
    """Wait until the history's rounds fulfil a condition."""
    for _ in range(5):  # the first round comes after the import of torch
        if eventually(lambda: condition(rounds_in(directory))):
            return
    raise AssertionError(f"the history has {rounds_in(directory)[-1:]}")


def tensors_of(path):
    return safetensors.torch.load_file(path)


def test_ctrl_c_and_resume(workers, tmp_path):
    """Ctrl-C ends it within a second; what is resumed equals a run without a break to the bit."""
    files = ("--checkpoint", "checkpoint", "--history", "history")
    with coordinator(workers, tmp_path, "--training_rounds", "100000", *files) as process:
        wait_for_rounds(tmp_path, lambda rounds: len(rounds) >= 3)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=DEADLINE)
        assert time.monotonic() - started < 1.5  # a second, and half of one for a loaded machine
        assert process.returncode == 130
        assert errors.splitlines()[-1] == "interrupted"
        assert "Traceback" not in errors
    last = len(rounds_in(tmp_path)) + 2

    status, errors = run(workers, tmp_path, "--training_rounds", str(last), *files, "--resume", "checkpoint")
    assert status == 0, errors
    assert any("Going on after round" in line for line in errors)
    assert [each["round"] for each in rounds_in(tmp_path)] == list(range(1, last + 1))

    (tmp_path / "whole").mkdir()
    status, errors = run(workers, tmp_path / "whole", "--training_rounds", str(last), *files)
    assert status == 0, errors
    resumed, whole = tensors_of(tmp_path / "checkpoint"), tensors_of(tmp_path / "whole" / "checkpoint")
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    for one, other in zip(rounds_in(tmp_path), rounds_in(tmp_path / "whole"), strict=True):
        assert (one["losses"], one["learning_rate"]) == (other["losses"], other["learning_rate"])


def test_goes_on_without_a_killed_worker_and_takes_it_in_again(workers, tmp_path):
    arguments = ("--training_rounds", "100000", "--history", "history", "--min_workers", "2")
    with coordinator(workers, tmp_path, *arguments) as process:
        wait_for_rounds(tmp_path, lambda rounds: len(rounds) >= 2)
        workers["bob"].kill()
        wait_for_rounds(tmp_path, lambda rounds: rounds[-1]["workers"] == ["alice", "charlie"])
        workers["bob"].start()
        wait_for_rounds(tmp_path, lambda rounds: rounds[-1]["workers"] == ["alice", "bob", "charlie"])
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=DEADLINE)
    failed = [each for each in rounds_in(tmp_path) if each["failures"]]
    assert all(each["failures"]["bob"].startswith("connection lost: ") for each in failed)
    first = failed[0]
    expected = f"Round {first['round']}: received 2 models, 1 failure: bob: {first['failures']['bob']}"
    assert expected in errors


def test_starts_without_an_absent_worker(workers, tmp_path):
    workers["bob"].kill()
    try:
        arguments = ("--training_rounds", "1", "--history", "history", "--round_timeout", "60")
        status, errors = run(workers, tmp_path, *arguments)
    finally:
        workers["bob"].start()
    assert status == 0, errors
    assert any("Starting without bob: worker 'bob' did not accept" in line for line in errors)
    (only,) = rounds_in(tmp_path)
    assert only["workers"] == ["alice", "charlie"]
    assert sorted(only["accuracies"]) == ["alice", "charlie", "federated"]


@pytest.mark.parametrize("arguments", [[], ["--min_workers", "2"]], ids=["strict", "tolerant"])
def test_without_an_evaluator(arguments, monkeypatch, caplog):
    lost = ConnectionLost("testing", "ws://t:1", "evaluate()", "gone")
    monkeypatch.setattr(rwc, "evaluate_model_on_worker", Mock(side_effect=lost))
    args = rwc.define_and_get_arguments(arguments)
    if not arguments:
        with pytest.raises(ConnectionLost):
            rwc.evaluate_models({"alice": None}, None, args, None)
    else:
        assert rwc.evaluate_models({"alice": None}, None, args, None) == {"test_losses": {}, "accuracies": {}}
        assert f"No evaluation: {lost}" in caplog.text


def test_without_the_flags_a_failure_ends_the_run(workers, tmp_path):
    with coordinator(workers, tmp_path, "--training_rounds", "100000", "--history", "history") as process:
        wait_for_rounds(tmp_path, lambda rounds: len(rounds) >= 2)
        workers["bob"].kill()
        try:
            _, errors = process.communicate(timeout=2 * DEADLINE)
        finally:
            workers["bob"].start()
    assert process.returncode == 1
    last = errors.splitlines()[-1]
    assert re.match(r"error: received \d models?; the round needs 3 .* Failures: bob: connection lost: ", last)
    assert "Traceback" not in errors


def test_a_checkpoint_that_does_not_fit_is_refused(workers, tmp_path):
    (tmp_path / "cut").write_bytes(b"\x10")
    status, errors = run(workers, tmp_path, "--resume", "cut")
    assert status == 2
    assert errors == [
        "error: checkpoint 'cut' cannot be used: it is not a whole safetensors file "
        "(Error while deserializing: header too small). Resume from another file, or start a new run."
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--round_timeout", "0"],
        ["--min_workers", "0"],
        ["--min_workers", "4"],
        ["--checkpoint", "/no/such/directory/file"],
        ["--history", "/"],
    ],
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as exited:
        rwc.define_and_get_arguments(arguments)
    assert exited.value.code == 2
    assert f"argument {arguments[0]}: " in capsys.readouterr().err


def test_arguments_print_as_in_the_tutorial():
    assert repr(rwc.define_and_get_arguments([])) == (
        "Namespace(batch_size=32, test_batch_size=128, training_rounds=40, federate_after_n_batches=10, lr=0.1, "
        "cuda=False, seed=1, save_model=False, verbose=False)"
    )
    assert rwc.define_and_get_arguments(["--min_workers", "2"]).min_workers == 2
