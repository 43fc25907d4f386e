"""The websocket workers of PySyft 0.2, on current Python, torch and websockets.

An independent implementation of the part of PySyft 0.2's API that federated training with websocket
workers uses, with the same import paths, names and arguments. It is not OpenMined's `syft`.
"""

import logging
from typing import Any

import torch as torch  # programs written for PySyft 0.2 use `sy.torch`

from syft import exceptions, federated, frameworks, serde, workers
from syft.federated import FederatedClient, TrainConfig
from syft.frameworks.torch import TorchHook
from syft.frameworks.torch.fl import BaseDataset, FederatedDataLoader, FederatedDataset
from syft.grid import PrivateGridNetwork
from syft.objects import ID_PROVIDER, ObjectPointer, ObjectWrapper, registry
from syft.remote.tensor import PointerTensor
from syft.sandbox import create_sandbox
from syft.version import __version__
from syft.workers import VirtualWorker, WebsocketClientWorker, WebsocketServerWorker

__all__ = [
    "ID_PROVIDER",
    "BaseDataset",
    "FederatedClient",
    "FederatedDataLoader",
    "FederatedDataset",
    "ObjectPointer",
    "ObjectWrapper",
    "PointerTensor",
    "PrivateGridNetwork",
    "TorchHook",
    "TrainConfig",
    "VirtualWorker",
    "WebsocketClientWorker",
    "WebsocketServerWorker",
    "__version__",
    "create_sandbox",
    "exceptions",
    "federated",
    "frameworks",
    "hook",
    "local_worker",
    "serde",
    "workers",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
registry.local_worker = VirtualWorker(id="me")


def __getattr__(name: str) -> Any:
    """Return `hook` (the last TorchHook) or `local_worker`, which stands for this process.

    `hook` is None before the first TorchHook is made.
    """
    if name in ("hook", "local_worker"):
        return getattr(registry, name)
    raise AttributeError(f"module 'syft' has no attribute {name!r}")
