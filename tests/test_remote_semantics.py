"""What a program may expect of a remote tensor, beside its values."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import syft as sy
from syft.exceptions import (
    RemoteOperationFailed,
    RemoteValueNeeded,
    TensorsNotCollocatedException,
)
from tests.network import Server, proxy_of, serving


class Bob(sy.VirtualWorker):
    """A worker to which a tensor is sent in few words."""

    def send(self, tensor):
        return sy.local_worker.send(tensor, self)


@pytest.fixture(autouse=True)
def hook():
    return sy.TorchHook(torch)


@pytest.fixture
def bob():
    return Bob(id="bob")


@pytest.fixture
def leaf(bob):
    return bob.send(torch.ones(3, requires_grad=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.detach(),
        lambda x: x.data,
        torch.zeros_like,
        torch.rand_like,
        lambda x: torch.full_like(x, 2.0),
        lambda x: x.new_ones(2),
        lambda x: x > 0,
    ],
)
def test_what_gradients_do_not_flow_through_requires_none(leaf, make):
    assert make(torch.ones(3, requires_grad=True)).requires_grad is False
    assert make(leaf).requires_grad is False
    assert make(leaf).is_leaf


def test_tensors_of_two_workers_are_told_apart_by_an_operator(bob):
    with pytest.raises(TensorsNotCollocatedException, match="'alice', 'bob'"):
        bob.send(torch.ones(2)) + Bob(id="alice").send(torch.ones(2))


def test_a_local_tensor_is_told_apart_by_an_operator(bob):
    with pytest.raises(TensorsNotCollocatedException, match="'bob', 'me'"):
        bob.send(torch.ones(2)) * torch.ones(2)


def test_a_value_that_is_not_here_is_a_runtime_error(bob):
    with pytest.raises(RuntimeError, match=r"call \.get\(\) first") as caught:
        bob.send(torch.ones(1)).item()
    assert isinstance(caught.value, RemoteValueNeeded)


def test_a_gradient_can_be_set(bob, leaf):
    leaf.grad = bob.send(torch.full((3,), 4.0))
    assert torch.equal(leaf.get().grad, torch.full((3,), 4.0))


def test_a_gradient_of_this_process_cannot_be_set(leaf):
    with pytest.raises(TensorsNotCollocatedException, match="'bob', 'me'"):
        leaf.grad = torch.ones(3)


def test_a_backward_takes_a_gradient_that_is_at_the_worker(bob, leaf):
    (leaf * 2).backward(bob.send(torch.tensor([1.0, 2.0, 3.0])))
    assert torch.equal(leaf.get().grad, torch.tensor([2.0, 4.0, 6.0]))


@pytest.mark.skipif(
    torch.autograd.backward not in torch.overrides.get_testing_overrides(),
    reason="torch asks no tensor subclass how to go back (2.4)",
)
def test_autograd_backward_goes_back_through_several_roots(leaf):
    middle = leaf * 2
    torch.autograd.backward([middle.sum(), (middle * 3).sum()])
    assert torch.equal(leaf.get().grad, torch.full((3,), 8.0))


@pytest.mark.parametrize(
    "optimizer, options",
    [
        (torch.optim.Adamax, {}),
        (torch.optim.Adam, {"amsgrad": True, "weight_decay": 0.1}),
        (torch.optim.RMSprop, {"centered": True, "momentum": 0.5}),
    ],
)
def test_optimizers_train_a_remote_tensor_as_a_local_one(bob, leaf, optimizer, options):
    local = torch.ones(3, requires_grad=True)
    for parameter in (local, leaf):
        stepping = optimizer([parameter], lr=0.1, **options)
        for _ in range(4):
            stepping.zero_grad()
            (parameter**2).sum().backward()
            stepping.step()
    assert torch.equal(local, leaf.get())


def test_out_of_another_shape_is_refused(bob):
    with pytest.raises(RuntimeError, match="cannot be resized"):
        torch.maximum(*(bob.send(torch.ones(2)) for _ in range(2)), out=bob.send(torch.ones(3)))


def test_an_operation_in_place_on_a_list_that_failed_is_told(leaf):
    """aten::_foreach_add_ is not allowed, and has no result that could carry its error."""
    stepping = torch.optim.SGD([leaf], lr=0.1, foreach=True)
    leaf.sum().backward()
    stepping.step()
    with pytest.raises(RemoteOperationFailed, match="_foreach_add_"):
        leaf.get()


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_a_cell_without_a_state_starts_from_zeros_at_the_worker(bob, cell):
    local = cell(2, 3)
    data = torch.ones(4, 2)
    expected = local(data)
    remote = cell(2, 3)
    for name, parameter in local.named_parameters():
        delattr(remote, name)
        setattr(remote, name, bob.send(parameter))
    result = remote(bob.send(data))
    if cell is nn.LSTMCell:
        expected, result = expected[0], result[0]
    assert torch.equal(result.copy().get(), expected)
    F.mse_loss(result, torch.zeros_like(result)).backward()
    assert remote.weight_ih.get().grad is not None


def test_whole_numbers_of_this_process_are_told_apart_too(bob):
    remote, local = bob.send(torch.arange(3)), torch.arange(3)
    for add in (lambda: remote + local, lambda: local + remote):
        with pytest.raises(TensorsNotCollocatedException, match="'bob', 'me'"):
            add()


def test_indices_and_masks_of_this_process_travel_along(bob):
    values = torch.tensor([1.0, 2.0, 3.0])
    remote, places, mask = bob.send(values), torch.tensor([2, 0]), torch.tensor([True, False, True])
    for choose in (
        lambda x: x[places],
        lambda x: x[mask],
        lambda x: x.index_select(0, places),
        lambda x: x.gather(0, places),
        lambda x: x.masked_fill(mask, 0),
        lambda x: torch.where(mask, x, -x),
        lambda x: x.repeat_interleave(torch.tensor([2, 0, 1])),
    ):
        assert torch.equal(choose(remote).get(), choose(values))


@pytest.mark.parametrize(
    "turn",
    [
        lambda x: x.squeeze_(),
        lambda x: x.squeeze_(0),
        lambda x: x.unsqueeze_(1),
        lambda x: x[0].t_(),
        lambda x: x.transpose_(0, 2),
        lambda x: x.swapaxes_(1, 2),
    ],
)
def test_a_shape_can_be_changed_in_place(bob, turn):
    local = torch.arange(6.0).reshape(1, 2, 3).requires_grad_()
    remote = bob.send(local)
    expected, turned = turn(local * 2), turn(remote * 2)
    assert turned.shape == turned.size() == expected.shape
    assert turned.stride() == expected.stride()
    weights = torch.arange(6.0).reshape(expected.shape)
    (expected * weights).sum().backward()
    (turned * bob.send(weights)).sum().backward()
    assert torch.equal(turned.get(), expected)
    assert torch.equal(remote.get().grad, local.grad)
    del turned  # it keeps the tensor that it is a view of
    assert not bob._objects


def test_the_shape_of_a_leaf_is_not_changed_in_place(leaf):
    with pytest.raises(RuntimeError, match="a leaf that requires gradients is changed in place"):
        leaf.unsqueeze_(0)


def test_a_layer_takes_one_sample(bob):
    layer = nn.Linear(2, 3)
    expected = layer(torch.ones(2))
    assert torch.equal(layer.send(bob)(bob.send(torch.ones(2))).get(), expected)


def test_tensors_of_a_worker_that_was_made_anew_are_told_apart(bob):
    later = Bob(id="bob")
    with pytest.raises(TensorsNotCollocatedException, match="'a former bob', 'bob'"):
        bob.send(torch.ones(2)) + later.send(torch.ones(2))


def test_a_step_may_be_written_by_hand(bob, leaf):
    (leaf * 2).sum().backward()
    leaf.data -= 0.5 * leaf.grad.data
    leaf.data = leaf.data - 1
    fetched = leaf.get()
    assert torch.equal(fetched.detach(), torch.full((3,), -1.0)) and fetched.requires_grad


def test_the_data_of_a_tensor_keep_their_shape(bob, leaf):
    with pytest.raises(ValueError, match=r"expected \(3,\) torch.float32"):
        leaf.data = bob.send(torch.ones(2))


MISUSES = {
    "a result's flag is changed": (
        lambda x: (x * 2).requires_grad_(False),
        "only change requires_grad flags of leaf",
    ),
    "whole numbers require gradients": (
        lambda x: (x > 0).requires_grad_(),
        "only floating point tensors require gradients",
    ),
    "gradients of gradients": (
        lambda x: x.sum().backward(create_graph=True),
        "neither create_graph nor inputs",
    ),
    "backward of what requires none": (
        lambda x: x.detach().sum().backward(),
        "nothing that it depends on requires gradients",
    ),
    "backward of several elements": (lambda x: (x * 2).backward(), "only for scalar outputs"),
    "a result keeps its gradient": (lambda x: (x * 2).retain_grad(), "keeps no gradient"),
    "a hook": (lambda x: x.register_hook(print), "takes no hooks"),
    "a leaf is changed in place": (
        lambda x: x.add_(1),
        "a leaf that requires gradients is changed",
    ),
    "a tensor of this process is changed": (
        lambda x: torch.ones(3).add_(x),
        "these are on 'bob', 'me'",
    ),
    "another device": (lambda x: x.to("meta"), "stays on the device of its worker"),
    "a layout": (
        lambda x: torch.zeros_like(x, layout=torch.sparse_coo),
        "a remote tensor is strided",
    ),
    "a generator": (
        lambda x: x.detach().bernoulli(0.5, generator=torch.Generator()),
        "the worker has its own, seeded",
    ),
}


@pytest.mark.parametrize(("misuse", "told"), MISUSES.values(), ids=MISUSES)
def test_a_misuse_is_told_where_it_is_made(leaf, misuse, told):
    with pytest.raises((RuntimeError, TypeError, ValueError), match=told):
        misuse(leaf)


def test_a_backward_through_what_was_fetched_since_is_refused(leaf):
    total = (leaf * 2).sum()
    leaf.get()
    with pytest.raises(RuntimeError, match=r"fetched from worker 'bob' since\. Call backward"):
        total.backward()


def test_what_a_tensor_says_of_its_gradients_is_what_torch_says(leaf):
    total = (leaf * 2).sum()
    assert leaf.grad_fn is None
    assert "the graph is at worker 'bob'" in total.grad_fn
    total.backward()
    del leaf.grad
    assert leaf.grad is None
    leaf.requires_grad = False
    assert not leaf.requires_grad
    total = (leaf.requires_grad_() * 2).sum()
    assert total.detach_() is total
    assert not total.requires_grad
    assert f"{leaf:>10}" == f"{leaf}"


def test_types_and_the_device_that_it_has_anyway_may_be_asked_for(leaf):
    assert leaf.to(torch.float64).dtype == torch.float64
    kept = torch.zeros_like(leaf, dtype=torch.int64, device="cpu", layout=torch.strided)
    assert kept.get().tolist() == [0, 0, 0]


def test_what_is_written_into_a_tensor_takes_its_gradients_along(bob, leaf):
    target = bob.send(torch.zeros(3))
    target.add_(leaf)
    target.sum().backward()
    assert leaf.grad.get().tolist() == [1, 1, 1]


WRITES = {
    "a slice": lambda target, x: target[:2].add_(x[:2]),
    "another shape": lambda target, x: target.view(3, 1).mul_(x.view(3, 1)),
    "an element": lambda target, x: target.__setitem__(0, x[0]),
    "a chosen element": lambda target, x: target.select(0, 1).copy_(x[2]),
    "all of it": lambda target, x: target.copy_(x),
    "what is not written": lambda target, x: target[1:].zero_(),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("where", ["virtual", "socket"])
def test_gradients_flow_through_what_is_written_into_a_view_as_here(bob, where, write):
    def gradient(to_worker):
        x = to_worker(torch.tensor([1.0, 2.0, 3.0], requires_grad=True))
        results = []
        for factor in (0, 1):
            target = to_worker(torch.ones(3)) + factor * x
            write(target, x)
            results.append((target * target * x).sum())
        (results[0] + results[1]).backward()
        return x.grad

    with contextlib.ExitStack() as stack:
        if where == "socket":
            server = stack.enter_context(serving(Server("bob", remote_operations=True)))
            bob = stack.enter_context(proxy_of(server))
        expected, found = gradient(lambda each: each), gradient(lambda each: each.send(bob))
        assert found.get().tolist() == expected.tolist()


def test_the_worker_computes_as_it_does_without_the_autocast_of_this_process(bob):
    x = bob.send(torch.ones(2, 2))
    with torch.autocast("cpu"):
        assert (x @ x).get().dtype == torch.float32


def test_a_tensor_moves_on_and_can_be_made_a_leaf_there(bob):
    alice = Bob(id="alice")
    moved = bob.send(torch.ones(2)).move(alice, requires_grad=True)
    assert (moved.location.id, moved.requires_grad) == ("alice", True)
    moved.id, moved.owner = 12, alice
    assert (moved.id, moved.owner) == (12, alice)


@pytest.mark.parametrize(
    "send_in_place",
    [lambda x, bob: x.send_(bob), lambda x, bob: x.send(bob, inplace=True)],
    ids=["send_", "inplace"],
)
def test_a_tensor_becomes_a_pointer_and_a_tensor_again(bob, send_in_place):
    x = torch.ones(2)
    assert send_in_place(x, bob) is x
    assert x.location is bob
    assert x.owner is sy.local_worker
    assert (x + 1).get().tolist() == [2, 2]
    assert x.get_() is x
    assert x.tolist() == [1, 1]
    assert x.location is None


def test_a_tensor_of_this_process_is_not_combined_with_pointers(bob):
    with pytest.raises(ValueError, match=r"expected pointers\. Send it first"):
        torch.ones(2).combine(bob.send(torch.ones(2)))
