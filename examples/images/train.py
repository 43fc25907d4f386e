"""Train a network of torchvision on the images of three workers; a fourth evaluates it."""

import asyncio
from typing import Any

import torch
from torchvision.models import resnet18

import syft as sy
from syft.federated import run_round
from syft.frameworks.torch.fl import utils
from syft.options import Parser, add_client_options, client_options

# Where the workers are. On machines of their own: "paris": ("192.0.2.11", 8811), and so on.
WORKERS = {
    "paris": ("localhost", 8811),
    "oslo": ("localhost", 8812),
    "rome": ("localhost", 8813),
}
EVALUATOR = {"testing": ("localhost", 8814)}
CLASSES = 3


def loss_fn(pred, target):
    return torch.nn.functional.cross_entropy(pred, target)


async def train(rounds: int, **access: Any) -> None:
    """Train for some rounds on all workers."""
    torch.manual_seed(1)
    # With weights of yours: model.load_state_dict(...) before the first round.
    model = resnet18(num_classes=CLASSES)
    *workers, evaluator = proxies = [
        sy.WebsocketClientWorker(None, *place, id=name, connect=False, connect_timeout=60, **access)
        for name, place in (WORKERS | EVALUATOR).items()
    ]
    await asyncio.gather(*(proxy.async_connect() for proxy in proxies))

    async def fit(worker):
        config = sy.TrainConfig(model, loss_fn, batch_size=20, optimizer_args={"lr": 0.02})
        config.send(worker)
        loss = await worker.async_fit("pictures")
        return worker.id, (await config.model_ptr.async_get()).obj, loss

    for number in range(1, rounds + 1):
        result = await run_round(workers, fit, min_workers=len(workers))
        model = utils.federated_avg(result.models)  # the statistics of its batch norms too
        sy.TrainConfig(model, loss_fn).send(evaluator)
        found = await evaluator.async_evaluate("pictures", return_loss=True)
        correct, images = found["nr_correct_predictions"], found["nr_predictions"]
        print(f"round {number}: {correct} of {images} images right, loss {found['loss']:.2f}")
    torch.save(model.state_dict(), "pictures.pt")


if __name__ == "__main__":
    parser = Parser(__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    add_client_options(parser)
    args = parser.parse_args()
    try:
        asyncio.run(train(args.rounds, **client_options(parser, args)))
    except sy.exceptions.SyftError as error:
        raise SystemExit(f"error: {str(error).splitlines()[0]}") from None
