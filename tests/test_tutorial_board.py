"""What --tensorboard writes, with a writer that only notes what it is given; and with the real one,
where it is installed."""

import contextlib
import sys
from types import SimpleNamespace

import pytest

import run_websocket_client as rwc
from tutorial.board import Board, BoardMissing

ROUND = {
    "round": 3,
    "learning_rate": 0.1,
    "seconds": 2.5,
    "workers": ["alice"],
    "losses": {"alice": 0.7, "bob": None},
    "worker_seconds": {"alice": 2.25},
    "epsilons": {"alice": 1.25},
    "failures": {"charlie": "timeout after 60 s"},
    "accuracies": {"federated": 0.5},
    "test_losses": {"federated": 1.5},
}
SCALARS = {
    "loss/alice": 0.7,
    "seconds/alice": 2.25,
    "epsilon/alice": 1.25,
    "accuracy/federated": 0.5,
    "test_loss/federated": 1.5,
    "round/seconds": 2.5,
    "round/learning_rate": 0.1,
    "round/failures": 1,
}


class Writer:
    """Notes what a SummaryWriter would write."""

    def __init__(self, folder, purge_step):
        self.made = folder, purge_step
        self.scalars, self.flushed, self.closed = {}, 0, False

    def add_scalar(self, name, value, step):
        self.scalars[name, step] = value

    def flush(self):
        self.flushed += 1

    def close(self):
        self.closed = True


@pytest.fixture
def without(monkeypatch):
    """tensorboard cannot be imported."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


@pytest.fixture
def writer(monkeypatch):
    module = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)


def test_a_round_is_written_by_worker_and_model(writer, tmp_path):
    with Board(tmp_path, last_round=2) as board:
        board.append(**ROUND)
        written = board._writer
        assert written.flushed == 1  # a run that is killed loses no finished round
        board.append(round=4, losses={"alice": 0.5})
    assert written.made == (str(tmp_path), 3) and written.closed
    assert written.scalars == {
        **{(name, 3): value for name, value in SCALARS.items()},
        ("loss/alice", 4): 0.5,
    }


def test_a_missing_package_is_named_with_the_command_that_installs_it(without, tmp_path):
    with pytest.raises(BoardMissing, match="pip install tensorboard"):
        Board(tmp_path)


def test_the_script_says_in_one_line_that_the_package_is_missing(without, tmp_path, capsys):
    folder, history = tmp_path / "runs" / "first", tmp_path / "run.jsonl"
    history.write_text("an earlier one")
    args = rwc.define_and_get_arguments(["--tensorboard", str(folder), "--history", str(history)])
    assert rwc.run(args) == 2
    assert capsys.readouterr().err == f"error: {BoardMissing()}\n"
    assert not folder.parent.exists() and history.read_text() == "an earlier one"


def test_history_and_board_are_written_together(writer, tmp_path):
    given = ["--tensorboard", str(tmp_path / "b"), "--history", str(tmp_path / "h")]
    args = rwc.define_and_get_arguments(given)
    with contextlib.ExitStack() as stack:
        kinds = {type(each).__name__ for each in rwc.open_records(args, 0, stack)}
    assert kinds == {"History", "Board"}


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SystemExit):
            rwc.define_and_get_arguments(["--tensorboard", str(folder)])
        assert "cannot be written: no folder, or not ours" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_what_was_written(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Board(tmp_path) as board:
        board.append(**ROUND)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == set(SCALARS)
    for name, value in SCALARS.items():
        (event,) = events.Scalars(name)
        assert (event.step, event.value) == (3, pytest.approx(value))
