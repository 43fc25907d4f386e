"""The dataset that the command line of a worker names: what is one, and what is told of it."""

import sys

import numpy as np
import pytest
import torch

import syft as sy
from syft.own_dataset import EXPECTED, DatasetNotLoaded, described, doubts_about, load_dataset

# torch 2.4 makes tensors of numpy's booleans in a way that numpy 1.26 warns of.
OF_NUMPY = pytest.mark.filterwarnings("ignore:In future, it will be an error:DeprecationWarning")

HOSPITAL = """
import numpy as np, torch, syft as sy

def load(name="paris", rows="3"):
    return sy.BaseDataset(torch.ones(int(rows), 2), torch.zeros(int(rows)))

def broken():
    raise OSError("no such table")

def images():
    return [torch.ones(2), torch.ones(2)]

class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield torch.ones(2), torch.ones(1)

    def __len__(self):
        return 1

def stream():
    return Stream()

def rows():
    return (row for row in [(1.0, 2.0)])

def nothing():
    pass

def by_name():
    return {"first": (1.0, 2.0)}

def words():
    return sy.BaseDataset(torch.ones(2, 1), ["yes", "no"])

def table_of_words():
    return sy.BaseDataset(np.array([["0", "m"], ["1", "f"]]), np.ones(2))

number = 5
"""


@pytest.fixture(autouse=True)
def hospital(tmp_path, monkeypatch):
    """A module of the user's own, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "hospital", raising=False)
    (tmp_path / "hospital.py").write_text(HOSPITAL)
    (tmp_path / "needs_more.py").write_text("import no_such_module")
    yield
    sys.modules.pop("hospital", None)


def test_a_dataset_is_what_a_function_of_the_users_returns():
    assert len(load_dataset("hospital:load")) == 3
    data, target = load_dataset("hospital:load", "paris", "7")[6]
    assert (data.tolist(), target.item()) == ([1.0, 1.0], 0.0)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nowhere:load"], "cannot find 'nowhere:load': No module named 'nowhere'; looked in /"),
        (["hospital:lod"], "cannot find 'hospital:lod': module 'hospital' has no attribute 'lod'"),
        (["hospital load"], "'hospital load' is no MODULE:FUNCTION, e.g. hospital:load"),
        (["hospital:load", "x", "many"], "hospital:load('x', 'many') failed: ValueError: invalid"),
        (["hospital:load", "x", "0"], "hospital:load('x', '0') returned a dataset without samples"),
        (["hospital:broken"], "hospital:broken() failed: OSError: no such table"),
        (["hospital:number"], "hospital:number() failed: TypeError: 'int' object is not callable"),
        (["hospital:images"], "hospital:images(): its first sample is of type Tensor; expected a"),
        (["hospital:stream"], f"hospital:stream() returned an object of type Stream; {EXPECTED}"),
        (["hospital:rows"], f"hospital:rows() returned an object of type generator; {EXPECTED}"),
        (
            ["hospital:nothing"],
            f"hospital:nothing() returned an object of type NoneType; {EXPECTED[:40]}",
        ),
        (
            ["hospital:by_name"],
            "hospital:by_name() returned an object of type dict whose first sample, [0], cannot be "
            f"read: KeyError: 0; {EXPECTED}",
        ),
        (
            ["hospital:words"],
            "hospital:words(): its first sample has a target of type str ('yes'), of which no "
            "tensor can be made; expected numbers, arrays or tensors",
        ),
        (
            ["hospital:table_of_words"],
            "hospital:table_of_words(): its first sample has an input of type ndarray (\"['0' 'm']",
        ),
        (["needs_more:load"], "cannot find 'needs_more:load': No module named 'no_such_module'"),
    ],
)
def test_what_is_no_dataset_is_named_with_the_reason(words, complaint):
    with pytest.raises(DatasetNotLoaded) as refused:
        load_dataset(*words)
    assert str(refused.value).startswith(complaint)


@pytest.mark.parametrize("words", [["hospital:broken"], ["needs_more:load"]])
def test_an_error_inside_the_users_module_is_shown_with_its_traceback(capsys, words):
    with pytest.raises(DatasetNotLoaded):
        load_dataset(*words)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["nowhere:load"], ["hospital:lod"]])
def test_a_name_that_does_not_exist_is_shown_without_one(capsys, words):
    with pytest.raises(DatasetNotLoaded):
        load_dataset(*words)
    assert capsys.readouterr().err == ""


def table(inputs, targets):
    return sy.BaseDataset(np.array(inputs), np.array(targets))


@OF_NUMPY
@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        (table([[1.0, 2.0]], [True]), "input float64 (2,), target bool ()"),
        ([(1.0, 3)], "input float64 (), target int64 ()"),
        (
            [(torch.ones(2), torch.ones(3, 4), 1)],
            "input float32 (2,), input float32 (3, 4), target",
        ),
        ([({"age": torch.ones(2)}, torch.ones(1))], "input dict, target float32 (1,)"),
    ],
)
def test_a_dataset_is_described_by_its_first_sample(dataset, text):
    assert described(dataset).startswith(text)


@OF_NUMPY
@pytest.mark.parametrize(
    ("dataset", "doubts"),
    [
        (table(np.float32([[1, 2]]), np.float32([1])), []),
        (table(np.float32([[1, 2]]), np.float64([1])), []),
        (table(np.uint8([[1, 2]]), [3]), []),
        ([({"age": torch.ones(2)}, torch.ones(1))], []),
        (table([[1.0, 2.0]], [3]), ["its inputs are float64, and layers of torch are float32"]),
        (table(np.float32([[1]]), np.int32([3])), ["its targets are int32; losses of torch take"]),
        (table(np.float32([[1]]), [True]), ["its targets are bool; losses of torch take int64"]),
        (table(np.float32([[1], [np.nan]]), [3, 4]), ["1 of its inputs' values are not finite"]),
        ([(torch.tensor([np.inf]), 1)], ["1 of its inputs' values are not finite"]),
    ],
)
def test_what_torch_will_most_likely_not_take_is_told(dataset, doubts):
    told = list(doubts_about(dataset))
    assert len(told) == len(doubts)
    assert all(text.startswith(doubt) for text, doubt in zip(told, doubts, strict=True))
