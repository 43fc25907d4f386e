"""What is made of private tensors is private: values, gradients, shapes and errors."""

import pytest
import torch

import syft as sy
from syft.exceptions import GetNotPermittedError, RemoteOperationFailed
from syft.remote.shapes import geometry_of
from syft.remote.tensor import PointerTensor

SECRET = 7777.5


@pytest.fixture
def bob():
    sy.TorchHook(torch)
    return sy.VirtualWorker(id="bob")


@pytest.fixture
def secret(bob):
    """A pointer to a tensor that bob's owner has marked as private."""
    tensor = torch.full((3,), SECRET)
    tensor.private = True
    bob.register_obj(tensor, 1)
    return PointerTensor(bob, 1, garbage_collect_data=False, geometry=geometry_of(tensor))


@pytest.fixture
def own(bob):
    return torch.ones(3, requires_grad=True).send(bob)


def written_to(own, secret):
    target = own.detach().clone()
    view = target[:2]
    target.copy_(secret)
    return view


def gradient_of(own, secret):
    (own * secret).sum().backward()
    return own.grad


def a_view_of_a_gradient(own, secret):
    return gradient_of(own, secret).view(3, 1) + 0


def a_gradient_that_was_set(own, secret):
    own.grad = secret
    return own.grad + 0


WAYS = {
    "itself": lambda own, secret: secret,
    "a result": lambda own, secret: own + secret,
    "a result of a result": lambda own, secret: (own + secret).sum() * 2,
    "a view": lambda own, secret: secret[0],
    "a copy": lambda own, secret: secret.copy(),
    "a detached copy": lambda own, secret: secret.detach().clone(),
    "of several results": lambda own, secret: torch.stack([own, secret]).unbind()[0],
    "what was written to": written_to,
    "a gradient": gradient_of,
    "a view of a gradient": a_view_of_a_gradient,
    "a gradient that was set": a_gradient_that_was_set,
    "a comparison": lambda own, secret: secret > 5,
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_made_of_a_private_tensor_is_not_fetched(own, secret, way):
    made = WAYS[way](own, secret)
    with pytest.raises(GetNotPermittedError):
        made.get()


@pytest.mark.parametrize("way", WAYS)
def test_what_is_made_of_a_private_tensor_is_not_fetched_by_its_id(bob, own, secret, way):
    made = WAYS[way](own, secret)
    with pytest.raises(GetNotPermittedError):
        bob.request_obj(made.id_at_location)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_made_of_a_private_tensor_is_not_listed(bob, own, secret, way):
    made = WAYS[way](own, secret)
    assert str(SECRET) not in bob.list_objects_remote()
    assert "private" in bob.list_objects_remote()
    del made


def test_a_leaf_whose_gradient_is_private_is_not_fetched_with_it(own, secret):
    gradient_of(own, secret)
    with pytest.raises(GetNotPermittedError):
        own.get()


def test_a_shape_that_depends_on_private_values_is_not_told(bob, secret):
    with pytest.raises(GetNotPermittedError):
        secret.nonzero()
    with pytest.raises(GetNotPermittedError):
        secret[secret > 5]
    counted = bob._exchange("search", query=[1])
    assert counted[0]["shape"] is None


def test_an_error_does_not_tell_private_values(bob, own):
    index = torch.tensor([123_456_789])
    index.private = True
    bob.register_obj(index, 2)
    secret = PointerTensor(bob, 2, garbage_collect_data=False, geometry=geometry_of(index))
    chosen = own.index_select(0, secret)
    for made in (chosen, chosen + 1):
        with pytest.raises(GetNotPermittedError) as refused:
            made.get()
        assert "123456789" not in f"{refused.value}{refused.value.remote_traceback}"


def test_whether_an_operation_on_private_values_succeeds_is_not_told(bob, own):
    for number, value in ((3, 0), (4, 99)):
        index = torch.tensor([value])
        index.private = True
        bob.register_obj(index, number)
        secret = PointerTensor(bob, number, garbage_collect_data=False, geometry=geometry_of(index))
        with pytest.raises(GetNotPermittedError):
            own.index_select(0, secret).get()


def test_what_was_made_of_other_tensors_is_fetched(own, secret):
    kept = own * 2
    gradient_of(own, secret)
    assert kept.get().tolist() == [2, 2, 2]
    with pytest.raises(RemoteOperationFailed):
        torch.linalg.inv(own.detach().expand(3, 3)).get()
