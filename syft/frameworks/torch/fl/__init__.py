"""Federated learning on torch: datasets and averaging."""

from syft.frameworks.torch.fl import utils
from syft.frameworks.torch.fl.dataset import BaseDataset, FederatedDataset

__all__ = ["BaseDataset", "FederatedDataset", "utils"]
