"""Who may connect: the token, TLS in both directions, and where workers and scripts listen."""

import argparse
import datetime
import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import trustme

import syft as sy
from syft.exceptions import AccessDenied, ConnectionFailed, HandshakeFailed
from syft.workers import websocket_access as access
from tutorial import options

ROOT = Path(__file__).parents[1]
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


class Authority:
    """A certificate authority, with its certificates in files."""

    def __init__(self, folder):
        self.folder, self.ca = folder, trustme.CA()
        self.ca_path = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(self.ca_path)

    def issue(self, *names, **options):
        leaf = self.ca.issue_cert(*names, **options)
        stem = self.folder / names[0]
        cert, key = stem.with_suffix(".cert.pem"), stem.with_suffix(".key.pem")
        cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(key)
        return {"cert_path": cert, "key_path": key}


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("theirs"))


class TestToken:
    def test_right(self, serve):
        connect(serve(token=TOKEN), token=TOKEN)

    def test_from_the_environment_of_both(self, serve, monkeypatch):
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
    def test_wrong(self, serve, caplog, token, cause):
        server = serve(token=TOKEN)
        with caplog.at_level(logging.WARNING, "syft"), pytest.raises(AccessDenied) as caught:
            connect(server, token=token)
        assert caught.value.cause == cause
        assert caught.value.url == f"ws://127.0.0.1:{server.port}"
        assert isinstance(caught.value, PermissionError) and isinstance(
            caught.value, ConnectionFailed
        )
        assert (
            "worker alice: access denied to ('127.0.0.1', " in caplog.text and cause in caplog.text
        )
        assert TOKEN not in caplog.text + str(caught.value)

    def test_a_worker_without_token_takes_any(self, serve):
        connect(serve(token=""), token=TOKEN)

    def test_refused_before_any_message_is_read(self, serve):
        server = serve(token=TOKEN)
        answer = handshake(server, "Host: localhost")
        assert (
            answer.startswith("HTTP/1.1 401 Unauthorized\r\n")
            and "WWW-Authenticate: Bearer" in answer
        )
        assert server._dispatcher.sessions == {}

    def test_two_tokens_are_not_one_of_them(self, serve):
        server = serve(token=TOKEN)
        headers = [f"Authorization: Bearer {token}" for token in (TOKEN, "other")]
        assert handshake(server, "Host: localhost", *headers).startswith("HTTP/1.1 401")

    @pytest.mark.parametrize("token", ["two words", "zwölf", "line\nbreak"])
    def test_that_no_header_can_carry(self, token):
        with pytest.raises(ValueError, match="cannot be sent"):
            access.resolve_token(token)

    def test_is_in_no_repr(self, serve):
        server = serve(token=TOKEN)
        proxy = sy.WebsocketClientWorker(None, "127.0.0.1", server.port, id="alice", token=TOKEN)
        assert TOKEN not in repr(proxy) + str(proxy) + repr(server) + repr(proxy._link._peer)
        proxy.close()

    def test_unencrypted_beyond_this_machine_is_warned_of(self, caplog):
        with caplog.at_level(logging.WARNING, "syft"):
            access.warn_of_open_token(TOKEN, "192.0.2.11")
            access.warn_of_open_token(None, "192.0.2.12")
            access.warn_of_open_token(TOKEN, "127.0.0.1")
        assert [record.args for record in caplog.records] == [("192.0.2.11",)]


class TestPages:
    """A browser on this machine lets any web page try; it names the page in the header Origin."""

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
    def test_a_page_is_refused(self, serve, origin, token):
        server = serve(token=token, allow_origins=["http://localhost:3000"])
        answer = handshake(
            server, self.GOOD_HOST, f"Origin: {origin}", f"Authorization: Bearer {token}"
        )
        assert answer.startswith("HTTP/1.1 403 Forbidden\r\n")
        told = json.loads(answer.partition("\r\n\r\n")[2])
        assert told["type"] == "AccessDenied"
        assert told["fields"]["cause"] == f"the request comes from a web page: Origin: {origin}"
        assert server._dispatcher.sessions == {}

    def test_a_listed_page_may_connect(self, serve):
        server = serve(token="", allow_origins=["https://app.example", "http://localhost:3000"])
        page = "Origin: http://localhost:3000"
        assert handshake(server, self.GOOD_HOST, page).startswith("HTTP/1.1 101 ")
        # And who is no page still may.
        assert handshake(server, self.GOOD_HOST).startswith("HTTP/1.1 101 ")
        assert handshake(server, self.GOOD_HOST, page, page).startswith("HTTP/1.1 403 ")

    def test_a_listed_page_still_needs_the_token(self, serve):
        server = serve(token=TOKEN, allow_origins=["http://localhost:3000"])
        assert handshake(server, self.GOOD_HOST, "Origin: http://localhost:3000").startswith(
            "HTTP/1.1 401 "
        )

    @pytest.mark.parametrize(
        "origin", ["null", "*", "localhost", "http://localhost:3000/", "http://Localhost", ""]
    )
    def test_an_origin_that_no_browser_sends(self, origin):
        with pytest.raises(ValueError, match="not an origin"):
            sy.WebsocketServerWorker(None, "localhost", 0, allow_origins=[origin])

    def test_the_error_says_what_to_do(self):
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
    def test_names_of_a_worker_on_loopback(self, serve, host):
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
    def test_a_rebound_name_is_refused(self, serve, hosts):
        answer = handshake(serve(), *(f"Host: {host}" for host in hosts))
        assert answer.startswith("HTTP/1.1 403 Forbidden\r\n")
        assert json.loads(answer.partition("\r\n\r\n")[2])["type"] == "AccessDenied"

    @pytest.mark.parametrize(
        "host", ["alice.example:8777", "192.0.2.11", "worker_1:8777", "localhost", "[fe80::1]:1"]
    )
    def test_any_name_of_a_worker_that_listens_beyond_this_machine(self, serve, host):
        server = serve("0.0.0.0", token=TOKEN)
        assert handshake(server, f"Host: {host}", f"Authorization: Bearer {TOKEN}").startswith(
            "HTTP/1.1 101 "
        )
        assert handshake(server, f"Authorization: Bearer {TOKEN}").startswith("HTTP/1.1 403 ")
        page = f"Origin: http://{host}"
        assert handshake(
            server, f"Host: {host}", page, f"Authorization: Bearer {TOKEN}"
        ).startswith("HTTP/1.1 403 ")

    def test_who_was_sent_away_is_written_down(self, serve, tmp_path, caplog):
        server = serve(audit_path=tmp_path / "audit")
        with caplog.at_level(logging.WARNING, "syft"):
            handshake(server, self.GOOD_HOST, "Origin: http://evil.example/" + 1000 * "x")
            handshake(server, "Host: rebound.example")
        assert (
            "Origin: http://evil.example/xxx" in caplog.text
            and "Host: rebound.example" in caplog.text
        )
        assert 200 * "x" not in caplog.text
        lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
        assert [(line["call"], line["outcome"]) for line in lines] == 2 * [
            ("connect", "AccessDenied")
        ]
        assert all(line["who"]["address"].startswith("127.0.0.1:") for line in lines)

    def test_a_program_that_uses_another_name_is_told_what_to_do(self, serve, monkeypatch):
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


class TestTLS:
    def test_verified(self, serve, ours):
        connect(serve(**ours.issue("localhost")), "localhost", secure=True, ca_path=ours.ca_path)

    def test_an_address_in_the_certificate(self, serve, ours):
        connect(serve(**ours.issue("127.0.0.1")), secure=True, ca_path=ours.ca_path)

    def test_with_token(self, serve, ours):
        server = serve(**ours.issue("localhost"), token=TOKEN)
        connect(server, "localhost", secure=True, ca_path=ours.ca_path, token=TOKEN)
        with pytest.raises(AccessDenied, match="the token is wrong"):
            connect(server, "localhost", secure=True, ca_path=ours.ca_path, token="other")

    def test_wrong_authority(self, serve, ours, theirs):
        with pytest.raises(HandshakeFailed, match="CERTIFICATE_VERIFY_FAILED"):
            connect(
                serve(**ours.issue("localhost")), "localhost", secure=True, ca_path=theirs.ca_path
            )

    def test_the_systems_authorities_do_not_know_ours(self, serve, ours):
        with pytest.raises(HandshakeFailed, match="CERTIFICATE_VERIFY_FAILED"):
            connect(serve(**ours.issue("localhost")), "localhost", secure=True)

    def test_expired(self, serve, ours):
        yesterday = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
        with pytest.raises(HandshakeFailed, match="certificate has expired"):
            connect(
                serve(**ours.issue("localhost", not_after=yesterday)),
                "localhost",
                secure=True,
                ca_path=ours.ca_path,
            )

    def test_wrong_host_name(self, serve, ours):
        with pytest.raises(HandshakeFailed, match="Hostname mismatch"):
            connect(
                serve(**ours.issue("alice.example")), "localhost", secure=True, ca_path=ours.ca_path
            )

    def test_verification_turned_off(self, serve, ours):
        connect(serve(**ours.issue("alice.example")), "localhost", secure=True, verify=False)

    def test_plain_proxy_on_a_tls_port(self, serve, ours):
        with pytest.raises(ConnectionFailed, match="use TLS or neither does"):
            connect(serve(**ours.issue("localhost")), "localhost")

    def test_tls_proxy_on_a_plain_port(self, serve):
        with pytest.raises(ConnectionFailed, match="use TLS or neither does"):
            connect(serve(), "localhost", secure=True)

    def test_client_certificate(self, serve, ours, theirs):
        server = serve(**ours.issue("localhost"), client_ca_path=ours.ca_path)
        tls = {"secure": True, "ca_path": ours.ca_path}
        connect(server, "localhost", **tls, **ours.issue("coordinator"))
        with pytest.raises(AccessDenied, match="asks for a client certificate"):
            connect(server, "localhost", **tls)
        with pytest.raises(HandshakeFailed, match="does it trust this client certificate"):
            connect(server, "localhost", **tls, **theirs.issue("coordinator"))

    def test_files_without_tls(self, ours):
        certificate = ours.issue("localhost")
        with pytest.raises(ValueError, match="give secure=True"):
            sy.WebsocketClientWorker(None, "localhost", 1, ca_path=ours.ca_path)
        with pytest.raises(ValueError, match="only key_path was given"):
            sy.WebsocketClientWorker(
                None, "localhost", 1, secure=True, key_path=certificate["key_path"]
            )
        with pytest.raises(ValueError, match="give cert_path and key_path"):
            sy.WebsocketServerWorker(None, "localhost", 0, client_ca_path=ours.ca_path)

    def test_a_missing_file_is_named(self, ours):
        with pytest.raises(FileNotFoundError):
            sy.WebsocketServerWorker(
                None, "localhost", 0, cert_path="nowhere", key_path="nowhere"
            ).start(block=False)


class TestAddress:
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
    def test_loopback(self, host, loopback):
        assert access.is_loopback(host) is options.is_loopback(host) is loopback

    @pytest.mark.parametrize(
        "host, token, warned",
        [("0.0.0.0", None, True), ("0.0.0.0", TOKEN, False), ("127.0.0.1", None, False)],
    )
    def test_the_class_warns_of_an_open_door(self, serve, caplog, host, token, warned):
        with caplog.at_level(logging.WARNING, "syft"):
            serve(host, token=token)
        assert ("without a token" in caplog.text) is warned


def run(script, *arguments, **environment):
    return subprocess.run(
        [sys.executable, script, *arguments],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "SYFT_TOKEN"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


LAUNCHER = ["start_websocket_servers.py"]


class TestScripts:
    """A mistake on the command line is one line that tells the fix, and exit status 2."""

    @pytest.mark.parametrize(
        "arguments, text",
        [
            (["--host", "0.0.0.0"], "say --insecure"),
            (["--host", "192.0.2.11"], "say --insecure"),
            (["--token_file", "nowhere"], "No such file"),
            (["--token_file", os.devnull], "is empty"),
            (["--cert_file", "README.md"], "needs both --cert_file and --key_file"),
            (["--cert_file", "nowhere", "--key_file", "nowhere"], "cannot read nowhere"),
            (
                ["--allow_origins", "http://localhost:3000/"],
                "'http://localhost:3000/' is no origin; expected http://",
            ),
            (["--client_ca_file", "README.md"], "give --cert_file and --key_file too"),
        ],
    )
    def test_launcher(self, arguments, text):
        done = run("start_websocket_servers.py", *arguments)
        assert done.returncode == 2 and text in done.stderr.splitlines()[-1]

    def test_a_token_is_no_argument(self):
        assert "--token " not in run("start_websocket_servers.py", "--help").stdout

    def parse(self, monkeypatch, *arguments, client=False):
        parser = argparse.ArgumentParser()
        (options.add_client_options if client else options.add_worker_options)(parser)
        read = options.client_options if client else options.worker_options
        monkeypatch.setenv("SYFT_TOKEN", "")  # what is set by the code under test is undone
        given = read(parser, parser.parse_args(arguments))
        return {name: value for name, value in given.items() if name not in ("policy", "limits")}

    def test_a_token_file_opens_the_door(self, monkeypatch, tmp_path):
        (tmp_path / "token").write_text(TOKEN + "\n")
        arguments = ["--host", "0.0.0.0", "--token_file", str(tmp_path / "token")]
        assert self.parse(monkeypatch, *arguments) == {}
        assert os.environ["SYFT_TOKEN"] == TOKEN

    def test_insecure_said_aloud(self, monkeypatch):
        assert self.parse(monkeypatch, "--host", "0.0.0.0", "--insecure") == {"token": ""}

    def test_insecure_takes_no_token_away(self, monkeypatch, tmp_path):
        (tmp_path / "token").write_text(TOKEN)
        assert self.parse(monkeypatch, "--insecure", "--token_file", str(tmp_path / "token")) == {}

    def test_pages_that_may_connect(self, monkeypatch):
        origins = ["http://localhost:3000", "https://app.example"]
        assert self.parse(monkeypatch, "--allow_origins", *origins) == {"allow_origins": origins}

    def test_coordinator(self, monkeypatch):
        assert self.parse(monkeypatch, client=True) == {}
        assert self.parse(monkeypatch, "--ca_file", "README.md", client=True) == {
            "ca_path": "README.md",
            "secure": True,
        }
        assert self.parse(monkeypatch, "--secure", client=True) == {"secure": True}
