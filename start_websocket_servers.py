"""Starts the four workers of the tutorial, and stops them again.

    python start_websocket_servers.py                                    # serve until Ctrl-C
    python start_websocket_servers.py -- python run_websocket_client.py  # serve while it runs
    python start_websocket_servers.py --names a b c d e --split dirichlet:0.3

    launcher ──> fork server (imports torch once) ──┬─> alice    digits 0-3
        │                                           ├─> bob      digits 4-6
        │  one pipe a worker: "ready", and          ├─> charlie  digits 7-9
        └─ its end, when the launcher ends          └─> testing  the test images

Nothing here imports torch: the workers' processes are forked from one that has imported it, where
the platform can. A command starts together with the workers, so that it has imported torch when
they have; its proxies wait for them.

No process outlives the launcher: it ends the workers, the fork server and the command. If it is
killed, the workers notice the end of their pipes, and on Linux the kernel ends the other two (see
tutorial/lifetime.py). Elsewhere the fork server then ends when it has imported torch, and the
command when it likes; it has no workers any more.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import logging
import multiprocessing
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tutorial import lifetime
from tutorial.light import options
from tutorial.mnist import DamagedArchiveError, unpack_mnist

Command = subprocess.Popen[bytes]

TRAINERS = ("alice", "bob", "charlie")
EVALUATOR = "testing"
FIRST_PORT = 8777
START_TIMEOUT = 120.0
"""Seconds in which all workers must be ready."""
COMMAND_CONNECT_TIMEOUT = 30.0
"""Seconds that the proxies of the command wait for a worker.

The workers import a little more than it does.
"""
LOOK_INTERVAL = 0.2
"""Seconds between two looks at whether the command has ended, while workers start."""
STOP_TIMEOUT = 5.0
"""Seconds a worker has to end by itself when it is told to."""
TAIL_LINES = 8
PLAIN_COMMAND = "python run_websocket_client.py"
ENVIRONMENT = {
    # torch's threads would spin while others need the cores.
    "OMP_WAIT_POLICY": "passive",
    # glibc keeps freed memory for the next batch, rather than return it to the system and fault its
    # pages in again.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
}
"""What makes torch faster in processes that share the cores: the workers and the command.

What is set already stays.
"""


@dataclass
class Worker:
    """One worker's process, as the launcher sees it; `again` starts another in its place."""

    id: str
    host: str
    port: int
    log: Path
    process: BaseProcess
    pipe: Connection
    again: Callable[[], Worker]
    tls: bool = False
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The worker's address."""
        return f"{'wss' if self.tls else 'ws'}://{self.host}:{self.port}"

    def failure(self) -> str:
        """Return one line on how the process ended, and the last lines of its log."""
        code = self.process.exitcode or 0
        how = (
            f"was killed by {signal.Signals(-code).name}"
            if code < 0
            else f"exited with status {code}"
        )
        lines = (
            self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
            if self.log.exists()
            else []
        )
        tail = "".join(f"\n  {line}" for line in lines)
        return f"worker {self.id!r} ({self.url}) {how}; its log: {self.log}{tail}"

    def line(self) -> str:
        """Return one line on what it holds."""
        digits, samples = self.about["digits"], self.about["samples"]
        return f"{self.id:8} {self.url:22} digits {_ranges(digits)}  {samples:6,} samples"


class WorkerFailed(Exception):
    """A worker could not start, or ended before it was told to."""


class Stopped(Exception):
    """A signal asks this program to end."""


def main() -> int:
    """Run the workers, and the command if there is one; return the exit status."""
    args = define_and_get_arguments()
    for number in _stop_signals():
        signal.signal(number, _raise_stopped)
    logs = Path(tempfile.mkdtemp(prefix="websocket-workers-"))
    keep_logs = False
    try:
        # What may fail at once comes before the first process is started.
        unpack_mnist()
        set_environment()
        check_ports(args.host, args.names, args.ports)
        with run_workers(args, logs) as (workers, command):
            wait_until_ready(workers, command)
            if args.keep_going:
                print(f"{process_ids(workers)}\n", flush=True)
            if command is not None:
                return wait_for_command(command, workers, args.keep_going)
            print(f"\nNow run, in another terminal: {command_to_type(args)}")
            print(f"{notebooks_to_open(args)}Ctrl-C stops the workers.", flush=True)
            if args.keep_going:
                replace_those_that_end(workers, None)
            wait_for_failure(workers)
        return 0
    except Stopped:
        print("stopping the workers")
        # Interrupted, the command has not done what it should.
        return lifetime.INTERRUPTED if args.command else 0
    except (WorkerFailed, DamagedArchiveError) as error:
        keep_logs = any(logs.iterdir())
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if not keep_logs:
            shutil.rmtree(logs, ignore_errors=True)


def define_and_get_arguments(args: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments; an error exits with status 2."""
    parser = options.Parser(
        "Start the workers alice, bob, charlie and testing, each in a process of its own.",
        epilog="Example: %(prog)s -- python run_websocket_client.py --training_rounds 10",
    )
    add = parser.add_argument_group("workers").add_argument
    help_text = f"ports of the workers, testing at last (default: {FIRST_PORT} and the next ones)"
    add("--ports", type=int, nargs="+", metavar="PORT", help=help_text)
    add(
        "--verbose", "-v", action="store_true", help="show the workers' logs, each request included"
    )
    help_text = "start a worker again that ends, rather than stop all; tells the processes' ids"
    add("--keep_going", action="store_true", help=help_text)
    split = options.add_split_options(parser)
    help_text = "workers to split the training images among (default: alice, bob and charlie)"
    split("--names", nargs="+", metavar="NAME", help=help_text)
    options.add_worker_options(parser)
    parser.add_argument(
        "command", nargs="*", metavar="-- COMMAND", help="command to run; the workers stop after it"
    )
    arguments = parser.parse_args(args)
    if arguments.names and not arguments.split:
        parser.error("--names needs --split: how the training images are split among them")
    arguments.names = [*(arguments.names or TRAINERS), EVALUATOR]
    if len(set(arguments.names)) < len(arguments.names):
        parser.error(f"argument --names: {', '.join(arguments.names)} are not all different")
    # To the coordinator, names of the tutorial alone say where some of its workers are.
    if set(arguments.names) < {*TRAINERS, EVALUATOR}:
        missing = ", ".join(name for name in TRAINERS if name not in arguments.names)
        parser.error(
            f"argument --names: run_websocket_client.py would look for {missing} too, as in the "
            "tutorial; expected another name among them"
        )
    if arguments.ports is None:
        arguments.ports = _usual_ports(arguments.names)
    if len(arguments.ports) != len(arguments.names):
        parser.error(
            f"argument --ports: {len(arguments.ports)} numbers; expected one for each of "
            f"{', '.join(arguments.names)}"
        )
    for port in arguments.ports:
        if not 1 <= port <= 65535:
            parser.error(f"argument --ports: {port} is no port; expected numbers from 1 to 65535")
    if len(set(arguments.ports)) < len(arguments.ports):
        parser.error(f"argument --ports: {arguments.ports} are not all different")
    arguments.options = options.worker_options(parser, arguments)
    return arguments


def command_to_type(args: argparse.Namespace) -> str:
    """Return the command that trains on the workers of this launcher."""
    words = [PLAIN_COMMAND]
    if args.token_file:
        words.append(f"--token_file {shlex.quote(args.token_file)}")
    if args.cert_file:
        words.append("--ca_file FILE")
    if args.client_ca_file:
        words.append("--cert_file FILE --key_file FILE")
    known = (*TRAINERS, EVALUATOR), "localhost", _usual_ports([*TRAINERS, EVALUATOR])
    if (tuple(args.names), args.host, args.ports) != known:
        pairs = zip(args.names, args.ports, strict=True)
        words += ["--workers", *(f"{name}={args.host}:{port}" for name, port in pairs)]
    return " ".join(words)


def notebooks_to_open(args: argparse.Namespace) -> str:
    """Return a sentence on the notebooks that train on the workers of this launcher, or nothing.

    They know the tutorial's workers only. uneven_data_and_privacy.ipynb needs no workers.
    """
    if command_to_type(args) != PLAIN_COMMAND:
        return ""
    other = "or" if args.remote_operations else "or, with --remote_operations here,"
    return f"or open federated_training.ipynb {other} federated_dataloader.ipynb. "


def set_environment() -> None:
    """Set for all processes that are started from here what makes them fast."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def check_ports(host: str, names: Sequence[str], ports: Sequence[int]) -> None:
    """Raise WorkerFailed if something listens on a worker's port.

    The command would take that for the worker.
    """
    for worker_id, port in zip(names, ports, strict=True):
        try:
            socket.create_server((host, port)).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:  # of anything else, the worker itself tells more
                raise WorkerFailed(
                    f"worker {worker_id!r} cannot listen at {host}:{port}: address already in use. "
                    "Stop what listens there (an earlier launcher?), or choose --ports."
                ) from None


@contextlib.contextmanager
def run_workers(
    args: argparse.Namespace, logs: Path
) -> Iterator[tuple[list[Worker], Command | None]]:
    """Start all workers, and the command if there is one.

    The workers are stopped at the end, however that comes.
    """
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    command: Command | None = None
    workers: list[Worker] = []
    try:
        if method == "forkserver":
            _start_fork_server(context)
        command = start_command(args.command) if args.command else None
        for worker_id, port in zip(args.names, args.ports, strict=True):
            workers.append(start_worker(context, args, worker_id, port, logs / f"{worker_id}.log"))
        yield workers, command
    except BaseException:
        # Before the workers, whose end it would report as lost connections.
        if command is not None:
            end_command(command)
        raise
    finally:
        stop(workers)
        if method == "forkserver":
            _end_fork_server()


def start_worker(
    context: Any, args: argparse.Namespace, worker_id: str, port: int, log: Path
) -> Worker:
    """Start the process of one worker."""
    ours, theirs = context.Pipe()
    shown = None if args.verbose else log
    given = options_of(args, worker_id)
    settings = (worker_id, args.host, port, args.verbose, shown, theirs, given)
    process = context.Process(target=serve, args=settings, name=worker_id)
    process.start()
    # The worker has its own copy of this end; with ours closed, the pipe ends when it does.
    theirs.close()
    again = functools.partial(start_worker, context, args, worker_id, port, log)
    tls = args.cert_file is not None
    return Worker(worker_id, args.host, port, log, process, ours, again, tls)


def options_of(args: argparse.Namespace, worker_id: str) -> dict[str, Any]:
    """Return the options of one worker: with its share of the cores, and its part of the split."""
    given: dict[str, Any] = args.options
    if worker_id == EVALUATOR:
        # It trains nothing, and evaluating is what a privacy budget would refuse.
        policy = {name: rule for name, rule in given["policy"].items() if name != "privacy"}
        return {"threads": 1} | given | {"policy": policy}
    trainers = [name for name in args.names if name != EVALUATOR]
    number, parts = trainers.index(worker_id) + 1, len(trainers)
    split = {"split": (args.split, number, parts, args.split_seed)} if args.split else {}
    return {"threads": max(1, _cores() // parts)} | given | split


def start_command(command: list[str]) -> Command:
    """Start a command.

    Raises:
        SystemExit: there is no such command.
    """
    prepare = functools.partial(lifetime.end_with_parent, os.getpid(), signal.SIGTERM)
    before_it_runs = prepare if sys.platform == "linux" else None  # Windows takes no function
    environment = {options.CONNECT_TIMEOUT_VARIABLE: f"{COMMAND_CONNECT_TIMEOUT:g}"} | os.environ
    try:
        return subprocess.Popen(command, env=environment, preexec_fn=before_it_runs)
    except OSError as error:
        print(f"error: cannot run {command[0]!r}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


def _start_fork_server(context: Any) -> None:
    """Start the process that imports torch for all workers, deaf to Ctrl-C.

    It looks for modules in its current directory first, so that must be the one with the workers'
    own files. The workers change to the launcher's before they serve.
    """
    from multiprocessing import forkserver  # not on every platform

    context.set_forkserver_preload(["tutorial.preload"])
    folder, handler = os.getcwd(), signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir(Path(__file__).resolve().parent)
    try:
        forkserver.ensure_running()
    finally:
        os.chdir(folder)
        signal.signal(signal.SIGINT, handler)


def _end_fork_server() -> None:
    """End the process that forks the workers; by itself it would import torch to the end first."""
    from multiprocessing import forkserver

    pid = getattr(forkserver._forkserver, "_forkserver_pid", None)  # it has no public name
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def serve(
    worker_id: str,
    host: str,
    port: int,
    verbose: bool,
    log: Path | None,
    pipe: Connection,
    options: dict[str, Any],
) -> None:
    """Be one worker: load its images, say so, and serve until the pipe ends.

    Runs in the worker's process.
    """
    for number in _stop_signals():
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    if log is not None:
        try:
            file = log.open("ab")
        except FileNotFoundError:  # the launcher was stopped meanwhile, and took its logs away
            return
        with file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)

    import torch

    import run_websocket_server as rws
    from syft import TorchHook, worker

    logging.basicConfig(format=f"%(asctime)s | {worker_id} | %(message)s", level=logging.INFO)
    evaluates = worker_id == EVALUATOR
    try:
        server = rws.start_websocket_server_worker(
            id=worker_id,
            host=host,
            port=port,
            hook=TorchHook(torch),
            verbose=verbose,
            keep_labels=rws.KEEP_LABELS_DICT.get(worker_id),
            training=not evaluates,
            block=False,
            **options,
        )
    except rws.NOT_STARTED as error:
        sys.exit(f"error: {error}")
    if evaluates:
        server.evaluation_threads = _cores()
    dataset = next(iter(server.datasets.values()))
    with contextlib.suppress(EOFError, OSError):
        pipe.send({"samples": len(dataset), "digits": sorted(set(dataset.targets.tolist()))})
        pipe.recv()  # nothing is sent: it ends when the launcher does, even if that is killed
    server.stop()
    worker.leave_if_stuck(server)


def wait_until_ready(workers: list[Worker], command: Command | None) -> None:
    """Wait until every worker answers, and print a line for each; or until the command has ended.

    Raises:
        WorkerFailed: one of them ended, or they are not ready in time.
    """
    deadline = time.monotonic() + START_TIMEOUT
    starting = list(workers)
    while starting:
        if command is not None and command.poll() is not None:
            return
        # In short turns, since a command has nothing that wait() could look at.
        ready = wait(
            [*(w.pipe for w in starting), *(w.process.sentinel for w in workers)], LOOK_INTERVAL
        )
        if not ready and time.monotonic() > deadline:
            names = ", ".join(f"{w.id!r} (log: {w.log})" for w in starting)
            raise WorkerFailed(f"not ready within {START_TIMEOUT:g} s: {names}")
        for worker in [w for w in starting if w.pipe in ready]:
            with contextlib.suppress(EOFError):  # it has ended; its sentinel tells
                worker.about = worker.pipe.recv()
                starting.remove(worker)
        _raise_if_ended(workers)
    if command is not None:
        # Ctrl-C reaches the command; from now on, the rest is up to that.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    for worker in workers:
        print(worker.line(), flush=True)


def wait_for_failure(workers: list[Worker]) -> None:
    """Wait until a worker ends, which none should.

    Raises:
        WorkerFailed: one did.
    """
    wait([worker.process.sentinel for worker in workers])
    _raise_if_ended(workers)


def process_ids(workers: list[Worker]) -> str:
    """Return the workers' processes as text, for whoever wants to stop one."""
    return "processes: " + ", ".join(f"{worker.id} {worker.process.pid}" for worker in workers)


def replace_those_that_end(workers: list[Worker], command: Command | None) -> None:
    """Name each worker that ends and start it again, until the command has ended.

    Args:
        workers: the workers; those that are started take the place of the others.
        command: the command; None: for ever.

    Raises:
        WorkerFailed: one that was started again ended before it was ready.
    """
    while command is None or command.poll() is None:
        starting = [worker for worker in workers if not worker.about]
        ended = [worker.process.sentinel for worker in workers]
        ready = wait([*(worker.pipe for worker in starting), *ended], LOOK_INTERVAL)
        for worker in starting:
            if worker.pipe in ready:
                with contextlib.suppress(EOFError):  # it has ended; its sentinel tells
                    worker.about = worker.pipe.recv()
                    print(f"{worker.line()}  (again)\n{process_ids([worker])}", flush=True)
        for place, worker in enumerate(workers):
            if worker.process.is_alive():
                continue
            if not worker.about:
                raise WorkerFailed(worker.failure())
            print(f"{worker.failure().splitlines()[0]}; starting it again", flush=True)
            worker.pipe.close()
            workers[place] = worker.again()


def wait_for_command(command: Command, workers: list[Worker], keep_going: bool = False) -> int:
    """Wait until the command ends and return its exit status.

    Args:
        command: the command.
        workers: the workers.
        keep_going: whether a worker that ends is started again.

    Raises:
        WorkerFailed: a worker ended first; the command is stopped then.
    """
    failed: list[WorkerFailed] = []

    def watch() -> None:
        try:
            wait_for_failure(workers)
        except WorkerFailed as error:
            if command.poll() is None:
                failed.append(error)
                command.terminate()

    # Two things to wait for: the command here, the workers there.
    if not keep_going:
        threading.Thread(target=watch, daemon=True).start()
    try:
        if keep_going:
            replace_those_that_end(workers, command)
        status = command.wait()
    except Stopped:
        command.terminate()
        status = command.wait()
    if failed:
        raise failed[0]
    # As a shell says that a signal ended it.
    return 128 - status if status < 0 else status


def end_command(command: Command) -> None:
    """End the command; kill it if it does not end in time."""
    _ignore_stop_signals()
    command.terminate()
    try:
        command.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        command.kill()
        command.wait()


def stop(workers: list[Worker]) -> None:
    """End all workers.

    Those that serve may end by themselves first; those that do not in time are killed.
    """
    _ignore_stop_signals()
    for worker in workers:
        worker.pipe.close()
        if not worker.about:  # it is still starting, and has nothing to bring to an end
            worker.process.terminate()
    # All have been told by now, so they share one deadline.
    deadline = time.monotonic() + STOP_TIMEOUT
    for worker in workers:
        worker.process.join(max(deadline - time.monotonic(), 0))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _raise_if_ended(workers: list[Worker]) -> None:
    for worker in workers:
        if not worker.process.is_alive():
            raise WorkerFailed(worker.failure())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _usual_ports(names: Sequence[str]) -> list[int]:
    return list(range(FIRST_PORT, FIRST_PORT + len(names)))


def _ranges(digits: Sequence[int]) -> str:
    """Return ascending digits as a text: 0-3 where none is missing, else 0 1 3."""
    whole = digits[-1] - digits[0] + 1 == len(digits)
    return f"{digits[0]}-{digits[-1]}" if whole else " ".join(map(str, digits))


def _ignore_stop_signals() -> None:
    """Have no second Ctrl-C leave half of the processes behind."""
    for number in _stop_signals():
        signal.signal(number, signal.SIG_IGN)


def _stop_signals() -> list[signal.Signals]:
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _raise_stopped(*_: Any) -> None:
    raise Stopped


if __name__ == "__main__":
    sys.exit(main())
