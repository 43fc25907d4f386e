"""Pointers to pointers: x.send(bob).send(alice)."""

import pytest
import torch

import syft as sy
from syft.exceptions import InvalidTensorForRemoteGet, TensorsNotCollocatedException
from tests.network import Server, proxy_of, serving


@pytest.fixture(autouse=True)
def hook():
    return sy.TorchHook(torch)


@pytest.fixture
def bob():
    return sy.VirtualWorker(id="bob")


@pytest.fixture
def alice():
    return sy.VirtualWorker(id="alice")


def test_each_get_takes_one_pointer_back(bob, alice):
    values = torch.tensor([1.0, 2.0])
    pointer = values.send(bob).send(alice)
    assert (pointer.location, pointer.owner) == (alice, sy.local_worker)
    taken = pointer.get()
    assert taken.location is bob and len(bob._objects) == 1 and not alice._objects
    assert torch.equal(taken.get(), values)
    assert not bob._objects


def test_the_worker_in_between_shows_the_pointer(bob, alice):
    first = torch.ones(2).send(bob)
    second = first.send("alice")
    assert second.id_at_location == first.id
    (held,) = alice._objects.values()
    assert held.id == first.id and held.location is bob
    assert held.id_at_location == first.id_at_location
    assert alice.objects_count() == 1 and "-> bob:" in alice.list_objects()


def test_operations_happen_where_the_tensor_is(bob, alice):
    pointer = torch.tensor([1.0, 2.0], requires_grad=True).send(bob).send(alice)
    doubled = pointer + pointer
    assert doubled.location is alice
    assert (len(alice._objects), len(bob._objects)) == (2, 2)
    doubled.sum().backward()
    assert torch.equal(pointer.grad.copy().get().get(), torch.full((2,), 2.0))
    assert torch.equal(doubled.get().get(), torch.tensor([2.0, 4.0]))
    taken = pointer.get()
    assert taken.requires_grad and taken.is_leaf
    assert torch.equal(taken.get().grad, torch.full((2,), 2.0))


def test_the_tensor_goes_with_the_outer_pointer(bob, alice):
    first = torch.ones(2).send(bob)
    second = first.send(alice)
    del second
    assert not alice._objects and not bob._objects


def test_there_may_be_three(bob, alice):
    carol = sy.VirtualWorker(id="carol")
    pointer = torch.ones(2).send(bob).send(alice).send(carol)
    assert torch.equal((pointer * 2).get().get().get(), torch.full((2,), 2.0))
    assert torch.equal(pointer.get().get().get(), torch.ones(2))


def test_a_pointer_and_what_it_points_to_are_not_together(bob, alice):
    tensor, pointer = torch.ones(2).send(alice), torch.ones(2).send(bob).send(alice)
    with pytest.raises(TensorsNotCollocatedException, match="'alice', 'alice -> bob'"):
        tensor + pointer
    with pytest.raises(TensorsNotCollocatedException, match="'alice', 'alice -> bob'"):
        tensor.grad = pointer


def test_remote_get_has_the_worker_hold_the_tensor(bob, alice):
    pointer = torch.ones(2).send(bob).send(alice)
    assert pointer.remote_get() is pointer
    assert pointer.location is alice and len(alice._objects) == 1 and not bob._objects
    assert torch.equal(pointer.get(), torch.ones(2))


def test_remote_get_of_a_tensor_says_that_the_worker_holds_it(bob):
    with pytest.raises(InvalidTensorForRemoteGet, match="worker 'bob' holds the tensor itself"):
        torch.ones(2).send(bob).remote_get()


def test_remote_send_leaves_a_pointer_behind(bob, alice):
    pointer = torch.ones(2).send(bob).remote_send(alice)
    assert pointer.location is bob and len(alice._objects) == 1
    assert torch.equal(pointer.get().get(), torch.ones(2))


def test_a_parameter_goes_there_and_back(bob, alice):
    parameter = torch.nn.Parameter(torch.ones(2))
    assert torch.equal(parameter.send(bob).send(alice).get().get(), parameter)


def test_a_moved_pointer_is_held_by_the_other_worker(bob, alice):
    carol = sy.VirtualWorker(id="carol")
    pointer = torch.ones(2).send(bob).send(alice)
    pointer.move(carol)
    assert pointer.location is carol and not alice._objects
    assert torch.equal(pointer.get().get(), torch.ones(2))


def test_a_worker_behind_a_socket_may_be_in_between(server, proxy, bob):
    pointer = torch.ones(2).send(bob).send(proxy)
    assert torch.equal((pointer + 1).get().get(), torch.full((2,), 2.0))
    assert torch.equal(pointer.get().get(), torch.ones(2))


def test_a_worker_behind_a_socket_may_hold_the_tensor(alice):
    with serving(Server(remote_operations=True)) as server, proxy_of(server) as proxy:
        pointer = torch.ones(2).send(proxy).send(alice)
        assert torch.equal((pointer + 1).get().get(), torch.full((2,), 2.0))
        assert torch.equal(pointer.get().get(), torch.ones(2))
