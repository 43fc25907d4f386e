"""Checkpoints and histories: whole or not at all, of this run or refused, and the same result to
the bit."""

import json
import math
import os

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import syft as sy
from syft.exceptions import CheckpointDamaged, CheckpointError, CheckpointMismatch, HistoryDamaged
from syft.federated import Checkpoint, History, checkpoint, read_history, run_round
from syft.frameworks.torch.fl import utils
from tests.models import Regressor, blobs, classifier, make_config, same

ARGUMENTS = {"lr": 0.1, "seed": 1, "batch_size": 32}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run.safetensors"
    Checkpoint.of(classifier(), round=7, learning_rate=0.1 * 0.98**7, arguments=ARGUMENTS).save(
        path
    )
    return path


def test_what_is_saved_is_restored_to_the_bit(path):
    expected = torch.rand(3)
    model = classifier(seed=1)
    loaded = Checkpoint.load(path)
    loaded.restore(model, ARGUMENTS)
    assert (loaded.round, loaded.learning_rate, loaded.arguments) == (7, 0.1 * 0.98**7, ARGUMENTS)
    for name, tensor in classifier().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert torch.equal(torch.rand(3), expected)


def test_buffers_of_every_kind_are_restored(tmp_path):
    model = nn.BatchNorm1d(3)
    model.register_buffer("flags", torch.tensor([True, False]))
    model.register_buffer("empty", torch.empty(0, 2))
    model.register_buffer("part", torch.arange(6.0).view(2, 3).t())
    model(torch.randn(5, 3))
    Checkpoint.of(model, 1, 0.1, {}).save(tmp_path / "c")
    other = nn.BatchNorm1d(3)
    for name in ("flags", "empty", "part"):
        other.register_buffer(name, torch.zeros_like(getattr(model, name)))
    Checkpoint.load(tmp_path / "c").restore(other, {})
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def test_it_is_a_safetensors_file(path):
    tensors = safetensors.torch.load_file(path)
    assert set(tensors) == {"generator", *("model." + name for name in classifier().state_dict())}


def test_a_later_one_replaces_an_earlier_one_and_nothing_else_stays(path):
    Checkpoint.of(classifier(), 8, 0.08, ARGUMENTS).save(path)
    assert Checkpoint.load(path).round == 8
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_what_cannot_be_written_leaves_the_earlier_one(path, monkeypatch, call):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        Checkpoint.of(classifier(), 8, 0.08, ARGUMENTS).save(path)
    monkeypatch.undo()
    assert Checkpoint.load(path).round == 7
    assert os.listdir(path.parent) == [path.name]


def test_a_link_to_a_checkpoint_stays_a_link(path):
    link = path.with_name("link")
    link.symlink_to(path)
    Checkpoint.of(classifier(), 8, 0.08, ARGUMENTS).save(link)
    assert link.is_symlink()
    assert Checkpoint.load(path).round == 8


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        Checkpoint.of(classifier(), 8, 0.08, ARGUMENTS).save(tmp_path / "pipe")


def refused(content, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.write_bytes(content)
    with pytest.raises(CheckpointDamaged) as info:
        Checkpoint.load(damaged)
    assert str(info.value).startswith(f"checkpoint '{damaged}' cannot be used: ")
    return info.value


def test_every_cut_is_refused(path, tmp_path):
    content = path.read_bytes()
    for length in {*range(0, len(content), 97), len(content) - 1}:
        refused(content[:length], tmp_path)
    refused(content + b"\0", tmp_path)


WHOLE = []


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 2**32), bit=st.integers(0, 7))
def test_every_flipped_bit_is_refused(tmp_path_factory, position, bit):
    directory = tmp_path_factory.getbasetemp()
    if not WHOLE:
        Checkpoint.of(classifier(), 7, 0.1, ARGUMENTS).save(directory / "whole")
        WHOLE.append((directory / "whole").read_bytes())
    content = bytearray(WHOLE[0])
    content[position % len(content)] ^= 1 << bit
    (directory / "flipped").write_bytes(content)
    with pytest.raises(CheckpointDamaged):
        Checkpoint.load(directory / "flipped")


def test_other_files_are_refused(tmp_path):
    assert "not a whole safetensors file" in str(refused(b"", tmp_path))
    assert "not a whole safetensors file" in str(refused(b"PK\3\4" * 100, tmp_path))
    assert "but not a checkpoint" in str(
        refused(safetensors.torch.save({"x": torch.ones(1)}), tmp_path)
    )
    with pytest.raises(CheckpointDamaged, match="No such file"):
        Checkpoint.load(tmp_path / "none")
    with pytest.raises(CheckpointDamaged, match="Is a directory"):
        Checkpoint.load(tmp_path)


def test_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 4)
    Checkpoint.of(classifier(), 7, 0.1, ARGUMENTS).save(tmp_path / "c")
    monkeypatch.undo()
    with pytest.raises(CheckpointDamaged, match="its format is 4; expected 1, 2 or 3"):
        Checkpoint.load(tmp_path / "c")


@pytest.mark.parametrize(("version", "more"), [(1, {}), (2, {"server_optimizer": None})])
def test_a_checkpoint_of_an_earlier_format_can_be_restored(tmp_path, version, more):
    """The first had no server optimizer, the second no SCAFFOLD."""
    tensors = {f"model.{name}": tensor for name, tensor in classifier().state_dict().items()}
    tensors["generator"] = torch.get_rng_state()
    operators = Checkpoint.of(classifier(), 7, 0.1, {}).operators
    fields = {"format": version, "round": 7, "learning_rate": 0.1, "operators": operators}
    text = json.dumps(fields | more | {"arguments": ARGUMENTS})
    metadata = {"checkpoint": text, "sha256": checkpoint._digest(text, tensors)}
    safetensors.torch.save_file(tensors, tmp_path / "c", metadata)
    model = classifier(seed=1)
    Checkpoint.load(tmp_path / "c").restore(model, ARGUMENTS)
    assert same(model, classifier())


class Deeper(nn.Module):
    """The parameters of Classifier, another forward()."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(self.output(torch.tanh(self.hidden(x))), dim=1)


def wider() -> nn.Module:
    model = Deeper()
    model.output = nn.Linear(5, 4)
    return torch.jit.script(model)


@pytest.mark.parametrize(
    ("model", "arguments", "what"),
    [
        (
            wider,
            ARGUMENTS,
            "its parameter 'output.weight' is (3, 5) torch.float32; expected (4, 5) torch.float32.",
        ),
        (
            Regressor,
            ARGUMENTS,
            "its parameter 'linear.weight' is missing; expected (1, 4) torch.float32.",
        ),
        (
            lambda: classifier().double(),
            ARGUMENTS,
            "is (5, 4) torch.float32; expected (5, 4) torch.float64.",
        ),
        (lambda: torch.jit.script(Deeper()), ARGUMENTS, "its model's forward() is "),
        (classifier, ARGUMENTS | {"seed": 2}, "its argument 'seed' is 1; expected 2."),
        (classifier, {"seed": 1, "lr": 0.1}, "its argument 'batch_size' is 32; expected missing."),
    ],
    ids=["shape", "names", "dtype", "forward", "argument", "missing argument"],
)
def test_a_checkpoint_of_another_run_is_refused(path, model, arguments, what):
    model = model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    with pytest.raises(CheckpointMismatch) as info:
        Checkpoint.load(path).restore(model, arguments)
    assert isinstance(info.value, (CheckpointError, ValueError))
    assert str(info.value).startswith(f"checkpoint '{path}' belongs to another run: ")
    assert what in str(info.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


async def train(workers, model, first, last, path=None):
    """Train from round `first` to `last`, each round with seeds from torch's generator; return the
    model."""

    async def fit(worker):
        config = make_config(model, seed=None)
        config.send(worker)
        loss = await worker.async_fit("blobs")
        return worker.id, (await config.model_ptr.async_get()).obj, loss

    for number in range(first, last + 1):
        model = utils.federated_avg((await run_round(workers, fit)).models)
        if path is not None:
            Checkpoint.of(model, number, 0.1, ARGUMENTS).save(path)
    return model


async def test_a_resumed_run_equals_one_without_a_break(tmp_path):
    workers = [sy.VirtualWorker(id=name) for name in ("alice", "bob")]
    for worker in workers:
        worker.add_dataset(blobs(), key="blobs")
    torch.manual_seed(5)
    whole = await train(workers, classifier(), 1, 6)

    torch.manual_seed(5)
    await train(workers, classifier(), 1, 3, tmp_path / "c")
    torch.manual_seed(6)
    model = classifier(seed=9)
    loaded = Checkpoint.load(tmp_path / "c")
    loaded.restore(model, ARGUMENTS)
    resumed = await train(workers, model, loaded.round + 1, 6)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_history_has_one_object_a_line_as_soon_as_it_is_appended(tmp_path):
    with History(tmp_path / "h") as history:
        history.append(round=1, losses={"alice": 0.5, "bob": math.nan}, failures={1: "timeout"})
        lines = (tmp_path / "h").read_text().splitlines()
        assert [json.loads(line, parse_constant=pytest.fail) for line in lines] == [
            {"round": 1, "losses": {"alice": 0.5, "bob": None}, "failures": {"1": "timeout"}}
        ]
        history.append(round=2)
    assert [each["round"] for each in read_history(tmp_path / "h")] == [1, 2]


def test_a_new_run_starts_its_history_anew(tmp_path):
    (tmp_path / "h").write_text('{"round": 1}\n')
    History(tmp_path / "h").close()
    assert read_history(tmp_path / "h") == []


def test_a_resumed_history_has_no_round_twice_and_no_half_line(tmp_path):
    (tmp_path / "h").write_text('{"round": 1}\n{"round": 2}\n{"round": 3}\n{"rou')
    with History(tmp_path / "h", last_round=2) as history:
        history.append(round=3)
    assert [each["round"] for each in read_history(tmp_path / "h")] == [1, 2, 3]


def test_a_history_that_is_not_there_begins_with_the_resumed_run(tmp_path):
    with History(tmp_path / "h", last_round=2) as history:
        history.append(round=3)
    assert [each["round"] for each in read_history(tmp_path / "h")] == [3]


@pytest.mark.parametrize("text", ["# A title\n", "[1]\n", '{"epoch": 1}\n'])
def test_another_file_is_not_taken_for_a_history(tmp_path, text):
    (tmp_path / "h").write_text(text)
    with pytest.raises(HistoryDamaged, match="cannot be continued"):
        History(tmp_path / "h", last_round=2)
    assert (tmp_path / "h").read_text() == text
