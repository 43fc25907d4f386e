"""A worker whose replies are not what was asked for, in another way in each round.

It lies below the API: what the worker's class returned is exchanged for something else in the
reply.
"""

from collections.abc import Callable
from typing import Any

import torch

from syft import wire
from syft.dispatch import Job
from tests.network import DEADLINE
from tests.processes import Worker

State = dict[str, torch.Tensor]
HONEST, LATE, ODD_FAILURE = "honest", "late", "an odd failure"

LIES_IN_THE_STATE: dict[str, Callable[[State], State]] = {
    "wrong names": lambda state: {f"other.{name}": tensor for name, tensor in state.items()},
    "wrong shapes": lambda state: {name: tensor.unsqueeze(0) for name, tensor in state.items()},
    "wrong dtypes": lambda state: {name: tensor.double() for name, tensor in state.items()},
    "NaN": lambda state: {
        name: torch.full_like(tensor, torch.nan) for name, tensor in state.items()
    },
    "inf": lambda state: {
        name: torch.full_like(tensor, torch.inf) for name, tensor in state.items()
    },
    "another architecture": lambda _: torch.nn.Linear(784, 10).state_dict(),
}
LIES_IN_THE_ANSWER: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda answer: answer | {"state": None, "obj": [1, 2, 3]},
    "None": lambda _: None,
}
LIES = (*LIES_IN_THE_STATE, *LIES_IN_THE_ANSWER, ODD_FAILURE, LATE)


class LyingWorker(Worker):
    """A worker that tells the truth in the first round, then each of the lies, then the truth
    again."""

    def __init__(self, id: str) -> None:
        super().__init__("127.0.0.1", 0, id)
        self._lies = iter((HONEST, *LIES))
        self._lie = HONEST
        self._run_job = self._dispatcher.run
        self._dispatcher.run = self._run_and_lie

    def _run_and_lie(self, job: Job) -> bytes:
        if job.call.startswith("fit("):
            self._lie = next(self._lies, HONEST)
            if self._lie == LATE:
                assert job.abandoned.wait(DEADLINE), "the coordinator still waits"
        frame = self._run_job(job)
        return self._exchanged(job.request_id, frame) if job.call.startswith("get(") else frame

    def _exchanged(self, request_id: int, frame: bytes) -> bytes:
        reply = wire.decode(frame)
        assert isinstance(reply, wire.Reply), reply
        answer = reply.result
        if self._lie in LIES_IN_THE_STATE:
            answer = answer | {"state": LIES_IN_THE_STATE[self._lie](answer["state"])}
        elif self._lie in LIES_IN_THE_ANSWER:
            answer = LIES_IN_THE_ANSWER[self._lie](answer)
        elif self._lie == ODD_FAILURE:
            fields = {"worker": [1], "seconds": "long"}
            return wire.encode(
                wire.Failure(request_id, "CallTimeout\n", "\x1b[2J\nodd", fields, "", "\x00")
            )
        return wire.encode(wire.Reply(request_id, answer))
