"""The Flower app: the same training as over websockets, checked replies, and refused settings.

Its nodes are in this process (tests/flower_grid.py). tests/engine/ has those of Flower's engines.
"""

import asyncio
import contextlib
import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

if sys.version_info < (3, 11):
    pytest.skip("Flower needs Python 3.11", allow_module_level=True)

import tomllib
from flwr.app import Array, ArrayRecord, Message

import client_app
import run_websocket_client as rwc
import server_app
import strategy
import syft as sy
import task
from settings import MEANS, STRATEGIES, Settings, SettingsError
from syft.exceptions import QuorumNotReached
from syft.federated import History, ServerOptimizer, read_history
from syft.frameworks.torch.fl import utils
from tests.flower_grid import Change, LocalGrid
from tests.network import serving

NAMES = ["alice", "bob", "charlie"]
SMALL = {"rounds": 1, "batches": 1, "batch-size": 8}


@pytest.fixture
def unevaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out evaluations, which take a second."""
    monkeypatch.setattr(task, "evaluate", lambda model: (2.0, 0.125))


def run(
    config: dict[str, Any],
    change: Change = lambda _, reply: reply,
    history: Path | None = None,
) -> tuple[LocalGrid, torch.nn.Module]:
    """Run the app on three nodes, or as many as the settings say; return them and the model."""
    config = SMALL | config
    settings = Settings.of(config)
    names = NAMES if settings.clients == 3 else None
    grid = LocalGrid(client_app.app, settings.clients, names, config, change)
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(History(history)) if history else None
        return grid, server_app.run(grid, settings, opened)


def parameters(model: torch.nn.Module) -> list[np.ndarray]:
    return [each.detach().numpy() for each in model.parameters()]


# --- the same training ---


async def websocket_run(rounds: int, history: Path) -> None:
    """Run the tutorial's coordinator with workers behind sockets of this machine."""
    with contextlib.ExitStack() as stack:
        addresses = []
        for number, name in enumerate([*NAMES, "testing"]):
            server = sy.WebsocketServerWorker(None, "127.0.0.1", 0, id=name, token="")
            if name == "testing":
                server.add_dataset(task._test_images(), "mnist_testing")
            else:
                server.add_dataset(task.part_of(Settings(), number, 3), "mnist")
            stack.enter_context(serving(server))
            addresses.append(f"{name}=127.0.0.1:{server.port}")
        options = ["--training_rounds", str(rounds), "--history", str(history)]
        args = rwc.define_and_get_arguments([*options, "--workers", *addresses])
        await rwc.main(args)


def test_three_rounds_give_the_websocket_runs_model_to_the_digit(tmp_path, monkeypatch):
    images, digits = (each[:1000] for each in task.mnist(train=False))
    few = sy.BaseDataset(task.normalised(images), digits)
    monkeypatch.setattr(task, "_test_images", lambda: few)
    ours, theirs = tmp_path / "flower.jsonl", tmp_path / "websockets.jsonl"
    run({"rounds": 3, "batches": 10, "batch-size": 32, "evaluate-clients": True}, history=ours)
    asyncio.run(websocket_run(3, theirs))
    compared = [
        [
            (each["round"], each["accuracies"], each["test_losses"])
            for each in read_history(path)
            if "accuracies" in each
        ]
        for path in (ours, theirs)
    ]
    assert compared[0] == compared[1]
    assert [number for number, *_ in compared[0]] == [1, 3]
    losses = [[each["losses"] for each in read_history(path)] for path in (ours, theirs)]
    assert losses[0] == losses[1]


def test_a_client_reads_the_images_that_torchvision_would():
    from run_websocket_server import load_mnist

    mnist = load_mnist(training=True)
    images, digits = task.mnist(train=True)
    assert torch.equal(images, mnist.data) and torch.equal(digits, mnist.targets)
    expected = [mnist[index][0] for index in range(100)]
    assert torch.equal(task.normalised(images[:100]), torch.stack(expected))


def test_making_the_model_leaves_the_programs_generator_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    model, generator = task.first_model(1)
    task.model_with(dict(model.state_dict()))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(model.parameters(), rwc.Net().parameters(), strict=True)
    )
    assert torch.equal(torch.get_rng_state(), generator.get_state())


# --- clients ---


@pytest.mark.usefixtures("unevaluated")
def test_the_same_seed_draws_the_same_clients_whatever_their_nodes():
    config = {"clients": 10, "split": "iid", "fraction": 0.3, "rounds": 4}
    one, same, other = (run({**config, "seed": seed})[0].asked for seed in (1, 1, 2))
    assert one == same != other
    assert all(len(drawn) == 3 and drawn == sorted(drawn) for drawn in one)
    assert len({number for drawn in one for number in drawn}) > 3


@pytest.mark.usefixtures("unevaluated")
def test_a_client_that_fails_is_named_and_the_run_goes_on(tmp_path, monkeypatch):
    fit = task.train

    def failing(name: str, *args: Any) -> Any:
        if name == "bob":
            raise ValueError("no more memory")
        return fit(name, *args)

    monkeypatch.setattr(task, "train", failing)
    run({"rounds": 2}, history=tmp_path / "run.jsonl")
    for each in read_history(tmp_path / "run.jsonl"):
        assert each["workers"] == ["alice", "charlie"]
        assert list(each["failures"]) == ["bob"]
        assert "ValueError" in each["failures"]["bob"] and "no more" in each["failures"]["bob"]


def other_shape(name: str, reply: Message) -> Message:
    reply.content["arrays"]["fc2.bias"] = Array(np.zeros((1, 10), dtype=np.float32))
    return reply


def other_names(name: str, reply: Message) -> Message:
    reply.content["arrays"] = ArrayRecord(dict(torch.nn.Linear(2, 2).state_dict()))
    return reply


def other_dtype(name: str, reply: Message) -> Message:
    reply.content["arrays"]["fc2.bias"] = Array(np.zeros(10))
    return reply


def not_finite(name: str, reply: Message) -> Message:
    reply.content["arrays"]["fc2.bias"] = Array(np.full(10, np.nan, dtype=np.float32))
    return reply


def without_samples(name: str, reply: Message) -> Message:
    reply.content["metrics"]["num-examples"] = 0
    return reply


def without_arrays(name: str, reply: Message) -> Message:
    del reply.content["arrays"]
    return reply


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_shape, r"parameter 'fc2.bias': \(1, 10\) torch.float32; expected \(10,\)"),
        (other_names, "the names of a model's tensors: .*expected .*'conv1.bias'"),
        (other_dtype, r"parameter 'fc2.bias': \(10,\) torch.float64; expected \(10,\) torch.fl"),
        (not_finite, "parameter 'fc2.bias': 10 values that are not finite"),
        (without_samples, "num-examples: 0.0; expected a count of at least 1"),
        (without_arrays, "InvalidReply: KeyError"),
        (lambda name, reply: None, "^timeout after 600 s$"),
    ],
)
@pytest.mark.usefixtures("unevaluated")
def test_a_reply_that_is_no_such_model_is_that_clients_failure(change, reason, tmp_path):
    def only_charlie(name: str, reply: Message) -> Message | None:
        return change(name, reply) if name == "charlie" else reply

    _, model = run({}, only_charlie, tmp_path / "run.jsonl")
    (each,) = read_history(tmp_path / "run.jsonl")
    assert each["workers"] == ["alice", "bob"] and list(each["failures"]) == ["charlie"]

    assert re.search(reason, each["failures"]["charlie"]), each["failures"]
    assert all(np.isfinite(each).all() for each in parameters(model))


@pytest.mark.usefixtures("unevaluated")
def test_a_round_with_too_few_models_ends_the_run_and_says_why():
    with pytest.raises(QuorumNotReached, match=r"received 1 model; the round needs 2.*charlie: t"):
        run({"min-models": 2}, lambda name, reply: reply if name == "alice" else None)


@pytest.mark.usefixtures("unevaluated")
def test_clients_that_are_not_there_are_waited_for_with_a_limit(monkeypatch):
    monkeypatch.setattr(strategy, "POLL_SECONDS", 0.001)
    settings = Settings(clients=3, wait_seconds=0.01, rounds=1, batches=1)
    config = {"wait-seconds": 0.01, "batches": 1}
    grid = LocalGrid(client_app.app, 3, NAMES, config)
    grid.nodes.popitem()
    server_app.run(grid, settings)
    assert grid.asked == [[0, 1]]
    grid.nodes.clear()
    with pytest.raises(QuorumNotReached, match=r"others: not connected within 0.01 s"):
        server_app.run(grid, settings)


@pytest.mark.usefixtures("unevaluated")
def test_a_client_that_leaves_is_a_failure_and_takes_part_again_on_another_node(tmp_path):
    settings = Settings(rounds=3, batches=1)
    grid = LocalGrid(client_app.app, 3, NAMES, {"batches": 1})
    away: dict[int, Any] = {}

    def leave(name: str, reply: Message) -> Message:
        if name == "alice" and len(grid.asked) == 1:  # after the first round bob is away
            node = next(node for node, each in grid.nodes.items() if each["name"] == "bob")
            away[node + 1] = grid.nodes.pop(node)
        elif name == "alice" and len(grid.asked) == 2:
            grid.nodes.update(away)
        return reply

    grid._change = leave
    with History(tmp_path / "run.jsonl") as history:
        server_app.run(grid, settings, history)
    assert grid.asked == [[0, 1, 2], [0, 2], [0, 1, 2]]
    failures = [each["failures"] for each in read_history(tmp_path / "run.jsonl")]
    assert failures == [{}, {"bob": "not connected"}, {}]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"partition-id": 2, "num-partitions": 4}, "bob is number 2 of 4; the run has 3 clients"),
        ({"partition-id": 0}, "bob, number 0, is connected as alice, number 0, already; give"),
        ({"name": "alice"}, "alice, number 1, is connected as alice, number 0, already; give"),
        ({"partition-id": "x"}, "<class 'ValueError'>"),
    ],
)
@pytest.mark.usefixtures("unevaluated")
def test_a_node_that_cannot_be_a_client_of_the_run_is_left_out_and_named(
    config, reason, monkeypatch
):
    told: list[str] = []
    monkeypatch.setattr(
        strategy.logger, "warning", lambda text, *arguments: told.append(text % arguments)
    )
    monkeypatch.setattr(strategy, "POLL_SECONDS", 0.001)
    settings = {"batches": 1, "wait-seconds": 0.01, "rounds": 2}
    grid = LocalGrid(client_app.app, 3, NAMES, settings)
    alice, bob, charlie = grid.nodes.values()
    grid.nodes = {1: alice, 2: bob | config, 3: charlie}
    server_app.run(grid, Settings.of(settings))
    assert grid.asked == [[0, 2], [0, 2]]
    (line,) = [text for text in told if text.startswith("A node is left out")]
    assert reason in line


# --- strategies ---


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.usefixtures("unevaluated")
def test_each_of_flowers_strategies_makes_a_model_like_the_one_before(name):
    arguments = "proximal_mu=0.1" if name == "FedProx" else ""
    _, model = run({"strategy": name, "strategy-arguments": arguments, "rounds": 2})
    first, _ = task.first_model(1)
    for ours, theirs in zip(parameters(model), parameters(first), strict=True):
        assert ours.dtype == np.float32 and np.isfinite(ours).all()
        assert not np.array_equal(ours, theirs)


@pytest.mark.usefixtures("unevaluated")
def test_flowers_momentum_is_that_of_the_server_optimizer():
    momentum = {"strategy": "FedAvgM", "strategy-arguments": "server_momentum=0.7"}
    _, theirs = run({**momentum, "rounds": 2})
    model, generator = task.first_model(1)
    optimizer, settings = ServerOptimizer("SGD", {"lr": 1.0, "momentum": 0.7}), Settings()
    settings = dataclasses.replace(settings, batches=1, batch_size=8)
    for lr in (0.1, 0.098):
        models = {}
        for number, name in enumerate(NAMES):
            seed = int(torch.randint(2**62, (), generator=generator))
            state = {key: value.clone() for key, value in model.state_dict().items()}
            part = task.part_of(Settings(batches=1, batch_size=8), number, 3)
            state, _ = task.train(name, part, state, settings, {"lr": lr, "seed": seed})
            models[name] = task.model_with(state)
        model = optimizer.step(model, utils.federated_avg(models))
    for ours, expected in zip(parameters(theirs), parameters(model), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("unevaluated")
def test_clients_may_count_by_their_samples():
    got: dict[str, tuple[float, np.ndarray]] = {}

    def note(name: str, reply: Message) -> Message:
        count = reply.content["metrics"]["num-examples"]
        got[name] = (count, reply.content["arrays"]["fc2.bias"].numpy().astype(np.float64))
        return reply

    _, model = run({"weights": "samples"}, note)
    assert [got[name][0] for name in NAMES] == [24754, 17181, 18065]
    mean = sum(count * bias for count, bias in got.values()) / 60_000
    np.testing.assert_allclose(parameters(model)[-1], mean, rtol=1e-6)


def test_means_are_strategies():
    assert set(MEANS) <= set(STRATEGIES)


# --- settings ---


def test_the_apps_configuration_is_that_of_the_settings():
    path = Path(task.__file__).parent / "pyproject.toml"
    config = tomllib.loads(path.read_text())["tool"]["flwr"]["app"]["config"]
    assert Settings.of(config) == Settings()
    assert len(config) == len(dataclasses.fields(Settings))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"strategy": "FedFoo"}, "strategy is 'FedFoo'; expected one of FedAvg, FedAvgM, FedProx"),
        ({"round": 3}, "no setting is called 'round'; expected rounds, clients, split"),
        ({"rounds": "3"}, "rounds is '3'; expected a value of type int"),
        ({"rounds": 0}, "rounds is 0; expected an integer of at least 1"),
        ({"fraction": 1.5}, "fraction is 1.5; expected a number above 0, at most 1"),
        ({"min-models": 4}, "min-models is 4; expected at most 3, the clients that train in a"),
        ({"weights": "size"}, "weights is 'size'; expected one of equal, samples"),
        ({"lr": float("nan")}, "lr is nan; expected a number above 0"),
        ({"strategy-arguments": "eta"}, "strategy-arguments is 'eta'; expected NAME=NUMBER"),
    ],
)
def test_settings_that_are_not_possible_are_refused_in_one_line(config, reason):
    with pytest.raises(SettingsError) as refused:
        Settings.of(config)
    assert str(refused.value).startswith(reason) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"split": "even"}, "split is 'even'; expected digits, iid, shards:N, or dirichlet:ALPHA"),
        ({"split": "dirichlet:x"}, "split is 'dirichlet:x'; expected digits, iid, shards:N, or"),
        ({"split": "shards:0"}, "split is 'shards:0'; expected digits, iid, shards:N, or dirich"),
        ({"split": "iid", "clients": 60_001}, "clients is 60001; expected at most 60,000 with"),
        ({"split": "shards:2", "clients": 30_001}, "clients is 30001; expected at most 30,000"),
        ({"clients": 11}, "clients is 11; expected at most 10 with 'digits' and 60,000 training"),
        ({"split": "dirichlet:0.00001", "clients": 30}, "cannot split: in 1,000 draws with alpha"),
    ],
)
def test_a_split_that_is_not_possible_is_refused_in_one_line(config, reason, monkeypatch):
    few = task.mnist(train=False)
    monkeypatch.setattr(task, "mnist", lambda train: few)  # which makes 1,000 draws quick
    with pytest.raises(SettingsError) as refused:
        task.check_split(Settings.of(config))
    assert str(refused.value).startswith(reason) and "\n" not in str(refused.value)


def test_the_tutorials_clients_have_their_names():
    assert [Settings().name_of(number) for number in range(3)] == NAMES
    assert Settings(split="iid").name_of(2) == "client-2"


def test_an_argument_that_a_strategy_does_not_take_is_refused_in_one_line():
    with pytest.raises(SettingsError) as refused:
        run({"strategy": "FedAvgM", "strategy-arguments": "momentum=0.7"})
    assert str(refused.value) == (
        "FedAvgM has no argument 'momentum'; expected: server_learning_rate, server_momentum "
        "(strategy-arguments)."
    )
