"""The Flower app on Flower's own engines: Ray, and processes that speak TLS.

`make test-engine` runs these; they need Ray and some minutes.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import trustme

from tests.e2e.programs import free_ports

REPOSITORY = Path(__file__).parents[2]
DEADLINE = 600.0
"""Seconds after which a test that waits has failed."""


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a launcher in flower/; at the end it has ended, with all that it started."""
    started: list[subprocess.Popen[str]] = []

    def launch(script: str, *args: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, str(REPOSITORY / "flower" / script), *args],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                # What runs in the background inherits that Ctrl-C is ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        )
        return started[-1]

    yield launch
    for program in started:
        children = psutil.Process(program.pid).children(True) if program.poll() is None else []
        program.terminate()
        try:
            program.wait(60)
        finally:
            program.kill()
            program.communicate()
        _, alive = psutil.wait_procs(children, timeout=30)
        for child in alive:
            child.kill()
        assert alive == []


def finished(program: subprocess.Popen[str]) -> tuple[int, str]:
    """Return a program's exit status and what it printed."""
    output, _ = program.communicate(timeout=DEADLINE)
    return program.returncode, output


def line(program: subprocess.Popen[str], pattern: str) -> str:
    """Return the next line that matches a pattern."""
    assert program.stdout is not None
    seen = []
    for text in program.stdout:
        seen.append(text)
        if re.search(pattern, text):
            return text
    raise AssertionError(f"no line matches {pattern!r}: {''.join(seen)}")


def rounds(folder: Path) -> list[dict]:
    return [json.loads(text) for text in (folder / "run.jsonl").read_text().splitlines()]


def accuracies(folder: Path) -> list[float]:
    return [each["accuracies"]["federated"] for each in rounds(folder)]


def test_a_simulation_ends_with_a_table_and_a_curve(launched, tmp_path):
    status, output = finished(
        launched("simulate.py", "--clients", "20", "--fraction", "0.2", "--rounds", "3")
    )
    assert status == 0, output
    assert re.search(r"^round 3/3: 4 models, 0 failures; [\d.]+ %; [\d.]+ s$", output, re.M)
    assert re.search(r"^ +3 +4 +0 +[\d.]+ % +[\d.]+$", output, re.M), output
    assert (tmp_path / "simulation" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert len(rounds(tmp_path / "simulation")) == 3


def test_a_simulation_and_a_deployment_give_the_same_model(launched, tmp_path):
    tutorial = ["--clients", "3", "--fraction", "1", "--split", "digits", "--rounds", "2"]
    status, output = finished(launched("simulate.py", *tutorial))
    assert status == 0, output
    status, output = finished(launched("deployment.py", "--rounds", "2"))
    assert status == 0, output
    assert accuracies(tmp_path / "simulation") == accuracies(tmp_path / "deployment")


def test_a_supernode_that_is_killed_is_started_again_and_the_run_goes_on(launched, tmp_path):
    program = launched("deployment.py", "--rounds", "6", "--round_seconds", "90")
    found = re.search(r"process (\d+)", line(program, "SuperNode bob: process"))
    assert found
    line(program, "round 1/6: 3 models, 0 failures")
    deadline = time.monotonic() + DEADLINE
    supernode = psutil.Process(int(found[1]))
    # In the middle of its second fit.
    while not any("flwr-clientapp" in " ".join(each.cmdline()) for each in tree(supernode)):
        assert time.monotonic() < deadline
    os.kill(supernode.pid, signal.SIGKILL)
    assert "by SIGKILL" in line(program, "SuperNode bob ended")
    status, output = finished(program)
    assert status == 0, output
    failures = [each["failures"] for each in rounds(tmp_path / "deployment")]
    assert list(failures[1]) == ["bob"], failures
    assert failures[0] == {} and failures[-1] == {}


@pytest.mark.parametrize(
    ("script", "under_way"), [("simulate.py", "^round 1/"), ("deployment.py", "SuperNode charlie")]
)
def test_ctrl_c_leaves_nothing_behind(launched, script, under_way):
    program = launched(script)
    line(program, under_way)
    children = psutil.Process(program.pid).children(recursive=True)
    assert len(children) > 3
    program.send_signal(signal.SIGINT)
    status, output = finished(program)
    assert (status, output.splitlines()[-1]) == (130, "interrupted")
    assert psutil.wait_procs(children, timeout=60)[1] == []


def tree(process: psutil.Process) -> list[psutil.Process]:
    """Return the descendants of a process that can still be asked."""
    found = []
    for child in process.children(recursive=True):
        try:
            child.cmdline()
        except psutil.Error:
            continue
        found.append(child)
    return found


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[tuple]:
    """A SuperLink with TLS and keys, and its engine; no SuperNode yet."""
    from deployment import Deployment
    from engine import Engine

    with Engine(tmp_path / "engine") as engine:
        deployment = Deployment(engine)
        deployment.start_superlink()
        yield deployment, engine


def wait_for_words(engine, name: str, words: str) -> None:
    """Return when the log of a process says something."""
    deadline = time.monotonic() + 120
    while words not in engine.log_of(name).read_text():
        assert time.monotonic() < deadline, engine.log_of(name).read_text()
        time.sleep(0.1)


def test_a_supernode_takes_no_superlink_of_another_authority(deployed, tmp_path):
    deployment, engine = deployed
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    deployment.register("alice")
    deployment.start_supernode("alice", 0, 3, ca_file=other)
    wait_for_words(engine, "alice", "CERTIFICATE_VERIFY_FAILED")
    assert "online" not in engine.call("supernode", "list", "here")


def test_the_superlink_takes_no_supernode_whose_key_it_does_not_know(deployed):
    deployment, engine = deployed
    deployment.register("alice")
    deployment.make_key("mallory")
    deployment.start_supernode("mallory", 0, 3)
    assert engine.processes["mallory"].wait(120) != 0
    assert "online" not in engine.call("supernode", "list", "here")


def test_a_run_takes_no_superlink_of_another_authority(deployed, launched, tmp_path):
    deployment, _ = deployed
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    arguments = ["--superlink", deployment.address, "--ca_file", str(other)]
    status, output = finished(launched("deployment.py", *arguments))
    assert status == 1
    assert output.startswith(f"error: the SuperLink at {deployment.address} is not to be trusted")
    assert output.count("\n") == 1


def test_a_superlink_that_is_not_there_is_one_line(launched):
    address = f"127.0.0.1:{free_ports(1)[0]}"
    status, output = finished(launched("deployment.py", "--superlink", address))
    assert status == 1
    assert output.startswith(f"error: no SuperLink answers at {address}. Start it there first")
    assert output.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--strategy", "FedFoo"], "strategy is 'FedFoo'; expected one of FedAvg"),
        (["--split", "even"], "split is 'even'; expected digits, iid"),
        (["--clients", "60001"], "clients is 60001; expected at most 60,000"),
        (["--set", "speed=3"], "no setting is called 'speed'"),
    ],
)
def test_a_simulation_that_is_not_possible_is_one_line(launched, arguments, reason):
    status, output = finished(launched("simulate.py", *arguments))
    assert status == 2
    assert reason in output and output.count("\n") == 1
