"""What every worker makes of replies, and of arguments that were left out."""

import pytest
import torch

import syft as sy
from syft.exceptions import DeviceUnavailable, InvalidReply
from tests.models import classifier, make_config

REPLY = {"obj": 1, "state": None, "wrapped": False, "tags": [], "description": None}


class Liar(sy.VirtualWorker):
    """A worker whose answers to `get` are what the test says."""

    answer = None

    def _exchange(self, command, timeout=None, **arguments):
        if command == "get":
            return self.answer
        return super()._exchange(command, timeout, **arguments)


@pytest.fixture
def liar():
    return Liar(id="liar", auto_add=False)


async def test_a_worker_in_this_process_is_connected_from_the_start(alice):
    await alice.async_connect()
    assert alice.connection_attempts == 0


@pytest.mark.parametrize("answer", [None, 3, [], {}, {**REPLY, "more": 1}, {"obj": 1}])
def test_a_reply_that_is_no_object_is_refused(liar, answer):
    liar.answer = answer
    with pytest.raises(InvalidReply, match="the reply with object 7"):
        liar.request_obj(7)


def test_something_else_in_place_of_a_model_is_refused(liar):
    pointer = sy.local_worker.send(sy.ObjectWrapper(classifier(), id=7), liar)
    liar.answer = dict(REPLY, obj=torch.ones(1))
    with pytest.raises(InvalidReply, match=r"object 7.*a Tensor.*the parameters of a model"):
        pointer.get()


def test_a_model_that_was_never_sent_is_refused(liar):
    liar.answer = dict(REPLY, state={"weight": torch.ones(1)})
    with pytest.raises(InvalidReply, match=r"object 7.*a model.*one that this process sent"):
        liar.request_obj(7)


async def test_a_device_that_the_worker_has_not_is_named(alice):
    make_config().send(alice)
    with pytest.raises(DeviceUnavailable, match="cuda:99"):
        await alice.async_fit("blobs", device="cuda:99")
