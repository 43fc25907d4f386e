"""Import path of PySyft 0.2; the code is in `syft.objects`."""

from syft.objects import ObjectPointer

__all__ = ["ObjectPointer"]
