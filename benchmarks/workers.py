"""Worker processes for the benchmarks.

They can be asked for more than training and evaluation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import multiprocessing
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import run_websocket_server as rws
import syft as sy
from benchmarks.harness import Span, in_turn
from benchmarks.plain_loop import Net, shuffling_seed
from syft import wire
from syft.federated.federated_client import FederatedClient
from syft.frameworks.torch.fl import utils
from syft.graph import clone

TRAINERS = ("alice", "bob", "charlie")
START_TIMEOUT = 120.0
"""Seconds in which a worker process must be ready."""
LARGE = 100_000
"""Messages of more bytes have a model in them."""


class BenchmarkWorker(rws.MnistWorker):
    """A worker of the tutorial that also measures itself."""

    def fit_alone(self, dataset_key: str, times: int) -> float:
        """Train the config's model `times` times over, as fit() does; return the seconds taken."""
        wrapper = self._sent_model()
        untrained = wrapper.obj
        start = time.perf_counter()
        for _ in range(times):
            wrapper.obj, self.optimizer = clone(untrained), None
            self.fit(dataset_key)
        return time.perf_counter() - start

    def compare_fit(self, dataset_key: str, model: Any, repeats: int) -> dict[str, Any]:
        """Train a model by fit() and by plain torch, in turn.

        Return the seconds and the largest difference. The config's fits are those of this call and
        one before.
        """
        trained: dict[str, Any] = {}
        numbers = itertools.count(1)

        def ours() -> None:
            trained["ours"] = self._sent_model().obj = clone(model)
            self.optimizer = None
            self.fit(dataset_key)

        def plain() -> None:
            trained["plain"] = clone(model)
            config: Any = self.train_config
            seed = shuffling_seed(config.seed, str(self.id), next(numbers))
            plain_fit(trained["plain"], self.datasets[dataset_key], config, seed)

        ours_seconds, plain_seconds = in_turn(ours, plain, repeats)
        pairs = zip(trained["ours"].parameters(), trained["plain"].parameters(), strict=True)
        return {
            "ours": ours_seconds,
            "plain": plain_seconds,
            "difference": max((a - b).abs().max().item() for a, b in pairs),
        }

    def compare_evaluate(self, dataset_key: str, model: Any, repeats: int) -> dict[str, Any]:
        """Evaluate a model by evaluate() and by a plain loop, in turn.

        Return the seconds and both results.
        """
        results: dict[str, Any] = {}

        def ours() -> None:
            found = self.evaluate(dataset_key)
            results["ours"] = found["loss"], found["nr_correct_predictions"]

        def plain() -> None:
            torch.set_num_threads(self.evaluation_threads)
            results["plain"] = plain_evaluate(eager, images, digits)
            torch.set_num_threads(1)

        data = self.datasets[dataset_key]
        images, digits = normalised(data.data), data.targets
        eager = Net()
        eager.load_state_dict(model.state_dict())
        ours_seconds, plain_seconds = in_turn(ours, plain, repeats)
        return {"ours_seconds": ours_seconds, "plain_seconds": plain_seconds, **results}

    def _sent_model(self) -> Any:
        """Return the wrapper of the current config's model."""
        config: Any = self.train_config
        return self.get_obj(config._model_id)

    def hold_samples(self, data: torch.Tensor, targets: torch.Tensor) -> None:
        """Hold samples as the dataset "data"."""
        self.add_dataset(sy.BaseDataset(data, targets), key="data")

    def reset_peak_memory(self) -> int:
        """See the function."""
        return reset_peak_memory()

    def peak_memory(self) -> int:
        """See the function."""
        return peak_memory()

    def record(self) -> None:
        """Record from now on what this process does."""
        recorder.start(str(self.id))

    def recorded(self) -> list[tuple[Any, ...]]:
        """Return what was recorded, as the values of spans, and record no more."""
        return [dataclasses.astuple(span) for span in recorder.stop()]


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Return images (N, 28, 28) uint8 as the tutorial's transform does: (N, 1, 28, 28) float32."""
    return (images.unsqueeze(1).float() / 255 - 0.1307) / 0.3081


def plain_fit(model: torch.nn.Module, dataset: Any, config: Any, seed: int) -> None:
    """Train as a TrainConfig says, in torch's own words: the oracle for fit()."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(dataset), generator=generator)[
        : config.max_nr_batches * config.batch_size
    ]
    optimizer = torch.optim.SGD(model.parameters(), **config.optimizer_args)
    model.train()
    for batch in order.split(config.batch_size):
        optimizer.zero_grad()
        F.nll_loss(model(normalised(dataset.data[batch])), dataset.targets[batch]).backward()
        optimizer.step()


def plain_evaluate(
    model: torch.nn.Module, images: torch.Tensor, digits: torch.Tensor
) -> tuple[float, int]:
    """Return mean loss and number of correct predictions: the oracle for evaluate().

    It evaluates in batches of 128.
    """
    loss, correct = 0.0, 0
    model.eval()
    with torch.no_grad():
        for batch, target in zip(images.split(128), digits.split(128), strict=True):
            output = model(batch)
            loss += F.nll_loss(output, target, reduction="sum").item()
            correct += int((output.argmax(dim=1) == target).sum())
    return loss / len(images), correct


def reset_peak_memory() -> int:
    """Forget the peak so far; return the memory that this process has now (resident set), in bytes.

    Linux only.
    """
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_memory() -> int:
    """Return the most memory this process has had since the last reset (resident set), in bytes.

    Linux only.
    """
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


class Recorder:
    """Records when this process serialises, computes and averages.

    It wraps the functions that do these things.
    """

    WATCHED: tuple[tuple[Any, str, str], ...] = (
        (wire, "encode", "serialise"),
        (wire, "decode", "serialise"),
        (FederatedClient, "fit", "compute"),
        (utils, "federated_avg", "average"),
    )

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._originals: list[tuple[Any, str, Any]] = []

    def start(self, party: str) -> None:
        """Begin anew."""
        self.stop()
        self._spans = []
        for owner, name, kind in self.WATCHED:
            original = getattr(owner, name)
            self._originals.append((owner, name, original))
            setattr(owner, name, self._watched(original, party, kind))

    def stop(self) -> list[Span]:
        """Return what was recorded; from now on, nothing is."""
        for owner, name, original in self._originals:
            setattr(owner, name, original)
        self._originals = []
        return self._spans

    def _watched(self, function: Callable[..., Any], party: str, kind: str) -> Callable[..., Any]:
        spans = self._spans

        def watched(*args: Any, **kwargs: Any) -> Any:
            start = time.monotonic()
            result = function(*args, **kwargs)
            end = time.monotonic()
            frame = next((each for each in (result, *args[:1]) if isinstance(each, bytes)), b"")
            model = zlib.crc32(frame[:1000] + frame[-1000:]) if len(frame) > LARGE else 0
            spans.append(Span(party, kind, start, end, model))
            return result

        return watched


recorder = Recorder()


@contextlib.contextmanager
def processes(ids: list[str], threads: int = 1, **settings: Any) -> Iterator[list[int]]:
    """Run worker processes while the context lasts; yield their ports, in the order of `ids`.

    Args:
        ids: the workers' names. Those of the tutorial hold their digits, "testing" the test images,
            others nothing.
        threads: threads that each evaluates with; each trains with one, as those of the launcher do
            on few cores.
        settings: further arguments of WebsocketServerWorker.
    """
    context: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(["benchmarks.workers"])
    started: list[tuple[Any, Connection]] = []
    try:
        for worker_id in ids:
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(worker_id, threads, settings, theirs), name=worker_id
            )
            process.start()
            theirs.close()
            started.append((process, ours))
        yield [_port(process, pipe) for process, pipe in started]
    finally:
        for _, pipe in started:
            pipe.close()
        for process, _ in started:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()


@contextlib.contextmanager
def proxies(
    ids: list[str], ports: list[int], **settings: Any
) -> Iterator[list[sy.WebsocketClientWorker]]:
    """Connect to worker processes while the context lasts; yield a proxy of each."""
    found = [
        sy.WebsocketClientWorker(None, "127.0.0.1", port, id=worker_id, **settings)
        for worker_id, port in zip(ids, ports, strict=True)
    ]
    try:
        yield found
    finally:
        for proxy in found:
            proxy.close()
            proxy.remove_worker_from_local_worker_registry()


def _port(process: Any, pipe: Connection) -> int:
    if not pipe.poll(START_TIMEOUT):
        raise TimeoutError(
            f"worker process {process.name!r} was not ready within {START_TIMEOUT:g} s"
        )
    return pipe.recv()


def _serve(worker_id: str, threads: int, settings: dict[str, Any], pipe: Connection) -> None:
    torch.set_num_threads(1)
    # Without a token: some are reached by way of a relay.
    server = BenchmarkWorker(
        id=worker_id, host="127.0.0.1", port=0, hook=sy.TorchHook(torch), token="", **settings
    )
    if worker_id in rws.KEEP_LABELS_DICT:
        training = worker_id != "testing"
        mnist = rws.load_mnist(training)
        chosen = torch.isin(mnist.targets, torch.tensor(rws.KEEP_LABELS_DICT[worker_id]))
        data = sy.BaseDataset(mnist.data[chosen], mnist.targets[chosen], transform=mnist.transform)
        server.add_dataset(data, key="mnist" if training else "mnist_testing")
    server.evaluation_threads = threads
    server.start(block=False)
    pipe.send(server.port)
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()  # nothing is sent: it ends when the benchmark does
    server.stop()
