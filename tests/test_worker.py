"""`python -m syft.worker`: its options, and the dataset that the command line names."""

import sys

import pytest

from syft import worker
from syft.access import privacy
from syft.access.limits import Limits
from syft.access.policy import Policy

HOSPITAL = """
import numpy as np, torch, syft as sy

def load():
    return sy.BaseDataset(torch.ones(3, 2), torch.zeros(3))

def integers():
    return sy.BaseDataset(np.ones((3, 2)), np.zeros(3, dtype=np.int32))
"""


@pytest.fixture(autouse=True)
def hospital(tmp_path, monkeypatch):
    """A module of the user's own, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "hospital", raising=False)
    (tmp_path / "hospital.py").write_text(HOSPITAL)
    yield
    sys.modules.pop("hospital", None)


def test_a_worker_of_any_name_has_the_options_of_the_tutorials_workers():
    words = ["--id", "paris", "--port", "8777", "--key", "patients"]
    words += ["--dataset", "hospital:load", "paris.csv", "--max_fits", "3", "--max_seconds", "60"]
    arguments = worker.define_and_get_arguments(words)
    assert (arguments.id, arguments.port, arguments.key) == ("paris", 8777, "patients")
    assert arguments.dataset == ["hospital:load", "paris.csv"]
    options = worker.with_rules(arguments.options)
    assert options["policy"] == Policy(max_fits=3)
    assert options["limits"] == Limits(call_seconds=60)


def test_a_worker_with_data_of_ones_own_may_have_a_privacy_budget(monkeypatch, tmp_path):
    monkeypatch.setattr(privacy, "epsilon_of", lambda history, delta: 0.0)
    words = ["--id", "paris", "--port", "0", "--key", "patients", "--dataset", "hospital:load"]
    words += ["--epsilon", "3", "--noise_multiplier", "2", "--privacy_folder", str(tmp_path)]
    policy = worker.with_rules(worker.define_and_get_arguments(words).options)["policy"]
    assert policy.privacy == privacy.DifferentialPrivacy(2.0, 1.0, 3.0, 1e-5, str(tmp_path))


@pytest.mark.parametrize("damaged", [True, False])
def test_a_worker_whose_budget_cannot_be_kept_ends_with_one_line(
    monkeypatch, tmp_path, capsys, damaged
):
    """Its account is damaged, or the package that computes what fits cost is not there."""
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    for name in ("opacus", "opacus.accountants"):
        monkeypatch.setitem(sys.modules, name, None)
    if damaged:
        (tmp_path / "paris.privacy.json").write_text("{")
    words = ["--id", "paris", "--port", "0", "--key", "patients", "--dataset", "hospital:load"]
    assert worker.main([*words, "--epsilon", "3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert ("paris.privacy.json" if damaged else "pip install opacus") in line


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "the following arguments are required: --id, --port/-p, --dataset, --key"),
        (["--dataset"], "argument --dataset: expected at least one argument"),
        (["--port", "x"], "argument --port/-p: 'x' is no port; expected a number from 0 to 65535"),
    ],
)
def test_wrong_arguments_are_one_line_that_names_the_program(capsys, words, complaint):
    with pytest.raises(SystemExit) as exit:
        worker.define_and_get_arguments(words)
    assert exit.value.code == 2
    assert capsys.readouterr().err == f"python -m syft.worker: error: {complaint}; see --help\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, worker.DatasetNotLoaded("it is not there")])
def test_a_worker_whose_dataset_does_not_load_ends_with_one_line(monkeypatch, capsys, error):
    def load(*_):
        raise error

    monkeypatch.setattr(worker, "load_dataset", load)
    words = ["--id", "paris", "--port", "0", "--key", "patients", "--dataset", "hospital:load"]
    expected = (130, "interrupted\n") if error is KeyboardInterrupt else (2, f"error: {error}\n")
    assert (worker.main(words), capsys.readouterr().err) == expected


def test_a_worker_says_what_it_holds_and_what_torch_may_not_take(monkeypatch, caplog):
    monkeypatch.setattr(worker, "serve", lambda start: 0)
    words = ["--id", "paris", "--port", "0", "--key", "patients", "--dataset", "hospital:integers"]
    with caplog.at_level("INFO"):
        assert worker.main(words) == 0
    holds, *doubts = [record.message for record in caplog.records]
    assert holds == (
        "worker paris holds 3 samples as 'patients': input float64 (2,), target int32 ()"
    )
    assert [doubt[:27] for doubt in doubts] == [
        "worker paris: its inputs ar",
        "worker paris: its targets a",
    ]
