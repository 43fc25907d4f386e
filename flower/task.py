"""What a client and the server compute: the tutorial's network on a part of MNIST, by this package.

A client trains with `syft.federated.FederatedClient` and a TrainConfig, as a websocket worker does.
What it draws follows from its name and the seed that the server sends, so both give the same model
for the same start, to the bit.

Images are mapped into memory, not copied into it: all processes of a simulation share them.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from run_websocket_client import Net, loss_fn
from settings import Settings, SettingsError
from syft import BaseDataset, TrainConfig, VirtualWorker
from syft.federated import splits
from syft.federated.federated_client import FederatedClient
from syft.objects import ObjectWrapper
from tutorial.mnist import DATA_ROOT, unpack_mnist

State = dict[str, torch.Tensor]
TEST_BATCH = 128
"""Samples a batch of the evaluation."""
_MEAN, _DEVIATION = 0.1307, 0.3081


class Client(FederatedClient):
    """A FederatedClient with a name, which its random numbers follow from."""

    def __init__(self, name: str, dataset: BaseDataset) -> None:
        super().__init__({"mnist": dataset})
        self.id = name


def train(
    name: str, dataset: BaseDataset, state: State, settings: Settings, config: dict[str, Any]
) -> tuple[State, float]:
    """Train a model on a client's images.

    Args:
        name: the client's name.
        dataset: its images.
        state: parameters of the model. They are changed.
        settings: the settings of the run.
        config: "lr", "seed" and, for FedProx, "proximal-mu" of the round.

    Returns:
        The trained parameters, and the loss on the last batch.
    """
    client, model = Client(name, dataset), model_with(state)
    client.set_obj(ObjectWrapper(model, id="model"))
    client.set_obj(ObjectWrapper(loss_fn, id="loss"))
    train_config = TrainConfig(
        model=None,
        loss_fn=None,
        model_id="model",
        loss_fn_id="loss",
        batch_size=settings.batch_size,
        max_nr_batches=settings.batches,
        optimizer="SGD",
        optimizer_args={"lr": config["lr"]},
        seed=config["seed"],
        proximal_mu=config.get("proximal-mu", 0.0),
    )
    client.set_obj(train_config)
    loss = client.fit("mnist")
    assert loss is not None  # there is at least one batch
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}, loss.item()


def evaluate(model: nn.Module) -> tuple[float, float]:
    """Return the loss and the accuracy (0 to 1) of a model on the 10,000 test images.

    It is evaluated as the tutorial's evaluator does it, in this process.
    """
    worker = VirtualWorker(id="testing", auto_add=False)
    worker.add_dataset(_test_images(), key="mnist_testing")
    worker.evaluation_threads = torch.get_num_threads()
    config = TrainConfig(model, loss_fn, batch_size=TEST_BATCH, optimizer_args=None, seed=0)
    config.send(worker)
    result = worker.evaluate("mnist_testing")
    return result["loss"], result["nr_correct_predictions"] / result["nr_predictions"]


def first_model(seed: int) -> tuple[nn.Module, torch.Generator]:
    """Return a new network and the generator that its weights were drawn from.

    Both are as in a program that calls torch.manual_seed and makes the network; torch's own
    generator stays as it is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, generator = Net(), torch.Generator()
        generator.set_state(torch.get_rng_state())
    return model, generator


def model_with(state: State) -> nn.Module:
    """Return the network with these parameters, which it takes over. Nothing is drawn."""
    with torch.device("meta"):
        model = Net()
    model.load_state_dict(state, assign=True)
    return model


@lru_cache(maxsize=4)  # the tutorial's three parts, but not a thousand
def part_of(settings: Settings, number: int, parts: int) -> BaseDataset:
    """Return a client's images.

    Args:
        settings: the settings of the run.
        number: number of the client, from 0 on.
        parts: number of clients.

    Raises:
        SettingsError: there is no such split.
    """
    how = (settings.split, parts, settings.split_seed, settings.least_samples)
    images, digits = mnist(train=True)
    indices = _split(*how)[number]
    return BaseDataset(normalised(images[indices]), digits[indices])


def check_split(settings: Settings) -> None:
    """Raise SettingsError if the images cannot be split among the clients as the settings say."""
    _split(settings.split, settings.clients, settings.split_seed, settings.least_samples)


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Return images (N, 28, 28) uint8 as the network's inputs, (N, 1, 28, 28) float32.

    To the bit what torchvision's ToTensor and Normalize make of each.
    """
    return images.unsqueeze(1).float().div_(255).sub_(_MEAN).div_(_DEVIATION)


@cache
def mnist(train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (N, 28, 28) uint8 and digits (N,) int64; read once in each process."""
    unpack_mnist()
    kind = "train" if train else "t10k"
    images = _read(f"{kind}-images-idx3-ubyte", 16).view(-1, 28, 28)
    return images, _read(f"{kind}-labels-idx1-ubyte", 8).long()


@cache
def _test_images() -> BaseDataset:
    images, digits = mnist(train=False)
    return BaseDataset(normalised(images), digits)


@cache
def _split(how: str, parts: int, seed: int, least: int) -> list[splits.Indices]:
    how = {"digits": "labels"}.get(how, how)
    try:
        return splits.split(mnist(train=True)[1], how, parts, seed, least)
    except splits.SplitError as reason:
        raise SettingsError(str(reason)) from None


def _read(name: str, header: int) -> torch.Tensor:
    """Return the bytes of a raw file after its header, in memory that processes share."""
    path = DATA_ROOT / "MNIST" / "raw" / name
    if not path.is_file():
        raise SettingsError(f"there is no {path}; restore it with: git checkout -- data/MNIST/raw")
    return torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="c", offset=header))
