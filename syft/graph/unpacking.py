"""msgpack from others, read without Python's garbage collector getting in the way."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack


@contextmanager
def collector_paused() -> Iterator[None]:
    """Make many objects without a collection in between.

    A megabyte can hold a million empty lists. While these are made the collector would go through
    all of them again and again, which takes seconds in which no other thread runs; without it they
    take a tenth of one.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def unpack(packed: bytes | memoryview, **options: Any) -> Any:
    """Return what msgpack.unpackb returns."""
    with collector_paused():
        return msgpack.unpackb(packed, **options)
