"""Train one network on the patients of five hospitals; a sixth evaluates it.

python examples/own_data/train.py --start     # starts the six workers here, and stops them after it
python examples/own_data/train.py             # with workers that run already, see README.md
"""

import argparse
import asyncio
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

import syft as sy
from syft.federated import Checkpoint, History, run_round
from syft.frameworks.torch.fl import utils

HERE = Path(__file__).parent
# Where the workers are. On machines of their own: "berlin": ("192.0.2.11", 8801), and so on.
HOSPITALS = {
    name: ("localhost", port)
    for port, name in enumerate(("athens", "berlin", "cairo", "delhi", "essen"), start=8801)
}
EVALUATOR = {"zurich": ("localhost", 8806)}
SETTINGS = {"batch_size": 32, "lr": 0.005, "seed": 1}


def new_model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1), nn.Flatten(0)
    )


def loss_fn(pred, target):
    return nn.functional.binary_cross_entropy_with_logits(pred, target)


def config_for(model: nn.Module) -> sy.TrainConfig:
    return sy.TrainConfig(
        model=model,
        loss_fn=loss_fn,
        batch_size=SETTINGS["batch_size"],
        optimizer="Adam",
        optimizer_args={"lr": SETTINGS["lr"]},
    )


async def train(args: argparse.Namespace) -> None:
    """Run the rounds, each with the hospitals that answer in time."""
    torch.manual_seed(SETTINGS["seed"])
    model, last_round = new_model(), 0
    if args.resume:
        checkpoint = Checkpoint.load("hospitals.ckpt")
        checkpoint.restore(model, SETTINGS)
        last_round = checkpoint.round

    proxies = [
        sy.WebsocketClientWorker(None, host, port, id=name, connect=False, connect_timeout=60)
        for name, (host, port) in (HOSPITALS | EVALUATOR).items()
    ]
    # Before the rounds, whose deadline should not count the workers' start.
    await asyncio.gather(*(proxy.async_connect() for proxy in proxies), return_exceptions=True)
    *hospitals, evaluator = proxies

    async def fit(worker):
        config = config_for(model).send(worker)
        loss = await worker.async_fit("patients")
        return worker.id, (await config.model_ptr.async_get()).obj, loss

    with History("hospitals.jsonl", last_round) as history:
        for number in range(last_round + 1, args.rounds + 1):
            result = await run_round(hospitals, fit, timeout=args.deadline, min_workers=3)
            model = utils.federated_avg(result.models)
            config_for(model).send(evaluator)
            found = await evaluator.async_evaluate("patients", threshold=0)
            accuracy = found["nr_correct_predictions"] / found["nr_predictions"]
            history.append(round=number, accuracy=accuracy, **result.to_fields())
            Checkpoint.of(model, number, SETTINGS["lr"], SETTINGS).save("hospitals.ckpt")
            print(f"round {number}: {result}; accuracy in {evaluator.id} {accuracy:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--deadline", type=float, default=10, help="seconds of a round")
    parser.add_argument("--resume", action="store_true", help="go on after hospitals.ckpt")
    parser.add_argument("--start", action="store_true", help="start the workers on this machine")
    args = parser.parse_args()
    command = [sys.executable, "-m", "syft.worker", "--dataset", "hospital:load"]
    started = [
        subprocess.Popen(
            [*command, name, "--key", "patients", "--id", name, "--port", str(port)], cwd=HERE
        )
        for name, (_, port) in (HOSPITALS | EVALUATOR).items()
        if args.start
    ]
    try:
        asyncio.run(train(args))
    finally:
        for worker in started:
            worker.terminate()
        for worker in started:
            worker.wait()


if __name__ == "__main__":
    main()
