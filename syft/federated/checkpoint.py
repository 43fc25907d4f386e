"""Checkpoints: what a run needs to continue after its last finished round.

The result is the same to the bit as that of a run without a break.

    Checkpoint.of(model, round=7, learning_rate=0.08, arguments={"seed": 1}).save("run.safetensors")
    checkpoint = Checkpoint.load("run.safetensors")
    checkpoint.restore(model, arguments={"seed": 1})

A checkpoint is a safetensors file, so reading one runs no code:

    tensor          holds
    --------------  ------------------------------------------------------------------------------
    "model.NAME"    a parameter or buffer of the model
    "server.NAME"   what a server optimizer remembers of a parameter, if there is one
    "scaffold.NAME" control variates of SCAFFOLD, if it is used
    "generator"     state of torch's generator on the CPU, from which the seeds of the rounds come

    metadata        holds
    --------------  ------------------------------------------------------------------------------
    "checkpoint"    JSON: format (3), round, learning_rate, operators of the model, arguments, name
                    and arguments of the server optimizer, or null (format 1 had none), ids of the
                    workers of SCAFFOLD, or null (formats 1 and 2 had none)
    "sha256"        digest of all of the above

A checkpoint is written to a temporary file in the same directory, synced, and renamed, so a crash
leaves either the old file or the new one, never half of one. The digest finds damage that happens
later. Not kept: the state of the workers' optimizers, because workers start each round with a new
one unless they were asked to keep it (keep_optimizer), and the objects that workers hold.

The arguments and operators are kept to be compared: resuming with another model, seed or learning
rate would not fail by itself, it would silently train something else.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch
from torch import nn

from syft.exceptions import CheckpointDamaged, CheckpointMismatch
from syft.federated.scaffold import Scaffold
from syft.federated.seeding import program_state, set_program_state
from syft.federated.server_optimizer import ServerOptimizer
from syft.files import write_whole
from syft.graph.content import bytes_of
from syft.graph.script import operators as operators_of
from syft.objects import ObjectId

FORMAT = 3
_READABLE = (1, 2, 3)

_MODEL, _SERVER, _SCAFFOLD = "model.", "server.", "scaffold."


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A run after one of its rounds.

    Attributes:
        round: number of the last finished round.
        learning_rate: learning rate of the next round.
        arguments: those of the run's arguments that affect its result; plain values.
        operators: the operators of the model's forward(), in order.
        state: name -> parameter or buffer of the model, on the CPU.
        generator: state of torch's generator on the CPU, (n,) uint8.
        path: where it was loaded from, for errors.
        server_optimizer: name and arguments of the server optimizer; None: there is none.
        server_state: what it remembers, see ServerOptimizer.state().
        scaffold: ids of the workers of SCAFFOLD; None: it is not used.
        control_variates: see Scaffold.state().
    """

    round: int
    learning_rate: float
    arguments: dict[str, Any]
    operators: list[str]
    state: dict[str, torch.Tensor]
    generator: torch.Tensor
    path: str = ""
    server_optimizer: list[Any] | None = None
    server_state: dict[str, torch.Tensor] = field(default_factory=dict)
    scaffold: list[ObjectId] | None = None
    control_variates: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        round: int,
        learning_rate: float,
        arguments: Mapping[str, Any],
        server_optimizer: ServerOptimizer | None = None,
        scaffold: Scaffold | None = None,
    ) -> Checkpoint:
        """Return a checkpoint of the present state.

        It has copies of the model's tensors, of the state of torch's generator, and of what the
        server optimizer and SCAFFOLD remember.
        """
        state = {
            name: tensor.detach().cpu().clone().contiguous()
            for name, tensor in model.state_dict().items()
        }
        operators = operators_of(model)
        return cls(
            round,
            learning_rate,
            dict(arguments),
            operators,
            state,
            program_state(),
            server_optimizer=_named(server_optimizer),
            server_state={} if server_optimizer is None else server_optimizer.state(),
            scaffold=None if scaffold is None else scaffold.workers,
            control_variates={} if scaffold is None else scaffold.state(),
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Return the checkpoint that a file holds.

        Raises:
            CheckpointDamaged: the file cannot be read, is not a checkpoint, or has changed since it
                was written.
        """
        name = os.fspath(path)
        try:
            content = Path(path).read_bytes()
            tensors, metadata = safetensors_torch.load(content), _metadata(content)
        except OSError as reason:
            raise CheckpointDamaged(
                name, f"it cannot be read ({reason.strerror or reason})"
            ) from None
        except SafetensorError as reason:
            raise CheckpointDamaged(
                name, f"it is not a whole safetensors file ({reason})"
            ) from None
        text = metadata.get("checkpoint")
        if text is None:
            raise CheckpointDamaged(name, "it is a safetensors file, but not a checkpoint")
        # The digest comes before anything is read of the text: a damaged file may still be valid
        # JSON.
        observed, expected = _digest(text, tensors), metadata.get("sha256")
        if observed != expected:
            raise CheckpointDamaged(
                name, f"its SHA-256 is {observed}; expected {expected}, as when it was written"
            )
        fields = json.loads(text)
        version = fields.pop("format", None)
        if version not in _READABLE:
            raise CheckpointDamaged(name, f"its format is {version}; expected 1, 2 or 3")
        return cls(
            **fields,
            state=_under(_MODEL, tensors),
            generator=tensors["generator"],
            path=name,
            server_state=_under(_SERVER, tensors),
            control_variates=_under(_SCAFFOLD, tensors),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the checkpoint, whole or not at all, in place of any earlier file.

        Raises:
            OSError: it cannot be written there. An earlier file is left unchanged.
        """
        fields = {
            "format": FORMAT,
            "round": self.round,
            "learning_rate": self.learning_rate,
            "operators": self.operators,
            "arguments": self.arguments,
            "server_optimizer": self.server_optimizer,
            "scaffold": self.scaffold,
        }
        text = json.dumps(fields, sort_keys=True)
        tensors = {
            **{_MODEL + name: tensor for name, tensor in self.state.items()},
            **{_SERVER + name: tensor for name, tensor in self.server_state.items()},
            **{_SCAFFOLD + name: tensor for name, tensor in self.control_variates.items()},
            "generator": self.generator,
        }
        metadata = {"checkpoint": text, "sha256": _digest(text, tensors)}
        write_whole(path, safetensors_torch.save(tensors, metadata))

    def restore(
        self,
        model: nn.Module,
        arguments: Mapping[str, Any],
        server_optimizer: ServerOptimizer | None = None,
        scaffold: Scaffold | None = None,
    ) -> None:
        """Restore the parameters and buffers of `model`, and the state of torch's generator.

        Args:
            model: a model of the saved structure. Modified.
            arguments: the arguments of the resumed run; they must equal those that were saved.
            server_optimizer: the server optimizer of the resumed run, with the saved one's name and
                arguments; it gets its state. Modified. None if there was none.
            scaffold: the Scaffold of the resumed run, with the saved one's workers, in their order;
                it gets its state. Modified. None if there was none.

        Raises:
            CheckpointMismatch: the model, an argument, the server optimizer or the workers of
                SCAFFOLD differ. Nothing is changed then.
        """
        # All comparisons first, so that a mismatch leaves the model as it was.
        self._expect_same("argument", self.arguments, arguments)
        shapes = {name: _shape(tensor) for name, tensor in model.state_dict().items()}
        self._expect_same(
            "parameter", {name: _shape(tensor) for name, tensor in self.state.items()}, shapes
        )
        # Two models may have the same parameters and differ in forward(): relu for tanh, say.
        operators = operators_of(model)
        if self.operators != operators:
            observed, expected = (
                ", ".join(names) or "unknown" for names in (self.operators, operators)
            )
            raise CheckpointMismatch(self.path, "model's forward()", observed, expected)
        # As JSON, which has no tuples.
        workers = None if scaffold is None else scaffold.workers
        for what, *pair in (
            ("server optimizer", self.server_optimizer, _named(server_optimizer)),
            ("SCAFFOLD", self.scaffold, workers),
        ):
            observed, expected = map(json.dumps, pair)
            if observed != expected:
                raise CheckpointMismatch(self.path, what, observed, expected)
        if server_optimizer is not None:
            server_optimizer.load(self.server_state, model)
        if scaffold is not None:
            scaffold.load(self.control_variates)
        model.load_state_dict(self.state)
        set_program_state(self.generator)

    def _expect_same(
        self, kind: str, saved: Mapping[str, Any], expected: Mapping[str, Any]
    ) -> None:
        for name in {**expected, **saved}:
            if name not in saved or name not in expected or saved[name] != expected[name]:
                pair = (str(values.get(name, "missing")) for values in (saved, expected))
                raise CheckpointMismatch(self.path, f"{kind} {name!r}", *pair)


def _named(optimizer: ServerOptimizer | None) -> list[Any] | None:
    """Return the name and the arguments of a server optimizer, in alphabetical order."""
    return (
        None if optimizer is None else [optimizer.name, dict(sorted(optimizer.arguments.items()))]
    )


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with the prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _metadata(content: bytes) -> dict[str, str]:
    """Return the metadata of safetensors data that is known to be whole."""
    (length,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + length]).get("__metadata__") or {}


def _digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {_shape(tensor)}\n".encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def _shape(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"
