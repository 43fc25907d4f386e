"""The ServerApp: it draws clients, averages their models, evaluates, and logs a line a round.

round 3/10: 10 models, 0 failures; 52.31 %; 2.1 s
round 4/10: 9 models, 1 failure: client-17: failed: ...; 58.80 %; 2.0 s
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from torch import nn

import task
from settings import Settings, SettingsError
from strategy import CheckedStrategy
from syft.exceptions import SyftError
from syft.federated import History
from syft.federated.rounds import RoundResult

logger = logging.getLogger("flwr")
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds."""
    _quieten(logger)
    settings = Settings.of(context.run_config)
    task.check_split(settings)
    with ExitStack() as stack:
        history = stack.enter_context(History(settings.history)) if settings.history else None
        run(grid, settings, history)


def run(grid: Grid, settings: Settings, history: History | None = None) -> nn.Module:
    """Run all rounds on a grid; return the model.

    Raises:
        SettingsError: the settings name a split or strategy that is not possible.
        QuorumNotReached: too few clients returned a model in some round.
    """
    model, generator = task.first_model(settings.seed)
    started = time.monotonic()

    def report(number: int, result: RoundResult, model: nn.Module) -> None:
        nonlocal started
        evaluated: dict[str, dict[str, float]] = {}
        accuracy = ""
        if settings.is_due(number):
            models = result.models if settings.evaluate_clients else {}
            scores = {name: task.evaluate(each) for name, each in models.items()}
            scores["federated"] = task.evaluate(model)
            evaluated = {
                "test_losses": {str(name): loss for name, (loss, _) in scores.items()},
                "accuracies": {str(name): share for name, (_, share) in scores.items()},
            }
            accuracy = f"; {100 * scores['federated'][1]:.2f} %"
        whole, started = time.monotonic() - started, time.monotonic()
        outcome = str(result).removeprefix("received ")
        logger.info("round %s/%s: %s%s; %.1f s", number, settings.rounds, outcome, accuracy, whole)
        if history is not None:
            history.append(round=number, whole_seconds=whole, **result.to_fields(), **evaluated)

    strategy = CheckedStrategy(settings, model, generator, report)
    strategy.start(
        grid,
        ArrayRecord(dict(model.state_dict())),
        num_rounds=settings.rounds,
        timeout=settings.round_seconds,
    )
    return strategy.model


class _Quiet(logging.Filter):
    """Leaves out what Flower's strategy says of the clients and replies that it is shown.

    It counts the average as one result. And the tracebacks of errors that tell what to do.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, (SettingsError, SyftError)):
            record.msg, record.args, record.exc_info = f"error: {error}", (), None
        text = str(record.msg)
        return not text.startswith(("configure_train: Sampled", "%s: Received", "fraction_eval"))


def _quieten(log: logging.Logger) -> None:
    if not any(isinstance(each, _Quiet) for each in log.filters):
        log.addFilter(_Quiet())
