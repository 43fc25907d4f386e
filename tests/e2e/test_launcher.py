"""The launcher with its four real workers: what it prints, its exit status, and that it leaves
nothing behind."""

import os
import re
import signal
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

import start_websocket_servers
from tests.e2e.programs import free_ports, is_free, run, running, write_namesakes

LAUNCHER = "start_websocket_servers.py"
READY = "Ctrl-C stops the workers."
LAST_WORKER = "10,000 samples"
SAMPLES = {
    "alice": ("digits 0-3", "24,754 samples"),
    "bob": ("digits 4-6", "17,181 samples"),
    "charlie": ("digits 7-9", "18,065 samples"),
    "testing": ("digits 0-9", "10,000 samples"),
}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals to process groups")


def on(ports: list[int], *more: str) -> list[str]:
    """The arguments of the launcher for these ports."""
    return ["--ports", *map(str, ports), *more]


def command(*statements: str) -> list[str]:
    """Arguments that have the launcher run some Python while the workers serve."""
    return [
        "--",
        sys.executable,
        "-c",
        "; ".join(["import os, signal, sys", "print('running', flush=True)", *statements]),
    ]


def assert_nothing_left(program, ports: list[int]) -> None:
    assert program.left_behind() == []
    assert [port for port in ports if not is_free(port)] == []


def assert_shows_the_workers(lines: list[str], ports: list[int]) -> None:
    assert len(lines) == len(SAMPLES)
    for line, (worker, (digits, samples)), port in zip(lines, SAMPLES.items(), ports, strict=True):
        assert re.split(r"\s{2,}", line.strip()) == [
            worker,
            f"ws://localhost:{port}",
            digits,
            samples,
        ]


def test_the_workers_may_have_other_names_and_share_all_images_in_another_way(tmp_path):
    names, ports = ("anna", "ben", "carla", "dan", "eve"), free_ports(6)
    arguments = ["--names", *names, "--split", "dirichlet:0.3", "--split_seed", "5"]
    with running(LAUNCHER, *on(ports, *arguments), folder=tmp_path) as program:
        *lines, _, hint = program.read_until("Now run, in another terminal")
        assert [line.split()[0] for line in lines] == [*names, "testing"]
        samples = [int(line.split()[-2].replace(",", "")) for line in lines]
        assert sum(samples[:-1]) == 60_000 and samples[-1] == 10_000
        _, _, addresses = hint.partition(" --workers ")
        status, _, log = run(
            "run_websocket_client.py",
            "--training_rounds",
            "1",
            "--verbose",
            "--workers",
            *addresses.split(),
            folder=tmp_path,
        )
        assert status == 0
        for name in names:
            assert f"Model update {name}: Average loss: " in log
        program.signal(signal.SIGTERM)
        assert program.finish()[0] == 0
        assert_nothing_left(program, ports)


def test_a_split_that_is_not_possible_is_one_line(tmp_path):
    ports = free_ports(12)
    names = [f"w{number}" for number in range(11)]
    arguments = on(ports, "--names", *names, "--split", "labels")
    status, _, err = run(LAUNCHER, *arguments, folder=tmp_path)
    assert status == 1 and "Traceback" not in err
    assert "cannot split by label: there are 10 labels; expected at least one for each of 11" in err


def test_a_command_that_is_killed_gives_the_exit_status(tmp_path):
    ports = free_ports()
    killed = command("sys.stdin.read()", "os.kill(os.getpid(), signal.SIGKILL)")
    with running(LAUNCHER, *on(ports, *killed), folder=tmp_path) as program:
        first, *lines = program.read_until(LAST_WORKER)
        assert first == "running"
        assert_shows_the_workers(lines, ports)
        assert program.finish() == (128 + signal.SIGKILL, "", "")
        assert_nothing_left(program, ports)
    assert list(tmp_path.glob("websocket-workers-*")) == []


def test_a_command_may_end_before_the_workers_are_ready(tmp_path):
    ports = free_ports()
    with running(LAUNCHER, *on(ports, *command("sys.exit(3)")), folder=tmp_path) as program:
        program.read_until("running")
        assert program.finish() == (3, "", "")
        assert_nothing_left(program, ports)


def test_a_command_that_does_not_exist_is_named(tmp_path):
    ports = free_ports()
    status, out, err = run(LAUNCHER, *on(ports, "--", "no-such-command"), folder=tmp_path)
    assert (status, out, err) == (
        127,
        "",
        "error: cannot run 'no-such-command': No such file or directory\n",
    )
    assert all(map(is_free, ports))


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_the_launcher_uses_its_own_files_where_others_have_their_names(tmp_path, method):
    """In the current directory and on PYTHONPATH."""
    ports, others, settings = free_ports(), tmp_path / "others", tmp_path / "settings"
    write_namesakes(others)
    settings.mkdir()
    choice = f"import multiprocessing; multiprocessing.get_all_start_methods = lambda: [{method!r}]"
    (settings / "sitecustomize.py").write_text(choice)
    environment = {"PYTHONPATH": os.pathsep.join(map(str, (settings, others)))}
    waiting = command("sys.stdin.read()")
    with running(
        LAUNCHER, *on(ports, *waiting), folder=tmp_path, cwd=others, environment=environment
    ) as program:
        program.read_until(LAST_WORKER)
        assert program.finish() == (0, "", "")
        assert_nothing_left(program, ports)


@pytest.mark.parametrize(
    ("number", "group", "status"),
    [
        (signal.SIGINT, True, 0),
        (signal.SIGTERM, False, 0),
        (signal.SIGKILL, False, -signal.SIGKILL),
    ],
    ids=["Ctrl-C", "SIGTERM", "SIGKILL"],
)
def test_a_signal_while_serving_ends_all_workers(tmp_path, number, group, status):
    ports = free_ports()
    with running(LAUNCHER, *on(ports), folder=tmp_path) as program:
        lines = program.read_until(READY)
        assert_shows_the_workers(lines[:4], ports)
        addresses = " ".join(
            f"{id}=localhost:{port}" for id, port in zip(SAMPLES, ports, strict=True)
        )
        typed = f"python run_websocket_client.py --workers {addresses}"
        assert lines[5] == f"Now run, in another terminal: {typed}"
        program.signal(number, group)
        assert program.finish() == (status, "" if status else "stopping the workers\n", "")
        assert_nothing_left(program, ports)


def test_an_interrupt_while_a_command_runs_is_the_commands_affair(tmp_path):
    """Ctrl-C reaches the command; what it does then is its own affair, and the launcher waits for
    it."""
    ports = free_ports()
    answer = "signal.signal(signal.SIGINT, lambda *_: os._exit(7))"
    with running(
        LAUNCHER, *on(ports, *command(answer, "print('set')", "signal.pause()")), folder=tmp_path
    ) as program:
        program.read_until(LAST_WORKER)
        program.signal(signal.SIGINT, group=True)
        assert program.finish() == (7, "", "")
        assert_nothing_left(program, ports)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize(
    ("more", "status"), [([], 0), (["--", "sleep", "1000"], 130)], ids=["", "with a command"]
)
@pytest.mark.parametrize(
    ("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_signal_while_starting_leaves_nothing_behind(tmp_path, more, status, number, group):
    """No traceback of a half-imported module, and nothing left; nor does the launcher leave before
    the fork server."""
    ports = free_ports()
    with running(LAUNCHER, *on(ports, *more), folder=tmp_path) as program:
        program.wait_until_a_child_maps("numpy")
        program.signal(number, group)
        program.wait()
        assert program.maps("numpy") == []  # it would go on importing torch for seconds
        assert program.finish() == (status, "stopping the workers\n", "")
        assert_nothing_left(program, ports)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a command is not told")
@pytest.mark.parametrize("moment", ["starting", "serving"])
def test_a_command_does_not_outlive_a_launcher_that_is_killed(tmp_path, moment):
    ports = free_ports()
    with running(LAUNCHER, *on(ports, *command("signal.pause()")), folder=tmp_path) as program:
        program.read_until("running" if moment == "starting" else LAST_WORKER)
        program.signal(signal.SIGKILL)
        program.wait()
        assert_nothing_left(program, ports)


@pytest.mark.parametrize("more", [[], command()], ids=["", "with a command"])
def test_a_port_in_use_is_named_and_the_command_does_not_begin(tmp_path, more):
    """The command does not begin: it would take what listens there for the worker."""
    ports = free_ports()
    with socket.create_server(("127.0.0.1", ports[1])):
        status, out, err = run(LAUNCHER, *on(ports, *more), folder=tmp_path)
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        f"error: worker 'bob' cannot listen at localhost:{ports[1]}: address already in use. "
        "Stop what listens there (an earlier launcher?), or choose --ports."
    ]
    assert list(tmp_path.glob("websocket-workers-*")) == []
    assert all(map(is_free, ports))


@pytest.mark.skipif(
    sys.platform != "linux", reason="the address is one of this machine on Linux only"
)
def test_a_worker_that_cannot_start_ends_the_command(tmp_path):
    ports = free_ports()
    more = command("signal.signal(signal.SIGTERM, lambda *_: os._exit(0))", "signal.pause()")
    with running(
        LAUNCHER, "--host", "192.0.2.1", "--insecure", *on(ports, *more), folder=tmp_path
    ) as program:
        program.read_until("running")
        status, out, err = program.finish()
        assert (status, out) == (1, "")
        assert_nothing_left(program, ports)
    first, *log = err.splitlines()
    assert (
        first.startswith("error: worker ") and f"exited with status 1; its log: {tmp_path}" in first
    )
    assert any("cannot listen" in line for line in log)
    assert "Traceback" not in err


def test_a_worker_that_is_killed_ends_the_others_which_share_one_import_of_torch(tmp_path):
    """The fork server has imported torch, so the four processes forked from it need not; in any
    current directory."""
    ports = free_ports()
    with running(LAUNCHER, *on(ports), folder=tmp_path, cwd=tmp_path) as program:
        program.read_until(READY)
        if sys.platform == "linux":
            assert len(program.maps("libtorch")) == 1 + len(SAMPLES)
        program.child_that_listens(ports[2]).kill()
        status, out, err = program.finish()
        assert (status, out) == (1, "")
        assert err.startswith(
            f"error: worker 'charlie' (ws://localhost:{ports[2]}) was killed by SIGKILL; its log: "
        )
        assert_nothing_left(program, ports)
    log = re.search(r"its log: (\S+)", err)
    assert log is not None and "number of true indices: 18065" in Path(log[1]).read_text()


def test_a_worker_that_is_killed_comes_back_where_that_is_asked_for(tmp_path):
    ports = free_ports()
    waiting = command("sys.stdin.read()")
    with running(LAUNCHER, "--keep_going", *on(ports, *waiting), folder=tmp_path) as program:
        *_, shown = program.read_until("processes: ")
        bob = program.child_that_listens(ports[1])
        assert f"bob {bob.pid}" in shown
        bob.kill()
        _, ended, back, again = program.read_until("processes: bob ")
        assert ended.startswith(f"worker 'bob' (ws://localhost:{ports[1]}) was killed by SIGKILL; ")
        assert ended.endswith("; starting it again")
        assert back.startswith("bob ") and back.endswith("17,181 samples  (again)")
        assert again == f"processes: bob {program.child_that_listens(ports[1]).pid}"
        assert program.finish() == (0, "", "")
        assert_nothing_left(program, ports)


def test_a_worker_that_is_started_again_has_the_same_part_of_the_images(tmp_path):
    given = ["--names", "ann", "ben", "--split", "iid", "--split_seed", "5", "--keep_going"]
    args = start_websocket_servers.define_and_get_arguments([*given, "--epsilon", "3"])
    context = SimpleNamespace(Pipe=lambda: (Mock(), Mock()), Process=Mock())
    worker = start_websocket_servers.start_worker(context, args, "ben", 1, tmp_path / "log")
    worker.again()
    first, again = (call.kwargs["args"][-1] for call in context.Process.call_args_list)
    assert first == again
    assert first["split"] == ("iid", 2, 2, 5) and first["policy"]["privacy"]["epsilon"] == 3


@pytest.mark.parametrize("more", [[], ["--threads", "3"]])
def test_the_workers_share_the_cores_and_the_evaluator_has_one_thread_a_batch(monkeypatch, more):
    monkeypatch.setattr(start_websocket_servers, "_cores", lambda: 9)
    given = ["--names", "a", "b", "c", "d", "--split", "iid", "--epsilon", "3"]
    args = start_websocket_servers.define_and_get_arguments([*given, *more])
    trainer, evaluator = (start_websocket_servers.options_of(args, id) for id in ("d", "testing"))
    assert (trainer["threads"], evaluator["threads"]) == ((3, 3) if more else (2, 1))
    assert "split" not in evaluator and "privacy" not in evaluator["policy"]


@pytest.mark.parametrize(
    ("args", "more"),
    [
        ([], ""),
        (
            ["--names", "ann", "bob", "--split", "iid"],
            " --workers ann=localhost:8777 bob=localhost:8778 testing=localhost:8779",
        ),
        (["--token_file", "my token"], " --token_file 'my token'"),
        (
            [
                "--cert_file",
                "a.pem",
                "--key_file",
                "a.pem",
                "--client_ca_file",
                "a.pem",
            ],
            " --ca_file FILE --cert_file FILE --key_file FILE",
        ),
        (
            ["--host", "127.0.0.1"],
            " --workers alice=127.0.0.1:8777 bob=127.0.0.1:8778 charlie=127.0.0.1:8779 "
            "testing=127.0.0.1:8780",
        ),
    ],
)
def test_the_command_to_type_is_the_one_that_reaches_the_workers(tmp_path, monkeypatch, args, more):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYFT_TOKEN", "")
    (tmp_path / "my token").write_text("secret")
    (tmp_path / "a.pem").touch()
    arguments = start_websocket_servers.define_and_get_arguments(args)
    typed = start_websocket_servers.command_to_type(arguments)
    assert typed == f"python run_websocket_client.py{more}"
    # The notebooks look for the tutorial's workers, without TLS.
    assert bool(start_websocket_servers.notebooks_to_open(arguments)) == (not more)


@pytest.mark.parametrize(
    ("args", "notebooks"),
    [
        ([], "federated_training.ipynb or, with --remote_operations here, federated_dataloader"),
        (["--remote_operations"], "federated_training.ipynb or federated_dataloader"),
    ],
)
def test_the_launcher_names_the_notebooks_that_train_on_its_workers(args, notebooks):
    arguments = start_websocket_servers.define_and_get_arguments(args)
    told = start_websocket_servers.notebooks_to_open(arguments)
    assert told == f"or open {notebooks}.ipynb. "


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (
            ["--ports", "1", "2", "3"],
            "argument --ports: 3 numbers; expected one for each of alice, bob, charlie, testing",
        ),
        (
            ["--names", "a", "b"],
            "--names needs --split: how the training images are split among them",
        ),
        (
            ["--split", "iid", "--names", "a", "testing"],
            "argument --names: a, testing, testing are not all different",
        ),
        (
            ["--split", "iid", "--names", "bob", "alice"],
            "argument --names: run_websocket_client.py would look for charlie too, as in the "
            "tutorial; expected another name among them",
        ),
        (["--ports", "1", "2", "3", "x"], "argument --ports: invalid int value: 'x'"),
        (
            ["--ports", "1", "2", "3", "65536"],
            "argument --ports: 65536 is no port; expected numbers from 1 to 65535",
        ),
        (["--ports", "5", "6", "7", "7"], "argument --ports: [5, 6, 7, 7] are not all different"),
        (["--nothing"], "unrecognized arguments: --nothing"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_status_2(tmp_path, args, complaint):
    status, out, err = run(LAUNCHER, *args, folder=tmp_path)
    assert (status, out) == (2, "")
    assert err == f"{LAUNCHER}: error: {complaint}; see --help\n"


def test_the_help_names_the_command_and_no_option_for_a_token(tmp_path):
    status, out, err = run(LAUNCHER, "--help", folder=tmp_path)
    assert (status, err) == (0, "")
    assert "-- python run_websocket_client.py" in out and "--token " not in out


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--host", "0.0.0.0"], "say --insecure"),
        (["--host", "192.0.2.11"], "say --insecure"),
        (["--token_file", "nowhere"], "No such file"),
        (["--token_file", os.devnull], "is empty"),
        (["--cert_file", "README.md"], "needs both --cert_file and --key_file"),
        (["--cert_file", "nowhere", "--key_file", "nowhere"], "cannot read nowhere"),
        (
            ["--allow_origins", "http://localhost:3000/"],
            "'http://localhost:3000/' is no origin; expected http://",
        ),
        (["--client_ca_file", "README.md"], "give --cert_file and --key_file too"),
    ],
)
def test_a_mistake_in_what_concerns_access_is_one_line_that_tells_the_fix(
    tmp_path, arguments, text
):
    status, _, err = run(LAUNCHER, *arguments, folder=tmp_path, environment={"SYFT_TOKEN": ""})
    assert status == 2 and text in err.splitlines()[-1]
