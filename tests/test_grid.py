"""PrivateGridNetwork: one search on several workers."""

import pytest
import torch

import syft as sy


@pytest.fixture
def workers() -> list[sy.VirtualWorker]:
    """Three workers with a tensor each."""
    workers = [sy.VirtualWorker(id=name) for name in ("bob", "alice", "james")]
    for one, tag in zip(workers, ("#male", "#female", "#male"), strict=True):
        tensor = torch.tensor([1, 2, 3, 4])
        tensor.tags, tensor.description = {f"#{one.id}", tag}, "four numbers"
        one.load_data([tensor])
    return workers


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ([], {"bob", "alice", "james"}),
        (["#bob"], {"bob"}),
        (["#male"], {"bob", "james"}),
        (["#male", "#james"], {"james"}),
        (["#other"], set()),
    ],
    ids=str,
)
def test_workers_with_what_is_searched_for_are_found(workers, query, found):
    results = sy.PrivateGridNetwork(*workers).search(*query)
    assert results.keys() == found
    assert all(len(pointers) == 1 for pointers in results.values())


def test_results_are_pointers_with_tags_description_and_shape(workers):
    (pointer,) = sy.PrivateGridNetwork(*workers).search("#alice")["alice"]
    assert pointer.location is workers[1]
    assert pointer.tags == {"#alice", "#female"} and pointer.description == "four numbers"
    assert pointer.shape == (4,) and pointer.get().tolist() == [1, 2, 3, 4]


def test_what_was_found_stays_when_the_pointers_go(workers):
    grid = sy.PrivateGridNetwork(*workers)
    grid.search("#male")
    assert len(grid.search("#male")) == 2


def test_a_grid_shows_its_workers(workers):
    grid = sy.PrivateGridNetwork(*workers)
    assert grid.workers == workers and repr(grid) == "<PrivateGridNetwork of bob, alice, james>"
