"""What a failed opening handshake tells a proxy."""

import json

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from syft.exceptions import AccessDenied, HandshakeFailed, LimitExceeded, to_fields
from syft.workers.websocket_access import refusal

URL = "ws://127.0.0.1:8777"


def refused_with(body):
    return refusal("alice", URL, InvalidStatus(Response(403, "Forbidden", Headers(), body)))


def told(error):
    return json.dumps({"type": type(error).__name__, "fields": to_fields(error)}).encode()


def test_an_error_of_the_worker_arrives_as_it_is():
    limit = LimitExceeded("alice", "the open connections", 3, 2, "connections")
    error = refused_with(told(limit))
    assert isinstance(error, LimitExceeded) and str(error) == str(limit)


def test_who_denies_access_is_named_as_the_proxy_knows_it():
    error = refused_with(told(AccessDenied("mallory", "ws://elsewhere:1", "no token was sent")))
    assert isinstance(error, AccessDenied)
    assert (error.worker, error.url, error.cause) == ("alice", URL, "no token was sent")


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        b"Forbidden",
        b"\xff",
        b"[]",
        b"3",
        b"{}",
        b'{"type": "AccessDenied"}',
        b'{"type": "AccessDenied", "fields": {}}',
        b'{"type": "SystemExit", "fields": {}}',
        b'{"type": [], "fields": {}}',
        b"[" * 500_000,
        b'{"type": "LimitExceeded", "fields": ' + b'{"a":' * 100_000,
    ],
    ids=lambda body: repr(body)[:40],
)
def test_any_other_answer_is_a_failed_handshake(body):
    error = refused_with(body)
    assert type(error) is HandshakeFailed
    assert "403" in str(error) and "alice" in str(error)
