"""Stands between coordinators and a worker: checks what they ask, keeps account of what they use, writes it down."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from syft.audit import AuditLog, values_digest
from syft.exceptions import LimitExceeded
from syft.limits import Budget, Ledger, Limits
from syft.objects import ObjectId
from syft.policy import Enforcer, Policy

if TYPE_CHECKING:
    from syft.dispatch import Session


class Guard:
    """The limits, the policy and the audit log of one worker.

    Args:
        worker: the worker's id.
        limits: how much coordinators may use.
        policy: what they may ask for.
        audit: where it is written down; None: nowhere.
    """

    def __init__(
        self, worker: str, limits: Limits | None = None, policy: Policy | None = None, audit: AuditLog | None = None
    ) -> None:
        self.worker = worker
        self.limits = limits or Limits()
        self.policy = Enforcer(worker, policy or Policy())
        self.audit = audit
        self._ledger = Ledger(worker, self.limits)
        self._digests: dict[ObjectId, dict[str, str]] = {}

    def admit(self, session: Session, obj_id: ObjectId, obj: Any, stored: Callable[[], Container[ObjectId]]) -> None:
        """Enter an object that a coordinator is about to store in the ledger.

        Args:
            session: the coordinator.
            obj_id: the object's id.
            obj: the object.
            stored: returns the ids of what is stored; asked before anything is refused.

        Raises:
            LimitExceeded: it is one too many, or too large.
        """
        try:
            self._ledger.add(session.name, obj_id, obj)
        except LimitExceeded:
            self._ledger.keep_only(stored())  # the owner may have removed some
            self._ledger.add(session.name, obj_id, obj)
        if self.audit is not None and isinstance(obj, nn.Module):
            self._digests[obj_id] = {"structure": str(getattr(obj, "graph_digest", "")), "values": values_digest(obj)}

    def forget(self, obj_id: ObjectId) -> None:
        """Strike out an object that is not stored any more."""
        self._ledger.remove(obj_id)
        self._digests.pop(obj_id, None)

    def digest(self, obj_id: ObjectId | None) -> dict[str, str] | None:
        """Return the digests of a stored model, as it was sent; None if there is no audit log."""
        return self._digests.get(obj_id) if obj_id is not None else None

    def permit(
        self, session: Session, name: str, method: Callable[..., Any], args: Any, kwargs: Mapping[str, Any], call: str
    ) -> Budget:
        """Check the call of a method and return what it may use.

        Raises:
            NotPermitted, LimitExceeded: as Enforcer.check_call.
        """
        try:
            self.policy.check_call(name, method, args, kwargs)
        except Exception as error:
            self.record(session, call, type(error).__name__, 0)
            raise
        limits = self.limits
        return Budget(self.worker, limits.call_seconds, self.policy.policy.max_steps_per_fit, bytes=limits.call_bytes)

    def record(
        self,
        session: Session | None,
        call: str,
        outcome: str,
        seconds: float,
        model: dict[str, str] | None = None,
        samples: int | None = None,
    ) -> None:
        """Write a line to the audit log, if there is one."""
        if self.audit is not None:
            who = {} if session is None else {**session.who, "session": session.name}
            self.audit.write(
                worker=self.worker,
                who=who,
                call=call,
                model=model,
                samples=samples,
                outcome=outcome,
                seconds=round(seconds, 3),
            )
