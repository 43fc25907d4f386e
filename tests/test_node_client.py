"""NodeClient: the address of a worker in place of host and port."""

import pytest

from syft.workers.node_client import NodeClient
from tests.network import assert_usable


def test_a_worker_is_reached_by_its_address(server):
    proxy = NodeClient(None, f"ws://127.0.0.1:{server.port}", id="alice", timeout=20)
    assert_usable(proxy)
    proxy.close()


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("ws://192.0.2.11:8777", "ws://192.0.2.11:8777"),
        ("wss://alice.example:8777/", "wss://alice.example:8777"),
        ("ws://[::1]:8777", "ws://::1:8777"),
    ],
)
def test_the_scheme_decides_on_tls(address, url):
    proxy = NodeClient(None, address, id="alice", connect=False)
    assert proxy.url == url


@pytest.mark.parametrize(
    "address", ["", "alice", "192.0.2.11:8777", "http://alice:8777", "ws://alice", "ws://:8777"]
)
def test_what_is_no_address_of_a_worker_is_refused(address):
    with pytest.raises(ValueError, match=r"not a worker's address: .*; expected ws://HOST:PORT or"):
        NodeClient(None, address, id="alice", connect=False)
