"""The documented import path of Limits; the code is in `syft.access.limits`."""

from syft.access.limits import Limits

__all__ = ["Limits"]
