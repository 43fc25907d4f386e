"""`max_message_bytes`: what is too large is refused by name, on either side, and nothing else is
lost."""

import pytest
import torch
import websockets.exceptions

import syft as sy
from syft import wire
from syft.exceptions import ConnectionLost, MessageTooLarge
from tests.models import make_config
from tests.network import (
    DEADLINE,
    Server,
    call,
    exchange,
    false_worker,
    greeting,
    in_time,
    proxy_at,
    proxy_of,
    raw,
    serving,
)

LIMIT = 20_000
LARGE = torch.zeros(LIMIT)
"""A tensor of four times the limit."""


def assert_usable(proxy) -> None:
    assert proxy.call("scale", torch.ones(3)).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(LIMIT, 10 * LIMIT), (10 * LIMIT, LIMIT)],
    ids=["proxy's limit", "worker's limit"],
)
async def test_a_request_over_the_limit_is_not_sent(ours, theirs):
    with (
        serving(Server(max_message_bytes=theirs)) as server,
        proxy_of(server, max_message_bytes=ours) as proxy,
    ):
        pointer = sy.local_worker.send(torch.ones(1), proxy)
        with pytest.raises(MessageTooLarge) as info:
            proxy.call("scale", LARGE)
        assert (info.value.limit, info.value.worker) == (LIMIT, "alice")
        assert 4 * LIMIT < info.value.size < 4 * LIMIT + 1000
        assert f"is {info.value.size} bytes; the limit is {LIMIT} bytes" in str(info.value)
        assert "max_message_bytes" in str(info.value)
        with pytest.raises(MessageTooLarge):
            await in_time(proxy.async_call("scale", LARGE))
        with pytest.raises(MessageTooLarge):
            sy.local_worker.send(LARGE, proxy)
        assert_usable(proxy)
        assert proxy.objects_count_remote() == 1
        assert pointer.get().tolist() == [1]


def test_a_model_over_the_limit_is_not_sent_by_half():
    """send() raises at once, and the proxy stays usable; the worker has the objects of no half-sent
    config."""
    with serving(Server(max_message_bytes=LIMIT)) as server, proxy_of(server) as proxy:
        with pytest.raises(MessageTooLarge, match="alice"):
            make_config(model=torch.jit.script(torch.nn.Linear(LIMIT, 1))).send(proxy)
        assert proxy.objects_count_remote() == 0
        assert_usable(proxy)


def assert_reply_refused(info: pytest.ExceptionInfo[MessageTooLarge]) -> None:
    assert info.value.limit == LIMIT
    assert info.value.size == 4 * LIMIT  # of the tensors; no more is made of the reply


def test_a_reply_over_the_workers_limit_is_not_sent():
    with serving(Server(max_message_bytes=LIMIT)) as server, proxy_of(server) as proxy:
        with pytest.raises(MessageTooLarge, match=r"the reply to zeros\(count=20000\)") as info:
            proxy.call("zeros", count=LIMIT)
        assert_reply_refused(info)
        assert_usable(proxy)


def test_a_reply_over_the_limit_tells_the_bytes_of_all_its_tensors():
    class Several(Server):
        def several(self):
            return [torch.zeros(LIMIT), torch.zeros(1).expand(LIMIT), torch.zeros(LIMIT)]

    with serving(Several(max_message_bytes=LIMIT)) as server, proxy_of(server) as proxy:
        with pytest.raises(MessageTooLarge, match=rf"is {3 * 4 * LIMIT} bytes; the limit is"):
            proxy.call("several")
        assert_usable(proxy)


def test_a_reply_over_the_proxys_limit_is_not_sent():
    with serving(Server()) as server, proxy_of(server, max_message_bytes=LIMIT) as proxy:
        with pytest.raises(MessageTooLarge) as info:
            proxy.call("zeros", count=LIMIT)
        assert_reply_refused(info)
        assert_usable(proxy)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(LIMIT, 10 * LIMIT), (10 * LIMIT, LIMIT)],
    ids=["proxy's limit", "worker's limit"],
)
def test_object_over_the_limit_stays_on_the_worker(ours, theirs):
    large = LARGE.clone()
    large.id, large.tags = "large", {"#offered"}
    with (
        serving(Server(max_message_bytes=theirs)) as server,
        proxy_of(server, max_message_bytes=ours) as proxy,
    ):
        server.load_data([large])
        with pytest.raises(MessageTooLarge):
            proxy.request_obj("large")
        assert proxy.objects_count_remote() == 1


def test_a_worker_cuts_off_a_peer_that_ignores_its_limit():
    with serving(Server(max_message_bytes=LIMIT)) as server, proxy_of(server) as good:
        with raw(server) as connection:
            connection.send(bytes(LIMIT + 1))
            with pytest.raises(websockets.exceptions.ConnectionClosedError, match="1009"):
                connection.recv(timeout=DEADLINE)
        assert_usable(good)


def test_messages_up_to_the_limit_pass():
    request = call("scale", x=torch.zeros(1000))
    size = len(wire.encode(request))
    with serving(Server(max_message_bytes=size)) as server, raw(server) as connection:
        assert exchange(connection, request).result.shape == (1000,)
    with serving(Server(max_message_bytes=size - 1)) as server, raw(server) as connection:
        connection.send(wire.encode(request))
        with pytest.raises(websockets.exceptions.ConnectionClosedError, match="1009"):
            connection.recv(timeout=DEADLINE)


def test_a_proxy_cuts_off_a_worker_that_ignores_its_limit():
    def boast(connection) -> None:
        connection.recv(timeout=DEADLINE)
        connection.send(greeting(10 * LIMIT))
        request = wire.decode(connection.recv(timeout=DEADLINE))
        connection.send(wire.encode(wire.Reply(request.id, LARGE)))

    with false_worker(boast) as port, proxy_at("127.0.0.1", port, max_message_bytes=LIMIT) as proxy:
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="1009"):
                proxy.call("zeros", count=LIMIT)
