"""Import paths of PySyft 0.2; the code is in `syft.objects` and `syft.remote`."""

from syft.generic.absent import names_of
from syft.generic.pointers.multi_pointer import MultiPointerTensor
from syft.generic.pointers.object_pointer import ObjectPointer
from syft.generic.pointers.object_wrapper import ObjectWrapper
from syft.generic.pointers.pointer_tensor import PointerTensor

__all__ = ["MultiPointerTensor", "ObjectPointer", "ObjectWrapper", "PointerTensor"]
__getattr__ = names_of(__name__)
