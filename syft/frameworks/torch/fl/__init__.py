"""Federated learning on torch: datasets, their batches, and averaging."""

from syft.frameworks.torch.fl import utils
from syft.frameworks.torch.fl.dataloader import FederatedDataLoader
from syft.frameworks.torch.fl.dataset import BaseDataset, FederatedDataset

__all__ = ["BaseDataset", "FederatedDataLoader", "FederatedDataset", "utils"]
