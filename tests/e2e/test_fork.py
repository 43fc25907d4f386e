"""A process that has proxies may fork: the child starts clean, and the parent does not notice."""

import asyncio
import contextlib
import gc
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import syft as sy
from syft.exceptions import TrainConfigMissing
from syft.workers import token_files
from tests.models import blobs, make_config
from tests.network import DEADLINE, in_time, wait_until_held

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork"),
    # Python 3.12 warns whenever a process with threads forks; here this is meant.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@contextlib.contextmanager
def forked(function: Callable[..., Any], *args: Any) -> Iterator[Callable[[], Any]]:
    """A forked child that calls `function`.

    Yields what waits for its result, and for the end of the child.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=lambda: theirs.send(function(*args)))
    child.start()
    theirs.close()

    def result() -> Any:
        assert ours.poll(DEADLINE), "the child does not answer"
        received = ours.recv()
        child.join(DEADLINE)
        assert child.exitcode == 0
        return received

    try:
        yield result
    finally:
        child.kill()
        child.join(DEADLINE)
        ours.close()


def in_child(function: Callable[..., Any], *args: Any) -> Any:
    with forked(function, *args) as result:
        return result()


def test_child_uses_an_inherited_proxy(proxy):
    assert in_child(lambda: proxy.call("scale", torch.ones(1)).item()) == 2
    assert proxy.call("scale", torch.ones(1)).item() == 2


def test_grandchild_uses_an_inherited_proxy(proxy):
    def child() -> list[float]:
        return [
            proxy.call("scale", torch.ones(1)).item(),
            in_child(grandchild),
            proxy.call("scale", torch.ones(1)).item(),
        ]

    def grandchild() -> float:
        return proxy.call("scale", torch.ones(1), factor=3.0).item()

    assert in_child(child) == [2, 3, 2]
    assert proxy.call("scale", torch.ones(1)).item() == 2


def test_child_that_drops_pointers_leaves_the_parents_objects_alone(proxy):
    pointers = [sy.local_worker.send(torch.ones(2), proxy)]

    def child() -> int:
        pointers.clear()
        gc.collect()
        own = sy.local_worker.send(torch.ones(2), proxy)
        count = proxy.objects_count_remote()
        del own
        return 10 * count + proxy.objects_count_remote()

    assert in_child(child) == 10  # its own, and then none
    assert proxy.objects_count_remote() == 1
    assert pointers[0].get().tolist() == [1, 1]


def test_child_is_a_coordinator_of_its_own(proxy):
    def child() -> float:
        with pytest.raises(TrainConfigMissing):
            proxy.fit("blobs")
        make_config(max_nr_batches=1).send(proxy)
        return proxy.fit("blobs").item()

    make_config(max_nr_batches=1).send(proxy)
    loss = proxy.fit("blobs").item()
    config = make_config(epochs=2)
    config.send(proxy)
    assert in_child(child) == loss
    assert proxy.fit("blobs").item() != loss
    assert config.model_ptr.get().obj is not None


async def test_parents_call_in_progress_goes_on(server, proxy):
    task = asyncio.create_task(proxy.async_call("hold"))
    await asyncio.to_thread(wait_until_held, server)
    with forked(proxy.objects_count_remote) as result:
        assert await asyncio.to_thread(result) == 0
    assert not task.done()
    server.release.set()
    assert await in_time(task) == ""


def test_data_loader_with_a_process_of_its_own(proxy):
    loader = torch.utils.data.DataLoader(blobs(), batch_size=8, num_workers=1)
    before = [target.tolist() for _, target in torch.utils.data.DataLoader(blobs(), batch_size=8)]
    pointer = sy.local_worker.send(torch.ones(2), proxy)
    assert [target.tolist() for _, target in loader] == before
    assert proxy.objects_count_remote() == 1
    assert pointer.get().tolist() == [1, 1]


def test_a_child_leaves_its_parents_token_file_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    address = ("127.0.0.1", 8777)
    published = token_files.published("token", [address])
    with published:
        in_child(lambda: published.__exit__(None, None, None))
        assert token_files.find(address) == "token"
    assert token_files.find(address) is None


PROGRAM = """
import multiprocessing, os, sys
import torch
import syft as sy
from tests.models import make_config
from tests.network import free_port, proxy_at, proxy_of, serving

DATA = sy.BaseDataset(torch.rand(200, 200), torch.zeros(200, dtype=torch.long))

def serve(id, port, block):
    server = sy.WebsocketServerWorker(None, "127.0.0.1", port, id=id)
    server.add_dataset(DATA, key="data")
    server.start(block=block)
    return server

def use(proxy):
    make_config(model=torch.jit.script(torch.nn.Linear(200, 200)), batch_size=200).send(proxy)
    print(proxy.id, torch.isfinite(proxy.fit("data")).item())

torch.set_num_threads(1)
server = serve("alice", 0, block=False)
with proxy_of(server) as alice:
    use(alice)
    if (pid := os.fork()) == 0:
        print("child", alice.objects_count_remote())
        sys.exit()  # it ends as a program does, exit handlers included
    print("child ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    with proxy_of(server) as another:  # the child has not removed the token
        print(another.id, another.objects_count_remote())

    torch.set_num_threads(2)
    torch.rand(200, 200, requires_grad=True).relu().sum().backward()  # starts torch's threads
    port = free_port()
    child = multiprocessing.get_context("fork").Process(target=serve, args=("bob", port, True))
    child.start()
    with proxy_at("127.0.0.1", port, id="bob", connect_timeout=20.0) as bob:
        use(bob)
        print(alice.id, alice.objects_count_remote())
    child.terminate()
    child.join()
server.stop()
"""


def test_server_in_a_child_of_a_process_that_has_computed():
    """The way of old test fixtures: fork, then serve.

    The child must not wait for torch's threads, which it has not.
    """
    program = subprocess.run(
        [sys.executable, "-u", "-W", "ignore", "-c", PROGRAM],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=4 * DEADLINE,
    )
    assert program.stderr == ""
    lines = [
        line
        for line in program.stdout.splitlines()
        if not line.startswith("Worker bob is serving at ")
    ]
    assert lines == [
        "alice True",
        "child 0",
        "child ended with 0",
        "alice 0",
        "bob True",
        "alice 0",
    ]
    assert program.returncode == 0
