"""Who may connect to a worker: the token, TLS in both directions, and what a refusal says.

    coordinator                                     worker
    TLS: verify the certificate, host name too ---> TLS: verify the client's certificate, if client_ca_path is given
    GET / HTTP/1.1
    Authorization: Bearer <token> ----------------> Gate: compare in constant time
                                 <----------------- 101, or 401 with the error as JSON

The token is checked during the opening handshake, before any message of this package's protocol is read.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import os
import ssl
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection
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

_SCHEME = "Bearer "


class Gate:
    """Lets in who knows the token and has a certificate; what `websockets` calls for each opening handshake.

    Args:
        guard: knows the worker, how many connections it grants, and writes down who is sent away.
        token: the token; None: none is needed.
        certificate: whether a client certificate is needed. TLS has verified the one that is there.
    """

    def __init__(self, guard: Guard, token: str | None, certificate: bool) -> None:
        self._guard = guard
        self._token = token
        self._certificate = certificate

    def __call__(self, connection: ServerConnection, request: Request) -> Response | None:
        """Return None to let a coordinator in, or the answer that sends it away."""
        cause = self._objection(connection, request)
        worker, limit, count = self._guard.worker, self._guard.limits.connections, len(connection.server.connections)
        if cause is None and count < limit:
            return None
        error: SyftError
        if cause is None:
            error = LimitExceeded(worker, "the open connections", count + 1, limit, "connections")
        else:
            error = AccessDenied(worker, "", cause)
            logger.warning("worker %s: access denied to %s: %s", worker, connection.remote_address, cause)
        self._guard.record_refusal(Caller("", identity(connection, None)), "connect", error)
        return refuse(connection, HTTPStatus.SERVICE_UNAVAILABLE if cause is None else HTTPStatus.UNAUTHORIZED, error)

    def _objection(self, connection: ServerConnection, request: Request) -> str | None:
        if self._certificate and not connection.transport.get_extra_info("peercert"):
            return "it asks for a client certificate"
        if self._token is None:
            return None
        sent = request.headers.get_all("Authorization")
        if not sent:
            return "no token was sent"
        right = (_SCHEME + self._token).encode()
        return None if len(sent) == 1 and hmac.compare_digest(sent[0].encode(), right) else "the token is wrong"


def refuse(connection: ServerConnection, status: HTTPStatus, error: SyftError) -> Response:
    """Return the answer to an opening handshake that tells `error` to a proxy; `refusal` reads it."""
    body = json.dumps({"type": type(error).__name__, "fields": exceptions.to_fields(error)})
    response = connection.respond(status, body)
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = _SCHEME.strip()
    return response


def refusal(worker: str, url: str, error: Exception) -> SyftError:
    """Return what a failed opening handshake means to the user of a proxy."""
    told = _told(error.response) if isinstance(error, InvalidStatus) else None
    if isinstance(told, AccessDenied):
        return AccessDenied(worker, url, told.cause)
    if told is not None:
        return told
    cause = printable(f"{type(error).__name__}: {error}", 500) if str(error) else type(error).__name__
    if isinstance(error, InvalidMessage) and url.startswith("wss:"):
        # asyncio's TLS servers do not send the alert that would say so.
        cause = f"{cause} (it closed the connection after the TLS handshake: does it trust this client certificate?)"
    return HandshakeFailed(worker, url, cause)


def identity(connection: ServerConnection, token: str | None) -> dict[str, Any]:
    """Return where a coordinator is and how it showed who it is, for the audit log."""
    address = connection.remote_address
    who: dict[str, Any] = {"address": "{}:{}".format(*address[:2]) if isinstance(address, tuple) else str(address)}
    if token is not None:
        who["token"] = fingerprint(token)
    certificate = connection.transport.get_extra_info("peercert")
    if certificate:
        who["certificate"] = ", ".join("=".join(pair) for names in certificate["subject"] for pair in names)
    return who


def authorization(token: str | None) -> dict[str, str]:
    """Return the headers that show a token."""
    return {} if token is None else {"Authorization": _SCHEME + token}


def resolve_token(token: str | None) -> str | None:
    """Return the token to use: the one given, else that of the environment, else None.

    Raises:
        ValueError: it is not printable ASCII without spaces, which is all a header can carry unchanged.
    """
    if token is None:
        token = os.environ.get(TOKEN_VARIABLE, "")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError("this token cannot be sent: it should be printable ASCII without spaces, 32 bytes or more.")
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
    ca_path: FilePath | None, verify: bool, cert_path: FilePath | None = None, key_path: FilePath | None = None
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


def server_tls(cert_path: FilePath, key_path: FilePath, client_ca_path: FilePath | None) -> ssl.SSLContext:
    """Return a worker's TLS context (1.2 or later); it verifies client certificates if `client_ca_path` is given.

    A client without one gets through TLS, so that `Gate` can tell it what is missing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_path, key_path)
    if client_ca_path is not None:
        context.load_verify_locations(client_ca_path)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _told(response: Response) -> SyftError | None:
    """Return the error that a worker told in its answer to the opening handshake, if it is one."""
    try:
        body = json.loads(response.body or b"")
        return exceptions.from_fields(body["type"], body["fields"])
    except (ValueError, TypeError, KeyError):
        return None
