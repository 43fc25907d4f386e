"""Command-line options that the scripts share: the token, TLS, and where a worker may listen.

Imports no torch.

A token is never given on the command line, where every user of the machine could read it.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

TOKEN_VARIABLE = "SYFT_TOKEN"
CONNECT_TIMEOUT_VARIABLE = "SYFT_CONNECT_TIMEOUT"
CONNECT_TIMEOUT = "10"
"""Default seconds, as text: argparse then checks it like the variable's value.

The same as CONNECT_TIMEOUT in syft/workers/websocket_client.py.
"""


class _Help(argparse.HelpFormatter):
    """Help that tells the default of every option, where the option's text does not."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if (
            "(default" in text
            or not action.option_strings
            or action.required
            or action.default is argparse.SUPPRESS
        ):
            return text
        default = {None: "none", False: "no"}.get(action.default, "%(default)s")
        return f"{text} (default: {default})"


class Parser(argparse.ArgumentParser):
    """A parser whose help tells every default, and whose errors are one line each."""

    def __init__(self, description: str, epilog: str | None = None) -> None:
        super().__init__(description=description, epilog=epilog, formatter_class=_Help)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.splitlines())}; see --help\n")


def positive(text: str) -> float:
    """Return an option's number, above 0 and finite."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}; expected a number above 0")


def not_negative(text: str) -> float:
    """Return an option's number, of at least 0 and finite."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}; expected a number of at least 0")


def at_least(lowest: int) -> Callable[[str], int]:
    """Return what reads an option's integer, of at least `lowest`."""

    def number(text: str) -> int:
        with contextlib.suppress(ValueError):
            if int(text) >= lowest:
                return int(text)
        raise argparse.ArgumentTypeError(f"{text!r}; expected an integer of at least {lowest}")

    return number


def add_split_options(parser: argparse.ArgumentParser) -> Callable[..., argparse.Action]:
    """Add the options that say how the training images are split among workers.

    Returns:
        What adds further options to their group.
    """
    add = parser.add_argument_group(
        "split", "who holds which training images, see syft/federated/splits.py"
    ).add_argument
    help_text = (
        "labels, iid, shards:N with N shards a worker, or dirichlet:ALPHA, the smaller the less "
        "even (default: the tutorial's digits)"
    )
    add("--split", type=_split, metavar="KIND", help=help_text)
    help_text = "seed of the split; all workers must have the same"
    add("--split_seed", type=at_least(0), default=1, metavar="N", help=help_text)
    return add


def part_of_split(text: str) -> tuple[int, int]:
    """Return the two numbers of an option such as 2/5."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(
            f"{text!r}; expected K/N, the number of a part and the number of parts: 1/3, 2/3 or 3/3"
        )
    return int(match[1]), int(match[2])


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a script that starts workers: who may connect, and what they may do."""
    access = parser.add_argument_group("access", "who may connect to a worker")
    add = access.add_argument
    add(
        "--host",
        default="localhost",
        help="address to listen on (default: localhost, this machine only)",
    )
    _add_token_file(access, "that coordinators must know")
    add(
        "--insecure",
        action="store_true",
        help="let anybody connect, without a token, also from other machines",
    )
    add(
        "--cert_file",
        metavar="FILE",
        help="certificate chain of the worker; with --key_file, it speaks TLS only",
    )
    add("--key_file", metavar="FILE", help="its private key")
    add(
        "--client_ca_file",
        metavar="FILE",
        help="authority that must have signed the coordinators' certificates",
    )
    add(
        "--allow_origins",
        type=_origin,
        nargs="+",
        metavar="ORIGIN",
        help="web pages that may connect, as http://host:port",
    )

    add = parser.add_argument_group("limits", "what a coordinator may do").add_argument
    add(
        "--allow_calls",
        nargs="+",
        metavar="NAME",
        help="methods that may be called (default: all that are offered)",
    )
    help_text = "structures of models that may be sent, see the audit log (default: all)"
    add("--allow_models", nargs="+", metavar="DIGEST", help=help_text)
    help_text = (
        "take models as TorchScript archives too. Loading one runs what is in it: use this only "
        "where every coordinator is trusted"
    )
    add("--allow_torchscript", action="store_true", help=help_text)
    help_text = (
        "let coordinators operate on tensors here (pointer + pointer, model.send(worker)), and so "
        "read every tensor that they may operate on; datasets stay out of reach"
    )
    add("--remote_operations", action="store_true", help=help_text)
    help_text = "fits in all, until the worker is started again (default: any number)"
    add("--max_fits", type=at_least(1), metavar="N", help=help_text)
    add(
        "--max_steps",
        type=at_least(1),
        metavar="N",
        help="training steps of one fit (default: any number)",
    )
    add(
        "--max_seconds",
        type=at_least(1),
        metavar="N",
        help="seconds of one fit or evaluation (default: an hour)",
    )
    help_text = "samples that all fits and evaluations read, in all (default: any number)"
    add("--max_samples", type=at_least(1), metavar="N", help=help_text)
    add(
        "--max_batch_size",
        type=at_least(1),
        metavar="N",
        help="samples of one batch (default: any number)",
    )
    add("--audit_log", metavar="FILE", help="file to which a line is added for every request")
    _add_privacy_options(parser)


def _add_privacy_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "privacy", "how much trainings may tell of any one image, see docs/privacy.md"
    ).add_argument
    help_text = "budget of all trainings on a worker together (default: no differential privacy)"
    add("--epsilon", type=positive, metavar="E", help=help_text)
    for name, (kind, usual, help_text) in PRIVACY_OPTIONS.items():
        add(
            f"--{name}",
            type=kind,
            metavar=name.split("_")[0].upper(),
            help=f"{help_text} (default: {usual:g})",
        )
    help_text = (
        "folder in which each worker keeps what was spent, in a file (default: the current one)"
    )
    add("--privacy_folder", metavar="DIR", help=help_text)


def _below_1(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}; expected a number above 0 and below 1")


PRIVACY_OPTIONS: dict[str, tuple[Callable[[str], float], float, str]] = {
    "delta": (_below_1, 1e-5, "the other half of the guarantee"),
    "noise_multiplier": (positive, 1.0, "deviation of the noise, in units of --max_grad_norm"),
    "max_grad_norm": (positive, 1.0, "norm to which the gradient of each image is clipped"),
}
"""name -> what reads it, default, help."""


def _privacy(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of DifferentialPrivacy as the policy's `privacy`, or nothing."""
    if args.epsilon is None:
        for name in (*PRIVACY_OPTIONS, "privacy_folder"):
            if getattr(args, name) is not None:
                parser.error(f"--{name} is for a privacy budget: give --epsilon too")
        return {}
    if args.allow_torchscript:
        parser.error("--allow_torchscript would let code read the data in spite of --epsilon")
    folder = Path(args.privacy_folder or ".").absolute()
    if not folder.is_dir():
        parser.error(f"argument --privacy_folder: {args.privacy_folder!r} is no folder")
    numbers = {
        name: usual if getattr(args, name) is None else getattr(args, name)
        for name, (_, usual, _) in PRIVACY_OPTIONS.items()
    }
    return {"privacy": {"epsilon": args.epsilon, **numbers, "account": str(folder)}}


def worker_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of a worker, and put the token into the environment.

    There this process and its children find it.

    `policy` and `limits` are given as the keyword arguments of Policy and Limits, which need torch.

    An option that cannot be used exits with status 2.
    """
    _use_token_file(parser, args)
    if (args.cert_file is None) != (args.key_file is None):
        parser.error("TLS needs both --cert_file and --key_file")
    if args.client_ca_file and not args.cert_file:
        parser.error("--client_ca_file is for TLS: give --cert_file and --key_file too")
    if not (is_loopback(args.host) or args.insecure or os.environ.get(TOKEN_VARIABLE)):
        parser.error(
            f"--host {args.host} is reached from other machines, and there is no token: whoever "
            f"connects could run models on the data. Set {TOKEN_VARIABLE} or --token_file, or say "
            "--insecure"
        )
    files = {
        "cert_path": args.cert_file,
        "key_path": args.key_file,
        "client_ca_path": args.client_ca_file,
    }
    policy = {
        "calls": args.allow_calls,
        "models": args.allow_models,
        "max_fits": args.max_fits,
        "max_steps_per_fit": args.max_steps,
        "max_samples": args.max_samples,
        "max_batch_size": args.max_batch_size,
        **_privacy(parser, args),
    }
    rules = {
        "policy": policy,
        "limits": {"call_seconds": args.max_seconds} if args.max_seconds else {},
    }
    token = {"token": ""} if args.insecure and not os.environ.get(TOKEN_VARIABLE) else {}
    origins = {"allow_origins": args.allow_origins} if args.allow_origins else {}
    archives = {"allow_torchscript": True} if args.allow_torchscript else {}
    operations = {"remote_operations": True} if args.remote_operations else {}
    audit = {"audit_path": os.path.abspath(args.audit_log)} if args.audit_log else {}
    return {**_given(parser, files), **rules, **token, **origins, **archives, **operations, **audit}


def add_client_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a script that connects to workers.

    They say how it shows who it is, and how it knows the workers.
    """
    access = parser.add_argument_group(
        "access", "how the workers and this program identify each other"
    )
    add = access.add_argument
    _add_token_file(access, "of the workers")
    add(
        "--secure",
        action="store_true",
        help="use TLS, and verify the workers' certificates by the system's list",
    )
    add("--ca_file", metavar="FILE", help="use TLS, and verify them by this authority")
    add(
        "--cert_file",
        metavar="FILE",
        help="certificate chain of the coordinator, for workers that ask for it",
    )
    add("--key_file", metavar="FILE", help="its private key")


def client_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of a proxy; put the token into the environment.

    An option that cannot be used exits with status 2.
    """
    _use_token_file(parser, args)
    if (args.cert_file is None) != (args.key_file is None):
        parser.error("a certificate needs both --cert_file and --key_file")
    if args.cert_file and not (args.ca_file or args.secure):
        parser.error("--cert_file is for TLS: give --ca_file or --secure too")
    files = _given(
        parser, {"ca_path": args.ca_file, "cert_path": args.cert_file, "key_path": args.key_file}
    )
    return files | {"secure": True} if args.ca_file or args.secure else files


def is_loopback(host: str) -> bool:
    """Return whether an address is one that only this machine reaches."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _add_token_file(group: argparse._ArgumentGroup, whose: str) -> None:
    help_text = f"file with the token {whose} (default: the environment variable {TOKEN_VARIABLE})"
    group.add_argument("--token_file", metavar="FILE", help=help_text)


def _use_token_file(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    token = os.environ.get(TOKEN_VARIABLE, "")
    if args.token_file is not None:
        try:
            token = Path(args.token_file).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as reason:
            parser.error(f"argument --token_file: {reason}")
        if not token:
            parser.error(f"argument --token_file: {args.token_file} is empty")
        os.environ[TOKEN_VARIABLE] = token
    if " " in token or not (token.isascii() and token.isprintable()):
        parser.error(
            "the token should be one line of printable ASCII without spaces (--token_file, "
            f"{TOKEN_VARIABLE})"
        )


def _split(text: str) -> str:
    # As in the package, whose import would take seconds.
    name, _, number = text.partition(":")
    valid = text in ("labels", "iid")
    with contextlib.suppress(ValueError):
        valid |= name == "shards" and int(number) >= 1
        valid |= name == "dirichlet" and 1e-6 <= float(number) <= 1e6
    if not valid:
        raise argparse.ArgumentTypeError(
            f"{text!r}; expected labels, iid, shards:N with N of at least 1, or dirichlet:ALPHA "
            "with ALPHA from 1e-6 to 1e6"
        )
    return text


def _origin(text: str) -> str:
    # As in the package, whose import would take seconds.
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/A-Z]+", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no origin; expected http://host:port, without a slash at the end"
        )
    return text


def _given(parser: argparse.ArgumentParser, files: dict[str, str | None]) -> dict[str, Any]:
    given = {name: path for name, path in files.items() if path is not None}
    for path in given.values():
        if not os.access(path, os.R_OK):
            parser.error(f"cannot read {path}")
    return given
