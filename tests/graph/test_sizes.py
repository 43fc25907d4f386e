"""What an operator makes and does is measured before it runs, and what was measured is
remembered."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from syft.graph import sizes
from syft.graph.operators import resolve


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def multiplications(call: Callable[[], Any]) -> int:
    with torch.no_grad(), sizes._Account() as account:
        call()
    return account.work


PRODUCTS: dict[str, Callable[[], Any]] = {
    "a product": lambda: torch.mm(meta(3, 4), meta(4, 5)),
    "products": lambda: torch.bmm(meta(2, 3, 4), meta(2, 4, 5)),
    "a product that is added": lambda: torch.addmm(meta(5), meta(3, 4), meta(4, 5)),
    "products that are added": lambda: torch.baddbmm(meta(2, 3, 5), meta(2, 3, 4), meta(2, 4, 5)),
    "a layer": lambda: F.linear(meta(7, 4), meta(5, 4), meta(5)),
    "a convolution": lambda: F.conv2d(meta(2, 3, 9, 9), meta(6, 3, 3, 3), stride=2),
    "one in groups": lambda: F.conv2d(meta(2, 4, 9, 9), meta(6, 2, 3, 3), groups=2),
    "one backwards": lambda: F.conv_transpose2d(meta(2, 3, 9, 9), meta(3, 6, 3, 3), stride=2),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_multiplications_are_those_that_torch_counts(name: str) -> None:
    with FlopCounterMode(display=False) as counter:
        PRODUCTS[name]()
    assert 2 * multiplications(PRODUCTS[name]) == counter.get_total_flops() > 0


def test_a_pool_does_one_step_for_each_place_of_its_kernel() -> None:
    images = meta(2, 3, 8, 8)
    for call in (lambda: F.avg_pool2d(images, [2]), lambda: F.avg_pool2d(images, [2, 2])):
        assert multiplications(call) == 2 * 3 * 4 * 4 * 2 * 2


def test_what_is_no_tensor_makes_nothing() -> None:
    assert not list(sizes._tensors(None)) and not list(sizes._tensors([1, "a", None]))
    assert len(list(sizes._tensors([meta(1), (meta(2), None)]))) == 2


def counted(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[int]]:
    """Return an operator that is measured, and a list with an item for each time that it was."""
    times: list[int] = []
    monkeypatch.setattr(sizes, "_compare", lambda name, size, work: times.append(size))
    resolve.cache_clear()
    operator = resolve("aten::fft_fft")
    resolve.cache_clear()
    assert operator is not None
    return operator.function, times


def test_a_call_is_measured_once_until_too_many_others_have_been(monkeypatch) -> None:
    monkeypatch.setattr(sizes, "_REMEMBERED", 2)
    function, times = counted(monkeypatch)
    x = torch.zeros(16)
    for length, measured in ((4, 1), (4, 1), (5, 2), (4, 2), (6, 3), (4, 4), (4, 4)):
        function(x, length)
        assert len(times) == measured, length


def test_a_call_with_many_numbers_is_measured_each_time(monkeypatch) -> None:
    monkeypatch.setattr(sizes, "_MAX_KEY", 3)
    function, times = counted(monkeypatch)
    for measured in (1, 2):
        function(torch.zeros(16), 4)
        assert len(times) == measured


def test_a_mask_is_measured_by_the_elements_that_it_takes() -> None:
    operator = resolve("aten::index.Tensor")
    assert operator is not None
    images, mask = torch.rand(4, 5), torch.rand(4, 5) > 0.5
    for indices in ([mask], [torch.tensor([True, False, False, True]), None]):
        expected = torch.ops.aten.index.Tensor(images, indices)
        token = sizes.max_result_bytes.set(expected.numel() * 8)
        try:
            assert torch.equal(operator.function(images, indices), expected)
            sizes.max_result_bytes.set(expected.numel() * 8 - 1)
            with pytest.raises(ValueError, match="would make"):
                operator.function(images, indices)
        finally:
            sizes.max_result_bytes.reset(token)


def test_what_makes_a_tensor_of_numbers_alone_is_measured_without_its_memory() -> None:
    operator = resolve("aten::linspace")
    assert operator is not None
    assert torch.equal(operator.function(0.0, 1.0, 5), torch.linspace(0, 1, 5))
    with pytest.raises(ValueError, match="aten::linspace would make 4000000000 bytes"):
        operator.function(0.0, 1.0, 10**9)
