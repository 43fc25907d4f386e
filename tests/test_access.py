"""Who may connect: the token, TLS in both directions, and where workers and scripts listen."""

import argparse
import datetime
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

import run_websocket_client
import script_options
import syft as sy
from syft.exceptions import AccessDenied, ConnectionFailed, HandshakeFailed
from syft.workers import websocket_access as access

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
        server = sy.WebsocketServerWorker(None, host, 0, id="alice", data=[torch.ones(2)], **options)
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
        proxy = sy.WebsocketClientWorker(None, host, server.port, id="alice", connect_timeout=30, **options)
        assert proxy.objects_count_remote() == 0  # what is there has no tags: it is the owner's
        proxy.close()
    finally:
        assert time.monotonic() - started < 15


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
        assert isinstance(caught.value, PermissionError) and isinstance(caught.value, ConnectionFailed)
        assert "worker alice: access denied to ('127.0.0.1', " in caplog.text and cause in caplog.text
        assert TOKEN not in caplog.text + str(caught.value)

    def test_a_worker_without_token_takes_any(self, serve):
        connect(serve(), token=TOKEN)

    def test_refused_before_any_message_is_read(self, serve):
        server = serve(token=TOKEN)
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
            raw.sendall(
                b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            answer = b""
            while chunk := raw.recv(4096):
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n") and b"WWW-Authenticate: Bearer" in answer
        assert server._dispatcher.sessions == {}

    def test_two_tokens_are_not_one_of_them(self, serve):
        server = serve(token=TOKEN)
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
            headers = b"".join(b"Authorization: Bearer %s\r\n" % token.encode() for token in (TOKEN, "other"))
            raw.sendall(
                b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                + headers
                + b"Sec-WebSocket-"
                b"Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert raw.recv(12) == b"HTTP/1.1 401"

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
            connect(serve(**ours.issue("localhost")), "localhost", secure=True, ca_path=theirs.ca_path)

    def test_the_systems_authorities_do_not_know_ours(self, serve, ours):
        with pytest.raises(HandshakeFailed, match="CERTIFICATE_VERIFY_FAILED"):
            connect(serve(**ours.issue("localhost")), "localhost", secure=True)

    def test_expired(self, serve, ours):
        yesterday = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
        with pytest.raises(HandshakeFailed, match="certificate has expired"):
            connect(
                serve(**ours.issue("localhost", not_after=yesterday)), "localhost", secure=True, ca_path=ours.ca_path
            )

    def test_wrong_host_name(self, serve, ours):
        with pytest.raises(HandshakeFailed, match="Hostname mismatch"):
            connect(serve(**ours.issue("alice.example")), "localhost", secure=True, ca_path=ours.ca_path)

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
            sy.WebsocketClientWorker(None, "localhost", 1, secure=True, key_path=certificate["key_path"])
        with pytest.raises(ValueError, match="give cert_path and key_path"):
            sy.WebsocketServerWorker(None, "localhost", 0, client_ca_path=ours.ca_path)

    def test_a_missing_file_is_named(self, ours):
        with pytest.raises(FileNotFoundError):
            sy.WebsocketServerWorker(None, "localhost", 0, cert_path="nowhere", key_path="nowhere").start(block=False)


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
        assert access.is_loopback(host) is script_options.is_loopback(host) is loopback

    @pytest.mark.parametrize(
        "host, token, warned", [("0.0.0.0", None, True), ("0.0.0.0", TOKEN, False), ("127.0.0.1", None, False)]
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
        (script_options.add_client_options if client else script_options.add_worker_options)(parser)
        options = script_options.client_options if client else script_options.worker_options
        monkeypatch.setenv("SYFT_TOKEN", "")  # what is set by the code under test is undone
        namespace = run_websocket_client.Namespace() if client else argparse.Namespace()
        given = options(parser, parser.parse_args(arguments, namespace))
        return {name: value for name, value in given.items() if name not in ("policy", "limits")}

    def test_a_token_file_opens_the_door(self, monkeypatch, tmp_path):
        (tmp_path / "token").write_text(TOKEN + "\n")
        arguments = ["--host", "0.0.0.0", "--token_file", str(tmp_path / "token")]
        assert self.parse(monkeypatch, *arguments) == {}
        assert os.environ["SYFT_TOKEN"] == TOKEN

    def test_insecure_said_aloud(self, monkeypatch):
        assert self.parse(monkeypatch, "--host", "0.0.0.0", "--insecure") == {}

    def test_coordinator(self, monkeypatch):
        assert self.parse(monkeypatch, client=True) == {}
        assert self.parse(monkeypatch, "--ca_file", "README.md", client=True) == {
            "ca_path": "README.md",
            "secure": True,
        }
        assert self.parse(monkeypatch, "--secure", client=True) == {"secure": True}
