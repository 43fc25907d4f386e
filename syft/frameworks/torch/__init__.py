"""The parts of this package that belong to torch."""

from syft.frameworks.torch import federated, fl
from syft.frameworks.torch.hook import TorchHook
from syft.generic.absent import names_of

__all__ = ["TorchHook", "federated", "fl"]
__getattr__ = names_of(__name__)
