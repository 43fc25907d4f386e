"""Train with many clients on Flower's simulation engine, on this machine.

    python flower/simulate.py                  # 100 clients, a tenth of them a round, ten rounds
    python flower/simulate.py --clients 1000

The clients take turns in a few processes, Ray's actors, so their number costs no memory.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from engine import Engine, EngineError, Memory, add_options, finish, free_port, main_of, say
from settings import Settings, SettingsError
from tutorial.light import options

ACTOR_BYTES = 1 << 30
"""Memory that an actor is allowed for: torch, the images, a model and its gradients."""
STORE_BYTES = 256 << 20
"""Shared memory for the models on their way."""
ATTEMPTS = 5
"""How often Ray is started. It gives itself 30 s, which a busy machine may not meet."""


def main(args: list[str] | None = None) -> int:
    """Run a simulation; return the exit status."""
    given, settings = define_and_get_arguments(args)
    given.output.mkdir(parents=True, exist_ok=True)
    history = given.output / "run.jsonl"
    history.unlink(missing_ok=True)
    actors = given.actors or fitting_actors(settings)
    say(
        f"{settings.clients:,} clients, {settings.sampled:,} of them a round, split "
        f"{settings.split}; {actors} at a time"
    )
    memory = Memory()
    # Ray keeps sockets in this folder, whose names may be 107 characters long.
    with (
        tempfile.TemporaryDirectory(prefix="flower-", ignore_cleanup_errors=True) as folder,
        Engine(Path(folder)) as engine,
        ray_cluster(Path(folder), actors, engine.environment),
    ):
        port = free_port()
        engine.start(
            "superlink",
            *("flower-superlink", "--simulation", "--insecure", "--host", "127.0.0.1"),
            *("--port", str(port), "--disable-runtime-dependency-installation"),
        )
        engine.wait_for("superlink", port)
        engine.connect_to(f"127.0.0.1:{port}", None)
        federation = f"num-supernodes={settings.clients} client-resources-num-cpus=1"
        try:
            engine.run(
                given.config | {"history": str(history.resolve())},
                *("--federation-config", federation),
                verbose=given.verbose,
                meanwhile=memory.look,
            )
        finally:
            if (log := engine.log_of("run")).exists():
                (given.output / "run.log").write_bytes(log.read_bytes())
    return finish(given.output, settings, memory)


def define_and_get_arguments(
    args: list[str] | None = None,
) -> tuple[argparse.Namespace, Settings]:
    """Return the command line's arguments and the settings; an error exits with status 2."""
    parser = options.Parser("Train with many clients on Flower's simulation engine.")
    add = parser.add_argument
    add("--clients", type=options.at_least(1), default=100, metavar="N", help="number of clients")
    add(
        "--fraction",
        type=options.positive,
        default=0.1,
        help="share of them that trains in a round",
    )
    add("--rounds", type=options.at_least(1), default=10, metavar="N", help="number of rounds")
    help_text = "who holds which images: digits, iid, shards:N or dirichlet:ALPHA"
    add("--split", default="dirichlet:0.3", metavar="KIND", help=help_text)
    add("--strategy", default="FedAvg", metavar="NAME", help="one of Flower's strategies")
    help_text = "its further arguments, e.g. server_momentum=0.7 (default: none)"
    add("--strategy_arguments", default="", metavar="NAME=NUMBER", help=help_text)
    help_text = "clients that train at a time (default: as many as cores and memory allow)"
    add("--actors", type=options.at_least(1), metavar="N", help=help_text)
    help_text = "folder for the history, the log and the accuracy curve"
    add("--output", type=Path, default=Path("simulation"), metavar="FOLDER", help=help_text)
    add_options(parser)
    given = parser.parse_args(args)
    names = ("clients", "fraction", "rounds", "split", "strategy", "strategy_arguments")
    config: dict[str, Any] = {name.replace("_", "-"): getattr(given, name) for name in names}
    given.config = {**config, "evaluate-every": 1, **dict(given.set or [])}
    try:
        return given, Settings.of(given.config)
    except SettingsError as reason:
        parser.error(str(reason))


def fitting_actors(settings: Settings) -> int:
    """Return how many actors this machine has cores and memory for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    by_memory = int(psutil.virtual_memory().available // ACTOR_BYTES) - 1  # one for the server
    return max(1, min(cores or 1, by_memory, settings.sampled))


@contextmanager
def ray_cluster(folder: Path, actors: int, environment: dict[str, str]) -> Iterator[None]:
    """Have Ray run while the context lasts; what is started in `environment` finds it there.

    Raises:
        EngineError: it does not start.
    """
    # An actor imports torch; on a busy machine Ray would give it up meanwhile.
    os.environ |= {**environment, "RAY_worker_register_timeout_seconds": "600"}
    os.environ.pop("RAY_ADDRESS", None)  # of a cluster that is not ours
    import ray

    for attempt in range(1, ATTEMPTS + 1):
        say(f"starting Ray ({attempt} of {ATTEMPTS} attempts); on a busy machine it takes a minute")
        started = time.monotonic()
        try:
            ray.init(
                num_cpus=actors,
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                logging_level="ERROR",
                log_to_driver=False,
                _temp_dir=str(folder / "ray"),
            )
            break
        except Exception as error:
            ray.shutdown()
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            seconds = time.monotonic() - started
            say(f"Ray did not start within {seconds:.0f} s: {reason}")
    else:
        raise EngineError(
            f"Ray did not start in {ATTEMPTS} attempts. Wait until the machine is less busy, or "
            "give it fewer --actors."
        )
    try:
        environment["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        yield
    finally:
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main_of(main, "flwr", "ray"))
