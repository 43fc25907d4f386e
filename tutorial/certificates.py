"""Makes TLS certificates for tests: one for each worker, valid for a year.

    python -m tutorial.certificates alice=192.0.2.11 bob=192.0.2.12,bob.example.org

    certificates/authority.pem      who signed them; the coordinator's --ca_file
    certificates/alice/server.pem   Alice's certificate; goes to Alice with the next
    certificates/alice/server.key   its private key, readable by its owner alone

The authority's own key is forgotten, so no further certificate can be signed by it.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from pathlib import Path

import trustme

DAYS = 365


def main(args: list[str] | None = None) -> int:
    """Write the certificates that the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tutorial.certificates",
        description="Make TLS certificates for tests, one for each worker, valid for a year.",
    )
    help_text = "a worker, and the addresses by which coordinators connect to it"
    parser.add_argument("workers", nargs="+", type=_worker, metavar="NAME=HOST,...", help=help_text)
    parser.add_argument("--folder", type=Path, default=Path("certificates"))
    arguments = parser.parse_args(args)
    folder: Path = arguments.folder
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        print(f"error: {folder} is there already; remove it first", file=sys.stderr)
        return 2
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    expiry = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=DAYS)
    for name, hosts in arguments.workers:
        made = authority.issue_cert(*hosts, common_name=name, not_after=expiry)
        (folder / name).mkdir(mode=0o700)
        certificates = b"".join(each.bytes() for each in made.cert_chain_pems)
        (folder / name / "server.pem").write_bytes(certificates)
        _write_secret(folder / name / "server.key", made.private_key_pem.bytes())
        print(f"{folder / name}: certificate and key of {name}, for {', '.join(hosts)}")
    print(f"{folder / 'authority.pem'}: the authority, for --ca_file of the coordinator")
    return 0


def _worker(text: str) -> tuple[str, list[str]]:
    name, _, hosts = text.partition("=")
    if not name or "/" in name or name.startswith(".") or not all(hosts.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}; expected NAME=HOST or NAME=HOST,HOST")
    return name, hosts.split(",")


def _write_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read, from the first byte on."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


if __name__ == "__main__":
    sys.exit(main())
