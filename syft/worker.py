"""Runs one worker with a dataset of yours.

    python -m syft.worker --id paris --port 8777 --dataset hospital:load paris.csv --key patients

`load` is a function in hospital.py, which is in the current folder or installed. It is called with
the words that follow it, as text, and returns a map-style dataset, each sample a pair of input and
target, such as a `sy.BaseDataset`. The data stay in this process.

The parts are for programs of your own that start a worker: `serve` runs any worker until Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from syft.access.limits import Limits
from syft.access.policy import Policy
from syft.exceptions import AddressInUse, PrivacyAccountDamaged, TokenNotKept
from syft.options import Parser, add_worker_options, worker_options
from syft.own_dataset import DatasetNotLoaded, described, doubts_about, load_dataset
from syft.workers.websocket_server import WebsocketServerWorker

logger = logging.getLogger("syft.worker")  # __name__ is "__main__" here

INTERRUPTED = 130
"""Exit status after Ctrl-C while the dataset is loaded."""
NOT_STARTED = (AddressInUse, TokenNotKept, PrivacyAccountDamaged, ModuleNotFoundError)
"""What keeps any worker from starting, each with a text that says what to do."""


def main(args: list[str] | None = None) -> int:
    """Run one worker until Ctrl-C or SIGTERM; return the exit status."""
    arguments = define_and_get_arguments(args)
    logging.basicConfig(format="%(asctime)s | %(message)s", level=logging.INFO)
    try:
        dataset = load_dataset(*arguments.dataset)
    except DatasetNotLoaded as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    held = arguments.id, len(dataset), arguments.key, described(dataset)
    logger.info("worker %s holds %s samples as %r: %s", *held)
    for doubt in doubts_about(dataset):
        logger.warning("worker %s: %s", arguments.id, doubt)

    def start() -> WebsocketServerWorker:
        server = WebsocketServerWorker(
            None,
            arguments.host,
            arguments.port,
            id=arguments.id,
            verbose=arguments.verbose,
            **with_rules(arguments.options),
        )
        server.add_dataset(dataset, key=arguments.key)
        server.start(block=False)
        return server

    return serve(start)


def define_and_get_arguments(args: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments; an error exits with status 2."""
    parser = Parser(
        "Run one worker with a dataset of yours, until Ctrl-C.",
        epilog="Example: %(prog)s --id paris --port 8777 --dataset hospital:load --key patients",
        prog="python -m syft.worker",
    )
    add = add_identity_options(parser)
    help_text = (
        "function that returns the dataset, in a module of the current folder or an installed one, "
        "e.g. hospital:load; the words after it are its arguments"
    )
    add("--dataset", required=True, nargs="+", metavar=("FUNCTION", "ARGUMENT"), help=help_text)
    add("--key", required=True, help="name by which coordinators ask for it, e.g. --key patients")
    add_worker_options(parser)
    arguments = parser.parse_args(args)
    arguments.options = worker_options(parser, arguments)
    return arguments


def add_identity_options(
    parser: Parser, names: str = "name of the worker, e.g. --id alice"
) -> Callable[..., Any]:
    """Add the options that say which worker it is.

    Args:
        parser: gets the options.
        names: help on the worker's name.

    Returns:
        What adds further options to the same group.
    """
    add = parser.add_argument_group("worker").add_argument
    add("--id", required=True, metavar="NAME", help=names)
    add("--port", "-p", type=_port, required=True, help="port to listen on, e.g. --port 8777")
    add("--verbose", "-v", action="store_true", help="log each request")
    return add


def with_rules(options: dict[str, Any]) -> dict[str, Any]:
    """Return a worker's options with `policy` and `limits` as objects.

    Options come from the command line as plain values.
    """
    rules = (("policy", Policy), ("limits", Limits))
    made = {
        name: cls(**options[name]) for name, cls in rules if isinstance(options.get(name), dict)
    }
    return options | made


def serve(start: Callable[[], Any], mistakes: tuple[type[Exception], ...] = NOT_STARTED) -> int:
    """Start a worker and serve until Ctrl-C or SIGTERM; return the exit status.

    Args:
        start: makes a WebsocketServerWorker and starts it.
        mistakes: errors of `start` that are shown as one line and exit with status 2.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = start()
    except mistakes as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    stop.wait()
    server.stop()
    leave_if_stuck(server)
    return 0


def leave_if_stuck(server: WebsocketServerWorker) -> None:
    """End the process here and now if a model that loops for ever still runs in it."""
    if server.stuck_calls:
        logger.warning("leaving %s calls that never ended", server.stuck_calls)
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _port(text: str) -> int:
    with contextlib.suppress(ValueError):
        if 0 <= int(text) <= 65535:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port; expected a number from 0 to 65535")


if __name__ == "__main__":
    sys.exit(main())
