"""Import path of PySyft 0.2; only names are here."""

from syft.generic.absent import names_of

__getattr__ = names_of(__name__)
