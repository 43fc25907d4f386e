"""What becomes of a model that arrives, as its receiver's owner decides."""

import io

import pytest
import torch

from syft.access.policy import Enforcer, Policy
from syft.exceptions import MalformedMessage, NotPermitted, OperatorNotAllowed
from syft.graph import GraphModule, Receiver, convert
from tests.graph.arriving import structure
from tests.models import blobs, classifier, nll


def archive_of(model):
    buffer = io.BytesIO()
    torch.jit.save(model, buffer)
    return buffer.getvalue()


def given(receiver, obj):
    model = convert(obj)
    return receiver.graph(model.structure, model.state, model.constants)


def test_a_model_arrives_with_its_digest():
    model = given(Receiver(), classifier())
    assert isinstance(model, GraphModule) and model.graph_digest == convert(classifier()).digest
    assert torch.equal(model(blobs().data), classifier()(blobs().data))


def test_only_models_of_the_digests_that_the_owner_permits_are_read(monkeypatch):
    digest = convert(classifier()).digest
    receiver = Receiver(Enforcer("alice", Policy(models=[digest])).check_model)
    given(receiver, classifier(seed=5))
    monkeypatch.setattr("syft.graph.receive.read_structure", pytest.fail)
    for structure_ in (convert(nll).structure, b"no structure at all"):
        with pytest.raises(NotPermitted, match="models"):
            receiver.graph(structure_, [], [])


def test_other_constants_are_another_model():
    one, two = (
        torch.jit.trace(lambda x, c=c: x * c, torch.ones(2))
        for c in (torch.ones(2), torch.zeros(2))
    )
    receiver = Receiver(Enforcer("alice", Policy(models=[convert(one).digest])).check_model)
    given(receiver, one)
    with pytest.raises(NotPermitted):
        given(receiver, two)
    extra = convert(one)
    digest = convert(one).digest
    with pytest.raises(NotPermitted):
        receiver.graph(extra.structure, [], [*extra.constants, torch.ones(1)])
    # bytes that nothing names tell nothing
    with pytest.raises(MalformedMessage, match="2 constants"):
        Receiver().graph(extra.structure, [], [*extra.constants, torch.ones(0)])
    assert digest == convert(one).digest


def test_operators_that_the_owner_allows():
    packed = structure([0, [0], 1], operators=("aten::special_i1",), result=2)
    model = Receiver(allow_operators=["aten::special_i1"]).graph(packed, [], [])
    assert torch.equal(model(torch.ones(1)), torch.special.i1(torch.ones(1)))
    with pytest.raises(OperatorNotAllowed, match="special_i1"):
        Receiver().graph(packed, [], [])


def test_torchscript_is_not_even_looked_at_unless_the_owner_allows_it(monkeypatch):
    archive = archive_of(classifier())
    model = Receiver(allow_torchscript=True).archive(archive)
    assert (
        torch.equal(model(blobs().data), classifier()(blobs().data))
        and len(model.graph_digest) == 64
    )
    with pytest.raises(MalformedMessage, match="cannot be read"):
        Receiver(allow_torchscript=True).archive(archive[:100])
    with pytest.raises(NotPermitted):
        Receiver(Enforcer("alice", Policy(models=[])).check_model, allow_torchscript=True).archive(
            archive
        )
    monkeypatch.setattr(torch.jit, "load", pytest.fail)
    for content in (archive, b"", b"PK\x03\x04"):
        with pytest.raises(OperatorNotAllowed, match="allow_torchscript"):
            Receiver().archive(content)
