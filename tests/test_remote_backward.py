"""What a backward pass makes is told while it runs."""

import gc
import weakref

import pytest
import torch

from syft.remote.backward import telling, watch


class Enough(Exception):
    """The pass has made what it may."""


class Limit:
    """Ends a pass that makes more than so many bytes."""

    def __init__(self, most):
        self.most, self.made = most, 0

    def __call__(self, made):
        self.made += made
        if self.made > self.most:
            raise Enough


def watched(tensor):
    watch(tensor)
    return tensor


def backward(loss, most=10**6):
    limit = Limit(most)
    token = telling.set(limit)
    try:
        loss.backward()
    finally:
        telling.reset(token)
    return limit.made


def of_expanded():
    number, row = torch.zeros(1, requires_grad=True), torch.zeros(10_000)
    many = [watched(number.expand(10_000)) for _ in range(100)]
    return sum(watched(watched(each * row).sum()) for each in many)


def of_elements():
    row = torch.zeros(10_000, requires_grad=True)
    return sum(watched(row[place]) for place in range(100))


def of_changed_elements():
    row = watched(torch.zeros(10_000, requires_grad=True) * 1)
    for place in range(100):
        watch(row[place].add_(1))
    return watched(row.sum())


@pytest.mark.parametrize("build", [of_expanded, of_elements, of_changed_elements])
def test_a_pass_that_makes_much_more_than_what_was_built_is_ended(build):
    with pytest.raises(Enough):
        backward(build())


def test_a_usual_pass_tells_about_as_much_as_the_forward_pass_made():
    inputs, weight = torch.randn(50, 40), torch.randn(30, 40, requires_grad=True)
    hidden = watched(torch.nn.functional.linear(inputs, weight))
    loss = watched(watched(hidden.relu()).sum())

    assert hidden.nbytes <= backward(loss) <= 4 * hidden.nbytes


def test_a_node_tells_once_and_without_a_limit_nothing_happens():
    row = torch.ones(10, requires_grad=True)
    twice = watched(watched(row.exp()))
    twice.sum().backward()

    assert row.grad is not None
    assert backward(watched(row.exp()).sum()) == backward(watched(watched(row.exp())).sum()) == 40


def test_a_graph_keeps_nothing_alive_that_was_told():
    limit = Limit(10**6)
    token = telling.set(limit)
    loss = watched(torch.ones(10, requires_grad=True).exp()).sum()
    loss.backward(retain_graph=True)
    telling.reset(token)
    gone = weakref.ref(limit)
    del limit, token

    gc.collect()
    assert gone() is None
