"""The name that PySyft had for `syft.frameworks.torch.fl` before 0.2.0; the same modules."""

import sys

from syft.frameworks.torch.fl import (
    BaseDataset,
    FederatedDataLoader,
    FederatedDataset,
    dataloader,
    dataset,
    utils,
)

sys.modules[f"{__name__}.utils"] = utils
sys.modules[f"{__name__}.dataset"] = dataset
sys.modules[f"{__name__}.dataloader"] = dataloader

__all__ = [
    "BaseDataset",
    "FederatedDataLoader",
    "FederatedDataset",
    "dataloader",
    "dataset",
    "utils",
]
