"""A connection sends a model's structure once, and its parameters after that."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import syft as sy
from syft import structures, torchscript, wire
from syft.archive import structure_digest
from syft.exceptions import MalformedMessage, OperatorNotAllowed
from syft.structures import Structures
from syft.workers import websocket_link
from syft.workers.websocket_link import fragments
from tests.models import classifier, make_config
from tests.network import Server, call, exchange, proxy_of, raw, serving


def archive(seed: int = 0) -> bytes:
    return torchscript.dump(classifier(seed))[0]


def parameters(model: Any) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in model.parameters()]


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(parameters(a), parameters(b), strict=True))


def test_the_identity_outlives_a_journey_and_new_parameters() -> None:
    model = classifier(seed=1)
    travelled = torchscript.load(*torchscript.dump(model))
    identities = {structure_digest(torchscript.dump(each)[0]) for each in (model, travelled, classifier(seed=2))}
    assert len(identities) == 1


def test_another_mode_or_another_model_is_another_structure() -> None:
    models = [classifier(), classifier().eval(), classifier(dropout=0.5), torch.jit.script(torch.nn.Linear(2, 2))]
    assert len({structure_digest(torchscript.dump(each)[0]) for each in models}) == len(models)


def test_a_known_structure_is_not_encoded_again() -> None:
    ours, theirs = Structures(), Structures()
    request = wire.Request(1, "set", {"obj": classifier()})
    frame = wire.encode(request, ours)
    assert len(frame) < len(wire.encode(request)) - len(archive()) / 2
    for key, content in ours.besides(set()).items():
        assert theirs.add(key, content)
    decoded: Any = wire.decode(frame, structures=theirs)
    assert same(decoded.arguments["obj"], classifier())


def test_a_reply_refers_only_to_what_is_known() -> None:
    worker = Structures()
    frame = wire.encode(wire.Reply(1, classifier()), worker)
    assert frame == wire.encode(wire.Reply(1, classifier()))
    assert not worker.besides(set())


def test_an_unknown_structure_is_refused() -> None:
    frame = wire.encode(wire.Request(1, "set", {"obj": classifier()}), Structures())
    for known in (None, Structures()):
        with pytest.raises(MalformedMessage, match="was not sent on this connection"):
            wire.decode(frame, structures=known)


def test_models_of_one_structure_share_no_memory() -> None:
    known = Structures()
    frame = wire.encode(wire.Request(1, "set", {"obj": classifier()}), known)
    first: Any
    second: Any
    first, second = (wire.decode(frame, structures=known).arguments["obj"] for _ in range(2))  # type: ignore[union-attr]
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(1)
    assert same(second, classifier())
    assert not same(first, second)


def test_a_function_is_learned_like_a_model() -> None:
    known = Structures()
    frame = wire.encode(wire.Request(1, "set", {"obj": torch.jit.script(_double)}), known)
    decoded: Any = wire.decode(frame, structures=known)
    assert decoded.arguments["obj"](torch.ones(1)).item() == 2


def _double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


def test_the_memory_is_bounded() -> None:
    known = Structures()
    assert not known.add("large", bytes(structures.MAX_STRUCTURE_BYTES + 1))
    for number in range(structures.MAX_STRUCTURES):
        assert known.add(str(number), b"")
    assert not known.add("one more", b"")
    assert known.add("0", b""), "a known one stays known"


def test_beyond_the_bound_models_travel_with_their_structure() -> None:
    full = Structures()
    full.max_bytes = 0
    request = wire.Request(1, "set", {"obj": classifier()})
    assert wire.encode(request, full) == wire.encode(request)


def test_a_virtual_worker_learns_a_structure_once(alice: sy.VirtualWorker) -> None:
    for _ in range(3):
        config = make_config(max_nr_batches=1).send(alice)
        alice.call("fit", dataset_key="blobs")
        config.model_ptr.get()
    assert len(alice._session.structures.besides(set())) == 2, "the model's and the loss function's"


@contextlib.contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[wire.Request]]:
    """The requests that servers of this process decode while the context lasts."""
    requests: list[Any] = []
    decode = wire.decode

    def counting(*args: Any, **kwargs: Any) -> wire.Message:
        message = decode(*args, **kwargs)
        if isinstance(message, wire.Request):
            requests.append(message)
        return message

    with monkeypatch.context() as patch:
        patch.setattr(wire, "decode", counting)
        yield requests


async def one_round(worker: Any) -> Any:
    """Return the model of a round; all rounds train on the same samples."""
    config = make_config(max_nr_batches=1, shuffle=False).send(worker)
    await worker.async_fit("blobs")
    return (await config.model_ptr.async_get()).obj


def test_a_connection_teaches_a_structure_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Server()) as server, proxy_of(server) as worker, counted(monkeypatch) as requests:
        models = [asyncio.run(one_round(worker)) for _ in range(3)]
    assert [request.command for request in requests].count("learn") == 2, "the model's and the loss function's"
    assert same(models[0], models[2])


def test_a_restarted_worker_learns_anew() -> None:
    with serving(Server()) as server, proxy_of(server) as worker:
        before = asyncio.run(one_round(worker))
        server.stop()
        server._dispatcher.sessions.clear()
        server.start(block=False)
        assert same(asyncio.run(one_round(worker)), before)


def test_an_abandoned_request_leaves_a_structure_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async def abandon(worker: Any) -> None:
        task = asyncio.create_task(worker.async_call("scale", torch.zeros(1), classifier()))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with serving(Server()) as server, proxy_of(server) as worker:
        asyncio.run(abandon(worker))
        assert same(asyncio.run(one_round(worker)), asyncio.run(one_round(worker)))


def test_a_limit_on_messages_is_one_on_structures() -> None:
    limit = 4000
    assert 2 * len(archive()) > limit
    with serving(Server(max_message_bytes=limit)) as server, proxy_of(server) as worker:
        assert worker._link.structures.max_bytes == limit // 2
        assert not worker._link.structures.add("key", archive())


@pytest.mark.parametrize("arguments", [{"key": b"", "archive": b""}, {"key": "", "archive": bytes(1024**2 + 1)}])
def test_hostile_lessons_are_refused(arguments: dict[str, Any]) -> None:
    with serving(Server()) as server, raw(server) as connection:
        failure = exchange(connection, wire.Request(1, "learn", arguments))
        assert (failure.type, "cannot be remembered" in failure.message) == ("MalformedMessage", True)
        assert exchange(connection, call("objects_count", 2)).result == 0


def test_a_damaged_structure_is_refused_when_it_is_used() -> None:
    known = Structures()
    known.add("key", b"no archive")
    with pytest.raises(MalformedMessage, match="does not begin as a zip file"):
        known.model("key")


@pytest.mark.parametrize(("size", "pieces"), [(0, None), (1024**2, None), (1024**2 + 1, 2), (5 * 1024**2, 5)])
def test_large_messages_travel_in_pieces(size: int, pieces: int | None) -> None:
    frame = bytes(size)
    found = fragments(frame)
    if pieces is None:
        assert found is frame
    else:
        parts = list(found)
        assert (b"".join(parts), len(parts)) == (frame, pieces)  # type: ignore[arg-type]


def test_a_huge_message_has_no_more_pieces_than_websockets_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_link, "_FRAGMENT", 10)
    monkeypatch.setattr(websocket_link, "_MAX_FRAGMENTS", 7)
    assert len(list(fragments(bytes(1000)))) == 7


def test_what_may_run_is_checked_whatever_the_key() -> None:
    reader = torch.jit.script(_read)
    ours, theirs = Structures(), Structures()
    frame = wire.encode(wire.Request(1, "set", {"obj": reader}), ours)
    for key, content in ours.besides(set()).items():
        theirs.add(key, content)
    with pytest.raises(OperatorNotAllowed, match=r"aten::from_file"):
        wire.decode(frame, structures=theirs)


def _read(x: torch.Tensor) -> torch.Tensor:
    return torch.from_file("/etc/hostname", size=1)


def test_the_digest_of_a_model_is_that_of_its_structure_not_its_key() -> None:
    known = Structures()
    known.add("another key", archive())
    assert known.model("another key").__dict__["_structure_digest"] == structure_digest(archive())
