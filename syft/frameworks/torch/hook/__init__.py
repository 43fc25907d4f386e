"""TorchHook, the class that adds PySyft 0.2's names to torch."""

from syft.frameworks.torch.hook.hook import TorchHook
from syft.generic.absent import names_of

__all__ = ["TorchHook"]
__getattr__ = names_of(__name__)
