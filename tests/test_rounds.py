"""Rounds: who counts, who is named and why, and when a round ends.

The clock is real; the workers are not.
"""

import asyncio
import math
import time
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

import syft as sy
from syft.exceptions import (
    CallTimeout,
    ConnectionLost,
    QuorumNotReached,
    RemoteError,
    WorkerUnreachable,
)
from syft.federated import History, read_history, rounds, run_round
from syft.frameworks.torch.fl import utils
from tests.models import Classifier, blobs, classifier, make_config
from tests.network import in_time

LONG = 600.0
"""Seconds of a deadline that no test reaches."""


@dataclass
class Fake:
    """A worker that connects and fits as its test says.

    Attributes:
        reachable: set when it can be connected to.
        answer: what fit() comes to: a result, or an error to raise; never, while it is not set.
    """

    id: str
    connection_attempts: int = 0
    reachable: asyncio.Event = field(default_factory=asyncio.Event)
    answer: asyncio.Future = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    cancelled: bool = False

    async def async_connect(self):
        await self.reachable.wait()


def fake(worker_id, answer=None, reachable=True):
    worker = Fake(worker_id)
    if reachable:
        worker.reachable.set()
    if isinstance(answer, Exception):
        worker.answer.set_exception(answer)
    elif answer is not None:
        worker.answer.set_result(answer)
    return worker


class Model(nn.Module):
    """A model of one number, equal to that number."""

    def __init__(self, number):
        super().__init__()
        self.number = nn.Parameter(torch.tensor(number))

    def __eq__(self, other):
        return self.number.item() == other

    __hash__ = nn.Module.__hash__


async def fit(worker):
    """Return the worker's answer, as model and as loss."""
    try:
        answer = await asyncio.shield(worker.answer)
    except asyncio.CancelledError:
        worker.cancelled = True
        raise
    return worker.id, Model(answer), torch.tensor(answer)


async def test_a_round_in_which_all_answer_has_all_models_and_losses():
    workers = [fake("bob", 2.0), fake("alice", 1.0)]
    result = await in_time(run_round(workers, fit))
    assert list(result.models.items()) == [("bob", 2.0), ("alice", 1.0)]
    assert result.losses == {"bob": 2.0, "alice": 1.0}
    assert result.failures == {}
    assert 0 <= result.seconds < 5
    assert str(result) == "received 2 models, 0 failures"


async def test_models_are_in_the_order_of_the_workers_not_of_their_answers():
    slow, fast = fake("slow"), fake("fast", 1.0)

    async def fit_fast_first(worker):
        result = await fit(worker)
        if worker is fast:
            slow.answer.set_result(2.0)
        return result

    result = await in_time(run_round([slow, fast], fit_fast_first))
    assert list(result.models) == ["slow", "fast"]


async def test_who_is_late_is_named_and_cancelled():
    late = fake("bob")
    started = time.monotonic()
    result = await in_time(
        run_round([fake("alice", 1.0), late, fake("charlie", 3.0)], fit, timeout=0.1)
    )
    assert 0.1 <= time.monotonic() - started < 5
    assert result.failures == {"bob": "timeout after 0.1 s"}
    assert str(result) == "received 2 models, 1 failure: bob: timeout after 0.1 s"
    assert late.cancelled


async def test_a_late_answer_is_not_in_the_next_round():
    late = fake("bob")
    first = await in_time(run_round([fake("alice", 1.0), late], fit, timeout=0.05))
    late.answer.set_result(2.0)
    late.answer = asyncio.get_running_loop().create_future()
    late.answer.set_result(20.0)
    second = await in_time(run_round([fake("alice", 10.0), late], fit, timeout=LONG))
    assert (first.models, second.models) == ({"alice": 1.0}, {"alice": 10.0, "bob": 20.0})


async def test_a_fit_that_cannot_be_cancelled_does_not_hold_the_round(monkeypatch):
    monkeypatch.setattr(rounds, "_END_GRACE", 0.05)
    release = asyncio.Event()

    async def stubborn(worker):
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                worker.cancelled = True
        return await fit(worker)

    worker = fake("bob", 2.0)
    result = await in_time(
        run_round(
            [fake("alice", 1.0), worker], lambda w: (stubborn if w is worker else fit)(w), 0.05
        )
    )
    release.set()
    assert worker.cancelled
    assert (result.models, list(result.failures)) == ({"alice": 1.0}, ["bob"])


def remote(type_name, message):
    return RemoteError.of(type_name, worker="bob", call="fit()", message=message, traceback="...")


FAILED = (
    "The following operation failed in the TorchScript interpreter.\n"
    "Traceback:\n  f()\n    ValueError: if odd\n"
)
SCRIPTS = ["script", "raised-in-script", "error-of-another-name", "hints", "script-here"]
CUDA = (
    FAILED
    + "RuntimeError: CUDA error: assert\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\n\n"
)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ConnectionLost("bob", "ws://b:1", "fit()", "closed with code 1006"),
            "connection lost: closed with code 1006",
        ),
        (
            WorkerUnreachable("bob", "ws://b:1", 1.0, 4, "refused"),
            "connection lost: not reached in 4 attempts: refused",
        ),
        (CallTimeout("bob", "fit()", 2.5), "timeout after 2.5 s"),
        (remote("ValueError", "too\nlong"), "failed: ValueError: too"),
        (
            remote("RuntimeError", FAILED + "RuntimeError: shapes differ\n"),
            "failed: RuntimeError: shapes differ",
        ),
        (
            remote("torch.jit.Error", FAILED + "builtins.ValueError: a: b\nc\n"),
            "failed: ValueError: a: b",
        ),
        (remote("torch.jit.Error", FAILED + "Own: too much"), "failed: Own: too much"),
        (remote("RuntimeError", CUDA), "failed: RuntimeError: CUDA error: assert"),
        (RuntimeError(FAILED + "RuntimeError: here\n"), "failed: RuntimeError: here"),
        (RuntimeError("first\nRuntimeError: second"), "failed: RuntimeError: first"),
        (ZeroDivisionError("by zero"), "failed: ZeroDivisionError: by zero"),
        (KeyError(), "failed: KeyError"),
        (remote("Odd\n", "\x1b[2J\u202egone\nmore"), r"failed: Odd\n: \x1b[2J\u202egone"),
        (remote("Odd", "x" * 10_000), "failed: Odd: " + "x" * 987 + "..."),
    ],
    ids=[
        "lost",
        "unreachable",
        "timeout",
        "remote",
        *SCRIPTS,
        "lines",
        "own",
        "wordless",
        "escapes",
        "long",
    ],
)
async def test_a_failure_is_told_with_its_reason(error, reason):
    result = await in_time(run_round([fake("alice", 1.0), fake("bob", error)], fit, timeout=LONG))
    assert result.failures == {"bob": reason}


@pytest.mark.parametrize("timeout", [LONG, None])
async def test_who_cannot_be_reached_does_not_hold_the_others(timeout):
    absent = fake("bob", 2.0, reachable=False)
    absent.connection_attempts = 7
    result = await in_time(run_round([fake("alice", 1.0), absent], fit, timeout=timeout))
    assert result.failures == {"bob": "connection lost: not reached in 7 attempts"}
    assert result.seconds < 5


async def test_who_answers_no_ping_does_not_hold_the_others():
    result = await in_time(
        run_round([fake("alice", 1.0), fake("bob", reachable=False)], fit, timeout=LONG)
    )
    assert result.failures["bob"].startswith("timeout after 0.")
    assert result.failures["bob"].endswith(" s, with no answer to a ping")


async def test_a_round_waits_for_who_is_being_reached_while_it_needs_them():
    absent = fake("bob", 2.0, reachable=False)
    asyncio.get_running_loop().call_later(2 * rounds.CONNECT_GRACE, absent.reachable.set)
    result = await in_time(
        run_round([fake("alice", 1.0), absent], fit, timeout=LONG, min_workers=2)
    )
    assert result.models == {"alice": 1.0, "bob": 2.0}


async def test_who_comes_back_takes_part_in_the_next_round():
    absent = fake("bob", 2.0, reachable=False)
    workers = [fake("alice", 1.0), absent]
    assert list((await in_time(run_round(workers, fit))).models) == ["alice"]
    absent.reachable.set()
    assert list((await in_time(run_round(workers, fit))).models) == ["alice", "bob"]


async def test_too_few_models_at_the_deadline_are_an_error_with_the_reasons():
    workers = [fake("alice", 1.0), fake("bob"), fake("charlie", ValueError("no"))]
    with pytest.raises(QuorumNotReached) as info:
        await in_time(run_round(workers, fit, timeout=0.05, min_workers=2))
    error = info.value
    assert isinstance(error, RuntimeError)
    assert (error.received, error.needed) == (1, 2)
    assert str(error) == (
        "received 1 model; the round needs 2 (min_workers). Failures: "
        "bob: timeout after 0.05 s; charlie: failed: ValueError: no."
    )
    assert workers[1].cancelled


async def test_a_round_ends_as_soon_as_too_many_have_failed():
    waiting = fake("alice")
    with pytest.raises(QuorumNotReached) as info:
        await in_time(run_round([waiting, fake("bob", ValueError("no"))], fit, min_workers=2))
    assert isinstance(info.value.__cause__, ValueError)
    assert info.value.failures == {"bob": "failed: ValueError: no"}
    assert waiting.cancelled


async def test_a_cancelled_round_cancels_its_calls():
    worker = fake("alice")
    task = asyncio.ensure_future(run_round([worker], fit))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await in_time(task)
    assert worker.cancelled


@pytest.mark.parametrize(("ids", "needed"), [("ab", 0), ("ab", 3), ("", 1), ("aa", 1)])
async def test_a_round_that_needs_more_workers_than_there_are_is_refused(ids, needed):
    with pytest.raises(ValueError, match=f"min_workers={needed}"):
        await run_round([fake(worker_id, 1.0) for worker_id in ids], fit, min_workers=needed)


async def train(worker, model, **settings):
    """Do what the tutorial's fit_model_on_worker does."""
    config = make_config(model, **settings)
    config.send(worker)
    loss = await worker.async_fit("blobs")
    return worker.id, (await config.model_ptr.async_get()).obj, loss


async def test_equals_training_in_turn_without_the_one_that_failed():
    def new_workers():
        workers = [sy.VirtualWorker(id=name) for name in ("alice", "bob", "charlie")]
        for seed, worker in enumerate(workers):
            worker.add_dataset(blobs(seed=seed), key="blobs")
        workers[1].remove_dataset("blobs")
        return workers

    workers = new_workers()
    result = await in_time(
        run_round(workers, lambda worker: train(worker, classifier()), timeout=LONG)
    )
    assert list(result.failures) == ["bob"]
    assert "failed: DatasetNotFound: worker 'bob' has no dataset 'blobs'" in result.failures["bob"]
    alone = [(await train(worker, classifier()))[1] for worker in new_workers()[::2]]
    for got, expected in zip(
        utils.federated_avg(result.models).parameters(),
        utils.federated_avg(alone).parameters(),
        strict=True,
    ):
        assert torch.equal(got, expected)


@pytest.mark.parametrize(
    "kind", [torch.jit.script, lambda model: torch.jit.trace(model, blobs().data)]
)
async def test_the_reason_of_a_failure_inside_a_model_is_told(kind, tmp_path):
    workers = [sy.VirtualWorker(id=name) for name in ("alice", "bob")]
    for worker, dtype in zip(workers, (torch.float, torch.double), strict=True):
        worker.add_dataset(sy.BaseDataset(blobs().data.to(dtype), blobs().targets), key="blobs")
    result = await in_time(run_round(workers, lambda worker: train(worker, kind(Classifier()))))
    reason = (
        "failed: RuntimeError: mat1 and mat2 must have the same dtype, but got Double and Float"
    )
    assert result.failures == {"bob": reason}
    assert str(result) == f"received 1 model, 1 failure: bob: {reason}"
    with History(tmp_path / "history") as history:
        history.append(round=1, **result.to_fields())
    assert read_history(tmp_path / "history")[0]["failures"] == {"bob": reason}


async def test_a_virtual_worker_stops_what_timed_out():
    worker = sy.VirtualWorker(id="alice")
    worker.add_dataset(blobs(), key="blobs")
    with pytest.raises(QuorumNotReached):
        await in_time(
            run_round([worker], lambda w: train(w, classifier(), epochs=10**9), timeout=0.1)
        )
    result = await in_time(run_round([worker], lambda w: train(w, classifier()), timeout=LONG))
    assert list(result.models) == ["alice"]


LIES = {
    "nothing": (None, "what `fit` returns: NoneType"),
    "a model alone": (Model(1.0), "what `fit` returns: Model"),
    "a list as the model": (("bob", [1, 2], 0.5), "the model: list"),
    "no number as the loss": (("bob", Model(1.0), torch.ones(2)), "the loss: Tensor"),
    "a text as the loss": (("bob", Model(1.0), "low"), "the loss: str"),
    "a parameter that is infinite": (
        ("bob", Model(math.inf), 0.5),
        "'number': 1 values that are not finite",
    ),
    "a parameter that is no number": (
        ("bob", Model(math.nan), 0.5),
        "'number': 1 values that are not finite",
    ),
}


@pytest.mark.parametrize(("answer", "reason"), LIES.values(), ids=LIES)
async def test_what_is_no_answer_is_the_failure_of_its_worker(answer, reason):
    async def lie(worker):
        return answer if worker.id == "bob" else (worker.id, Model(2.0), None)

    result = await in_time(run_round([fake("alice"), fake("bob")], lie))
    assert result.models == {"alice": 2.0} and result.losses == {"alice": None}
    assert (
        result.failures["bob"].startswith("failed: InvalidReply: worker 'bob' sent")
        and reason in result.failures["bob"]
    )


def noise(sent, trained):
    """Return a model with random parameters of a large scale."""
    noisy, generator = utils.scale_model(trained, 1), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in noisy.parameters():
            parameter.normal_(std=100, generator=generator)
    return noisy


def flipped(sent, trained):
    """Return a model that has gone the other way, and further."""
    return utils.add_model(utils.scale_model(sent, 11), utils.scale_model(trained, -10))


@pytest.mark.parametrize("lie", [noise, flipped], ids=["noise", "flipped signs"])
async def test_one_worker_of_five_spoils_the_mean_and_not_the_robust_averages(lie):
    workers = [sy.VirtualWorker(id=name) for name in ("anna", "ben", "carla", "dan", "mallory")]
    for seed, worker in enumerate(workers):
        worker.add_dataset(blobs(60, seed), key="blobs")
    data, targets = blobs(600, seed=99).data, blobs(600, seed=99).targets

    async def accuracy_with(average, honest=False):
        model = classifier()

        async def fit(worker):
            config = make_config(model, optimizer_args={"lr": 0.5})
            config.send(worker)
            loss = await worker.async_fit("blobs")
            trained = (await config.model_ptr.async_get()).obj
            lies = worker.id == "mallory" and not honest
            return worker.id, lie(model, trained) if lies else trained, loss

        for _ in range(8):
            model = average((await run_round(workers, fit)).models)
        return utils.accuracy(model(data), targets)

    honest = await accuracy_with(utils.federated_avg, honest=True)
    assert await accuracy_with(utils.federated_avg) < honest - 0.25
    for robust in (utils.coordinate_median, utils.trimmed_mean):
        assert await accuracy_with(robust) > honest - 0.1
