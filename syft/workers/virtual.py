"""A worker in this process."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import torch

from syft import wire
from syft.access.audit import AuditLog
from syft.access.guard import Guard
from syft.access.limits import Limits
from syft.access.policy import Policy
from syft.access.privacy import PrivacySpent
from syft.dispatch import Dispatcher
from syft.exceptions import CallTimeout
from syft.federated.federated_client import FederatedClient
from syft.federated.seeding import draw_seed
from syft.objects import ObjectId, ObjectStorage
from syft.remote.stream import LocalStream, Stream
from syft.session import Job
from syft.wire.failures import describe_request, unwrap
from syft.workers.base import BaseWorker, _fit_arguments

# Worker and coordinator are one object here, with one object store: `session.objects` is None, so
# stored objects are the worker's own, and no ledger counts them. The rest is that of a server: the
# same Dispatcher, the same bytes in between, one asynchronous call at a time.


class VirtualWorker(FederatedClient, BaseWorker):
    """A worker that lives in this process, for experiments and tests; also its own proxy.

    Everything that would travel to a remote worker is encoded and decoded here too, so whatever
    works with a virtual worker also works with a remote one, and is refused as there. `fit` and
    `evaluate`, called directly, run in the calling thread.

    Source: PySyft 0.2.4, `syft.workers.virtual.VirtualWorker`.

    Args:
        hook: the TorchHook; accepted for PySyft 0.2 programs, nothing depends on it.
        id: the worker's id.
        data: tensors to store at once.
        is_client_worker: accepted and kept as an attribute.
        log_msgs: whether to keep the calls in `msg_history`.
        verbose: whether to log every call at level INFO rather than DEBUG.
        auto_add: whether `syft.local_worker` shall know this worker by its id.
        max_message_bytes: upper bound on one message.
        allow_operators: operators that models may use beside those of syft/graph/operators.py.
        allow_torchscript: take models that a plain graph cannot carry as TorchScript archives.
        limits: how much coordinators may use; None: as class Limits says. Their objects are not
            counted here: coordinator and worker share one store.
        policy: what they may ask for; None: everything that the worker offers.
        audit_path: file for the audit log (syft/access/audit.py); None: no audit log.

    Raises:
        ValueError: the policy has privacy, and `allow_torchscript` is set.
        OSError: the audit log cannot be opened.
    """

    # Whether who holds this object is a coordinator; of a server, it is the owner.
    _is_own_proxy = True

    def __init__(
        self,
        hook: Any = None,
        id: ObjectId = 0,
        data: Iterable[torch.Tensor] | None = None,
        is_client_worker: bool = False,
        log_msgs: bool = False,
        verbose: bool = False,
        auto_add: bool = True,
        max_message_bytes: int = wire.MAX_MESSAGE_BYTES,
        allow_operators: Iterable[str] = (),
        allow_torchscript: bool = False,
        limits: Limits | None = None,
        policy: Policy | None = None,
        audit_path: str | os.PathLike[str] | None = None,
    ) -> None:
        # Opened now: a worker that could not write its log should not be known to anybody.
        audit = AuditLog(audit_path) if audit_path is not None else None
        guard = Guard(str(id), limits, policy, audit)
        self._has_rules = any(each is not None for each in (limits, policy, audit))
        super().__init__(
            hook=hook,
            id=id,
            data=data,
            is_client_worker=is_client_worker,
            log_msgs=log_msgs,
            verbose=verbose,
            auto_add=auto_add,
        )
        self._dispatcher = Dispatcher(
            self, max_message_bytes, allow_operators, allow_torchscript, guard
        )
        self._one_at_a_time = threading.Lock()
        self._operations = LocalStream(str(id), draw_seed, self._operate)

    def privacy_spent(self) -> PrivacySpent | None:
        """Return where this worker's privacy budget stands; None if its policy has no privacy.

        Coordinators may ask for it, too, unless `Policy(calls=...)` leaves it out. It tells nothing
        of the samples but their number: epsilon follows from the noise, the steps, and the share of
        the samples that a step draws.
        """
        if self._is_asked_directly():
            return self._privacy_spent(self.call("privacy_spent"))
        account = self._dispatcher.guard.policy.privacy
        return None if account is None else account.told()

    def fit(
        self, dataset_key: str, device: str | torch.device = "cpu", **kwargs: Any
    ) -> torch.Tensor | None:
        """Train as FederatedClient.fit does; if this worker has rules, as a call that they bound.

        Args:
            dataset_key: key of the dataset.
            device: where to train.
            **kwargs: as for FederatedClient.fit.
        """
        if self._is_asked_directly():
            loss: torch.Tensor | None = self.call(
                "fit", **_fit_arguments(dataset_key, device), **kwargs
            )
            return loss
        return super().fit(dataset_key, device, **kwargs)

    def evaluate(self, dataset_key: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Evaluate as FederatedClient.evaluate does; if this worker has rules, as `fit` does.

        Args:
            dataset_key: key of the dataset.
            *args: as for FederatedClient.evaluate.
            **kwargs: as for FederatedClient.evaluate.
        """
        if self._is_asked_directly():
            result: dict[str, Any] = self.call("evaluate", dataset_key, *args, **kwargs)
            return result
        return super().evaluate(dataset_key, *args, **kwargs)

    def _is_asked_directly(self) -> bool:
        """Return whether a coordinator has called a method of this object that has to be bounded.

        Within a call it has been bounded already.
        """
        return self._has_rules and self._is_own_proxy and self._running_call() is None

    def _exchange(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        job = self._dispatcher.accept(self._request(command, arguments), self._session)
        return self._result(
            self._dispatcher.run(job) if timeout is None else self._run_in_time(job, timeout)
        )

    def _run_in_time(self, job: Job, seconds: float) -> bytes:
        """Run a job in a thread of its own, for no longer than these seconds.

        The thread ends by itself.
        """
        reply: Future[bytes] = Future()
        # The thread sees the call that this one is part of, if a method of a worker makes it.
        context = contextvars.copy_context()
        work = lambda: reply.set_result(context.run(self._dispatcher.run, job))  # noqa: E731
        threading.Thread(target=work, name=f"call-{self.id}", daemon=True).start()
        try:
            return reply.result(seconds)
        except FutureTimeout:
            raise CallTimeout(str(self.id), job.call, seconds) from None
        # Of no effect on a job that is done.
        finally:
            job.abandon()

    async def _async_exchange(
        self, command: str, timeout: float | None = None, **arguments: Any
    ) -> Any:
        job = self._dispatcher.accept(self._request(command, arguments), self._session)

        # As on a server: calls take turns, whatever number of coroutines wait for theirs.
        def run() -> bytes:
            with self._one_at_a_time:
                return self._dispatcher.run(job)

        try:
            reply = await asyncio.wait_for(asyncio.to_thread(run), timeout)
        except (TimeoutError, asyncio.TimeoutError):
            raise CallTimeout(str(self.id), job.call, timeout or 0) from None
        finally:
            job.abandon()  # nobody waits for it any more; no difference to a job that is done
        return self._result(reply)

    def _result(self, reply: bytes) -> Any:
        return unwrap(reply, self.id)

    def _post(self, command: str, **arguments: Any) -> None:
        self._exchange(command, **arguments)

    def _forget(self, obj_id: ObjectId) -> None:
        self._sent.pop(obj_id, None)
        self.rm_obj(obj_id)

    @property
    def allows_remote_operations(self) -> bool:
        """Whether coordinators may operate on remote tensors here.

        The coordinator is the owner, so they may, unless the policy rules it out.
        """
        return not self._dispatcher.guard.policy.policy.against_operations

    def _stream(self) -> Stream:
        return self._operations

    @property
    def _shown(self) -> ObjectStorage:
        return self

    def _operate(self, arguments: dict[str, Any]) -> Any:
        job = self._dispatcher.accept(self._request("operate", arguments), self._session)
        reply = self._dispatcher.run(job)
        return self._result(reply) if reply else None

    def _request(self, command: str, arguments: dict[str, Any]) -> bytes:
        arguments = self._count_fits(command, arguments)
        self._note(describe_request(command, arguments))
        request = wire.Request(next(self._request_ids), command, arguments)
        return wire.encode(request, self._dispatcher.receiver.allow_torchscript)
