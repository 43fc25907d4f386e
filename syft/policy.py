"""The documented import path of Policy; the code is in `syft.access`."""

from syft.access.policy import Policy
from syft.access.privacy import DifferentialPrivacy

__all__ = ["DifferentialPrivacy", "Policy"]
