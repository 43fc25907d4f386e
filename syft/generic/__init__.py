"""Import paths of PySyft 0.2; the code is in `syft.objects`."""

from syft.generic.absent import names_of

__getattr__ = names_of(__name__)
