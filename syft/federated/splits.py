"""Splits: who holds which samples in an experiment on one data set.

    parts = dirichlet(labels, parts=5, alpha=0.3, seed=1)
    parts = split(labels, "dirichlet:0.3", parts=5, seed=1)     # the same, for a command line
    alice = BaseDataset(data[parts[0]], labels[parts[0]])

    split         text             each part has
    ------------  ---------------  -----------------------------------------------------------------
    by_label      "labels"         all samples of some labels, and none of the others
    iid           "iid"            the same number of samples, drawn at random
    shards        "shards:2"       two runs of samples sorted by label, so about two labels
    dirichlet     "dirichlet:0.3"  of each label a random share; the smaller alpha, the less even

Each returns one array of indices per part, in ascending order. Every sample is in exactly one part,
and none is left out.

Workers on several machines each compute the whole split and keep their own part, so the same seed
has to give the same split everywhere. numpy promises that of its older generator, RandomState,
alone: the newer one may draw other numbers in another version, and some samples would then be in
two parts and others in none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Indices = np.ndarray[Any, np.dtype[np.int64]]

LEAST_SAMPLES = 10
"""Samples that each part of a Dirichlet split has at least, unless a caller says otherwise."""
_ATTEMPTS = 1000


class SplitError(ValueError):
    """A split that is not known, or not possible."""


def by_label(labels: Any, parts: int) -> list[Indices]:
    """Return a split in which each label is in one part only.

    The labels are dealt in ascending order, as evenly as possible: ten digits in three parts are
    0-3, 4-6 and 7-9.

    Args:
        labels: (N,) label of each sample; an array, a tensor or a list.
        parts: number of parts.

    Returns:
        For each part the indices of its samples, ascending.

    Raises:
        SplitError: `parts` is below 1, or there are fewer labels than parts.
    """
    labels = _labels(labels, parts)
    known = np.unique(labels)
    if len(known) < parts:
        raise SplitError(
            f"cannot split by label: there are {len(known)} labels; expected at least one for each "
            f"of {parts} parts. Use iid, shards or dirichlet."
        )
    return [np.flatnonzero(np.isin(labels, some)) for some in np.array_split(known, parts)]


def iid(labels: Any, parts: int, seed: int = 1) -> list[Indices]:
    """Return a split at random, into parts that differ by one sample at most.

    Args:
        labels: (N,) label of each sample; only their number matters.
        parts: number of parts.
        seed: from 0 to 2**32 - 1.

    Returns, Raises: as `shards`.
    """
    labels = _labels(labels, parts)
    order = _generator(seed).permutation(len(labels))
    return [np.sort(part) for part in np.array_split(order, parts)]


def shards(labels: Any, parts: int, shards_per_part: int = 2, seed: int = 1) -> list[Indices]:
    """Return a split in which each part has few labels.

    The samples are sorted by label, cut into shards of the same size, and the shards are dealt at
    random.

    Source: McMahan et al., AISTATS 2017, https://arxiv.org/abs/1602.05629, section 3.

    Args:
        labels: (N,) label of each sample; an array, a tensor or a list.
        parts: number of parts.
        shards_per_part: number of shards that each part gets.
        seed: from 0 to 2**32 - 1.

    Returns:
        For each part the indices of its samples, ascending.

    Raises:
        SplitError: `parts` or `shards_per_part` is below 1, or there are fewer samples than shards.
    """
    labels = _labels(labels, parts, shards_per_part)
    by_label = np.array_split(np.argsort(labels, kind="stable"), parts * shards_per_part)
    order = _generator(seed).permutation(len(by_label))
    return [
        np.sort(np.concatenate([by_label[shard] for shard in dealt]))
        for dealt in np.array_split(order, parts)
    ]


def dirichlet(
    labels: Any, parts: int, alpha: float, seed: int = 1, least: int = LEAST_SAMPLES
) -> list[Indices]:
    """Return a split in which each label is shared out among the parts at random.

    The shares of each label are drawn from a Dirichlet distribution. At 100 the parts are nearly
    alike, at 0.1 most parts have few labels. Splits are drawn until each part has `least` samples.

    Source: Yurochkin et al., ICML 2019, https://arxiv.org/abs/1905.12022, section 4.
    The parts differ in size too.

    Args:
        labels: (N,) label of each sample; an array, a tensor or a list.
        parts: number of parts.
        alpha: concentration, from 1e-6 to 1e6.
        seed: from 0 to 2**32 - 1.
        least: samples that each part has at least. With a thousand parts, some have few.

    Returns:
        For each part the indices of its samples, ascending.

    Raises:
        SplitError: `parts` or `least` is below 1, `alpha` is out of bounds, or in 1,000 draws some
            part had too few samples each time.
    """
    labels = _labels(labels, parts, least)
    if not 1e-6 <= alpha <= 1e6:
        raise SplitError(f"cannot split: alpha is {alpha}; expected a number from 1e-6 to 1e6.")
    random = _generator(seed)
    samples = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(_ATTEMPTS):
        dealt: list[list[Indices]] = [[] for _ in range(parts)]
        for some in samples:
            cuts = np.cumsum(_shares(random, alpha, parts))[:-1] * len(some)
            pieces = np.split(random.permutation(some), cuts.astype(int))
            for part, piece in zip(dealt, pieces, strict=True):
                part.append(piece)
        found = [np.sort(np.concatenate(part)) for part in dealt]
        if min(map(len, found)) >= least:
            return found
    raise SplitError(
        f"cannot split: in {_ATTEMPTS:,} draws with alpha {alpha:g} some part had fewer than "
        f"{least} samples each time. Use a larger alpha or fewer parts."
    )


def split(
    labels: Any, how: str, parts: int, seed: int = 1, least: int = LEAST_SAMPLES
) -> list[Indices]:
    """Return the split that a text names, see the table at the top.

    Args:
        labels: (N,) label of each sample; an array, a tensor or a list.
        how: "labels", "iid", "shards:N" or "dirichlet:ALPHA".
        parts: number of parts.
        seed: from 0 to 2**32 - 1; "labels" draws nothing.
        least: samples that each part of a Dirichlet split has at least.

    Returns:
        For each part the indices of its samples, ascending.

    Raises:
        SplitError: the text names no split, or the split it names is not possible.
    """
    name, _, number = how.partition(":")
    try:
        if how == "labels":
            arguments: tuple[Any, ...] = ()
        elif how == "iid":
            arguments = (seed,)
        else:
            arguments = ({"shards": int, "dirichlet": float}[name](number), seed)
            arguments += (least,) if name == "dirichlet" else ()
    except (KeyError, ValueError):
        raise SplitError(
            f"no split is called {how!r}; expected labels, iid, shards:N or dirichlet:ALPHA."
        ) from None
    functions = {"labels": by_label, "iid": iid, "shards": shards, "dirichlet": dirichlet}
    function: Any = functions[name]
    result: list[Indices] = function(labels, parts, *arguments)
    return result


def part(labels: Any, how: str, number: int, parts: int, seed: int = 1) -> Indices:
    """Return one part of the split that a text names, by its number from 1 on; as `split`."""
    return split(labels, how, parts, seed)[number - 1]


def _labels(labels: Any, parts: int, least: int = 1) -> Any:
    """Return the labels as an array, once there are `least` samples for each part."""
    labels = np.asarray(labels)
    if parts < 1 or least < 1 or len(labels) < parts * least:
        raise SplitError(
            f"cannot split {len(labels)} samples into {parts} parts of {least} or more; expected "
            "at least 1 part, and samples enough for all."
        )
    return labels


def _generator(seed: int) -> np.random.RandomState:
    if not 0 <= seed < 2**32:
        raise SplitError(f"cannot split: the seed is {seed}; expected 0 to 2**32 - 1.")
    return np.random.RandomState(seed)


def _shares(random: np.random.RandomState, alpha: float, parts: int) -> Any:
    """Return shares from a symmetric Dirichlet distribution, (parts,) float64; their sum is 1.

    They are gamma(alpha) variates divided by their sum. For a small alpha all of these may round to
    zero, so they are computed as logarithms, by gamma(alpha) = gamma(alpha + 1) u^(1 / alpha).
    """
    uniform = 1 - random.uniform(size=parts)  # in (0, 1]
    logarithms = np.log(random.gamma(alpha + 1, size=parts)) + np.log(uniform) / alpha
    variates = np.exp(logarithms - logarithms.max())
    return variates / variates.sum()
