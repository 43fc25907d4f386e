"""Tensors to safetensors data and back, without a copy on the way out and with one on the way in.

The library's own `save` and `load` make and take the data as one `bytes` object: two more copies of
a message.

    offset  bytes  field (https://github.com/huggingface/safetensors#format)
    ------  -----  ---------------------------------------------------------------------------------
         0      8  length of the header, n, little-endian
         8      n  JSON: {name: {"dtype": "F32", "shape": [...], "data_offsets": [begin, end]}, ...}
       8+n      -  the tensors' bytes, little-endian, without gaps; offsets count from here
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from syft.graph.content import bytes_of

_MAX_HEADER = 1024 * 1024
"""Bytes of the header: enough for some 12,000 tensors."""
_MAX_DIMENSIONS = 64
_LONG_NUMBER = re.compile(rb"\d{20}")

_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
_DTYPES: dict[str, torch.dtype] = {
    code: getattr(torch, name) for code, name in _NAMES.items() if hasattr(torch, name)
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def save(tensors: Mapping[str, torch.Tensor]) -> list[bytes | memoryview]:
    """Return safetensors data in parts: the header, and the tensors' own memory.

    Tensors that are not contiguous are copied.

    Raises:
        ValueError: safetensors has no such dtype.
    """
    header: dict[str, Any] = {}
    parts: list[memoryview] = []
    end = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _CODES:
            raise ValueError(f"no code for {tensor.dtype}")
        parts.append(bytes_of(tensor))
        begin, end = end, end + len(parts[-1])
        header[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    # Padded as the library does it, so that tensors begin at a multiple of 8.
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *parts]


def load(data: memoryview) -> dict[str, torch.Tensor]:
    """Return the tensors of safetensors data, by name, in memory of their own.

    Raises:
        ValueError: the data do not follow the format.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    # Both before the header is copied: its length is the sender's word.
    if start > len(data):
        raise ValueError(f"a header that ends at {start}; there are {len(data)} bytes")
    if start > _MAX_HEADER:
        raise ValueError(f"a header of {start} bytes; the limit is {_MAX_HEADER}")
    text, body = bytes(data[8:start]), data[start:]
    if _LONG_NUMBER.search(text):  # to read one takes time that grows with the square of its length
        raise ValueError("a number of more than 19 digits")
    header = json.loads(text)
    if not isinstance(header, dict):
        raise ValueError(f"the header is {type(header).__name__}; expected a map")
    header.pop("__metadata__", None)
    described = sorted(
        ((name, *_described(about)) for name, about in header.items()), key=lambda each: each[3:]
    )
    tensors, end_before = {}, 0
    for name, dtype, shape, begin, end in described:
        # Without gaps and overlaps: a byte belongs to one tensor, so tensors take no more than
        # came.
        if begin != end_before or end > len(body):
            raise ValueError(
                f"tensor {name!r} lies at {begin} to {end}; expected it at {end_before}"
            )
        tensors[name] = _tensor(dtype, shape, body[begin:end])
        end_before = end
    if end_before != len(body):
        raise ValueError(f"{len(body)} bytes of tensors; the header describes {end_before}")
    return tensors


def _described(about: Any) -> tuple[torch.dtype, list[int], int, int]:
    """Return dtype, shape, begin and end of a tensor as the header describes it."""
    dtype, shape, offsets = about["dtype"], about["shape"], about["data_offsets"]
    begin, end = offsets
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"a shape is no list of at most {_MAX_DIMENSIONS} sizes")
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(
            f"shape {shape!r:.80} and offsets {offsets!r:.80}; expected integers, none negative"
        )
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r}; expected one of {', '.join(_DTYPES)}")
    if math.prod(shape) * _DTYPES[dtype].itemsize != end - begin:
        raise ValueError(f"{end - begin} bytes for the shape {shape} of {dtype}")
    return _DTYPES[dtype], shape, begin, end


def _tensor(dtype: torch.dtype, shape: list[int], content: memoryview) -> torch.Tensor:
    # Memory of its own: a view would keep the whole message alive, and could not be written to.
    raw = torch.empty(len(content), dtype=torch.uint8)
    np.copyto(raw.numpy(), np.frombuffer(content, dtype=np.uint8))  # other threads run meanwhile
    return raw.view(dtype).reshape(shape)
