"""The worker's side of operations on remote tensors, given messages that no proxy writes."""

import pytest
import torch

import syft as sy
from syft.access.limits import Limits
from syft.exceptions import (
    GetNotPermittedError,
    MalformedMessage,
    OperationsLost,
    RemoteOperationFailed,
)
from syft.objects import pack_object
from syft.wire.messages import reference
from tests.network import Server, proxy_of, serving

ONES, OTHER = 1, 2
"""Ids of tensors: the first one is at the worker, the other is to be made."""


@pytest.fixture
def bob():
    sy.TorchHook(torch)
    return sy.VirtualWorker(id="bob", auto_add=False)


class Messages:
    """A stream of messages to a worker, one operation each."""

    def __init__(self, worker):
        self.worker, self.number = worker, -1
        self.send("set", [ONES], [{**pack_object(torch.ones(3)), "id": ONES}])

    def send(self, name, results, arguments, keywords=None, *, number=None, **wanted):
        self.number = self.number + 1 if number is None else number
        operation = [name, results, arguments, keywords or {}, 0, True, None]
        return self.worker._exchange(
            "operate",
            stream=1,
            number=self.number,
            operations=[operation],
            **{"values": [], "geometries": [], "answer": True, **wanted},
        )


@pytest.fixture
def messages(bob):
    return Messages(bob)


MALFORMED = {
    "an argument by a name that there is not": (
        ("aten::neg", [OTHER], [reference(ONES)], {"into": 1}),
        r"aten::neg takes by name \[\] only",
    ),
    "more ids than results": (
        ("aten::neg", [OTHER, OTHER + 1], [reference(ONES)]),
        "2 ids for 1 results",
    ),
    "an operator that is not allowed": (
        ("aten::equal", [OTHER], [reference(ONES), reference(ONES)]),
        "aten::equal, which is not on the list",
    ),
    "a gradient that there is not": (("grad", [OTHER], [reference(ONES)]), "no gradient"),
}


@pytest.mark.parametrize(("operation", "told"), MALFORMED.values(), ids=MALFORMED)
def test_what_no_proxy_writes_is_told_when_its_result_is_asked_for(messages, operation, told):
    with pytest.raises(RemoteOperationFailed, match=told):
        messages.send(*operation, values=[OTHER])


@pytest.mark.parametrize(
    "operation", [["aten::neg"], ["aten::neg", [1.5], [], {}, 0, True, None], "aten::neg"], ids=str
)
def test_an_operation_of_another_form_ends_the_message(bob, operation):
    with pytest.raises(MalformedMessage, match="an operation is malformed"):
        bob._exchange(
            "operate",
            **{"stream": 1, "number": 0, "operations": [operation]},
            **{"values": [], "geometries": [], "answer": True},
        )


def test_a_message_that_leaves_some_out_is_told(messages):
    with pytest.raises(OperationsLost):
        messages.send("aten::neg", [OTHER], [reference(ONES)], number=7)


def test_an_error_is_told_again_if_the_message_comes_again(messages):
    for _ in range(2):
        with pytest.raises(RemoteOperationFailed, match=r"out of range|out of bounds"):
            messages.send(
                "aten::select.int", [OTHER], [reference(ONES), 0, 9], number=1, values=[OTHER]
            )


def test_a_result_that_is_its_argument_has_a_cell_of_its_own(messages):
    reply = messages.send("aten::contiguous", [OTHER], [reference(ONES)], values=[OTHER])
    assert reply["values"][0]["obj"].tolist() == [1, 1, 1]
    messages.send("delete", [], [ONES])
    assert messages.worker.objects_count() == 1


def test_why_an_operation_on_private_values_failed_is_not_told(messages, bob):
    bob._objects[ONES].private = True
    with pytest.raises(GetNotPermittedError):
        messages.send("aten::select.int", [OTHER], [reference(ONES), 0, 9], values=[OTHER])


def test_what_an_owner_offers_is_read_and_not_written():
    sy.TorchHook(torch)
    offered = torch.ones(3).tag("#offered")
    with serving(Server("bob", remote_operations=True)) as server, proxy_of(server) as bob:
        server.load_data([offered])
        (pointer,) = bob.search(["#offered"])
        assert (pointer + 1).get().tolist() == [2, 2, 2]
        with pytest.raises(RemoteOperationFailed, match="that the worker's owner offers"):
            pointer.add_(1).get()
    assert offered.tolist() == [1, 1, 1]


def test_no_more_errors_are_kept_than_objects_may_be():
    bob = sy.VirtualWorker(id="bob", auto_add=False, limits=Limits(objects=2))
    messages = Messages(bob)
    for obj_id in (3, 4, 5):
        messages.send("aten::select.int", [obj_id], [reference(ONES), 0, 9])
    with pytest.raises(RemoteOperationFailed):
        messages.send("delete", [], [], values=[5])
    with pytest.raises(sy.exceptions.ObjectNotFoundError):
        messages.send("delete", [], [], values=[3])
