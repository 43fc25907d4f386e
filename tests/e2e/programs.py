"""The project's scripts as real processes, each in a process group of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from tests.network import eventually

REPOSITORY = Path(__file__).parent.parent.parent
DEADLINE = 300.0
"""Seconds after which a program has failed; on an idle machine none takes a quarter of it."""

# Torch's threads wait for each other by spinning: on a busy machine, two of them are slower than
# one.
ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "passive"}


class Program:
    """A running script of the project.

    Args:
        script: name of the script, its path elsewhere, or "-m" and a module of the package.
        args: its arguments.
        folder: the place for temporary files.
        cwd: the current directory.
        merge: whether standard error goes into standard output.
        environment: variables beside those of this process.
        within: the command that runs it, such as `ip netns exec NAME`.
    """

    def __init__(
        self,
        script: str,
        *args: str,
        folder: Path,
        cwd: Path = REPOSITORY,
        merge: bool = False,
        environment: Mapping[str, str] = MappingProxyType({}),
        within: Sequence[str] = (),
    ) -> None:
        self._process = subprocess.Popen(
            [*within, sys.executable, *command_of(script), *args],
            cwd=cwd,
            env=os.environ
            | ENVIRONMENT
            | {"TMPDIR": str(folder)}
            | environment_of(script)
            | environment,
            stdin=subprocess.PIPE,  # finish() closes it
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._watchdog = threading.Timer(DEADLINE, self.kill)  # ends what would wait for ever
        self._watchdog.start()
        self._children: list[psutil.Process] = []

    def read_until(self, text: str) -> list[str]:
        """Return the lines of standard output up to the first that holds `text`."""
        lines: list[str] = []
        for line in self._process.stdout or ():
            lines.append(line.rstrip("\n"))
            if text in line:
                self._children = psutil.Process(self._process.pid).children(recursive=True)
                return lines
        raise AssertionError(f"no line has {text!r}: {lines}; {self.finish()}")

    def wait_until_a_child_maps(self, text: str) -> None:
        """Return when a child has loaded a library whose path holds `text`."""
        while self._process.poll() is None:
            self._children = psutil.Process(self._process.pid).children(recursive=True)
            if self.maps(text):
                return
        raise AssertionError(f"no child has loaded {text!r}: {self.finish()}")

    def wait_until_it_maps(self, text: str) -> None:
        """Return when the program itself has loaded a library whose path holds `text`."""
        self._children = [psutil.Process(self._process.pid)]
        while not self.maps(text):
            assert self._process.poll() is None, f"it has not loaded {text!r}: {self.finish()}"

    def child_that_listens(self, port: int) -> psutil.Process:
        """Return the process that listens on a port, among those that ran at the last
        `read_until`."""
        return next(
            child
            for child in self._children
            if any(
                each.laddr.port == port and each.status == "LISTEN"
                for each in child.net_connections()
            )
        )

    def maps(self, text: str) -> list[psutil.Process]:
        """Return the children that have loaded a library whose path holds `text`."""
        found = []
        for child in self._children:
            with contextlib.suppress(psutil.Error):  # it has ended
                if any(text in each.path for each in child.memory_maps()):
                    found.append(child)
        return found

    def signal(self, number: int, group: bool = False) -> None:
        """Send a signal to the program, or to its process group as a terminal does."""
        (os.killpg if group else os.kill)(self._process.pid, number)

    def wait(self) -> None:
        """Wait for the end of the program, but not of its children."""
        self._process.wait()

    def finish(self) -> tuple[int, str, str]:
        """Wait for the end; return the exit status, and the rest of standard output and of standard
        error."""
        out, err = self._process.communicate()
        self._watchdog.cancel()
        return self._process.returncode, out, err

    def left_behind(self) -> list[str]:
        """Return what runs after a while of the processes that ran at the last `read_until`."""
        assert self._children
        eventually(lambda: all(map(has_ended, self._children)))
        return [str(child) for child in self._children if not has_ended(child)]

    def kill(self) -> None:
        """Kill the process group, and whatever left it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for child in self._children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def close(self) -> None:
        """Leave nothing behind."""
        self.kill()
        self.finish()


def command_of(script: str) -> list[str]:
    """Return Python's arguments that run a script of the project, or a module of the package."""
    return script.split() if script.startswith("-m ") else [str(REPOSITORY / script)]


def environment_of(script: str) -> dict[str, str]:
    """Return what every program gets, and where Python finds the package from any folder."""
    found = {"PYTHONPATH": str(REPOSITORY)} if script.startswith("-m ") else {}
    return ENVIRONMENT | found


@contextlib.contextmanager
def running(script: str, *args: str, **settings: Any) -> Iterator[Program]:
    """A script that runs until the context ends, at most; `settings` are those of Program."""
    program = Program(script, *args, **settings)
    try:
        yield program
    finally:
        program.close()


def run(script: str, *args: str, **settings: Any) -> tuple[int, str, str]:
    """Run a script to its end; return its exit status, standard output and standard error."""
    with running(script, *args, **settings) as program:
        return program.finish()


def write_namesakes(folder: Path) -> None:
    """Put modules into a folder that have the names of the project's own, and end whatever imports
    them."""
    names = {
        str(path.relative_to(REPOSITORY))
        for pattern in ("*.py", "*/*.py")
        for path in REPOSITORY.glob(pattern)
    }
    assert {
        "run_websocket_client.py",
        "syft/__init__.py",
        "tutorial/__init__.py",
        "tutorial/light.py",
    } <= names
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"raise SystemExit('this is another {name}')")


def has_ended(process: psutil.Process) -> bool:
    """Whether a process has ended, be it that its parent has not asked for its status yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def free_ports(count: int = 4) -> list[int]:
    """Return ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [each.getsockname()[1] for each in sockets]


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of this machine."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
