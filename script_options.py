"""Command-line options that the scripts share: the token, TLS, and where a worker may listen. Imports no torch.

A token is never given on the command line, where every user of the machine could read it.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
from pathlib import Path
from typing import Any

TOKEN_VARIABLE = "SYFT_TOKEN"


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a script that starts workers."""
    add = parser.add_argument
    add("--host", default="localhost", help="address to listen on (default: this machine only)")
    _add_token_file(parser, "that coordinators must know")
    add("--insecure", action="store_true", help="let in whoever connects, without a token, also from other machines")
    add("--cert_file", metavar="FILE", help="certificate chain of the worker; with --key_file, it speaks TLS only")
    add("--key_file", metavar="FILE", help="its private key")
    add("--client_ca_file", metavar="FILE", help="authority that must have signed the coordinators' certificates")
    help_text = "web pages that may connect, as http://host:port (default: none)"
    add("--allow_origins", type=_origin, nargs="+", metavar="ORIGIN", help=help_text)
    add("--audit_log", metavar="FILE", help="file to which a line is added for every request")
    add("--allow_calls", nargs="+", metavar="NAME", help="methods that may be called (default: all that are offered)")
    add("--allow_models", nargs="+", metavar="DIGEST", help="structures of models that may be sent, see the audit log")
    add("--max_fits", type=_at_least_one, metavar="N", help="fits in all, until the worker is started again")
    add("--max_steps", type=_at_least_one, metavar="N", help="training steps of one fit")
    add("--max_seconds", type=_at_least_one, metavar="N", help="seconds of one fit or evaluation (default: an hour)")
    add("--max_samples", type=_at_least_one, metavar="N", help="samples that all fits and evaluations read, in all")
    add("--max_batch_size", type=_at_least_one, metavar="N", help="samples of one batch")


def worker_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of a worker; put the token into the environment, for this process and its children.

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
            f"--host {args.host} is reached from other machines, and there is no token: whoever connects could run "
            f"models on the data. Set {TOKEN_VARIABLE} or --token_file, or say --insecure"
        )
    files = {"cert_path": args.cert_file, "key_path": args.key_file, "client_ca_path": args.client_ca_file}
    policy = {
        "calls": args.allow_calls,
        "models": args.allow_models,
        "max_fits": args.max_fits,
        "max_steps_per_fit": args.max_steps,
        "max_samples": args.max_samples,
        "max_batch_size": args.max_batch_size,
    }
    rules = {"policy": policy, "limits": {"call_seconds": args.max_seconds} if args.max_seconds else {}}
    token = {"token": ""} if args.insecure and not os.environ.get(TOKEN_VARIABLE) else {}
    origins = {"allow_origins": args.allow_origins} if args.allow_origins else {}
    audit = {"audit_path": os.path.abspath(args.audit_log)} if args.audit_log else {}
    return {**_given(parser, files), **rules, **token, **origins, **audit}


def add_client_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a script that connects to workers; those that are not given are not in the namespace."""

    def add(name: str, help_text: str, **settings: Any) -> None:
        parser.add_argument(name, default=argparse.SUPPRESS, help=help_text, **settings)

    _add_token_file(parser, "of the workers", default=argparse.SUPPRESS)
    add("--secure", "use TLS, and verify the workers' certificates by the system's list", action="store_true")
    add("--ca_file", "use TLS, and verify them by this authority", metavar="FILE")
    add("--cert_file", "certificate chain of the coordinator, for workers that ask for it", metavar="FILE")
    add("--key_file", "its private key", metavar="FILE")


def client_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of a proxy; put the token into the environment.

    `args` has None, or False, for what was not given.
    An option that cannot be used exits with status 2.
    """
    _use_token_file(parser, args)
    if (args.cert_file is None) != (args.key_file is None):
        parser.error("a certificate needs both --cert_file and --key_file")
    if args.cert_file and not (args.ca_file or args.secure):
        parser.error("--cert_file is for TLS: give --ca_file or --secure too")
    files = _given(parser, {"ca_path": args.ca_file, "cert_path": args.cert_file, "key_path": args.key_file})
    return files | {"secure": True} if args.ca_file or args.secure else files


def is_loopback(host: str) -> bool:
    """Return whether an address is one that only this machine reaches."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _add_token_file(parser: argparse.ArgumentParser, whose: str, default: Any = None) -> None:
    help_text = f"file with the token {whose} (default: the environment variable {TOKEN_VARIABLE})"
    parser.add_argument("--token_file", metavar="FILE", default=default, help=help_text)


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
        parser.error(f"the token should be one line of printable ASCII without spaces (--token_file, {TOKEN_VARIABLE})")


def _at_least_one(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return int(text)


_at_least_one.__name__ = "int"  # argparse names it when the text is no number


def _origin(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/A-Z]+", text):  # as in the package, whose import would take seconds
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
