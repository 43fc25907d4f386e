"""TrainConfig: its settings, and how it is sent."""

from unittest import mock

import pytest
import torch

import syft as sy
from syft.exceptions import NotScriptable
from syft.graph import GraphModule
from tests.models import Classifier, blobs, classifier, make_config, nll


def test_the_text_of_a_config_is_that_of_pysyft():
    config = sy.TrainConfig(batch_size=2, id=99887766, model=None, loss_fn=None)
    expected = (
        "<TrainConfig id:99887766 owner:me epochs: 1 batch_size: 2 optimizer_args: {'lr': 0.1}>"
    )
    assert str(config) == expected


def test_defaults_are_those_of_pysyft():
    config = sy.TrainConfig(model=None, loss_fn=None)
    settings = {
        name: getattr(config, name)
        for name in ("batch_size", "epochs", "optimizer", "optimizer_args")
    }
    assert settings == {
        "batch_size": 32,
        "epochs": 1,
        "optimizer": "SGD",
        "optimizer_args": {"lr": 0.1},
    }
    assert (config.max_nr_batches, config.shuffle, config.owner) == (-1, True, sy.local_worker)
    assert sy.TrainConfig(None, None).id != config.id


def test_the_callers_arguments_are_copied():
    arguments = {"lr": 0.1}
    config = sy.TrainConfig(None, None, optimizer_args=arguments)
    config.optimizer_args["lr"] = 5
    assert arguments == {"lr": 0.1}
    assert sy.TrainConfig(None, None).optimizer_args == {"lr": 0.1}
    sy.TrainConfig(None, None).optimizer_args["lr"] = 5
    assert sy.TrainConfig(None, None).optimizer_args == {"lr": 0.1}
    assert sy.TrainConfig(None, None, optimizer_args=None).optimizer_args is None


def test_the_seed_is_drawn_from_torchs_generator():
    def seeds() -> list[int]:
        torch.manual_seed(3)
        return [sy.TrainConfig(None, None).seed for _ in range(3)]

    assert seeds() == seeds()
    assert len(set(seeds())) == 3
    assert sy.TrainConfig(None, None, seed=0).seed == 0


def test_a_seed_that_is_given_leaves_torchs_generator_alone():
    state = torch.get_rng_state()
    sy.TrainConfig(None, None, seed=5)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mu", [-0.1, float("nan"), float("inf"), "0.1", None], ids=str)
def test_a_proximal_mu_that_is_no_number_of_at_least_0_is_refused(mu):
    with pytest.raises(ValueError, match=r"^TrainConfig: proximal_mu is .*; expected a number of"):
        sy.TrainConfig(None, None, proximal_mu=mu)


def test_a_proximal_mu_travels_only_if_there_is_one():
    """Workers of an earlier version do not know it."""
    assert "proximal_mu" not in sy.TrainConfig(None, None).to_fields()
    assert sy.TrainConfig(None, None, proximal_mu=1).to_fields()["proximal_mu"] == 1.0


def test_a_correction_travels_only_if_there_is_one(alice):
    fields = make_config().to_fields()
    assert "correction_id" not in fields
    config = make_config(correction={"x": torch.ones(1)}).send(alice)
    assert config.to_fields()["correction_id"] == config.correction_ptr.id_at_location
    assert alice.find_by_id(config.correction_ptr.id_at_location).obj["x"] == 1


@pytest.mark.parametrize("seed", [1.0, "1", [1], torch.ones(2)], ids=str)
def test_a_seed_that_is_no_integer_is_refused(seed):
    with pytest.raises(ValueError, match=r"^TrainConfig: seed is .*; expected an integer\.$"):
        sy.TrainConfig(None, None, seed=seed)
    assert sy.TrainConfig(None, None, seed=torch.tensor(3)).seed == 3


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("batch_size", 0, "an integer of at least 1"),
        ("batch_size", 2.5, "an integer of at least 1"),
        ("batch_size", "32", "an integer of at least 1"),
        ("epochs", -1, "an integer of at least 0"),
    ],
)
def test_numbers_that_cannot_be_are_refused(name, number, expected):
    with pytest.raises(
        ValueError, match=f"^TrainConfig: {name} is {number!r}; expected {expected}\\.$"
    ):
        sy.TrainConfig(None, None, **{name: number})


def test_a_config_without_a_model_has_ids_on_both_sides(alice, monkeypatch):
    config = sy.TrainConfig(model=None, loss_fn=None, batch_size=2)
    monkeypatch.setattr(sy.ID_PROVIDER, "pop", mock.Mock(side_effect=[44, 44000, 55, 55000]))
    config.send(alice)
    for side in (config, alice.train_config):
        assert (side.model, side._model_id, side.loss_fn, side._loss_fn_id) == (None, 44, None, 55)


def test_send_returns_the_config_with_its_pointers(alice):
    config = make_config()
    assert config.send(alice) is config
    assert config.get() is config
    assert config.model_ptr.id_at_location == config._model_id
    assert config.loss_fn_ptr.id_at_location == config._loss_fn_id
    assert config.model_ptr.location is alice


@pytest.mark.parametrize("by_id", [False, True], ids=["worker", "id"])
def test_the_local_worker_sends_it_too(alice, by_id):
    config = make_config()
    assert sy.local_worker.send(config, "alice" if by_id else alice) is config
    assert alice.train_config.to_fields() == config.to_fields()
    assert config.get_model() is not None


def test_all_settings_arrive(alice):
    config = make_config(
        batch_size=3, epochs=2, optimizer="Adam", optimizer_args={"betas": (0.8, 0.99), "lr": 1e-3},
        max_nr_batches=5, shuffle=False, seed=2**62 - 1, id="config",
    )  # fmt: skip
    config.send(alice)
    arrived = alice.train_config
    assert arrived is not config and arrived.to_fields() == config.to_fields()
    assert arrived.optimizer_args == {"betas": (0.8, 0.99), "lr": 1e-3}
    assert arrived.owner is alice


def test_the_model_that_is_fetched_is_the_one_that_was_sent(alice):
    model = classifier(3)
    config = make_config(model).send(alice)
    data = blobs().data
    fetched, loss_fn = config.get_model(), config.get_loss_fn()
    assert torch.equal(fetched.obj(data), model(data)) and torch.equal(fetched(data), model(data))
    assert torch.equal(loss_fn(model(data), blobs().targets), nll(model(data), blobs().targets))
    assert fetched.obj is not model


def test_nothing_is_fetched_that_was_not_sent():
    config = make_config()
    assert config.get_model() is None and config.get_loss_fn() is None


def test_a_model_that_the_worker_holds_is_not_sent_again(alice):
    first = make_config().send(alice)
    second = sy.TrainConfig(
        None, None, model_id=first._model_id, loss_fn_id=first._loss_fn_id
    ).send(alice)
    assert (second.model_ptr, second.loss_fn_ptr) == (None, None)
    assert alice.objects_count() == 2
    assert alice.fit("blobs") is not None


def test_a_plain_model_and_a_plain_loss_travel_as_graphs(alice):
    model = Classifier()
    make_config(model, plain_loss).send(alice)
    assert isinstance(alice.get_obj(alice.train_config._model_id).obj, GraphModule)
    assert alice.fit("blobs") is not None
    assert not torch.equal(
        alice.get_obj(alice.train_config._model_id).obj.output.weight, model.output.weight
    )


def plain_loss(pred, target):
    return torch.nn.functional.nll_loss(pred, target)


def test_a_loss_that_cannot_be_scripted_is_refused_here(alice):
    with pytest.raises(NotScriptable, match="function '<lambda>'"):
        make_config(loss_fn=lambda pred, target: pred).send(alice)
    assert alice.train_config is None
