"""What a worker has to know to train or to evaluate."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from syft.federated.seeding import draw_seed
from syft.objects import ID_PROVIDER, Location, ObjectId, ObjectWrapper, registry


class TrainConfig:
    """A model, a loss function and the settings of their training, to be sent to a worker.

    Source: PySyft 0.2.4, `syft.federated.train_config.TrainConfig`. `seed` is new: it makes the
    worker's shuffling and its random layers (dropout) reproducible to the bit, given the same
    worker ids, data and number of threads. The exception: workers that train at the same time in
    one process share torch's generator for random layers.

    Args:
        model: a traced or scripted model; a plain one is compiled by torch.jit.script when it is
            sent. It travels as a plain graph. None if the worker has it already, under `model_id`.
        loss_fn: returns the mean loss of a batch, given `pred` and `target` (or two arguments with
            other names, in that order); traced, scripted or plain. None if the worker has it
            already, under `loss_fn_id`.
        owner: the worker this config belongs to; None: the local worker.
        batch_size: samples per batch, for training and evaluation.
        epochs: passes over the worker's dataset; 0: none, and fit() returns None.
        optimizer: name of any optimizer of torch.optim.
        optimizer_args: its arguments. Not modified. None: torch's defaults.
        id: id of this config; None: a new one.
        max_nr_batches: upper bound on the training steps of one fit(), over all its epochs.
            Negative: no bound.
        shuffle: whether to draw the samples in random order.
        loss_fn_id: id of a loss function that the worker holds.
        model_id: id of a model that the worker holds.
        seed: seeds shuffling and random layers on the worker, together with the worker's id and the
            number of the fit: how many fits this proxy has asked of the worker since it last used
            another seed. So each fit draws new batches, even if one config is fitted many times or
            every round's config has the same seed; two workers draw different batches; and a new
            process with new proxies repeats them all. None: drawn from torch's generator when the
            config is made, so that a program that calls torch.manual_seed is reproducible.
        keep_optimizer: whether the optimizer goes on with the state (Adam's moments, momentum) that
            the last such config's fit left at this worker, where optimizer and parameters' shapes
            are the same. Each config's optimizer starts with none otherwise. The state is lost when
            the worker is restarted, and no checkpoint has it. A worker with a privacy budget keeps
            it, too: it follows from noised gradients alone.
        proximal_mu: the worker adds mu / 2 |w - w0|^2 to the loss, where w0 are the trainable
            parameters at the start of the fit. It keeps workers with uneven data from straying far
            from the model that they were sent (FedProx; Li et al., MLSys 2020,
            https://arxiv.org/abs/1812.06127). 0: nothing is added.
        correction: name of each trainable parameter -> tensor of its shape and dtype, finite. The
            worker adds them to the gradients of each step, before the optimizer makes it; a worker
            with a privacy budget adds them to its noised gradients, at no cost, since they say
            nothing of its data that it has not told before. The loss does not count them.
            Scaffold makes such corrections. None: nothing is added.
        correction_id: id of a correction that the worker holds.

    Attributes:
        model_ptr: pointer to the model on the worker, once sent.
        loss_fn_ptr: pointer to the loss function on the worker, once sent.
        correction_ptr: pointer to the correction on the worker, once sent.

    Raises:
        ValueError: `batch_size` is no integer above 0, `epochs` no integer of at least 0, `seed` no
            integer, or `proximal_mu` no number of at least 0.
    """

    def __init__(
        self,
        model: nn.Module | None,
        loss_fn: Callable[..., Any] | None,
        owner: Any = None,
        batch_size: int = 32,
        epochs: int = 1,
        optimizer: str = "SGD",
        optimizer_args: Mapping[str, Any] | None = {"lr": 0.1},
        id: ObjectId | None = None,
        max_nr_batches: int = -1,
        shuffle: bool = True,
        loss_fn_id: ObjectId | None = None,
        model_id: ObjectId | None = None,
        seed: int | None = None,
        keep_optimizer: bool = False,
        proximal_mu: float = 0.0,
        correction: Mapping[str, torch.Tensor] | None = None,
        correction_id: ObjectId | None = None,
    ) -> None:
        self.owner = owner if owner is not None else registry.local_worker
        self.id = ID_PROVIDER.pop() if id is None else id
        self.location: Location | None = None
        self.model = model
        self.loss_fn = loss_fn
        self.batch_size = _integer("batch_size", batch_size, 1)
        self.epochs = _integer("epochs", epochs, 0)
        self.optimizer = optimizer
        self.optimizer_args = None if optimizer_args is None else dict(optimizer_args)
        self.max_nr_batches = max_nr_batches
        self.shuffle = shuffle
        self.seed = draw_seed() if seed is None else _integer("seed", seed)
        self.keep_optimizer = keep_optimizer
        self.proximal_mu = _not_negative("proximal_mu", proximal_mu)
        self.correction = None if correction is None else dict(correction)
        self.model_ptr: Any = None
        self.loss_fn_ptr: Any = None
        self.correction_ptr: Any = None
        self._model_id = model_id
        self._loss_fn_id = loss_fn_id
        self._correction_id = correction_id

    def send(self, location: Location) -> TrainConfig:
        """Send the model, the loss function and the settings to a worker, without waiting for it.

        An error on the worker is raised by the next call to it. The objects stay on the worker
        until they are fetched or their pointers, `model_ptr` for one, are deleted.

        Args:
            location: the worker, or a proxy of it.

        Returns:
            This config.

        Raises:
            NotScriptable: the model or the loss function is plain and torch.jit.script cannot
                compile it.
            NotConvertible: the model or the loss function does something that a plain graph cannot
                express.
            MessageTooLarge: the model is larger than `max_message_bytes` allows.
            ConnectionFailed: the worker cannot be reached. Where an event loop runs, the next call
                raises this.
        """
        fields, names, objects = self.to_fields(), [], {}
        for name in ("model", "loss_fn", "correction"):
            obj = getattr(self, name)
            # A missing model is sent as None; of a missing correction there is no field at all.
            if obj is not None or fields.get(f"{name}_id", 0) is None:
                # PySyft 0.2 takes ids in this order: the object's, then its pointer's.
                wrapper = ObjectWrapper(obj, id=ID_PROVIDER.pop())
                names.append(name)
                objects[ID_PROVIDER.pop()] = wrapper
                fields[f"{name}_id"] = wrapper.id
        pointers = location._send_config(fields, objects, owner=self.owner)
        for name, pointer in zip(names, pointers, strict=True):
            setattr(self, f"{name}_ptr", pointer)
            setattr(self, f"_{name}_id", pointer.id_at_location)
        return self

    def get(self, location: Location | None = None) -> TrainConfig:
        """Return this config; PySyft 0.2 fetched a copy of it."""
        return self

    def get_model(self) -> Any:
        """Fetch the model from the worker, wrapped (`.obj` is the model); None if none was sent."""
        return self.model_ptr.get() if self.model_ptr is not None else None

    def get_loss_fn(self) -> Any:
        """Fetch the loss function from the worker, wrapped; None if none was sent."""
        return self.loss_fn_ptr.get() if self.loss_fn_ptr is not None else None

    def to_fields(self) -> dict[str, Any]:
        """Return the settings as plain values.

        The model and the loss function are there as their ids on the worker.
        """
        return {
            "id": self.id,
            "model_id": self._model_id,
            "loss_fn_id": self._loss_fn_id,
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "optimizer": self.optimizer,
            "optimizer_args": self.optimizer_args,
            "max_nr_batches": self.max_nr_batches,
            "shuffle": self.shuffle,
            "seed": self.seed,
            # Left out otherwise: workers of version 0.1 do not know them, and need not.
            **({"keep_optimizer": True} if self.keep_optimizer else {}),
            **({"proximal_mu": self.proximal_mu} if self.proximal_mu else {}),
            **({} if self._correction_id is None else {"correction_id": self._correction_id}),
        }

    def __str__(self) -> str:
        location = f" location:{self.location.id}" if self.location is not None else ""
        return (
            f"<{type(self).__name__} id:{self.id} owner:{self.owner.id}{location} epochs: "
            f"{self.epochs} batch_size: {self.batch_size} optimizer_args: {self.optimizer_args}>"
        )


def _integer(name: str, number: Any, least: int | None = None) -> int:
    try:
        integer = int(operator.index(number))
    except TypeError:
        integer = None
    if integer is None or (least is not None and integer < least):
        expected = "an integer" if least is None else f"an integer of at least {least}"
        raise ValueError(f"TrainConfig: {name} is {number!r:.60}; expected {expected}.")
    return integer


def _not_negative(name: str, number: Any) -> float:
    if isinstance(number, (int, float)) and 0 <= number < math.inf:
        return float(number)
    raise ValueError(f"TrainConfig: {name} is {number!r:.60}; expected a number of at least 0.")
