"""A real worker, and clients that break the rules: each is told so, and the others notice
nothing."""

import contextlib
import io
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import msgpack
import psutil
import pytest
import torch
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import syft as sy
from syft import wire
from syft.exceptions import (
    InvalidReply,
    LimitExceeded,
    MalformedMessage,
    MessageTooLarge,
    OperatorNotAllowed,
)
from syft.policy import Policy
from tests.graph.arriving import structure
from tests.models import Endless, classifier, make_config, nll, same

ROOT = Path(__file__).parents[2]
DEADLINE = 60
FRAMES = 10_000
HELLO = wire.encode(wire.Request(0, "hello", {"session": "fuzz"}))


@pytest.fixture(scope="module")
def worker():
    command, pipe = [sys.executable, "-m", "tests.e2e.abused_worker"], subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    process.port = int(process.stdout.readline())
    yield process
    process.stdin.close()
    assert process.wait(DEADLINE) == 0
    process.stdout.close()


@pytest.fixture
def proxy(worker):
    proxy = sy.WebsocketClientWorker(None, "127.0.0.1", worker.port, id="alice")
    yield proxy
    proxy.close()


def train(proxy):
    """Train as an honest coordinator does; the result is the same each time, since nothing is
    shuffled."""
    config = make_config(classifier(), shuffle=False).send(proxy)
    loss = proxy.fit("blobs", timeout=DEADLINE)
    return loss, config.model_ptr.get().obj.state_dict()


class Saves(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "written-by-a-model")
        return x


def corpus():
    """Return valid requests of all kinds."""
    stored = {"wrapped": True, "tags": ["a"], "description": None}
    objects = [
        {"id": 1, "obj": classifier(), **stored},
        {"id": 2, "obj": nll, **stored},
        {"id": 3, "obj": torch.ones(4, 3), **stored, "wrapped": False},
        {"id": 4, "obj": {"a": (1, 2.5, b"x", torch.device("cpu"))}, **stored},
    ]
    fields = make_config(max_nr_batches=2).to_fields() | {"model_id": 1, "loss_fn_id": 2}
    calls = [
        ("fit", [], {"dataset_key": "blobs"}),
        ("evaluate", [], {"dataset_key": "blobs", "return_histograms": True, "nr_bins": 3}),
        ("list_objects", [], {}),
        ("objects_count", (), {"a": 1.5}),
    ]
    requests = [
        *(("set", {"objects": [each]}) for each in objects),
        ("set", {"objects": objects[2:]}),
        ("train_config", {"fields": fields, "fits": 3}),
        ("train_config", {"fields": fields, "fits": 3, "objects": objects[:2]}),
        (
            "operate",
            {
                "stream": 1,
                "number": 0,
                "operations": [
                    ["set", [3], [objects[2]], {}, 1, True, None],
                    ["aten::add.Tensor", [5], [wire.reference(3), 1.5], {}, 1, True, None],
                    ["delete", [], [5], {}, 0, False, None],
                ],
                "values": [3],
                "geometries": [3],
                "answer": True,
            },
        ),
        *(("call", {"name": name, "args": args, "kwargs": kwargs}) for name, args, kwargs in calls),
        ("get", {"id": 3}),
        ("search", {"query": ["a"]}),
        ("delete", {"ids": [3, 4]}),
        ("cancel", {"request_id": 7}),
    ]
    return [wire.encode(wire.Request(7, command, arguments)) for command, arguments in requests]


def mutate(frame, frames, rng):
    """Return a frame with a few changes: bits, numbers, cuts, repetitions, pieces of other
    frames."""
    data = bytearray(frame)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(data)) if data else 0
        end = min(len(data), at + rng.choice((1, 4, 8, 64, 1024)))
        match rng.randrange(8):
            case 0 if data:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at:end] = rng.randbytes(end - at)
            case 2:
                del data[at:end]
            case 3:
                data[at:at] = data[at:end]
            case 4:
                del data[at:]
            case 5:
                other = rng.choice(frames)
                start = rng.randrange(len(other))
                data[at:end] = other[start : start + rng.choice((4, 64, 1024))]
            case 6:
                number = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, len(data)))
                data[at : at + 8] = struct.pack(rng.choice((">Q", "<Q")), number)
            case 7 if len(data) > 28:  # behind the header, and the lengths still right
                place = rng.randrange(28, len(data))
                data[place] = rng.choice(
                    b"\x00\x01\x7f\x80\x90\xc0\xc1\xc7\xcf\xd9\xdc\xdd\xde\xdf\xff./_P"
                )
    return bytes(data)


class Abuser:
    """A client that sends anything, and connects again when it is thrown out."""

    def __init__(self, port):
        self.port, self.answers, self.codes, self.socket = port, 0, {}, None
        self.stack = contextlib.ExitStack()

    def send(self, frame):
        if self.socket is None:
            url = f"ws://127.0.0.1:{self.port}"
            connection = connect(url, compression=None, max_size=None, close_timeout=1, proxy=None)
            self.socket = self.stack.enter_context(connection)
            self.socket.send(HELLO)
            wire.decode(self.socket.recv(DEADLINE))
        try:
            self.socket.send(frame)
            assert isinstance(wire.decode(self.socket.recv(DEADLINE)), (wire.Reply, wire.Failure))
            self.answers += 1
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd is not None else None
            self.codes[code] = self.codes.get(code, 0) + 1
            self.close()

    def close(self):
        self.socket = None
        self.stack.close()


def test_ten_thousand_mutated_frames_disturb_nobody(worker, proxy):
    rng, frames, abuser = random.Random(0), corpus(), Abuser(worker.port)
    for frame in frames:
        abuser.send(frame)
    assert abuser.answers == len(frames)
    expected, memory = train(proxy), None
    process = psutil.Process(worker.pid)
    for number in range(FRAMES):
        if number % 1000 == 0:
            assert same(train(proxy), expected), "the honest coordinator was disturbed"
        if number == FRAMES // 4:
            memory, files = process.memory_info().rss, process.num_fds()
        abuser.send(mutate(rng.choice(frames), frames, rng))
    abuser.close()
    assert same(train(proxy), expected)
    assert abuser.answers + sum(abuser.codes.values()) == FRAMES + len(frames)
    assert set(abuser.codes) <= {1002}, abuser.codes  # told why, not dropped
    assert abuser.answers > FRAMES / 4 and abuser.codes[1002] > FRAMES / 20
    assert process.memory_info().rss - memory < 64 * 1024 * 1024
    assert process.num_fds() <= files + 2


def test_what_is_no_websocket_is_answered_with_an_error_or_not_at_all(worker, proxy):
    rng = random.Random(1)
    for garbage in (
        b"",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01" + bytes(200),
        rng.randbytes(5000),
    ):
        with socket.create_connection(("127.0.0.1", worker.port), timeout=DEADLINE) as raw:
            raw.sendall(garbage)
            raw.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while chunk := raw.recv(4096):
                    answer += chunk
            except ConnectionResetError:
                continue
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert proxy.objects_count_remote() >= 0


def test_a_text_message_closes_the_connection(worker, proxy):
    with connect(f"ws://127.0.0.1:{worker.port}", compression=None, proxy=None) as raw:
        raw.send(HELLO)
        raw.recv(DEADLINE)
        raw.send("hello")
        with pytest.raises(ConnectionClosed) as caught:
            raw.recv(DEADLINE)
        assert caught.value.rcvd.code == 1002 and "text message" in caught.value.rcvd.reason


def test_a_message_that_is_too_large_is_refused_on_both_sides(worker, proxy):
    with pytest.raises(MessageTooLarge):  # the proxy asks first
        sy.local_worker.send(torch.zeros(1_000_000), proxy)
    with connect(f"ws://127.0.0.1:{worker.port}", compression=None, proxy=None) as raw:
        raw.send(HELLO)
        raw.recv(DEADLINE)
        with pytest.raises(ConnectionClosed) as caught:
            raw.send(bytes(3_000_000))
            raw.recv(DEADLINE)
        assert caught.value.rcvd is None or caught.value.rcvd.code == 1009
    assert proxy.objects_count_remote() >= 0


def test_a_model_that_writes_a_file_is_refused(worker, proxy):
    config = make_config(torch.jit.script(Saves())).send(proxy)
    with pytest.raises(OperatorNotAllowed, match="aten::save"):
        proxy.fit("blobs")
    assert not (ROOT / "written-by-a-model").exists()
    config.model_ptr.garbage_collect_data = False


def test_a_model_that_loops_for_ever_ends_with_its_time(worker, proxy):
    """The call fails, the worker goes on; and it ends when it should, as the fixture checks."""
    expected = train(proxy)
    config = make_config(torch.jit.script(Endless())).send(proxy)
    with pytest.raises(LimitExceeded, match=r"call_(seconds|bytes)"):
        proxy.fit("blobs", timeout=DEADLINE)
    assert same(train(proxy), expected)
    del config


class Honest(threading.Thread):
    """A coordinator that asks the worker something all the time, and notes how long it waits at
    most."""

    def __init__(self, port):
        super().__init__()
        self.proxy = sy.WebsocketClientWorker(None, "127.0.0.1", port, id="alice", timeout=DEADLINE)
        self.longest, self.done = 0.0, threading.Event()

    def run(self):
        while not self.done.wait(0.005):
            begin = time.monotonic()
            self.proxy.objects_count_remote()
            self.longest = max(self.longest, time.monotonic() - begin)

    def __enter__(self):
        self.proxy.objects_count_remote()
        self.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.join(DEADLINE)
        self.proxy.close()


@contextlib.contextmanager
def undisturbed(worker, sent):
    """The worker lives, answers another coordinator in half a second, and keeps little memory,
    whatever is sent."""
    process, abuser = psutil.Process(worker.pid), Abuser(worker.port)
    before = process.memory_info().rss
    with Honest(worker.port) as honest:
        yield abuser
    abuser.close()
    grown = process.memory_info().rss - before
    assert honest.longest < 0.5, f"another coordinator waited {honest.longest:.2f} s"
    assert grown < 4 * sent + 64 * 2**20, f"{grown / 2**20:.0f} MB more"


def frame(envelope, *attachments, kind=1):
    """Return a message by hand."""
    parts = [envelope, *attachments]
    header = struct.pack(">4sBBHQI", b"SYFT", wire.VERSION, kind, 0, 7, len(parts))
    return b"".join((header, *(struct.pack(">Q", len(part)) for part in parts), *parts))


def extension(code, value):
    return msgpack.ExtType(code, msgpack.packb(value))


def set_request(value, id=1):
    stored = {"wrapped": True, "tags": [], "description": None}
    objects = [{"id": id, "obj": value, **stored}]
    return msgpack.packb({"command": "set", "arguments": {"objects": objects}})


def packed_tensors(tensors):
    return b"".join(
        wire.messages.tensors.save({str(index): each for index, each in enumerate(tensors)})
    )


def model_frame(packed, state=(), constants=(), id=1, indices=None, code=4):
    """Return the request that stores a model of this structure."""
    tensors = [*state, *constants]
    numbers = indices or [list(range(len(state))), list(range(len(state), len(tensors)))]
    value = extension(4, [0, *numbers, True]) if code == 4 else extension(code, 0)
    return frame(set_request(value, id), packed_tensors(tensors), packed)


def described(name, shape):
    return [name, 0, True, "float32", shape]


def nested_extensions(levels):
    payload = msgpack.packb([])
    for _ in range(levels):
        payload = msgpack.packb(msgpack.ExtType(1, payload))
    return payload


def zip_bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("archive/data.pkl", "archive/constants.pkl", "archive/version"):
            archive.writestr(name, bytes(200_000_000))
    return buffer.getvalue()


def archive():
    buffer = io.BytesIO()
    torch.jit.save(classifier(), buffer)
    return buffer.getvalue()


def header(text):
    return len(text).to_bytes(8, "little") + text


WEIGHT, RELU, LOOP = (
    torch.ones(2, 2),
    {"operators": ("aten::relu",)},
    {"operators": ("prim::Loop",)},
)
DEEP = b"\x91" * 100_000 + b"\xc0"
TENSOR = set_request(extension(2, [0, False]))
ATTACKS = {
    "more elements than the tensor has": lambda: model_frame(
        structure(state=[described("w", [2**40])]), [WEIGHT]
    ),
    "another shape": lambda: model_frame(structure(state=[described("w", [4])]), [WEIGHT]),
    "no tensor": lambda: model_frame(structure(state=[described("w", [2, 2])])),
    "a tensor that there is not": lambda: model_frame(structure(), indices=[[10**9], []]),
    "a constant that there is not": lambda: model_frame(
        structure(constants=({"tensor": [9, "float32", [2, 2]]},)), constants=[WEIGHT]
    ),
    "a structure of deep lists": lambda: model_frame(DEEP),
    "an envelope of deep lists": lambda: frame(DEEP),
    "deep lists among the arguments": lambda: frame(set_request(0).replace(b"\x00", DEEP)),
    "deep blocks": lambda: model_frame(
        structure(*deep_blocks(70), constants=(True,), operators=("prim::If",))
    ),
    "extensions in extensions": lambda: frame(nested_extensions(1000)),
    "extensions in extensions, wide": lambda: frame(
        set_request([msgpack.ExtType(1, nested_extensions(30))] * 500)
    ),
    "many digits": lambda: frame(
        TENSOR,
        header(b'{"0":{"dtype":"F32","shape":[' + b"9" * 900_000 + b'],"data_offsets":[0,4]}}'),
    ),
    "many digits in the metadata": lambda: frame(
        TENSOR, header(b'{"__metadata__":' + b"9" * 900_000 + b"}")
    ),
    "a header of deep lists": lambda: frame(TENSOR, header(b"[" * 900_000)),
    "a shape of 1,800 sizes": lambda: frame(
        TENSOR,
        header(
            b'{"0":{"dtype":"F32","shape":['
            + b",".join([b"1"] * 1800)
            + b'],"data_offsets":[0,4]}}'
        )
        + bytes(4),
    ),
    "a product of sizes": lambda: frame(
        TENSOR,
        header(
            b'{"0":{"dtype":"F32","shape":['
            + b",".join([b"9" * 18] * 60)
            + b'],"data_offsets":[0,4]}}'
        )
        + bytes(4),
    ),
    "keys that collide": lambda: frame(
        b"\xdf"
        + struct.pack(">I", 90_000)
        + b"".join(
            b"\xcb" + struct.pack(">d", 2.0 ** -(i % 1000) * (1 + i)) + b"\xc0"
            for i in range(90_000)
        )
    ),
    "integer keys that collide": lambda: frame(
        b"\xdf"
        + struct.pack(">I", 90_000)
        + b"".join(
            b"\xcf" + struct.pack(">Q", (2**61 - 1) * (1 + i % 8)) + b"\xc0" for i in range(90_000)
        )
    ),
    "50,000 nodes": lambda: model_frame(structure(*[[0, [0], 1]] * 50_001, **RELU)),
    "50,000 nodes that are none": lambda: model_frame(
        structure(*[[0, [0], 1, []]] * 50_000, [9, [], 0], **RELU)
    ),
    "10,001 modules": lambda: model_frame(
        structure(state=[described(f"m{i}.w", [1]) for i in range(10_001)])
    ),
    "a billion results": lambda: model_frame(structure([0, [0], 10**9], **RELU)),
    "a billion inputs": lambda: model_frame(
        structure([0, [-1, -2], 0, [[10**9, [], [-2]]]], constants=(1, True), **LOOP)
    ),
    "1 MiB of constants": lambda: model_frame(structure(constants=([[]] * 1_040_000,))),
    "1 MiB of a constant text": lambda: model_frame(
        structure(constants=("x" * 1_048_000,), result=-1)
    ),
    "1 MiB of empty lists": lambda: frame(
        b"\xdd" + struct.pack(">I", 1_040_000) + b"\x90" * 1_040_000
    ),
    "2 MB of blobs": lambda: frame(set_request(1), b"", *[b""] * 60_000),
    "a TorchScript archive": lambda: model_frame(archive(), code=7),
    "a TorchScript archive as a structure": lambda: model_frame(archive()),
    "an archive that unpacks to 600 MB": lambda: model_frame(zip_bomb(), code=7),
    "an operator that writes": lambda: model_frame(structure(operators=("aten::save",))),
}


def deep_blocks(depth):
    nodes = []
    for _ in range(depth):
        nodes = [[0, [-1], 0, [[0, nodes, []], [0, [], []]]]]
    return nodes


@pytest.mark.parametrize("name", ATTACKS)
def test_a_small_message_that_costs_much(worker, proxy, name):
    message, stored = ATTACKS[name](), proxy.objects_count_remote()
    assert len(message) < 2_000_000
    with undisturbed(worker, len(message)) as abuser:
        for _ in range(3):
            abuser.send(message)
    assert abuser.answers + sum(abuser.codes.values()) == 3 and set(abuser.codes) <= {1002, 1009}
    assert proxy.objects_count_remote() <= stored


def asked(raw, request):
    raw.send(wire.encode(request))
    return wire.decode(raw.recv(DEADLINE))


@contextlib.contextmanager
def greeted(worker):
    with connect(f"ws://127.0.0.1:{worker.port}", compression=None, proxy=None) as raw:
        raw.send(wire.encode(wire.Request(0, "hello", {"session": "runs"})))
        raw.recv(DEADLINE)
        yield raw


def config_request():
    """Return the request that sends a loss function, and the config of model 1."""
    loss = {"id": 2, "obj": nll, "wrapped": True, "tags": [], "description": None}
    fields = make_config().to_fields() | {"model_id": 1, "loss_fn_id": 2}
    return wire.Request(8, "train_config", {"fields": fields, "fits": 0, "objects": [loss]})


def run_on(raw, packed, name="evaluate", constants=()):
    """Have the worker run a model of this structure; return what becomes of it."""
    raw.send(model_frame(packed, constants=constants))
    answer = wire.decode(raw.recv(DEADLINE))
    assert isinstance(answer, wire.Reply), answer
    assert isinstance(asked(raw, config_request()), wire.Reply)
    return asked(
        raw, wire.Request(9, "call", {"name": name, "args": [], "kwargs": {"dataset_key": "blobs"}})
    )


def endless(*nodes, operators=(), constants=(), carried=(), before=()):
    """Return a structure that repeats nodes for ever.

    Constants from -3 on are theirs; each carried value is replaced by the result of the node of the
    same index.
    """
    first = 2 + sum(node[2] for node in before)
    results = range(first + 1 + len(carried), first + 1 + 2 * len(carried))
    block = [1 + len(carried), list(nodes), [-2, *results]]
    loop = [0, [-1, -2, *carried], len(carried), [block]]
    return structure(
        *before, loop, operators=("prim::Loop", *operators), constants=(2**62, True, *constants)
    )


RUNS = {
    "a loop of 2**62 turns": (endless(), "call_seconds"),
    "loops in loops": (endless([0, [-1, -2], 0, [[1, [], [-2]]]]), "call_seconds"),
    "sixty products of large matrices": (
        structure(
            *[[0, [-1, -2], 1]] * 2,
            *[[1, [3, 2, 2], 1]] * 60,
            operators=("aten::ones", "aten::addmm_"),
            constants=([2500, 2500], 6),
        ),
        "call_seconds",
    ),
    "doubled texts": (
        endless([1, [3, 3], 1], operators=("aten::add.str",), constants=("ab",), carried=(-3,)),
        "65536",
    ),
    "doubled lists": (
        endless([1, [3, 3], 1], operators=("aten::add.t",), constants=([1],), carried=(-3,)),
        "1000000",
    ),
    "powers": (
        structure([0, [-1, -2], 1], operators=("aten::pow.int_to_int",), constants=(3, 2**62)),
        "64 bits",
    ),
    "a wide place": (
        structure(
            [0, [-1, -2], 1],
            [1, [2], 0],
            operators=("aten::percentFormat", "prim::RaiseException"),
            constants=("%1000000000d", 7),
        ),
        "%1000000000d",
    ),
    "tensors that are kept": (
        endless(
            [2, [-3, -4], 1],
            [3, [2, 4], 0],
            operators=("prim::ListConstruct", "aten::zeros", "aten::append.t"),
            constants=([1_000_000], 6),
            before=[[1, [], 1]],
        ),
        "call_bytes",
    ),
    "lines of the log": (
        endless([1, [-3], 0], operators=("prim::Print",), constants=("x" * 1000,)),
        "call_seconds",
    ),
}
"""Name -> a structure, and what the failure says."""


@pytest.mark.parametrize("name", RUNS)
def test_a_model_that_takes_too_much_is_ended_and_disturbs_nobody(worker, proxy, name):
    packed, reason = RUNS[name]
    with undisturbed(worker, 30_000_000), greeted(worker) as raw:
        answer = run_on(raw, packed)
        assert isinstance(answer, wire.Failure) and reason in f"{answer.message} {answer.fields}", (
            answer
        )
        asked(raw, wire.Request(10, "delete", {"ids": [1, 2]}))
    assert same(train(proxy), train(proxy))


def test_a_loop_without_end_is_cancelled(worker, proxy):
    with greeted(worker) as raw:
        raw.send(model_frame(endless()))
        raw.recv(DEADLINE)
        assert isinstance(asked(raw, config_request()), wire.Reply)
        raw.send(
            wire.encode(
                wire.Request(
                    9, "call", {"name": "evaluate", "args": [], "kwargs": {"dataset_key": "blobs"}}
                )
            )
        )
        answers = [
            asked(raw, wire.Request(10, "cancel", {"request_id": 9})),
            wire.decode(raw.recv(DEADLINE)),
        ]
        assert sorted(type(answer).__name__ for answer in answers) == ["Failure", "Reply"]
        assert (
            next(answer.type for answer in answers if isinstance(answer, wire.Failure))
            == "CallAbandoned"
        )
    assert same(train(proxy), train(proxy))


class Lying(sy.WebsocketServerWorker):
    """A worker that changes what it returns of a model.

    Attributes:
        lie: changes the result of "get", and returns it or, as bytes, the whole reply.
        seen: digests of the models that arrived.
    """

    def __init__(self, id, policy=None):
        super().__init__(None, "127.0.0.1", 0, id=id, policy=policy)
        self.lie, self.seen = lambda result: result, []
        self._dispatcher._commands["get"] = self._get_lie
        self._dispatcher.run = self._run
        self._bytes = None

    def set_obj(self, obj):
        self.seen.append(getattr(getattr(obj, "obj", None), "graph_digest", None))
        super().set_obj(obj)

    def _get_lie(self, session, id):
        result = self.lie(self._dispatcher._get(session, id))
        self._bytes = result if isinstance(result, bytes) else None
        return result

    def _run(self, job):
        reply = type(self._dispatcher).run(self._dispatcher, job)
        if self._bytes is not None:
            reply, self._bytes = (
                self._bytes.replace(REQUEST_ID, struct.pack(">Q", job.request_id)),
                None,
            )
        return reply


REQUEST_ID = struct.pack(">Q", 0x1122334455667788)


def reply(obj, *attachments):
    """Return a reply by hand, with any object and a state."""
    result = {"obj": obj, "state": None, "wrapped": True, "tags": [], "description": None}
    return frame(msgpack.packb({"result": result}), *attachments, kind=2).replace(
        struct.pack(">Q", 7), REQUEST_ID, 1
    )


def with_model(code):
    sent = sy.graph.convert(torch.nn.Linear(4, 3))
    content = sent.structure if code == 4 else archive()
    value = extension(4, [0, [0, 1], [], True]) if code == 4 else extension(code, 0)
    return reply(value, packed_tensors(sent.state), content)


def changed_state(**changes):
    def lie(result):
        state = dict(result["state"])
        for name, change in changes.items():
            if change is None:
                del state[name.replace("__", ".")]
            else:
                state[name.replace("__", ".")] = change
        return {**result, "state": state}

    return lie


LIES = {
    "a model": lambda result: with_model(4),
    "a TorchScript archive": lambda result: with_model(7),
    "a number": lambda result: {**result, "state": None, "obj": 3},
    "a tensor": lambda result: {**result, "state": None, "obj": torch.ones(3)},
    "no map": lambda result: [1, 2],
    "a field missing": lambda result: {"obj": None},
    "a state that is a list": lambda result: {**result, "state": [1]},
    "another name": changed_state(more=torch.ones(1)),
    "a name missing": changed_state(output__bias=None),
    "another shape": changed_state(output__bias=torch.ones(30)),
    "another dtype": changed_state(output__bias=torch.ones(3).double()),
    "text for a tensor": changed_state(output__bias="x"),
    "no numbers": changed_state(output__bias=torch.full((3,), float("nan"))),
}


@pytest.mark.parametrize("name", LIES)
def test_a_coordinator_takes_nothing_but_parameters_and_says_whose_reply_it_was(name):
    alice = Lying("alice")
    alice.start(block=False)
    coordinator = sy.WebsocketClientWorker(
        None, "127.0.0.1", alice.port, id="alice", timeout=DEADLINE
    )
    try:
        pointer = sy.local_worker.send(sy.ObjectWrapper(classifier(), id=1), coordinator)
        alice.lie = LIES[name]
        with pytest.raises((InvalidReply, MalformedMessage)) as caught:
            pointer.get()
        assert isinstance(caught.value, MalformedMessage) or "alice" in str(caught.value)
    finally:
        coordinator.close()
        alice.stop()


@pytest.mark.parametrize("with_policy", [False, True])
def test_nothing_of_what_one_worker_returns_but_parameters_reaches_another(with_policy):
    sent = classifier()
    allowed = [sy.graph.convert(each).digest for each in (sent, nll)]
    bob = Lying("bob", Policy(models=allowed) if with_policy else None)
    alice = Lying("alice")
    alice.start(block=False), bob.start(block=False)
    proxies = [
        sy.WebsocketClientWorker(None, "127.0.0.1", each.port, id=each.id, timeout=DEADLINE)
        for each in (alice, bob)
    ]
    try:
        alice.lie = changed_state(output__bias=torch.full((3,), 7.0))
        model = sy.local_worker.send(sy.ObjectWrapper(sent, id=1), proxies[0]).get().obj
        pointer = sy.local_worker.send(sy.ObjectWrapper(model, id=2), proxies[1])
        assert bob.seen == alice.seen == allowed[:1]
        assert torch.equal(pointer.get().obj.output.bias, torch.full((3,), 7.0))
        alice.lie = lambda result: with_model(4)
        with pytest.raises(MalformedMessage):
            sy.local_worker.send(sy.ObjectWrapper(sent, id=3), proxies[0]).get()
    finally:
        for each in (*proxies, alice, bob):
            each.close() if each in proxies else each.stop()


def test_the_source_evaluates_nothing():
    """No pickle, no eval, no exec, no shell, in any module of the package or script."""
    import ast

    modules = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
    names = {"eval", "exec", "compile", "__import__", "execfile"}
    attributes = {"load_module", "exec_module", "import_module", "system", "popen", "allow_pickle"}
    files = [*(ROOT / "syft").rglob("*.py"), *(ROOT / "data").rglob("*.py"), *ROOT.glob("*.py")]
    assert len(files) > 30
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            found = None
            if isinstance(node, ast.Import):
                found = modules & {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found = modules & {str(node.module).partition(".")[0]}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found = names & {node.func.id}
            elif isinstance(node, ast.Attribute):
                found = attributes & {node.attr}
                if (
                    node.attr == "load"
                    and isinstance(node.value, ast.Name)
                    and node.value.id in ("torch", "np", "numpy")
                ):
                    found = {"load"}
            assert not found, f"{file.name}:{node.lineno}: {found}"
