"""Stands between coordinators and a worker.

It checks what they ask, keeps account of what they use, and writes it down.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from syft.access.audit import AuditLog, fingerprint, values_digest
from syft.access.limits import Budget, Ledger, Limits
from syft.access.policy import Enforcer, Policy
from syft.exceptions import AuditLogUnavailable
from syft.objects import ObjectWrapper

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """Who asks something of a worker.

    Attributes:
        name: name of the session; "" before there is one.
        who: where the coordinator is and how it showed who it is, for the audit log.
    """

    name: str = field(repr=False)
    who: Mapping[str, Any]


class Guard:
    """The limits, the policy and the audit log of one worker.

    Args:
        worker: the worker's id.
        limits: how much coordinators may use.
        policy: what they may ask for.
        audit: where it is written down; None: nowhere.
    """

    def __init__(
        self,
        worker: str,
        limits: Limits | None = None,
        policy: Policy | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        self.worker = worker
        self.limits = limits or Limits()
        self.policy = Enforcer(worker, policy or Policy())
        self.audit = audit
        self._ledger = Ledger(worker, self.limits)

    def admit(self, caller: Caller, obj: ObjectWrapper | torch.Tensor) -> None:
        """Enter an object that is about to be stored for a coordinator in the ledger.

        Raises:
            LimitExceeded: it is one too many, or too large.
        """
        self._ledger.add(caller.name, obj)

    def hold(self, caller: Caller, objects: int, size: int) -> None:
        """Count results of a coordinator's operations on remote tensors, or fewer of them.

        Raises:
            LimitExceeded: that is too many.
        """
        self._ledger.hold(caller.name, objects, size)

    def digest(self, obj: Any) -> dict[str, str] | None:
        """Return the digests of a wrapped model, as it was sent.

        None if there is no audit log, or no model.
        """
        if (
            self.audit is None
            or not isinstance(obj, ObjectWrapper)
            or not isinstance(obj.obj, nn.Module)
        ):
            return None
        return {
            "structure": str(getattr(obj.obj, "graph_digest", "")),
            "values": values_digest(obj.obj),
        }

    def permit(
        self, name: str, method: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]
    ) -> Budget:
        """Check the call of a method and return what it may use.

        Raises:
            NotPermitted, LimitExceeded: as Enforcer.check_call.
        """
        self.policy.check_call(name, method, args, kwargs)
        # A new budget for each call; only the pool of samples is shared by all of them.
        policy = self.policy.policy
        return Budget(
            self.worker,
            self.limits.call_seconds,
            policy.max_steps_per_fit,
            policy.max_batch_size,
            policy.max_samples_per_call,
            self.policy.pool,
            self.limits.call_bytes,
            self.policy.privacy,
        )

    def record(
        self,
        caller: Caller,
        call: str,
        outcome: str,
        seconds: float,
        model: dict[str, str] | None = None,
        samples: int | None = None,
    ) -> None:
        """Write a line to the audit log, if there is one.

        Raises:
            AuditLogUnavailable: it cannot be written.
        """
        if self.audit is None:
            return
        try:
            self.audit.write(
                worker=self.worker,
                who={**caller.who, "session": fingerprint(caller.name)}
                if caller.name
                else caller.who,
                call=call,
                model=model,
                samples=samples,
                outcome=outcome,
                seconds=round(seconds, 3),
            )
        except OSError as error:
            cause = error.strerror or type(error).__name__
            logger.error("worker %s: its audit log cannot be written: %s", self.worker, cause)
            raise AuditLogUnavailable(self.worker, cause) from None

    def record_refusal(
        self, caller: Caller, call: str, error: Exception, seconds: float = 0
    ) -> None:
        """Write a line as `record` does, for what is refused whether or not it can be written."""
        with contextlib.suppress(AuditLogUnavailable):
            self.record(caller, call, type(error).__name__, seconds)
