"""The audit log: a line for everything that is asked, refused requests too, and nothing that is
secret."""

import datetime
import hashlib
import json
import os
import stat

import pytest
import torch

import syft as sy
from syft.access import audit
from syft.exceptions import (
    AccessDenied,
    AuditLogUnavailable,
    LimitExceeded,
    NotPermitted,
    ObjectNotFoundError,
    SyftError,
)
from syft.graph import convert
from syft.limits import Limits
from syft.policy import Policy
from tests.models import blobs, classifier, make_config
from tests.network import Server, in_time, proxy_of, serving

TOKEN = "a-token-of-thirty-two-characters"


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Start a worker with an audit log; return a proxy of it and what reads the log."""
    monkeypatch.delenv("SYFT_TOKEN", raising=False)
    started = []

    def start(tls=None, **options):
        server = sy.WebsocketServerWorker(
            None, "127.0.0.1", 0, id="alice", audit_path=tmp_path / "audit", token=TOKEN, **options
        )
        server.add_dataset(blobs(), "blobs")
        server.start(block=False)
        proxy = sy.WebsocketClientWorker(
            None, "127.0.0.1", server.port, id="alice", token=TOKEN, **tls or {}
        )
        started.extend([proxy.close, server.stop])
        return proxy

    def lines():
        return [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]

    yield start, lines
    for end in started:
        end()


def test_a_round_is_written_down_call_by_call(served):
    start, lines = served
    proxy = start()
    before = datetime.datetime.now(datetime.timezone.utc)
    config = make_config(classifier()).send(proxy)
    proxy.fit("blobs")
    proxy.evaluate("blobs")
    config.model_ptr.get()
    written = lines()
    calls = [line["call"].partition("(")[0] for line in written]
    assert calls == ["train_config", "fit", "fit", "evaluate", "evaluate", "get"]
    begun, fit = (line for line in written if line["call"].startswith("fit"))
    assert (begun["outcome"], begun["samples"], begun["model"]) == ("started", None, fit["model"])
    assert set(fit) == {"time", "worker", "who", "call", "model", "samples", "outcome", "seconds"}
    assert fit["call"] == "fit(dataset_key='blobs')" and fit["worker"] == "alice"
    assert fit["outcome"] == "done" and fit["samples"] == 20 and 0 < fit["seconds"] < 60
    assert [line["samples"] for line in written if line["call"].startswith("evaluate")] == [
        None,
        20,
    ]
    moment = datetime.datetime.fromisoformat(fit["time"])
    assert abs(moment - before) < datetime.timedelta(minutes=1)


def test_every_line_says_who_asked_without_secrets(served):
    start, lines = served
    proxy = start()
    proxy.objects_count_remote()
    who = lines()[0]["who"]
    address, _, port = who["address"].rpartition(":")
    assert address == "127.0.0.1" and port.isdecimal()
    assert who["token"] == hashlib.sha256(TOKEN.encode()).hexdigest()[:8]
    assert who["session"] == hashlib.sha256(proxy._link.session.encode()).hexdigest()[:8]
    assert TOKEN not in json.dumps(lines()) and proxy._link.session not in json.dumps(lines())


def test_the_subject_of_a_client_certificate_is_written_down(served, authority):
    start, lines = served
    proxy = start(
        {
            "secure": True,
            "ca_path": authority.ca_path,
            **authority.issue("coordinator.example", common_name="carol"),
        },
        **authority.issue("127.0.0.1"),
        client_ca_path=authority.ca_path,
    )
    proxy.objects_count_remote()
    assert "commonName=carol" in lines()[0]["who"]["certificate"]


def test_the_digest_of_a_model_is_that_of_its_structure_and_values(served):
    start, lines = served
    proxy, model = start(), classifier(seed=5)
    config = make_config(model).send(proxy)
    proxy.fit("blobs")
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(
            f"{name} torch.float32 {tuple(tensor.shape)} ".encode() + tensor.numpy().tobytes()
        )
    config.model_ptr.get()
    fit = next(line for line in lines() if line["call"].startswith("fit"))
    assert fit["model"] == {"structure": convert(model).digest, "values": digest.hexdigest()}


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]
)
def test_the_digest_of_values_depends_on_the_values_alone(dtype):
    model = torch.nn.Module()
    model.register_buffer("scalar", torch.ones((), dtype=dtype))
    model.register_buffer("view", torch.ones(4, 2).to(dtype).t())
    model.register_buffer("empty", torch.ones(0, dtype=dtype))
    model.register_buffer("stride", torch.ones(4, dtype=dtype)[::4])
    digest = audit.values_digest(model)
    model.view = model.view.clone()
    assert audit.values_digest(model) == digest
    model.view[0, 0] = 0
    assert audit.values_digest(model) != digest


def test_what_failed_and_what_was_refused_is_written_down(served):
    start, lines = served
    proxy = start(policy=Policy(datasets=["blobs"]), limits=Limits(objects=1))
    with pytest.raises(ObjectNotFoundError):
        proxy.request_obj(5)
    with pytest.raises(NotPermitted):
        proxy.fit("secret")
    kept = sy.local_worker.send(torch.ones(1), proxy)
    with pytest.raises(LimitExceeded):
        sy.local_worker.send(torch.ones(1), proxy)
    with pytest.raises(AccessDenied):
        sy.WebsocketClientWorker(None, "127.0.0.1", proxy.port, token="another")
    outcomes = [(line["call"].partition("(")[0], line["outcome"]) for line in lines()]
    assert outcomes == [
        ("get", "ObjectNotFoundError"),
        ("fit", "NotPermitted"),
        ("set", "done"),
        ("set", "LimitExceeded"),
        ("connect", "AccessDenied"),
    ]
    del kept


def test_only_its_owner_reads_it(served, tmp_path):
    start, _ = served
    start()
    assert stat.S_IMODE((tmp_path / "audit").stat().st_mode) == 0o600


class Counted(torch.utils.data.Dataset):
    """Counts the samples that are read."""

    read = 0

    def __len__(self):
        return 20

    def __getitem__(self, index):
        Counted.read += 1
        return blobs()[index]


def full_disk():
    return audit.AuditLog("/dev/full")


class Leaking(sy.VirtualWorker):
    """A worker whose disk is full once its method runs."""

    def leak(self, how):
        self._dispatcher.guard.audit = full_disk()
        if how == "raise":
            raise ValueError("a sample: 7.25")
        return "a sample: 7.25"


needs_dev_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")


@needs_dev_full
def test_nothing_is_computed_that_cannot_be_written_down(caplog):
    worker = sy.VirtualWorker(id="alice", audit_path="/dev/full")
    worker.add_dataset(Counted(), "counted")
    for ask in (
        lambda: worker.call("fit", "counted"),
        lambda: worker.call("evaluate", "counted"),
        lambda: worker.call("list_objects"),
        lambda: worker.request_obj(1),
        lambda: worker.search("#x"),
    ):
        with pytest.raises(AuditLogUnavailable) as refused:
            ask()
        assert isinstance(refused.value, RuntimeError)
        assert str(refused.value) == (
            "worker 'alice' refused the request: its audit log cannot be written (No space left "
            "on device), and it does and returns nothing that it cannot record. The worker's "
            "owner has to make the file writable or free some space."
        )
    assert Counted.read == 0
    assert (
        "worker alice: its audit log cannot be written: No space left on device" in caplog.messages
    )


@needs_dev_full
@pytest.mark.parametrize("how", ["return", "raise"])
def test_nothing_is_handed_out_that_cannot_be_written_down(tmp_path, how):
    """An error's text is a result too: a model may write into it."""
    worker = Leaking(id="alice", audit_path=tmp_path / "audit")
    with pytest.raises(AuditLogUnavailable) as refused:
        worker.call("leak", how)
    assert "7.25" not in f"{refused.value} {refused.value.remote_traceback}"
    (line,) = (tmp_path / "audit").read_text().splitlines()
    assert json.loads(line)["outcome"] == "started"


@needs_dev_full
def test_an_object_that_was_withheld_stays():
    worker = sy.VirtualWorker(id="alice", audit_path="/dev/full")
    worker.set_obj(sy.ObjectWrapper(5, id=1))
    with pytest.raises(AuditLogUnavailable):
        worker.request_obj(1)
    worker._dispatcher.guard.audit = None
    assert worker.request_obj(1).obj == 5


@needs_dev_full
async def test_a_fit_over_a_network_is_answered_although_the_disk_is_full(tmp_path):
    with (
        serving(Server(audit_path=tmp_path / "audit", token=TOKEN)) as server,
        proxy_of(server, token=TOKEN) as proxy,
    ):
        make_config().send(proxy)
        proxy.objects_count_remote()
        guard = server._dispatcher.guard
        log, guard.audit = guard.audit, full_disk()
        with pytest.raises(AuditLogUnavailable):
            await in_time(proxy.async_fit("blobs"))
        with pytest.raises(AccessDenied):
            sy.WebsocketClientWorker(None, "127.0.0.1", proxy.port, token="another")
        guard.audit = log
        assert proxy.fit("blobs") is not None


def test_a_line_that_was_cut_off_leaves_the_next_one_whole(tmp_path, monkeypatch):
    log, write = audit.AuditLog(tmp_path / "audit"), os.write
    log.write(call="first")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:10]))
        with pytest.raises(OSError, match="No space left"):
            log.write(call="second")
    log.write(call="third")
    lines = (tmp_path / "audit").read_text().splitlines()
    assert (json.loads(lines[0])["call"], len(lines[1]), json.loads(lines[2])["call"]) == (
        "first",
        10,
        "third",
    )


@pytest.mark.parametrize("letter", ["x", "é", "\N{OLD ITALIC LETTER A}", "\x1b"])
def test_lines_are_bounded(tmp_path, letter):
    long = letter * 5_000_000
    log = audit.AuditLog(tmp_path / "audit")
    log.write(worker="alice", who={"certificate": long, "session": long}, call=long, outcome=long)
    text = (tmp_path / "audit").read_bytes()
    assert len(text) <= audit.MAX_LINE_BYTES and text.count(b"\n") == 1
    assert json.loads(text)["call"].endswith("...")


def test_names_of_arguments_are_shortened_too(served):
    start, lines = served
    with pytest.raises(SyftError):
        start().call(
            "list_objects",
            **{"x" * 200: 1, "\x1b[2J": "y" * 10**6},
            **{f"a{i}": i for i in range(200)},
        )
    (line,) = lines()
    assert len(line["call"]) <= 1000 and line["call"].startswith(
        f"list_objects('{'x' * 56}...=1, '\\x1b[2J'='yyy"
    )


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(OSError):
        audit.AuditLog(tmp_path / "nowhere" / "audit")
