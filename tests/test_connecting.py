"""What a proxy finds at its worker's address: a worker, nobody, or something else."""

import http.server
import socket
import threading
import time

import pytest
import torch
import websockets.exceptions

import syft as sy
from syft import wire
from syft.exceptions import HandshakeFailed, VersionMismatch, WorkerUnreachable
from syft.workers import websocket_connect, websocket_settings
from tests.network import (
    DEADLINE,
    Server,
    exchange,
    false_worker,
    free_port,
    greeting,
    listener,
    proxy_at,
    proxy_of,
    raw,
    serving,
)


def test_a_worker_that_does_not_listen_is_named_with_what_to_do():
    port = free_port()
    with (
        pytest.raises(ConnectionRefusedError) as info,
        proxy_at("localhost", port, id="bob", connect_timeout=0.3),
    ):
        pass
    error = info.value
    assert isinstance(error, WorkerUnreachable)
    assert error.attempts > 1
    assert str(error).startswith(
        f"worker 'bob' did not accept a connection at ws://localhost:{port} within 0.3 s "
        f"({error.attempts} attempts; "
    )
    assert "python start_websocket_servers.py" in str(error)
    assert "bob" not in sy.local_worker._known_workers


@pytest.mark.parametrize(("text", "seconds"), [(None, 10), ("", 10), ("0.2", 0.2)])
def test_the_environment_tells_how_long_to_wait(monkeypatch, text, seconds):
    monkeypatch.delenv("SYFT_CONNECT_TIMEOUT", raising=False)
    if text is not None:
        monkeypatch.setenv("SYFT_CONNECT_TIMEOUT", text)
    for given, expected in ((None, seconds), (3, 3)):
        with proxy_at("localhost", free_port(), connect=False, connect_timeout=given) as proxy:
            assert proxy.connect_timeout == expected


def test_an_environment_without_a_number_is_refused(monkeypatch):
    monkeypatch.setenv("SYFT_CONNECT_TIMEOUT", "soon")
    with pytest.raises(
        ValueError, match=r"^SYFT_CONNECT_TIMEOUT is 'soon'; expected a number of seconds\.$"
    ):
        sy.WebsocketClientWorker(None, "localhost", free_port(), connect=False)


def test_connects_by_itself_when_the_worker_starts_late(monkeypatch):
    """The server starts when the proxy has failed to connect for the second time."""
    server, attempts = Server(port=free_port()), threading.Semaphore(0)

    async def counted(peer, seconds, connect=websocket_connect.connect_once):
        try:
            return await connect(peer, seconds)
        except OSError:
            attempts.release()
            raise

    def start_late() -> None:
        assert attempts.acquire(timeout=DEADLINE) and attempts.acquire(timeout=DEADLINE)
        server.start(block=False)

    monkeypatch.setattr(websocket_connect, "connect_once", counted)
    starter = threading.Thread(target=start_late)
    starter.start()
    try:
        with proxy_of(server, connect_timeout=DEADLINE) as proxy:
            assert proxy.objects_count_remote() == 0
    finally:
        starter.join(DEADLINE)
        server.stop()


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost", "127.0.0.1"])
def test_a_worker_on_all_addresses_is_reached_by_each_of_this_machine(host):
    with serving(Server(host="0.0.0.0")) as server, proxy_at(host, str(server.port)) as proxy:
        assert proxy.url == f"ws://{host}:{server.port}"
        assert proxy.objects_count_remote() == 0


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
@pytest.mark.parametrize("host", ["::1", "::"])
def test_a_worker_on_ipv6_is_reached_by_name_and_address(host):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with serving(Server(host="::1")) as server, proxy_at(host, server.port) as proxy:
        assert proxy.objects_count_remote() == 0


@pytest.mark.parametrize("port", ["eight", -1, 65536, None])
def test_what_is_no_port_is_refused(port):
    with pytest.raises(ValueError, match="not a port"), proxy_at("localhost", port):
        pass


def echo(connection: socket.socket) -> None:
    while data := connection.recv(4096):
        connection.sendall(data)


def hang_up(connection: socket.socket) -> None:
    connection.recv(1)


def test_something_else_that_listens_is_no_worker():
    for handler in (echo, hang_up):
        with (
            listener(handler) as port,
            pytest.raises(HandshakeFailed, match=f"no worker answers at ws://127.0.0.1:{port}"),
            proxy_at("127.0.0.1", port),
        ):
            pass


def test_a_web_server_is_no_worker():
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with (
            pytest.raises(HandshakeFailed, match="HTTP"),
            proxy_at("127.0.0.1", server.server_port),
        ):
            pass
        server.shutdown()
        thread.join(DEADLINE)


def test_a_listener_that_never_answers_is_given_up_in_time():
    started = time.monotonic()
    with listener() as port, pytest.raises(ConnectionError, match="worker 'alice'"):  # noqa: SIM117
        with proxy_at("127.0.0.1", port, connect_timeout=0.3):
            pass
    assert time.monotonic() - started < DEADLINE / 2


def answer_with(frame):
    """A false worker's handler that answers the greeting with `frame`."""

    def handler(connection) -> None:
        connection.recv(timeout=DEADLINE)
        connection.send(frame)
        connection.close()

    return handler


@pytest.mark.parametrize(
    "answer",
    [
        "hello",
        b"hello",
        wire.encode(wire.Reply(0, {"id": "alice"})),
        wire.encode(wire.Reply(0, None)),
        wire.encode(wire.Reply(0, {"max_message_bytes": 1000})),
        greeting("many"),
        wire.encode(wire.Reply(0, None))[:-1],
        wire.encode(wire.Request(0, "hello", {"session": "x"})),
    ],
    ids=["text", "bytes", "no-limit", "no-map", "no-torch", "text-limit", "cut", "request"],
)
def test_a_websocket_server_that_is_no_worker(answer):
    with (
        false_worker(answer_with(answer)) as port,
        pytest.raises(HandshakeFailed),
        proxy_at("127.0.0.1", port),
    ):
        pass


def test_a_websocket_server_that_echoes_is_no_worker():
    def echo_messages(connection) -> None:
        for message in connection:
            connection.send(message)

    with (
        false_worker(echo_messages) as port,
        pytest.raises(HandshakeFailed),
        proxy_at("127.0.0.1", port),
    ):
        pass


def test_a_websocket_server_that_never_answers_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(websocket_settings, "HANDSHAKE_TIMEOUT", 0.2)
    with (
        false_worker(lambda connection: [*connection] and None) as port,
        pytest.raises(HandshakeFailed, match=r"no answer to the greeting within 0\.2 s"),
        proxy_at("127.0.0.1", port),
    ):
        pass


def other_version(frame: bytes) -> bytes:
    return frame[:4] + bytes([wire.VERSION + 1]) + frame[5:]


def test_a_worker_of_another_version_is_named_with_both_versions():
    with (
        false_worker(answer_with(other_version(wire.encode(wire.Reply(0, {}))))) as port,
        pytest.raises(VersionMismatch) as info,
        proxy_at("127.0.0.1", port),
    ):
        pass
    assert (info.value.ours, info.value.theirs) == (wire.VERSION, wire.VERSION + 1)
    assert (
        f"speaks protocol version {wire.VERSION + 1}; this side speaks version {wire.VERSION}"
        in str(info.value)
    )


def test_a_coordinator_of_another_version_is_told_and_sent_away():
    """It gets an answer in the worker's version, so that it can name both, and the connection is
    closed."""
    with serving(Server()) as server, raw(server, session=None) as connection:
        connection.send(other_version(wire.encode(wire.Request(0, "hello", {"session": "x"}))))
        answer = connection.recv(timeout=DEADLINE)
        assert wire.peek_version(answer) == wire.VERSION
        assert f"version {wire.VERSION + 1}" in wire.decode(answer).message
        with pytest.raises(websockets.exceptions.ConnectionClosedError):
            connection.recv(timeout=DEADLINE)


@pytest.mark.parametrize("chosen", [None, False, True])
def test_the_greeting_tells_the_workers_id_limit_torch_and_whether_it_operates(chosen):
    options = {"max_message_bytes": 54321, "remote_operations": chosen}
    with (
        serving(Server(id="bob", **options)) as server,
        raw(server, session=None) as connection,
    ):
        reply = exchange(connection, wire.Request(0, "hello", {"session": "x"}))
    assert reply.result == {
        "id": "bob",
        "max_message_bytes": 54321,
        "torch": torch.__version__,
        "remote_operations": chosen is True,  # it has a dataset
    }


async def test_a_listener_that_hangs_up_until_the_deadline_is_there_but_no_worker(monkeypatch):
    async def hang_up(peer, seconds):
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(websocket_connect, "connect_once", hang_up)
    attempts = []
    peer = websocket_connect.Peer("bob", "localhost", 8778, None, 0.1, 10_000)
    with pytest.raises(HandshakeFailed, match="reset by peer"):
        await websocket_connect.open_connection(peer, "session", lambda: attempts.append(None))
    assert len(attempts) > 1
