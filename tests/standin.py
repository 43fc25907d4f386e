"""A stand-in for remote tensors, until they are there: pointers that compute in this process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import syft as sy
from syft.objects import ID_PROVIDER
from syft.workers.base import BaseWorker

IS_NEEDED = not (Path(sy.__file__).parent / "remote" / "modules.py").exists()
needs_remote_tensors = pytest.mark.skipif(IS_NEEDED, reason="needs remote tensors")


class Pointer(torch.Tensor):
    """A tensor that knows a worker; what is computed from it is there as well."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = super().__torch_function__(func, types, args, kwargs or {})
        first = args[0][0] if isinstance(args[0], (list, tuple)) else args[0]
        for each in made if isinstance(made, tuple) else [made]:
            if isinstance(each, Pointer):
                each.location = first.location
        return made

    def get(self) -> torch.Tensor:
        if hasattr(self, "id_at_location"):
            self.location.rm_obj(self.id_at_location)
        return self.detach().as_subclass(torch.Tensor)


def pointer_to(tensor: torch.Tensor, worker: BaseWorker) -> Pointer:
    pointer = torch.Tensor._make_subclass(Pointer, tensor.detach())
    pointer.location, pointer.id_at_location = worker, tensor.id
    pointer.tags, pointer.description = getattr(tensor, "tags", set()), tensor.description
    return pointer


@pytest.fixture(autouse=True)
def pointers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have workers make such pointers."""
    if not IS_NEEDED:
        yield
        return

    def send(self: BaseWorker, obj: Any, *args: Any, **kwargs: Any) -> Pointer:
        stored = obj.clone()
        stored.tags, stored.description = obj.__dict__.get("tags"), obj.__dict__.get("description")
        self.register_obj(stored, ID_PROVIDER.pop())
        return pointer_to(stored, self)

    def found(self: BaseWorker, id: Any, **about: Any) -> Pointer:
        return pointer_to(self.get_obj(id), self)

    monkeypatch.setattr(BaseWorker, "_send_object", send)
    monkeypatch.setattr(BaseWorker, "_pointer_to", found)
    yield
