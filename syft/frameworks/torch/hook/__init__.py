"""TorchHook, the class that adds PySyft 0.2's names to torch."""

from syft.frameworks.torch.hook.hook import TorchHook

__all__ = ["TorchHook"]
