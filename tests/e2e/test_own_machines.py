"""The example with a table on several machines: each in a network namespace, the workers with
certificates, token files and tables of their own."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from syft import worker
from tests.bad_network import Switch
from tests.e2e.programs import REPOSITORY, running
from tests.network import DEADLINE
from tests.processes import CONTEXT, enter
from tutorial import certificates

HOSPITALS = ("paris", "oslo", "rome", "quito", "lima")
EVALUATOR = "sofia"
COORDINATOR = "coordinator"
ROUND = 4.0
"""Seconds of a round's deadline; a round takes a tenth of one."""


@pytest.fixture
def switch():
    try:
        switch = Switch(*HOSPITALS, EVALUATOR, COORDINATOR)
    except FileNotFoundError:
        pytest.skip("no `ip` (Debian's iproute2)")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces: {error.stderr.decode().strip()}")
    yield switch
    switch.end()


def run_worker(namespace, folder, words):
    """Be `python -m syft.worker` in a folder of another machine; runs in a process of its own."""
    enter(namespace)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    with open("log", "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.exit(worker.main(words))


class Machine:
    """A machine with one worker, and nothing in its folder that is not its own."""

    def __init__(self, name, folder, switch):
        self._folder, self._namespace = folder / name, switch.namespaces[name]
        self._folder.mkdir()
        shutil.copy(REPOSITORY / "examples" / "own_data" / "hospital.py", self._folder)
        for path in (folder / "token", *(folder / "certificates" / name).iterdir()):
            shutil.copy2(path, self._folder)
        self._words = ["--id", name, "--host", switch.addresses[name], "--port", "8777"]
        self._words += ["--dataset", "hospital:load", name, "--key", "patients"]
        self._words += ["--token_file", "token", "--cert_file", "server.pem"]
        self._words += ["--key_file", "server.key"]
        self.start()

    def start(self):
        settings = (self._namespace, self._folder, self._words)
        self._process = CONTEXT.Process(target=run_worker, args=settings)
        self._process.start()

    def kill(self):
        """End it as `kill -9` does."""
        self._process.kill()
        self._process.join(DEADLINE)

    def log(self):
        return (self._folder / "log").read_text()


@pytest.fixture
def machines(tmp_path, switch):
    (tmp_path / "token").write_text("secret of the lab\n".replace(" ", "-"))
    names = (*HOSPITALS, EVALUATOR)
    pairs = [f"{name}={switch.addresses[name]}" for name in names]
    assert certificates.main([*pairs, "--folder", str(tmp_path / "certificates")]) == 0
    with contextlib.ExitStack() as stack:
        machines = {}
        for name in names:
            machines[name] = Machine(name, tmp_path, switch)
            stack.callback(machines[name].kill)
        yield machines


def coordinator(folder: Path, switch: Switch) -> Path:
    """Write the example's coordinator with the addresses of these machines; return its file."""
    text = (REPOSITORY / "examples" / "own_data" / "train.py").read_text()
    places = {name: (address, 8777) for name, address in switch.addresses.items()}
    for name, group in (("HOSPITALS", HOSPITALS), ("EVALUATOR", [EVALUATOR])):
        chosen = {each: places[each] for each in group}
        text, count = re.subn(rf"^{name} = {{[^}}]*}}", f"{name} = {chosen}", text, flags=re.M)
        assert count == 1
    (folder / COORDINATOR).mkdir()
    file = folder / COORDINATOR / "train.py"
    file.write_text(text)
    return file


def test_a_lab_trains_on_its_own_machines_though_one_is_killed_and_one_cut_off(
    tmp_path, switch, machines
):
    file = coordinator(tmp_path, switch)
    words = ["--rounds", "1000000", "--deadline", str(ROUND), "--token_file", "../token"]
    words += ["--ca_file", "../certificates/authority.pem"]
    place = {"folder": tmp_path, "cwd": file.parent, "environment": {"PYTHONPATH": str(REPOSITORY)}}
    within = ["ip", "netns", "exec", switch.namespaces[COORDINATOR]]
    with running(str(file), *words, within=within, merge=True, **place) as program:
        program.read_until("received 5 models, 0 failures; accuracy in sofia")
        machines["rome"].kill()
        program.read_until("received 4 models, 1 failure: rome: connection lost")
        switch.plug("oslo", False)
        lines = program.read_until("received 3 models, 2 failures: oslo: timeout after 4 s")
        assert "rome: connection lost" in lines[-1]
        switch.plug("oslo", True)
        machines["rome"].start()
        program.read_until("received 5 models, 0 failures")
    assert "serves at wss://192.0.2.12:8777" in machines["rome"].log()
