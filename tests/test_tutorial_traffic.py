"""What the notebook on remote tensors counts, beside what a worker has carried out."""

import pytest
import torch

import syft as sy
from syft.remote import stream
from syft.workers.websocket_link import Link
from tests.models import make_config
from tests.network import DEADLINE, Server, proxy_of, serving
from tutorial.traffic import counting


@pytest.fixture
def bob():
    with serving(Server("bob", remote_operations=True)) as server, proxy_of(server) as proxy:
        sy.TorchHook(torch)
        yield proxy


def test_operations_are_counted_and_only_the_wait_for_a_value_is_one(bob, monkeypatch):
    # Nothing goes before the value is asked for, however slow this machine is.
    monkeypatch.setattr(stream, "FLUSH_SECONDS", DEADLINE)
    monkeypatch.setattr(stream, "GARBAGE_SECONDS", DEADLINE)
    x = torch.ones(3).send(bob)
    bob.objects_count_remote()
    with counting() as traffic:
        y = (x * 2 + 1).sum()
        assert y.get() == 9
    # x * 2, + 1, sum, and the deletion of what is in between
    assert (traffic.operations, traffic.waits, len(traffic.received)) == (4, 1, 1)
    assert [message.command for message in traffic.messages] == ["operate", "reply"]
    assert traffic.bytes == sum(message.bytes for message in traffic.messages) > 0
    assert 0 < traffic.messages[0].seconds < traffic.messages[1].seconds < traffic.seconds


def test_requests_are_counted_by_their_commands(bob):
    bob.objects_count_remote()
    config = make_config()
    with counting() as traffic:
        config.send(bob)
        bob.objects_count_remote()
        assert config.model_ptr.get().obj is not None
    commands = [message.command for message in traffic.sent]
    assert commands == ["model", "call", "get"]
    assert (traffic.waits, traffic.operations) == (2, 0)


def test_nothing_is_counted_afterwards(bob):
    before = Link.send, Link._hand_over
    with pytest.raises(ZeroDivisionError), counting() as traffic:
        _ = 1 / 0
    bob.objects_count_remote()
    assert (Link.send, Link._hand_over) == before
    assert traffic.messages == []
