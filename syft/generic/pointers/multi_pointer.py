"""Import path of PySyft 0.2; the code is in `syft.remote.multi`."""

from syft.remote.multi import MultiPointerTensor

__all__ = ["MultiPointerTensor"]
