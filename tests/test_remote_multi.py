"""One tensor at several workers: x.send(bob, alice)."""

import pytest
import torch
import torch.nn.functional as F

import syft as sy
from syft.exceptions import TensorsNotCollocatedException
from syft.generic.pointers.multi_pointer import MultiPointerTensor


@pytest.fixture(autouse=True)
def hook():
    return sy.TorchHook(torch)


@pytest.fixture
def bob():
    return sy.VirtualWorker(id="bob")


@pytest.fixture
def alice():
    return sy.VirtualWorker(id="alice")


def test_operations_happen_at_each_worker(bob, alice):
    tensors = torch.tensor([1, 2, 3]).send(bob, alice)
    assert isinstance(tensors, MultiPointerTensor)
    assert (tensors.shape, tensors.dim(), len(tensors)) == ((3,), 1, 3)
    assert tensors.location == [bob, alice]
    assert "bob" in str(tensors) and "alice" in str(tensors)
    doubled = tensors + tensors
    assert (len(bob._objects), len(alice._objects)) == (2, 2)
    assert torch.equal(doubled.get(sum_results=True), torch.tensor([4, 8, 12]))
    assert [each.tolist() for each in (tensors * 3).get()] == [[3, 6, 9]] * 2
    values, places = torch.sort(tensors, descending=True)
    assert values.get()[0].tolist() == [3, 2, 1] and places.get()[1].tolist() == [2, 1, 0]


def test_pointers_to_different_workers_are_combined(bob, alice):
    tensors = torch.tensor([1.0]).send(bob).combine(torch.tensor([2.0]).send(alice))
    assert (tensors + 1).get(sum_results=True).item() == 5
    with pytest.raises(ValueError, match="one for each worker"):
        torch.ones(1).send(bob).combine(torch.ones(1).send(bob))
    with pytest.raises(ValueError, match="expected pointers"):
        torch.ones(1).combine(torch.ones(1).send(bob))


def test_gradients_are_computed_at_each_worker(bob, alice):
    weight = torch.tensor([2.0], requires_grad=True).send(bob, alice)
    data = torch.tensor([1.0]).send(bob).combine(torch.tensor([3.0]).send(alice))
    assert weight.requires_grad and weight.grad is None
    F.mse_loss(weight * data, data).backward()
    assert [each.item() for each in weight.grad.copy().get()] == [2.0, 18.0]


def test_tensors_of_other_workers_are_apart(bob, alice):
    carol = sy.VirtualWorker(id="carol")
    with pytest.raises(TensorsNotCollocatedException, match="'alice', 'bob', 'carol'"):
        torch.ones(1).send(bob, alice) + torch.ones(1).send(bob, carol)


def test_the_tensors_go_with_the_pointers(bob, alice):
    tensors = torch.ones(1).send(bob, alice)
    assert len(bob._objects) == len(alice._objects) == 1
    del tensors
    assert not bob._objects and not alice._objects
