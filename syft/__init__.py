"""The websocket workers of PySyft 0.2, on current Python, torch and websockets.

An independent implementation of the part of PySyft 0.2's API that federated training with websocket
workers uses, with the same import paths, names and arguments. It is not OpenMined's `syft`.
"""

import logging
import os
from typing import Any

# Read when torch is loaded: its threads would spin while other workers of the machine need the
# cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch as torch  # programs written for PySyft 0.2 use `sy.torch`

from syft import exceptions, federated, frameworks, serde, workers
from syft.federated import FederatedClient, TrainConfig
from syft.frameworks.torch import TorchHook
from syft.frameworks.torch.fl import BaseDataset, FederatedDataLoader, FederatedDataset
from syft.generic import absent
from syft.grid import PrivateGridNetwork
from syft.objects import ID_PROVIDER, ObjectPointer, ObjectWrapper, registry
from syft.remote.multi import MultiPointerTensor, combine_pointers
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
    "MultiPointerTensor",
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
    "combine_pointers",
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
absent.Finder.install()


def __getattr__(name: str) -> Any:
    """Return `hook` (the last TorchHook) or `local_worker`, which stands for this process.

    `hook` is None before the first TorchHook is made. Other names of PySyft 0.2 are an error that
    tells what to do without.
    """
    if name in ("hook", "local_worker"):
        return getattr(registry, name)
    raise absent.not_here(__name__, name)
