"""The table of one hospital, as its worker loads it. Put a function that reads your own here."""

import numpy as np

import syft as sy

COLUMNS = 8


def load(name: str, rows: str = "400") -> sy.BaseDataset:
    """Return a hospital's patients: 8 measurements each, and whether they came back.

    Args:
        name: the hospital's; each has patients of its own, drawn in another part of the table.
        rows: how many patients it has; text, as all arguments on the command line.
    """
    random = np.random.default_rng(sum(name.encode()))
    inputs = random.normal(random.normal(0, 0.5, COLUMNS), 1, (int(rows), COLUMNS))
    risk = inputs[:, 0] * inputs[:, 1] + inputs[:, 2:].sum(axis=1) / 2
    targets = risk + random.normal(0, 0.3, len(inputs)) > 0
    return sy.BaseDataset(data=inputs.astype(np.float32), targets=targets.astype(np.float32))
