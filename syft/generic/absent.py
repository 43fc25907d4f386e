"""Names of PySyft 0.2 that programs import and that are not here."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn


def absent(module: str, names: str, instead: str) -> Callable[[str], type]:
    """Return the `__getattr__` of a module whose names can be imported, but not called.

    Args:
        module: the module's name.
        names: the names that PySyft 0.2 had there, separated by spaces.
        instead: for the error of a call: why it is not here and what to do, in whole sentences.
    """

    @cache
    def get(name: str) -> type:
        if name not in names.split():
            raise AttributeError(f"module {module!r} has no attribute {name!r}")

        def refuse(cls: type, *args: Any, **kwargs: Any) -> NoReturn:
            raise NotImplementedError(
                f"{module}.{name} cannot be used: only its name is here. {instead}"
            )

        return type(name, (), {"__module__": module, "__new__": refuse})

    return get
