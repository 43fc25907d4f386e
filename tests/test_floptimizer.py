"""Optims: one optimizer for each worker, of the same parameters."""

import pytest
import torch
import torch.nn.functional as F

import syft as sy
from syft.federated.floptimizer import Optims
from tests.models import Classifier, blobs


def step(optimizer, parameter) -> None:
    optimizer.zero_grad()
    parameter.pow(2).sum().backward()
    optimizer.step()


def test_there_is_one_optimizer_for_each_worker(alice):
    parameter = torch.nn.Parameter(torch.ones(2))
    optims = Optims(["bob", alice], torch.optim.Adam([parameter], lr=0.1, betas=(0.8, 0.9)))
    assert optims.count() == len(optims) == 2
    assert optims.get_optim("alice") is optims.get_optim(alice)
    assert optims.get_optim("alice") is not optims.get_optim("bob")
    for optimizer in optims.optimizers.values():
        (group,) = optimizer.param_groups
        assert type(optimizer) is torch.optim.Adam and group["betas"] == (0.8, 0.9)
        assert group["params"][0] is parameter


def test_each_has_a_state_of_its_own():
    parameter = torch.nn.Parameter(torch.ones(2))
    optims = Optims(["bob", "alice"], torch.optim.Adam([parameter]))
    for name in ("bob", "bob", "alice"):
        step(optims.get_optim(name), parameter)
    steps = {
        name: optimizer.state[parameter]["step"].item()
        for name, optimizer in optims.optimizers.items()
    }
    assert steps == {"bob": 2, "alice": 1} and optims.optim.state == {}


def test_a_state_from_before_is_copied():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    step(optimizer, parameter)
    before = optimizer.state[parameter]["momentum_buffer"].clone()
    optims = Optims(["bob"], optimizer)
    step(optims.get_optim("bob"), parameter)
    assert torch.equal(optimizer.state[parameter]["momentum_buffer"], before)
    assert not torch.equal(optims.get_optim("bob").state[parameter]["momentum_buffer"], before)


def test_the_rate_of_one_can_be_changed_alone():
    optims = Optims(["bob", "alice"], torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1))
    optims.get_optim("bob").param_groups[0]["lr"] = 0.5
    assert optims.get_optim("alice").param_groups[0]["lr"] == 0.1


def test_a_worker_without_an_optimizer_is_named():
    optims = Optims(["bob"], torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1))
    with pytest.raises(ValueError, match="no optimizer for worker 'alice'; there is one for: bob"):
        optims.get_optim("alice")


@pytest.mark.parametrize(
    "kind", [torch.optim.Adam, torch.optim.SGD], ids=lambda kind: kind.__name__
)
def test_a_model_that_goes_from_worker_to_worker_is_trained_as_at_home(kind):
    sy.TorchHook(torch)
    settings = {"lr": 0.1} | ({"momentum": 0.9} if kind is torch.optim.SGD else {})
    workers = [sy.VirtualWorker(id=name) for name in ("bob", "alice")]
    there, here = Classifier(), Classifier()
    here.load_state_dict(there.state_dict())
    remote, local = (
        Optims(workers, kind(model.parameters(), **settings)) for model in (there, here)
    )
    data, targets = blobs().data, blobs().targets
    parts = {worker: (data.send(worker), targets.send(worker)) for worker in workers}
    for _ in range(2):
        for worker in workers:
            there.send(worker)
            for model, optims, pair in (
                (there, remote, parts[worker]),
                (here, local, (data, targets)),
            ):
                optimizer = optims.get_optim(worker.id)
                optimizer.zero_grad()
                F.nll_loss(model(pair[0]), pair[1]).backward()
                optimizer.step()
            there.get()
    for name, tensor in here.state_dict().items():
        assert torch.equal(there.state_dict()[name], tensor)
