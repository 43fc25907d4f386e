"""create_sandbox: the names that it puts into a namespace, and the data on its workers."""

import sys
from types import SimpleNamespace

import pytest
import torch

import syft as sy
from syft.sandbox import SKLEARN_DATASETS

NAMES = ["bob", "theo", "jason", "alice", "andy", "jon"]


@pytest.fixture
def without_sklearn(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)


@pytest.fixture
def sklearn(monkeypatch) -> None:
    """A stand-in: each data set has 13 samples."""

    def load():
        data = torch.arange(26.0, dtype=torch.float64).view(13, 2).numpy()
        return {"data": data, "target": data[:, 0], "DESCR": "thirteen samples"}

    datasets = SimpleNamespace(**{f"load_{name}": load for name in SKLEARN_DATASETS})
    monkeypatch.setitem(sys.modules, "sklearn", SimpleNamespace(datasets=datasets))


def test_a_sandbox_has_a_hook_workers_and_a_grid():
    names = {}
    sy.create_sandbox(names, download_data=False)
    assert isinstance(names["hook"], sy.TorchHook) and sy.hook is names["hook"]
    assert [worker.id for worker in names["workers"]] == NAMES
    assert [names[name] for name in NAMES] == names["workers"]
    assert all(type(worker) is sy.VirtualWorker for worker in names["workers"])
    assert isinstance(names["grid"], sy.PrivateGridNetwork)
    assert names["grid"].workers == names["workers"] and names["grid"].search() == {}


def test_data_are_spread_over_all_workers(without_sklearn):
    names = {}
    sy.create_sandbox(names, verbose=False)
    data = names["grid"].search("#boston", "#data")
    target = names["grid"].search("#boston", "#target")
    assert list(data) == list(target) == NAMES
    assert [tuple(data[name][0].shape) for name in NAMES] == [(84, 13)] * 5 + [(86, 13)]
    assert [tuple(target[name][0].shape) for name in NAMES] == [(84,)] * 5 + [(86,)]
    assert "Generated numbers in the place" in data["bob"][0].description


def test_a_linear_model_can_learn_the_data(without_sklearn):
    names = {}
    sy.create_sandbox(names, verbose=False)
    data, target = (
        torch.cat(
            [pointers[0].get() for pointers in names["grid"].search("#boston", kind).values()]
        )
        for kind in ("#data", "#target")
    )
    inputs = torch.cat([data, torch.ones(len(data), 1)], dim=1)
    error = inputs @ torch.linalg.lstsq(inputs, target[:, None]).solution - target[:, None]
    assert data.dtype == target.dtype == torch.float32
    assert error.pow(2).mean() < 1.5 < target.var()


def test_two_sandboxes_have_the_same_data_and_draw_nothing(without_sklearn):
    state, found = torch.get_rng_state(), []
    for _ in range(2):
        names = {}
        sy.create_sandbox(names, verbose=False)
        found.append(names["grid"].search("#boston", "#data")["bob"][0].get())
    assert torch.equal(*found) and torch.equal(torch.get_rng_state(), state)


def test_what_needs_scikit_learn_is_named_where_it_is_missing(without_sklearn, capsys):
    names = {}
    sy.create_sandbox(names, verbose=False)
    assert capsys.readouterr().out.splitlines() == [
        "Setting up Sandbox...",
        "\t- Without diabetes, breast_cancer, digits, iris, wine, linnerud: they need scikit-learn "
        "(pip install scikit-learn)",
        "Done!",
    ]
    assert names["grid"].search("#iris") == {}


@pytest.mark.parametrize("name", SKLEARN_DATASETS)
def test_data_sets_of_scikit_learn_are_there_with_it(sklearn, name):
    names = {}
    sy.create_sandbox(names, verbose=False)
    found = names["grid"].search(f"#{name}", "#data")
    assert [len(found[worker][0].get()) for worker in NAMES] == [2] * 5 + [3]
    pointer = names["grid"].search(f"#{name}", "#target")["jon"][0]
    assert pointer.description == "thirteen samples"
    target = pointer.get()
    assert target.tolist() == [20, 22, 24] and target.dtype == torch.float32


def test_each_step_is_printed_if_asked_for(sklearn, capsys):
    sy.create_sandbox({})
    printed = capsys.readouterr().out
    assert "\t- Creating Virtual Workers: bob, theo, jason, alice, andy, jon\n" in printed
    assert "\t- Boston Housing Dataset: generated" in printed
    assert "\t- Breast Cancer Dataset from scikit-learn\n" in printed
