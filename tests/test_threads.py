"""How many threads workers compute with, alone and beside others, and what the first fit needs."""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from syft.options import Parser, add_worker_options, worker_options
from syft.workers import threads
from syft.workers.threads import Threads
from tests.network import DEADLINE, Server, proxy_of, serving

REPOSITORY = Path(__file__).parent.parent

posix = pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """The folder of the processes that serve, on a machine with eight cores of which torch uses
    all."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(threads, "cores", lambda: 8)
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield tmp_path / "syft-serving"
    torch.set_num_threads(before)


@contextlib.contextmanager
def others(folder, count):
    """Other processes that serve."""
    hold = "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.flock(f, 1); print(); input()"
    folder.mkdir(mode=0o700, exist_ok=True)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with contextlib.ExitStack() as stack:
        for number in range(count):
            path = folder / f"{socket.gethostname()}_{number}"
            process = subprocess.Popen([sys.executable, "-S", "-c", hold, str(path)], **pipes)
            stack.enter_context(process)
            stack.callback(process.kill)
            process.stdout.readline()
        yield


def test_a_worker_that_is_alone_leaves_torchs_threads_as_they_are():
    with threads.serving():
        Threads(None).apply()
    assert torch.get_num_threads() == 8


@posix
@pytest.mark.parametrize(("count", "expected"), [(1, 4), (2, 2), (3, 2), (8, 1)])
def test_the_processes_that_serve_on_a_machine_share_its_cores(folder, count, expected):
    with threads.serving(), others(folder, count):
        Threads(None).apply()
    assert torch.get_num_threads() == expected


@posix
def test_processes_are_counted_anew_for_each_call_and_the_number_never_rises(folder):
    ours, seen = Threads(None), []
    with threads.serving():
        for count in (0, 1, 3, 0):
            with others(folder, count):
                ours.apply()
                seen.append(torch.get_num_threads())
    assert seen == [8, 4, 2, 2]


@posix
def test_a_worker_never_gets_more_threads_than_torch_had(folder):
    torch.set_num_threads(3)
    with threads.serving(), others(folder, 1):
        Threads(None).apply()
    assert torch.get_num_threads() == 3


@posix
def test_a_process_that_was_killed_does_not_count_and_its_file_goes(folder):
    with others(folder, 2):
        assert len(list(folder.iterdir())) == 2
    with threads.serving():
        Threads(None).apply()
        assert [path.name for path in folder.iterdir()] == [f"{socket.gethostname()}_{os.getpid()}"]
    assert torch.get_num_threads() == 8


@posix
def test_the_workers_of_one_process_count_once_and_leave_no_file(folder):
    with serving(Server()) as alice, proxy_of(alice) as proxy:
        with serving(Server("bob")):
            proxy.call("scale", torch.ones(1))
            assert torch.get_num_threads() == 8
            assert len(list(folder.iterdir())) == 1
        assert len(list(folder.iterdir())) == 1
    assert list(folder.iterdir()) == []


def test_the_number_that_is_given_holds_whoever_else_serves(folder):
    class Counting(Server):
        def threads_now(self):
            return torch.get_num_threads()

    with serving(Counting(threads=3)) as server, proxy_of(server) as proxy:
        assert proxy.call("threads_now") == 3


def test_a_folder_that_cannot_be_written_leaves_torchs_threads_as_they_are(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with threads.serving():
        Threads(None).apply()
    assert torch.get_num_threads() == 8


@pytest.mark.parametrize("number", [0, -1])
def test_a_number_below_one_is_refused(number):
    with pytest.raises(ValueError, match=f"threads is {number}; expected a number of at least 1"):
        Server(threads=number)


@pytest.mark.parametrize(("words", "given"), [([], {}), (["--threads", "2"], {"threads": 2})])
def test_the_scripts_pass_the_number_on(monkeypatch, words, given):
    monkeypatch.setenv("SYFT_TOKEN", "")
    parser = Parser("")
    add_worker_options(parser)
    options = worker_options(parser, parser.parse_args(words))
    assert {name: value for name, value in options.items() if name == "threads"} == given


FIRST_FIT = """
import sys
from tests.models import make_config
from tests.network import Server, proxy_of, serving

with serving(Server()) as server, proxy_of(server) as proxy:
    before = set(sys.modules)
    make_config(optimizer="Adam", optimizer_args={}).send(proxy)
    proxy.fit("blobs")
    new = {name for name in set(sys.modules) - before if name.startswith(("torch", "sympy"))}
    print(sorted(new))
"""


def test_a_worker_that_can_be_reached_has_imported_what_its_first_fit_needs():
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-W", "ignore", "-c", FIRST_FIT]
    found = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, timeout=5 * DEADLINE, check=True
    )
    assert found.stdout.decode() == "[]\n"


@pytest.mark.parametrize(("given", "found"), [(None, "passive"), ("active", "active")])
def test_torchs_threads_do_not_spin_unless_that_is_asked_for(given, found):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    environment.pop("OMP_WAIT_POLICY", None)
    code = (
        "import os, sys; sys.modules['torch'] = None\ntry: import syft\nexcept ImportError: pass\n"
    )
    code += "print(os.environ['OMP_WAIT_POLICY'])"
    given_too = environment | ({"OMP_WAIT_POLICY": given} if given else {})
    shown = subprocess.run(
        [sys.executable, "-c", code], env=given_too, stdout=subprocess.PIPE, check=True
    )
    assert shown.stdout.decode() == f"{found}\n"
