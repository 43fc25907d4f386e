"""TorchScript: the graph of a model that a user has traced or scripted.

torch warns that `torch.jit` is deprecated. Users of the tutorial cannot act on that, so the warning
is silenced here, once. By default nothing of TorchScript crosses the wire; with allow_torchscript,
wire/messages.py saves an archive and receive.py loads it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from syft.exceptions import NotScriptable


def silence() -> None:
    """Ignore torch's warning from now on; its category depends on the version of torch."""
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=category)


silence()

ScriptModule = torch.jit.ScriptModule
ScriptFunction = torch.jit.ScriptFunction


def is_script(obj: object) -> bool:
    """Return whether `obj` is a traced or scripted model or function."""
    return isinstance(obj, (ScriptModule, ScriptFunction))


def to_script(obj: nn.Module | Callable[..., Any]) -> Any:
    """Return `obj` as TorchScript.

    It is `obj` itself if that is traced or scripted already, else compiled by torch.jit.script.

    Raises:
        NotScriptable: torch.jit.script cannot compile it.
    """
    if is_script(obj):
        return obj
    try:
        return _compiled(obj)
    except Exception as reason:
        # the compiler raises RuntimeError, OSError, SyntaxError, NotSupportedError, ...
        first_lines = " ".join(str(reason).split())[:300]
        raise NotScriptable(describe(obj), f"{type(reason).__name__}: {first_lines}") from reason


def _compiled(obj: Any) -> Any:
    try:
        return torch.jit.script(obj)
    except SystemError:
        # Python 3.11's `ast` counts its recursion wrongly where another thread parses meanwhile, as
        # traceback does for each line that it underlines. The next attempt is alone.
        return torch.jit.script(obj)


def clone(model: nn.Module) -> Any:
    """Return an independent copy of a plain, traced or scripted model.

    The copy's parameters can be trained.

    copy.deepcopy alone does not do for TorchScript: its copies are results of a differentiable
    clone, not leaves.
    """
    with torch.no_grad():
        copied = copy.deepcopy(model)
    for original, parameter in zip(model.parameters(), copied.parameters(), strict=True):
        parameter.requires_grad_(original.requires_grad)
    return copied


def operators(model: nn.Module) -> list[str]:
    """Return the operators of a traced or scripted model's forward(), in order.

    There are none for a plain model. They stay the same when the model travels, so with the shapes
    of its parameters they tell models apart.
    """
    if not isinstance(model, ScriptModule):
        return []
    return [
        node.kind()
        for node in nodes_of(model.inlined_graph)
        if not node.kind().startswith("prim::")
    ]


def nodes_of(block: Any) -> Iterator[Any]:
    """Yield the nodes of a graph or block in order, those of inner blocks included."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes_of(inner)


def loss_of(loss_fn: Callable[..., Any]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a function of predictions and targets, in this order, that calls `loss_fn`.

    It calls by name where `loss_fn` names its arguments `pred` and `target`, else in that order:
    PySyft 0.2.4 called by name in fit() and by position in evaluate(), and this works for both
    habits.
    """
    if {"pred", "target"} <= _argument_names(loss_fn):
        return lambda pred, target: loss_fn(pred=pred, target=target)
    return loss_fn


def named_tensors(module: nn.Module | None) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers by name, each under all of its names."""
    if module is None:
        return {}
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def structure_key(script: Any) -> tuple[tuple[Any, ...] | None, list[Any]]:
    """Return what the graph of a traced or scripted model depends on, to be compared.

    It is None if that cannot be told.

    The types of its modules hold the code and the constants; what is left are attributes. A type is
    told by its id(), which is its own as long as the type is kept: so keep the types, which are
    returned too, with the key.
    """
    types: list[Any] = []
    tensors = named_tensors(script)
    places: dict[int, int] = {}  # tells which of them are the same tensor
    key: list[Any] = [
        (
            name,
            tensor.dtype,
            tensor.shape,
            tensor.requires_grad,
            places.setdefault(id(tensor), len(places)),
        )
        for name, tensor in tensors.items()
    ]
    module: Any
    for path, module in script.named_modules(remove_duplicate=False):
        types.append(module._c._type())
        key.append((path, id(types[-1])))
        for name in sorted(module._concrete_type.get_attributes()):
            if name != "training" and f"{path}.{name}".lstrip(".") not in tensors:
                value = module._c.getattr(name)
                if not _is_plain(value):
                    return None, types
                key.append((name, repr(value)))
    return tuple(key), types


def describe(obj: object) -> str:
    """Return what a model or function is called in errors."""
    kind = "model" if isinstance(obj, nn.Module) else "function"
    name = (
        getattr(obj, "__name__", None) or getattr(obj, "original_name", None) or type(obj).__name__
    )
    return f"{kind} {name!r}"


def _is_plain(value: Any) -> bool:
    """Return whether repr() tells all of a value."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, (bool, int, float, str, type(None)))


def _argument_names(function: Any) -> set[str]:
    names = getattr(function, "graph_arguments", None)  # a graph's
    if names is not None:
        return set(names)
    if is_script(function):
        script: Any = function.forward if isinstance(function, ScriptModule) else function
        return {argument.name for argument in script.schema.arguments}
    code = getattr(function, "__code__", None)
    return set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]) if code else set()
