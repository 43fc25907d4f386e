"""Splits: complete, disjoint, the same everywhere, and as uneven as they say."""

import numpy as np
import pytest
import torch

from syft.federated.splits import LEAST_SAMPLES, SplitError, by_label, dirichlet, iid, shards, split

LABELS = np.random.RandomState(0).randint(0, 10, size=3000)
TEXTS = ("labels", "iid", "shards:2", "shards:3", "dirichlet:0.1", "dirichlet:100")


def counts(part, labels=LABELS):
    return np.bincount(labels[part], minlength=10)


@pytest.mark.parametrize("how", TEXTS)
@pytest.mark.parametrize("parts", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_every_sample_is_in_exactly_one_part(how, parts, seed):
    found = split(LABELS, how, parts, seed)
    assert len(found) == parts
    assert np.array_equal(np.sort(np.concatenate(found)), np.arange(len(LABELS)))
    for part in found:
        assert part.dtype == np.int64 and np.all(np.diff(part) > 0) and len(part)


@pytest.mark.parametrize("how", TEXTS)
def test_the_same_seed_gives_the_same_split_and_another_seed_another(how):
    one, same, other = (split(LABELS, how, 4, seed) for seed in (1, 1, 2))
    assert all(map(np.array_equal, one, same))
    assert all(map(np.array_equal, one, other)) == (how == "labels")


@pytest.mark.parametrize("how", TEXTS)
def test_labels_may_be_a_tensor_or_a_list(how):
    expected = split(LABELS, how, 3)
    for labels in (torch.from_numpy(LABELS), LABELS.tolist()):
        assert all(map(np.array_equal, split(labels, how, 3), expected))


def test_what_a_seed_draws_is_the_same_in_every_version_of_numpy():
    """Workers on several machines each compute the split; these are its first indices."""
    assert [part[:4].tolist() for part in iid(range(20), 2)] == [[1, 2, 3, 4], [0, 5, 8, 9]]
    assert [part[:4].tolist() for part in shards(LABELS, 2)] == [[0, 4, 5, 7], [1, 2, 3, 6]]
    assert [part[:4].tolist() for part in dirichlet(LABELS, 2, 0.5)] == [
        [1, 7, 11, 13],
        [0, 2, 3, 4],
    ]


def test_the_tutorials_digits_are_the_split_by_label_into_three_parts():
    held = [np.unique(LABELS[part]).tolist() for part in by_label(LABELS, 3)]
    assert held == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_parts_drawn_at_random_have_the_same_size_and_all_labels():
    found = iid(LABELS, 7)
    assert {len(part) for part in found} == {3000 // 7, 3000 // 7 + 1}
    assert min(counts(part).min() for part in found) > 20


def test_shards_have_few_labels_and_the_same_size():
    labels = np.repeat(np.arange(10), 60)
    for number in (1, 2, 4):
        found = shards(labels, 20 // number, number)
        assert max(len(np.unique(labels[part])) for part in found) <= number
    assert {len(part) for part in shards(labels, 10, 2)} == {60}


def test_the_shares_of_a_dirichlet_split_have_the_variance_of_the_distribution():
    """A share of a symmetric Dirichlet distribution over k parts has the variance
    (k - 1) / (k^2 (k alpha + 1))."""
    labels = np.repeat(np.arange(200), 100)
    for alpha in (0.1, 1.0, 10.0):
        shares = [
            np.bincount(labels[part], minlength=200) / 100 for part in dirichlet(labels, 4, alpha)
        ]
        assert np.var(shares) == pytest.approx(3 / 16 / (4 * alpha + 1), rel=0.15)


def test_a_tiny_alpha_gives_each_label_to_one_part():
    found = dirichlet(LABELS, 3, 1e-6)
    assert all(
        np.count_nonzero([counts(part)[digit] for part in found]) == 1 for digit in range(10)
    )


def test_each_part_of_a_dirichlet_split_has_enough_samples():
    for seed in range(20):
        assert min(map(len, dirichlet(LABELS[:100], 5, 0.3, seed))) >= LEAST_SAMPLES


def test_a_thousand_parts_are_possible_with_fewer_samples_each():
    labels = np.repeat(np.arange(10), 6000)
    found = split(labels, "dirichlet:0.3", 1000, least=1)
    assert 1 <= min(map(len, found)) < LEAST_SAMPLES
    assert np.array_equal(np.sort(np.concatenate(found)), np.arange(60_000))


def test_a_split_draws_nothing_from_the_programs_generators():
    np.random.seed(1)
    torch.manual_seed(1)
    expected = np.random.rand(), torch.rand(1)
    np.random.seed(1)
    torch.manual_seed(1)
    for how in TEXTS:
        split(LABELS, how, 3)
    assert (np.random.rand(), torch.rand(1)) == expected


@pytest.mark.parametrize(
    "how",
    ["", "digits", "iid:2", "labels:3", "shards", "shards:", "shards:x", "dirichlet:x", "iid "],
)
def test_a_text_that_names_no_split_is_refused(how):
    with pytest.raises(
        ValueError, match=r"^no split is called '.*'; expected labels, iid, shards:N"
    ):
        split(LABELS, how, 2)


@pytest.mark.parametrize(
    ("how", "parts", "reason"),
    [
        ("labels", 11, "there are 10 labels; expected at least one for each of 11 parts"),
        ("labels", 0, "into 0 parts"),
        ("iid", 3001, "3000 samples into 3001 parts"),
        ("shards:0", 2, "parts of 0 or more"),
        ("shards:2", 1501, "into 1501 parts of 2 or more"),
        ("dirichlet:0", 2, "alpha is 0.0; expected a number from 1e-6 to 1e6"),
        ("dirichlet:nan", 2, "alpha is nan"),
        ("dirichlet:0.3", 301, "into 301 parts of 10 or more"),
        ("dirichlet:0.00001", 20, "in 1,000 draws with alpha 1e-05 some part had fewer than 10"),
    ],
)
def test_a_split_that_is_not_possible_is_refused(how, parts, reason):
    with pytest.raises(SplitError, match=r"^cannot split") as refused:
        split(LABELS, how, parts)
    assert reason in str(refused.value)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_bounds_is_refused(seed):
    with pytest.raises(SplitError, match=f"the seed is {seed}; expected 0 to"):
        iid(LABELS, 2, seed)
