"""Chains of views that torch would remember one by one."""

import pytest
import torch

from syft.graph.operators import resolve
from syft.graph.views import MAX_VIEWS


@pytest.mark.parametrize(
    "names",
    [
        ["aten::view_as_real", "aten::view_as_complex"],
        ["aten::conj"],
        ["aten::adjoint"],
        ["aten::view_as_real", "aten::alias", "aten::view_as_complex"],
    ],
)
def test_a_long_chain_of_views_of_complex_numbers_is_refused(names):
    tensor = torch.zeros(2, 2, dtype=torch.complex64)

    with pytest.raises(ValueError, match=f"the limit is {MAX_VIEWS}. Clone the tensor"):
        for _ in range(MAX_VIEWS + 1):
            for name in names:
                tensor = resolve(name).function(tensor)


def test_other_views_and_new_views_of_one_tensor_are_not_counted():
    plain = torch.zeros(4, 4)
    numbers = torch.zeros(2, dtype=torch.complex64)

    for _ in range(2 * MAX_VIEWS):
        plain = resolve("aten::t").function(plain)
        pairs = resolve("aten::view_as_real").function(numbers)

    pairs.fill_(1)
    assert numbers.tolist() == [1 + 1j, 1 + 1j]
