"""What can be asked of any worker, whether it lives in this process or behind a socket."""

from __future__ import annotations

import asyncio
import itertools
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch

from syft.access.privacy import PrivacySpent
from syft.exceptions import InvalidReply, MalformedMessage, WorkerNotFoundException
from syft.federated.train_config import TrainConfig
from syft.fits import FitCounter
from syft.graph.returned import is_model, with_state
from syft.objects import (
    ID_PROVIDER,
    ObjectId,
    ObjectPointer,
    ObjectStorage,
    ObjectWrapper,
    pack_object,
    registry,
    unpack_object,
)
from syft.remote.factories import Remote
from syft.remote.multi import MultiPointerTensor
from syft.remote.sending import pointer_to_sent, pointer_to_stored
from syft.remote.stream import Stream
from syft.remote.tensor import PointerTensor
from syft.wire.failures import abbreviated, malformed_reply

logger = logging.getLogger(__name__)


# A proxy trusts no reply: it takes what it expects and refuses the rest. Of a model that comes back
# only the tensors are used, in a copy of the model that was sent (`_sent`), so what a model does is
# never the worker's to decide.


class BaseWorker(ObjectStorage, ABC):
    """A worker as a coordinator sees it.

    Source: PySyft 0.2.4, `syft.workers.base.BaseWorker`. Subclasses carry requests to the worker;
    all public methods are built on five: `_exchange`, `_async_exchange`, `_post`, `_forget` and
    `_stream`.

    Args:
        hook: the TorchHook; accepted for PySyft 0.2 programs, nothing depends on it.
        id: the worker's id, a name or a number.
        data: tensors to store at once.
        is_client_worker: accepted and kept as an attribute.
        log_msgs: whether to keep the calls to this worker, as text, in `msg_history`.
        verbose: whether to log every call at level INFO rather than DEBUG.
        auto_add: whether `syft.local_worker` finds this worker by its id.
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
    ) -> None:
        super().__init__()
        self.hook = hook
        self.id = id
        self.is_client_worker = is_client_worker
        self.log_msgs = log_msgs
        self.verbose = verbose
        self.auto_add = auto_add
        self.msg_history: list[str] = []
        self._request_ids = itertools.count(1)
        self._forget_fits()
        # Models and functions: what comes back of them is tensors only.
        self._sent: dict[ObjectId, Any] = {}
        self.load_data(data)
        if auto_add:
            self.add_worker(self)

    @abstractmethod
    def _exchange(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        """Send a request and return its result, or raise its error."""

    @abstractmethod
    async def _async_exchange(
        self, command: str, timeout: float | None = None, **arguments: Any
    ) -> Any:
        """Send a request and return its result or raise its error; other coroutines go on."""

    @abstractmethod
    def _post(self, command: str, **arguments: Any) -> None:
        """Send a request without waiting for its result; the next exchange raises its error."""

    @abstractmethod
    def _forget(self, obj_id: ObjectId) -> None:
        """Have the worker delete an object soon. Safe to call from `__del__`."""

    @abstractmethod
    def _stream(self) -> Stream:
        """Return the way of operations on remote tensors to the worker."""

    async def _in_thread(self, wait: Callable[[], Any]) -> Any:
        """Call a function that waits for the worker, while other coroutines go on."""
        return await asyncio.to_thread(wait)

    @property
    def _shown(self) -> ObjectStorage | None:
        """Where pointers that the worker holds can be seen; None: nowhere."""
        return None

    async def async_connect(self) -> None:
        """Return when the worker answers. A worker in this process always does."""

    @property
    def connection_attempts(self) -> int:
        """Connection attempts since the last open connection; 0 while there is one."""
        return 0

    # Objects

    def load_data(self, data: Iterable[torch.Tensor] | None) -> None:
        """Store tensors on this worker, each under its attribute `id` or a new one."""
        for tensor in data or ():
            self.register_obj(tensor, getattr(tensor, "id", None) or ID_PROVIDER.pop())

    def send(
        self,
        obj: Any,
        workers: BaseWorker | ObjectId | list[BaseWorker],
        ptr_id: ObjectId | None = None,
        garbage_collect_data: bool | None = None,
        create_pointer: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Send an object from this worker to another one, and return a pointer to it.

        A tensor may go to several; the pointer is then a MultiPointerTensor.

        Args:
            obj: a tensor or an ObjectWrapper; or a TrainConfig, which is sent with its model and
                loss function as its own `send` does, and returned. The other arguments are for
                objects with a pointer.
            workers: the receiving worker, its id, or a list of them; several for a tensor only.
            ptr_id: id of the pointer; None: a new one.
            garbage_collect_data: whether the object goes when the pointer goes. None: yes.
            create_pointer: False: return None; the object stays until it is deleted or fetched.
            **kwargs: accepted for PySyft 0.2 programs and ignored.

        Raises:
            TypeError: `obj` is none of these.
            WorkerNotFoundException: no worker of this process has this id (also a KeyError).
            NotImplementedError: there is more than one receiver of what is no tensor.
        """
        receivers = workers if isinstance(workers, (list, tuple)) else [workers]
        if len(receivers) > 1 and isinstance(obj, torch.Tensor):
            return MultiPointerTensor(
                [self.send(obj, each, None, garbage_collect_data) for each in receivers]
            )
        if len(receivers) != 1:
            raise NotImplementedError(
                f"send() of a {type(obj).__name__} takes one receiving worker; got "
                f"{len(receivers)}. Send to each in turn."
            )
        receiver = self.get_worker(receivers[0])
        if isinstance(obj, TrainConfig):
            return obj.send(receiver)
        collect = create_pointer and garbage_collect_data is not False
        pointer = receiver._send_object(obj, owner=self, ptr_id=ptr_id, collect=collect)
        return pointer if create_pointer else None

    @property
    def remote(self) -> Remote:
        """Functions that make tensors at this worker: `worker.remote.torch.zeros(2)`."""
        return Remote(self)

    def send_obj(self, obj: Any, location: BaseWorker | ObjectId) -> None:
        """Send an object to another worker, where it stays until it is deleted or fetched."""
        self.send(obj, location, create_pointer=False)

    def _send_object(
        self,
        obj: Any,
        owner: Any,
        ptr_id: ObjectId | None = None,
        collect: bool = True,
    ) -> ObjectPointer:
        """Store an object on this worker; return a pointer that `owner` holds."""
        if isinstance(obj, PointerTensor):
            return obj.sent_on(self, owner, ptr_id, collect)
        if isinstance(obj, torch.Tensor):
            return pointer_to_sent(obj, self, owner, ptr_id, collect)
        if not isinstance(obj, ObjectWrapper):
            raise TypeError(
                f"cannot send a {type(obj).__name__}; expected a tensor or an ObjectWrapper."
            )
        self._exchange("set", objects=[self._packed(obj)])
        return self._pointer_to_sent(obj, owner, ptr_id, collect)

    def _send_config(
        self, fields: dict[str, Any], objects: Mapping[ObjectId, ObjectWrapper], owner: Any
    ) -> list[ObjectPointer]:
        """Send a TrainConfig's settings and objects in one message, without waiting."""
        packed = [self._packed(each) for each in objects.values()]
        self._post("train_config", fields=fields, objects=packed)
        return [self._pointer_to_sent(each, owner, id) for id, each in objects.items()]

    def _packed(self, wrapper: ObjectWrapper) -> dict[str, Any]:
        if not isinstance(wrapper.obj, torch.Tensor):
            self._sent[wrapper.id] = wrapper.obj
        return {"id": wrapper.id, **pack_object(wrapper)}

    def _pointer_to_sent(
        self, wrapper: ObjectWrapper, owner: Any, id: ObjectId | None = None, collect: bool = True
    ) -> ObjectPointer:
        return ObjectPointer(
            self, wrapper.id, owner, id, collect, wrapper.tags, wrapper.description
        )

    def request_obj(self, obj_id: ObjectId, location: BaseWorker | ObjectId | None = None) -> Any:
        """Fetch an object from this worker, or from `location`; it is not kept there.

        Raises:
            ObjectNotFoundError: there is no such object (also a KeyError).
        """
        if location is not None:
            return self.get_worker(location).request_obj(obj_id)
        return self._received(obj_id, self._exchange("get", id=obj_id))

    async def async_request_obj(self, obj_id: ObjectId) -> Any:
        """Fetch an object as `request_obj` does, while other coroutines go on."""
        return self._received(obj_id, await self._async_exchange("get", id=obj_id))

    def _received(self, obj_id: ObjectId, answer: Any) -> Any:
        """Return an object as it came back; of a model, only the tensors come back."""
        if not isinstance(answer, dict) or answer.keys() != _FETCHED:
            what = f"the reply with object {obj_id!r}"
            raise InvalidReply(
                str(self.id), what, type(answer).__name__, f"a map with {sorted(_FETCHED)}"
            )
        state = answer.pop("state")
        if state is None and is_model(self._sent.get(obj_id)):
            observed = f"a {type(answer['obj']).__name__}"
            raise InvalidReply(
                str(self.id), f"object {obj_id!r}", observed, "the parameters of a model"
            )
        if state is not None:
            sent = self._sent.get(obj_id)
            if sent is None:
                raise InvalidReply(
                    str(self.id), f"object {obj_id!r}", "a model", "one that this process sent"
                )
            answer["obj"] = with_state(sent, state, str(self.id))
            self._sent.pop(obj_id, None)
        try:
            return unpack_object(obj_id, answer)
        except MalformedMessage as error:
            raise malformed_reply(self.id, error.reason) from None

    def search(self, query: ObjectId | Iterable[ObjectId], *more: ObjectId) -> list[ObjectPointer]:
        """Return pointers to the worker's objects that carry all these tags, or that have this id.

        The objects stay when the pointers go.
        """
        terms = [query] if isinstance(query, (str, int)) else list(query)
        found = self._exchange("search", query=[*terms, *more])
        try:
            return [self._pointer_to(**each) for each in found]
        except (TypeError, ValueError, KeyError) as reason:
            raise malformed_reply(self.id, f"no result of a search: {reason!r}") from None

    def request_search(
        self, query: ObjectId | Iterable[ObjectId], location: BaseWorker | ObjectId
    ) -> list[ObjectPointer]:
        """Search another worker, as its `search` does: PySyft 0.2's name for that."""
        return self.get_worker(location).search(query)

    def _pointer_to(self, **found: Any) -> ObjectPointer:
        if found["shape"] is not None and found["dtype"] is not None:
            return pointer_to_stored(self, **found)
        about = {name: found[name] for name in ("tags", "description")}
        return ObjectPointer(
            self, found["id"], registry.local_worker, garbage_collect_data=False, **about
        )

    def list_objects_remote(self) -> str:
        """Return the mapping from id to object on the worker, as text."""
        return self.call("list_objects")

    def objects_count_remote(self) -> int:
        """Return the number of objects on the worker. Datasets do not count."""
        return self.call("objects_count")

    list_tensors_remote = list_objects_remote  # the names since PySyft 0.2.5
    tensors_count_remote = objects_count_remote

    def clear_objects_remote(self) -> None:
        """Remove this coordinator's objects from the worker."""
        self.call("clear_objects")

    # Calls

    def call(self, name: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Call a method of the worker, and return its result.

        Offered are fit, evaluate, list_objects, objects_count, clear_objects, privacy_spent and the
        public methods that a subclass of this package's workers defines. On a server, fit, evaluate
        and the subclass's methods run one at a time in the compute thread; the other four are
        answered at once.

        Args:
            name: name of the method.
            *args: its arguments: tensors, arrays, models, and plain values.
            timeout: seconds to wait for the result; None: as long as the worker is alive.
            **kwargs: its arguments by name.

        Raises:
            UnknownCommand: the worker offers no such method.
            CallTimeout: there was no result in time.
            RemoteError: the method raised an error; the error is of the same built-in type.
        """
        return self._exchange(
            "call", timeout, name=name, args=list(args), kwargs=_without_return_ids(kwargs)
        )

    async def async_call(
        self, name: str, /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Any:
        """Call a method of the worker as `call` does, while other coroutines go on."""
        arguments = {"name": name, "args": list(args), "kwargs": _without_return_ids(kwargs)}
        return await self._async_exchange("call", timeout, **arguments)

    def _send_msg_and_deserialize(self, command_name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the worker: `call` under PySyft 0.2's name, which subclasses use."""
        return self.call(command_name, *args, **kwargs)

    async def _async_send_msg_and_deserialize(
        self, command_name: str, *args: Any, **kwargs: Any
    ) -> Any:
        """Call a method of the worker; `async_call` under a name like that of its blocking twin."""
        return await self.async_call(command_name, *args, **kwargs)

    async def async_fit(
        self,
        dataset_key: str,
        return_ids: list[ObjectId] | None = None,
        device: str | torch.device = "cpu",
        timeout: float | None = None,
    ) -> torch.Tensor | None:
        """Train as `fit` does, while other coroutines, and so other workers, go on.

        Args:
            dataset_key: key of the dataset on the worker.
            return_ids: accepted for PySyft 0.2 programs and ignored.
            device: where to train.
            timeout: seconds to wait; None: as long as the worker is alive.

        Returns:
            The loss on the last batch, a scalar on the CPU.
        """
        return await self.async_call("fit", timeout=timeout, **_fit_arguments(dataset_key, device))

    async def async_evaluate(
        self,
        dataset_key: str,
        timeout: float | None = None,
        *,
        threshold: float | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Evaluate as `evaluate` does, with the same arguments, while other coroutines go on."""
        arguments = {"dataset_key": dataset_key, **kwargs, **_threshold_argument(threshold)}
        return await self.async_call("evaluate", timeout=timeout, **arguments)

    async def async_privacy_spent(self) -> PrivacySpent | None:
        """Return where the worker's privacy budget stands, as `privacy_spent` does."""
        return self._privacy_spent(await self.async_call("privacy_spent"))

    def _privacy_spent(self, reply: Any) -> PrivacySpent | None:
        """Return a reply that tells where a privacy budget stands, once it is checked."""
        if reply is None:
            return None
        keys = PrivacySpent.__annotations__.keys()
        if (
            not isinstance(reply, dict)
            or reply.keys() != keys
            or not all(isinstance(each, float) and each >= 0 for each in reply.values())
        ):
            expected = f"None, or a map with a number for each of {sorted(keys)}"
            raise InvalidReply(
                str(self.id), "the reply to privacy_spent()", abbreviated(reply), expected
            )
        return cast(PrivacySpent, reply)

    # Other workers

    @property
    def _known_workers(self) -> dict[ObjectId, BaseWorker]:
        return registry.workers

    def get_worker(self, worker: BaseWorker | ObjectId, fail_hard: bool = True) -> Any:
        """Return the worker with this id, or `worker` itself if it is one.

        Args:
            worker: a worker or its id.
            fail_hard: False: return an unknown id unchanged and log a warning, as PySyft 0.2.4 did
                by default.

        Raises:
            WorkerNotFoundException: no worker of this id was made in this process (also a
                KeyError).
        """
        if isinstance(worker, BaseWorker):
            return worker
        if worker not in self._known_workers:
            if fail_hard:
                raise WorkerNotFoundException(worker, sorted(map(str, self._known_workers)))
            logger.warning("worker %s: no worker %r is known in this process", self.id, worker)
        return self._known_workers.get(worker, worker)

    def add_worker(self, worker: BaseWorker) -> BaseWorker:
        """Register a worker under its id, in place of any other worker with that id.

        Return this worker. If the two are of different classes, a warning is logged.
        """
        former = self._known_workers.get(worker.id)
        names = type(worker).__name__, type(former).__name__
        # A class defined anew, in a notebook, is no other one.
        if former is not None and names[0] != names[1]:
            logger.warning(
                "worker %s: this id now means a %s; the %s that had it is forgotten",
                worker.id,
                *names,
            )
        self._known_workers[worker.id] = worker
        return self

    def add_workers(self, workers: Iterable[BaseWorker]) -> BaseWorker:
        """Register workers under their ids. Return this worker."""
        for worker in workers:
            self.add_worker(worker)
        return self

    def remove_worker_from_local_worker_registry(self) -> None:
        """Forget this worker's id."""
        if self._known_workers.get(self.id) is self:
            del self._known_workers[self.id]

    def _forget_fits(self) -> None:
        """Begin to count the fits that are asked of the worker."""
        self._fits = FitCounter()
        self._seed_sent: int | None = None

    def _count_fits(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Count the fit that a request asks for, and return the request's arguments.

        Those of a config come with the count so far.
        """
        # See syft/fits.py: the worker may have been started anew since the last config.
        if command == "train_config":
            self._seed_sent = arguments["fields"].get("seed")
            return {**arguments, "fits": self._fits.so_far(self._seed_sent)}
        if command == "call" and arguments["name"] == "fit":
            self._fits.next(self._seed_sent)
        return arguments

    def _note(self, call: str) -> None:
        if self.log_msgs:
            self.msg_history.append(call)

    def __str__(self) -> str:
        return f"<{type(self).__name__} id:{self.id} #objects:{self.objects_count()}>"

    __repr__ = __str__


_FETCHED = {"obj", "state", "wrapped", "tags", "description"}


def _fit_arguments(dataset_key: str, device: str | torch.device) -> dict[str, Any]:
    """Leave out a device that was not chosen.

    So methods that override fit() need not know it.
    """
    arguments: dict[str, Any] = {"dataset_key": dataset_key}
    if str(device) != "cpu":
        arguments["device"] = device
    return arguments


def _threshold_argument(threshold: float | None) -> dict[str, float]:
    """Leave out a threshold that was not given.

    So methods that override evaluate() need not know it.
    """
    return {} if threshold is None else {"threshold": threshold}


def _without_return_ids(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "return_ids"}
