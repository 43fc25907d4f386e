"""Import path of PySyft 0.2; the code is in `syft.remote.tensor`."""

from syft.remote.tensor import PointerTensor

__all__ = ["PointerTensor"]
