"""Who may connect to a worker, and what a refusal says.

No web page may, unless the owner allows it. Coordinators show the token; with TLS, each side can
verify the other's certificate:

    coordinator                                     worker
    TLS: verify the certificate, host name too ---> TLS: verify the client's certificate,
                                                         if client_ca_path is given
    GET / HTTP/1.1                                  Gate:
    Host: <host>:<port> --------------------------> one; a loopback name or address,
                                                         if the worker listens on loopback
    (no Origin) ----------------------------------> none, or one that the owner allows
    Authorization: Bearer <token> ----------------> compare in constant time
                                 <----------------- 101, or 401 or 403 with the error as JSON

All of it is checked during the opening handshake, before any message of this package's protocol is
read.

A browser lets every web page open WebSocket connections to the machine that it runs on. It always
names the page's origin in the header Origin, and coordinators send none, so a request that has one
is refused.

With DNS rebinding a page's own host name suddenly means 127.0.0.1. Its Origin stays what it was;
the name also shows in the header Host, which is checked as well where all good names are known: on
loopback. A worker that listens elsewhere is reached by names that it cannot know (of machines,
containers, relays) and takes any one Host; what keeps pages out there is their Origin, and the
token, which no page can send.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import os
import re
import ssl
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import InvalidMessage, InvalidStatus
from websockets.http11 import Request, Response

from syft import exceptions
from syft.access.audit import fingerprint
from syft.access.guard import Caller, Guard
from syft.exceptions import AccessDenied, HandshakeFailed, LimitExceeded, SyftError, printable

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "SYFT_TOKEN"
"""The environment variable with the token."""

FilePath = str | os.PathLike[str]

OWN_TOKEN_REMEDY = (
    "This worker was started without a token and made one, which programs of the same user on "
    "the same machine find by themselves. For others, start it with a token (SYFT_TOKEN, "
    "--token_file or token=) and give them the same."
)
"""What to tell those who have no token, or a wrong one, when the worker made its own."""

_SCHEME = "Bearer "
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:@/\[\]]+)(:[0-9]*)?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/A-Z]+")
_QUOTED = 100
"""The most characters of a header that an error repeats."""


class Gate:
    """Decides which connections are admitted.

    Admits a connection if it is not from a web page, has the token and, where one is required, a
    client certificate. `websockets` calls it for each handshake.

    Args:
        guard: knows the worker, how many connections it grants, and writes down who is sent away.
        host: the address that the worker listens on.
        token: the token; None: none is needed.
        own: whether the worker made the token itself.
        certificate: whether a client certificate is needed. TLS has verified the one that is there.
        origins: the origins of web pages that may connect.
    """

    def __init__(
        self,
        guard: Guard,
        host: str,
        token: str | None,
        own: bool,
        certificate: bool,
        origins: frozenset[str],
    ) -> None:
        self._guard = guard
        self._host = host
        self._token = token
        self._remedy = {"remedy": OWN_TOKEN_REMEDY} if own else {}
        self._certificate = certificate
        self._origins = origins

    def __call__(self, connection: ServerConnection, request: Request) -> Response | None:
        """Return None to let a coordinator in, or the answer that sends it away."""
        worker, limit, count = (
            self._guard.worker,
            self._guard.limits.connections,
            len(connection.server.connections),
        )
        # In this order, so that only those who may come in learn how full it is.
        status, error = HTTPStatus.FORBIDDEN, self._page(request.headers)
        if error is None:
            status, error = HTTPStatus.UNAUTHORIZED, self._stranger(connection, request.headers)
        if error is None and count >= limit:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            error = LimitExceeded(worker, "the open connections", count + 1, limit, "connections")
        if error is None:
            return None
        if isinstance(error, AccessDenied):
            logger.warning(
                "worker %s: access denied to %s: %s", worker, connection.remote_address, error.cause
            )
        self._guard.record_refusal(Caller("", identity(connection, None)), "connect", error)
        return refuse(connection, status, error)

    def _page(self, headers: Headers) -> SyftError | None:
        """Return what to tell a web page, or anybody else who came here by a wrong name.

        None: it is neither.
        """
        origins, hosts = headers.get_all("Origin"), headers.get_all("Host")
        if origins and (len(origins) > 1 or origins[0] not in self._origins):
            cause = f"the request comes from a web page: {_quoted('Origin', origins)}"
            remedy = (
                "Connect from a program, which sends no Origin, or have the worker's owner list "
                "it: allow_origins= (--allow_origins)."
            )
            return AccessDenied(self._guard.worker, "", cause, remedy)
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if found is None:
            cause = f"the request should name one host; it has {_quoted('Host', hosts)}"
            return AccessDenied(
                self._guard.worker, "", cause, "Send one header Host, as HTTP asks for."
            )
        if is_loopback(self._host) and not is_loopback(found[1].strip("[]").lower()):
            cause = (
                f"the worker listens on {self._host}, which has no such name: "
                f"{_quoted('Host', hosts)}"
            )
            remedy = (
                "Connect to localhost or 127.0.0.1, or have the worker listen at an address of "
                "that name (host=)."
            )
            return AccessDenied(self._guard.worker, "", cause, remedy)
        return None

    def _stranger(self, connection: ServerConnection, headers: Headers) -> SyftError | None:
        """Return what to tell who cannot show that the owner lets it in; None: it can."""
        if self._certificate and not connection.transport.get_extra_info("peercert"):
            return AccessDenied(self._guard.worker, "", "it asks for a client certificate")
        if self._token is None:
            return None
        sent = headers.get_all("Authorization")
        if not sent:
            return AccessDenied(self._guard.worker, "", "no token was sent", **self._remedy)
        # In constant time, so that the time of the answer does not tell how much of a guess is
        # right.
        right = (_SCHEME + self._token).encode()
        if len(sent) == 1 and hmac.compare_digest(sent[0].encode(), right):
            return None
        return AccessDenied(self._guard.worker, "", "the token is wrong", **self._remedy)


def check_origins(origins: Iterable[str]) -> frozenset[str]:
    """Return the origins of web pages that may connect.

    Raises:
        ValueError: one of them is not written as browsers write it, and would never be met; or it
            is "null", which is what they write for pages of many kinds and owners.
    """
    origins = frozenset(origins)
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"not an origin: {origin!r}; expected scheme://host or scheme://host:port, in "
                "lower case and without a slash at the end, such as 'http://localhost:3000'."
            )
    return origins


def refuse(connection: ServerConnection, status: HTTPStatus, error: SyftError) -> Response:
    """Return the answer to an opening handshake that tells `error` to a proxy.

    The proxy reads it with `refusal`.
    """
    body = json.dumps({"type": type(error).__name__, "fields": exceptions.to_fields(error)})
    response = connection.respond(status, body)
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = _SCHEME.strip()
    return response


def refusal(worker: str, url: str, error: Exception) -> SyftError:
    """Return what a failed opening handshake means to the user of a proxy."""
    told = _error_in(error.response) if isinstance(error, InvalidStatus) else None
    if isinstance(told, AccessDenied):
        return AccessDenied(worker, url, told.cause, told.remedy)
    if told is not None:
        return told
    cause = (
        printable(f"{type(error).__name__}: {error}", 500) if str(error) else type(error).__name__
    )
    if isinstance(error, InvalidMessage) and url.startswith("wss:"):
        # asyncio's TLS servers do not send the alert that would say so.
        cause = (
            f"{cause} (it closed the connection after the TLS handshake: "
            "does it trust this client certificate?)"
        )
    return HandshakeFailed(worker, url, cause)


def identity(connection: ServerConnection, token: str | None) -> dict[str, Any]:
    """Return where a coordinator is and how it showed who it is, for the audit log."""
    address = connection.remote_address
    who: dict[str, Any] = {
        "address": "{}:{}".format(*address[:2]) if isinstance(address, tuple) else str(address)
    }
    if token is not None:
        who["token"] = fingerprint(token)
    certificate = connection.transport.get_extra_info("peercert")
    if certificate:
        who["certificate"] = ", ".join(
            "=".join(pair) for names in certificate["subject"] for pair in names
        )
    return who


def authorization(token: str | None) -> dict[str, str]:
    """Return the headers that show a token."""
    return {} if token is None else {"Authorization": _SCHEME + token}


def resolve_token(token: str | None) -> str | None:
    """Return the token to use: the one given, else that of the environment, else None.

    Raises:
        ValueError: it is not printable ASCII without spaces, which is all a header can carry
            unchanged.
    """
    if token is None:
        token = os.environ.get(TOKEN_VARIABLE, "")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError(
            "this token cannot be sent: it should be printable ASCII without spaces, 32 bytes or "
            "more."
        )
    return token or None


def warn_of_open_token(token: str | None, host: str) -> None:
    """Log a warning if a token is about to cross a network unencrypted."""
    if token is not None and not is_loopback(host):
        logger.warning("the token for %s travels unencrypted; use TLS (secure=True)", host)


def is_loopback(host: str) -> bool:
    """Return whether an address is one that only this machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def client_tls(
    ca_path: FilePath | None,
    verify: bool,
    cert_path: FilePath | None = None,
    key_path: FilePath | None = None,
) -> ssl.SSLContext:
    """Return a TLS context that verifies certificates and host names, unless `verify` is False."""
    if key_path is not None and cert_path is None:
        raise ValueError("a client certificate needs cert_path; only key_path was given.")
    context = ssl.create_default_context(cafile=ca_path)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_path is not None:
        context.load_cert_chain(cert_path, key_path)
    return context


def server_tls(
    cert_path: FilePath, key_path: FilePath, client_ca_path: FilePath | None
) -> ssl.SSLContext:
    """Return a worker's TLS context (1.2 or later).

    It verifies client certificates if `client_ca_path` is given. A client without one gets through
    TLS, so that `Gate` can tell it what is missing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_path, key_path)
    if client_ca_path is not None:
        context.load_verify_locations(client_ca_path)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _error_in(response: Response) -> SyftError | None:
    """Return the error that a worker told in its answer to the opening handshake, if it is one."""
    try:
        body = json.loads(response.body or b"")
        return exceptions.from_fields(body["type"], body["fields"])
    except (ValueError, TypeError, KeyError, RecursionError):  # nested too deep, the last
        return None


def _quoted(name: str, values: list[str]) -> str:
    """Return a header as text for an error."""
    text = ", ".join(f"{name}: {value}" for value in values) or f"no {name}"
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."
