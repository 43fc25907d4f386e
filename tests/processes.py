"""Workers in processes of their own, which a test may kill, stop, continue and start again."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
from collections.abc import Iterator
from typing import Any

import torch

import syft as sy
from tests.models import blobs
from tests.network import DEADLINE

CONTEXT: Any = multiprocessing.get_context("forkserver")  # torch is imported once for all workers
CONTEXT.set_forkserver_preload([__name__, "tests.warm"])


class Worker(sy.WebsocketServerWorker):
    """A worker with small datasets, "mnist" and "mnist_testing" of random images among them."""

    def __init__(self, host: str, port: int, id: str) -> None:
        super().__init__(None, host, port, id=id, token="")  # it is also reached by way of relays
        generator = torch.Generator().manual_seed(sum(id.encode()))
        images, digits = torch.randn(64, 1, 28, 28, generator=generator), torch.arange(64) % 10
        self.add_dataset(blobs(seed=sum(id.encode())), key="blobs")
        self.add_dataset(sy.BaseDataset(images, digits), key="mnist")
        self.add_dataset(sy.BaseDataset(images, digits), key="mnist_testing")

    def process(self) -> int:
        """Return the process's id.

        Like fit(), it waits for its turn: an answer tells that nothing trains.
        """
        return os.getpid()


def serve(host: str, port: int, id: str, namespace: str, pipe: Any) -> None:
    """Be a worker until the pipe ends, in another network namespace if one is named."""
    if namespace:
        enter(namespace)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    worker = Worker(host, port, id)
    worker.start(block=False)
    pipe.send(worker.port)
    with contextlib.suppress(EOFError):
        pipe.recv()
    worker.stop()


def enter(namespace: str) -> None:
    """Have this process, which must have one thread only, go to another network namespace."""
    with open(f"/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")


class WorkerProcess:
    """A worker's process.

    Attributes:
        port: where it listens; the same after a restart.
    """

    def __init__(self, id: str = "alice", host: str = "127.0.0.1", namespace: str = "") -> None:
        self.id, self.host, self.port, self._namespace = id, host, 0, namespace
        self.start()

    def start(self) -> None:
        """Start it (again), and wait until it listens."""
        self._pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(
            target=serve, args=(self.host, self.port, self.id, self._namespace, theirs)
        )
        self._process.start()
        theirs.close()
        assert self._pipe.poll(3 * DEADLINE), f"worker {self.id} did not start"
        self.port = self._pipe.recv()

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._process.kill()
        self._process.join(DEADLINE)

    def end(self) -> None:
        """Leave no process behind, in whatever state it is."""
        self._pipe.close()
        self.kill()
        self._process.close()

    def proxy(self, port: int | None = None, **settings: Any) -> sy.WebsocketClientWorker:
        """Return a proxy of this worker, by way of another port if one is given."""
        return sy.WebsocketClientWorker(None, self.host, port or self.port, id=self.id, **settings)


@contextlib.contextmanager
def worker_processes(*ids: str) -> Iterator[list[WorkerProcess]]:
    """Workers with these ids while the context lasts."""
    with contextlib.ExitStack() as stack:
        workers = []
        for worker_id in ids:
            workers.append(WorkerProcess(worker_id))
            stack.callback(workers[-1].end)
        yield workers


@contextlib.contextmanager
def proxies_of(
    *workers: WorkerProcess, **settings: Any
) -> Iterator[list[sy.WebsocketClientWorker]]:
    """Proxies of the workers, closed at the end."""
    proxies = [worker.proxy(**settings) for worker in workers]
    try:
        yield proxies
    finally:
        for proxy in proxies:
            proxy.close()
