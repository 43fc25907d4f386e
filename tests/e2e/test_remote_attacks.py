"""A worker that carries out operations, and a coordinator that would read, change or break more
than it may. Each attack is told in an error, and others notice nothing."""

import contextlib
import itertools
import os
import random
import secrets
import subprocess
import sys
import warnings
from pathlib import Path

import psutil
import pytest
import torch

import syft as sy
from syft import wire
from syft.exceptions import (
    GetNotPermittedError,
    MalformedMessage,
    MessageTooLarge,
    ObjectNotFoundError,
    OperationsLost,
    RemoteOperationFailed,
    SyftError,
)
from tests.e2e.operated_worker import OFFERED, SECRET
from tests.test_remote_fuzz import Client

ROOT = Path(__file__).parents[2]
DEADLINE = 60
REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "1500"))


class Attacker:
    """A coordinator that makes its operations by hand.

    Args:
        port: the worker's port.
    """

    def __init__(self, port):
        self.proxy = sy.WebsocketClientWorker(
            None, "127.0.0.1", port, id="bob", timeout=DEADLINE, token=""
        )
        self.stream, self.numbers = secrets.randbits(60), itertools.count()

    def send(self, operations, values=(), geometries=(), **others):
        message = {
            "stream": self.stream,
            "number": None,
            "operations": operations,
            "values": list(values),
            "geometries": list(geometries),
            "answer": True,
        } | others
        if message["number"] is None:
            message["number"] = next(self.numbers)
        return self.proxy._exchange("operate", **message)

    def get(self, obj_id):
        return self.send([], [obj_id])["values"][0]["obj"]

    def store(self, obj_id, tensor):
        packed = {"id": obj_id, "obj": tensor, "wrapped": False, "tags": [], "description": None}
        self.send([operation("set", packed, results=[obj_id])])
        return wire.reference(obj_id)


def operation(name, *arguments, results=("r",), gradients=True, seed=None, **keywords):
    return [name, list(results), list(arguments), keywords, 0, gradients, seed]


@pytest.fixture(scope="module")
def worker():
    command, pipe = [sys.executable, "-m", "tests.e2e.operated_worker"], subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    port, secret = process.stdout.readline().split()
    process.port, process.secret = int(port), int(secret)
    yield process
    process.stdin.close()
    assert process.wait(DEADLINE) == 0
    process.stdout.close()


@pytest.fixture
def attacker(worker):
    attacker = Attacker(worker.port)
    yield attacker
    attacker.proxy.clear_objects_remote()
    attacker.proxy.close()


@pytest.fixture
def honest(worker):
    """Another coordinator, which computes as it should before and after the attack."""
    sy.TorchHook(torch)
    proxy = sy.WebsocketClientWorker(None, "127.0.0.1", worker.port, id="bob", token="")
    x = torch.tensor([1.0, 2.0], requires_grad=True).send(proxy)
    (x * x).sum().backward()
    yield x
    assert x.grad.get().tolist() == [2, 4]
    assert proxy.search("#offered")[0].copy().get().tolist() == list(OFFERED)
    proxy.close()


pytestmark = pytest.mark.usefixtures("honest")


def refused(attacker, *operations, match, obj_id="r"):
    """Have operations carried out; the last one leaves this error."""
    attacker.send(list(operations))
    with pytest.raises(RemoteOperationFailed, match=match):
        attacker.get(obj_id)


NOT_ALLOWED = """
aten::as_strided aten::as_strided_ aten::set_ aten::set_.source_Tensor aten::resize_
aten::resize aten::resize_as_ aten::add.out aten::max_pool2d_with_indices_backward
aten::native_batch_norm_backward aten::item aten::_local_scalar_dense aten::equal aten::data
aten::set_data aten::t_ aten::squeeze_ aten::from_file aten::_unsafe_index_put aten::_cudnn_rnn
aten::save aten::to_sparse aten::record_stream aten::_backward aten::_version aten::retain_grad
aten::from_blob aten::_pin_memory aten::random_.nothing prim::Print prim::PythonOp torch::load
syft::anything aten:: aten::add.Nothing add.Tensor __import__
"""


@pytest.mark.parametrize("name", [*NOT_ALLOWED.split(), "", "aten::" + "x" * 5000, "\x1b[31m"])
def test_operators_that_are_not_listed_are_refused(attacker, name):
    x = attacker.store("x", torch.ones(3))
    refused(attacker, operation(name, x), match="OperatorNotAllowed|aten::add")


def offered_id(attacker):
    return attacker.proxy.search("#offered")[0].id_at_location


CHANGES = {
    "in place": lambda own, theirs: [operation("aten::add_.Tensor", theirs, own)],
    "copy": lambda own, theirs: [operation("aten::copy_", theirs, own)],
    "fill": lambda own, theirs: [operation("aten::fill_.Scalar", theirs, 9)],
    "view": lambda own, theirs: [
        operation("aten::view", theirs, [3], results=["v"]),
        operation("aten::zero_", wire.reference("v")),
    ],
    "detached": lambda own, theirs: [
        operation("aten::detach", theirs, results=["v"]),
        operation("aten::mul_.Scalar", wire.reference("v"), 0),
    ],
    "slice of an alias": lambda own, theirs: [
        operation("aten::alias", theirs, results=["a"]),
        operation("aten::slice.Tensor", wire.reference("a"), 0, 0, 2, results=["v"]),
        operation("aten::index_fill_.int_Scalar", wire.reference("v"), 0, torch.tensor([0]), 5.0),
    ],
    "index": lambda own, theirs: [
        operation("aten::index_put_", theirs, [torch.tensor([0])], own),
    ],
    "statistics": lambda own, theirs: [
        operation("aten::ones", [4, 3], results=["i"]),
        operation(
            "aten::native_batch_norm",
            *(wire.reference("i"), None, None, theirs, theirs, True, 0.5, 1e-5),
        ),
    ],
    "noise": lambda own, theirs: [
        operation("aten::rrelu_with_noise", own, theirs, 0.1, 0.3, True),
    ],
    "renormalised": lambda own, theirs: [
        operation("aten::view", theirs, [3, 1], results=["v"]),
        operation("aten::embedding_renorm_", wire.reference("v"), torch.tensor([0]), 0.1, 2.0),
    ],
    "random": lambda own, theirs: [operation("aten::normal_", theirs, 0.0, 1.0, seed=1)],
    "gradient": lambda own, theirs: [
        operation("requires_grad", theirs, True, results=[]),
        operation("set_grad", theirs, own, results=[]),
        operation("grad", theirs, results=["g"]),
        operation("aten::zero_", wire.reference("g")),
    ],
}


@pytest.mark.parametrize("how", CHANGES)
def test_what_the_owner_offers_is_not_changed(attacker, how):
    own = attacker.store("own", torch.ones(3))
    theirs = wire.reference(offered_id(attacker))
    attacker.send(CHANGES[how](own, theirs))
    assert attacker.get(offered_id(attacker)).tolist() == list(OFFERED)


def test_what_the_owner_offers_can_be_computed_with(attacker):
    theirs = wire.reference(offered_id(attacker))
    attacker.send([operation("aten::add.Tensor", theirs, theirs)])
    assert attacker.get("r").tolist() == [2, 4, 6]


def test_a_private_tensor_is_not_there_for_coordinators(worker, attacker):
    refused(
        attacker,
        operation("aten::clone", wire.reference(worker.secret)),
        match="ObjectNotFoundError",
    )
    with pytest.raises((ObjectNotFoundError, GetNotPermittedError)):
        attacker.get(worker.secret)
    assert str(SECRET) not in attacker.proxy.list_objects_remote()


def test_another_coordinators_tensors_are_not_there(worker, attacker, honest):
    honest.copy().get()  # it is there
    refused(
        attacker,
        operation("aten::clone", wire.reference(honest.id_at_location)),
        match="ObjectNotFoundError",
    )
    attacker.send([operation("delete", honest.id_at_location, results=[])])


TOO_MUCH = {
    "zeros": [operation("aten::zeros", [10**6, 10**6])],
    "ones": [operation("aten::ones", [2**30])],
    "arange": [operation("aten::arange", 10**12)],
    "repeat": [operation("aten::repeat", wire.reference("x"), [10**9])],
    "copied view": [
        operation("aten::expand", wire.reference("x"), [10**9, 3], results=["e"]),
        operation("aten::clone", wire.reference("e")),
    ],
    "sum of a row and a column": [
        operation("aten::ones", [10**5, 1], results=["a"]),
        operation("aten::ones", [1, 10**5], results=["b"]),
        operation("aten::add.Tensor", wire.reference("a"), wire.reference("b")),
    ],
    "one hot": [operation("aten::one_hot", torch.tensor([2**40]))],
    "empty": [operation("aten::empty.memory_format", [2**40])],
    "new": [operation("aten::new_zeros", wire.reference("x"), [2**40])],
    "repeats": [
        operation("aten::repeat_interleave.Tensor", torch.tensor([2**40])),
    ],
    "matrices": [
        operation("aten::ones", [20_000, 1], results=["a"]),
        operation("aten::mm", wire.reference("a"), wire.reference("a")),
        operation("aten::t", wire.reference("a"), results=["b"]),
        operation("aten::mm", wire.reference("a"), wire.reference("b")),
    ],
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_what_would_take_too_much_is_refused_before_it_runs(worker, attacker, what):
    attacker.store("x", torch.ones(3))
    peak = psutil.Process(worker.pid).memory_info().rss
    refused(attacker, *TOO_MUCH[what], match="r")
    assert psutil.Process(worker.pid).memory_info().rss < peak + 600_000_000


def test_a_view_that_repeats_elements_is_not_sent(worker, attacker):
    attacker.store("x", torch.ones(3))
    attacker.send([operation("aten::expand", wire.reference("x"), [10**8, 3])])
    memory = psutil.Process(worker.pid).memory_info().rss
    for fetch in (lambda: attacker.get("r"), lambda: attacker.proxy.request_obj("r")):
        with pytest.raises(MessageTooLarge):
            fetch()
    assert psutil.Process(worker.pid).memory_info().rss < memory + 100_000_000


def test_objects_and_bytes_are_bounded(attacker):
    attacker.store("x", torch.ones(3))
    add = [
        operation("aten::add.Scalar", wire.reference("x"), 1, results=[f"r{number}"])
        for number in range(400)
    ]
    attacker.send(add)
    with pytest.raises(RemoteOperationFailed, match="objects of one coordinator"):
        attacker.get("r399")
    assert attacker.proxy.objects_count_remote() == 200 + 1  # what the owner offers is shown, too
    attacker.proxy.clear_objects_remote()
    large = [operation("aten::ones", [900_000], results=[f"l{number}"]) for number in range(20)]
    attacker.send(large)
    with pytest.raises(RemoteOperationFailed, match="bytes of one coordinator's objects"):
        attacker.get("l19")
    attacker.proxy.clear_objects_remote()
    attacker.send(large[:3])
    assert attacker.get("l2").numel() == 900_000


def test_what_autograd_keeps_is_bounded(attacker):
    x = attacker.store("x", torch.ones(900_000).requires_grad_())
    chain = [operation("aten::exp", x, results=["y"])] + [
        operation("aten::exp", wire.reference("y"), results=["y"]) for _ in range(20)
    ]
    attacker.send(chain)
    with pytest.raises(RemoteOperationFailed, match="that a coordinator's graphs keep"):
        attacker.get("y")


def test_the_operations_in_graphs_are_bounded(attacker):
    attacker.store("y", torch.ones(1).requires_grad_())
    step = operation("aten::add.Scalar", wire.reference("y"), 1.0, results=["y"])
    for _ in range(4):
        attacker.send([step] * 2000)
    with pytest.raises(RemoteOperationFailed, match="the operations in one coordinator's graphs"):
        attacker.get("y")


def test_training_without_an_end_to_its_graphs_is_not_bounded_by_them(attacker):
    """Graphs that are dropped count no more."""
    attacker.store("x", torch.ones(1).requires_grad_())
    step = [
        operation("aten::mul.Tensor", wire.reference("x"), wire.reference("x"), results=["y"]),
        operation("backward", wire.reference("y"), None, False, [wire.reference("x")], results=[]),
    ]
    for _ in range(8):
        attacker.send(step * 1000)
    assert attacker.get("y").item() == 1


def test_a_backward_pass_that_makes_far_more_than_was_saved_is_ended(worker, attacker):
    x = attacker.store("x", torch.ones(1).requires_grad_())
    operations = [
        operation("aten::ones", [900_000], results=["ones"]),
        operation("aten::zeros", [], results=["s"]),
    ]
    for _ in range(60):
        operations += [
            operation("aten::expand", x, [900_000], results=["e"]),
            operation("aten::mul.Tensor", wire.reference("e"), wire.reference("ones")),
            operation("aten::sum", wire.reference("r"), results=["t"]),
            operation("aten::add.Tensor", wire.reference("s"), wire.reference("t"), results=["s"]),
        ]
    memory = psutil.Process(worker.pid).memory_info().rss
    attacker.send(operations)
    attacker.send([operation("backward", wire.reference("s"), None, False, [x], results=[])])
    with pytest.raises(RemoteOperationFailed, match="call_bytes"):
        attacker.get("x")
    assert psutil.Process(worker.pid).memory_info().rss < memory + 400_000_000


def test_operations_end_with_their_time(attacker):
    a = attacker.store("a", torch.ones(700, 700))
    multiply = operation("aten::mm", a, a, results=["b"])
    attacker.send([multiply] * 2000)
    with pytest.raises(RemoteOperationFailed, match="call_seconds"):
        attacker.get("b")
    attacker.send([multiply])
    assert attacker.get("b")[0, 0] == 700


FORGED = {
    "embedding": ("aten::embedding", lambda x: (x, torch.tensor([10**9]))),
    "negative embedding": ("aten::embedding", lambda x: (x, torch.tensor([-5]))),
    "gather": ("aten::gather", lambda x: (x, 0, torch.tensor([[10**6]]))),
    "take": ("aten::take", lambda x: (x, torch.tensor([10**12]))),
    "index": ("aten::index.Tensor", lambda x: (x, [torch.tensor([10**9])])),
    "index_select": ("aten::index_select", lambda x: (x, 0, torch.tensor([99]))),
    "put": ("aten::put", lambda x: (x, torch.tensor([10**9]), torch.ones(1))),
    "scatter": ("aten::scatter.src", lambda x: (x, 0, torch.tensor([[77]]), torch.ones(1, 1))),
    "loss": ("aten::nll_loss_forward", lambda x: (x, torch.tensor([99] * 4), None, 1, -100)),
    "weight": (
        "aten::nll_loss_forward",
        lambda x: (x, torch.tensor([0] * 4), torch.ones(1), 1, -100),
    ),
    "statistics": (
        "aten::native_batch_norm",
        lambda x: (x, torch.ones(1), None, torch.ones(1), torch.ones(1), False, 0.1, 1e-5),
    ),
    "view": ("aten::view", lambda x: (x, [10**6])),
    "slice": ("aten::select.int", lambda x: (x, 0, 10**9)),
    "kinds": ("aten::add.Tensor", lambda x: (x, "text")),
    "a model": ("aten::add.Tensor", lambda x: (x, torch.nn.Linear(2, 2))),
    "too few": ("aten::mm", lambda x: (x,)),
    "too many": ("aten::mm", lambda x: (x, x, x, x)),
    "deep": ("aten::cat", lambda x: (deep(),)),
    "a reference that is none": ("aten::clone", lambda x: (wire.reference("nobody's"),)),
    "a list as id": ("aten::clone", lambda x: (wire.reference([1, [2]]),)),
    "many results": ("aten::clone", lambda x: (x,)),
}


def deep(levels=60):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("what", FORGED)
def test_forged_arguments_end_in_an_error(attacker, what):
    x = attacker.store("x", torch.ones(4, 3))
    name, arguments = FORGED[what]
    results = ["r", "s", "t"] if what == "many results" else ["r"]
    try:
        attacker.send([operation(name, *arguments(x), results=results)])
        with pytest.raises(RemoteOperationFailed):
            attacker.get("r")
    except MalformedMessage:  # refused as a whole
        pass
    attacker.stream, attacker.numbers = secrets.randbits(60), itertools.count()
    assert attacker.get("x").sum() == 12


MALFORMED = [
    [1],
    ["aten::clone"],
    [[]],
    [["aten::clone", "r", [], {}, 0, True, None]],
    [["aten::clone", [1.5], [], {}, 0, True, None]],
    [["aten::clone", ["x" * 1000], [], {}, 0, True, None]],
    [["aten::clone", [None], [], {}, 0, True, "seed"]],
    [["aten::clone", [2**63], [], {}, "site", True, None]],
    [[b"aten::clone", [None], [], {}, 0, True, None]],
    [{"name": "aten::clone"}],
]


@pytest.mark.parametrize("operations", MALFORMED, ids=repr)
def test_malformed_operations_are_refused(attacker, operations):
    with pytest.raises(MalformedMessage):
        attacker.send(operations)


@pytest.mark.parametrize(
    "changed",
    [
        {"number": -1},
        {"number": "1"},
        {"stream": 1.5},
        {"operations": None},
        {"operations": [operation("aten::ones", [1])] * 5000},
        {"values": [[1]]},
        {"values": ["x"] * 5000},
        {"geometries": [None]},
        {"answer": 1},
        {"more": 1},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_malformed_messages_are_refused(attacker, changed):
    with pytest.raises(MalformedMessage):
        attacker.send(**({"operations": []} | changed))


def test_a_gap_in_the_numbers_is_told(attacker):
    attacker.send([])
    with pytest.raises(OperationsLost):
        attacker.send([], number=17)
    with pytest.raises(OperationsLost):
        attacker.send([], stream=5, number=3)
    attacker.send([operation("aten::ones", [1])])
    assert attacker.get("r").item() == 1


def test_a_message_that_comes_again_is_not_carried_out_again(attacker):
    attacker.store("x", torch.zeros(1))
    add = operation("aten::add_.Scalar", wire.reference("x"), 1, results=[None])
    attacker.send([add], number=next(attacker.numbers))
    for number in (0, 1):
        attacker.send([add], number=number)
    assert attacker.get("x").item() == 1


COMMANDS = [
    operation("backward", results=[]),
    operation("backward", 1, 2, 3, 4, results=[]),
    operation("backward", wire.reference("x"), None, False, "leaves", results=[]),
    operation("backward", wire.reference("x"), None, False, [[[1]]], "budget", results=[]),
    operation("grad", wire.reference("x")),
    operation("grad", torch.ones(1)),
    operation("set_grad", wire.reference("x"), wire.reference("y"), results=[]),
    operation("set_grad", wire.reference("x"), 5, results=[]),
    operation("requires_grad", wire.reference("x"), "yes", results=[]),
    operation("requires_grad", wire.reference("integers"), True, results=[]),
    operation("delete", wire.reference("x"), 1.5, None, results=[]),
    operation("set", {"id": "x"}),
    operation("set", {"id": "r", "obj": 5, "wrapped": False, "tags": [], "description": None}),
    operation("_operate", results=[]),
    operation("__class__", results=[]),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: f"{each[0]}{each[2]}"[:60])
def test_commands_with_wrong_arguments_change_nothing(attacker, command):
    attacker.store("x", torch.ones(2))
    attacker.store("integers", torch.ones(2, dtype=torch.int64))
    attacker.store("y", torch.ones(7))
    attacker.send([command])
    for obj_id in ("x", "integers", "y"):
        try:
            assert attacker.get(obj_id).eq(1).all()
        except RemoteOperationFailed:  # told once
            assert attacker.get(obj_id).eq(1).all()


def test_deleting_what_cannot_be_an_id_breaks_nothing(attacker):
    attacker.store("x", torch.ones(2))
    with contextlib.suppress(SyftError):
        attacker.send([operation("delete", [1], {}, results=[])])
    attacker.stream, attacker.numbers = secrets.randbits(60), itertools.count()
    assert attacker.get("x").sum() == 2


def test_operations_that_nobody_wrote_leave_the_worker_as_it_was(worker, attacker):
    """Random operations, on tensors that they share, with references that may lead nowhere."""
    warnings.simplefilter("ignore")
    process, rng = psutil.Process(worker.pid), random.Random(5)
    names = [f"t{number}" for number in range(24)]
    client = Client(rng)
    before = None

    def packed(value):
        if isinstance(value, (list, tuple)):
            return [packed(each) for each in value]
        if isinstance(value, torch.Tensor):
            if rng.random() < 0.8:
                return wire.reference(rng.choice(names))
            fits = value.layout is torch.strided and value.nbytes < 4096
            return value.detach() if fits else wire.reference("x")
        return value

    for number in range(REQUESTS // 10):
        operations = []
        for _ in range(10):
            name, values = client.call()
            results = [rng.choice(names) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
            operations.append(
                [name, results, packed(values), {}, 0, rng.random() < 0.9, rng.choice((None, 1))]
            )
            if rng.random() < 0.1:
                root = wire.reference(rng.choice(names))
                operations.append(operation("backward", root, None, False, [root], results=[]))
            if rng.random() < 0.1:
                fresh = {"obj": client.fresh(), "wrapped": False, "tags": [], "description": None}
                if fresh["obj"].layout is torch.strided and fresh["obj"].nbytes < 10_000:
                    fresh["id"] = rng.choice(names)
                    operations.append(operation("set", fresh, results=[fresh["id"]]))
        try:
            attacker.send(operations, [rng.choice(names)] if rng.random() < 0.2 else [])
        except SyftError as error:
            if not isinstance(error, (RemoteOperationFailed, ObjectNotFoundError)):
                # Refused as a whole, or it cannot travel: the next message begins anew.
                attacker.stream, attacker.numbers = secrets.randbits(60), itertools.count()
        assert process.is_running()
        if number == REQUESTS // 40:
            attacker.proxy.clear_objects_remote()
            before = process.memory_info().rss
    attacker.proxy.clear_objects_remote()
    assert process.memory_info().rss < before + 500_000_000
