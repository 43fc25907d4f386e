"""Models as a receiver gets them, and structures written by hand."""

import copy
import warnings
from typing import Any

import msgpack
import torch
from torch import nn

from syft.graph import GraphModule, convert, read_structure


def arrived(obj: Any) -> GraphModule:
    """Return a model or function as its receiver has it, in the mode of the sender's."""
    model = convert(obj)
    state, constants = (
        [tensor.clone() for tensor in part] for part in (model.state, model.constants)
    )
    module = GraphModule(read_structure(model.structure), state, constants, model.digest)
    return module.train(getattr(obj, "training", True))


def both(model: nn.Module, *inputs: Any) -> list[tuple[str, Any]]:
    """Return a copy of a model traced, and one scripted."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(copy.deepcopy(model), inputs, check_trace=False)
    with torch.no_grad():
        for own, original in zip(traced.buffers(), model.buffers(), strict=True):
            own.copy_(original)  # a trace in training mode moves the means
    return [("traced", traced), ("scripted", torch.jit.script(copy.deepcopy(model)))]


def fields_of(obj: Any) -> dict[str, Any]:
    """Return the fields of the structure of a model or function."""
    return msgpack.unpackb(convert(obj).structure)


def structure(
    *nodes: Any,
    arguments: tuple[str, ...] = ("x",),
    state: tuple[Any, ...] = (),
    constants: tuple[Any, ...] = (),
    operators: tuple[str, ...] = (),
    result: int = 0,
    **others: Any,
) -> bytes:
    """Return a structure as bytes, whatever it holds."""
    fields = {
        "arguments": [[name] for name in arguments],
        "state": list(state),
        "aliases": {},
        "constants": list(constants),
        "operators": list(operators),
        "nodes": list(nodes),
        "result": result,
    }
    return msgpack.packb(fields | others)


def graph(*nodes: Any, tensors: tuple[torch.Tensor, ...] = (), **fields: Any) -> GraphModule:
    """Return the module of a structure written by hand; `tensors` are those of its constants."""
    return GraphModule(read_structure(structure(*nodes, **fields)), [], list(tensors))


def calls(operator: str, *arguments: Any) -> Any:
    """Return what one operator gives, called from a graph with constants."""
    numbers = [-1 - index for index in range(len(arguments))]
    return graph(
        [0, numbers, 1], operators=(operator,), arguments=(), constants=arguments, result=1
    )()


def of_inputs(operator: str, *inputs: Any) -> Any:
    """Return what one operator gives, called from a graph with its inputs."""
    names = tuple(f"x{index}" for index in range(len(inputs)))
    module = graph(
        [0, list(range(len(inputs))), 1],
        operators=(operator,),
        arguments=names,
        result=len(inputs) + 1,
    )
    return module(*inputs)
