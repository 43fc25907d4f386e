"""Fixtures that several test files share."""

import gc
import sys
from collections.abc import Iterator

import pytest
import torch

import syft as sy
from syft.objects import registry
from tests.certificates import Authority
from tests.models import blobs
from tests.network import Server, proxy_of, serving

torch.set_num_threads(1)  # the models are tiny; threads only slow them down


def pytest_configure(config: pytest.Config) -> None:
    """Leave out a warning of Python 3.10: its asyncio marks no TLS transport as closed that the
    other side ended."""
    if sys.version_info < (3, 11):
        config.addinivalue_line(
            "filterwarnings", "ignore:unclosed transport <asyncio.sslproto:ResourceWarning"
        )


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over the hundreds of thousands of objects that torch and the
    tests consist of; they stay until the end."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Give the garbage collector back what it passed over."""
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="session")
def tokens_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leave the tokens of the user's own workers alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Have every test draw the same random numbers."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def same_registry() -> Iterator[None]:
    """Leave the workers, the local worker and the hook that this process knows as they were."""
    workers, local_worker, hook = dict(registry.workers), registry.local_worker, registry.hook
    yield
    registry.workers, registry.local_worker, registry.hook = workers, local_worker, hook


@pytest.fixture
def alice() -> sy.VirtualWorker:
    """A worker in this process that holds the 20 samples of blobs() under the key "blobs"."""
    alice = sy.VirtualWorker(id="alice")
    alice.add_dataset(blobs(), key="blobs")
    return alice


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The certificate authority that both sides trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def another_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("another-authority"))


@pytest.fixture
def server() -> Iterator[Server]:
    """A worker behind a socket of this process."""
    with serving(Server()) as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[sy.WebsocketClientWorker]:
    """A proxy of `server`, connected all the time."""
    with proxy_of(server) as proxy:
        yield proxy


@pytest.fixture(params=["alice", "proxy"], ids=["virtual", "websocket"])
def worker(request: pytest.FixtureRequest) -> sy.workers.BaseWorker:
    """A worker with the 20 samples of blobs(), once in this process and once behind a socket."""
    worker: sy.workers.BaseWorker = request.getfixturevalue(request.param)
    return worker
