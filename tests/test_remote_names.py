"""Names of PySyft 0.2 on remote tensors, as programs written for it use them."""

import pytest
import torch

import syft as sy
from syft.generic.pointers.pointer_tensor import PointerTensor


@pytest.fixture(autouse=True)
def hook():
    return sy.TorchHook(torch)


@pytest.fixture
def bob():
    return sy.VirtualWorker(id="bob")


def test_the_hook_is_found_at_torch(hook):
    assert sy.torch.hook is hook


def test_a_pointer_is_its_own_child(bob):
    pointer = torch.ones(2).send(bob)
    assert type(pointer.child) is PointerTensor and pointer.child is pointer
    assert not hasattr(torch.ones(2), "child")


def test_a_local_tensor_is_at_no_worker():
    assert torch.ones(2).location is None


def test_a_tensor_keeps_its_id_at_the_worker(bob):
    tensor = torch.ones(2)
    assert tensor.send(bob).id_at_location == tensor.id


def test_a_tensor_that_is_sent_again_is_another_object(bob):
    tensor = torch.ones(2)
    pointer = tensor.send(bob)
    assert tensor.id in bob._objects
    pointer = tensor.send(bob)
    assert tensor.id == pointer.id_at_location and list(bob._objects) == [tensor.id]


@pytest.mark.parametrize("name", ["gc", "garbage_collection", "garbage_collect_data"])
def test_a_pointer_may_leave_its_tensor_at_the_worker(bob, name):
    pointer = torch.ones(2).send(bob)
    assert getattr(pointer, name) is True
    setattr(pointer, name, False)
    assert (pointer.gc, pointer.garbage_collection, pointer.garbage_collect_data) == (False,) * 3
    del pointer
    assert len(bob._objects) == 1


def test_disable_gc_leaves_the_tensor_at_the_worker(bob):
    assert torch.ones(2).send(bob).disable_gc.gc is False
    assert len(bob._objects) == 1


def test_get_copy_leaves_the_tensor_at_the_worker(bob):
    pointer = torch.ones(2).send(bob)
    assert torch.equal(pointer.get(get_copy=True), torch.ones(2))
    assert torch.equal(pointer.get(), torch.ones(2))
    assert not bob._objects


def test_a_pointer_is_made_of_a_tensor_and_an_id(bob):
    bob.load_data([torch.full((2,), 3.0)])
    (obj_id,) = bob._objects
    like = torch.empty(2)
    pointer = like.create_pointer("bob", obj_id, register=False, owner=sy.local_worker, ptr_id=2)
    assert (pointer.location, pointer.id, pointer.id_at_location) == (bob, 2, obj_id)
    assert torch.equal((pointer + 1).get(), torch.full((2,), 4.0))
    here = like.create_pointer()
    assert (here.location, here.owner, here.id_at_location) == (*[sy.local_worker] * 2, like.id)


def test_a_pointer_asks_for_a_shape_that_it_is_not_told(bob):
    bob.load_data([torch.ones(2, 3)])
    (obj_id,) = bob._objects
    pointer = PointerTensor(location=bob, id_at_location=obj_id)
    assert (pointer.shape, pointer.dtype) == ((2, 3), torch.float32)


def test_a_pointer_to_nothing_can_be_printed(bob):
    pointer = PointerTensor(id=1000, location=bob, owner=sy.local_worker)
    assert str(pointer).startswith("[PointerTensor | me:1000 -> bob:")
    with pytest.raises(RuntimeError):
        pointer.item()


def test_an_object_is_sent_without_a_pointer_and_requested_by_its_id(bob):
    tensor = torch.ones(2)
    sy.local_worker.send_obj(tensor, bob)
    assert tensor.id in bob._objects
    assert torch.equal(sy.local_worker.request_obj(tensor.id, bob), tensor)


def test_the_hook_is_where_programs_import_it_from(hook):
    from syft.frameworks.torch.hook.hook import TorchHook

    assert isinstance(hook, TorchHook)


def test_tensors_are_made_at_a_worker(bob):
    assert torch.equal(bob.remote.torch.tensor([1, 2]).get(), torch.tensor([1, 2]))
    torch.manual_seed(5)
    expected = torch.rand(2, 3)
    torch.manual_seed(5)
    assert torch.equal(bob.remote.torch.rand(2, 3).get(), expected)
    assert bob.remote.frameworks == ("torch",)
    with pytest.raises(AttributeError, match=r"remote\.torch has no 'load'; it has: arange"):
        bob.remote.torch.load("weights.pt")
