"""The commands that a worker answers.

What is not in this table is refused, before anything is done or stored.

    command       argument     is                                      a server answers it in
    ------------  -----------  --------------------------------------  -----------------------------
    call          name         str of at most 256 characters           the compute thread, in turn;
                  args         list of values                          list_objects, objects_count,
                  kwargs       map of such names to values             clear_objects, privacy_spent:
                                                                       any thread
    cancel        request_id   int                                     the event loop
    delete        ids          list of ids                             any thread
    get           id           id                                      any thread
    operate       stream       int                                     the compute thread, in turn
                  number       int from 0 to 2**63 - 1
                  operations   list of at most 4,096 operations
                  values       list of at most 4,096 ids
                  geometries   list of at most 4,096 ids
                  answer       bool
    search        query        list of at most 64 ids or tags          any thread
    set           objects      list of at most 4,096 objects           the event loop
    train_config  fields       map, see TRAIN_CONFIG                   the event loop
                  fits         int from 0 to 2**63 - 1; 0 if left out
                  objects      list of at most 4,096 objects, set first; none if left out

    id     int of 64 bits, or str of at most 256 characters
    object a map: id          id
                  obj         value
                  wrapped     bool
                  tags        list of up to 64 str of 256 characters
                  description str of up to 4,096 characters, or None
    value  whatever the wire carries, nested at most 100 levels deep; tensors and arrays have at
           most 64 dimensions

Frames of many bytes are answered in a thread in any case.

`operate` carries operations on remote tensors, in order and each once (syft/remote/executor.py).
The messages of a stream are numbered from 0 on. Unless `answer` is true, a reply comes only if the
message is refused as a whole: operations that fail leave their errors where their results would be.
The reply has the values and geometries that were asked for. An operation is a list:

    name        str: an ATen operator with its overload, "aten::add.Tensor"; or a command below
    results     list: an id for each result, None for one that is not kept or is an argument
    arguments   list: values, with references (syft/wire/messages.py) for tensors at the worker
    keywords    map: arguments by name
    site        int: where the program posted it; the worker only hands it back, in errors
    gradients   bool: whether autograd records it
    seed        int to seed torch's generator with, or None

    command        arguments                                 what it does
    -------------  ----------------------------------------  ------------------------------------
    backward       tensor, its gradient or None, bool,       computes the gradients of the leaves,
                   list of leaves                            which miss them if it fails; keeps the
                                                             graph, if the bool is true
    delete         ids                                       removes the objects
    grad           tensor                                    its gradient becomes the result
    requires_grad  tensor, bool                              makes it a leaf with gradients, or not
    set            object                                    stores it
    set_grad       tensor, its gradient or None              replaces its gradient
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from syft.exceptions import MalformedMessage
from syft.wire.failures import abbreviated

# Arguments are checked here by type and size only. Whether an id exists, a dataset may be used or
# an optimizer is known is for the command itself to find out.
#
# The bounds are far above what programs use. They keep small what a stranger can make a worker
# store, and repeat in its logs and errors.

MAX_NAME = 256
MAX_TAGS = 64
MAX_DESCRIPTION = 4096
MAX_DIMENSIONS = 64
MAX_SETTING = 1_000_000
MAX_LEVELS = 100
MAX_MANY = 4096

Place = Literal["loop", "thread", "compute"]


@dataclass(frozen=True)
class Kind:
    """What an argument has to be.

    Attributes:
        text: the kind in words, for errors.
        holds: returns whether a value is of it.
    """

    text: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Command:
    """The arguments of a command, which of them may be left out, and where a server answers it."""

    arguments: Mapping[str, Kind]
    place: Place
    optional: frozenset[str] = frozenset()


# Exactly int, since True is an int for isinstance(). The range is what msgpack can carry.
def _is_any(value: Any) -> bool:
    return True


def _is_int(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**64


def _is_number(value: Any) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_NAME


def _is_id(value: Any) -> bool:
    return _is_int(value) or _is_name(value)


def _is_list(value: Any, holds: Callable[[Any], bool], most: int) -> bool:
    return isinstance(value, (list, tuple)) and len(value) <= most and all(map(holds, value))


def _is_map(value: Any, holds: Callable[[Any], bool]) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= MAX_NAME
        and all(map(_is_name, value))
        and _all(holds, value)
    )


def _all(holds: Callable[[Any], bool], value: Mapping[Any, Any]) -> bool:
    return all(map(holds, value.values()))


def _is_value(value: Any, levels: int = MAX_LEVELS) -> bool:
    # Values are gone through recursively later on, to measure what is stored and to encode replies.
    # Bounding the levels here keeps that from ending in a RecursionError.
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.ndim <= MAX_DIMENSIONS
    if isinstance(value, (list, tuple, dict)):
        items = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(_is_value(item, levels - 1) for item in items)
    return True


def _is_setting(value: Any) -> bool:
    """Return whether a value is one that optimizers take.

    It is kept as long as the config is, so it is small.
    """
    if isinstance(value, torch.Tensor):
        return value.numel() <= MAX_TAGS and _is_value(value)
    return _is_scalar(value) or _is_list(value, _is_scalar, MAX_TAGS)


def _is_scalar(value: Any) -> bool:
    if type(value) is int:  # LBFGS makes a list of `history_size` items
        return abs(value) <= MAX_SETTING
    return value is None or isinstance(value, (bool, float)) or _is_name(value)


def _optional(kind: Kind) -> Kind:
    return Kind(f"{kind.text}, or None", lambda value: value is None or kind.holds(value))


_BOUNDS = f"at most {MAX_LEVELS} levels, with tensors of at most {MAX_DIMENSIONS} dimensions"

ID = Kind(f"an integer of 64 bits or a string of at most {MAX_NAME} characters", _is_id)
INT = Kind("an integer of 64 bits", _is_int)
COUNT = Kind(
    "an integer from 0 to 2**63 - 1", lambda value: type(value) is int and 0 <= value < 2**63
)
NUMBER = Kind("a finite number", _is_number)
BOOL = Kind("True or False", lambda value: isinstance(value, bool))
NAME = Kind(f"a string of at most {MAX_NAME} characters", _is_name)
DESCRIPTION = Kind(
    f"a string of at most {MAX_DESCRIPTION:,} characters, or None",
    lambda value: value is None or (isinstance(value, str) and len(value) <= MAX_DESCRIPTION),
)
TAGS = Kind(
    f"a list of at most {MAX_TAGS} strings of at most {MAX_NAME} characters",
    lambda value: isinstance(value, list) and _is_list(value, _is_name, MAX_TAGS),
)
QUERY = Kind(
    f"a list of at most {MAX_TAGS} ids or tags", lambda value: _is_list(value, _is_id, MAX_TAGS)
)
IDS = Kind("a list of ids", lambda value: _is_list(value, _is_id, 2**32))
VALUE = Kind(f"a value of {_BOUNDS}", _is_value)
VALUES = Kind(
    f"a list of values of {_BOUNDS}",
    lambda value: isinstance(value, (list, tuple)) and _is_value(value),
)
NAMED_VALUES = Kind(
    f"a map of names to values of {_BOUNDS}",
    lambda value: _is_map(value, _is_value),
)
SETTINGS = Kind(
    "a map of names to numbers, names, small tensors and short lists of them",
    lambda value: _is_map(value, _is_setting),
)
MANY_IDS = Kind(
    f"a list of at most {MAX_MANY:,} ids", lambda value: _is_list(value, _is_id, MAX_MANY)
)
OPERATIONS = Kind(
    f"a list of at most {MAX_MANY:,} operations", lambda value: _is_list(value, _is_any, MAX_MANY)
)
OBJECTS = Kind(
    f"a list of at most {MAX_MANY:,} objects",
    lambda value: _is_list(value, lambda item: isinstance(item, dict), MAX_MANY),
)
MAP = Kind("a map of names", lambda value: _is_map(value, _is_any))

TRAIN_CONFIG: Mapping[str, Kind] = {
    "id": _optional(ID),
    "model_id": _optional(ID),
    "loss_fn_id": _optional(ID),
    "batch_size": INT,
    "epochs": INT,
    "optimizer": NAME,
    "optimizer_args": _optional(SETTINGS),
    "max_nr_batches": NUMBER,
    "shuffle": BOOL,
    "seed": _optional(INT),
    "keep_optimizer": BOOL,
    "proximal_mu": NUMBER,
    "correction_id": ID,
}
"""What the fields of a TrainConfig have to be; TrainConfig itself refuses unknown ones."""

OBJECT: Mapping[str, Kind] = {
    "id": ID, "obj": VALUE, "wrapped": BOOL, "tags": TAGS, "description": DESCRIPTION,
}  # fmt: skip
"""What the fields of an object have to be."""

COMMANDS: Mapping[str, Command] = {
    "call": Command({"name": NAME, "args": VALUES, "kwargs": NAMED_VALUES}, "compute"),
    "cancel": Command({"request_id": INT}, "loop"),
    "delete": Command({"ids": IDS}, "thread"),
    "get": Command({"id": ID}, "thread"),
    "search": Command({"query": QUERY}, "thread"),
    "operate": Command(
        {
            "stream": INT,
            "number": COUNT,
            "operations": OPERATIONS,
            "values": MANY_IDS,
            "geometries": MANY_IDS,
            "answer": BOOL,
        },
        "compute",
    ),
    "set": Command({"objects": OBJECTS}, "loop"),
    "train_config": Command(
        {"fields": MAP, "fits": COUNT, "objects": OBJECTS}, "loop", frozenset({"fits", "objects"})
    ),
}


def check_arguments(command: str, arguments: Mapping[str, Any]) -> None:
    """Check the arguments of a command of the table.

    Raises:
        MalformedMessage: one is missing, is one too many, or is not what it has to be; it names the
            argument.
    """
    expected = COMMANDS[command].arguments
    # None too many either: they become keyword arguments of a method.
    if not expected.keys() - COMMANDS[command].optional <= arguments.keys() <= expected.keys():
        given = ", ".join(abbreviated(name) for name in arguments) or "none"
        raise MalformedMessage(
            f"command {command!r} has the arguments {given[:MAX_NAME]}; expected {sorted(expected)}"
        )
    _check(command, arguments, expected)
    for obj in arguments.get("objects", ()):
        check_object(command, obj)
    if command == "train_config":
        fields = arguments["fields"]
        _check(
            command, fields, {name: kind for name, kind in TRAIN_CONFIG.items() if name in fields}
        )


def check_object(command: str, obj: Any) -> None:
    """Check that a command carries an object of the table.

    Raises:
        MalformedMessage: it does not.
    """
    if not isinstance(obj, dict) or obj.keys() != OBJECT.keys():
        fields = obj if isinstance(obj, dict) else ()
        given = ", ".join(abbreviated(name) for name in fields) or "none"
        raise MalformedMessage(
            f"command {command!r} has an object with the fields {given[:MAX_NAME]}; "
            f"expected {sorted(OBJECT)}"
        )
    _check(command, obj, OBJECT)


def _check(command: str, arguments: Mapping[str, Any], expected: Mapping[str, Kind]) -> None:
    for name, value in arguments.items():
        kind = expected.get(name)
        if kind is not None and not kind.holds(value):
            observed = f"{abbreviated(value)} ({type(value).__name__})"
            raise MalformedMessage(
                f"command {command!r}: argument {name!r} is {observed}; expected {kind.text}"
            )
