"""A round: the same training on many workers at once, with a deadline and a quorum.

    result = await run_round([alice, bob, charlie], fit, timeout=30, min_workers=2)
    model = utils.federated_avg(result.models)
    print(result)        # received 2 models, 1 failure: bob: timeout after 30 s

The result holds the models of the workers that answered in time, and a reason for each of the
others:

    timeout after 30 s          no answer by the deadline
    connection lost: ...        the connection ended during the round, or there was none
    privacy budget spent: ...   its owner has no more to grant
    failed: ValueError: ...     its training raised an error
    failed: InvalidReply: ...   its answer is not a model, or has values that are not finite

Each worker has one task: connect, then fit. The tasks move through these states:

    connecting --> reached --> done (a model, or an error)
         |            |
         +------------+------> late: still running when the round ends, so it is cancelled

A round ends when no task is left, at the deadline, or once `min_workers` is out of reach. Only then
are the late tasks cancelled; that tells their workers to stop before the next batch, and an answer
already under way is dropped. It must not count: it was trained from the parameters of a round that
is over.

Two rules are less obvious:

- A worker that is merely unreachable must not hold up a round that could end without it, or one
  machine that is switched off would cost every round its whole timeout. So once enough others have
  answered and only connecting tasks are left, the round ends after CONNECT_GRACE. Its proxy keeps
  connecting in the background, and the next round asks every worker again, so it takes part as soon
  as it is back.
- Results are in the order in which the workers were given, not in which they answered:
  floating-point sums depend on the order, and a seeded run must not depend on who was faster.

Works in a notebook (`await`) and in a script (`asyncio.run`). It knows no transport: a worker is
anything with the three members of `Worker`. One that withholds its loss is asked where its privacy
budget stands, if it has `async_privacy_spent` as well.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from torch import nn

from syft.access.privacy import PrivacySpent
from syft.exceptions import (
    CallTimeout,
    ConnectionFailed,
    InvalidReply,
    PrivacyBudgetSpent,
    QuorumNotReached,
    RemoteError,
    SyftError,
)
from syft.graph.returned import check_finite
from syft.objects import ObjectId

logger = logging.getLogger(__name__)

CONNECT_GRACE = 0.2
"""Seconds that a round allows a worker to connect in, even if all others answer sooner."""
_END_GRACE = 0.5
"""Seconds to wait for cancelled tasks.

A `fit` that ignores its cancellation does not hold up the round.
"""
_NOT_AWAITED = "not waited for, because too many others had failed"
_TORCHSCRIPT_FAILED = "The following operation failed in the TorchScript interpreter."
"""How the text of an error begins in a model that runs in TorchScript (allow_torchscript).

Its reason comes last.
"""
_LONGEST_LINE = 1000
"""Characters of a worker's failure that are shown."""
_NAMED_ERROR = re.compile(r"[\w.]*(Error|Exception): ")


class Worker(Protocol):
    """What a round needs of a worker; every worker of this package has it."""

    id: ObjectId

    @property
    def connection_attempts(self) -> int:
        """Connection attempts since the last open connection; 0 while there is one."""

    async def async_connect(self) -> None:
        """Return when the worker answers."""


AnyWorker = TypeVar("AnyWorker", bound=Worker)
Fit = Callable[[AnyWorker], Awaitable[tuple[ObjectId, nn.Module, Any]]]


@dataclass
class RoundResult:
    """The outcome of a round.

    Workers are in the order in which they were given, so averages are reproducible.

    Attributes:
        models: worker id -> model, for workers that answered in time.
        losses: worker id -> loss on the last batch, for the same workers; None if there was no
            batch.
        failures: worker id -> reason, for the other workers.
        seconds: duration of the round.
        worker_seconds: worker id -> seconds from the start of its fit to its answer, for the
            workers that answered in time.
        privacy_spent: worker id -> where its privacy budget stands after its fit, for those of
            these workers that have one and tell.
    """

    models: dict[ObjectId, nn.Module]
    losses: dict[ObjectId, float | None]
    failures: dict[ObjectId, str]
    seconds: float
    worker_seconds: dict[ObjectId, float] = field(default_factory=dict)
    privacy_spent: dict[ObjectId, PrivacySpent] = field(default_factory=dict)

    def to_fields(self) -> dict[str, Any]:
        """Return everything but the models as plain values, for a history.

        `epsilons`, worker id -> epsilon spent, is there only if a worker has told it.
        """
        epsilons = {worker_id: each["spent"] for worker_id, each in self.privacy_spent.items()}
        return {
            "seconds": self.seconds,
            "workers": list(self.models),
            "losses": dict(self.losses),
            "failures": dict(self.failures),
            "worker_seconds": dict(self.worker_seconds),
            **({"epsilons": epsilons} if epsilons else {}),
        }

    def __str__(self) -> str:
        text = (
            f"received {_count(len(self.models), 'model')}, {_count(len(self.failures), 'failure')}"
        )
        reasons = "; ".join(f"{worker_id}: {reason}" for worker_id, reason in self.failures.items())
        return f"{text}: {reasons}" if reasons else text


async def run_round(
    workers: Sequence[AnyWorker],
    fit: Fit[AnyWorker],
    timeout: float | None = None,
    min_workers: int = 1,
) -> RoundResult:
    """Train on all workers at once and return the models of those that answered in time.

    The round ends when every worker has answered or failed, when `timeout` has passed, or as soon
    as so many have failed that `min_workers` is out of reach. Cancelling it cancels the calls to
    the workers too.

    Args:
        workers: the workers, with different ids.
        fit: trains on one worker and returns worker id, model and loss, as the tutorial's
            `fit_model_on_worker` does. It must not block: it awaits `async_fit` and never calls
            `fit`.
        timeout: seconds for the whole round, connecting included. None: as long as the workers are
            alive.
        min_workers: number of models that the round needs.

    Raises:
        QuorumNotReached: fewer than `min_workers` answered in time; it names each failed worker and
            the reason.
        ValueError: `min_workers` is below 1 or above the number of workers, or two workers have the
            same id.
    """
    ids = [worker.id for worker in workers]
    if not 1 <= min_workers <= len(ids) or len(set(ids)) < len(ids):
        raise ValueError(
            f"no round of {ids} with min_workers={min_workers}; expected 1 to {len(ids)}, "
            "different ids."
        )
    current = _Round(workers, fit, timeout, min_workers)
    try:
        await current.wait()
    finally:
        await current.end()
    return current.result()


class _Answer(NamedTuple):
    """What a worker has made of a round. The fields are those of RoundResult."""

    model: nn.Module
    loss: float | None
    seconds: float
    privacy_spent: PrivacySpent | None


class _Round:
    """A running round. The arguments are those of `run_round`."""

    def __init__(
        self,
        workers: Sequence[AnyWorker],
        fit: Fit[AnyWorker],
        timeout: float | None,
        min_workers: int,
    ) -> None:
        self._started = time.monotonic()
        self._timeout = timeout
        self._min_workers = min_workers
        self._workers: list[Worker] = list(workers)
        self._reached: set[ObjectId] = set()
        self._tasks = {
            worker.id: asyncio.ensure_future(self._take_part(worker, fit)) for worker in workers
        }
        self._late: set[ObjectId] = set()

    async def _take_part(self, worker: AnyWorker, fit: Fit[AnyWorker]) -> _Answer:
        await worker.async_connect()
        self._reached.add(worker.id)
        started = time.monotonic()
        model, loss = _outcome(worker.id, await fit(worker))
        seconds = time.monotonic() - started
        # A worker with a privacy budget tells no loss; the others are not worth a question.
        spent = await _privacy_spent(worker) if loss is None else None
        return _Answer(model, loss, seconds, spent)

    async def wait(self) -> None:
        """Return when the round is over. Workers that have not answered by then are late."""
        pending = set(self._tasks)
        # Looked at again after each answer: it may change what is still worth waiting for.
        while pending and self._answered() + len(pending) >= self._min_workers:
            limit = self._limit(pending)
            left = None if limit is None else self._started + limit - time.monotonic()
            if left is not None and left <= 0:
                break
            tasks = [self._tasks[worker_id] for worker_id in pending]
            await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            pending = {worker_id for worker_id in pending if not self._tasks[worker_id].done()}
        self._late = pending

    async def end(self) -> None:
        """Cancel the tasks that still run."""
        # Those that are done do not notice.
        for task in self._tasks.values():
            task.cancel()
        await asyncio.wait(self._tasks.values(), timeout=_END_GRACE)

    def result(self) -> RoundResult:
        """Return the outcome of the round, once it has ended.

        Raises:
            QuorumNotReached: too few workers have answered.
        """
        failures = {
            worker.id: reason
            for worker in self._workers
            if (reason := self._failure(worker)) is not None
        }
        answers = {
            worker_id: task.result()
            for worker_id, task in self._tasks.items()
            if worker_id not in failures
        }
        if len(answers) < self._min_workers:
            errors = [
                error
                for task in self._tasks.values()
                if isinstance(error := _error(task), Exception)
            ]
            named = {
                str(worker_id): reason
                for worker_id, reason in failures.items()
                if reason != _NOT_AWAITED
            }
            # The first error as the cause: its traceback is what helps if all failed alike.
            raise QuorumNotReached(len(answers), self._min_workers, named) from (
                errors[0] if errors else None
            )
        return RoundResult(
            models={worker_id: each.model for worker_id, each in answers.items()},
            losses={worker_id: each.loss for worker_id, each in answers.items()},
            failures=failures,
            seconds=time.monotonic() - self._started,
            worker_seconds={worker_id: each.seconds for worker_id, each in answers.items()},
            privacy_spent={
                worker_id: each.privacy_spent
                for worker_id, each in answers.items()
                if each.privacy_spent is not None
            },
        )

    def _answered(self) -> int:
        return sum(
            task.done() and not task.cancelled() and not task.exception()
            for task in self._tasks.values()
        )

    def _limit(self, pending: set[ObjectId]) -> float | None:
        """Return how many seconds after its start the round stops waiting for these workers.

        None: never.
        """
        # With the quorum met, workers that nobody has reached are not worth the whole timeout.
        unreached_only = not pending & self._reached
        if not unreached_only or self._answered() < self._min_workers:
            return self._timeout
        return CONNECT_GRACE if self._timeout is None else min(CONNECT_GRACE, self._timeout)

    def _failure(self, worker: Worker) -> str | None:
        """Return why a worker is left out of the round; None if it takes part."""
        if worker.id not in self._late:
            error = _error(self._tasks[worker.id])
            if error is not None:
                logger.debug("worker %s failed", worker.id, exc_info=error)
            return None if error is None else one_line(_reason(error))
        if worker.id not in self._reached and worker.connection_attempts > 0:
            return (
                f"connection lost: not reached in {_count(worker.connection_attempts, 'attempt')}"
            )
        seconds = time.monotonic() - self._started
        if self._timeout is not None and seconds >= self._timeout:
            return f"timeout after {self._timeout:g} s"
        if worker.id not in self._reached:
            return f"timeout after {seconds:.1f} s, with no answer to a ping"
        return _NOT_AWAITED


def _outcome(worker_id: ObjectId, answer: Any) -> tuple[nn.Module, float | None]:
    """Return the model and the loss of a worker's training.

    Values that are not finite are refused here, because one NaN in one model would make the whole
    average NaN.

    Raises:
        InvalidReply: the answer is something else, or the model has values that are not finite.
    """
    worker = str(worker_id)
    if not isinstance(answer, (tuple, list)) or len(answer) != 3:
        raise InvalidReply(
            worker, "what `fit` returns", type(answer).__name__, "worker id, model and loss"
        )
    _, model, loss = answer
    if not isinstance(model, nn.Module):
        raise InvalidReply(worker, "the model", type(model).__name__, "a torch.nn.Module")
    # Buffers may hold infinities on purpose, as masks do.
    for name, tensor in model.named_parameters():
        check_finite(worker, name, tensor)
    try:
        return model, None if loss is None else float(loss)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidReply(worker, "the loss", type(loss).__name__, "one number") from None


async def _privacy_spent(worker: Any) -> PrivacySpent | None:
    """Return where a worker's privacy budget stands; None if it has none, or does not tell.

    Its model has arrived by now, and counts whatever comes of this.
    """
    ask = getattr(worker, "async_privacy_spent", None)
    if ask is None:
        return None
    try:
        spent: PrivacySpent | None = await ask()
    except SyftError as reason:
        logger.debug("worker %s does not tell what its fits have cost: %s", worker.id, reason)
        return None
    return spent


def _error(task: asyncio.Task[Any]) -> BaseException | None:
    if not task.done() or task.cancelled():
        return asyncio.CancelledError()
    return task.exception()


def one_line(text: str) -> str:
    """Return a text, of a worker perhaps, as one line that a terminal shows and does not obey.

    Its length is bounded.
    """
    shown = text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}..."
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, CallTimeout):
        return f"timeout after {error.seconds:g} s"
    if isinstance(error, ConnectionFailed):
        attempts = (
            f"not reached in {_count(error.attempts, 'attempt')}: "
            if hasattr(error, "attempts")
            else ""
        )
        return f"connection lost: {attempts}{getattr(error, 'cause', error)}"
    if isinstance(error, PrivacyBudgetSpent):
        spent = f"epsilon {error.spent:.4g} of {error.epsilon:.4g}"
        return f"privacy budget spent: {spent}; with this fit it would be {error.asked:.4g}"
    name, message = type(error).__name__, str(error)
    if isinstance(error, RemoteError):
        name, message = error.type_name, error.message
    if message.startswith(_TORCHSCRIPT_FAILED):
        return f"failed: {_reason_in_torchscript(message)}"
    return ": ".join(["failed", name, *message.splitlines()[:1]])


def _reason_in_torchscript(message: str) -> str:
    """Return the name and text of the error in a message of TorchScript.

    They stand below its traceback and above its hints.
    """
    lines = [line for line in message.splitlines() if line.strip()]
    named = [line for line in lines if _NAMED_ERROR.match(line)]
    return (named or lines)[-1].strip().removeprefix("builtins.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
