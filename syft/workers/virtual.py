"""A worker in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Any

import torch

from syft import wire
from syft.dispatch import Dispatcher, describe_call, unwrap
from syft.exceptions import CallTimeout
from syft.federated.federated_client import FederatedClient
from syft.objects import ObjectId
from syft.workers.base import BaseWorker


class VirtualWorker(FederatedClient, BaseWorker):
    """A worker that lives in this process, for experiments and tests; also its own proxy.

    Everything that would travel to a remote worker is encoded and decoded here too, so whatever works with a virtual
    worker also works with a remote one. `fit` and `evaluate`, called directly, run in the calling thread.

    Source: PySyft 0.2.4, `syft.workers.virtual.VirtualWorker`. The arguments are those of BaseWorker.
    """

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
    ) -> None:
        FederatedClient.__init__(self)
        BaseWorker.__init__(self, hook, id, data, is_client_worker, log_msgs, verbose, auto_add)
        self._dispatcher = Dispatcher(self, max_message_bytes, allow_operators, allow_torchscript)
        self._one_at_a_time = threading.Lock()

    def _exchange(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        return self._result(self._dispatcher.handle(self._request(command, arguments), self._session))

    async def _async_exchange(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        request = self._dispatcher.decode(self._request(command, arguments))
        job = self._dispatcher.job(request, self._session)

        def run() -> bytes:
            with self._one_at_a_time:
                return self._dispatcher.run(job)

        try:
            reply = await asyncio.wait_for(asyncio.to_thread(run), timeout)
        except (TimeoutError, asyncio.TimeoutError):
            raise CallTimeout(str(self.id), job.call, timeout or 0) from None
        finally:
            job.abandon()  # nobody waits for it any more; it makes no difference to a job that is done
        return self._result(reply)

    def _result(self, reply: bytes) -> Any:
        return unwrap(reply, self.id)

    def _post(self, command: str, **arguments: Any) -> None:
        self._exchange(command, **arguments)

    def _forget(self, obj_id: ObjectId) -> None:
        self._sent.pop(obj_id, None)
        self.rm_obj(obj_id)

    def _request(self, command: str, arguments: dict[str, Any]) -> bytes:
        arguments = self._count_fits(command, arguments)
        self._note(describe_call(command, (), arguments))
        request = wire.Request(next(self._request_ids), command, arguments)
        return wire.encode(request, self._dispatcher.receiver.allow_torchscript)
