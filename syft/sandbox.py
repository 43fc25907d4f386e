"""Workers and data to play with, as the tutorials of PySyft use them."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, NamedTuple

import torch

from syft.frameworks.torch import TorchHook
from syft.grid import PrivateGridNetwork
from syft.objects import ID_PROVIDER
from syft.workers.virtual import VirtualWorker

WORKERS = ("bob", "theo", "jason", "alice", "andy", "jon")
SKLEARN_DATASETS = ("diabetes", "breast_cancer", "digits", "iris", "wine", "linnerud")
"""What scikit-learn brings along; it loads each with `load_<name>`."""
BOSTON_SAMPLES, BOSTON_FEATURES = 506, 13


class Table(NamedTuple):
    """A data set: (N, ...) inputs and (N, ...) targets, of float32, and what it is."""

    data: torch.Tensor
    target: torch.Tensor
    description: str
    tags: tuple[str, ...]


def create_sandbox(
    gbs: MutableMapping[str, Any], verbose: bool = True, download_data: bool = True
) -> None:
    """Put a hook, six workers with tagged data and a grid of them into a namespace.

    The names are `hook`, `bob`, `theo`, `jason`, `alice`, `andy`, `jon`, `workers` (their list) and
    `grid`. The data are cut into six consecutive parts each, and tagged: "#data" or "#target", and
    "#boston", "#diabetes", "#breast_cancer", "#digits", "#iris", "#wine" or "#linnerud".

    Source: PySyft 0.2.4, `syft.create_sandbox`. All data sets except "#boston" are scikit-learn's,
    and only there if it is installed. It has dropped the prices of houses in Boston, so "#boston"
    are generated numbers of the same shape here.

    Args:
        gbs: where to put the names, usually globals().
        verbose: whether to print each step, and not only the first and the last.
        download_data: whether to load the data. Nothing is downloaded.
    """

    def tell(step: str) -> None:
        if verbose:
            print(step)

    print("Setting up Sandbox...")
    tell("\t- Hooking PyTorch")
    gbs["hook"] = TorchHook(torch)
    tell("\t- Creating Virtual Workers: " + ", ".join(WORKERS))
    gbs["workers"] = workers = [VirtualWorker(gbs["hook"], id=name) for name in WORKERS]
    gbs.update(zip(WORKERS, workers, strict=True))
    if download_data:
        tell("\t- Boston Housing Dataset: generated, because scikit-learn has dropped it")
        _distribute(_boston(), workers)
        try:
            from sklearn import datasets
        except ImportError:
            names = ", ".join(SKLEARN_DATASETS)
            print(f"\t- Without {names}: they need scikit-learn (pip install scikit-learn)")
        else:
            for name in SKLEARN_DATASETS:
                tell(f"\t- {name.replace('_', ' ').title()} Dataset from scikit-learn")
                _distribute(_from_sklearn(datasets, name), workers)
    tell("\t- Collecting workers into a PrivateGridNetwork")
    gbs["grid"] = PrivateGridNetwork(*workers)
    print("Done!")


def _boston() -> Table:
    """Return numbers that a linear model can learn from, always the same ones."""
    generator = torch.Generator().manual_seed(BOSTON_SAMPLES)
    data = torch.randn(BOSTON_SAMPLES, BOSTON_FEATURES, generator=generator)
    slopes = torch.randn(BOSTON_FEATURES, generator=generator)
    noise = torch.randn(BOSTON_SAMPLES, generator=generator)
    description = (
        "Generated numbers in the place of the Boston housing data: 506 samples of 13 normally "
        "distributed features; the target is a linear function of them, plus noise."
    )
    tags = ("#boston", "#housing", "#boston_housing")
    return Table(data, 22.5 + 2 * (data @ slopes) + noise, description, tags)


def _from_sklearn(datasets: Any, name: str) -> Table:
    table = getattr(datasets, f"load_{name}")()
    data, target = (torch.as_tensor(table[key]).float() for key in ("data", "target"))
    return Table(data, target, table["DESCR"], (f"#{name}",))


def _distribute(table: Table, workers: Sequence[VirtualWorker]) -> None:
    """Give each worker, as the owner of its data, a part of the inputs and of the targets."""
    for tensor, kind in ((table.data, "#data"), (table.target, "#target")):
        size = len(tensor) // len(workers)
        sizes = [size] * (len(workers) - 1)
        parts = tensor.split([*sizes, len(tensor) - sum(sizes)])
        for worker, part in zip(workers, parts, strict=True):
            own: Any = part.clone()
            own.tags, own.description = {*table.tags, kind}, table.description
            worker.register_obj(own, ID_PROVIDER.pop())
