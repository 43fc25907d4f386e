"""run_websocket_client.py with workers that fail, Ctrl-C, and a run that is resumed; small workers,
real processes."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import AsyncMock

import numpy as np
import pytest
import safetensors.torch
import torch

import run_websocket_client as rwc
import syft as sy
from syft.exceptions import ConnectionLost, HistoryDamaged, InvalidReply, RemoteError
from syft.federated import read_history
from syft.workers.websocket_client import CONNECT_TIMEOUT, CONNECT_TIMEOUT_VARIABLE
from tests.e2e.lying_worker import LATE, LIES, ODD_FAILURE, LyingWorker
from tests.models import classifier, make_config
from tests.network import DEADLINE, Server, eventually, free_port, serving
from tests.processes import proxies_of, worker_processes
from tests.test_evaluation import GOOD

ROOT = Path(__file__).parents[2]
NAMES = ("alice", "bob", "charlie", "testing")
ROUND_SECONDS = 5
"""Seconds of a round in which a worker never answers; honest ones need a tenth of one."""


@pytest.fixture(scope="module")
def workers():
    with worker_processes(*NAMES) as workers:
        yield dict(zip(NAMES, workers, strict=True))


@contextlib.contextmanager
def coordinator(workers, directory, *arguments):
    """Run the script in a directory; kill it if it has not ended at the end."""
    addresses = [f"{name}=127.0.0.1:{worker.port}" for name, worker in workers.items()]
    command = [
        sys.executable,
        str(ROOT / "run_websocket_client.py"),
        *arguments,
        "--workers",
        *addresses,
    ]
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


@pytest.mark.parametrize(
    "strategy",
    [
        (),
        ("--server_optimizer", "SGD", "--server_momentum", "0.7", "--server_nesterov"),
        ("--average", "median", "--proximal_mu", "0.1"),
        ("--scaffold", "--server_optimizer", "SGD", "--server_momentum", "0.7"),
    ],
    ids=["average", "server momentum", "median and FedProx", "SCAFFOLD and momentum"],
)
def test_a_run_that_was_interrupted_can_be_resumed(workers, tmp_path, strategy):
    """Ctrl-C ends it within a second; what is resumed equals a run without a break to the bit."""
    files = ("--checkpoint", "checkpoint", "--history", "history", *strategy)
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

    status, errors = run(
        workers, tmp_path, "--training_rounds", str(last), *files, "--resume", "checkpoint"
    )
    assert status == 0, errors
    assert any("Going on after round" in line for line in errors)
    assert [each["round"] for each in rounds_in(tmp_path)] == list(range(1, last + 1))

    (tmp_path / "whole").mkdir()
    status, errors = run(workers, tmp_path / "whole", "--training_rounds", str(last), *files)
    assert status == 0, errors
    resumed, whole = (
        tensors_of(tmp_path / "checkpoint"),
        tensors_of(tmp_path / "whole" / "checkpoint"),
    )
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    for one, other in zip(rounds_in(tmp_path), rounds_in(tmp_path / "whole"), strict=True):
        assert (one["losses"], one["learning_rate"]) == (other["losses"], other["learning_rate"])


def test_a_run_with_another_server_optimizer_is_not_resumed(workers, tmp_path):
    files = ("--training_rounds", "1", "--checkpoint", "checkpoint")
    status, errors = run(workers, tmp_path, *files, "--server_optimizer", "SGD")
    assert status == 0, errors
    status, errors = run(workers, tmp_path, "--resume", "checkpoint")
    assert status == 2
    assert errors == [
        "error: checkpoint 'checkpoint' belongs to another run: its server optimizer is "
        '["SGD", {"lr": 1.0}]; expected null. Resume with the model and the arguments of that run.'
    ]


def test_goes_on_without_a_killed_worker_and_takes_it_in_again(workers, tmp_path):
    arguments = ("--training_rounds", "100000", "--history", "history", "--min_workers", "2")
    with coordinator(workers, tmp_path, *arguments) as process:
        wait_for_rounds(tmp_path, lambda rounds: len(rounds) >= 2)
        workers["bob"].kill()
        wait_for_rounds(tmp_path, lambda rounds: rounds[-1]["workers"] == ["alice", "charlie"])
        workers["bob"].start()
        wait_for_rounds(
            tmp_path, lambda rounds: rounds[-1]["workers"] == ["alice", "bob", "charlie"]
        )
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=DEADLINE)
    failed = [each for each in rounds_in(tmp_path) if each["failures"]]
    assert all(each["failures"]["bob"].startswith("connection lost: ") for each in failed)
    first = failed[0]
    expected = (
        f"Round {first['round']}: received 2 models, 1 failure: bob: {first['failures']['bob']}"
    )
    assert expected in errors


def test_starts_without_an_absent_worker(workers, tmp_path):
    workers["bob"].kill()
    try:
        arguments = (
            "--training_rounds",
            "1",
            "--history",
            "history",
            "--round_timeout",
            "60",
            "--connect_timeout",
            "1",
        )
        status, errors = run(workers, tmp_path, *arguments)
    finally:
        workers["bob"].start()
    assert status == 0, errors
    assert any("Starting without bob: worker 'bob' did not accept" in line for line in errors)
    (only,) = rounds_in(tmp_path)
    assert only["workers"] == ["alice", "charlie"]
    assert sorted(only["accuracies"]) == ["alice", "charlie", "federated"]


def test_workers_of_any_name_and_number_train_and_evaluate(tmp_path):
    names = ("paris", "oslo", "rome")
    with worker_processes(*names) as workers:
        named = dict(zip(names, workers, strict=True))
        arguments = ("--training_rounds", "1", "--history", "history", "--evaluator", "oslo")
        status, errors = run(named, tmp_path, *arguments)
    assert status == 0, errors
    (only,) = rounds_in(tmp_path)
    assert only["workers"] == ["paris", "rome"]
    assert sorted(only["accuracies"]) == ["federated", "paris", "rome"]


class Evaluator(sy.VirtualWorker):
    """An evaluator in this process that answers or raises `answer`."""

    def __init__(self, answer):
        super().__init__(id="testing")
        self.answer, self.seconds = answer, []

    def evaluate(self, timeout=None, **_):
        self.seconds.append(timeout)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def evaluated_by(evaluator, *arguments):
    """What the script makes of an evaluator's answers about two models."""
    args = rwc.define_and_get_arguments(list(arguments))
    models = {"alice": classifier(), "federated": classifier()}
    return rwc.evaluate_models(models, evaluator, args, torch.device("cpu"))


LOST = ConnectionLost("testing", "ws://t:1", "evaluate()", "gone")
REMOTE = RemoteError("testing", "evaluate()", "ValueError", "no", "a traceback\nof two lines")
FAILURES = [
    (LOST, ConnectionLost, str(LOST)),
    (REMOTE, RemoteError, "worker 'testing' failed in evaluate(): ValueError: no"),
    ([1], InvalidReply, "worker 'testing' sent an invalid reply"),
    (TypeError("made of its answer"), InvalidReply, "made of its answer"),
]


@pytest.mark.parametrize(("answer", "error", "reason"), FAILURES)
def test_an_evaluation_that_fails_ends_the_run_with_an_error_of_the_evaluator(
    answer, error, reason
):
    with pytest.raises(error, match="'testing'") as failed:
        evaluated_by(Evaluator(answer))
    assert reason in str(failed.value)


@pytest.mark.parametrize(("answer", "error", "reason"), FAILURES)
def test_a_tolerant_run_goes_on_without_an_evaluation(answer, error, reason, caplog):
    nothing = {"test_losses": {}, "accuracies": {}}
    assert evaluated_by(Evaluator(answer), "--min_workers", "2") == nothing
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("No evaluation by testing: ") and reason in line
    assert "\n" not in line


def test_the_evaluator_has_as_long_as_a_round_for_each_evaluation():
    evaluator = Evaluator(
        GOOD | {"histogram_predictions": np.ones(10), "histogram_target": np.ones(10)}
    )
    assert evaluated_by(evaluator, "--round_timeout", "7")["accuracies"] == {
        "alice": 0.75,
        "federated": 0.75,
    }
    assert evaluator.seconds == [7, 7]


def test_without_the_flags_a_failure_ends_the_run(workers, tmp_path):
    with coordinator(
        workers, tmp_path, "--training_rounds", "100000", "--history", "history"
    ) as process:
        wait_for_rounds(tmp_path, lambda rounds: len(rounds) >= 2)
        workers["bob"].kill()
        try:
            _, errors = process.communicate(timeout=2 * DEADLINE)
        finally:
            workers["bob"].start()
    assert process.returncode == 1
    last = errors.splitlines()[-1]
    assert re.match(
        r"error: received \d models?; the round needs 3 .* Failures: bob: connection lost: ", last
    )
    assert "Traceback" not in errors


def test_a_tolerant_run_names_a_worker_that_lies_in_each_round_with_the_reason(
    workers, alice, tmp_path
):
    reasons = {
        "wrong names": "failed: InvalidReply: .*'other.conv1.bias'.*expected.*'conv1.bias'",
        "wrong shapes": r"failed: InvalidReply: .*\(1, 20, 1, 5, 5\) torch.float32; "
        r"expected \(20, 1, 5, 5\)",
        "wrong dtypes": "failed: InvalidReply: .*torch.float64; expected .*torch.float32",
        "NaN": "failed: InvalidReply: .*values that are not finite",
        "inf": "failed: InvalidReply: .*values that are not finite",
        "another architecture": "failed: InvalidReply: .*'weight'.*expected.*'conv1.bias'",
        "a list": "failed: InvalidReply: .*: a list; expected the parameters of a model",
        "None": "failed: InvalidReply: .*: NoneType; expected a map",
        ODD_FAILURE: r"failed: CallTimeout\\n: \\x1b\[2J$",
        LATE: f"timeout after {ROUND_SECONDS} s",
    }
    last = len(LIES) + 2
    small = ("--batch_size", "4", "--federate_after_n_batches", "1", "--training_rounds", str(last))
    files = ("--history", "history", "--checkpoint", "checkpoint")
    honest = [worker for name, worker in workers.items() if name != "bob"]
    with serving(LyingWorker("bob")) as liar, proxies_of(*honest) as proxies:
        for worker in [*proxies, alice]:  # the first training of a process imports for seconds
            make_config().send(worker)
            worker.fit("blobs")
        tolerant = ("--round_timeout", str(ROUND_SECONDS))
        status, errors = run(workers | {"bob": liar}, tmp_path, *small, *files, *tolerant)
    assert status == 0, errors

    first, *rounds = rounds_in(tmp_path)
    truth = rounds.pop()
    assert (first["round"], truth["round"]) == (1, last)
    assert first["workers"] == truth["workers"] == ["alice", "bob", "charlie"]
    for lie, each in zip(LIES, rounds, strict=True):
        assert each["workers"] == ["alice", "charlie"]
        assert re.match(reasons[lie], each["failures"]["bob"]), (lie, each["failures"])
        named = (
            f"Round {each['round']}: received 2 models, 1 failure: bob: {each['failures']['bob']}"
        )
        assert any(line.endswith(named) for line in errors), (named, errors)
    assert all(tensor.isfinite().all() for tensor in tensors_of(tmp_path / "checkpoint").values())


def test_a_checkpoint_that_does_not_fit_is_refused(workers, tmp_path):
    (tmp_path / "cut").write_bytes(b"\x10")
    status, errors = run(workers, tmp_path, "--resume", "cut")
    assert status == 2
    assert errors == [
        "error: checkpoint 'cut' cannot be used: it is not a whole safetensors file (Error while "
        "deserializing: header too small). Resume from another file, or start a new run."
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--round_timeout", "0"],
        ["--connect_timeout", "nan"],
        ["--min_workers", "0"],
        ["--min_workers", "4"],
        ["--evaluator", "rome"],
        ["--workers", "localhost:8777"],
        ["--workers", "testing=localhost:8777", "--evaluator", "paris"],
        ["--workers", "paris=localhost:8777", "--evaluator", "paris"],
        ["--batch_size", "x"],
        ["--server_optimizer", "FedAdam"],
        ["--server_optimizer", "Adam", "--server_momentum", "0.5"],
        ["--server_momentum", "0"],
        ["--proximal_mu", "-1"],
        ["--scaffold", "--proximal_mu", "0.1"],
        ["--scaffold", "--average", "median"],
        ["--average", "mode"],
        ["--average", "trimmed_mean", "--min_workers", "2"],
        ["--average", "trimmed_mean", "--round_timeout", "9"],
        ["--checkpoint", "/no/such/directory/file"],
        ["--history", "/"],
    ],
)
def test_a_wrong_argument_is_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as exited:
        rwc.define_and_get_arguments(arguments)
    assert exited.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ": error: argument --" in line and line.endswith("; see --help")
    assert any(f"argument {name}: " in line for name in arguments)


def test_the_tutorials_arguments_print_as_in_the_tutorial():
    assert repr(rwc.tutorial_arguments(rwc.define_and_get_arguments([]))) == (
        "Namespace(batch_size=32, test_batch_size=128, training_rounds=40, "
        "federate_after_n_batches=10, lr=0.1, cuda=False, seed=1, save_model=False, "
        "verbose=False)"
    )


@pytest.mark.parametrize(("variable", "seconds"), [("", CONNECT_TIMEOUT), ("25", 25)])
def test_the_time_to_connect_is_the_packages_unless_it_is_given(monkeypatch, variable, seconds):
    monkeypatch.setenv(CONNECT_TIMEOUT_VARIABLE, variable)
    assert rwc.define_and_get_arguments([]).connect_timeout == seconds
    assert rwc.define_and_get_arguments(["--connect_timeout", "3"]).connect_timeout == 3


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (LOST, 1, f"error: {LOST}"),
        (REMOTE, 1, "error: worker 'testing' failed in evaluate(): ValueError: no"),
        (HistoryDamaged("file", "line"), 2, f"error: {HistoryDamaged('file', 'line')}"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (None, 0, None),
    ],
)
def test_a_run_returns_its_exit_status_and_prints_one_line(
    monkeypatch, capsys, error, status, line
):
    monkeypatch.setattr(rwc, "main", AsyncMock(side_effect=error))
    assert rwc.run(rwc.define_and_get_arguments([])) == status
    assert capsys.readouterr().err.splitlines() == ([line] if line else [])


async def connect(*addresses):
    """Have the script connect to workers, with a second for each."""
    arguments = ["--connect_timeout", "1", "--workers", *addresses]
    return await rwc.connect_to_workers(rwc.define_and_get_arguments(arguments))


async def test_all_workers_that_do_not_answer_are_named_at_once(monkeypatch, caplog):
    monkeypatch.setattr(rwc, "SILENT_SECONDS", 0.1)
    caplog.set_level("INFO", rwc.logger.name)
    with (
        serving(Server("alice")) as alice,
        serving(Server("charlie", token="a-token-of-its-own")) as charlie,
    ):
        ports = {
            "alice": alice.port,
            "charlie": charlie.port,
            "bob": free_port(),
            "testing": free_port(),
        }
        with pytest.raises(ConnectionError) as failed:
            await connect(*(f"{name}=127.0.0.1:{port}" for name, port in ports.items()))
    urls = [f"ws://127.0.0.1:{ports[name]}" for name in ("bob", "testing")]
    (waiting,) = [
        record.getMessage() for record in caplog.records if record.name == rwc.logger.name
    ]
    # for those that do answer too, on a loaded machine
    assert waiting.startswith("Waiting up to 1 s for ")
    assert f"bob ({urls[0]})" in waiting and f"testing ({urls[1]})" in waiting
    denied, _, absent = str(failed.value).partition("; no connection ")
    assert denied.startswith(f"worker 'charlie' at ws://127.0.0.1:{charlie.port} denied access")
    assert absent == (
        f"within 1 s to 'bob' at {urls[0]}, 'testing' at {urls[1]}. "
        "Start the workers first: python start_websocket_servers.py"
    )
