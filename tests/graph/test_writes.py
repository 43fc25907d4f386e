"""What operators write is counted, so that autograd notices what it can no longer use."""

import pytest
import torch
from torch import nn

from syft.graph.operators import resolve

BATCH_NORM = {
    "aten::batch_norm": (True, 1.0, 1e-5, False),
    "aten::native_batch_norm": (True, 1.0, 1e-5),
}


@pytest.mark.parametrize("name", BATCH_NORM)
def test_statistics_that_are_a_view_of_saved_indices_make_the_backward_pass_fail(name):
    images = torch.randn(1, 4, 8, 8, requires_grad=True)
    pooled, indices = nn.functional.max_pool2d(images, 2, return_indices=True)
    mean = indices.view(-1).view(torch.float64)
    rows = torch.full((4, mean.numel()), 1e300, dtype=torch.float64)

    resolve(name).function(rows, None, None, mean, torch.zeros_like(mean), *BATCH_NORM[name])

    assert indices._version > 0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        pooled.sum().backward()


def test_a_layer_used_twice_before_the_backward_pass_gives_torchs_statistics_and_gradients():
    ours, theirs = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    first, second = torch.randn(5, 3), torch.randn(4, 3)
    norm = resolve("aten::batch_norm").function

    loss = sum(
        norm(
            rows, ours.weight, ours.bias, ours.running_mean, ours.running_var,
            True, 0.1, 1e-5, False,
        ).square().sum()
        for rows in (first, second)
    )  # fmt: skip
    loss.backward()
    sum(theirs(rows).square().sum() for rows in (first, second)).backward()

    assert ours.weight.grad.equal(theirs.weight.grad)
    assert ours.running_mean.equal(theirs.running_mean)
    assert ours.running_var.equal(theirs.running_var)


def test_the_slopes_that_a_random_relu_writes_are_counted():
    slopes = torch.zeros(4)

    resolve("aten::rrelu_with_noise").function(torch.randn(4), slopes, 0.1, 0.3, True)

    assert slopes._version == 1 and (slopes != 0).all()
