"""The documented import path of Policy; the code is in `syft.access.policy`."""

from syft.access.policy import Policy

__all__ = ["Policy"]
