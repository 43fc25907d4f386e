"""The wire: messages to bytes and back. No pickle and no eval, in either direction.

Every WebSocket message is binary and holds one message of this protocol. Numbers are big-endian.

    offset  bytes  field
    ------  -----  ------------------------------------------------------------------------------------
         0      4  magic, b"SYFT"
         4      1  version of the protocol, 1
         5      1  kind: 1 request, 2 reply, 3 failure
         6      2  reserved, 0
         8      8  id of the request; its reply or failure carries the same id
        16      4  number of attachments, n
        20     8n  length of each attachment, in bytes
    20+8n       -  the attachments, back to back

    attachment  holds
    ----------  ----------------------------------------------------------------------------------------
             0  the envelope, msgpack: a map with exactly the fields of its kind
             1  all tensors of the message, safetensors, named "0", "1", ...
          2...  TorchScript archives (structures of models and functions, see torchscript.py)

    kind     fields of the envelope
    -------  -------------------------------------------------------------------------------------------
    request  command: str, arguments: map of str to value
    reply    result: value
    failure  type: str, message: str, fields: map, call: str, traceback: str

A value is None, bool, int (64 bits), float, str, bytes, a list, a map, or one of the extension types below. What
is a tuple, a tensor or an array on one side is the same on the other; a float arrives as the same double.

    code  extension type  payload (msgpack)
    ----  --------------  ----------------------------------------------------------------------------
       1  tuple           list of its items
       2  torch.Tensor    [index of the tensor, requires_grad]; arrives on the CPU
       3  numpy.ndarray   index of the tensor
       4  TorchScript     [index of the archive, {name of parameter or buffer: index of the tensor}]
       5  torch.device    its name
       6  TorchScript     [key of a structure that this connection knows, {name: index}], see structures.py

Anything else, and any unknown version, kind, field or code, is refused with an error that names it.
"""

from __future__ import annotations

import functools
import inspect
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import msgpack
import numpy as np
import torch
from torch import nn

from syft import tensors, torchscript
from syft.archive import structure_digest
from syft.exceptions import MalformedMessage, NotSerializable, ProtocolError
from syft.structures import Structures

VERSION = 1
MAX_MESSAGE_BYTES = 512 * 1024 * 1024
"""The default limit for one message, in bytes. The tutorial's largest message has 1.7 million."""

_MAGIC = b"SYFT"
_HEADER = struct.Struct(">4sBBHQI")
_LENGTH = struct.Struct(">Q")
_MAX_ATTACHMENTS = 65_536
_MAX_NESTING = 32  # extension types inside one another; each level takes a piece of the C stack
_TUPLE, _TENSOR, _ARRAY, _SCRIPT, _DEVICE, _KNOWN_SCRIPT = 1, 2, 3, 4, 5, 6


@dataclass
class Request:
    """A command for a worker, with its arguments by name."""

    id: int
    command: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass
class Reply:
    """The result of a request."""

    id: int
    result: Any


@dataclass
class Failure:
    """What went wrong with a request, on the worker.

    Attributes:
        type: name of the exception's type.
        message: the exception's text.
        fields: the facts of an error of this package; empty for any other.
        call: the call that failed, as text.
        traceback: the traceback on the worker.
    """

    id: int
    type: str
    message: str
    fields: dict[str, Any]
    call: str
    traceback: str


Message = Request | Reply | Failure

_KINDS: dict[int, type] = {1: Request, 2: Reply, 3: Failure}
_FIELDS: dict[int, dict[str, type]] = {
    1: {"command": str, "arguments": dict},
    2: {"result": object},
    3: {"type": str, "message": str, "fields": dict, "call": str, "traceback": str},
}


def encode(message: Message, structures: Structures | None = None) -> bytes:
    """Return a message as bytes.

    Args:
        message: the message.
        structures: what this end of the connection knows. Structures of models in a request are added to it, and
            must reach the other end before the request does. None: each model travels with its structure.

    Raises:
        NotSerializable: it holds a value that cannot travel; the error names the value's type.
    """
    kind = next(code for code, cls in _KINDS.items() if cls is type(message))
    packer = _Packer(structures, learns=kind == 1)
    attachments = packer.pack({name: getattr(message, name) for name in _FIELDS[kind]})
    lengths = (_LENGTH.pack(sum(map(len, parts))) for parts in attachments)
    header = _HEADER.pack(_MAGIC, VERSION, kind, 0, message.id, len(attachments))
    return b"".join((header, *lengths, *chain.from_iterable(attachments)))


def decode(frame: bytes, allow_operators: Iterable[str] = (), structures: Structures | None = None) -> Message:
    """Return the message that `frame` holds.

    Args:
        frame: the bytes of one message.
        allow_operators: operators that its models may use beside those of operators.py.
        structures: what this end of the connection knows.

    Raises:
        OperatorNotAllowed: a model or function in it uses an operator that is not allowed.
        MalformedMessage: it does not follow the layout at the top of this module; the reason names the place.
    """
    kind, request_id, parts = _split(frame)
    envelope = _Unpacker(parts[1:], allow_operators, structures).unpack(parts[0])
    expected = _FIELDS[kind]
    if not isinstance(envelope, dict) or envelope.keys() != expected.keys():
        names = sorted(map(str, envelope)) if isinstance(envelope, dict) else type(envelope).__name__
        raise MalformedMessage(f"the envelope of a {_KINDS[kind].__name__} has {names}; expected {sorted(expected)}")
    for name, value in envelope.items():
        if not isinstance(value, expected[name]):
            raise MalformedMessage(f"field {name!r} is {type(value).__name__}; expected {expected[name].__name__}")
    return _KINDS[kind](id=request_id, **envelope)


def peek_id(frame: bytes) -> int:
    """Return the request id of a frame, without reading more than its header; 0 if it has no valid header.

    Raises:
        MalformedMessage: these bytes do not begin with a header of this protocol.
    """
    return _header(frame)[1]


def peek_version(frame: bytes) -> int | None:
    """Return the protocol version of a frame, also of a version this side does not speak; None if it has none."""
    return frame[4] if len(frame) > 4 and frame[:4] == _MAGIC else None


def _header(frame: bytes) -> tuple[int, int, int]:
    if len(frame) < _HEADER.size:
        raise MalformedMessage(f"{len(frame)} bytes; a header has {_HEADER.size}")
    magic, version, kind, reserved, request_id, count = _HEADER.unpack_from(frame)
    if magic != _MAGIC:
        raise MalformedMessage(f"it begins with {magic!r}; expected {_MAGIC!r}")
    if version != VERSION:
        raise MalformedMessage(f"protocol version {version}; this side speaks version {VERSION}")
    if kind not in _KINDS:
        raise MalformedMessage(f"kind {kind}; expected one of {sorted(_KINDS)}")
    if reserved != 0:
        raise MalformedMessage(f"the reserved field is {reserved}; expected 0")
    if not 1 <= count <= _MAX_ATTACHMENTS:
        raise MalformedMessage(f"{count} attachments; expected 1 to {_MAX_ATTACHMENTS}")
    return kind, request_id, count


def _split(frame: bytes) -> tuple[int, int, list[memoryview]]:
    kind, request_id, count = _header(frame)
    start = _HEADER.size + count * _LENGTH.size
    if len(frame) < start:
        raise MalformedMessage(f"{len(frame)} bytes; {count} attachments need a table of {start} bytes")
    lengths = [_LENGTH.unpack_from(frame, _HEADER.size + i * _LENGTH.size)[0] for i in range(count)]
    if sum(lengths) != len(frame) - start:
        raise MalformedMessage(f"attachments of {sum(lengths)} bytes in all; {len(frame) - start} bytes are there")
    view, parts = memoryview(frame), []
    for length in lengths:
        parts.append(view[start : start + length])
        start += length
    return kind, request_id, parts


_digest = functools.lru_cache(64)(structure_digest)
"""A structure goes to many workers, round after round."""


class _Packer:
    """Packs one envelope and gathers the tensors and archives that its values refer to."""

    def __init__(self, structures: Structures | None = None, learns: bool = False) -> None:
        self._structures = structures
        self._learns = learns
        self._tensors: list[torch.Tensor] = []
        self._index: dict[tuple[Any, ...], int] = {}
        self._archives: list[bytes] = []
        self._nesting = 0

    def pack(self, envelope: Mapping[str, Any]) -> list[Sequence[bytes | memoryview]]:
        """Return the attachments, each in parts."""
        packed = self._pack(envelope)
        if not self._tensors and not self._archives:
            return [[packed]]
        return [[packed], self._pack_tensors(), *([archive] for archive in self._archives)]

    def _pack(self, value: Any) -> bytes:
        try:
            return msgpack.packb(value, default=self._extension, strict_types=True)
        except NotSerializable:
            raise
        except (OverflowError, TypeError, ValueError) as reason:
            raise NotSerializable(f"a value of type {type(value).__name__}", str(reason)) from reason

    def _extension(self, value: Any) -> Any:
        """Return what msgpack shall pack in place of `value`, which is of none of its own types."""
        for cls, convert in self._conversions:
            if isinstance(value, cls):
                return convert(self, value)
        if inspect.isroutine(value):
            return self._script(value)
        raise NotSerializable(f"a value of type {type(value).__module__}.{type(value).__qualname__}", "unknown type")

    def _tensor(self, value: torch.Tensor) -> msgpack.ExtType:
        return msgpack.ExtType(_TENSOR, msgpack.packb([self._add(value), value.requires_grad]))

    def _array(self, value: np.ndarray) -> msgpack.ExtType:
        try:
            tensor = torch.from_numpy(np.array(value, order="C"))
        except (TypeError, ValueError) as reason:
            raise NotSerializable(f"a numpy array of dtype {value.dtype}", str(reason)) from reason
        return msgpack.ExtType(_ARRAY, msgpack.packb(self._add(tensor)))

    def _tuple(self, value: tuple[Any, ...]) -> msgpack.ExtType:
        if self._nesting == _MAX_NESTING:
            raise NotSerializable("a tuple", f"it is nested more than {_MAX_NESTING} deep")
        self._nesting += 1
        packed = self._pack(list(value))
        self._nesting -= 1
        return msgpack.ExtType(_TUPLE, packed)

    def _script(self, value: nn.Module | Callable[..., Any]) -> msgpack.ExtType:
        structure, named = torchscript.dump(value)
        places = {name: self._add(tensor) for name, tensor in named.items()}
        if self._structures is not None and len(structure) <= self._structures.max_bytes:
            key = _digest(structure)
            if self._structures.add(key, structure) if self._learns else key in self._structures:
                return msgpack.ExtType(_KNOWN_SCRIPT, msgpack.packb([key, places]))
        self._archives.append(structure)
        return msgpack.ExtType(_SCRIPT, msgpack.packb([len(self._archives) - 1, places]))

    # The order matters: numpy's float64 is a float too, torch.Size a tuple, a model a callable.
    _conversions: Sequence[tuple[type | tuple[type, ...], Callable[[_Packer, Any], Any]]] = (
        (torch.Tensor, _tensor),
        (np.ndarray, _array),
        (np.generic, lambda self, value: value.item()),
        (torch.device, lambda self, value: msgpack.ExtType(_DEVICE, msgpack.packb(str(value)))),
        (tuple, _tuple),
        ((nn.Module, torchscript.ScriptFunction), _script),
        (list, lambda self, value: list(value)),
        (Mapping, lambda self, value: dict(value)),
        (bool, lambda self, value: bool(value)),
        (int, lambda self, value: int(value)),
        (float, lambda self, value: float(value)),
        (str, lambda self, value: str.__str__(value)),
    )

    def _add(self, tensor: torch.Tensor) -> int:
        """Return the index of a tensor among the message's tensors; the same tensor is sent once."""
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise NotSerializable(f"a tensor of layout {tensor.layout}", "only dense tensors with data can travel")
        key = (
            tensor.data_ptr(),
            tensor.dtype,
            tuple(tensor.shape),
            tensor.stride(),
            tensor.device,
            tensor.requires_grad,
            tensor.is_conj(),
            tensor.is_neg(),
        )
        if key not in self._index or tensor.numel() == 0:
            self._index[key] = len(self._tensors)
            self._tensors.append(tensor)
        return self._index[key]

    def _pack_tensors(self) -> list[bytes | memoryview]:
        try:
            return tensors.save({str(index): tensor for index, tensor in enumerate(self._tensors)})
        except ValueError as reason:
            kinds = sorted({str(tensor.dtype) for tensor in self._tensors})
            raise NotSerializable(f"tensors of {', '.join(kinds)}", f"safetensors refused them: {reason}") from reason


class _Unpacker:
    """Unpacks one envelope, given the attachments that its values refer to."""

    def __init__(
        self, attachments: Sequence[memoryview], allow_operators: Iterable[str], structures: Structures | None
    ) -> None:
        self._allow_operators = allow_operators
        self._structures = structures if structures is not None else Structures()
        self._tensors: dict[str, torch.Tensor] = {}
        if attachments:
            try:
                self._tensors = tensors.load(attachments[0])
            except (ValueError, TypeError, KeyError, RecursionError) as reason:
                raise MalformedMessage(f"the tensors are no safetensors data: {reason}") from reason
        self._archives = attachments[1:]
        self._nesting = 0

    def unpack(self, packed: bytes | memoryview) -> Any:
        try:
            return msgpack.unpackb(packed, ext_hook=self._extension, strict_map_key=False)
        except ProtocolError:
            raise
        except Exception as reason:  # msgpack raises ValueErrors of many kinds, TypeError and RecursionError
            raise MalformedMessage(f"no msgpack value: {type(reason).__name__}: {reason}") from reason

    def _extension(self, code: int, payload: bytes) -> Any:
        if self._nesting == _MAX_NESTING:
            raise MalformedMessage(f"extension types nested more than {_MAX_NESTING} deep")
        self._nesting += 1
        value = self.unpack(payload)
        self._nesting -= 1
        if code == _TUPLE and isinstance(value, list):
            return tuple(value)
        if code == _TENSOR and isinstance(value, list) and len(value) == 2 and isinstance(value[1], bool):
            tensor = self._tensor(value[0])
            return tensor.requires_grad_() if value[1] else tensor
        if code == _ARRAY:
            return self._tensor(value).numpy()
        if code == _DEVICE and isinstance(value, str):
            return _device(value)
        if code == _SCRIPT and isinstance(value, list) and len(value) == 2 and isinstance(value[1], dict):
            archive, places = value
            if not isinstance(archive, int) or not 0 <= archive < len(self._archives):
                raise MalformedMessage(f"archive {archive!r}; there are {len(self._archives)}")
            named = {name: self._tensor(index) for name, index in places.items()}
            return torchscript.load(bytes(self._archives[archive]), named, self._allow_operators)
        if code == _KNOWN_SCRIPT and isinstance(value, list) and len(value) == 2 and isinstance(value[1], dict):
            key, places = value
            if not isinstance(key, str):
                raise MalformedMessage(f"the key of a structure is {type(key).__name__}; expected a string")
            named = {name: self._tensor(index) for name, index in places.items()}
            return torchscript.fill(self._structures.model(key, self._allow_operators), named)
        raise MalformedMessage(f"extension type {code} with a payload of type {type(value).__name__}")

    def _tensor(self, index: Any) -> torch.Tensor:
        tensor = self._tensors.get(str(index)) if isinstance(index, int) else None
        if tensor is None:
            raise MalformedMessage(f"tensor {index!r}; there are {len(self._tensors)}")
        return tensor


def _device(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as reason:
        raise MalformedMessage(f"device {name!r}: {str(reason).splitlines()[0]}") from reason
