"""Runs the coordinator: trains one model on Alice, Bob and Charlie, and evaluates it on Testing.

Run it after the workers:

    python start_websocket_servers.py      # in one terminal
    python run_websocket_client.py         # in another
"""

from __future__ import annotations

from tutorial import lifetime

if __name__ == "__main__":
    lifetime.end_on_interrupt()  # the imports below take seconds

import argparse
import asyncio
import contextlib
import functools
import logging
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import syft as sy
from syft.exceptions import (
    CheckpointError,
    HistoryDamaged,
    InvalidReply,
    SyftError,
    WorkerUnreachable,
)
from syft.federated import (
    Checkpoint,
    History,
    Scaffold,
    ServerOptimizer,
    checked_evaluation,
    run_round,
)
from syft.federated.rounds import RoundResult, one_line
from syft.frameworks.torch.fl import utils
from syft.objects import ObjectId
from syft.options import (
    CONNECT_TIMEOUT,
    CONNECT_TIMEOUT_VARIABLE,
    Parser,
    add_client_options,
    at_least,
    client_options,
    not_negative,
    positive,
)
from syft.workers.base import BaseWorker
from syft.workers.websocket_client import WebsocketClientWorker
from tutorial.board import Board, BoardMissing

logger = logging.getLogger("run_websocket_client")

WORKERS = {
    "alice": ("localhost", 8777),
    "bob": ("localhost", 8778),
    "charlie": ("localhost", 8779),
    "testing": ("localhost", 8780),
}
ARGUMENTS_OF_THE_TUTORIAL = (
    "batch_size",
    "test_batch_size",
    "training_rounds",
    "federate_after_n_batches",
    "lr",
    "cuda",
    "seed",
    "save_model",
    "verbose",
)
AVERAGES = {
    "mean": utils.federated_avg,
    "median": utils.coordinate_median,
    "trimmed_mean": utils.trimmed_mean,
}
USUAL_STRATEGY = {"average": "mean", "proximal_mu": 0.0}
SERVER_LR = 1.0
SILENT_SECONDS = 1.0
"""Seconds of connecting after which the log tells for whom it waits."""


@torch.jit.script
def loss_fn(pred, target):
    """Return the mean negative log-likelihood of a batch."""
    return F.nll_loss(input=pred, target=target)


class Net(nn.Module):
    """Two convolutional and two fully connected layers; 431,080 parameters.

    Input: (N, 1, 28, 28) float32, normalised images. Output: (N, 10) float32, log-probabilities.
    """

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5, 1)
        self.conv2 = nn.Conv2d(20, 50, 5, 1)
        self.fc1 = nn.Linear(4 * 4 * 50, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x):
        """Return the log-probabilities of the ten digits for each image."""
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(x, 2, 2)
        x = F.relu(self.conv2(x))
        x = F.max_pool2d(x, 2, 2)
        x = x.view(-1, 4 * 4 * 50)
        x = F.relu(self.fc1(x))
        x = self.fc2(x)
        return F.log_softmax(x, dim=1)


def define_and_get_arguments(args=sys.argv[1:]):
    """Return the command line's arguments; an error exits with status 2."""
    parser = Parser("Run federated learning using websocket client workers.")
    _add_training_options(parser)
    _add_strategy_options(parser)
    _add_options_for_workers(parser)
    _add_options_for_faults(parser)
    add_client_options(parser)
    arguments = parser.parse_args(args)
    arguments.options = client_options(parser, arguments)
    try:
        server_optimizer_of(arguments)
    except ValueError as reason:
        parser.error(f"argument --server_optimizer: {reason}")
    if arguments.scaffold and {name: getattr(arguments, name) for name in USUAL_STRATEGY} != (
        USUAL_STRATEGY
    ):
        parser.error(
            "argument --scaffold: it goes with the mean and with plain SGD; expected neither "
            "another --average nor --proximal_mu"
        )
    if arguments.evaluator not in addresses(arguments):
        parser.error(
            f"argument --evaluator: no worker is called {arguments.evaluator!r}; expected one of "
            f"{', '.join(addresses(arguments))}"
        )
    trainers = len(addresses(arguments)) - 1
    if not (arguments.min_workers or 1) <= trainers:
        parser.error(
            f"argument --min_workers: {arguments.min_workers}; expected 1 to {trainers}, the "
            "number of workers that train"
            if trainers
            else "argument --workers: expected a worker that trains, beside the evaluator"
        )
    needed = arguments.min_workers or (1 if is_tolerant(arguments) else trainers)
    if arguments.average == "trimmed_mean" and needed < 3:
        parser.error(
            "argument --average: trimmed_mean leaves out two workers; expected rounds of at least "
            "three (--min_workers)"
        )
    return arguments


def addresses(args: Namespace) -> dict[str, tuple[str, int]]:
    """Return the run's workers, name -> host and port.

    They are the tutorial's, some of them perhaps elsewhere, or all that `--workers` names if one of
    those has another name.
    """
    given = dict(args.workers)
    return WORKERS | given if given.keys() <= WORKERS.keys() else given


def tutorial_arguments(args: Namespace) -> Namespace:
    """Return those of the arguments that the tutorial is about."""
    return Namespace(**{name: getattr(args, name) for name in ARGUMENTS_OF_THE_TUTORIAL})


async def fit_model_on_worker(
    worker,
    traced_model,
    batch_size,
    curr_round,
    max_nr_batches,
    lr,
    proximal_mu=0.0,
    scaffold=None,
):
    """Send the model to a worker, train it there, and fetch it.

    Args:
        worker: proxy of the worker.
        traced_model: the model to train, on the device where the worker shall train it. Not
            modified.
        batch_size: samples a batch.
        curr_round: number of the round, for the log.
        max_nr_batches: number of training steps. Negative: one pass over the worker's data.
        lr: learning rate.
        proximal_mu: weight of FedProx's proximal term.
        scaffold: has the control variates of SCAFFOLD; None: it is not used.

    Returns:
        worker_id: id of the worker. model: the trained model. loss: loss on the last batch, a
            scalar tensor; None if the worker's owner withholds it.
    """
    train_config = sy.TrainConfig(
        model=traced_model,
        loss_fn=loss_fn,
        batch_size=batch_size,
        shuffle=True,
        max_nr_batches=max_nr_batches,
        # As many as the steps for SCAFFOLD, which needs all of them, however few the samples.
        epochs=1 if scaffold is None else max_nr_batches,
        optimizer="SGD",
        optimizer_args={"lr": lr},
        proximal_mu=proximal_mu,
    )
    if scaffold is not None:
        scaffold.correct(train_config, worker.id)
    train_config.send(worker)
    device = next(traced_model.parameters()).device
    loss = await worker.async_fit(dataset_key="mnist", return_ids=[0], device=device)
    model = (await train_config.model_ptr.async_get()).obj
    shown = "not told" if loss is None else f"{loss.item():.4f}"
    logger.debug("Round %s, worker %s: loss of the last batch %s", curr_round, worker.id, shown)
    return worker.id, model, loss


def evaluate_model_on_worker(
    model_identifier,
    worker,
    dataset_key,
    model,
    nr_bins,
    batch_size,
    device,
    print_target_hist=False,
    timeout=None,
):
    """Evaluate a model on a worker's data and log the result.

    Args:
        model_identifier: how the log calls the model.
        worker: proxy of the worker.
        dataset_key: key of the dataset on the worker.
        model: the model to evaluate.
        nr_bins: number of classes.
        batch_size: samples a batch.
        device: where the worker evaluates.
        print_target_hist: whether to log how often each class occurs in the data.
        timeout: seconds to wait for the result; None: as long as the worker is alive.

    Returns:
        The result of `worker.evaluate`.

    Raises:
        InvalidReply: what the worker returned is no such result.
    """
    model.eval()
    train_config = sy.TrainConfig(
        batch_size=batch_size, model=model, loss_fn=loss_fn, optimizer_args=None, epochs=1, seed=0
    )
    train_config.send(worker)
    reply = worker.evaluate(
        dataset_key=dataset_key,
        return_histograms=True,
        nr_bins=nr_bins,
        return_loss=True,
        return_raw_accuracy=True,
        device=device,
        **({} if timeout is None else {"timeout": timeout}),
    )
    result = checked_evaluation(worker.id, reply, nr_bins)
    correct, len_dataset = result["nr_correct_predictions"], result["nr_predictions"]
    hist_pred = result["histogram_predictions"]

    if print_target_hist:
        logger.info("Target histogram: %s", result["histogram_target"])
    percentages = [
        int(100 * sum(hist_pred[digits]) / len_dataset)
        for digits in (slice(4), slice(4, 7), slice(7, 10))
    ]
    logger.info(
        "%s: Percentage numbers 0-3: %s%%, 4-6: %s%%, 7-9: %s%%", model_identifier, *percentages
    )
    accuracy = 100.0 * correct / len_dataset
    message = "%s: Average loss: %.4f, Accuracy: %s/%s (%.2f%%)"
    logger.info(message, model_identifier, result["loss"], correct, len_dataset, accuracy)
    return result


def choose_device(cuda: bool) -> torch.device:
    """Return the GPU if it is asked for and there is one, else the CPU."""
    if cuda and not torch.cuda.is_available():
        logger.warning("--cuda: there is no GPU here; the CPU is used")
    return torch.device("cuda" if cuda and torch.cuda.is_available() else "cpu")


def is_tolerant(args: Namespace) -> bool:
    """Return whether the run goes on when a worker fails."""
    return args.round_timeout is not None or args.min_workers is not None


async def connect_to_workers(
    args: Namespace,
) -> tuple[list[WebsocketClientWorker], WebsocketClientWorker]:
    """Return the training workers and the evaluator, connected, with no object of ours on them.

    Where the run goes on when a worker fails, one that is not there yet is asked again in each
    round.

    Args:
        args: the command line's arguments.

    Raises:
        SyftError: of the only worker that failed.
        ConnectionError: several failed; it names them all.
    """
    hook = sy.TorchHook(torch)
    settings = {
        "hook": hook,
        "verbose": args.verbose,
        "connect": False,
        "connect_timeout": args.connect_timeout,
    }
    workers = [
        WebsocketClientWorker(id=name, host=host, port=port, **settings, **args.options)
        for name, (host, port) in addresses(args).items()
    ]
    (testing,) = (worker for worker in workers if worker.id == args.evaluator)
    worker_instances = [worker for worker in workers if worker is not testing]
    failures = await _prepare_all(workers)
    if failures and not is_tolerant(args):
        raise failures[0][1] if len(failures) == 1 else ConnectionError(_describe(failures))
    for worker, error in failures:
        logger.warning("Starting without %s: %s", worker.id, _first_line(error))
    return worker_instances, testing


async def _prepare_all(
    workers: list[WebsocketClientWorker],
) -> list[tuple[WebsocketClientWorker, Exception]]:
    """Connect to all workers at once; return those that failed, each with its error."""
    tasks = [asyncio.ensure_future(_prepare(worker)) for worker in workers]
    await asyncio.wait(tasks, timeout=SILENT_SECONDS)
    if waiting := [worker for worker, task in zip(workers, tasks, strict=True) if not task.done()]:
        names = ", ".join(f"{worker.id} ({worker.url})" for worker in waiting)
        logger.info("Waiting up to %g s for %s", waiting[0].connect_timeout, names)
    errors = await asyncio.gather(*tasks)
    return [
        (worker, error) for worker, error in zip(workers, errors, strict=True) if error is not None
    ]


async def _prepare(worker: WebsocketClientWorker) -> Exception | None:
    """Connect to a worker and remove what an earlier run left there.

    Return the error if that failed, else None.
    """
    try:
        await worker.async_connect()
        await worker.async_call("clear_objects", timeout=worker.connect_timeout)
    except Exception as error:
        return error
    return None


def _describe(failures: list[tuple[WebsocketClientWorker, Exception]]) -> str:
    """Return one line on several workers that failed.

    It names those that could not be reached together, and the others one by one.
    """
    absent = {worker: error for worker, error in failures if isinstance(error, WorkerUnreachable)}
    parts = [_first_line(error) for worker, error in failures if worker not in absent]
    if absent:
        names = ", ".join(f"{worker.id!r} at {worker.url}" for worker in absent)
        seconds = next(iter(absent)).connect_timeout
        remedies = dict.fromkeys(error.remedy for error in absent.values())
        parts.append(f"no connection within {seconds:g} s to {names}. {'. '.join(remedies)}")
    return "; ".join(parts)


async def train_one_round(
    workers: list[WebsocketClientWorker],
    traced_model: nn.Module,
    curr_round: int,
    learning_rate: float,
    args: Namespace,
    scaffold: Scaffold | None = None,
) -> RoundResult:
    """Train a model on all workers at once; log who failed, and what privacy budgets stand at.

    Args:
        workers: proxies of the workers.
        traced_model: the model to train. Not modified.
        curr_round: number of the round.
        learning_rate: its learning rate.
        args: the command line's arguments.
        scaffold: corrects the training, and takes in the updates. None: SCAFFOLD is not used.

    Returns:
        The RoundResult: models, losses, failures with their reasons, seconds, privacy spent.
    """
    logger.info("Training round %s/%s", curr_round, args.training_rounds)
    fit = functools.partial(
        fit_model_on_worker,
        traced_model=traced_model,
        batch_size=args.batch_size,
        curr_round=curr_round,
        max_nr_batches=args.federate_after_n_batches,
        lr=learning_rate,
        proximal_mu=args.proximal_mu,
        scaffold=scaffold,
    )
    needed = args.min_workers or (1 if is_tolerant(args) else len(workers))
    result = await run_round(workers, fit, timeout=args.round_timeout, min_workers=needed)
    if result.failures:
        logger.warning("Round %s: %s", curr_round, result)
    for name, told in result.privacy_spent.items():
        logger.info("%s: epsilon %.4g of %.4g spent", name, told["spent"], told["epsilon"])
    if scaffold is not None:
        scaffold.update(traced_model, result.models)
    return result


def evaluate_models(
    models: Mapping[ObjectId, nn.Module], testing: BaseWorker, args: Namespace, device: torch.device
) -> dict[str, dict[ObjectId, float]]:
    """Evaluate the workers' models and the federated one.

    Args:
        models: worker id, or "federated" -> model.
        testing: proxy of the evaluator.
        args: the command line's arguments.
        device: where the evaluator evaluates.

    Returns:
        What the history tells of it: losses and accuracies (0 to 1) by the same names; less where
        the evaluator failed and the run shall go on.
    """
    logger.info("Evaluating models")
    losses, accuracies = {}, {}
    for name, model in models.items():
        try:
            result = evaluate_model_on_worker(
                model_identifier="Federated model"
                if name == "federated"
                else f"Model update {name}",
                worker=testing,
                dataset_key="mnist_testing",
                model=model,
                nr_bins=10,
                batch_size=args.test_batch_size,
                device=device,
                timeout=args.round_timeout,
            )
        except Exception as error:
            # Whatever comes of its answer is the evaluator's failure, as in a round.
            reason = _first_line(error)
            if is_tolerant(args):
                logger.warning("No evaluation by %s: %s", testing.id, reason)
                break
            if isinstance(error, SyftError):
                raise
            raise InvalidReply(str(testing.id), "an evaluation", reason, "its results") from error
        losses[name] = result["loss"]
        accuracies[name] = result["nr_correct_predictions"] / result["nr_predictions"]
    return {"test_losses": losses, "accuracies": accuracies}


def server_optimizer_of(args: Namespace) -> ServerOptimizer | None:
    """Return the server optimizer that the arguments ask for; None: the plain average.

    Raises:
        ValueError: there is none of that kind, or it does not take these arguments.
    """
    options = {
        "momentum": args.server_momentum,
        "nesterov": args.server_nesterov or None,
        "eps": args.server_eps,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if args.server_optimizer is None:
        if given or args.server_lr != SERVER_LR:
            raise ValueError("expected one where there are other --server options")
        return None
    return ServerOptimizer(args.server_optimizer, {"lr": args.server_lr, **given})


def scaffold_of(args: Namespace) -> Scaffold | None:
    """Return SCAFFOLD for the workers that train, if the arguments ask for it."""
    names = [name for name in addresses(args) if name != args.evaluator]
    return Scaffold(names) if args.scaffold else None


def resume(
    args: Namespace,
    traced_model: nn.Module,
    server_optimizer: ServerOptimizer | None,
    scaffold: Scaffold | None = None,
) -> tuple[int, float]:
    """Return the last finished round and the next learning rate.

    They are those of the checkpoint if one is given, else of the start. The checkpoint's parameters
    go into `traced_model`; the server optimizer, SCAFFOLD and torch's generator go on where they
    were.
    """
    if args.resume is None:
        return 0, args.lr
    checkpoint = Checkpoint.load(args.resume)
    checkpoint.restore(traced_model, settings_of(args), server_optimizer, scaffold)
    logger.info("Going on after round %s, from %s", checkpoint.round, args.resume)
    return checkpoint.round, checkpoint.learning_rate


def settings_of(args: Namespace) -> dict[str, Any]:
    """Return the arguments that a run and its continuation must have in common."""
    names = ["batch_size", "federate_after_n_batches", "lr", "seed"]
    # Only if they are used: checkpoints of earlier versions do not have them.
    names += [name for name, usual in USUAL_STRATEGY.items() if getattr(args, name) != usual]
    return {name: getattr(args, name) for name in names}


def open_records(
    args: Namespace, last_round: int, stack: contextlib.ExitStack
) -> list[History | Board]:
    """Return what the arguments ask for to be written of each round; `stack` closes it."""
    records: list[History | Board] = []
    # First what may be missing: it should leave an earlier history alone.
    if args.tensorboard:
        records.append(stack.enter_context(Board(args.tensorboard, last_round)))
    if args.history:
        records.append(stack.enter_context(History(args.history, last_round)))
    return records


async def main(args: Namespace) -> None:
    """Run the federated training that the arguments describe."""
    device = choose_device(args.cuda)
    torch.manual_seed(args.seed)
    model = Net().to(device)
    example = torch.zeros([1, 1, 28, 28], dtype=torch.float).to(device)
    traced_model = torch.jit.trace(model, example, check_trace=False)  # the check takes a second
    server_optimizer, scaffold = server_optimizer_of(args), scaffold_of(args)
    last_round, learning_rate = resume(args, traced_model, server_optimizer, scaffold)

    with contextlib.ExitStack() as stack:
        records = open_records(args, last_round, stack)
        worker_instances, testing = await connect_to_workers(args)

        for curr_round in _with_progress_bar(range(last_round + 1, args.training_rounds + 1)):
            result = await train_one_round(
                worker_instances, traced_model, curr_round, learning_rate, args, scaffold
            )
            average = AVERAGES[args.average](result.models)
            if server_optimizer is not None:
                average = server_optimizer.step(traced_model, average)
            traced_model = average.to(device)

            evaluation = {}
            if curr_round % 10 == 1 or curr_round == args.training_rounds:
                evaluation = evaluate_models(
                    result.models | {"federated": traced_model}, testing, args, device
                )

            for record in records:
                record.append(
                    round=curr_round,
                    learning_rate=learning_rate,
                    **result.to_fields(),
                    **evaluation,
                )
            learning_rate = max(0.98 * learning_rate, args.lr * 0.01)
            if args.checkpoint:
                settings = settings_of(args)
                Checkpoint.of(
                    traced_model, curr_round, learning_rate, settings, server_optimizer, scaffold
                ).save(args.checkpoint)

    if args.save_model:
        torch.save(traced_model.state_dict(), "mnist_cnn.pt")
        logger.info("The federated model is saved in mnist_cnn.pt")


def run(args: Namespace) -> int:
    """Run the federated training that the arguments describe; return the exit status.

    An error is one line.
    """
    try:
        with logging_redirect_tqdm():
            asyncio.run(main(args))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return lifetime.INTERRUPTED
    except (SyftError, OSError, BoardMissing) as error:
        print(f"error: {_first_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, (CheckpointError, HistoryDamaged, BoardMissing)) else 1
    return 0


def set_up_process() -> None:
    """Have this process log to standard error, and end at once on Ctrl-C.

    asyncio's own handler of Ctrl-C would wait for the end of a blocking call.
    """
    logging.basicConfig(format="%(asctime)s | %(message)s", level=logging.INFO)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)


def _add_training_options(parser: Parser) -> None:
    add = parser.add_argument_group("training").add_argument
    add(
        "--batch_size", type=at_least(1), default=32, metavar="N", help="samples per training batch"
    )
    add(
        "--test_batch_size",
        type=at_least(1),
        default=128,
        metavar="N",
        help="samples a batch of the evaluation",
    )
    help_text = "number of federated learning rounds"
    add("--training_rounds", type=at_least(1), default=40, metavar="N", help=help_text)
    help_text = "training steps performed on each remote worker before averaging"
    add("--federate_after_n_batches", type=at_least(1), default=10, metavar="N", help=help_text)
    add("--lr", type=positive, default=0.1, help="learning rate of the first round")
    add("--cuda", action="store_true", help="let the workers train and evaluate on their GPU")
    add("--seed", type=int, default=1, help="seed used for randomization")
    add(
        "--save_model",
        action="store_true",
        help="write the federated model's state to mnist_cnn.pt",
    )
    add("--verbose", "-v", action="store_true", help="log each call to a worker")


def _add_strategy_options(parser: Parser) -> None:
    add = parser.add_argument_group(
        "strategy", "how the next model is made of the workers' models, see docs/uneven_data.md"
    ).add_argument
    help_text = (
        "of each parameter the workers' mean, median, or mean without the smallest and largest "
        "value; the last two bear with a worker that returns nonsense"
    )
    average = USUAL_STRATEGY["average"]
    add("--average", choices=AVERAGES, default=average, help=help_text)
    help_text = "weight of FedProx's term, which keeps workers near the model they were sent"
    mu = USUAL_STRATEGY["proximal_mu"]
    add("--proximal_mu", type=not_negative, default=mu, metavar="MU", help=help_text)
    help_text = "correct the workers' gradients by control variates (SCAFFOLD)"
    add("--scaffold", action="store_true", help=help_text)
    help_text = (
        "optimizer of torch.optim that goes from the last model to the average, e.g. SGD, Adam "
        "(default: the average is the next model)"
    )
    add("--server_optimizer", metavar="NAME", help=help_text)
    add("--server_lr", type=positive, default=SERVER_LR, help="its learning rate")
    add("--server_momentum", type=positive, metavar="M", help="its momentum, e.g. 0.7 for SGD")
    add("--server_nesterov", action="store_true", help="take SGD's momentum as Nesterov does")
    add("--server_eps", type=positive, metavar="EPS", help="its eps, e.g. 0.001 for Adam")


def _add_options_for_workers(parser: Parser) -> None:
    add = parser.add_argument_group("workers").add_argument
    help_text = (
        "where the workers are, for example: alice=192.0.2.11:8777. With names other than the "
        "tutorial's, the list has to be complete (default: localhost:8777 to 8780)"
    )
    add("--workers", nargs="+", type=_address, default=(), metavar="NAME=HOST:PORT", help=help_text)
    add("--evaluator", default="testing", metavar="NAME", help="the worker that evaluates")
    seconds = os.environ.get(CONNECT_TIMEOUT_VARIABLE) or CONNECT_TIMEOUT
    help_text = (
        f"seconds to wait for each worker to accept a connection (default: {CONNECT_TIMEOUT}, or "
        f"the environment variable {CONNECT_TIMEOUT_VARIABLE})"
    )
    add("--connect_timeout", type=positive, default=seconds, metavar="S", help=help_text)


def _add_options_for_faults(parser: Parser) -> None:
    add = parser.add_argument_group(
        "faults", "what happens when workers fail, and what is kept of the run"
    ).add_argument
    help_text = (
        "seconds that the workers have for the training of a round, and the evaluator for each "
        "evaluation; the run goes on without those that are late or fail (default: any time, and "
        "a failure ends the run)"
    )
    add("--round_timeout", type=positive, metavar="S", help=help_text)
    help_text = "workers that must answer in a round (default: all; 1 with --round_timeout)"
    add("--min_workers", type=at_least(1), metavar="N", help=help_text)
    add(
        "--checkpoint",
        type=_writable,
        metavar="FILE",
        help="write what --resume needs to FILE after each round",
    )
    add("--resume", metavar="FILE", help="go on after the last round of the checkpoint FILE")
    help_text = "write one JSON object per round to FILE; with --resume, append to FILE"
    add("--history", type=_writable, metavar="FILE", help=help_text)
    help_text = (
        "write losses, accuracies, seconds and epsilon spent of each round to DIR, for TensorBoard"
    )
    add("--tensorboard", type=_writable_folder, metavar="DIR", help=help_text)


def _writable(text: str) -> str:
    if Path(text).is_dir() or not os.access(Path(text).absolute().parent, os.W_OK):
        raise argparse.ArgumentTypeError(
            f"{text!r} cannot be written: no such directory, or not ours to write in"
        )
    return text


def _writable_folder(text: str) -> str:
    path = Path(text).absolute()
    nearest = next(each for each in (path, *path.parents) if each.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: no folder, or not ours")
    return text


def _address(text: str) -> tuple[str, tuple[str, int]]:
    name, _, address = text.partition("=")
    host, _, port = address.rpartition(":")
    if not name or not host or not port.isdecimal():
        raise argparse.ArgumentTypeError(
            f"{text!r}; expected NAME=HOST:PORT, for example alice=192.0.2.11:8777"
        )
    return name, (host, int(port))


def _first_line(error: Exception) -> str:
    """Return an error as one line.

    One that comes from a worker has more lines: the traceback there.
    """
    with contextlib.suppress(Exception):  # it may be made of what a worker sent
        return one_line(str(error).splitlines()[0])
    return type(error).__name__


def _with_progress_bar(rounds: Iterable[int]) -> Iterable[int]:
    """Return the rounds, with a progress bar where standard error is a terminal."""
    bar: Iterable[int] = tqdm(rounds, desc="Federated training", unit="round", disable=None)
    return bar


def _interrupt(*_: Any) -> None:
    """End at once on Ctrl-C, also inside a blocking call."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    set_up_process()
    lifetime.leave(run(define_and_get_arguments()))
