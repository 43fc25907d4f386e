"""The parts of this package that belong to torch."""

from syft.frameworks.torch import federated, fl
from syft.frameworks.torch.hook import TorchHook

__all__ = ["TorchHook", "federated", "fl"]
