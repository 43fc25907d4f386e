"""Import paths of PySyft 0.2; the code is in `syft.objects`."""

from syft.generic.pointers.object_wrapper import ObjectWrapper

__all__ = ["ObjectWrapper"]
