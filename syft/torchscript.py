"""All TorchScript code: what turns models and functions into bytes, and bytes into models.

A model travels as two parts. Its *structure* is a TorchScript archive in which every parameter and buffer is empty;
its *tensors* are those parameters and buffers, by name. The structure is small (9 kB for the tutorial's network)
and stays the same from round to round; the tensors are what training changes.

torch warns that `torch.jit` is deprecated. Users of the tutorial cannot act on that, so the warning is silenced
here, once; when TorchScript has to be replaced, this is the module to replace.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from syft.exceptions import MalformedMessage, NotScriptable, SyftError
from syft.vetting import Memory, load_vetted

warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=FutureWarning)

MAX_STRUCTURES = 32
"""Structures that are remembered: for a connection (any further one travels with its model each time), and in all."""
MAX_STRUCTURE_BYTES = 256 * 1024
"""A larger structure is not remembered either. That of the tutorial's network has 9,829 bytes."""

ScriptModule = torch.jit.ScriptModule
ScriptFunction = torch.jit.ScriptFunction


def is_script(obj: object) -> bool:
    """Return whether `obj` is a traced or scripted model or function."""
    return isinstance(obj, (ScriptModule, ScriptFunction))


def to_script(obj: nn.Module | Callable[..., Any]) -> ScriptModule | ScriptFunction:
    """Return `obj` as TorchScript: itself if it is traced or scripted already, else compiled by torch.jit.script.

    Raises:
        NotScriptable: torch.jit.script cannot compile it.
    """
    if is_script(obj):
        return obj  # type: ignore[return-value]
    try:
        return torch.jit.script(obj)
    except Exception as reason:  # the compiler raises RuntimeError, OSError, SyntaxError, NotSupportedError, ...
        first_lines = " ".join(str(reason).split())[:300]
        raise NotScriptable(_describe(obj), f"{type(reason).__name__}: {first_lines}") from reason


def dump(obj: nn.Module | Callable[..., Any]) -> tuple[bytes, dict[str, torch.Tensor]]:
    """Return the structure and the tensors of a model or function. `obj` is not modified.

    Args:
        obj: a traced or scripted model or function, or a plain one that torch.jit.script compiles.

    Returns:
        The archive's bytes, and name -> tensor of every parameter and buffer (views of the model's own memory).

    Raises:
        NotScriptable: `obj` is plain and cannot be compiled.
    """
    script = to_script(obj)
    if isinstance(script, ScriptFunction):
        if script not in _function_archives:
            _function_archives[script] = _archive_of_function(script)
        return _function_archives[script], {}
    return _archive_of_model(script), {name: tensor.detach() for name, tensor in _named_tensors(script)}


def clone(model: nn.Module) -> Any:
    """Return an independent copy of a plain, traced or scripted model, whose parameters can be trained.

    copy.deepcopy alone does not do for TorchScript: its copies are results of a differentiable clone, not leaves.
    """
    with torch.no_grad():
        copied = copy.deepcopy(model)
    for original, parameter in zip(model.parameters(), copied.parameters(), strict=True):
        parameter.requires_grad_(original.requires_grad)
    return copied


def for_inference(model: Any) -> Any:
    """Return a faster equivalent of a traced or scripted model in eval mode, on the CPU; else the model itself.

    The results differ by rounding only. `model` is not modified.
    """
    if not isinstance(model, ScriptModule) or any(tensor.is_cuda for _, tensor in _named_tensors(model)):
        return model
    try:
        with torch.no_grad():
            return torch.jit.optimize_for_inference(torch.jit.freeze(model))
    except RuntimeError:  # it cannot be frozen
        return model


def load(structure: bytes, tensors: Mapping[str, torch.Tensor], allow_operators: Iterable[str] = ()) -> ScriptModule:
    """Return the model (or function, as a module) that `dump` took apart, on the CPU.

    Args:
        structure: the archive's bytes.
        tensors: name -> tensor; the model takes them over without a copy.
        allow_operators: operators that the model may use beside those of operators.py.

    Raises:
        OperatorNotAllowed: it uses an operator that is not allowed.
        MalformedMessage: the archive cannot be read, or the tensors are not those that it names.
    """
    return fill(load_structure(structure, allow_operators), tensors)


def load_structure(structure: bytes, allow_operators: Iterable[str] = ()) -> ScriptModule:
    """Return the model (or function, as a module) of a structure, on the CPU; its tensors are empty.

    Raises:
        OperatorNotAllowed: it uses an operator that is not allowed.
        MalformedMessage: the archive cannot be read.
    """
    try:
        return load_vetted(structure, allow_operators)
    except SyftError:
        raise
    except Exception as reason:  # torch raises RuntimeError, ValueError, IndexError, ...
        raise MalformedMessage(f"a TorchScript archive cannot be read: {str(reason)[:200]}") from reason


def fill(module: ScriptModule, tensors: Mapping[str, torch.Tensor]) -> ScriptModule:
    """Give a model of empty tensors its own, and return it. The model takes `tensors` over without a copy.

    Raises:
        MalformedMessage: the tensors are not those that the model names.
    """
    places = dict(_named_tensors(module))
    if places.keys() != tensors.keys():
        differing = sorted(places.keys() ^ tensors.keys())
        raise MalformedMessage(f"a model's archive and its tensors do not match: {differing}")
    for name, place in places.items():
        if tensors[name].dtype != place.dtype:
            raise MalformedMessage(f"tensor {name!r} of a model is {tensors[name].dtype}; expected {place.dtype}")
        place.data = tensors[name]
    return module


def operators(model: nn.Module) -> list[str]:
    """Return the operators of a traced or scripted model's forward(), in order; none for a plain model.

    They stay the same when the model travels, so with the shapes of its parameters they tell models apart.
    """
    return _operators(model.inlined_graph) if isinstance(model, ScriptModule) else []


def loss_of(loss_fn: Callable[..., Any]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a function of predictions and targets, in this order, that calls `loss_fn`.

    It calls by name where `loss_fn` names its arguments `pred` and `target`, else in that order: PySyft 0.2.4 called
    by name in fit() and by position in evaluate(), and this works for both habits.
    """
    if {"pred", "target"} <= _argument_names(loss_fn):
        return lambda pred, target: loss_fn(pred=pred, target=target)
    return loss_fn


_function_archives: WeakKeyDictionary[ScriptFunction, bytes] = WeakKeyDictionary()
"""A function never changes, and a loss function goes to each worker in each round."""
_model_archives: Memory[tuple[bytes, list[Any]]] = Memory(MAX_STRUCTURES)
"""A model goes to many workers, round after round. With each archive: the types that its key tells by their id()."""


def _archive_of_model(script: ScriptModule) -> bytes:
    """Return the archive of a model with empty tensors."""
    key, types = _structure_key(script)
    known = _model_archives.get(key) if key is not None else None
    if known is not None:
        return known[0]
    archive = _saved_empty(script)
    unchanged = _structure_key(script)[0] == key  # by another thread, meanwhile
    if key is not None and unchanged and len(archive) <= MAX_STRUCTURE_BYTES:
        _model_archives.add(key, (archive, types))
    return archive


def _saved_empty(script: ScriptModule) -> bytes:
    script = clone(script)
    for _, tensor in _named_tensors(script):
        tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return _archive(script)


def _structure_key(script: ScriptModule) -> tuple[tuple[Any, ...] | None, list[Any]]:
    """Return what the archive of a model with empty tensors depends on, to be compared; None if that cannot be told.

    The types of its modules hold the code and the constants; what is left are attributes. A type is told by its
    id(), which is its own as long as the type is kept: so keep the types, which are returned too, with the key.
    """
    types: list[Any] = []
    tensors = dict(_named_tensors(script))
    places: dict[int, int] = {}  # tells which of them are the same tensor
    key: list[Any] = [
        (name, tensor.dtype, tensor.device, tensor.requires_grad, places.setdefault(id(tensor), len(places)))
        for name, tensor in tensors.items()
    ]
    module: Any
    for path, module in script.named_modules(remove_duplicate=False):
        types.append(module._c._type())
        key.append((path, id(types[-1]), *module._c._method_names()))
        for name in sorted(module._concrete_type.get_attributes()):
            if f"{path}.{name}".lstrip(".") not in tensors:
                value = module._c.getattr(name)
                if not _is_plain(value):
                    return None, types
                key.append((name, repr(value)))
    return tuple(key), types


def _is_plain(value: Any) -> bool:
    """Return whether repr() tells all of a value."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, (bool, int, float, str, type(None)))


def _archive_of_function(script: ScriptFunction) -> bytes:
    return _archive(torch.jit.script(_TwoArguments(script)) if len(_schema_names(script)) > 2 else script)


def _archive(script: ScriptModule | ScriptFunction) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    return buffer.getvalue()


class _TwoArguments(nn.Module):
    """A loss function called with its first two arguments; an archive would drop the defaults of the others."""

    def __init__(self, function: ScriptFunction) -> None:
        super().__init__()
        self.function = function

    def forward(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.function(pred, target)


def _argument_names(function: Callable[..., Any]) -> set[str]:
    if is_script(function):
        return set(_schema_names(function))
    code = getattr(function, "__code__", None)
    return set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]) if code else set()


def _schema_names(script: Any) -> list[str]:
    """Return the names of the arguments of a scripted function, or of a module's forward (self included)."""
    function: Any = script.forward if isinstance(script, ScriptModule) else script
    return [argument.name for argument in function.schema.arguments]


def _operators(block: Any) -> list[str]:
    found: list[str] = []
    for node in block.nodes():
        if not node.kind().startswith("prim::"):
            found.append(node.kind())
        for inner in node.blocks():
            found += _operators(inner)
    return found


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _describe(obj: object) -> str:
    kind = "model" if isinstance(obj, nn.Module) else "function"
    return f"{kind} {getattr(obj, '__name__', type(obj).__name__)!r}"
