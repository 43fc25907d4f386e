"""Goal 3: evaluation and training on a worker, against plain torch in the same process.

The results are equal.
"""

from __future__ import annotations

from typing import Any

from benchmarks.bench_round import config, traced_model
from benchmarks.harness import Report, Row, ratio_row
from benchmarks.workers import processes, proxies
from syft.workers.threads import cores

LIMIT_EVALUATE, LIMIT_FIT, LIMIT_DIFFERENCE = 0.6, 1.0, 1e-6


def run(smoke: bool = False) -> Report:
    """Measure it."""
    repeats = 1 if smoke else 15
    ids = ["testing", "alice"]
    model = traced_model()
    with (  # threads as the launcher has them
        processes(ids[:1], threads=1 if smoke else cores()) as first,
        processes(ids[1:]) as second,
        proxies(ids, first + second) as (testing, alice),
    ):
        return Report([*_evaluate(testing, model, repeats), *_fit(alice, model, repeats)])


def _evaluate(testing: Any, model: Any, repeats: int) -> list[Row]:
    model.eval()
    config(model, batch_size=128).send(testing)
    testing.evaluate("mnist_testing")
    found = testing.call("compare_evaluate", "mnist_testing", model, repeats)
    (loss, correct), (plain_loss, plain_correct) = found["ours"], found["plain"]
    against = "a loop in batches of 128"
    what = "evaluation of 10,000 images"
    return [
        ratio_row(3, what, found["ours_seconds"], found["plain_seconds"], LIMIT_EVALUATE, against),
        Row(
            3,
            f"{what}: difference of the loss",
            [abs(loss - plain_loss)],
            "",
            LIMIT_DIFFERENCE,
            f"loss {loss:.6f}",
        ),
        Row(
            3,
            f"{what}: difference of the count",
            [abs(correct - plain_correct)],
            "",
            0,
            f"{correct} correct",
        ),
    ]


def _fit(alice: Any, model: Any, repeats: int) -> list[Row]:
    config(model).send(alice)
    alice.fit("mnist")
    found = alice.call("compare_fit", "mnist", model, repeats)
    what = "ten training batches"
    return [
        ratio_row(3, what, found["ours"], found["plain"], LIMIT_FIT, "plain torch"),
        Row(
            3,
            f"{what}: largest difference of a parameter",
            [found["difference"]],
            "",
            LIMIT_DIFFERENCE,
        ),
    ]
