"""The wire: messages to bytes and back. No pickle and no eval, in either direction.

Every WebSocket message is binary and holds one message of this protocol. Numbers are big-endian.

    offset  bytes  field
    ------  -----  ----------------------------------------------------------
         0      4  magic, b"SYFT"
         4      1  version of the protocol, 3
         5      1  kind: 1 request, 2 reply, 3 failure
         6      2  reserved, 0
         8      8  id of the request; its reply or failure carries the same id
        16      4  number of attachments, n
        20     8n  length of each attachment, in bytes
    20+8n       -  the attachments, back to back

    attachment  holds
    ----------  ------------------------------------------------------------------------------
             0  the envelope, msgpack, at most 1 MiB: a map with exactly the fields of its kind
             1  all tensors of the message, safetensors, named "0", "1", ...
          2...  blobs: structures of models and functions (syft/graph), and long texts and bytes

    kind     fields of the envelope
    -------  -------------------------------------------------------------------
    request  command: str, arguments: map of str to value
    reply    result: value
    failure  type: str, message: str, fields: map, call: str, traceback: str

A value is None, bool, int (64 bits), float, str, bytes, a list, a map with strings or integers as
keys, or one of the extension types below. What is a tuple, a tensor or an array on one side is the
same on the other; a float arrives as the same double. Models and functions travel in requests only:
code never travels back.

    code  extension type  payload (msgpack)
    ----  --------------  ---------------------------------------------------------------------
       1  tuple           list of its items
       2  torch.Tensor    [index of the tensor, requires_grad]; arrives on the CPU
       3  numpy.ndarray   index of the tensor
       4  model           [index of the structure's blob, [tensors of its state],
                          [tensors among its constants], whether it is in training mode]
       5  torch.device    its name
       6  bytes, str      [index of the blob, whether it is a text]
       7  TorchScript     index of the blob, an archive; for receivers that allow it only
       8  reference       id of an object at the worker; in requests only

Anything else, and any unknown version, kind, field or code, is refused with an error that names it.
"""

from __future__ import annotations

import inspect
import io
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import msgpack
import numpy as np
import torch
from torch import nn

from syft.exceptions import (
    MalformedMessage,
    NotConvertible,
    NotPermitted,
    NotSerializable,
    ProtocolError,
)
from syft.graph import Receiver, convert, unpacking
from syft.graph.script import ScriptFunction, to_script
from syft.objects import ObjectPointer
from syft.wire import tensors

# What the receiving side promises, whoever sends:
#
# - Nothing that arrives is run. msgpack and safetensors hold data only, and a model is a structure
#   that `Receiver` checks first. (A TorchScript archive is code; a receiver has to allow those.)
# - No number is believed. Lengths must add up to the size of the frame and an index must lie within
#   what is there before either is used.
# - A small frame cannot ask for much memory. Tensors take what the frame holds of them, each blob
#   may be used once, and the envelope, in which one byte can become an object, is bounded.
# - Whatever is wrong becomes an error of this package. The id in the header is readable by itself,
#   so a message that is refused gets its answer all the same.

VERSION = 3
MAX_MESSAGE_BYTES = 512 * 1024 * 1024
"""The default limit for one message, in bytes. The tutorial's largest message has 1.7 million."""

_MAGIC = b"SYFT"
_HEADER = struct.Struct(">4sBBHQI")
_LENGTH = struct.Struct(">Q")
_MAX_ATTACHMENTS = 65_536
_MAX_ENVELOPE = 1024 * 1024  # an empty list takes one byte here, and 64 in memory
_MAX_TEXT = 16 * 1024 * 1024  # to decode a text holds all other threads
_LONG = 4096  # bytes and texts of more bytes travel beside the envelope
_LONGEST_ID = 1100  # bytes of 256 characters and their length
_MAX_NESTING = 32  # extension types inside one another; each level takes a piece of the C stack
_TUPLE, _TENSOR, _ARRAY, _MODEL, _DEVICE, _BLOB, _ARCHIVE, _REFERENCE = range(1, 9)


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


class Reference(NamedTuple):
    """Stands in an operation for an object that the worker holds."""

    id: int | str


def reference(obj_id: int | str) -> msgpack.ExtType:
    """Return a reference as it is packed.

    A pointer is an argument of many operations, so its reference is packed once.
    """
    return msgpack.ExtType(_REFERENCE, msgpack.packb(obj_id))


Message = Request | Reply | Failure

_KINDS: dict[int, type] = {1: Request, 2: Reply, 3: Failure}
_FIELDS: dict[int, dict[str, type]] = {
    1: {"command": str, "arguments": dict},
    2: {"result": object},
    3: {"type": str, "message": str, "fields": dict, "call": str, "traceback": str},
}


class TensorsTooLarge(Exception):
    """The tensors of a message have more bytes than it may have.

    Attributes:
        size: the bytes of all of them.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def encode(
    message: Message, allow_torchscript: bool = False, max_bytes: int | None = None
) -> bytes:
    """Return a message as bytes.

    Args:
        message: the message.
        allow_torchscript: send models that a plain graph cannot carry as TorchScript archives.
        max_bytes: the most bytes that its tensors may have; None: any number. They are counted
            before memory is taken: a view that repeats elements is larger here than it was there.

    Raises:
        NotSerializable: it holds a value that cannot travel; the error names the value's type.
        TensorsTooLarge: its tensors have more bytes than `max_bytes`.
    """
    kind = next(code for code, cls in _KINDS.items() if cls is type(message))
    packer = _Packer(kind == 1, allow_torchscript, max_bytes)
    attachments = packer.pack({name: getattr(message, name) for name in _FIELDS[kind]})
    # Joined once, here: until now the parts are views of the tensors' own memory.
    lengths = (_LENGTH.pack(sum(map(len, parts))) for parts in attachments)
    header = _HEADER.pack(_MAGIC, VERSION, kind, 0, message.id, len(attachments))
    return b"".join((header, *lengths, *chain.from_iterable(attachments)))


def decode(frame: bytes, receiver: Receiver | None = None) -> Message:
    """Return the message that `frame` holds.

    Args:
        frame: the bytes of one message.
        receiver: makes models of what arrives. None: a message with a model is refused.

    Raises:
        NotPermitted: the owner does not allow a model or function in it.
        OperatorNotAllowed: a model or function in it uses an operator that is not allowed.
        MalformedMessage: it does not follow the layout at the top of this module; the reason names
            the place.
    """
    # Before anything is unpacked: it is the unpacking that would take the memory.
    kind, request_id, parts = _split(frame)
    if len(parts[0]) > _MAX_ENVELOPE:
        raise MalformedMessage(
            f"an envelope of {len(parts[0])} bytes; the limit is {_MAX_ENVELOPE}"
        )
    envelope = _Unpacker(parts[1:], receiver).unpack(parts[0])
    expected = _FIELDS[kind]
    if not isinstance(envelope, dict) or envelope.keys() != expected.keys():
        names = (
            sorted(map(str, envelope)) if isinstance(envelope, dict) else type(envelope).__name__
        )
        raise MalformedMessage(
            f"the envelope of a {_KINDS[kind].__name__} has {names}; expected {sorted(expected)}"
        )
    for name, value in envelope.items():
        if not isinstance(value, expected[name]):
            raise MalformedMessage(
                f"field {name!r} is {type(value).__name__}; expected {expected[name].__name__}"
            )
    return _KINDS[kind](id=request_id, **envelope)


def peek_id(frame: bytes) -> int:
    """Return the request id of a frame, without reading more than its header.

    It is 0 if there is no valid header.

    Raises:
        MalformedMessage: these bytes do not begin with a header of this protocol.
    """
    return _header(frame)[1]


def has_blobs(frame: bytes) -> bool:
    """Return whether a frame holds more than an envelope and tensors: a model, say.

    Raises:
        MalformedMessage: these bytes do not begin with a header of this protocol.
    """
    return _header(frame)[2] > 2


def peek_version(frame: bytes) -> int | None:
    """Return the protocol version of a frame, even one that this side does not speak.

    None if it has none.
    """
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
        raise MalformedMessage(
            f"{len(frame)} bytes; {count} attachments need a table of {start} bytes"
        )
    lengths = [_LENGTH.unpack_from(frame, _HEADER.size + i * _LENGTH.size)[0] for i in range(count)]
    # Neither more nor less: bytes that no attachment claims would pass unread.
    if sum(lengths) != len(frame) - start:
        raise MalformedMessage(
            f"attachments of {sum(lengths)} bytes in all; {len(frame) - start} bytes are there"
        )
    view, parts = memoryview(frame), []
    for length in lengths:
        parts.append(view[start : start + length])
        start += length
    return kind, request_id, parts


class _Packer:
    """Packs one envelope and gathers the tensors and blobs that its values refer to."""

    def __init__(
        self, carries_models: bool, allow_torchscript: bool, max_bytes: int | None
    ) -> None:
        self._carries_models = carries_models
        self._allow_torchscript = allow_torchscript
        self._max_bytes = max_bytes
        # The list keeps the tensors alive, so an address in the index cannot be another tensor's.
        self._tensors: list[torch.Tensor] = []
        self._index: dict[tuple[Any, ...], int] = {}
        self._blobs: list[bytes] = []
        self._nesting = 0

    def pack(self, envelope: Mapping[str, Any]) -> list[Sequence[bytes | memoryview]]:
        """Return the attachments, each in parts."""
        # First of all, since packing the envelope gathers the tensors and the blobs.
        packed = self._pack(envelope)
        if len(packed) > _MAX_ENVELOPE:
            reason = (
                f"its plain values take {len(packed)} bytes; the limit is {_MAX_ENVELOPE}. "
                "Send tensors or arrays"
            )
            raise NotSerializable("a message", reason)
        size = sum(tensor.nbytes for tensor in self._tensors)
        if self._max_bytes is not None and size > self._max_bytes:
            raise TensorsTooLarge(size)
        if not self._tensors and not self._blobs:
            return [[packed]]
        return [[packed], self._pack_tensors(), *([blob] for blob in self._blobs)]

    def _pack(self, value: Any) -> bytes:
        try:
            # strict_types: otherwise tuples would arrive as lists, and subclasses as their bases.
            return msgpack.packb(
                self._without_long(value), default=self._extension, strict_types=True
            )
        except NotSerializable:
            raise
        except (OverflowError, RecursionError, TypeError, ValueError) as reason:
            raise NotSerializable(
                f"a value of type {type(value).__name__}", str(reason)
            ) from reason

    def _without_long(self, value: Any) -> Any:
        """Return a value whose long texts and bytes are replaced by references to blobs."""
        # msgpack calls `default` for types it does not know, so this needs a pass of its own. A
        # character takes at most four bytes: shorter texts need not be encoded to be measured.
        if type(value) in (bytes, str) and len(value) > _LONG // 4:
            content = value if isinstance(value, bytes) else value.encode()
            if isinstance(value, str) and len(content) > _MAX_TEXT:
                reason = f"it has {len(content)} bytes; the limit is {_MAX_TEXT}. Send bytes"
                raise NotSerializable("a text", reason)
            if len(content) > _LONG:
                self._blobs.append(content)
                return msgpack.ExtType(
                    _BLOB, msgpack.packb([len(self._blobs) - 1, isinstance(value, str)])
                )
        elif type(value) is list:
            return [self._without_long(item) for item in value]
        elif type(value) is dict:
            return {key: self._without_long(item) for key, item in value.items()}
        return value

    def _extension(self, value: Any) -> Any:
        """Return what msgpack shall pack in place of `value`, which is of none of its own types."""
        for cls, converted in self._conversions:
            if isinstance(value, cls):
                return converted(self, value)
        if inspect.isroutine(value):
            return self._model(value)
        raise NotSerializable(
            f"a value of type {type(value).__module__}.{type(value).__qualname__}", "unknown type"
        )

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

    def _model(self, value: nn.Module | Callable[..., Any]) -> msgpack.ExtType:
        if not self._carries_models:
            reason = "code never travels back; return tensors, its state_dict() for example"
            raise NotSerializable(f"a model or function, {type(value).__name__},", reason)
        try:
            model = convert(value)
        except NotConvertible:
            if not self._allow_torchscript:
                raise
            buffer = io.BytesIO()
            torch.jit.save(to_script(value), buffer)
            self._blobs.append(buffer.getvalue())
            return msgpack.ExtType(_ARCHIVE, msgpack.packb(len(self._blobs) - 1))
        self._blobs.append(model.structure)
        state, constants = (
            [self._add(each) for each in part] for part in (model.state, model.constants)
        )
        training = bool(getattr(value, "training", True))
        return msgpack.ExtType(
            _MODEL, msgpack.packb([len(self._blobs) - 1, state, constants, training])
        )

    # The order matters: numpy's float64 is a float too, torch.Size a tuple, a model a callable.
    _conversions: Sequence[tuple[type | tuple[type, ...], Callable[[_Packer, Any], Any]]] = (
        (torch.Tensor, _tensor),
        (np.ndarray, _array),
        (np.generic, lambda self, value: value.item()),
        (torch.device, lambda self, value: msgpack.ExtType(_DEVICE, msgpack.packb(str(value)))),
        (tuple, _tuple),
        ((nn.Module, ScriptFunction), _model),
        (list, lambda self, value: self._without_long(list(value))),
        (Mapping, lambda self, value: self._without_long(dict(value))),
        (bool, lambda self, value: bool(value)),
        (int, lambda self, value: int(value)),
        (float, lambda self, value: float(value)),
        (str, lambda self, value: str.__str__(value)),
    )

    def _add(self, tensor: torch.Tensor) -> int:
        """Return the index of a tensor among the message's tensors.

        The same tensor is sent once.
        """
        if isinstance(tensor, ObjectPointer):
            reason = "its tensor is at a worker; call .get() first, and send what that returns"
            raise NotSerializable(repr(tensor), reason)
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise NotSerializable(
                f"a tensor of layout {tensor.layout}", "only dense tensors with data can travel"
            )
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
        # Tied weights travel once, and arrive as one tensor. An empty tensor has no address that
        # would tell it from others.
        if key not in self._index or tensor.numel() == 0:
            self._index[key] = len(self._tensors)
            self._tensors.append(tensor)
        return self._index[key]

    def _pack_tensors(self) -> list[bytes | memoryview]:
        try:
            return tensors.save({str(index): tensor for index, tensor in enumerate(self._tensors)})
        except ValueError as reason:
            kinds = sorted({str(tensor.dtype) for tensor in self._tensors})
            raise NotSerializable(
                f"tensors of {', '.join(kinds)}", f"safetensors refused them: {reason}"
            ) from reason


class _Unpacker:
    """Unpacks one envelope, given the attachments that its values refer to."""

    def __init__(self, attachments: Sequence[memoryview], receiver: Receiver | None) -> None:
        self._receiver = receiver
        self._tensors: dict[str, torch.Tensor] = {}
        if attachments:
            try:
                self._tensors = tensors.load(attachments[0])
            except (ValueError, TypeError, KeyError, OverflowError, RuntimeError) as reason:
                raise MalformedMessage(f"the tensors are no safetensors data: {reason}") from reason
        self._blobs = attachments[1:]
        self._used: set[int] = set()
        self._nesting = 0

    def unpack(self, packed: bytes | memoryview) -> Any:
        try:
            return unpacking.unpack(
                packed,
                ext_hook=self._extension,
                strict_map_key=False,
                object_pairs_hook=_map_with_plain_keys,
            )
        except (ProtocolError, NotPermitted):
            raise
        except Exception as reason:  # ValueErrors of many kinds, TypeError and RecursionError
            raise MalformedMessage(
                f"no msgpack value: {type(reason).__name__}: {reason}"
            ) from reason

    def _extension(self, code: int, payload: bytes) -> Any:
        if code == _REFERENCE:  # most values of a message of operations are
            return self._reference(payload)
        if self._nesting == _MAX_NESTING:
            raise MalformedMessage(f"extension types nested more than {_MAX_NESTING} deep")
        # Not set back after an error, which ends the message and this object with it.
        self._nesting += 1
        value = self.unpack(payload)
        self._nesting -= 1
        if code == _TUPLE and isinstance(value, list):
            return tuple(value)
        if (
            code == _TENSOR
            and isinstance(value, list)
            and len(value) == 2
            and isinstance(value[1], bool)
        ):
            tensor = self._tensor(value[0])
            return tensor.requires_grad_() if value[1] else tensor
        if code == _ARRAY:
            return self._tensor(value).numpy()
        if code == _DEVICE and isinstance(value, str):
            return _device(value)
        if code == _BLOB and isinstance(value, list) and len(value) == 2:
            content = self._blob(value[0])
            return _text(content) if value[1] is True else content
        if (
            code == _MODEL
            and isinstance(value, list)
            and [type(each) for each in value] == [int, list, list, bool]
        ):
            blob, *parts, training = value
            state, constants = ([self._tensor(index) for index in part] for part in parts)
            return self._allowed().graph(self._blob(blob), state, constants).train(training)
        if code == _ARCHIVE:
            return self._allowed().archive(self._blob(value))
        raise MalformedMessage(
            f"extension type {code} with a payload of type {type(value).__name__}"
        )

    def _reference(self, payload: bytes) -> Reference:
        # Short, so that it can hold no more than an id.
        value: Any = msgpack.unpackb(payload) if len(payload) <= _LONGEST_ID else None
        if type(value) not in (int, str) or self._receiver is None:
            raise MalformedMessage(
                f"a reference to an object in {len(payload)} bytes; expected an id, in a request"
            )
        return Reference(value)

    def _allowed(self) -> Receiver:
        if self._receiver is None:
            raise MalformedMessage(
                "a model or function where none is expected: code never travels back"
            )
        return self._receiver

    def _blob(self, index: Any) -> bytes:
        if type(index) is not int or not 0 <= index < len(self._blobs):
            raise MalformedMessage(f"blob {index!r:.40}; there are {len(self._blobs)}")
        if index in self._used:  # a short message could ask for it a hundred thousand times
            raise MalformedMessage(f"blob {index} is used twice")
        self._used.add(index)
        return bytes(self._blobs[index])

    def _tensor(self, index: Any) -> torch.Tensor:
        tensor = self._tensors.get(str(index)) if isinstance(index, int) else None
        if tensor is None:
            raise MalformedMessage(f"tensor {index!r}; there are {len(self._tensors)}")
        return tensor


def _map_with_plain_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return a map; its keys are strings and integers.

    Others could be made to collide, or could not be hashed.
    """
    for key, _ in pairs:
        if type(key) not in (str, int):
            raise MalformedMessage(
                f"a key of a map is {type(key).__name__}; expected a string or an integer"
            )
    return dict(pairs)


def _text(content: bytes) -> str:
    if len(content) > _MAX_TEXT:
        raise MalformedMessage(f"a text of {len(content)} bytes; the limit is {_MAX_TEXT}")
    try:
        return content.decode()
    except UnicodeDecodeError as reason:
        raise MalformedMessage(f"a text is not in UTF-8: {reason.reason}") from None


def _device(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as reason:
        raise MalformedMessage(f"device {name!r}: {str(reason).splitlines()[0]}") from reason
