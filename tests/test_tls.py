"""TLS: certificates and host names are verified in both directions, for every kind of call; what
does not fit together says so."""

import asyncio
import datetime
import ssl

import pytest
import torch

import syft as sy
from syft.exceptions import AccessDenied, ConnectionFailed, HandshakeFailed
from tests.models import make_config
from tests.network import DEADLINE, Server, in_time, proxy_at, proxy_of, serving

TOKEN = "a-token-of-thirty-two-characters"


@pytest.fixture(scope="module")
def certificate(authority):
    """The certificate of `tls_server`, and its key."""
    return authority.issue("localhost", "127.0.0.1")


@pytest.fixture
def tls_server(certificate):
    with serving(Server(**certificate)) as server:
        yield server


@pytest.fixture
def trusting(authority):
    """The settings of a proxy that trusts the authority."""
    return {"secure": True, "ca_path": authority.ca_path, "connect_timeout": DEADLINE}


def use(server, host=None, **settings):
    """Make a proxy, use it and close it."""
    with proxy_at(host or server.host, server.port, **settings) as proxy:
        assert proxy.objects_count_remote() == 0


async def test_every_kind_of_call_travels_under_tls(tls_server, trusting):
    assert tls_server.url == f"wss://127.0.0.1:{tls_server.port}"
    with proxy_of(tls_server, **trusting) as proxy:
        assert proxy.url == tls_server.url
        config = make_config()
        config.send(proxy)
        losses = [proxy.fit("blobs"), await in_time(proxy.async_fit("blobs", return_ids=[0]))]
        assert losses[0] != losses[1]
        results = asyncio.gather(
            *(proxy.async_call("scale", torch.ones(1), factor=k) for k in range(3))
        )
        assert [result.item() for result in await in_time(results)] == [0, 1, 2]
        proxy.close()
        assert (await in_time(proxy.async_evaluate("blobs")))["nr_predictions"] == 20
        assert (await in_time(config.model_ptr.async_get())).obj is not None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_certificate_may_name_a_host_or_an_address(tls_server, trusting, host):
    use(tls_server, host, **trusting)


def test_the_token_counts_under_tls_too(certificate, trusting):
    with serving(Server(**certificate, token=TOKEN)) as server:
        use(server, token=TOKEN, **trusting)
        with pytest.raises(AccessDenied, match="the token is wrong"):
            use(server, token="other", **trusting)


def test_a_certificate_of_another_authority_is_refused(tls_server, another_authority):
    # None: the system's authorities.
    for ca_path in (another_authority.ca_path, None):
        with pytest.raises(
            HandshakeFailed,
            match=rf"wss://127.0.0.1:{tls_server.port}.*certificate verify failed",
        ):
            use(tls_server, secure=True, ca_path=ca_path, connect_timeout=DEADLINE)


def test_a_certificate_that_has_expired_is_refused(authority, trusting):
    yesterday = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    expired = authority.issue("expired.example", "localhost", not_after=yesterday)
    with (
        serving(Server(**expired)) as server,
        pytest.raises(HandshakeFailed, match="certificate has expired"),
    ):
        use(server, "localhost", **trusting)


@pytest.mark.parametrize(
    ("host", "cause"),
    [
        ("127.0.0.1", r"certificate is not valid for '127\.0\.0\.1'"),
        ("localhost", "Hostname mismatch"),
    ],
)
def test_a_certificate_of_another_host_is_refused(authority, trusting, host, cause):
    with (
        serving(Server(**authority.issue("worker.example.org"))) as server,
        pytest.raises(HandshakeFailed, match=cause),
    ):
        use(server, host, **trusting)


@pytest.mark.parametrize("name", ["localhost", "worker.example.org"])
def test_verification_can_be_turned_off(authority, name):
    with serving(Server(**authority.issue(name))) as server:
        use(server, secure=True, verify=False)


def test_a_plain_proxy_of_a_tls_worker_is_told_so(tls_server):
    with pytest.raises(HandshakeFailed, match=r"worker.*use TLS or neither does.*secure="):
        use(tls_server)


def test_a_tls_proxy_of_a_plain_worker_is_told_so(trusting):
    with (
        serving(Server()) as server,
        pytest.raises(HandshakeFailed, match=r"wss://.*use TLS or neither does.*secure="),
    ):
        use(server, **trusting)


def test_a_tls_worker_serves_on_after_failed_handshakes(tls_server, trusting, another_authority):
    for settings in ({}, {"secure": True, "ca_path": another_authority.ca_path}):
        with pytest.raises(ConnectionFailed):
            use(tls_server, **settings)
    use(tls_server, **trusting)


def test_only_a_client_certificate_of_the_given_authority_is_accepted(
    authority, another_authority, certificate, trusting
):
    with serving(Server(**certificate, client_ca_path=authority.ca_path)) as server:
        use(server, **trusting, **authority.issue("coordinator"))
        with pytest.raises(AccessDenied, match="asks for a client certificate"):
            use(server, **trusting)
        with pytest.raises(HandshakeFailed, match="does it trust this client certificate"):
            use(server, **trusting, **another_authority.issue("coordinator"))


def test_files_that_do_not_fit_together_are_refused(authority, certificate):
    with pytest.raises(ValueError, match="give secure=True"):
        sy.WebsocketClientWorker(None, "localhost", 1, ca_path=authority.ca_path)
    with pytest.raises(ValueError, match="only key_path was given"):
        sy.WebsocketClientWorker(
            None, "localhost", 1, secure=True, key_path=certificate["key_path"]
        )
    with pytest.raises(ValueError, match="give cert_path and key_path"):
        Server(client_ca_path=authority.ca_path)
    with pytest.raises(ValueError, match="both cert_path and key_path"):
        Server(cert_path=certificate["cert_path"])


def test_files_that_are_missing_or_hold_something_else_are_refused(
    authority, certificate, tls_server, tmp_path
):
    missing, key = tmp_path / "missing.pem", certificate["key_path"]
    for cert_path, key_path, error in (
        (missing, key, FileNotFoundError),
        (missing, missing, FileNotFoundError),
        (authority.ca_path, key, ssl.SSLError),
    ):
        with pytest.raises(error):
            Server(cert_path=cert_path, key_path=key_path).start(block=False)
    with pytest.raises(FileNotFoundError):
        use(tls_server, secure=True, ca_path=missing)
