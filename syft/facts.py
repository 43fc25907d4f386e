"""What an error of this package is: facts by name, and a text that is made of them.

    @dataclass(eq=False)
    class DatasetExists(SyftError, ValueError):
        worker: str
        dataset_key: str
        _text = "worker {worker!r} already has a dataset {dataset_key!r}. ..."

Facts, not the text, travel from one process to another: programs can use them, and each side makes
the text of them for itself. What another process says of a fact is a plain value, and is fit for a
terminal once it has passed `printable`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar


class SyftError(Exception):
    """Base of all errors of this package.

    Attributes:
        remote_traceback: the traceback on the worker, if the error was raised there.
    """

    remote_traceback: str | None = None
    _text: ClassVar[str] = ""

    def __str__(self) -> str:
        """Return the text: the template of the class, its facts filled in by name."""
        if not self._text:
            return super().__str__()
        shown = {name: listed(v) if isinstance(v, list) else v for name, v in vars(self).items()}
        return self._text.format_map(shown)

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            _rebuild,
            (type(self), to_fields(self)),
            {"remote_traceback": self.remote_traceback},
        )


def _rebuild(cls: type[SyftError], fields: dict[str, Any]) -> SyftError:
    return cls(**fields)


def to_fields(error: SyftError) -> dict[str, Any]:
    """Return the facts of an error of this package as a dict of plain values, for the wire."""
    return {name: plain(getattr(error, name)) for name in facts_of(type(error))}


def facts_of(cls: type[SyftError]) -> dict[str, str]:
    """Return the names of an error's facts, and their annotations."""
    return (
        {each.name: str(each.type) for each in dataclasses.fields(cls)}
        if dataclasses.is_dataclass(cls)
        else {}
    )


def printable(text: str, most: int = 20_000) -> str:
    """Return a text from elsewhere as one that only fills a terminal and that UTF-8 can hold.

    Control characters other than newlines and tabs, and those that turn the direction of text,
    become escapes.

    Args:
        text: the text.
        most: characters after which it is cut.
    """
    return text[:most].encode(errors="backslashreplace").decode().translate(_ESCAPES)


def plain(value: Any) -> Any:
    """Return a fact of an error as a value that can travel and be shown.

    What is nothing of that kind becomes text.
    """
    if isinstance(value, str):
        return printable(value)
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        if -(2**63) <= value < 2**64:
            return int(value)
        return float(value) if value.bit_length() < 1000 else float("inf")
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in list(value)[:_MOST_ITEMS]]
    if isinstance(value, dict):
        return {
            printable(str(name), 256): plain(item)
            for name, item in list(value.items())[:_MOST_ITEMS]
        }
    return f"<{type(value).__name__}>"


def listed(names: list[str]) -> str:
    """Return names as a text that lists them."""
    return ", ".join(repr(name) for name in names) if names else "none"


_MOST_ITEMS = 1000
# What turns the direction of text, and separators of lines.
_TURNING = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_ESCAPES = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
}
_ESCAPES |= {code: f"\\u{code:04x}" for code in _TURNING}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


KINDS: dict[str, Callable[[Any], bool]] = {
    "str": _is_text,
    "int": lambda value: isinstance(value, int),
    "float": lambda value: isinstance(value, (int, float)),
    "list[str]": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "dict[str, str]": lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
    "Any": lambda value: True,
}
"""Annotation of a fact -> whether a plain value is of that type."""
