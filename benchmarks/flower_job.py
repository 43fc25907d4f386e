"""The tutorial's job on Flower's simulation engine: same network, data, batches and evaluations.

Needs flwr and ray.

    python -m benchmarks.flower_job --training_rounds 40

The engine runs clients in processes of its own, one on each core, and hands them arrays through
shared memory.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks import plain_loop
from benchmarks.plain_loop import DIGITS, LR, Net
from tutorial.mnist import unpack_mnist


def main() -> None:
    """Train and evaluate, and print what run_websocket_client.py logs."""
    parser = argparse.ArgumentParser(
        description="Run the tutorial's job on Flower's simulation engine."
    )
    parser.add_argument("--training_rounds", type=int, default=40)
    rounds = parser.parse_args().training_rounds
    unpack_mnist()
    client = ClientApp()
    client.train()(train)
    server = ServerApp()
    server.main()(functools.partial(coordinate, rounds=rounds))
    resources: Any = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(
        server_app=server, client_app=client, num_supernodes=len(DIGITS), backend_config=resources
    )


def train(message: Message, context: Context) -> Message:
    """Train the model that a message brings on the client's digits; return it."""
    torch.set_num_threads(1)
    model = Net()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    config = message.content["config"]
    images, digits = shard(int(context.node_config["partition-id"]))
    trained = plain_loop.fit(model, images, digits, lr=config["lr"], seed=config["server-round"])
    metrics = MetricRecord({"num-examples": 1})  # each counts the same
    content = RecordDict({"arrays": ArrayRecord(trained.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


def coordinate(grid: Grid, context: Context, rounds: int) -> None:
    """Run all rounds."""
    torch.manual_seed(1)
    strategy = Averaging(rounds)
    arrays, config = ArrayRecord(Net().state_dict()), ConfigRecord({"lr": LR})
    strategy.start(
        grid, arrays, num_rounds=rounds, train_config=config, evaluate_fn=strategy.evaluate_average
    )


class Averaging(FedAvg):
    """Federated averaging that evaluates the clients' models too, every ten rounds."""

    def __init__(self, rounds: int) -> None:
        super().__init__(
            fraction_evaluate=0.0, min_train_nodes=len(DIGITS), min_available_nodes=len(DIGITS)
        )
        self._rounds = rounds
        self._test = plain_loop.load(train=False)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Tell the clients the round's learning rate too."""
        config["lr"] = max(LR * 0.98 ** (server_round - 1), 0.01 * LR)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Evaluate the models that came, and average them."""
        replies = list(replies)
        if self._is_due(server_round):
            for number, reply in enumerate(replies):
                self._evaluate(f"Model update {number}", reply.content["arrays"])
        return super().aggregate_train(server_round, replies)

    def evaluate_average(self, server_round: int, arrays: ArrayRecord) -> None:
        """Evaluate the average; Flower calls this before the first round too."""
        if self._is_due(server_round):
            self._evaluate("Federated model", arrays)

    def _is_due(self, server_round: int) -> bool:
        return server_round % 10 == 1 or server_round == self._rounds

    def _evaluate(self, name: str, arrays: Any) -> None:
        model = Net()
        model.load_state_dict(arrays.to_torch_state_dict())
        print(f"{name}: {plain_loop.evaluate(model, *self._test)}", flush=True)


@functools.cache
def shard(partition: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and digits of a client; read once in each process."""
    images, digits = plain_loop.load(train=True)
    chosen = torch.isin(digits, torch.tensor(list(DIGITS.values())[partition]))
    return images[chosen], digits[chosen]


if __name__ == "__main__":
    # The engine's processes look for the functions in a module that they can import.
    from benchmarks import flower_job

    flower_job.main()
