"""TorchHook: new names on torch, and none of the old ones changed."""

import pytest
import torch
import torch.nn.functional as F

import syft as sy
from syft.exceptions import ObjectNotFoundError
from syft.objects import registry


def test_the_hook_is_known_afterwards():
    hook = sy.TorchHook(torch)
    assert sy.hook is hook and hook.torch is torch
    assert hook.local_worker is sy.local_worker and sy.local_worker.id == "me"


def test_another_local_worker_can_be_chosen():
    mine = sy.VirtualWorker(id="mine")
    assert sy.TorchHook(torch, local_worker=mine).local_worker is mine
    assert sy.local_worker is mine
    assert "owner:mine" in str(sy.TrainConfig(model=None, loss_fn=None))


@pytest.mark.parametrize("is_client", [True, False])
def test_the_first_hook_says_what_the_local_worker_is(monkeypatch, is_client):
    monkeypatch.setattr(registry, "hook", None)
    monkeypatch.setattr(sy.local_worker, "is_client_worker", None)
    sy.TorchHook(torch, is_client=is_client)
    sy.TorchHook(torch, is_client=not is_client)
    assert sy.local_worker.is_client_worker is is_client


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool], ids=str)
def test_native_masked_select_takes_masks_of_bytes_too(dtype):
    sy.TorchHook(torch)
    data = torch.tensor([1, 2, 3])
    assert torch.native_masked_select(data, torch.tensor([1, 0, 1], dtype=dtype)).tolist() == [1, 3]


def test_native_names_are_torchs_own_functions():
    sy.TorchHook(torch)
    assert torch.native_matmul is torch.matmul
    assert F.native_relu is F.relu
    assert torch.tensor([-1.0]).native_abs().item() == 1


def test_a_tensor_can_be_tagged_described_sent_and_fetched(alice):
    sy.TorchHook(torch)
    tensor = torch.tensor([1.0, 2.0]).tag("#x", "#y").tag("#z").describe("two numbers")
    pointer = tensor.send(alice)
    assert isinstance(pointer, sy.PointerTensor)
    assert (pointer.shape, pointer.location, pointer.owner) == ((2,), alice, sy.local_worker)
    assert (pointer.tags, pointer.description) == ({"#x", "#y", "#z"}, "two numbers")
    arrived = pointer.get()
    assert torch.equal(arrived, tensor)
    assert (arrived.tags, arrived.description) == ({"#x", "#y", "#z"}, "two numbers")
    with pytest.raises(ObjectNotFoundError):
        pointer.get()


def test_a_tensor_can_be_sent_by_the_workers_id(alice):
    sy.TorchHook(torch)
    assert torch.ones(1).send("alice").location is alice


def test_a_model_goes_to_one_worker_at_a_time(alice):
    wrapper = sy.ObjectWrapper(torch.nn.Linear(1, 1), id=7)
    with pytest.raises(NotImplementedError, match="one receiving worker; got 2"):
        sy.local_worker.send(wrapper, [alice, sy.local_worker])
