"""Import path of PySyft 0.2; the code is in `syft.objects`."""

from syft.objects import PointerTensor

__all__ = ["PointerTensor"]
