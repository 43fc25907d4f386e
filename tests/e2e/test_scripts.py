"""One worker and the coordinator as processes of their own: what they say of wrong arguments,
ports, absent workers."""

import re
import signal
import socket
import sys

import pytest
import torch

import run_websocket_client
import run_websocket_server
import syft as sy
from syft.federated.splits import split
from tests.e2e.programs import free_ports, is_free, run, running, write_namesakes
from tests.models import blobs

SERVER, CLIENT = "run_websocket_server.py", "run_websocket_client.py"
TRAINING_IMAGES = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
"""Images of each digit in MNIST's training set; http://yann.lecun.com/exdb/mnist/."""
TEST_IMAGES = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize(
    ("args", "key", "counts"),
    [
        (["--id", "charlie"], "mnist", [0] * 7 + TRAINING_IMAGES[7:]),
        (["--id", "testing", "--testing"], "mnist_testing", TEST_IMAGES),
    ],
    ids=["charlie", "testing"],
)
def test_a_worker_starts_in_any_directory_serves_and_ends_on_sigterm(tmp_path, args, key, counts):
    """It also logs what it holds."""
    (port,) = free_ports(1)
    with running(
        SERVER, *args, "--port", str(port), folder=tmp_path, cwd=tmp_path, merge=True
    ) as program:
        log = program.read_until(f"serves at ws://localhost:{port}")
        shown = [line.partition(" | ")[2] for line in log]
        for digit, count in enumerate(counts):
            assert f"      {digit}: {count}" in shown
        assert f"len(datasets[{key}]): {sum(counts)}" in shown
        if key == "mnist":
            assert f"number of true indices: {sum(counts)}" in shown
            assert f"after selection: torch.Size([{sum(counts)}, 28, 28])" in shown

        proxy = sy.WebsocketClientWorker(None, "localhost", port, id=args[1], timeout=30)
        assert proxy.call("label_counts", key).tolist() == counts
        proxy.close()
        program.signal(signal.SIGTERM)
        status, out, _ = program.finish()
    assert (status, "Traceback" in out) == (0, False)
    assert is_free(port)


@pytest.mark.parametrize("script", [SERVER, CLIENT, "start_websocket_servers.py"])
def test_help_tells_the_default_of_every_option_also_where_other_files_have_the_scripts_names(
    tmp_path, script
):
    write_namesakes(tmp_path)
    environment = {"PYTHONPATH": str(tmp_path), "COLUMNS": "1000"}
    status, out, err = run(script, "--help", folder=tmp_path, cwd=tmp_path, environment=environment)
    assert (status, err) == (0, "")
    assert "--token_file" in out
    _, *options = re.split(r"\n  (?=-\w|--\w)", out)
    without = [option.split()[0] for option in options if "(default: " not in option]
    assert without == ["-h,", *(["--id", "--port"] if script == SERVER else [])]


def test_a_worker_whose_port_is_in_use_says_so(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        status, out, err = run(SERVER, "--id", "charlie", "--port", str(port), folder=tmp_path)
    assert (status, out) == (2, "")
    (error,) = [line for line in err.splitlines() if " | " not in line]
    assert error.startswith(f"error: worker 'charlie' cannot listen at ws://localhost:{port}: ")
    assert "address already in use" in error.lower()


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ([], "the following arguments are required: --id, --port/-p"),
        (["--id", "bob"], "the following arguments are required: --port/-p"),
        (["--id", "bob", "-p", "x"], "argument --port/-p: invalid int value: 'x'"),
        (
            ["--id", "bob", "-p", "70000"],
            "argument --port/-p: 70000 is no port; expected a number from 0 to 65535",
        ),
        (["--id", "bob", "-p", "0", "--split", "iid"], "a split needs both --split and --part"),
        (["--id", "bob", "-p", "0", "--part", "1/2"], "a split needs both --split and --part"),
        (
            ["--id", "bob", "-p", "0", "--split", "dirichlet:0", "--part", "1/2"],
            "argument --split: 'dirichlet:0'; expected labels, iid, shards:N with N of at least "
            "1, or dirichlet:ALPHA with ALPHA from 1e-6 to 1e6",
        ),
        (
            ["--id", "bob", "-p", "0", "--split", "iid", "--part", "3/2"],
            "argument --part: '3/2'; expected K/N, the number of a part and the number of parts: "
            "1/3, 2/3 or 3/3",
        ),
        (
            ["--id", "eve", "-p", "0", "--split", "iid", "--part", "1/2", "--testing"],
            "--split is for training images; --testing holds all test images",
        ),
    ],
)
def test_wrong_arguments_of_a_worker_are_one_line(capsys, args, complaint):
    with pytest.raises(SystemExit) as info:
        run_websocket_server.define_and_get_arguments(args)
    assert info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f": error: {complaint}; see --help")


def test_an_unknown_worker_is_refused(capsys):
    with pytest.raises(SystemExit) as info:
        run_websocket_server.define_and_get_arguments(["--id", "dave", "--port", "1"])
    assert info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ": error: argument --id: invalid choice: 'dave'" in line


@pytest.mark.parametrize(
    "text", ["labels", "iid", "shards:1", "shards:20", "dirichlet:0.000001", "dirichlet:1e6"]
)
def test_the_command_line_knows_the_same_splits_as_the_package(text):
    arguments = ["--id", "eve", "--port", "0", "--split", text, "--part", "2/2"]
    parsed = run_websocket_server.define_and_get_arguments(arguments)
    assert (parsed.split, parsed.part) == (text, (2, 2))
    assert len(split(list(range(10)) * 20, text, 2)) == 2


def test_a_worker_holds_its_part_of_a_split():
    held = []
    for number in (1, 2, 3):
        worker = run_websocket_server.start_websocket_server_worker(
            "eve", "localhost", 0, None, False, block=False, split=("iid", number, 3, 1)
        )
        worker.stop()
        held.append(worker.datasets["mnist"])
    assert [len(each) for each in held] == [20_000] * 3
    counts = sum(torch.bincount(each.targets) for each in held)
    assert counts.tolist() == TRAINING_IMAGES


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ["alice", "bob", "charlie", "testing"]),
        (["testing=h:1", "bob=h:2"], ["alice", "bob", "charlie", "testing"]),
        (["dan=h:1", "alice=h:2"], ["dan", "alice", "testing"]),
        (["testing=h:1", "dan=h:2"], ["dan", "testing"]),
    ],
)
def test_workers_with_names_of_their_own_train_alone(given, expected):
    args = run_websocket_client.define_and_get_arguments(["--workers", *given] if given else [])
    addresses = run_websocket_client.addresses_of(args)
    assert list(addresses) == expected
    for text in given:
        name, _, address = text.partition("=")
        assert "{}:{}".format(*addresses[name]) == address


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize(
    ("script", "args", "library"),
    [(CLIENT, [], "libtorch_python"), (SERVER, ["--id", "bob", "-p", "0"], "numpy")],
)
def test_an_interrupt_while_a_script_imports_shows_no_traceback(tmp_path, script, args, library):
    with running(script, *args, folder=tmp_path) as program:
        program.wait_until_it_maps(library)
        program.signal(signal.SIGINT)
        assert program.finish() == (130, "", "interrupted\n")


def test_a_coordinator_without_workers_tells_for_whom_it_waits_and_then_who_is_not_there(tmp_path):
    ports = dict(zip(("alice", "bob", "charlie", "testing"), free_ports(), strict=True))
    addresses = [f"{name}=localhost:{port}" for name, port in ports.items()]
    status, out, err = run(
        CLIENT, "--connect_timeout", "2", "--workers", *addresses, folder=tmp_path
    )
    assert (status, out) == (1, "")
    waiting, error = err.splitlines()
    asked = ", ".join(f"{name} (ws://localhost:{port})" for name, port in ports.items())
    assert waiting.endswith(f" | Waiting up to 2 s for {asked}")
    absent = ", ".join(f"'{name}' at ws://localhost:{port}" for name, port in ports.items())
    assert error == (
        f"error: no connection within 2 s to {absent}. Start the workers first: python "
        "start_websocket_servers.py"
    )


def test_torchscript_is_taken_only_where_it_is_asked_for():
    arguments = ["--id", "alice", "--port", "1"]
    assert (
        "allow_torchscript" not in run_websocket_server.define_and_get_arguments(arguments).options
    )
    allowing = run_websocket_server.define_and_get_arguments(
        [*arguments, "--allow_torchscript"]
    ).options
    assert sy.WebsocketServerWorker(
        None, "localhost", 0, **pick(allowing)
    )._dispatcher.receiver.allow_torchscript


def test_coordinators_operate_on_tensors_only_where_it_is_asked_for():
    arguments = ["--id", "alice", "--port", "1"]
    for more, allowed in ([], None), (["--remote_operations"], True):
        options = run_websocket_server.define_and_get_arguments([*arguments, *more]).options
        worker = sy.WebsocketServerWorker(None, "localhost", 0, **pick(options))
        assert worker.remote_operations is allowed
        worker.add_dataset(blobs(), "blobs")
        assert worker.allows_remote_operations is (allowed is True)


def pick(options):
    """Leave out the options that are not of the class but of the function that makes a worker."""
    return {name: value for name, value in options.items() if name not in ("policy", "limits")}
