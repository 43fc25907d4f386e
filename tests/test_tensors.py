"""Tensors as safetensors data: the library is the oracle, both ways; hostile data are refused."""

import json
from typing import Any

import pytest
import torch
from safetensors import torch as library

from syft.wire import tensors

TENSORS = {
    "matrix": torch.randn(3, 4),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.zeros(0, 3),
    "flags": torch.tensor([True, False]),
    "half": torch.randn(5).half(),
    "brain": torch.randn(3).bfloat16(),
    "eight": torch.randn(3).to(torch.float8_e5m2),
    "complex": torch.randn(3, dtype=torch.complex64),
    "short": torch.arange(5, dtype=torch.int16),
    "transposed": torch.arange(6).reshape(2, 3).t(),
    "conjugated": torch.randn(2, dtype=torch.complex64).conj(),
}


def joined(found: dict[str, torch.Tensor]) -> bytes:
    return b"".join(tensors.save(found))


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        whole = tensor.resolve_conj().contiguous().reshape(-1).view(torch.uint8)
        assert torch.equal(found[name].reshape(-1).view(torch.uint8), whole), name


def test_the_library_reads_what_is_written() -> None:
    assert_same(library.load(joined(TENSORS)), TENSORS)


def test_what_the_library_writes_is_read() -> None:
    plain = {name: tensor.resolve_conj().contiguous() for name, tensor in TENSORS.items()}
    assert_same(
        tensors.load(memoryview(library.save(plain, metadata={"by": "the library"}))), TENSORS
    )


def test_nothing_is_written_and_read() -> None:
    assert tensors.load(memoryview(joined({}))) == {}
    assert library.load(joined({})) == {}


def test_loaded_tensors_have_memory_of_their_own() -> None:
    data = bytearray(joined({"x": torch.ones(4)}))
    loaded = tensors.load(memoryview(data))["x"]
    data[:] = bytes(len(data))
    assert torch.equal(loaded.add_(1), torch.full((4,), 2.0))


def test_a_dtype_without_a_code_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no code for torch\.complex128"):
        tensors.save({"x": torch.zeros(1, dtype=torch.complex128)})


def data(header: Any, body: bytes = b"") -> memoryview:
    text = json.dumps(header).encode()
    return memoryview(len(text).to_bytes(8, "little") + text + body)


def one(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        (memoryview(b""), None),
        (memoryview(b"\xff" * 8), "a header that ends at"),
        (memoryview((2).to_bytes(8, "little") + b"{]"), "Expecting"),
        (data([]), "the header is list"),
        (data({"x": 1}), None),
        (data({"x": {}}), None),
        (data(one(dtype="F7"), bytes(8)), "dtype 'F7'"),
        (data(one(dtype=["F32"]), bytes(8)), None),
        (data(one(shape=[3]), bytes(8)), "8 bytes for the shape"),
        (data(one(shape=[-1, -2]), bytes(8)), "none negative"),
        (data(one(shape=[True, 2]), bytes(8)), "expected integers"),
        (data(one(shape=[2.0]), bytes(8)), "expected integers"),
        (data(one(shape=[2**62, 4]), bytes(8)), "8 bytes for the shape"),
        (data(one(offsets=[-8, 0]), bytes(8)), "none negative"),
        (data(one(offsets=[0, 8, 16]), bytes(8)), "too many values"),
        (data(one(offsets=[4, 12]), bytes(12)), "expected it at 0"),
        (data(one(), bytes(4)), "lies at 0 to 8"),
        (data(one(), bytes(12)), "12 bytes of tensors; the header describes 8"),
        (data({**one(), "y": one()["x"]}, bytes(8)), "lies at 0 to 8; expected it at 8"),
    ],
)
def test_hostile_data_are_refused(hostile: memoryview, reason: str | None) -> None:
    with pytest.raises((ValueError, TypeError, KeyError), match=reason):
        tensors.load(hostile)


def test_a_header_longer_than_any_model_needs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = memoryview(joined({"x": torch.ones(2)}))
    length = int.from_bytes(frame[:8], "little") + 8
    for limit, refused in ((length, False), (length - 1, True)):
        monkeypatch.setattr(tensors, "_MAX_HEADER", limit)
        if refused:
            with pytest.raises(
                ValueError, match=f"a header of {length} bytes; the limit is {limit}"
            ):
                tensors.load(frame)
        else:
            assert tensors.load(frame)["x"].tolist() == [1, 1]


def test_a_number_that_takes_long_to_read_is_refused_unread() -> None:
    text = json.dumps(one(shape=[0])).replace("[0]", "[" + "9" * 100_000 + "]").encode()
    with pytest.raises(ValueError, match="a number of more than 19 digits"):
        tensors.load(memoryview(len(text).to_bytes(8, "little") + text))
