"""Train one network on the patients of five hospitals; a sixth evaluates it. See README.md."""

import asyncio
from typing import Any

import torch
from torch import nn

import syft as sy
from syft.federated import Checkpoint, History, run_round
from syft.frameworks.torch.fl import utils
from syft.options import Parser, add_client_options, client_options

# Where the workers are. On machines of their own: "athens": ("192.0.2.11", 8801), and so on.
HOSPITALS = {
    "athens": ("localhost", 8801),
    "berlin": ("localhost", 8802),
    "cairo": ("localhost", 8803),
    "delhi": ("localhost", 8804),
    "essen": ("localhost", 8805),
}
EVALUATOR = {"zurich": ("localhost", 8806)}
SETTINGS = {"batch_size": 32, "lr": 0.005, "seed": 1}


def new_model() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 1), nn.Flatten(start_dim=0))


def loss_fn(pred, target):
    return nn.functional.binary_cross_entropy_with_logits(pred, target)


def config_for(model: nn.Module) -> sy.TrainConfig:
    size, args = SETTINGS["batch_size"], {"lr": SETTINGS["lr"]}
    return sy.TrainConfig(model, loss_fn, batch_size=size, optimizer="Adam", optimizer_args=args)


async def train(rounds: int, deadline: float, resume: bool, **access: Any) -> None:
    """Train for some rounds, each with the hospitals that answer within `deadline` seconds."""
    torch.manual_seed(SETTINGS["seed"])
    model, last_round = new_model(), 0
    if resume:
        checkpoint = Checkpoint.load("hospitals.ckpt")
        checkpoint.restore(model, SETTINGS)
        last_round = checkpoint.round

    *hospitals, evaluator = proxies = [
        sy.WebsocketClientWorker(None, *place, id=name, connect=False, connect_timeout=60, **access)
        for name, place in (HOSPITALS | EVALUATOR).items()
    ]
    # Not counted by a round's deadline: the workers may still be importing torch.
    connecting = (proxy.async_connect() for proxy in proxies)
    for error in await asyncio.gather(*connecting, return_exceptions=True):
        if error is not None:
            print(f"warning: {error}")

    async def fit(worker):
        config = config_for(model).send(worker)
        loss = await worker.async_fit("patients")
        return worker.id, (await config.model_ptr.async_get()).obj, loss

    with History("hospitals.jsonl", last_round) as history:
        for number in range(last_round + 1, rounds + 1):
            result = await run_round(hospitals, fit, timeout=deadline, min_workers=3)
            model = utils.federated_avg(result.models)
            config_for(model).send(evaluator)
            found = await evaluator.async_evaluate("patients", threshold=0)
            accuracy = found["nr_correct_predictions"] / found["nr_predictions"]
            history.append(round=number, accuracy=accuracy, **result.to_fields())
            Checkpoint.of(model, number, SETTINGS["lr"], SETTINGS).save("hospitals.ckpt")
            print(f"round {number}: {result}; accuracy in {evaluator.id}: {accuracy:.1%}")


if __name__ == "__main__":
    parser = Parser(__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--deadline", type=float, default=10, help="seconds of a round")
    parser.add_argument("--resume", action="store_true", help="go on after hospitals.ckpt")
    add_client_options(parser)
    args = parser.parse_args()
    try:
        asyncio.run(train(args.rounds, args.deadline, args.resume, **client_options(parser, args)))
    except sy.exceptions.SyftError as error:
        raise SystemExit(f"error: {str(error).splitlines()[0]}") from None
