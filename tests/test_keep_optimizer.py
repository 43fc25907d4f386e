"""TrainConfig(keep_optimizer=True): the optimizer goes on where the last fit left it."""

import pytest
import torch

import syft as sy
from tests.models import Classifier, blobs, make_config, nll, same
from tests.network import Server, proxy_of, serving

STEPS = {"max_nr_batches": 3, "shuffle": False}


def rounds(worker, count, **settings):
    """Train a model in some fits, each with a config of its own; return it."""
    torch.manual_seed(0)
    model = Classifier()
    for _ in range(count):
        config = make_config(model, **{**STEPS, **settings}).send(worker)
        worker.fit(dataset_key="blobs")
        model = config.model_ptr.get().obj
    return model


def locally(fits, optimizer, **settings):
    """Train in plain torch, on the same batches, with one optimizer for all fits."""
    torch.manual_seed(0)
    model, data = Classifier(), blobs()
    kept = getattr(torch.optim, optimizer)(model.parameters(), **settings)
    for _ in range(fits):
        for inputs, targets in zip(data.data.split(8)[:3], data.targets.split(8)[:3], strict=True):
            kept.zero_grad()
            nll(model(inputs), targets).backward()
            kept.step()
    return model


ADAM = {"optimizer": "Adam", "optimizer_args": {"lr": 0.01}}
MOMENTUM = {"optimizer": "SGD", "optimizer_args": {"lr": 0.1, "momentum": 0.9}}


@pytest.mark.parametrize("settings", [ADAM, MOMENTUM], ids=["Adam", "momentum"])
def test_several_fits_are_one_training_in_plain_torch(worker, settings):
    model = rounds(worker, 3, keep_optimizer=True, **settings)
    expected = locally(3, settings["optimizer"], **settings["optimizer_args"])
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_proximal_term_does_not_disturb_it(worker):
    """The term is zero in the first step of a fit, and these fits have one."""
    settings = {"max_nr_batches": 1, **MOMENTUM}
    model = rounds(worker, 3, keep_optimizer=True, proximal_mu=0.5, **settings)
    torch.manual_seed(0)
    expected, batch = Classifier(), slice(8)
    momentum = torch.optim.SGD(expected.parameters(), **MOMENTUM["optimizer_args"])
    for _ in range(3):
        momentum.zero_grad()
        nll(expected(blobs().data[batch]), blobs().targets[batch]).backward()
        momentum.step()
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_without_it_each_fit_begins_anew(worker):
    model = rounds(worker, 3, **ADAM)
    expected = locally(3, "Adam", lr=0.01)
    assert not same(list(model.parameters()), list(expected.parameters()))


def test_an_evaluation_in_between_does_not_change_it(worker):
    torch.manual_seed(0)
    model = Classifier()
    for _ in range(2):
        config = make_config(model, keep_optimizer=True, **STEPS, **ADAM).send(worker)
        worker.fit(dataset_key="blobs")
        model = config.model_ptr.get().obj
        make_config(model).send(worker)
        worker.evaluate(dataset_key="blobs")
    expected = locally(2, "Adam", lr=0.01)
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_settings_of_the_new_config_count(alice):
    rounds(alice, 1, keep_optimizer=True, **ADAM)
    model = rounds(alice, 1, keep_optimizer=True, optimizer="Adam", optimizer_args={"lr": 0.0})
    torch.manual_seed(0)
    assert same(list(model.parameters()), list(Classifier().parameters()))
    assert steps_of(alice) == {6.0}


def steps_of(worker):
    """How many steps Adam knows of, by what the worker has kept."""
    return {float(state["step"]) for state in worker._session.kept_optimizer.state.values()}


@pytest.mark.parametrize("other", ["optimizer", "model"])
def test_the_state_of_another_optimizer_or_model_is_not_taken(alice, other):
    rounds(alice, 1, keep_optimizer=True, **ADAM)
    if other == "optimizer":
        rounds(alice, 1, keep_optimizer=True, optimizer="AdamW", optimizer_args={"lr": 0.01})
    else:
        model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LogSoftmax(dim=1))
        make_config(model, keep_optimizer=True, **STEPS, **ADAM).send(alice)
        alice.fit(dataset_key="blobs")
    assert steps_of(alice) == {3.0}


def test_each_coordinator_has_a_state_of_its_own():
    with serving(Server()) as server, proxy_of(server) as one, proxy_of(server) as other:
        first = rounds(one, 1, keep_optimizer=True, **ADAM)
        assert same(rounds(other, 1, keep_optimizer=True, **ADAM), first)


def test_a_config_without_it_travels_as_before():
    assert "keep_optimizer" not in make_config().to_fields()
    assert make_config(keep_optimizer=True).to_fields()["keep_optimizer"] is True
    assert sy.TrainConfig(None, None).keep_optimizer is False
