"""Runs the operations that a coordinator posts, on the tensors that the worker holds for it.

Each message of a stream has a number, and each is carried out once: one that comes again, after a
connection broke, is skipped; one that is missing ends the stream.

Errors do not stop anything. An operation that fails leaves its error where its results would be: an
operation in place, at what it was to change; a backward, at the gradients of its leaves. What is
computed from these fails with the same error, and asking for a value raises it. So a coordinator
that never waits still learns of the first thing that went wrong, whenever it looks. What was to be
changed has its former value: it is there again once the error has been told.

What has to be told of a tensor here hangs on its storage, which its views share: how many bytes it
has, whether its values are private, whether it belongs to the worker's owner, and since when the
graph has grown that ends in it:

    graph of a tensor     operations number 12, 15, 16 ... of this session, say; alive as long as it
    its span              (12, 16): from the oldest to the newest
    all living nodes      lie in the spans of the storages that the coordinator still has; so the
                          spans together bound the memory that nodes take

What autograd keeps for a backward is counted byte by byte, by hooks on saved tensors.
"""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import torch

from syft.access.limits import Budget, Limits
from syft.commands import ID, check_object
from syft.exceptions import (
    GetNotPermittedError,
    LimitExceeded,
    MalformedMessage,
    ObjectNotFoundError,
    OperationsLost,
    OperatorNotAllowed,
    RemoteOperationFailed,
    SyftError,
)
from syft.graph.kinds import NUMBERS
from syft.objects import ObjectId, is_private
from syft.remote.backward import telling, watch
from syft.remote.memory import GraphMemory, storage_key
from syft.remote.operators import resolve
from syft.wire import Reference

_CHECKED_EVERY = 256
"""Operations after which graphs are measured again."""
_ALSO_WRITES = {
    "aten::native_batch_norm": (3, 4),
    "aten::embedding_renorm_": (0,),
    "aten::rrelu_with_noise": (1,),
}
"""Arguments that operators change, though their schemas do not say so."""


class Objects(Protocol):
    """Where tensors are kept."""

    def own_obj(self, obj_id: ObjectId) -> Any:
        """Return the coordinator's object with this id, or None."""

    def offered_obj(self, obj_id: ObjectId) -> Any:
        """Return the object with this id that the worker's owner offers, or None."""

    def put_obj(self, obj_id: ObjectId, obj: Any) -> None:
        """Keep an object under this id."""

    def own_objects(self) -> dict[ObjectId, Any]:
        """Return all of the coordinator's objects by id."""

    def rm_obj(self, obj_id: ObjectId) -> None:
        """Remove the object with this id, if there is one."""


class _Storage:
    """What is known of the memory of tensors.

    Attributes:
        handles: how many ids tensors in it have.
        size: its bytes, if a result was made in it.
        private: whether its values must not leave the worker.
        protected: whether it belongs to the worker's owner.
        since: number of the oldest operation in the graphs that end in it; None: no graph does.
        until: number of the newest one.
    """

    __slots__ = ("handles", "private", "protected", "since", "size", "until")

    def __init__(self) -> None:
        self.handles = self.size = 0
        self.private = self.protected = False
        self.since: int | None = None
        self.until = 0


class _Used(NamedTuple):
    """An argument of an operation, and what is known of its memory."""

    tensor: torch.Tensor
    storage: _Storage


class Executor:
    """Runs the operations of one coordinator.

    Args:
        worker: the worker's id, for errors.
        objects: the coordinator's objects.
        limits: how much it may use.
        store: stores an object that the coordinator sent, as syft/commands.py describes one.
        hold: counts so many more objects and bytes, or fewer, and raises LimitExceeded if that is
            too many; None: nobody counts them.
    """

    def __init__(
        self,
        worker: str,
        objects: Objects,
        limits: Limits,
        store: Callable[[Mapping[str, Any]], None],
        hold: Callable[[int, int], None] | None = None,
    ) -> None:
        self._worker = worker
        self._objects = objects
        self._limits = limits
        self._store = store
        self._hold = hold or (lambda objects, size: None)
        # A call that ran beyond its time and cannot be ended may still be in here.
        self._lock = threading.RLock()
        self._stream: int | None = None
        self._next = 0
        self._told: tuple[int, RemoteOperationFailed] | None = None
        # Errors in place of results; of changes in place; of gradients.
        self._failed: dict[ObjectId, RemoteOperationFailed] = {}
        self._unchanged: dict[ObjectId, RemoteOperationFailed] = {}
        self._no_gradient: dict[ObjectId, RemoteOperationFailed] = {}
        self._storages: dict[int, _Storage] = {}
        self._homes: dict[ObjectId, int] = {}
        self._results: set[ObjectId] = set()  # those of the tensors at home that were made here
        self._borrowed: dict[ObjectId, tuple[torch.Tensor, torch.Tensor]] = {}
        # What torch's linear algebra checks in an operation of its own: info -> all results.
        self._checked_later: dict[ObjectId, list[ObjectId]] = {}
        self._leaving: deque[ObjectId] = deque()
        self._is_ended = False
        self._count = self._check_at = self._graph_size = 0
        self._graph = GraphMemory(worker, limits.graph_bytes)
        self._commands: dict[str, Callable[..., Any]] = {
            "set": self._set,
            "backward": self._backward,
            "grad": self._gradient,
            "set_grad": self._set_gradient,
            "requires_grad": self._requires_grad,
            "delete": self._remove,
        }

    def run(
        self,
        stream: int,
        number: int,
        operations: Sequence[Any],
        values: Sequence[ObjectId],
        geometries: Sequence[ObjectId],
        budget: Budget,
    ) -> dict[str, Any]:
        """Carry out the operations of one message, unless that has been done; return what it asks.

        Args:
            stream: id of the stream of messages; a new one starts from 0.
            number: number of this message in it.
            operations: the operations; see syft/commands.py.
            values: ids of the tensors to return.
            geometries: ids of those whose geometry to return.
            budget: what the operations may use.

        Returns:
            values: the tensors, each with its gradient. geometries: of each tensor its shape, its
                strides and the number of its dtype.

        Raises:
            OperationsLost: messages before this one are missing.
            MalformedMessage: an operation is none.
            RemoteOperationFailed: what should have made one of the tensors failed.
            ObjectNotFoundError: there is none of this id.
            GetNotPermittedError: one is private.
        """
        try:
            with self._lock:
                return self._answer(stream, number, operations, values, geometries, budget)
        finally:
            # Once the lock is free: whoever found it taken has left its wish.
            self._sweep_if_idle()

    def _answer(
        self,
        stream: int,
        number: int,
        operations: Sequence[Any],
        values: Sequence[ObjectId],
        geometries: Sequence[ObjectId],
        budget: Budget,
    ) -> dict[str, Any]:
        try:
            self._carry_out(stream, number, operations, budget)
            if self._told is not None and self._told[0] == number:  # the reply may be lost
                raise _again(self._told[1])
            return {
                "values": [self._value(obj_id) for obj_id in values],
                "geometries": [self._geometry(obj_id) for obj_id in geometries],
            }
        except RemoteOperationFailed as error:
            self._told = number, _again(error)
            raise

    def _carry_out(
        self, stream: int, number: int, operations: Sequence[Any], budget: Budget
    ) -> None:
        if stream != self._stream:
            if number != 0:
                raise OperationsLost(self._worker)
            self._stream, self._next, self._told = stream, 0, None
        if number > self._next:
            raise OperationsLost(self._worker)
        if number < self._next:
            return
        for operation in operations:
            _check(operation)
        self._next += 1
        for operation in operations:
            self._run(*operation, budget=budget)

    def _value(self, obj_id: ObjectId) -> dict[str, Any]:
        # Told once: what was to be changed has its former value.
        error = self._unchanged.pop(obj_id, None) or self._no_gradient.pop(obj_id, None)
        if error is not None:
            if error.is_private:
                raise GetNotPermittedError(self._worker, obj_id)
            raise _again(error)
        tensor = self._shown(obj_id)
        gradient = tensor.grad if tensor.is_leaf else None  # torch warns of asking others
        if gradient is not None and self._gradient_is_private(tensor):
            raise GetNotPermittedError(self._worker, obj_id)
        value = tensor.detach()
        return {"obj": value.requires_grad_(tensor.requires_grad), "grad": gradient}

    def _geometry(self, obj_id: ObjectId) -> list[Any]:
        tensor = self._shown(obj_id)
        return [list(tensor.shape), list(tensor.stride()), NUMBERS[tensor.dtype]]

    def delete(self, *ids: ObjectId) -> None:
        """Remove objects, as far as they are there; at the end of a message that is under way."""
        self._leaving.extend(ids)
        self._sweep_if_idle()

    def clear(self) -> None:
        """Forget all that was computed, at the end of a message that is under way.

        Other objects are removed by whoever holds them.
        """
        self._is_ended = True
        self._sweep_if_idle()

    def _sweep_if_idle(self) -> None:
        # Whoever asks does not wait for a message of operations, which may take long.
        if self._lock.acquire(blocking=False):
            try:
                self._sweep()
            finally:
                self._lock.release()

    def _sweep(self) -> None:
        while self._leaving:
            self._remove(self._leaving.popleft())
        if self._is_ended:
            self._is_ended = False
            for obj_id in list(self._homes):
                self._remove(obj_id)
            for errors in (self._failed, self._unchanged, self._no_gradient):
                errors.clear()

    def _remove(self, *ids: ObjectId) -> None:
        for obj_id in ids:
            for errors in (self._failed, self._unchanged, self._no_gradient):
                errors.pop(obj_id, None)
            self._borrowed.pop(obj_id, None)
            self._checked_later.pop(obj_id, None)
            self._objects.rm_obj(obj_id)
            key = self._homes.pop(obj_id, None)
            if key is not None:
                self._leave(key, is_result=obj_id in self._results)
            self._results.discard(obj_id)

    def is_private(self, tensor: Any) -> bool:
        """Return whether a tensor's values must not leave the worker."""
        if is_private(tensor):
            return True
        storage = (
            self._storages.get(storage_key(tensor)) if isinstance(tensor, torch.Tensor) else None
        )
        return storage is not None and storage.private

    # One operation

    def _run(
        self, name: str, results: list[Any], arguments: list[Any], keywords: dict[str, Any],
        site: int, with_gradients: bool, seed: int | None, *, budget: Budget,
    ) -> None:  # fmt: skip
        self._count += 1
        if name == "delete":
            self._remove(*arguments)
            return
        try:
            budget.check(0)
            command = self._commands.get(name)
            if command is None:
                self._operate(name, results, arguments, keywords, with_gradients, seed, budget)
                return
            with torch.enable_grad():
                made = command(*arguments, *((budget,) if name == "backward" else ()))
            if made is not None:
                self._keep(results, [made], [])
        except Exception as error:
            failed = _failed(self._worker, name, error, site)
            failed.is_private |= any(map(self._refers_to_private, _references(arguments)))
            self._poison(name, results, arguments, failed)

    def _operate(
        self, name: str, results: list[Any], arguments: list[Any], keywords: dict[str, Any],
        with_gradients: bool, seed: int | None, budget: Budget,
    ) -> None:  # fmt: skip
        operator = resolve(name)
        if operator is None:
            raise OperatorNotAllowed(
                name[:100], "an operation on remote tensors", "Call .get() first, and do it here."
            )
        if not keywords.keys() <= set(operator.keywords):
            raise MalformedMessage(f"{name[:100]} takes by name {list(operator.keywords)} only")
        if with_gradients:
            self._check_graphs()
        used: list[_Used] = []
        values = [self._resolved(each, used) for each in arguments]
        named = {key: self._resolved(each, used) for key, each in keywords.items()}
        written = _ALSO_WRITES.get(name) or (() if operator.writes is None else (operator.writes,))
        targets = [
            values[place]
            for place in written
            if place < len(values) and isinstance(values[place], torch.Tensor)
        ]
        for target in targets:
            self._check_write(target)
        with torch.set_grad_enabled(with_gradients), self._graph, _seeded(seed):
            made = operator.function(*values, **named)
        outputs = [made] if isinstance(made, torch.Tensor) else list(made or ())
        if with_gradients:
            watch(*(each for each in outputs if isinstance(each, torch.Tensor)))
        self._keep(results, outputs, used)
        if name.endswith("_ex") and results:
            self._checked_later[results[-1]] = results
        for target in targets:
            self._inherit(self._storages[storage_key(target)], target, used)

    def _keep(self, results: list[Any], outputs: list[Any], used: list[_Used]) -> None:
        if len(results) > len(outputs):
            raise MalformedMessage(f"{len(results)} ids for {len(outputs)} results")
        for obj_id, output in zip(results, outputs, strict=False):
            if obj_id is not None:
                self._keep_one(obj_id, output, used)

    def _keep_one(self, obj_id: ObjectId, output: Any, used: list[_Used]) -> None:
        if not isinstance(output, torch.Tensor):
            raise MalformedMessage(f"a result is a {type(output).__name__}; expected a tensor")
        self._remove(obj_id)
        if any(output is each.tensor for each in used):  # one tensor, two ids
            output = torch.ops.aten.alias(output)
        storage = self._enter(obj_id, output, is_result=True)
        self._results.add(obj_id)
        self._objects.put_obj(obj_id, output)
        self._inherit(storage, output, used)

    def _enter(self, obj_id: ObjectId, tensor: torch.Tensor, is_result: bool = False) -> _Storage:
        """Note the storage of a tensor. What was sent here has been counted when it came."""
        key, former = storage_key(tensor), self._homes.pop(obj_id, None)
        if former is not None:
            self._leave(former, is_result=obj_id in self._results)
            self._results.discard(obj_id)
        storage = self._storages.get(key) or _Storage()
        if is_result:
            size = 0 if storage.size else tensor.untyped_storage().nbytes()
            self._hold(1, size)
            storage.size += size
        self._storages[key] = storage
        self._homes[obj_id] = key
        storage.handles += 1
        if storage.private or is_private(tensor):
            self._make_private(storage, key, tensor)
        return storage

    def _make_private(self, storage: _Storage, key: int, tensor: torch.Tensor) -> None:
        """Note that the values in the memory of a tensor must not leave the worker.

        The tensors themselves are marked, too, for whoever shows them without asking here.
        """
        storage.private = True
        tensor.private = True  # type: ignore[attr-defined]
        for obj_id, home in self._homes.items():
            obj = self._objects.own_obj(obj_id) if home == key else None
            if obj is not None:
                obj.private = True

    def _leave(self, key: int, is_result: bool) -> None:
        storage = self._storages[key]
        storage.handles -= 1
        gone = 0 if storage.handles else storage.size
        if not storage.handles:
            del self._storages[key]
        self._hold(-1 if is_result else 0, -gone)

    def _inherit(self, storage: _Storage, tensor: torch.Tensor, used: list[_Used]) -> None:
        """Hand on to a result what is known of the arguments."""
        if any(each.storage.private for each in used):
            self._make_private(storage, storage_key(tensor), tensor)
        if tensor.requires_grad and not tensor.is_leaf:
            since = [
                each.storage.since
                for each in used
                if each.storage.since is not None and each.tensor.requires_grad
            ]
            if storage.since is not None:
                since.append(storage.since)
            storage.since = min(since, default=self._count)
            storage.until = self._count

    def _resolved(self, value: Any, used: list[_Used]) -> Any:
        """Return an argument with tensors for its references."""
        kind = type(value)
        if kind is Reference:
            tensor = self._tensor(value.id)
            used.append(_Used(tensor, self._storages[storage_key(tensor)]))
            return tensor
        if kind is list:
            return [self._resolved(each, used) for each in value]
        return value

    def _tensor(self, obj_id: ObjectId) -> torch.Tensor:
        error = self._failed.get(obj_id) or self._unchanged.get(obj_id)
        if error is not None:
            raise _again(error)
        found = self._objects.own_obj(obj_id)
        if found is None:
            found = self._borrow(obj_id)
        if not isinstance(found, torch.Tensor):
            raise ObjectNotFoundError(self._worker, obj_id)
        # It was sent here, or the owner has put it in the place of another.
        if self._homes.get(obj_id) != storage_key(found):
            self._enter(obj_id, found)
        return found

    def _borrow(self, obj_id: ObjectId) -> torch.Tensor | None:
        """Return the coordinator's view of a tensor that the owner offers.

        It shares the values, which nobody may change, and not its gradient.
        """
        # Asked for each time: the owner may have taken it back, or offer another one.
        found = self._objects.offered_obj(obj_id)
        if not isinstance(found, torch.Tensor):
            return None
        former, tensor = self._borrowed.get(obj_id, (None, None))
        if found is not former or tensor is None:
            tensor = found.detach()
            self._borrowed[obj_id] = found, tensor
            self._enter(obj_id, tensor).protected = True
        return tensor

    def _shown(self, obj_id: ObjectId) -> torch.Tensor:
        try:
            tensor = self._tensor(obj_id)
        except RemoteOperationFailed as error:
            # Whether an operation on private values failed, and why, tells of them.
            if error.is_private:
                raise GetNotPermittedError(self._worker, obj_id) from None
            raise
        if self.is_private(tensor):
            raise GetNotPermittedError(self._worker, obj_id)
        return tensor

    def _check_write(self, target: torch.Tensor) -> None:
        if self._storages[storage_key(target)].protected:
            raise PermissionError(
                "it would change a tensor that the worker's owner offers; change a copy of it "
                "(pointer.copy())"
            )

    def _poison(
        self, name: str, results: list[Any], arguments: list[Any], error: RemoteOperationFailed
    ) -> None:
        """Leave an error where the operation would have left its results."""
        if name == "aten::_linalg_check_errors":
            infos = [each.id for each in _references(arguments[:1])]
            results = [obj_id for info in infos for obj_id in self._checked_later.get(info, infos)]
        for obj_id in results:
            if obj_id is not None:
                self._remove(obj_id)
                self._failed[obj_id] = error
        if name == "backward":
            leaves = arguments[3] if len(arguments) > 3 and isinstance(arguments[3], list) else []
            self._no_gradient.update((each.id, error) for each in _references(leaves))
        elif not any(obj_id is not None for obj_id in results):
            # One tensor, or a list of them (aten::_foreach_add_).
            self._unchanged.update({each.id: error for each in _references(arguments[:1])})
        for errors in (self._failed, self._unchanged, self._no_gradient):
            while len(errors) > self._limits.objects:
                errors.pop(next(iter(errors)))

    # Commands

    def _set(self, packed: Mapping[str, Any]) -> None:
        check_object("operate", packed)
        self._remove(packed["id"])
        self._store(packed)

    def _backward(
        self,
        root_id: Reference,
        gradient_id: Reference | None,
        keep: bool,
        leaves_if_it_fails: list[Reference],
        budget: Budget,
    ) -> None:
        root = self._tensor(root_id.id)
        gradient = None if gradient_id is None else self._tensor(gradient_id.id)
        private = self.is_private(root) or (gradient is not None and self.is_private(gradient))
        leaves = list(_leaves_of(root)) if private else []
        made = 0

        def tell(size: int) -> None:
            nonlocal made
            made += size
            budget.check(made)

        told = telling.set(tell)
        try:
            with self._graph:
                torch.autograd.backward(root, gradient, retain_graph=keep)
        finally:
            telling.reset(told)
        for leaf in leaves:
            leaf.private_gradient = True  # type: ignore[attr-defined]

    def _refers_to_private(self, reference: Reference) -> bool:
        return self.is_private(self._objects.own_obj(reference.id))

    def _gradient(self, leaf: Reference) -> torch.Tensor:
        if leaf.id in self._no_gradient:
            raise _again(self._no_gradient[leaf.id])
        tensor = self._tensor(leaf.id)
        if tensor.grad is None:
            raise RuntimeError("there is no gradient: no backward() reached this tensor")
        if self._gradient_is_private(tensor):
            tensor.grad.private = True  # type: ignore[attr-defined]
        return tensor.grad

    def _gradient_is_private(self, leaf: torch.Tensor) -> bool:
        return getattr(leaf, "private_gradient", False) or self.is_private(leaf.grad)

    def _set_gradient(self, leaf: Reference, gradient: Reference | None) -> None:
        self._no_gradient.pop(leaf.id, None)
        self._tensor(leaf.id).grad = None if gradient is None else self._tensor(gradient.id)

    def _requires_grad(self, leaf: Reference, requires_grad: bool) -> None:
        self._tensor(leaf.id).requires_grad_(requires_grad)

    def _check_graphs(self) -> None:
        """Check, now and then, how many operations there may be in the graphs that are alive."""
        if self._count >= self._check_at:
            spans = sorted(
                (each.since, each.until)
                for each in list(self._storages.values())
                if each.since is not None
            )
            total, end = 0, -1
            for since, until in spans:
                total += max(0, until - max(since - 1, end))
                end = max(end, until)
            self._graph_size = total
            self._check_at = self._count + _CHECKED_EVERY
        if self._graph_size > self._limits.graph_operations:
            raise LimitExceeded(
                self._worker,
                "the operations in one coordinator's graphs",
                self._graph_size,
                self._limits.graph_operations,
                "graph_operations",
            )


class _seeded:
    """Has torch draw from a generator of its own while an operation runs."""

    def __init__(self, seed: int | None) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        if self._seed is not None:
            self._state = torch.get_rng_state()
            torch.default_generator.manual_seed(self._seed)

    def __exit__(self, *error: Any) -> None:
        if self._seed is not None:
            torch.set_rng_state(self._state)


def _references(arguments: Any) -> Iterator[Reference]:
    for each in arguments:
        if type(each) is Reference:
            yield each
        elif type(each) is list:
            yield from _references(each)


def _leaves_of(root: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the leaves that a backward from this tensor gives gradients to."""
    waiting, seen = [root.grad_fn], set()
    if root.grad_fn is None and root.requires_grad:
        yield root
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, torch.Tensor):
            yield leaf
        waiting += [each for each, _ in node.next_functions]


def _failed(worker: str, name: str, error: Exception, site: int) -> RemoteOperationFailed:
    if isinstance(error, RemoteOperationFailed):
        return _again(error)
    kind = type(error).__name__
    text = str(error) if isinstance(error, SyftError) else inspect.cleandoc(str(error))
    return RemoteOperationFailed(worker, name[:200], kind, text[:2000], site)


def _again(error: RemoteOperationFailed) -> RemoteOperationFailed:
    """Return an error without the traceback of the former time, which keeps tensors alive."""
    copied = replace(error)
    copied.is_private = error.is_private
    return copied


_KINDS = (str, list, list, dict, int, bool)


def _check(operation: Any) -> None:
    fits = (
        isinstance(operation, list)
        and len(operation) == 7
        and all(map(isinstance, operation, _KINDS))
        and all(each is None or ID.holds(each) for each in operation[1])
        and (operation[6] is None or type(operation[6]) is int)
    )
    if not fits:
        raise MalformedMessage(
            "an operation is malformed; expected [name, ids of results, arguments, keywords, "
            "site, gradients, seed]"
        )
