"""TLS: certificates and host names are verified, for every kind of call; what does not fit together
says so."""

import asyncio
import ssl

import pytest
import torch
import trustme

from syft.exceptions import HandshakeFailed
from tests.models import make_config
from tests.network import DEADLINE, Server, in_time, proxy_at, proxy_of, serving


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths: of a certificate authority, of certificates that it signed and their keys, and of
    another authority."""
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    paths = {
        name: str(folder / f"{name}.pem")
        for name in ("ca", "cert", "key", "elsewhere", "elsewhere-key", "other-ca")
    }
    authority.cert_pem.write_to_path(paths["ca"])
    trustme.CA().cert_pem.write_to_path(paths["other-ca"])
    for name, key, identities in (
        ("cert", "key", ["localhost", "127.0.0.1"]),
        ("elsewhere", "elsewhere-key", ["worker.example.org"]),
    ):
        certificate = authority.issue_cert(*identities)
        certificate.private_key_pem.write_to_path(paths[key])
        certificate.cert_chain_pems[0].write_to_path(paths[name])
    return paths


@pytest.fixture
def server(files):
    with serving(Server(cert_path=files["cert"], key_path=files["key"])) as server:
        yield server


async def test_every_kind_of_call(server, files):
    assert server.url == f"wss://127.0.0.1:{server.port}"
    with proxy_of(server, secure=True, ca_path=files["ca"]) as proxy:
        assert proxy.url == server.url
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


def test_host_name_in_place_of_the_address(server, files):
    with proxy_at("localhost", server.port, secure=True, ca_path=files["ca"]) as proxy:
        assert proxy.objects_count_remote() == 0


@pytest.mark.parametrize(
    "ca", ["other-ca", None], ids=["another authority", "the system's authorities"]
)
def test_certificate_of_an_unknown_authority(server, files, ca):
    with (
        pytest.raises(
            HandshakeFailed, match=f"wss://127.0.0.1:{server.port}.*certificate verify failed"
        ),
        proxy_of(server, secure=True, ca_path=files.get(ca), connect_timeout=DEADLINE),
    ):
        pass


def test_certificate_of_another_host(files):
    with (
        serving(Server(cert_path=files["elsewhere"], key_path=files["elsewhere-key"])) as server,
        pytest.raises(HandshakeFailed, match=r"certificate is not valid for '127\.0\.0\.1'"),
        proxy_of(server, secure=True, ca_path=files["ca"]),
    ):
        pass


@pytest.mark.parametrize("cert", ["cert", "elsewhere"])
def test_verification_can_be_turned_off(files, cert):
    key = "key" if cert == "cert" else "elsewhere-key"
    with (
        serving(Server(cert_path=files[cert], key_path=files[key])) as server,
        proxy_of(server, secure=True, verify=False) as proxy,
    ):
        assert proxy.objects_count_remote() == 0


def test_plain_proxy_of_a_tls_worker(server):
    with pytest.raises(ConnectionError, match=r"worker.*secure=") as info, proxy_of(server):
        pass
    assert isinstance(info.value, HandshakeFailed)


def test_tls_proxy_of_a_plain_worker(files):
    with (
        serving(Server()) as server,
        pytest.raises(HandshakeFailed, match=r"wss://.*secure="),
        proxy_of(server, secure=True, ca_path=files["ca"]),
    ):
        pass


def test_a_tls_worker_serves_on_after_failed_handshakes(server, files):
    for settings in ({}, {"secure": True, "ca_path": files["other-ca"]}):
        with pytest.raises(ConnectionError), proxy_of(server, **settings):
            pass
    with proxy_of(server, secure=True, ca_path=files["ca"]) as proxy:
        assert proxy.objects_count_remote() == 0


def test_certificate_without_key(files):
    with pytest.raises(ValueError, match="both cert_path and key_path"):
        Server(cert_path=files["cert"])


@pytest.mark.parametrize(("cert", "error"), [("missing", FileNotFoundError), ("ca", ssl.SSLError)])
def test_certificate_of_no_use(files, tmp_path, cert, error):
    server = Server(cert_path=files.get(cert, tmp_path / "missing.pem"), key_path=files["key"])
    with pytest.raises(error):
        server.start(block=False)


def test_missing_authority(server, tmp_path):
    with (
        pytest.raises(FileNotFoundError),
        proxy_of(server, secure=True, ca_path=tmp_path / "missing.pem"),
    ):
        pass
