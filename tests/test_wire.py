"""Messages to bytes and back, and the refusal of everything else."""

import datetime
import math
import struct
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import torch as safetensors_torch
from torch import nn

from syft import wire
from syft.exceptions import (
    MalformedMessage,
    NotConvertible,
    NotSerializable,
    OperatorNotAllowed,
    ProtocolError,
)
from syft.graph import Receiver, convert
from syft.wire import messages
from tests.models import CLASSES, FEATURES, Classifier, blobs, classifier, nll

# No value needs that; a decoder that follows such extensions down overruns its stack at about 200.
NESTING = 100


def examples(number: int) -> settings:
    """Return settings for as many examples, the same ones in every run."""
    return settings(max_examples=number, deadline=None, database=None, derandomize=True)


def trip(value):
    """Return `value` as it arrives at the other side."""
    return wire.decode(wire.encode(wire.Request(1, "set", {"value": value})), Receiver()).arguments[
        "value"
    ]


def frame(
    *parts: bytes, magic=b"SYFT", version=3, kind=2, reserved=0, count=None, lengths=None
) -> bytes:
    """Return a frame built by hand, from the table at the top of messages.py."""
    lengths = [len(part) for part in parts] if lengths is None else lengths
    head = struct.pack(
        ">4sBBHQI", magic, version, kind, reserved, 1, len(lengths) if count is None else count
    )
    return head + b"".join(struct.pack(">Q", length) for length in lengths) + b"".join(parts)


def envelope(value) -> bytes:
    return msgpack.packb({"result": value})


def ext(code: int, payload) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb(payload))


def deep_extensions(depth: int) -> bytes:
    """Return a tuple in a tuple in a tuple ..., packed by hand."""
    value = msgpack.packb([])
    for _ in range(depth):
        value = msgpack.packb(msgpack.ExtType(1, b"\x91" + value))
    return value


def identical(a, b) -> bool:
    """Whether two plain values are equal, with their types: 1 is not 1.0, a tuple no list, NaN is
    NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(identical, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(map(identical, a.items(), b.items()))
    return struct.pack("d", a) == struct.pack("d", b) if isinstance(a, float) else a == b


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
plain = st.recursive(
    scalars | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(-(2**63), 2**64 - 1), inner)
    ),
    max_leaves=10,
)


@examples(60)
@given(plain)
def test_plain_values_arrive_as_they_are(value):
    assert identical(trip(value), value)


def test_special_floats_arrive_as_they_are():
    values = [math.inf, -math.inf, -0.0, 5e-324, math.pi, 1e308]
    assert identical(trip(values), values)
    assert math.isnan(trip(math.nan))


@pytest.mark.parametrize(
    "message",
    [
        wire.Request(
            2**64 - 1, "call", {"name": "fit", "args": [], "kwargs": {"dataset_key": "mnist"}}
        ),
        wire.Reply(0, None),
        wire.Failure(7, "ValueError", "reason", {"worker": "bob"}, "fit()", "Traceback"),
    ],
    ids=["request", "reply", "failure"],
)
def test_every_kind_of_message_arrives_with_its_id(message):
    encoded = wire.encode(message)
    assert wire.decode(encoded) == message
    assert wire.peek_id(encoded) == message.id
    assert wire.peek_version(encoded) == wire.VERSION == 3


def test_the_layout_is_the_one_in_the_docstring():
    assert wire.encode(wire.Reply(1, "pong")) == frame(b"\x81\xa6result\xa4pong")
    by_hand = frame(
        envelope(ext(2, [0, False])), safetensors_torch.save({"0": torch.tensor([1.5])})
    )
    assert torch.equal(wire.decode(by_hand).result, torch.tensor([1.5]))


DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint16, torch.uint32, torch.uint64, torch.float16, torch.bfloat16, torch.float32,
    torch.float64, torch.complex64,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)], ids=str)
def test_tensors_of_every_dtype_and_shape_arrive_bit_for_bit(dtype, shape):
    count = math.prod(shape) * dtype.itemsize
    bits = torch.randint(2 if dtype == torch.bool else 256, (count,), dtype=torch.uint8)
    arrived = trip(bits.view(dtype).view(shape))
    assert (arrived.dtype, arrived.shape, arrived.requires_grad) == (
        dtype,
        torch.Size(shape),
        False,
    )
    assert torch.equal(arrived.view(-1).view(torch.uint8), bits)


BASE = torch.arange(12.0)
VIEWS = {
    "transposed": BASE.view(3, 4).t(),
    "strided": BASE[::3],
    "offset": BASE[5:],
    "shared between processes": torch.arange(3.0).share_memory_(),
    "expanded": BASE[:1].expand(4),
    "channels last": torch.randn(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
    "conjugate": torch.tensor([1 + 2j, 3 - 4j]).conj(),
    "negative": torch.tensor([1 + 2j]).conj().imag,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views_arrive_with_their_own_values(view):
    assert torch.equal(trip(view), view)


def test_tensors_that_share_memory_arrive_right():
    z = torch.tensor([1 + 2j])
    square = BASE[:9].view(3, 3)
    others = [BASE.view(3, 4), BASE.view(torch.int32), BASE[:0], square, square.t(), z, z.conj()]
    tensors = [BASE, BASE, BASE[2:4], BASE[3:], *others]
    assert all(torch.equal(a, b) for a, b in zip(trip(tensors), tensors, strict=True))


def test_the_same_tensor_travels_once():
    large = torch.randn(1000)
    assert len(wire.encode(wire.Reply(1, [large] * 5))) < 2 * large.nbytes


@pytest.mark.parametrize("requires_grad", [True, False])
def test_requires_grad_travels_with_each_tensor(requires_grad):
    weight = torch.ones(2, requires_grad=requires_grad)
    arrived, detached, parameter = trip(
        [weight, weight.detach(), nn.Parameter(torch.ones(2), requires_grad)]
    )
    assert (arrived.requires_grad, detached.requires_grad) == (requires_grad, False)
    assert parameter.requires_grad == requires_grad and arrived.is_leaf


def read_only() -> np.ndarray:
    array = np.arange(6.0).reshape(2, 3)
    array.setflags(write=False)
    return array


ARRAYS = {
    "float64": np.linspace(0, 1, 5),
    "uint16": np.array([0, 65535], dtype=np.uint16),
    "bool": np.array([[True], [False]]),
    "0-d": np.array(2.5),
    "empty": np.zeros((0, 3), dtype=np.int8),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "reversed": np.arange(4)[::-1],
    "read-only": read_only(),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_arrays_arrive_as_they_are(array):
    arrived = trip(array)
    assert type(arrived) is np.ndarray and arrived.dtype == array.dtype and arrived.flags.writeable
    np.testing.assert_array_equal(arrived, array, strict=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(math.pi), math.pi),
        (np.float32(0.5), 0.5),
        (np.int64(-(2**63)), -(2**63)),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("mnist"), "mnist"),
        (torch.Size([1, 28]), (1, 28)),
        ({"betas": (0.9, 0.999)}, {"betas": (0.9, 0.999)}),
        ({0: "a", 2**62 + 1: "b"}, {0: "a", 2**62 + 1: "b"}),
        (torch.device("cuda", 1), torch.device("cuda", 1)),
    ],
    ids=repr,
)
def test_other_values_arrive_as_plain_ones(value, expected):
    assert identical(trip(value), expected)


MODELS = {
    "plain": Classifier(),
    "scripted": classifier(),
    "traced": torch.jit.trace(Classifier(), blobs().data),
    "module in a list": nn.Sequential(nn.Linear(FEATURES, CLASSES), nn.LogSoftmax(dim=1)),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_models_and_losses_compute_the_same_at_the_other_side(model):
    data, target = blobs().data, blobs().targets
    arrived, loss_fn = trip([model, nll])
    assert torch.equal(arrived(data), model(data))
    assert torch.equal(loss_fn(arrived(data), target), nll(model(data), target))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(3, 3), nn.Linear(3, 3)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))


def test_tied_weights_stay_tied():
    arrived = trip(Tied())
    assert len(list(arrived.parameters())) == 3
    with torch.no_grad():
        arrived.encoder.weight.fill_(7)
    assert torch.all(arrived.decoder.weight == 7)


def test_two_models_in_one_message_stay_apart():
    first, second = trip([classifier(1), classifier(2)])
    assert torch.equal(first.hidden.weight, classifier(1).hidden.weight)
    assert torch.equal(second.hidden.weight, classifier(2).hidden.weight)


CIRCULAR: list = []
CIRCULAR.append(CIRCULAR)


def nested(depth: int, value=()) -> tuple:
    for _ in range(depth):
        value = (value,)
    return value


UNSENDABLE = {
    "set": {1, 2},
    "complex": 1j,
    "class": int,
    "date": datetime.date(2020, 1, 1),
    "big int": 2**64,
    "surrogate": "\ud800",
    "circular": CIRCULAR,
    "deep": nested(NESTING),
    "object array": np.array([None]),
    "text array": np.array(["a"]),
    "big-endian array": np.arange(2, dtype=">i4"),
    "complex128 array": np.array([1j]),
    "datetime64": np.datetime64("2020-01-01"),
    "record": np.zeros(1, dtype=[("a", "i4")])[0],
    "numpy complex": np.complex64(1j),
    "longdouble": np.longdouble(1),
    "sparse": torch.eye(2).to_sparse(),
    "meta": torch.empty(2, device="meta"),
}


@pytest.mark.parametrize("value", UNSENDABLE.values(), ids=UNSENDABLE)
@pytest.mark.parametrize(
    "wrap", [lambda value: value, lambda value: [{"a": (value,)}]], ids=["alone", "nested"]
)
def test_what_cannot_travel_is_refused_before_it_is_sent(value, wrap):
    with pytest.raises(NotSerializable, match="cannot be sent"):
        wire.encode(wire.Reply(1, wrap(value)))


def test_a_refusal_names_the_type():
    with pytest.raises(
        NotSerializable, match=r"a value of type datetime\.date cannot be sent: unknown type\."
    ):
        wire.encode(wire.Reply(1, datetime.date(2020, 1, 1)))


ONE = safetensors_torch.save({"0": torch.zeros(2)})
EMPTY = safetensors_torch.save({})
STRUCTURE = convert(nn.Linear(2, 1)).structure
LINEAR = safetensors_torch.save(
    {"0": torch.zeros(1, 2), "1": torch.zeros(1), "2": torch.zeros(1, dtype=torch.int64)}
)


def linear(payload: Any) -> bytes:
    """Return a message with a model of one layer, told as `payload`."""
    return frame(envelope(ext(4, payload)), LINEAR, STRUCTURE)


MALFORMED = {
    "magic": (frame(envelope(1), magic=b"HTTP"), "begins with b'HTTP'"),
    "version": (frame(envelope(1), version=1), "protocol version 1; this side speaks version 3"),
    "kind": (frame(envelope(1), kind=9), r"kind 9; expected one of \[1, 2, 3\]"),
    "reserved": (frame(envelope(1), reserved=5), "reserved field is 5; expected 0"),
    "no attachments": (frame(), "0 attachments; expected 1 to"),
    "huge count": (frame(envelope(1), count=2**32 - 1), "4294967295 attachments; expected 1 to"),
    "large count": (
        frame(envelope(1), count=65_536),
        "65536 attachments need a table of 524308 bytes",
    ),
    "long length": (
        frame(envelope(1), lengths=[2**64 - 1]),
        "attachments of 18446744073709551615 bytes",
    ),
    "lengths that wrap": (frame(envelope(1), lengths=[2**64 - 1, 10]), "9 bytes are there"),
    "trailing bytes": (
        frame(envelope(1)) + b"\0",
        "attachments of 9 bytes in all; 10 bytes are there",
    ),
    "no envelope": (frame(b""), "no msgpack value"),
    "two values": (frame(envelope(1) * 2), "no msgpack value"),
    "deep lists": (frame(b"\x91" * 5000), "no msgpack value"),
    "deep extensions": (frame(b"\x81\xa6result" + deep_extensions(NESTING)), "nested"),
    "unhashable key": (frame(b"\x81\x90\x01"), "a key of a map is list"),
    "no map": (frame(msgpack.packb([1])), "envelope of a Reply has list"),
    "missing field": (frame(msgpack.packb({})), r"has \[\]; expected \['result'\]"),
    "unknown field": (frame(msgpack.packb({"result": 1, "more": 2})), r"has \['more', 'result'\]"),
    "fields of another kind": (frame(envelope(1), kind=1), r"Request has \['result'\]"),
    "command": (
        frame(msgpack.packb({"command": 1, "arguments": {}}), kind=1),
        "'command' is int; expected str",
    ),
    "arguments": (
        frame(msgpack.packb({"command": "get", "arguments": []}), kind=1),
        "'arguments' is list",
    ),
    "extension code": (frame(envelope(ext(99, 1))), "extension type 99"),
    "tuple of no list": (
        frame(envelope(ext(1, {"a": 1}))),
        "extension type 1 with a payload of type dict",
    ),
    "tensor without flag": (frame(envelope(ext(2, [0])), ONE), "extension type 2"),
    "tensor with a wrong flag": (frame(envelope(ext(2, [0, 1])), ONE), "extension type 2"),
    "no tensors": (frame(envelope(ext(2, [0, False]))), "tensor 0; there are 0"),
    "tensor index": (frame(envelope(ext(2, [1, False])), ONE), "tensor 1; there are 1"),
    "negative index": (frame(envelope(ext(2, [-1, False])), ONE), "tensor -1; there are 1"),
    "index as text": (frame(envelope(ext(3, "0")), ONE), "tensor '0'; there are 1"),
    "gradient of integers": (frame(envelope(ext(2, [2, True])), LINEAR), "no msgpack value"),
    "no safetensors": (frame(envelope(1), b"tensors"), "no safetensors data"),
    "empty safetensors": (frame(envelope(1), b""), "no safetensors data"),
    "huge safetensors": (
        frame(envelope(1), struct.pack("<Q", 2**63) + b"{}"),
        "no safetensors data",
    ),
    "device": (frame(envelope(ext(5, "abacus"))), "device 'abacus'"),
    "device number": (frame(envelope(ext(5, 1))), "extension type 5"),
    **{
        f"reference to {value!r}": (frame(envelope(ext(8, value))), "a reference to an object")
        for value in (None, True, 1.5, b"x", [1], {"id": 1})
    },
    "blob index": (linear([1, [0, 1], [], True]), "blob 1; there are 1"),
    "negative blob": (linear([-1, [0, 1], [], True]), "blob -1; there are 1"),
    "structure without tensors": (linear([0]), "extension type 4"),
    "too few tensors": (linear([0, [0], [], True]), "came with 1 tensors; its structure has 2"),
    "another dtype": (linear([0, [0, 2], [], True]), "torch.int64"),
    "place of no tensor": (linear([0, [0, 7], [], True]), "tensor 7"),
    "no structure": (
        frame(envelope(ext(4, [0, [], [], True])), EMPTY, b"zip"),
        "structure is no msgpack",
    ),
    "TorchScript": (frame(envelope(ext(7, 0)), EMPTY, b"zip"), "allow_torchscript"),
    "text that is none": (frame(envelope(ext(6, [0, True])), EMPTY, b"\xff"), "not in UTF-8"),
    "long envelope": (
        frame(envelope([None] * 2**20)),
        r"an envelope of \d+ bytes; the limit is 1048576",
    ),
    "float as a key": (frame(envelope({1.5: 1})), "a key of a map is float"),
    "bytes as a key": (frame(envelope({b"a": 1})), "a key of a map is bytes"),
}


@pytest.mark.parametrize(("data", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_messages_are_refused_with_the_reason(data, reason):
    with pytest.raises(ProtocolError, match=reason):
        wire.decode(data, Receiver())


def test_code_never_travels_back():
    with pytest.raises(NotSerializable, match="code never travels back; return tensors"):
        wire.encode(wire.Reply(1, nn.Linear(2, 1)))
    with pytest.raises(MalformedMessage, match="code never travels back"):
        wire.decode(linear([0, [0, 1], [], True]))
    with pytest.raises(MalformedMessage, match="an id, in a request"):
        wire.decode(wire.encode(wire.Reply(1, wire.reference("x"))))


SMALL = wire.encode(
    wire.Request(3, "set", {"id": 1, "obj": torch.arange(2.0), "tags": ("a", None)})
)


@pytest.mark.parametrize("obj_id", [0, -(2**63), 2**64 - 1, "x", ""])
def test_a_reference_arrives_as_the_id_that_it_stands_for(obj_id):
    arguments = {"operations": [wire.reference(obj_id), [wire.reference("other")]]}
    data = wire.encode(wire.Request(1, "operate", arguments))
    arrived = wire.decode(data, Receiver()).arguments
    assert arrived == {"operations": [wire.Reference(obj_id), [wire.Reference("other")]]}
    assert type(arrived["operations"][0]) is wire.Reference  # and no tuple


def test_a_frame_cut_short_anywhere_is_refused():
    for length in range(len(SMALL)):
        with pytest.raises(MalformedMessage):
            wire.decode(SMALL[:length])


def test_peeking_reads_no_more_than_the_header():
    assert wire.peek_id(SMALL[:20]) == 3
    assert wire.peek_version(b"SYFT\x09 and whatever follows") == 9
    assert wire.peek_version(b"HTTP/1.1 404") is None and wire.peek_version(b"SYFT") is None
    with pytest.raises(MalformedMessage, match="19 bytes; a header has 20"):
        wire.peek_id(SMALL[:19])


MESSAGES = [
    wire.Request(
        3,
        "call",
        {"name": "fit", "args": [1, 2.5, None], "kwargs": {"dataset_key": "mnist", 5: (1,)}},
    ),
    wire.Request(
        4, "set", {"obj": torch.arange(3.0), "array": np.arange(2), "device": torch.device("cpu")}
    ),
    wire.Request(8, "operate", {"operations": [["aten::neg", [2], [wire.reference(1)], {}]]}),
    wire.Reply(5, [True, -1, 2**63, "text", b"bytes", {"a": [1, (2, (3,))]}]),
    wire.Failure(6, "ValueError", "reason", {"worker": "bob"}, "fit()", "Traceback"),
    wire.Request(7, "call", {"args": [classifier(), nll]}),
]
FRAMES = [wire.encode(message) for message in MESSAGES]


@st.composite
def damaged(draw) -> bytes:
    """A frame whose bytes were changed, or one with a table that fits its changed parts."""
    original = draw(st.sampled_from(FRAMES))
    if draw(st.booleans()):
        return draw(edited(original))
    return frame(
        *[draw(edited(bytes(part))) for part in messages._split(original)[2]], kind=original[5]
    )


@st.composite
def edited(draw, data: bytes) -> bytes:
    data = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        edit = draw(st.sampled_from(["flip", "replace", "insert", "delete"]))
        if edit == "insert" or not data:
            data[place:place] = draw(st.binary(min_size=1, max_size=9))
        elif edit == "delete":
            del data[place : place + draw(st.integers(1, 9))]
        else:
            data[place] = (
                data[place] ^ 1 << draw(st.integers(0, 7))
                if edit == "flip"
                else draw(st.integers(0, 255))
            )
    return bytes(data)


def assert_message_or_malformed(data: bytes) -> None:
    try:
        message = wire.decode(data, Receiver())
    except (MalformedMessage, OperatorNotAllowed):
        return
    assert isinstance(message, wire.Message)


@examples(500)
@given(damaged())
def test_damaged_bytes_are_a_message_or_a_malformed_message(data):
    assert_message_or_malformed(data)


@examples(60)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_malformed_message(data):
    for candidate in (
        data,
        frame(data),
        frame(b"\x81\xa6result" + data),
        frame(envelope(ext(2, [0, False])), data),
    ):
        assert_message_or_malformed(candidate)


def test_plain_values_beyond_the_limit_are_refused_before_they_are_sent(monkeypatch):
    values = list(range(1000))
    assert trip(values) == values
    monkeypatch.setattr(messages, "_MAX_ENVELOPE", 1000)
    with pytest.raises(
        NotSerializable, match=r"its plain values take \d+ bytes; the limit is 1000"
    ):
        trip(values)
    assert trip(torch.tensor(values)).tolist() == values


@torch.jit.script
class Scale:
    def __init__(self, by: float) -> None:
        self.by = by


@torch.jit.script
def scaled(x: torch.Tensor) -> torch.Tensor:
    return x * Scale(3.0).by


def test_what_no_plain_graph_can_say_travels_as_torchscript_where_both_ends_allow_it():
    request = wire.Request(1, "set", {"value": scaled})
    with pytest.raises(NotConvertible):
        wire.encode(request)
    frame = wire.encode(request, allow_torchscript=True)
    with pytest.raises(OperatorNotAllowed, match="allow_torchscript"):
        wire.decode(frame, Receiver())
    arrived = wire.decode(frame, Receiver(allow_torchscript=True)).arguments["value"]
    assert arrived(torch.ones(2)).tolist() == [3, 3]
