"""The tutorial's job in one process, in plain torch.

Federated training is measured against it, and it is the oracle for its results. It imports nothing
of this project but the place of the data. It draws the same weights and the same samples, so its
results are those of the federated job, but for rounding.

    python -m benchmarks.plain_loop --training_rounds 40
"""

from __future__ import annotations

import argparse
import copy
import hashlib

import torch
import torch.nn.functional as F
from torch import nn
from torchvision import datasets

from tutorial.mnist import DATA_ROOT, unpack_mnist

DIGITS = {"alice": (0, 1, 2, 3), "bob": (4, 5, 6), "charlie": (7, 8, 9)}
BATCH, TEST_BATCH, BATCHES, LR = 32, 128, 10, 0.1


class Net(nn.Module):
    """The tutorial's network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5, 1)
        self.conv2 = nn.Conv2d(20, 50, 5, 1)
        self.fc1 = nn.Linear(4 * 4 * 50, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return F.log_softmax(self.fc2(F.relu(self.fc1(x.flatten(1)))), dim=1)


def main() -> None:
    """Train and evaluate, and print what run_websocket_client.py logs."""
    parser = argparse.ArgumentParser(
        description="Run the tutorial's job in one process, in plain torch."
    )
    parser.add_argument("--training_rounds", type=int, default=40)
    parser.add_argument("--test_images", type=int, default=10_000)
    args = parser.parse_args()
    rounds = args.training_rounds
    unpack_mnist()
    images, digits = load(train=True)
    test = tuple(each[: args.test_images] for each in load(train=False))
    shards = {}
    for name, own in DIGITS.items():
        chosen = torch.isin(digits, torch.tensor(own))
        shards[name] = (images[chosen], digits[chosen])

    torch.manual_seed(1)
    model: nn.Module = Net()
    lr = LR
    for current in range(1, rounds + 1):
        models = {
            name: fit(model, *shard, lr, seed=shuffling_seed(draw_seed(), name))
            for name, shard in shards.items()
        }
        model = average(list(models.values()))
        if current % 10 == 1 or current == rounds:
            for name, each in models.items():
                print(f"Model update {name}: {evaluate(each, *test)}", flush=True)
            print(f"Federated model: {evaluate(model, *test)}", flush=True)
        lr = max(0.98 * lr, 0.01 * LR)


def load(train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (N, 1, 28, 28) float32, normalised, and digits (N,)."""
    mnist = datasets.MNIST(root=DATA_ROOT, train=train)
    return (mnist.data.unsqueeze(1).float() / 255 - 0.1307) / 0.3081, mnist.targets


def draw_seed() -> int:
    """Return the seed that a TrainConfig would have drawn here."""
    return int(torch.randint(2**62, ()))


def shuffling_seed(seed: int, worker: str, number: int = 0) -> int:
    """Return the seed of the order in which a worker's fit of this number reads its samples."""
    digest = hashlib.sha256(f"shuffling {seed} {number} {worker}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def fit(
    model: nn.Module, images: torch.Tensor, digits: torch.Tensor, lr: float, seed: int
) -> nn.Module:
    """Return a copy of a model, trained on ten batches."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    for batch in order[: BATCHES * BATCH].split(BATCH):
        optimizer.zero_grad()
        F.nll_loss(model(images[batch]), digits[batch]).backward()
        optimizer.step()
    return model


def average(models: list[nn.Module]) -> nn.Module:
    """Return a model with the mean of the parameters."""
    result = copy.deepcopy(models[0])
    with torch.no_grad():
        for target, *sources in zip(
            result.parameters(), *(each.parameters() for each in models), strict=True
        ):
            target.copy_(torch.stack(sources).mean(dim=0))
    return result


def evaluate(model: nn.Module, images: torch.Tensor, digits: torch.Tensor) -> str:
    """Return loss and accuracy on the test images, as text."""
    loss, correct = 0.0, 0
    model.eval()
    with torch.no_grad():
        for batch, target in zip(images.split(TEST_BATCH), digits.split(TEST_BATCH), strict=True):
            output = model(batch)
            loss += F.nll_loss(output, target, reduction="sum").item()
            correct += int((output.argmax(dim=1) == target).sum())
    count = len(images)
    return (
        f"Average loss: {loss / count:.4f}, "
        f"Accuracy: {correct}/{count} ({100 * correct / count:.2f}%)"
    )


if __name__ == "__main__":
    main()
