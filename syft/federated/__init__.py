"""Federated training: what is sent to a worker, and what the worker does with it."""

from syft.federated.federated_client import FederatedClient
from syft.federated.train_config import TrainConfig

__all__ = ["FederatedClient", "TrainConfig"]
