"""Training and evaluation on a worker's data, against plain torch and numpy."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Optimizer

import syft as sy
from syft.exceptions import (
    DatasetEmpty,
    DatasetExists,
    DatasetNotFound,
    DeviceUnavailable,
    ObjectNotFoundError,
    TrainConfigMissing,
    UnknownOptimizer,
)
from syft.federated import FederatedClient, federated_client
from syft.graph import clone
from syft.objects import ObjectWrapper
from tests.models import CLASSES, FEATURES, Classifier, Regressor, blobs, train_locally

MODEL, LOSS = 0, 1  # ids of the objects that the configs name
WORKER = "FederatedClient"  # what a client that is no worker is called


def client_with(
    model: Any, loss_fn: Any = F.nll_loss, dataset: Any = None, **settings: Any
) -> FederatedClient:
    """Return a client with a dataset, "blobs", and with a TrainConfig for a model that it holds."""
    client = FederatedClient(datasets={"blobs": dataset or blobs()})
    client.set_obj(ObjectWrapper(model, MODEL))
    client.set_obj(ObjectWrapper(loss_fn, LOSS))
    client.set_obj(config(**settings))
    return client


def config(**settings: Any) -> sy.TrainConfig:
    return sy.TrainConfig(
        None, None, model_id=MODEL, loss_fn_id=LOSS, **{"batch_size": 8, "seed": 7, **settings}
    )


def equal(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models are the same, bit for bit."""
    return all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


def optimizer_names() -> list[str]:
    found = {name: value for name, value in vars(torch.optim).items() if isinstance(value, type)}
    return sorted(
        name
        for name, value in found.items()
        if issubclass(value, Optimizer) and value is not Optimizer
    )


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("max_nr_batches", [-1, -5, 1, 4, 100])
def test_fit_is_plain_local_training_bit_for_bit(epochs, shuffle, max_nr_batches):
    local = Classifier()
    client = client_with(
        copy.deepcopy(local), epochs=epochs, shuffle=shuffle, max_nr_batches=max_nr_batches
    )
    loss = client.fit("blobs")
    expected = train_locally(local, F.nll_loss, blobs(), client.train_config, WORKER)
    assert equal(client.get_obj(MODEL).obj, local)
    assert torch.equal(loss, expected) and loss.shape == () and not loss.requires_grad


@pytest.mark.parametrize("mu", [0.1, 10.0])
def test_a_proximal_term_pulls_each_step_towards_the_start_of_the_fit(mu):
    """Its gradient is mu (w - w0). The second fit starts where the first has ended."""
    local = Classifier()
    client = client_with(
        copy.deepcopy(local), shuffle=False, proximal_mu=mu, optimizer_args={"lr": 0.05}
    )
    for _ in range(2):
        loss = client.fit("blobs")
        start = [parameter.detach().clone() for parameter in local.parameters()]
        for batch in torch.arange(20).split(8):
            local.zero_grad()
            expected = F.nll_loss(local(blobs().data[batch]), blobs().targets[batch])
            expected.backward()
            with torch.no_grad():
                for parameter, origin in zip(local.parameters(), start, strict=True):
                    expected = expected + mu / 2 * (parameter - origin).square().sum()
                    parameter -= 0.05 * (parameter.grad + mu * (parameter - origin))
        torch.testing.assert_close(loss, expected.detach())
        for one, other in zip(
            client.get_obj(MODEL).obj.parameters(), local.parameters(), strict=True
        ):
            torch.testing.assert_close(one, other)


def test_frozen_parameters_stay_as_they_are_with_a_proximal_term():
    model = Classifier()
    model.hidden.weight.requires_grad_(False)
    before = model.hidden.weight.clone()
    client_with(model, proximal_mu=1.0).fit("blobs")
    assert torch.equal(model.hidden.weight, before) and model.hidden.weight.grad is None


@pytest.mark.parametrize(
    "kind", [torch.jit.script, lambda model: torch.jit.trace(model, blobs().data)]
)
def test_copies_of_a_model_train_alike_although_they_share_its_compiled_code(kind):
    """The first passes run as they are, and are recorded; later ones run code that was optimised
    for what they saw."""
    model, trained = kind(Classifier()), []
    for _ in range(5):
        client = client_with(clone(model), epochs=2)
        client.fit("blobs")
        trained.append(client.get_obj(MODEL).obj)
    assert all(equal(each, trained[0]) for each in trained)
    assert not equal(model, trained[0])


@pytest.mark.parametrize("settings", [{"max_nr_batches": 0, "epochs": 3}, {"epochs": 0}], ids=str)
def test_without_batches_there_is_no_step(settings):
    model = Classifier()
    client = client_with(copy.deepcopy(model), **settings)
    assert client.fit("blobs") is None
    assert equal(client.get_obj(MODEL).obj, model)


class Counting(nn.Linear):
    """Counts its forward passes."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x).log_softmax(1)


@pytest.mark.parametrize(
    ("epochs", "bound", "steps"),
    [(1, -1, 3), (3, -1, 9), (3, 2, 2), (3, 3, 3), (3, 7, 7), (1, 9, 3)],
)
def test_max_nr_batches_bounds_the_steps_of_all_epochs_together(epochs, bound, steps):
    model = Counting(FEATURES, CLASSES)
    # 20 samples, 3 batches an epoch.
    client_with(model, epochs=epochs, max_nr_batches=bound).fit("blobs")
    assert model.calls == steps


STATEFUL = {
    "SGD": {"lr": 0.1, "momentum": 0.9},
    "Adam": {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.1},
    "LBFGS": {"lr": 0.1, "max_iter": 3},
}


@pytest.mark.parametrize(("name", "arguments"), STATEFUL.items(), ids=STATEFUL)
def test_the_optimizer_keeps_its_state_over_several_fits(name, arguments):
    local, before = Classifier(), copy.deepcopy(arguments)
    client = client_with(copy.deepcopy(local), optimizer=name, optimizer_args=arguments)
    for _ in range(3):
        client.fit("blobs")
    train_locally(local, F.nll_loss, blobs(), client.train_config, WORKER, fits=range(3))
    assert equal(client.get_obj(MODEL).obj, local)
    assert arguments == before


def test_a_fit_looks_up_its_state_a_few_times_however_many_batches_it_has(monkeypatch):
    client, times = client_with(Classifier(), batch_size=1, epochs=3), []
    training = FederatedClient._training
    monkeypatch.setattr(
        FederatedClient, "_training", lambda self: [times.append(1), training(self)][1]
    )
    client.fit("blobs")
    assert len(times) <= 8  # fit, and each of the methods that a subclass may override


def test_the_current_model_is_at_hand_for_methods_of_ones_own():
    model = Classifier()
    client = client_with(model)
    assert client.current_model() is model
    client.rm_obj(MODEL)
    with pytest.raises(ObjectNotFoundError):
        client.current_model()
    with pytest.raises(TrainConfigMissing):
        FederatedClient().current_model()


def test_a_new_config_gets_a_new_optimizer():
    local, settings = Classifier(), {"optimizer": "Adam", "optimizer_args": {"lr": 0.01}}
    client = client_with(copy.deepcopy(local), **settings)
    client.fit("blobs")
    first = client.optimizer
    client.set_obj(config(**settings))
    client.fit("blobs")
    assert client.optimizer is not first
    for number in range(2):  # the seed is the same, so the count goes on
        train_locally(local, F.nll_loss, blobs(), client.train_config, WORKER, fits=[number])
    assert equal(client.get_obj(MODEL).obj, local)


def outcome(run: Any) -> tuple[type, str] | None:
    """Return the error that `run` raises, if any."""
    try:
        run()
    except Exception as error:
        return type(error), str(error)
    return None


@pytest.mark.parametrize("arguments", [{}, None], ids=str)
@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimizer_of_torch_works_or_fails_as_in_torch(name, arguments):
    local = Classifier()
    client = client_with(copy.deepcopy(local), optimizer=name, optimizer_args=arguments)
    expected = outcome(
        lambda: train_locally(local, F.nll_loss, blobs(), client.train_config, WORKER)
    )
    assert outcome(lambda: client.fit("blobs")) == expected
    assert equal(client.get_obj(MODEL).obj, local)


@pytest.mark.parametrize("name", ["SDG", "Optimizer", "lr_scheduler", "__name__", ""])
def test_an_unknown_optimizer_is_named_with_the_known_ones(name):
    with pytest.raises(UnknownOptimizer) as refused:
        client_with(Classifier(), optimizer=name).fit("blobs")
    assert isinstance(refused.value, ValueError)
    assert (refused.value.name, refused.value.available) == (name, optimizer_names())


def test_dropout_is_reproducible_and_torchs_generator_stays_as_it_is():
    start, state, trained = Classifier(dropout=0.5), torch.get_rng_state(), []
    for seed in (7, 7, 8):
        client = client_with(copy.deepcopy(start), seed=seed, shuffle=False)
        client.fit("blobs")
        trained.append(client.get_obj(MODEL).obj)
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(1)
        state = torch.get_rng_state()
    assert equal(trained[0], trained[1])
    assert not equal(trained[0], trained[2])


def test_a_model_may_have_several_inputs_and_any_map_style_dataset():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(FEATURES, CLASSES)

        def forward(self, left, right):
            return self.linear(left + right).log_softmax(1)

    points = blobs()
    dataset = [(data, 2 * data, int(target)) for data, target in points]
    client = client_with(Sum(), dataset=dataset)
    assert client.fit("blobs") is not None
    model = client.get_obj(MODEL).obj
    expected = F.nll_loss(model(points.data, 2 * points.data), points.targets)
    assert client.evaluate("blobs")["loss"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("kind", [copy.deepcopy, torch.jit.script], ids=["plain", "scripted"])
@pytest.mark.parametrize("batch_size", [1, 8, 20, 64])
def test_the_loss_of_evaluate_is_the_mean_per_sample(batch_size, kind):
    model, points = Classifier(dropout=0.5), blobs()
    result = client_with(kind(model), batch_size=batch_size).evaluate(
        "blobs", return_raw_accuracy=False
    )
    expected = F.nll_loss(model.eval()(points.data), points.targets, reduction="sum") / len(points)
    assert result == {"loss": pytest.approx(expected.item(), rel=1e-5)}


def test_counts_and_histograms_are_those_of_numpy():
    model, points = Classifier(), blobs(samples=50)
    client = client_with(model, dataset=points)
    result = client.evaluate("blobs", return_histograms=True, nr_bins=CLASSES, return_loss=False)
    pred, target = model(points.data).argmax(1).numpy(), points.targets.numpy()
    assert result.keys() == {
        "nr_correct_predictions",
        "nr_predictions",
        "histogram_predictions",
        "histogram_target",
    }
    assert (result["nr_correct_predictions"], result["nr_predictions"]) == (
        np.sum(pred == target),
        50,
    )
    assert 0 < result["nr_correct_predictions"] < 50
    for key, values in (("histogram_predictions", pred), ("histogram_target", target)):
        np.testing.assert_array_equal(result[key], np.bincount(values, minlength=CLASSES))
        assert result[key].shape == (CLASSES,)


def test_evaluate_changes_neither_the_model_nor_the_optimizer():
    model = Classifier(dropout=0.5)
    client, before = client_with(model), copy.deepcopy(model)
    first = client.evaluate("blobs")
    assert client.evaluate("blobs") == first
    assert equal(model, before) and client.optimizer is None
    client.fit("blobs")  # it trains after an evaluation, and in training mode
    assert model.training and not equal(model, before)


def test_a_regression_is_evaluated_by_its_loss():
    points = blobs()
    dataset = sy.BaseDataset(points.data, points.targets.float())
    model = Regressor()
    result = client_with(model, F.mse_loss, dataset).evaluate("blobs", return_raw_accuracy=False)
    assert result == {
        "loss": pytest.approx(F.mse_loss(model(dataset.data), dataset.targets).item(), rel=1e-5)
    }


class Detector(nn.Module):
    """One logit, or one probability, a sample: (N, 1), or (N,) if `flat`."""

    def __init__(self, flat: bool = False, probability: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, 1)
        self.flat, self.probability = flat, probability

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = self.linear(x)
        if self.probability:
            score = torch.sigmoid(score)
        return score.reshape(-1) if self.flat else score


def bce(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(pred.reshape(-1), target.reshape(-1).float())


DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64]


@pytest.mark.parametrize("target_shape", [(-1,), (-1, 1)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize(("probability", "threshold"), [(False, 0), (True, 0.5), (False, -1.5)])
def test_one_output_is_counted_by_its_threshold(target_shape, dtype, flat, probability, threshold):
    points, model = blobs(samples=50), Detector(flat, probability)
    target = points.targets == 0
    dataset = sy.BaseDataset(points.data, target.to(dtype).reshape(target_shape))
    logits = (
        points.data.numpy() @ model.linear.weight.detach().numpy()[0] + model.linear.bias.item()
    )
    pred = (1 / (1 + np.exp(-logits)) if probability else logits) > threshold
    result = client_with(model, bce, dataset, batch_size=7).evaluate(
        "blobs", return_histograms=True, nr_bins=2, return_loss=False, threshold=threshold
    )
    assert (result["nr_correct_predictions"], result["nr_predictions"]) == (
        np.sum(pred == target.numpy()),
        50,
    )
    assert 0 < np.sum(pred) < 50
    np.testing.assert_array_equal(result["histogram_predictions"], np.bincount(pred, minlength=2))
    np.testing.assert_array_equal(
        result["histogram_target"], np.bincount(target.numpy(), minlength=2)
    )


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)], ids=str)
def test_a_perfect_detector_has_all_right(shape):
    data = torch.tensor([[-3.0], [-0.5], [0.5], [2.0], [4.0]])
    dataset = sy.BaseDataset(data, torch.tensor([0, 0, 1, 1, 1]).reshape(shape))
    result = client_with(nn.Identity(), bce, dataset, batch_size=2).evaluate("blobs", threshold=0)
    losses = np.log1p(np.exp([-3, -0.5, -0.5, -2, -4]))
    assert result["loss"] == pytest.approx(losses.mean(), rel=1e-6)
    assert (result["nr_correct_predictions"], result["nr_predictions"]) == (5, 5)


@pytest.mark.parametrize(
    "asked", [{}, {"return_raw_accuracy": False, "return_histograms": True, "nr_bins": 2}]
)
@pytest.mark.parametrize(("flat", "shape"), [(True, "(8,)"), (False, "(8, 1)")])
def test_one_output_without_a_threshold_is_refused_with_its_shape(asked, flat, shape):
    client = client_with(Detector(flat), bce, sy.BaseDataset(blobs().data, blobs().targets == 0))
    with pytest.raises(ValueError) as refused:
        client.evaluate("blobs", **asked)
    assert str(refused.value) == (
        f"evaluate() cannot count predictions: the model's output has the shape {shape}; expected "
        "a column for each class, or a threshold. Pass threshold=0 if it is a logit, "
        "threshold=0.5 if it is a probability. For the loss alone, pass "
        "return_raw_accuracy=False and ask for no histograms."
    )
    assert client.evaluate("blobs", return_raw_accuracy=False).keys() == {"loss"}


class Several(nn.Module):
    """Two outputs, as a tuple or as a dict."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.linear, self.kind = nn.Linear(FEATURES, CLASSES), kind

    def forward(self, x):
        output = self.linear(x).log_softmax(1)
        return (output, x) if self.kind is tuple else {"output": output, "x": x}


@pytest.mark.parametrize("kind", [tuple, dict])
def test_several_outputs_are_refused_with_their_type_and_have_a_loss(kind):
    first = 0 if kind is tuple else "output"
    client = client_with(Several(kind), lambda pred, target: F.nll_loss(pred[first], target))
    with pytest.raises(
        ValueError,
        match=rf"the model returned a {kind.__name__}; expected one tensor\. For the loss",
    ):
        client.evaluate("blobs")
    expected = F.nll_loss(client.get_obj(MODEL).obj(blobs().data)[first], blobs().targets).item()
    assert client.evaluate("blobs", return_raw_accuracy=False) == {
        "loss": pytest.approx(expected, rel=1e-5)
    }


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        (
            torch.linspace(7.5, 9.5, 20),
            "and some targets are neither 0 nor 1; expected two classes, 0 and 1",
        ),
        (
            torch.full((20,), torch.nan),
            "and some targets are neither 0 nor 1; expected two classes, 0 and 1",
        ),
        (torch.arange(20), "and some targets are neither 0 nor 1; expected two classes, 0 and 1"),
        (torch.zeros(20, 2), r"the targets have \(8, 2\); expected one target for each number"),
    ],
    ids=["numbers", "nan", "classes", "two"],
)
def test_targets_of_no_two_classes_are_refused_and_not_told(targets, reason):
    client = client_with(
        Detector(), lambda pred, target: pred.sum(), sy.BaseDataset(blobs().data, targets)
    )
    with pytest.raises(ValueError, match=reason) as refused:
        client.evaluate("blobs", threshold=0)
    assert "return_raw_accuracy=False" in str(refused.value)
    assert "7.5" not in str(refused.value)


def test_a_threshold_for_several_columns_is_refused():
    with pytest.raises(
        ValueError, match=r"shape \(8, 3\), and threshold is 0\.5; expected one column, or no"
    ):
        client_with(Classifier()).evaluate("blobs", threshold=0.5)


@pytest.mark.parametrize("nr_bins", [-1, 0, 10_001, 100_000_000])
def test_histograms_need_bins_but_not_too_many(nr_bins):
    client = client_with(Classifier())
    with pytest.raises(
        ValueError, match=f"nr_bins is {nr_bins}; expected the number of classes, from 1 to 10,000"
    ):
        client.evaluate("blobs", return_histograms=True, nr_bins=nr_bins)
    # No histograms, no bins.
    assert client.evaluate("blobs", nr_bins=nr_bins)["nr_predictions"] == 20


def test_a_batch_has_no_more_places_than_the_dataset_has_samples():
    client = client_with(Classifier(), batch_size=10**12)
    assert client._create_data_loader("blobs").batch_size == 20
    assert client.fit("blobs") is not None and client.evaluate("blobs")["nr_predictions"] == 20
    client.add_dataset(sy.BaseDataset([], []), "nothing")
    assert client._create_data_loader("nothing").batch_size == 1


@pytest.mark.parametrize(
    "settings", [{"max_nr_batches": 1e300}, {"epochs": 1, "max_nr_batches": 2**62 + 0.0}], ids=str
)
def test_a_bound_beyond_all_batches_is_none(settings):
    assert client_with(Classifier(), **settings).fit("blobs") is not None


@pytest.mark.parametrize(
    "key", [["blobs"], {}, torch.ones(3), "x" * 10**6], ids=lambda key: type(key).__name__
)
def test_a_key_that_is_none_is_not_found(key):
    with pytest.raises(DatasetNotFound) as refused:
        client_with(Classifier()).fit(key)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("call", [FederatedClient.fit, FederatedClient.evaluate])
def test_what_is_missing_is_named(call):
    with pytest.raises(TrainConfigMissing) as refused:
        call(FederatedClient(), "blobs")
    assert isinstance(refused.value, ValueError)

    client = client_with(Classifier())
    with pytest.raises(
        DatasetNotFound, match=r"no dataset 'mnist' \(unknown dataset\); it has: 'blobs'"
    ) as refused:
        call(client, "mnist")
    assert isinstance(refused.value, ValueError)

    client.add_dataset(sy.BaseDataset([], []), "nothing")
    with pytest.raises(DatasetEmpty, match=r"'nothing' .* has 0 samples"):
        call(client, "nothing")

    with pytest.raises(DeviceUnavailable, match="no device 'cuda:99'; it has: 'cpu'"):
        call(client, "blobs", device="cuda:99")
    with pytest.raises(DeviceUnavailable, match="no device 'abacus'"):
        call(client, "blobs", device="abacus")

    client.rm_obj(LOSS)
    with pytest.raises(ObjectNotFoundError, match="no object with id 1"):
        call(client, "blobs")
    client.set_obj(ObjectWrapper(None, LOSS))
    with pytest.raises(ObjectNotFoundError, match="no object with id 1"):
        call(client, "blobs")


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu")], ids=str)
def test_the_cpu_by_any_name(device):
    client = client_with(Classifier())
    assert client.fit("blobs", device=device).device == torch.device("cpu")
    assert client.evaluate("blobs", device=device)["nr_predictions"] == 20


def test_datasets_are_added_and_removed():
    client = FederatedClient()
    client.add_dataset(blobs(), key="blobs")
    with pytest.raises(DatasetExists, match="already has a dataset 'blobs'") as refused:
        client.add_dataset(blobs(), key="blobs")
    assert isinstance(refused.value, ValueError)
    client.remove_dataset("blobs")
    client.remove_dataset("blobs")
    assert client.datasets == {}


def test_a_config_becomes_the_current_one_and_drops_the_optimizer():
    client = FederatedClient()
    client.optimizer = True
    client.set_obj(sy.TrainConfig(id=100, model=None, loss_fn=None))
    assert client.train_config.id == 100
    assert client.optimizer is None
    assert client._objects == {}


def test_other_objects_are_stored_under_their_id():
    client, data = FederatedClient(), torch.tensor(42)
    data.id = 43
    client.set_obj(data)
    assert client._objects == {43: data} and client.get_obj(43) is data


def test_the_steps_of_pysyft_can_be_called_one_by_one():
    client = FederatedClient(datasets={"blobs": blobs()})
    with pytest.raises(ValueError, match="no TrainConfig"):
        client._check_train_config()
    client.set_obj(config(optimizer="Adam", optimizer_args={"lr": 0.5}))
    client._check_train_config()
    optimizer = client._build_optimizer("Adam", Classifier(), {"lr": 0.5})
    assert isinstance(optimizer, torch.optim.Adam) and optimizer.defaults["lr"] == 0.5
    assert client._build_optimizer("SGD", Classifier(), {}) is optimizer


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_data_loader_gives_every_sample_once(shuffle):
    client = client_with(Classifier())
    loaders = [client._create_data_loader(dataset_key="blobs", shuffle=shuffle) for _ in range(2)]
    first, second = ([data for data, _ in loader] for loader in loaders)
    assert [len(data) for data in first] == [8, 8, 4]
    for each, other in ((first, [blobs().data]), (first, second)):
        assert torch.equal(torch.cat(each), torch.cat(other)) is not shuffle
    assert torch.equal(torch.cat(first).sort(0).values, blobs().data.sort(0).values)


class Moved:
    """A model that notes where it was moved to."""

    def __init__(self) -> None:
        self.places: list[str] = []

    def to(self, device: Any) -> None:
        self.places.append(str(device))


def test_a_model_is_back_on_the_cpu_after_a_training_on_a_gpu_also_after_one_that_fails():
    model = Moved()
    with federated_client._on_device(model, "cuda:1"):
        assert model.places == ["cuda:1"]
    assert model.places == ["cuda:1", "cpu"]
    with pytest.raises(ZeroDivisionError), federated_client._on_device(model, "cuda:1"):
        _ = 1 / 0
    assert model.places[-1] == "cpu"


def test_on_the_cpu_nothing_is_moved_and_functions_never_are():
    model = Moved()
    with federated_client._on_device(model, "cpu"), federated_client._on_device(print, "cuda"):
        assert model.places == []


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_batches_are_computed_in_order_and_only_a_few_are_read_ahead(threads):
    read: list[int] = []

    def items():
        for number in range(20):
            read.append(number)
            yield number

    results = federated_client._in_threads(threads, lambda number: -number, items())
    for number in range(20):
        assert next(results) == -number
        assert len(read) <= number + 1 + 2 * threads
    assert next(results, None) is None
