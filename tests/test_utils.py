"""Federated averaging against numpy, and the helpers around it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from syft.exceptions import EmptyRoundError, ModelMismatchError
from syft.frameworks.torch.fl.utils import (
    accuracy,
    add_model,
    coordinate_median,
    create_gaussian_mixture_toy_data,
    extract_batches_per_worker,
    federated_avg,
    iris_data_partial,
    scale_model,
    trimmed_mean,
)
from tests.models import Classifier, blobs

X = blobs().data


class Normed(nn.Module):
    """A model with running means, a frozen parameter and a constructor that cannot be called
    without arguments."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(X.shape[1], width)
        self.norm = nn.BatchNorm1d(width)
        self.layer.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layer(x))


def normed(batches: int) -> nn.Module:
    model = Normed(3)
    for _ in range(batches):
        model(torch.randn(8, X.shape[1]))
    return model


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy(force=True).tobytes() for name, tensor in model.state_dict().items()}


def of(*values: float, dtype=torch.float32) -> nn.Module:
    """A model with one parameter, `weight`."""
    model = nn.Module()
    model.weight = nn.Parameter(torch.tensor(values, dtype=dtype))
    return model


KINDS = {
    "plain": lambda model: model,
    "traced": lambda model: torch.jit.trace(model.eval(), X),
    "scripted": torch.jit.script,
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@kinds
@pytest.mark.parametrize("weights", [None, [1, 2, 5], [0, 0.5, 0]], ids=str)
@pytest.mark.parametrize("by_id", [True, False], ids=["dict", "list"])
def test_parameters_and_buffers_are_the_mean_that_numpy_computes(kind, weights, by_id):
    models = [kind(normed(batches)) for batches in (1, 2, 3)]
    names = ["alice", "bob", "charlie"]
    backwards = [2, 1, 0]  # weights are found by id, not by their place
    average = federated_avg(
        dict(zip(names, models, strict=True)) if by_id else models,
        {names[i]: weights[i] for i in backwards} if by_id and weights else weights,
    )
    states = [model.state_dict() for model in models]
    for name, tensor in average.state_dict().items():
        expected = np.average(
            [state[name].numpy(force=True) for state in states], axis=0, weights=weights
        )
        if name == "norm.num_batches_tracked":
            expected = states[0][name].numpy()
        assert tensor.dtype == states[0][name].dtype
        np.testing.assert_allclose(
            tensor.numpy(force=True), expected, rtol=1e-6, atol=1e-7, err_msg=name
        )


def test_a_mean_computed_by_hand():
    models = {"alice": of(1, 2), "bob": of(3, 6), "charlie": of(5, 1)}
    assert federated_avg(models).weight.tolist() == [3, 3]
    assert federated_avg(models, {"alice": 1, "bob": 0, "charlie": 3}).weight.tolist() == [4, 1.25]


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64], ids=str
)
def test_other_dtypes_stay(dtype):
    average = federated_avg([of(1, 2, dtype=dtype), of(3, 6, dtype=dtype)])
    assert torch.equal(average.weight, torch.tensor([2, 4], dtype=dtype))


def test_the_mean_of_many_is_summed_in_double_precision():
    models = [of(1e8)] + [of(1.0) for _ in range(99)]
    assert federated_avg(models).weight.item() == np.float32((1e8 + 99) / 100)


@kinds
def test_the_average_of_one_model_is_that_model_bit_for_bit(kind):
    model = kind(normed(2))
    assert bits(federated_avg({"alice": model})) == bits(model)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_average_of_equal_models_keeps_special_values(count):
    values = (0.0, -0.0, 1e-45, 3.4e38, float("inf"))
    assert bits(federated_avg([of(*values) for _ in range(count)])) == bits(of(*values))


@kinds
def test_the_inputs_stay_as_they_are_and_share_no_memory_with_the_average(kind):
    models = [kind(normed(batches)) for batches in (1, 2)]
    before = [bits(model) for model in models]
    average = federated_avg(models)
    with torch.no_grad():
        for tensor in [*average.parameters(), *average.buffers()]:
            tensor.add_(1)
    assert [bits(model) for model in models] == before


@kinds
def test_the_average_can_be_trained(kind):
    average = federated_avg([kind(normed(batches)) for batches in (1, 2)])
    parameters = dict(average.named_parameters())
    assert all(parameter.is_leaf for parameter in parameters.values())
    assert {name for name, p in parameters.items() if not p.requires_grad} == {"layer.bias"}
    before = bits(average)
    average(X).pow(2).sum().backward()
    torch.optim.SGD([p for p in average.parameters() if p.requires_grad], lr=0.1).step()
    assert bits(average) != before


def test_the_average_of_models_fit_to_be_averaged_again():
    first, second = Classifier(), Classifier()
    average = federated_avg([federated_avg([first, second]), federated_avg([first, second])])
    assert torch.allclose(average.hidden.weight, (first.hidden.weight + second.hidden.weight) / 2)


@kinds
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("by_id", [True, False], ids=["dict", "list"])
def test_robust_averages_are_those_that_numpy_computes(kind, count, by_id):
    models = [kind(normed(batches)) for batches in range(1, count + 1)]
    before = [bits(model) for model in models]
    states = [model.state_dict() for model in models]
    given = {f"worker {i}": model for i, model in enumerate(models)} if by_id else models
    trim = (count - 1) // 2
    for average, expected in (
        (coordinate_median(given), lambda values: np.median(values, axis=0)),
        (trimmed_mean(given, trim), lambda values: np.sort(values, 0)[trim : count - trim].mean(0)),
        (trimmed_mean(given, 0), lambda values: np.mean(values, axis=0)),
    ):
        for name, tensor in average.state_dict().items():
            values = [state[name].double().numpy(force=True) for state in states]
            wanted = values[0] if name == "norm.num_batches_tracked" else expected(values)
            assert tensor.dtype == states[0][name].dtype
            np.testing.assert_allclose(tensor.numpy(force=True), wanted, rtol=1e-6, atol=1e-7)
    assert [bits(model) for model in models] == before


def test_robust_averages_computed_by_hand():
    models = [of(1, 8), of(2, -1), of(30, 0), of(4, 1), of(-9, 100)]
    assert coordinate_median(models).weight.tolist() == [2, 1]
    assert coordinate_median(models[:4]).weight.tolist() == [3, 0.5]
    assert trimmed_mean(models).weight.tolist() == pytest.approx([7 / 3, 3])


@pytest.mark.parametrize("average", [coordinate_median, trimmed_mean])
@pytest.mark.parametrize("lie", [1e30, -1e30, float("inf"), float("-inf"), float("nan")])
def test_one_of_three_models_cannot_spoil_a_robust_average(average, lie):
    for place in range(3):
        models = [of(1.0), of(2.0)]
        models.insert(place, of(lie))
        assert 1 <= average(models).weight.item() <= 2


@pytest.mark.parametrize("average", [coordinate_median, trimmed_mean])
def test_complex_numbers_are_averaged_by_their_parts(average):
    models = [of(value, dtype=torch.complex64) for value in (1 + 5j, 2 - 1j, 100 + 2j)]
    assert average(models).weight.item() == 2 + 2j


@pytest.mark.parametrize(("count", "trim"), [(2, 1), (4, 2), (3, -1)])
def test_a_trimmed_mean_of_nothing_is_refused(count, trim):
    with pytest.raises(ValueError, match=rf"^cannot leave out {trim} models at either end: there"):
        trimmed_mean([of(1)] * count, trim)


@pytest.mark.parametrize("average", [federated_avg, coordinate_median, trimmed_mean])
@pytest.mark.parametrize("models", [{}, [], ()], ids=repr)
def test_an_empty_round_is_named(average, models):
    with pytest.raises(EmptyRoundError, match="`models` is empty") as refused:
        average(models)
    assert isinstance(refused.value, ValueError)


def renamed() -> nn.Module:
    model = nn.Module()
    model.kernel = nn.Parameter(torch.zeros(2))
    return model


@pytest.mark.parametrize(
    ("other", "name", "observed"),
    [
        (renamed(), "weight", "missing"),
        (of(1, 2, 3), "weight", "(3,) torch.float32"),
        (of(1, 2, dtype=torch.float64), "weight", "(2,) torch.float64"),
    ],
    ids=["missing", "shape", "dtype"],
)
@pytest.mark.parametrize("average", [federated_avg, coordinate_median])
def test_models_that_do_not_match_are_named(average, other, name, observed):
    with pytest.raises(ModelMismatchError) as refused:
        average({"alice": of(1, 2), "bob": other})
    error = refused.value
    assert isinstance(error, ValueError)
    assert (error.model, error.name, error.observed, error.expected) == (
        "bob",
        name,
        observed,
        "(2,) torch.float32",
    )


def test_a_buffer_that_one_model_lacks_is_named():
    without = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(ModelMismatchError, match=r"'1\.running_mean' of model '1' is missing"):
        federated_avg([nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), without])


@pytest.mark.parametrize(
    "weights",
    [
        [1],
        [1, 2, 3],
        [],
        {"alice": 1},
        {"alice": 1, "carol": 1},
        [0, 0],
        [-1, 2],
        [1, np.nan],
        [np.nan, 1],
        [1, np.inf],
    ],
    ids=str,
)
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ValueError, match=r"^weights .*; expected"):
        federated_avg({"alice": of(1), "bob": of(2)}, weights)


def test_add_model_adds_and_changes_neither():
    first, second = Classifier(), Classifier()
    before = bits(first), bits(second)
    total = add_model(first, second)
    for name, parameter in total.named_parameters():
        assert torch.equal(parameter, first.get_parameter(name) + second.get_parameter(name))
    assert (bits(first), bits(second)) == before


def test_add_model_leaves_what_the_other_does_not_have():
    total = add_model(of(1, 2), renamed())
    assert total.weight.tolist() == [1, 2]


@kinds
def test_scale_model_scales_and_changes_nothing_else(kind):
    model = kind(normed(2))
    before = bits(model)
    scaled = scale_model(model, 0.5)
    for (_, new), (_, old) in zip(scaled.named_parameters(), model.named_parameters(), strict=True):
        assert (
            torch.equal(new, old * 0.5) and new.requires_grad == old.requires_grad and new.is_leaf
        )
    assert bits(model) == before
    assert all(map(torch.equal, scaled.buffers(), model.buffers()))


class Loader(list[Any]):
    """Batches that lie on workers, as PySyft 0.2's FederatedDataLoader has them."""

    workers = ("bob", "alice", "charlie")
    federated_dataset = SimpleNamespace(
        datasets={name: SimpleNamespace(location=name) for name in workers}
    )


def batch(location: str) -> tuple[SimpleNamespace, SimpleNamespace]:
    return SimpleNamespace(location=location), SimpleNamespace(location=location)


def test_batches_are_sorted_by_the_workers_that_hold_them():
    batches = [batch("alice"), batch("bob"), batch("alice")]
    expected = {"alice": [batches[0], batches[2]], "bob": [batches[1]]}
    found = extract_batches_per_worker(iter(batches))
    assert found == expected and list(found) == ["alice", "bob"]
    found = extract_batches_per_worker(Loader(batches))
    assert found == expected | {"charlie": []} and list(found) == ["bob", "alice", "charlie"]


def test_batches_that_lie_on_no_worker_are_refused():
    with pytest.raises(
        TypeError, match=r"^batch 1 belongs to no worker: its data are a Tensor; expected a pointer"
    ):
        extract_batches_per_worker([batch("alice"), (torch.ones(1), torch.ones(1))])


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_accuracy_is_the_share_of_correct_predictions(shape):
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]])
    assert accuracy(scores, torch.tensor([0, 1, 0, 0]).view(shape)) == 0.75


@pytest.mark.parametrize("samples", [100, 7])
def test_the_toy_data_are_two_separate_balanced_classes(samples):
    data, targets = create_gaussian_mixture_toy_data(samples)
    half = samples // 2
    assert (data.shape, data.dtype, targets.dtype) == ((2 * half, 2), torch.float32, torch.int64)
    assert targets.tolist() == [0] * half + [1] * half
    # 7 deviations lie between each centre and this line.
    assert torch.equal(data.sum(dim=1) > 0, targets.bool())


def test_the_iris_data_are_those_of_their_source():
    data, targets = iris_data_partial()
    assert (data.shape, data.dtype, targets.dtype) == ((30, 4), torch.float32, torch.int64)
    assert targets.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    # Means of the first ten rows of each class in Fisher's table, computed by hand.
    means = [[4.86, 3.31, 1.45, 0.22], [6.1, 2.87, 4.37, 1.38], [6.57, 2.94, 5.77, 2.04]]
    np.testing.assert_allclose(data.view(3, 10, 4).mean(dim=1).numpy(), means, rtol=1e-5)
    assert data[0].tolist() == pytest.approx([5.1, 3.5, 1.4, 0.2])
