"""The token that a worker on loopback makes: programs of its user find it, and nobody else does."""

import contextlib
import os
import socket
import stat
import sys
import threading
from pathlib import Path

import pytest

import syft as sy
from syft.exceptions import AccessDenied, TokenNotKept
from syft.workers import token_files
from tests.network import DEADLINE, Server, assert_usable, proxy_at, proxy_of, serving

LOOPBACK = "127.0.0.1"


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """The folder of the tokens, which does not exist yet."""
    monkeypatch.delenv("SYFT_TOKEN", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "syft-workers"


def worker(host=LOOPBACK, port=0, **settings):
    """A worker that is given no token, and makes one."""
    return Server(host=host, port=port, token=None, **settings)


def token_of(server):
    return token_files.find((LOOPBACK, server.port))


# Who gets in

needs_two_addresses = pytest.mark.skipif(
    sys.platform != "linux", reason="127.0.0.2 is an address of this machine on Linux only"
)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_proxy_of_the_same_user_finds_the_token_by_itself(host):
    with serving(worker("localhost")) as server, proxy_at(host, server.port) as proxy:
        assert_usable(proxy)


def test_the_token_is_found_on_every_address_of_localhost(folder):
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    with serving(worker("localhost", port)) as server:
        listening = [each.getsockname()[:2] for each in server._running._server.sockets]
        assert len(list(folder.iterdir())) == len(listening)
        assert {token_files.find(address) for address in listening} == {server._running._token}


def test_who_has_no_token_is_told_what_to_do():
    with (
        serving(worker()) as server,
        pytest.raises(AccessDenied) as caught,
        proxy_of(server, token=""),
    ):
        pass
    assert caught.value.cause == "no token was sent"
    assert caught.value.remedy == (
        "This worker was started without a token and made one, which programs of the same "
        "user on the same machine find by themselves. For others, start it with a token "
        "(SYFT_TOKEN, --token_file or token=) and give them the same."
    )


def test_who_has_another_token_is_told_too():
    with (
        serving(worker()) as server,
        pytest.raises(AccessDenied) as caught,
        proxy_of(server, token="another"),
    ):
        pass
    assert caught.value.cause == "the token is wrong" and "made one" in caught.value.remedy


def test_a_token_that_is_given_is_the_only_one(folder, monkeypatch):
    with serving(Server(token="given")) as server, proxy_of(server, token="given") as proxy:
        assert_usable(proxy)
    monkeypatch.setenv("SYFT_TOKEN", "of-the-environment")
    with serving(worker()) as server, proxy_of(server) as proxy:
        assert_usable(proxy)
    assert not folder.exists()


def test_no_token_is_needed_when_the_owner_says_so(folder):
    with serving(Server(token="")) as server, proxy_of(server, token="") as proxy:
        assert_usable(proxy)
    assert not folder.exists()


def test_a_worker_that_others_reach_makes_no_token(folder):
    with serving(worker("0.0.0.0")) as server, proxy_of(server, token="") as proxy:
        assert_usable(proxy)
    assert not folder.exists()


def test_two_workers_of_one_process_have_two_tokens():
    with serving(worker(id="alice")) as alice, serving(worker(id="bob")) as bob:
        assert token_of(alice) != token_of(bob)
        with proxy_of(alice) as one, proxy_of(bob) as other:
            assert_usable(one)
            assert_usable(other)


@needs_two_addresses
def test_two_workers_on_one_port_of_two_addresses_have_two_tokens():
    with serving(worker()) as one, serving(worker("127.0.0.2", one.port, id="bob")) as other:
        with proxy_of(one) as proxy:
            assert_usable(proxy)
        with proxy_of(other) as proxy:
            assert_usable(proxy)


@needs_two_addresses
def test_who_listens_on_the_port_at_another_address_is_sent_no_token():
    received = []

    def listen(listener):
        connection, _ = listener.accept()
        with connection:
            received.append(connection.recv(4096))

    with (
        serving(worker()) as server,
        socket.create_server(("127.0.0.2", server.port)) as listener,
    ):
        thread = threading.Thread(target=listen, args=(listener,))
        thread.start()
        with (
            contextlib.suppress(ConnectionError),
            proxy_at("127.0.0.2", server.port, connect_timeout=0.1),
        ):
            pass
        thread.join(DEADLINE)
    assert received[0].startswith(b"GET / HTTP/1.1") and b"authorization" not in received[0].lower()


def test_a_proxy_finds_the_next_token_when_the_worker_is_started_again():
    server = worker()
    with serving(server), proxy_of(server) as proxy:
        before = token_of(server)
        server.stop()
        server.start(block=False)
        assert token_of(server) not in (None, before)
        assert_usable(proxy)


# The file


def test_only_the_user_can_read_the_file(folder):
    with serving(worker()) as server:
        (file,) = folder.iterdir()
        assert file.name == f"{socket.gethostname()}_127.0.0.1_{server.port}"
        assert (
            stat.S_IMODE(file.stat().st_mode) == 0o600
            and stat.S_IMODE(folder.stat().st_mode) == 0o700
        )
        assert len(file.read_text()) == 43 and file.read_text() == server._running._token


def test_the_file_goes_when_the_worker_stops(folder):
    with serving(worker()):
        pass
    assert list(folder.iterdir()) == []


def test_a_worker_that_cannot_listen_writes_no_file():
    with serving(worker()) as server:
        token = token_of(server)
        with pytest.raises(sy.exceptions.AddressInUse):
            worker(port=server.port).start(block=False)
        assert token_of(server) == token


def test_a_file_that_was_left_behind_is_overwritten(folder):
    with serving(worker()) as server:
        (file,) = folder.iterdir()
    file.write_text("left-behind")
    with serving(server), proxy_of(server) as proxy:
        assert file.read_text() != "left-behind"
        assert_usable(proxy)


def test_a_file_that_was_left_behind_locks_nobody_out_of_a_worker_without_a_token(folder):
    with serving(worker()) as server:
        (file,) = folder.iterdir()
    file.write_text("left-behind")
    with serving(Server(port=server.port, token="")) as server, proxy_of(server) as proxy:
        assert_usable(proxy)


def test_the_file_is_in_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    with serving(worker()) as server, proxy_of(server) as proxy:
        assert len(list((tmp_path / ".local" / "state" / "syft-workers").iterdir())) == 1
        assert_usable(proxy)


# A folder of somebody else

needs_permissions = pytest.mark.skipif(os.name == "nt", reason="permissions are no bits there")


def assert_refused(cause):
    with pytest.raises(TokenNotKept, match=cause) as caught:
        worker().start(block=False)
    assert "SYFT_TOKEN or token=" in str(caught.value) and isinstance(caught.value, OSError)


@needs_permissions
def test_a_folder_that_others_may_write_is_refused(folder):
    folder.mkdir(parents=True)
    folder.chmod(0o770)
    assert_refused("that others cannot enter")
    folder.joinpath(f"{socket.gethostname()}_127.0.0.1_8777").write_text("planted")
    assert token_files.find((LOOPBACK, 8777)) is None


@needs_permissions
def test_a_link_to_another_folder_is_refused(folder, tmp_path):
    folder.parent.mkdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    assert_refused("that others cannot enter")


@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() != 0, reason="only root can give a directory away"
)
@needs_permissions
def test_a_folder_of_another_user_is_refused(folder):
    folder.mkdir(parents=True, mode=0o700)
    os.chown(folder, 65534, 65534)
    assert_refused("a directory of this user")


@needs_permissions
def test_a_folder_that_cannot_be_made_is_named(folder):
    folder.parent.write_text("a file")
    assert_refused("Not a directory|File exists")
    assert token_files.find((LOOPBACK, 8777)) is None


@needs_permissions
def test_a_user_without_a_home_is_told_what_to_do(folder, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert_refused("Could not determine home")
    assert token_files.find((LOOPBACK, 8777)) is None
