"""Train on Flower's deployment engine: a SuperLink and SuperNodes, each a process of its own.

    python flower/deployment.py                    # all on this machine, with TLS and keys
    python flower/deployment.py --superlink fl.example.org:8000 --ca_file certificates/client.pem

The first starts a SuperLink and the SuperNodes of Alice, Bob and Charlie, trains, and ends them. A
SuperNode that ends meanwhile is started again. The second trains on a SuperLink that runs already;
docs/flower.md tells how to start one, and SuperNodes on other machines.
"""

from __future__ import annotations

import argparse
import signal
import socket
import ssl
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine import (
    Engine,
    EngineError,
    Memory,
    add_options,
    finish,
    free_port,
    listens,
    main_of,
    say,
)
from settings import Settings, SettingsError
from tutorial.light import options

HOST = "127.0.0.1"
RETRY_SECONDS = 300
"""How long a SuperNode tries to reach its SuperLink before it gives up."""
RESTARTS, RESTART_SECONDS = 15, 10.0
"""How often a SuperNode that ends at once is started again, and after how long each time."""
STABLE_SECONDS = 30.0
"""A SuperNode that ran for so long did not end at once."""


def main(args: list[str] | None = None) -> int:
    """Run a deployment; return the exit status."""
    given, settings = define_and_get_arguments(args)
    given.output.mkdir(parents=True, exist_ok=True)
    history = given.output / "run.jsonl"
    history.unlink(missing_ok=True)
    memory = Memory()
    with (
        tempfile.TemporaryDirectory(prefix="flower-", ignore_cleanup_errors=True) as folder,
        Engine(Path(folder)) as engine,
    ):
        try:
            if given.superlink:
                use(engine, given.superlink, given.ca_file)
                done = engine.run(given.config, verbose=given.verbose)
                if done < settings.rounds:
                    raise EngineError(f"the run ended after {done} of {settings.rounds} rounds")
                return 0
            else:
                deployment = Deployment(engine)
                deployment.start(settings)

                def meanwhile() -> None:
                    deployment.look_after()
                    memory.look()

                config = given.config | {"history": str(history.resolve())}
                engine.run(config, verbose=given.verbose, meanwhile=meanwhile)
        finally:
            for log in Path(folder).glob("*.log"):
                (given.output / log.name).write_bytes(log.read_bytes())
    return finish(given.output, settings, memory)


def define_and_get_arguments(
    args: list[str] | None = None,
) -> tuple[argparse.Namespace, Settings]:
    """Return the command line's arguments and the settings; an error exits with status 2."""
    parser = options.Parser("Train on Flower's deployment engine.")
    add = parser.add_argument
    add("--rounds", type=options.at_least(1), default=5, metavar="N", help="number of rounds")
    help_text = "seconds a round waits for models; who is later has failed in it"
    add("--round_seconds", type=options.positive, default=120.0, metavar="S", help=help_text)
    help_text = "use a SuperLink that runs already, and its SuperNodes (default: start them)"
    add("--superlink", type=_address, metavar="HOST:PORT", help=help_text)
    help_text = "authority of its certificate (default: the connection is not encrypted)"
    add("--ca_file", type=Path, metavar="FILE", help=help_text)
    help_text = "folder for the history and the logs"
    add("--output", type=Path, default=Path("deployment"), metavar="FOLDER", help=help_text)
    add_options(parser)
    given = parser.parse_args(args)
    if given.ca_file and not given.superlink:
        parser.error("--ca_file is for --superlink; a SuperLink that is started has its own")
    if given.ca_file and not given.ca_file.is_file():
        parser.error(f"cannot read {given.ca_file}")
    config: dict[str, Any] = {
        "rounds": given.rounds,
        "round-seconds": given.round_seconds,
        "evaluate-every": 1,
    }
    given.config = {**config, **dict(given.set or [])}
    try:
        return given, Settings.of(given.config)
    except SettingsError as reason:
        parser.error(str(reason))


def use(engine: Engine, address: str, ca_file: Path | None) -> None:
    """Use a SuperLink that runs already.

    Raises:
        EngineError: nobody listens there, or the authority has not signed its certificate.
    """
    host, _, port = address.rpartition(":")
    if not listens(host, int(port)):
        raise EngineError(
            f"no SuperLink answers at {address}. Start it there first: flower-superlink --host "
            f"{host} --port {port} ..., see docs/flower.md"
        )
    if ca_file:
        context = ssl.create_default_context(cafile=ca_file)
        try:
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                context.wrap_socket(connection, server_hostname=host).close()
        except OSError as reason:
            raise EngineError(
                f"the SuperLink at {address} is not to be trusted: {reason}. Give --ca_file the "
                "authority that signed its certificate, and the name that the certificate has"
            ) from None
    engine.connect_to(address, ca_file.resolve() if ca_file else None)


class Deployment:
    """A SuperLink and a SuperNode for each of the tutorial's clients, on this machine.

    They speak TLS, and the SuperLink lets in SuperNodes alone whose keys are registered.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._port = engine, free_port()
        self._restarts: Counter[str] = Counter()
        self._started: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self.ca_file = engine.folder / "ca.pem"

    @property
    def address(self) -> str:
        """Host and port of the SuperLink."""
        return f"{HOST}:{self._port}"

    def start(self, settings: Settings) -> None:
        """Start all; return when the SuperLink knows the SuperNodes' keys.

        Raises:
            EngineError: a process does not start.
        """
        self.start_superlink()
        for number in range(settings.clients):
            name = settings.name_of(number)
            self.register(name)
            process = self.start_supernode(name, number, settings.clients)
            say(f"SuperNode {name}: process {process}")
        self._settings = settings

    def look_after(self) -> None:
        """Start SuperNodes again that have ended.

        The SuperLink takes one that was killed for connected until it has missed its heartbeats,
        and lets no other in with the same key: so this may take some attempts, and a minute.

        Raises:
            EngineError: the SuperLink has ended, or a SuperNode ends again and again.
        """
        for number in range(self._settings.clients):
            name = self._settings.name_of(number)
            if name in self._due:
                if time.monotonic() >= self._due[name]:
                    del self._due[name]
                    self.start_supernode(name, number, self._settings.clients)
            elif (status := self._engine.processes[name].poll()) is not None:
                self._ended(name, status)
        if self._engine.processes["superlink"].poll() is not None:
            words = self._engine.last_words("superlink")
            raise EngineError(f"the SuperLink ended; its last words: {words}")

    def _ended(self, name: str, status: int) -> None:
        """Have a SuperNode that has ended started again some seconds later."""
        if time.monotonic() - self._started[name] > STABLE_SECONDS:
            self._restarts[name] = 0
        self._restarts[name] += 1
        words = self._engine.last_words(name)
        if self._restarts[name] > RESTARTS:
            raise EngineError(f"SuperNode {name} ended {self._restarts[name]} times: {words}")
        self._engine.stop(name)  # what it has left behind
        self._due[name] = time.monotonic() + RESTART_SECONDS
        if self._restarts[name] == 1:
            how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
            say(f"SuperNode {name} ended {how}; it is started again until the SuperLink lets it in")

    def register(self, name: str) -> None:
        """Make a key pair for a SuperNode, and tell the SuperLink the public one."""
        public_file = str(self.make_key(name))
        self._engine.call("supernode", "register", public_file, "here", "--name", name)

    def make_key(self, name: str) -> Path:
        """Make a key pair for a SuperNode; return the file of the public one."""
        key = ec.generate_private_key(ec.SECP384R1())
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        self.key_file(name).write_bytes(private)
        self.key_file(name).chmod(0o600)
        public_file = self.key_file(name).with_suffix(".pub")
        public_file.write_bytes(public)
        return public_file

    def start_supernode(
        self, name: str, number: int, parts: int, ca_file: Path | None = None
    ) -> int:
        """Start a SuperNode; return its process id."""
        process = self._engine.start(
            name,
            *("flower-supernode", "--superlink", self.address),
            *("--root-certificates", str(ca_file or self.ca_file)),
            *("--auth-supernode-private-key", str(self.key_file(name))),
            *("--host", HOST, "--port", str(free_port()), "--max-wait-time", str(RETRY_SECONDS)),
            *("--node-config", f'name="{name}" partition-id={number} num-partitions={parts}'),
        )
        self._started[name] = time.monotonic()
        return process.pid

    def key_file(self, name: str) -> Path:
        """Return the file of a SuperNode's private key."""
        return self._engine.folder / f"{name}.key"

    def start_superlink(self) -> None:
        """Start the SuperLink with a certificate of its own, and have `flwr` find it."""
        authority, folder = trustme.CA(), self._engine.folder
        certificate = authority.issue_cert(HOST, "localhost")
        authority.cert_pem.write_to_path(str(self.ca_file))
        chain, key = folder / "superlink.pem", folder / "superlink.key"
        chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        key.touch(mode=0o600)
        certificate.private_key_pem.write_to_path(str(key))
        self._engine.start(
            "superlink",
            *("flower-superlink", "--host", HOST, "--port", str(self._port)),
            *("--ssl-certfile", str(chain), "--ssl-keyfile", str(key)),
            *("--ssl-ca-certfile", str(self.ca_file), "--enable-supernode-auth"),
            "--disable-runtime-dependency-installation",
        )
        self._engine.wait_for("superlink", self._port)
        self._engine.connect_to(self.address, self.ca_file)
        say(f"SuperLink: {self.address}, TLS, SuperNodes by their keys")


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}; expected HOST:PORT, e.g. 192.0.2.11:8000")
    return text


if __name__ == "__main__":
    sys.exit(main_of(main, "flwr"))
