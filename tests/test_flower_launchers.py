"""The launchers of Flower's engines: options, Ray's slow start, and what they tell at the end.

tests/engine/ runs them.
"""

import json
import sys
import types

import pytest

import deployment
import engine
import simulate
from settings import Settings


def test_the_simulation_is_a_tenth_of_100_clients_for_ten_rounds():
    _, settings = simulate.define_and_get_arguments([])
    assert (settings.clients, settings.sampled, settings.rounds) == (100, 10, 10)
    assert (settings.split, settings.evaluate_every) == ("dirichlet:0.3", 1)


def test_further_settings_have_the_types_of_their_values():
    options = ["--set", "lr=0.05", "batches=20", "weights=samples", "evaluate-clients=true"]
    for launcher in (simulate, deployment):
        _, settings = launcher.define_and_get_arguments(options)
        assert (settings.lr, settings.batches, settings.weights) == (0.05, 20, "samples")
        assert settings.evaluate_clients is True


@pytest.mark.parametrize(
    ("launcher", "options", "reason"),
    [
        (simulate, ["--strategy", "FedFoo"], "strategy is 'FedFoo'; expected one of FedAvg, "),
        (simulate, ["--clients", "70000"], "clients is 70000; expected at most 60,000 with"),
        (simulate, ["--fraction", "2"], "fraction is 2.0; expected a number above 0, at most 1"),
        (simulate, ["--set", "speed=9"], "no setting is called 'speed'; expected rounds, "),
        (deployment, ["--superlink", "here"], "'here'; expected HOST:PORT, e.g. 192.0.2.11:8000"),
        (deployment, ["--ca_file", "ca.pem"], "--ca_file is for --superlink; a SuperLink that is"),
        (deployment, ["--superlink", "a:1", "--ca_file", "no.pem"], "cannot read no.pem"),
    ],
)
def test_options_that_are_not_possible_are_one_line(launcher, options, reason, capsys):
    with pytest.raises(SystemExit) as left:
        launcher.define_and_get_arguments(options)
    printed = capsys.readouterr().err
    assert left.value.code == 2 and reason in printed and printed.count("\n") == 1


def test_an_engine_that_is_not_installed_is_one_line(capsys):
    if sys.version_info < (3, 11):
        pytest.skip("another line comes first")
    assert engine.main_of(lambda: 0, "json", "no_such_engine") == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: no_such_engine cannot be imported. Install what Flower's")
    assert printed.count("\n") == 1


def test_a_python_that_is_too_old_is_one_line(capsys, monkeypatch):
    old = types.SimpleNamespace(major=3, minor=10)
    monkeypatch.setattr(engine.sys, "version_info", old)
    assert engine.main_of(lambda: 0) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: Flower needs Python 3.11 or later; this is 3.10. Name")


@pytest.mark.parametrize(("gigabytes", "actors"), [(64.0, 8), (4.5, 3), (0.5, 1)])
def test_actors_fit_into_cores_and_memory(gigabytes, actors, monkeypatch):
    memory = types.SimpleNamespace(available=int(gigabytes * 2**30))
    monkeypatch.setattr(simulate.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(simulate.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert simulate.fitting_actors(Settings(clients=100, split="iid")) == actors
    assert simulate.fitting_actors(Settings(clients=2)) <= 2


class SlowRay(types.ModuleType):
    """A Ray that starts at some attempt."""

    def __init__(self, succeeds_at: int) -> None:
        super().__init__("ray")
        self.attempts, self.running, self.succeeds_at = 0, False, succeeds_at

    def init(self, **_: object) -> None:
        self.attempts += 1
        if self.attempts < self.succeeds_at:
            raise RuntimeError("The current node timed out during startup.\nMore of it")
        self.running = True

    def shutdown(self) -> None:
        self.running = False

    def get_runtime_context(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(gcs_address="127.0.0.1:6379")


def test_ray_that_starts_slowly_is_waited_for_with_a_message(tmp_path, monkeypatch, capsys):
    ray = SlowRay(succeeds_at=3)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(simulate.os, "environ", {})
    environment: dict[str, str] = {}
    with simulate.ray_cluster(tmp_path, 2, environment):
        assert ray.running and environment["RAY_ADDRESS"] == "127.0.0.1:6379"
    assert not ray.running
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("starting Ray (1 of 5 attempts)")
    assert printed[1] == (
        "Ray did not start within 0 s: The current node timed out during startup."
    )
    assert len(printed) == 5


def test_ray_that_does_not_start_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SlowRay(succeeds_at=99))
    monkeypatch.setattr(simulate.os, "environ", {})
    with (
        pytest.raises(engine.EngineError, match=r"^Ray did not start in 5 attempts\. Wait until"),
        simulate.ray_cluster(tmp_path, 2, {}),
    ):
        pass


def test_a_run_ends_with_a_table_and_a_curve(tmp_path, capsys):
    lines = [
        {
            "round": number,
            "workers": ["a", "b"],
            "failures": {"c": "timeout"},
            "whole_seconds": 2.0 + number,
            "accuracies": {"federated": 0.25 * number},
        }
        for number in (1, 2, 3)
    ]
    (tmp_path / "run.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert engine.finish(tmp_path, Settings(rounds=3), engine.Memory()) == 0
    printed = capsys.readouterr().out
    assert "    2       2         1   50.00 %       4.0" in printed.splitlines()
    assert "the first round took 3.0 s, a later one 4.5 s (median)" in printed
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(engine.EngineError, match="the run ended after 3 of 4 rounds; see"):
        engine.finish(tmp_path, Settings(rounds=4), engine.Memory())


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            ["Using here", "╭─ Error ─╮", "│ It is not  │", "│ there.  │", "╰──╯"],
            "It is not there.",
        ),
        (["Starting", "Exit Code: 305", "No link.", "Code 7.", "", "Finished"], "No link. Code 7."),
        (["Starting", "the last word", ""], "the last word"),
        ([], "none"),
    ],
)
def test_the_reason_of_a_failure_is_found_in_what_flower_says(lines, reason):
    assert engine._reason(lines) == reason
