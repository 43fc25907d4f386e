"""Start the processes of Flower's engine, and end them: what simulate.py and deployment.py share.

Each process writes to a log file of its own and ends with the program that started it. All live in
one folder, where Flower keeps its files too, so nothing here sees or changes what else of Flower is
on this machine. Nothing is sent home, and nothing is installed.

Imports neither torch nor flwr, but at the end of a run.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from settings import Settings

APP = Path(__file__).resolve().parent
ROOT = APP.parent
sys.path.insert(0, str(ROOT))  # as a script, this folder is on the path and the project is not

from tutorial import lifetime  # noqa: E402
from tutorial.light import options  # noqa: E402

START_SECONDS = 120.0
"""How long a process of the engine may take until it listens; some import torch on busy cores."""
STOP_SECONDS = 10.0
_SECONDS_OF_SILENCE = 5.0
_TOO_OLD = (
    "Flower needs Python 3.11 or later; this is {}.{}. Name another, e.g. make simulate "
    "PYTHON=python3.12"
)
_PREFIX = re.compile(r"\x1b\[[0-9;]*m|^\s*(?:INFO|WARNING|ERROR)\s*:\s*")
_SHOWN = re.compile(r"round \d+/\d+: |Waiting up to |Going on with |error: |A node is left out: ")

_MISSING = (
    "cannot be imported. Install what Flower's engines need: make install-flower, or pip install "
    "-r requirements-flower.txt"
)


class EngineError(RuntimeError):
    """A process of the engine that does not do its part. Its text is one line."""


class Engine:
    """Processes of Flower that end when the context does.

    Args:
        folder: for logs and Flower's own files; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._stack = folder, ExitStack()
        self.home = folder / "flwr"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = os.environ | {
            "FLWR_HOME": str(self.home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or Ray warns
            # A task should not wait a second until somebody looks for it.
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(
                os.pathsep
            ),
            # The engine looks for its commands there.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONUNBUFFERED": "1",
        }

    def __enter__(self) -> Engine:
        self.home.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(_interruptible())
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self.processes)):
            self.stop(name)
        self._stack.close()

    def log_of(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.folder / f"{name}.log"

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a process, or start it again; it adds to its log file."""
        with self.log_of(name).open("ab") as log:
            self.processes[name] = process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=_ending_with(os.getpid()),
            )
        return process

    def stop(self, name: str) -> None:
        """End a process and what it has started."""
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def wait_for(self, name: str, port: int) -> None:
        """Return when a process listens.

        Raises:
            EngineError: it ended, or does not listen in time.
        """
        started, told = time.monotonic(), False
        while not listens("127.0.0.1", port):
            seconds = time.monotonic() - started
            status = self.processes[name].poll()
            if status is not None:
                raise EngineError(
                    f"{name} ended with status {status} before it listened; its last words: "
                    f"{self.last_words(name)} (see {self.log_of(name)})"
                )
            if seconds > START_SECONDS:
                raise EngineError(
                    f"{name} does not listen on port {port} after {seconds:.0f} s; see "
                    f"{self.log_of(name)}"
                )
            if seconds > _SECONDS_OF_SILENCE and not told:
                say(f"waiting for {name}, up to {START_SECONDS:.0f} s")
                told = True
            time.sleep(0.05)

    def last_words(self, name: str) -> str:
        """Return what a process has logged last of why it ended."""
        lines = self.log_of(name).read_text(errors="replace").splitlines()
        return _reason([_plain(line) for line in lines])

    def connect_to(self, address: str, ca_file: Path | None) -> None:
        """Have `flwr` find the SuperLink at an address under the name "here"."""
        trust = f"root-certificates = {json.dumps(str(ca_file))}" if ca_file else "insecure = true"
        config = (
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "{address}"\n{trust}\n'
        )
        (self.home / "config.toml").write_text(config)

    def call(self, *arguments: str) -> str:
        """Run a command of `flwr` and return what it prints.

        Raises:
            EngineError: it failed.
        """
        done = subprocess.run(
            ["flwr", *arguments],
            env=self.environment,
            cwd=self.folder,
            text=True,
            capture_output=True,
            timeout=START_SECONDS,
        )
        output = done.stdout + done.stderr
        if done.returncode:
            words = _reason(output.splitlines())
            raise EngineError(f"flwr {' '.join(arguments[:2])} failed: {words}")
        return output

    def run(
        self,
        settings: Mapping[str, Any],
        *options: str,
        verbose: bool = False,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> int:
        """Run the app and show its progress, a line a round; return how many rounds it did.

        Args:
            settings: settings of the run, by their names in pyproject.toml.
            *options: further options of `flwr run`.
            verbose: whether to show all that the engine says.
            meanwhile: called about every second.

        Raises:
            EngineError: the run could not be started.
        """
        config = self.folder / "run.toml"
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
        config.write_text("\n".join(lines) + "\n")
        command = ["flwr", "run", str(APP), "here", "--stream", "--run-config", str(config)]
        process = self.start("run", *command, *options)
        with self.log_of("run").open(encoding="utf-8", errors="replace") as log:
            ended, done = False, 0
            while not ended:
                ended = process.poll() is not None
                while line := log.readline():
                    text = _plain(line)
                    done += text.startswith("round ")
                    if verbose or _SHOWN.match(text):
                        say(text)
                meanwhile()
                time.sleep(0.2)
        if process.returncode:
            raise EngineError(f"flwr run failed: {self.last_words('run')}")
        return done


def main_of(run: Callable[[], int], *modules: str) -> int:
    """Run a launcher that needs some modules; return its exit status.

    What goes wrong is one line.
    """
    version = (sys.version_info.major, sys.version_info.minor)
    if version < (3, 11):
        print(f"error: {_TOO_OLD.format(*version)}", file=sys.stderr)
        return 2
    if missing := [name for name in modules if find_spec(name) is None]:
        print(f"error: {' and '.join(missing)} {_MISSING}", file=sys.stderr)
        return 2
    try:
        return run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return lifetime.INTERRUPTED
    except (EngineError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def add_options(parser: options.Parser) -> None:
    """Add the options that both launchers have."""
    add = parser.add_argument
    help_text = "further settings of the run, see flower/settings.py, e.g. --set lr=0.05 seed=2"
    add("--set", nargs="+", type=_setting, metavar="NAME=VALUE", help=help_text)
    add("--verbose", "-v", action="store_true", help="show all that the engine says")


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    if value in ("true", "false"):
        return name, value == "true"
    for kind in (int, float):
        with suppress(ValueError):
            return name, kind(value)
    return name, value


def finish(output: Path, settings: Settings, memory: Memory) -> int:
    """Print the table of a run and draw its accuracy; return 0.

    Args:
        output: folder with its history, run.jsonl, and for the curve.
        settings: its settings.
        memory: what was measured meanwhile.

    Raises:
        EngineError: the run ended early.
    """
    # torch and matplotlib, whose imports nobody has to wait for now.
    from syft.federated import read_history
    from tutorial.plots import plot_accuracy

    if rounds := read_history(output / "run.jsonl"):
        say(summary(rounds))
        if memory.most:
            say(f"at most {memory.most / 1e9:.1f} GB in all processes of the engine")
        title = f"{settings.strategy}, {settings.clients:,} clients, {settings.split}"
        plot_accuracy(rounds, title).savefig(output / "accuracy.png", dpi=150)
        say(f"accuracy curve: {output / 'accuracy.png'}; history: {output / 'run.jsonl'}")
    if len(rounds) < settings.rounds:
        done = f"{len(rounds)} of {settings.rounds}"
        raise EngineError(f"the run ended after {done} rounds; see {output / 'run.log'}")
    return 0


def summary(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of a run's rounds, and what they took."""
    lines = ["round  models  failures  accuracy   seconds"]
    for each in rounds:
        share = each.get("accuracies", {}).get("federated")
        accuracy = "" if share is None else f"{100 * share:.2f} %"
        counts = f"{len(each['workers']):>8}{len(each['failures']):>10}"
        lines.append(f"{each['round']:>5}{counts}{accuracy:>10}{each['whole_seconds']:>10.1f}")
    seconds = [each["whole_seconds"] for each in rounds]
    if len(seconds) > 1:
        later = median(seconds[1:])
        lines.append(f"the first round took {seconds[0]:.1f} s, a later one {later:.1f} s (median)")
    return "\n".join(lines)


class Memory:
    """The most memory that a program and its descendants had at a time, in bytes.

    Shared pages count in part (proportional set size).
    """

    def __init__(self) -> None:
        self.most, self._next = 0, 0.0

    def look(self) -> None:
        """Measure, unless it was done a moment ago."""
        if time.monotonic() < self._next:
            return
        total = 0
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                info = process.memory_full_info()
                total += getattr(info, "pss", 0) or info.rss
        self.most, self._next = max(self.most, total), time.monotonic() + 2


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def listens(host: str, port: int) -> bool:
    """Return whether somebody accepts connections at an address."""
    with suppress(OSError), socket.create_connection((host, port), timeout=2):
        return True
    return False


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def _plain(line: str) -> str:
    """Return a line of the engine's log without colours and level."""
    return _PREFIX.sub("", _PREFIX.sub("", line)).strip()


def _reason(lines: Sequence[str]) -> str:
    """Return what lines of Flower's say of a failure: a box, an exit code, or the last line."""
    boxed = [line.strip("│ ") for line in lines if line.startswith("│")]
    if boxed:
        return " ".join(boxed)
    for number, line in enumerate(lines):
        if line.startswith("Exit Code"):
            return " ".join(lines[number + 1 : number + 3])
    return next((line for line in reversed(lines) if line), "none")


def _ending_with(parent: int) -> Callable[[], None]:
    return lambda: lifetime.end_with_parent(parent, signal.SIGTERM)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have SIGTERM end the context as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
