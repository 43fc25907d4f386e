"""Who may connect: the token, web pages, and where workers and scripts listen."""

import argparse
import json
import logging
import os
import socket
import time

import pytest
import torch

import syft as sy
from syft import options
from syft.exceptions import AccessDenied, ConnectionFailed
from syft.workers import websocket_access as access

TOKEN = "a-token-of-thirty-two-characters"


@pytest.fixture(autouse=True)
def no_token_around(monkeypatch):
    monkeypatch.delenv("SYFT_TOKEN", raising=False)


@pytest.fixture
def serve():
    """Start workers on free ports, and stop them."""
    servers = []

    def start(host="127.0.0.1", **options):
        server = sy.WebsocketServerWorker(
            None, host, 0, id="alice", data=[torch.ones(2)], **options
        )
        server.start(block=False)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


def connect(server, host="127.0.0.1", **options):
    """Make a proxy, use it and close it. A refusal must come at once, not after connect_timeout."""
    started = time.monotonic()
    try:
        proxy = sy.WebsocketClientWorker(
            None, host, server.port, id="alice", connect_timeout=30, **options
        )
        assert proxy.objects_count_remote() == 0  # what is there has no tags: it is the owner's
        proxy.close()
    finally:
        assert time.monotonic() - started < 15


def handshake(server, *headers):
    """Send a WebSocket handshake with these headers besides the usual ones; return the answer."""
    usual = [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ]
    lines = ["GET / HTTP/1.1", *headers, *usual, "Sec-WebSocket-Version: 13", "", ""]
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall("\r\n".join(lines).encode())
        answer = b""
        while not answer.startswith(b"HTTP/1.1 101 ") and (chunk := raw.recv(4096)):
            answer += chunk
        return answer.decode()


# The token


def test_the_right_token_opens_the_door(serve):
    connect(serve(token=TOKEN), token=TOKEN)


def test_both_sides_take_the_token_from_the_environment(serve, monkeypatch):
    monkeypatch.setenv("SYFT_TOKEN", TOKEN)
    server = serve()
    connect(server)
    with pytest.raises(AccessDenied):
        connect(server, token="")


@pytest.mark.parametrize(
    "token, cause",
    [
        ("", "no token was sent"),
        (TOKEN + "x", "the token is wrong"),
        (TOKEN[:-1], "the token is wrong"),
        (TOKEN.upper(), "the token is wrong"),
    ],
)
def test_a_wrong_token_is_refused_and_logged_without_its_text(serve, caplog, token, cause):
    server = serve(token=TOKEN)
    with caplog.at_level(logging.WARNING, "syft"), pytest.raises(AccessDenied) as caught:
        connect(server, token=token)
    assert caught.value.cause == cause
    assert caught.value.url == f"ws://127.0.0.1:{server.port}"
    assert isinstance(caught.value, PermissionError) and isinstance(caught.value, ConnectionFailed)
    assert "worker alice: access denied to ('127.0.0.1', " in caplog.text and cause in caplog.text
    assert TOKEN not in caplog.text + str(caught.value)


def test_a_worker_without_token_takes_any(serve):
    connect(serve(token=""), token=TOKEN)


def test_who_has_no_token_is_refused_before_any_message_is_read(serve):
    server = serve(token=TOKEN)
    answer = handshake(server, "Host: localhost")
    assert (
        answer.startswith("HTTP/1.1 401 Unauthorized\r\n") and "WWW-Authenticate: Bearer" in answer
    )
    assert server._dispatcher.sessions == {}


def test_two_tokens_are_not_one_of_them(serve):
    server = serve(token=TOKEN)
    headers = [f"Authorization: Bearer {token}" for token in (TOKEN, "other")]
    assert handshake(server, "Host: localhost", *headers).startswith("HTTP/1.1 401")


@pytest.mark.parametrize("token", ["two words", "zwölf", "line\nbreak"])
def test_a_token_that_no_header_can_carry_is_refused(token):
    with pytest.raises(ValueError, match="cannot be sent"):
        access.resolve_token(token)


def test_the_token_is_in_no_repr(serve):
    server = serve(token=TOKEN)
    proxy = sy.WebsocketClientWorker(None, "127.0.0.1", server.port, id="alice", token=TOKEN)
    assert TOKEN not in repr(proxy) + str(proxy) + repr(server) + repr(proxy._link._peer)
    proxy.close()


def test_a_token_that_leaves_this_machine_unencrypted_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING, "syft"):
        access.warn_of_open_token(TOKEN, "192.0.2.11")
        access.warn_of_open_token(None, "192.0.2.12")
        access.warn_of_open_token(TOKEN, "127.0.0.1")
    assert [record.args for record in caplog.records] == [("192.0.2.11",)]


# Web pages
# A browser on this machine lets any of them try; it names the page in the header Origin.

GOOD_HOST = "Host: localhost:8777"


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost:8777",
        "https://localhost:3000",
        "file://",
        "",
    ],
)
def test_a_web_page_that_is_not_listed_is_refused(serve, origin, token):
    server = serve(token=token, allow_origins=["http://localhost:3000"])
    answer = handshake(server, GOOD_HOST, f"Origin: {origin}", f"Authorization: Bearer {token}")
    assert answer.startswith("HTTP/1.1 403 Forbidden\r\n")
    told = json.loads(answer.partition("\r\n\r\n")[2])
    assert told["type"] == "AccessDenied"
    assert told["fields"]["cause"] == f"the request comes from a web page: Origin: {origin}"
    assert server._dispatcher.sessions == {}


def test_a_listed_page_may_connect(serve):
    server = serve(token="", allow_origins=["https://app.example", "http://localhost:3000"])
    page = "Origin: http://localhost:3000"
    assert handshake(server, GOOD_HOST, page).startswith("HTTP/1.1 101 ")
    # And who is no page still may.
    assert handshake(server, GOOD_HOST).startswith("HTTP/1.1 101 ")
    assert handshake(server, GOOD_HOST, page, page).startswith("HTTP/1.1 403 ")


def test_a_listed_page_still_needs_the_token(serve):
    server = serve(token=TOKEN, allow_origins=["http://localhost:3000"])
    assert handshake(server, GOOD_HOST, "Origin: http://localhost:3000").startswith("HTTP/1.1 401 ")


@pytest.mark.parametrize(
    "origin", ["null", "*", "localhost", "http://localhost:3000/", "http://Localhost", ""]
)
def test_an_origin_that_no_browser_sends_cannot_be_listed(origin):
    with pytest.raises(ValueError, match="not an origin"):
        sy.WebsocketServerWorker(None, "localhost", 0, allow_origins=[origin])


def test_the_error_of_a_refusal_says_what_to_do():
    error = AccessDenied("alice", "ws://localhost:8777", "seen", "Do this.")
    assert str(error) == "worker 'alice' at ws://localhost:8777 denied access: seen. Do this."


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:1",
        "127.0.0.1",
        "127.0.0.1:8777",
        "127.1.2.3",
        "[::1]",
        "[::1]:8777",
    ],
)
def test_a_worker_on_loopback_answers_to_every_loopback_name(serve, host):
    assert handshake(serve(token=""), f"Host: {host}").startswith("HTTP/1.1 101 ")


@pytest.mark.parametrize(
    "hosts",
    [
        ["rebound.example:8777"],
        ["localhost.rebound.example"],
        ["127.0.0.1.rebound.example:8777"],
        ["rebound.example:8777@localhost"],
        ["192.0.2.11"],
        ["0.0.0.0:8777"],
        ["[::2]:8777"],
        ["localhost:8777:8777"],
        [""],
        [],
        ["localhost", "localhost"],
        ["localhost", "rebound.example"],
    ],
)
def test_a_rebound_name_is_refused(serve, hosts):
    answer = handshake(serve(), *(f"Host: {host}" for host in hosts))
    assert answer.startswith("HTTP/1.1 403 Forbidden\r\n")
    assert json.loads(answer.partition("\r\n\r\n")[2])["type"] == "AccessDenied"


@pytest.mark.parametrize(
    "host", ["alice.example:8777", "192.0.2.11", "worker_1:8777", "localhost", "[fe80::1]:1"]
)
def test_a_worker_that_listens_beyond_this_machine_answers_to_any_one_name(serve, host):
    server = serve("0.0.0.0", token=TOKEN)
    assert handshake(server, f"Host: {host}", f"Authorization: Bearer {TOKEN}").startswith(
        "HTTP/1.1 101 "
    )
    assert handshake(server, f"Authorization: Bearer {TOKEN}").startswith("HTTP/1.1 403 ")
    page = f"Origin: http://{host}"
    assert handshake(server, f"Host: {host}", page, f"Authorization: Bearer {TOKEN}").startswith(
        "HTTP/1.1 403 "
    )


def test_who_was_sent_away_is_written_down(serve, tmp_path, caplog):
    server = serve(audit_path=tmp_path / "audit")
    with caplog.at_level(logging.WARNING, "syft"):
        handshake(server, GOOD_HOST, "Origin: http://evil.example/" + 1000 * "x")
        handshake(server, "Host: rebound.example")
    assert (
        "Origin: http://evil.example/xxx" in caplog.text and "Host: rebound.example" in caplog.text
    )
    assert 200 * "x" not in caplog.text
    lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert [(line["call"], line["outcome"]) for line in lines] == 2 * [("connect", "AccessDenied")]
    assert all(line["who"]["address"].startswith("127.0.0.1:") for line in lines)


def test_a_program_that_uses_another_name_is_told_what_to_do(serve, monkeypatch):
    look_up = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *args, **more: look_up("127.0.0.1", *args, **more)
    )
    with pytest.raises(AccessDenied) as caught:
        connect(serve(), "alice.example")
    assert caught.value.cause.startswith(
        "the worker listens on 127.0.0.1, which has no such name: Host: alice.ex"
    )
    assert str(caught.value).endswith(
        "Connect to localhost or 127.0.0.1, or have the worker listen at an address of that "
        "name (host=)."
    )


# The address


@pytest.mark.parametrize(
    "host, loopback",
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.0.2.11", False),
        ("localhost.example", False),
    ],
)
def test_the_package_and_the_scripts_agree_on_what_is_loopback(host, loopback):
    assert access.is_loopback(host) is options.is_loopback(host) is loopback


@pytest.mark.parametrize(
    "host, token, warned",
    [("0.0.0.0", None, True), ("0.0.0.0", TOKEN, False), ("127.0.0.1", None, False)],
)
def test_the_class_warns_of_a_worker_that_everybody_reaches_without_a_token(
    serve, caplog, host, token, warned
):
    with caplog.at_level(logging.WARNING, "syft"):
        serve(host, token=token)
    assert ("without a token" in caplog.text) is warned


# The scripts' options


def parse(monkeypatch, *arguments, client=False):
    parser = argparse.ArgumentParser()
    (options.add_client_options if client else options.add_worker_options)(parser)
    read = options.client_options if client else options.worker_options
    monkeypatch.setenv("SYFT_TOKEN", "")  # what is set by the code under test is undone
    given = read(parser, parser.parse_args(arguments))
    return {name: value for name, value in given.items() if name not in ("policy", "limits")}


def test_a_token_file_allows_an_address_beyond_this_machine(monkeypatch, tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    arguments = ["--host", "0.0.0.0", "--token_file", str(tmp_path / "token")]
    assert parse(monkeypatch, *arguments) == {}
    assert os.environ["SYFT_TOKEN"] == TOKEN


def test_insecure_allows_an_address_beyond_this_machine_without_a_token(monkeypatch):
    assert parse(monkeypatch, "--host", "0.0.0.0", "--insecure") == {"token": ""}


def test_insecure_takes_no_token_away(monkeypatch, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    assert parse(monkeypatch, "--insecure", "--token_file", str(tmp_path / "token")) == {}


def test_the_pages_that_may_connect_reach_the_worker(monkeypatch):
    origins = ["http://localhost:3000", "https://app.example"]
    assert parse(monkeypatch, "--allow_origins", *origins) == {"allow_origins": origins}


def test_an_authority_alone_asks_for_tls(monkeypatch):
    assert parse(monkeypatch, client=True) == {}
    assert parse(monkeypatch, "--ca_file", "README.md", client=True) == {
        "ca_path": "README.md",
        "secure": True,
    }
    assert parse(monkeypatch, "--secure", client=True) == {"secure": True}
