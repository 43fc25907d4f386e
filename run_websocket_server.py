"""Runs one worker: a server that holds some digits of MNIST and trains models on them.

    python run_websocket_server.py --id alice --port 8777
    python run_websocket_server.py --id dave --port 8781 --split dirichlet:0.3 --part 4/5

`start_websocket_servers.py` runs all four. The tutorial shows `start_websocket_server_worker`.
"""

from __future__ import annotations

from tutorial import lifetime

if __name__ == "__main__":
    lifetime.end_on_interrupt()  # the imports below take seconds

import argparse
import logging
import signal
import sys
import threading

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import syft as sy
from syft.exceptions import AddressInUse, PrivacyAccountDamaged, TokenNotKept
from syft.federated import splits
from syft.graph import for_inference
from syft.limits import Limits
from syft.policy import Policy
from syft.workers import websocket_server
from tutorial.mnist import DATA_ROOT, DamagedArchiveError, unpack_mnist
from tutorial.options import (
    Parser,
    add_split_options,
    add_worker_options,
    part_of_split,
    worker_options,
)

logger = logging.getLogger("run_websocket_server")

KEEP_LABELS_DICT: dict[str | None, list[int]] = {
    "alice": [0, 1, 2, 3],
    "bob": [4, 5, 6],
    "charlie": [7, 8, 9],
    "testing": list(range(10)),
    None: list(range(10)),
}


NOT_STARTED = (
    AddressInUse,
    TokenNotKept,
    DamagedArchiveError,
    splits.SplitError,
    PrivacyAccountDamaged,
    ModuleNotFoundError,
)
"""What keeps a worker from starting, each with a text that says what to do."""


class MnistWorker(websocket_server.WebsocketServerWorker):
    """A worker that also counts.

    What it offers beside training and evaluation are its public methods.

    Counts are all they return; none hands out an image.
    """

    def label_counts(self, dataset_key: str) -> torch.Tensor:
        """Return how often each digit occurs in a dataset, (10,) int64."""
        return torch.bincount(self.datasets[dataset_key].targets, minlength=10)

    def confusion_matrix(
        self, dataset_key: str, model: torch.nn.Module, batch_size: int = 128
    ) -> torch.Tensor:
        """Return (10, 10) int64 counts of a dataset's images.

        Row: the digit. Column: what `model` takes it for.
        """
        dataset = self.datasets[dataset_key]
        counts = torch.zeros(10, 10, dtype=torch.int64)
        model = for_inference(model.eval())
        with torch.inference_mode():
            for images, digits in DataLoader(dataset, batch_size=batch_size):
                cells = 10 * digits + model(images).argmax(dim=1)
                counts += torch.bincount(cells, minlength=100).view(10, 10)
        return counts


def load_mnist(training: bool) -> datasets.MNIST:
    """Return MNIST's training or test images as torchvision loads them.

    They come from the archives in data/ if these are there.

    Raises:
        DamagedArchiveError: an archive in data/ does not hold what it should.
    """
    unpack_mnist()
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )
    return datasets.MNIST(root=DATA_ROOT, train=training, download=True, transform=transform)


def start_websocket_server_worker(
    id,
    host,
    port,
    hook,
    verbose,
    keep_labels=None,
    training=True,
    block=True,
    split=None,
    **options,
):
    """Make a worker, give it its digits, and start it.

    Args:
        id: the worker's name.
        host: address to listen on.
        port: port to listen on.
        hook: the TorchHook.
        verbose: whether to log each request.
        keep_labels: digits of the training set that this worker holds; None: all.
        training: whether it holds training images, as "mnist", or the test images, as
            "mnist_testing".
        block: whether to return only when the worker is stopped.
        split: further arguments of `syft.federated.splits.part`, which then chooses the samples of
            the training set, in place of `keep_labels`.
        **options: further keyword arguments of WebsocketServerWorker; `policy` and `limits` may be
            dicts of theirs.

    Returns:
        The MnistWorker.
    """
    for name, cls in (("policy", Policy), ("limits", Limits)):
        if isinstance(options.get(name), dict):
            options[name] = cls(**options[name])
    server = MnistWorker(id=id, host=host, port=port, hook=hook, verbose=verbose, **options)
    mnist_dataset = load_mnist(training)
    data, targets = mnist_dataset.data, mnist_dataset.targets

    if training:
        digits = KEEP_LABELS_DICT[None] if keep_labels is None else keep_labels
        kept = np.flatnonzero(np.isin(targets, digits))
        indices = kept if split is None else splits.part(targets, *split)
        logger.info("number of true indices: %s", len(indices))
        data, targets = data[indices], targets[indices]
        logger.info("after selection: %s", data.shape)

    dataset = sy.BaseDataset(data=data, targets=targets, transform=mnist_dataset.transform)
    key = "mnist" if training else "mnist_testing"
    server.add_dataset(dataset, key=key)

    logger.info(
        "MNIST dataset (%s set), available numbers on %s: ", "train" if training else "test", id
    )
    for digit in range(10):
        logger.info("      %s: %s", digit, (dataset.targets == digit).sum().item())
    logger.info("datasets: %s", server.datasets)
    logger.info("len(datasets[%s]): %s", key, len(server.datasets[key]))

    server.start(block=block)
    return server


def define_and_get_arguments(args: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments; an error exits with status 2."""
    parser = Parser("Run one websocket server worker.")
    add = parser.add_argument_group("workers").add_argument
    names = [name for name in KEEP_LABELS_DICT if name is not None]
    help_text = f"name of the worker: {', '.join(names)}, or any with --split or --testing"
    add("--id", required=True, metavar="NAME", help=help_text)
    add("--port", "-p", type=int, required=True, help="port to listen on, e.g. --port 8777")
    add("--testing", action="store_true", help="hold the test images instead of training images")
    add("--verbose", "-v", action="store_true", help="log each request")
    split = add_split_options(parser)
    help_text = "number of this worker's part of the split and number of parts, e.g. --part 2/5"
    split("--part", type=part_of_split, metavar="K/N", help=help_text)
    add_worker_options(parser)
    arguments = parser.parse_args(args)
    if not 0 <= arguments.port <= 65535:
        parser.error(
            f"argument --port/-p: {arguments.port} is no port; expected a number from 0 to 65535"
        )
    if (arguments.split is None) != (arguments.part is None):
        parser.error("a split needs both --split and --part")
    if arguments.split and arguments.testing:
        parser.error("--split is for training images; --testing holds all test images")
    if arguments.epsilon and arguments.testing:
        parser.error("--epsilon is for training images; --testing evaluates, and trains nothing")
    if arguments.id not in names and not (arguments.split or arguments.testing):
        parser.error(
            f"argument --id: invalid choice: {arguments.id!r}; expected one of {', '.join(names)}, "
            "or --split and --part"
        )
    arguments.options = worker_options(parser, arguments)
    return arguments


def leave_if_stuck(server: websocket_server.WebsocketServerWorker) -> None:
    """End the process here and now if a model that loops for ever still runs in it."""
    if server.stuck_calls:
        logger.warning("leaving %s calls that never ended", server.stuck_calls)
        lifetime.leave(0)


def main() -> int:
    """Run one worker until Ctrl-C or SIGTERM; return the exit status."""
    args = define_and_get_arguments()
    logging.basicConfig(format="%(asctime)s | %(message)s", level=logging.INFO)
    hook = sy.TorchHook(torch)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = start_websocket_server_worker(
            id=args.id,
            host=args.host,
            port=args.port,
            hook=hook,
            verbose=args.verbose,
            keep_labels=KEEP_LABELS_DICT.get(args.id),
            training=not args.testing,
            block=False,
            split=(args.split, *args.part, args.split_seed) if args.split else None,
            **args.options,
        )
    except NOT_STARTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    stop.wait()
    server.stop()
    leave_if_stuck(server)
    return 0


if __name__ == "__main__":
    sys.exit(main())
