"""Import paths of PySyft 0.2; the code is in `syft.objects` and `syft.remote`."""

from syft.generic.pointers.object_pointer import ObjectPointer
from syft.generic.pointers.object_wrapper import ObjectWrapper
from syft.generic.pointers.pointer_tensor import PointerTensor

__all__ = ["ObjectPointer", "ObjectWrapper", "PointerTensor"]
