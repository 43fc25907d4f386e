"""What comes back from a worker: tensors like those that were sent, and nothing else."""

import copy

import pytest
import torch
from torch import nn

from syft.exceptions import InvalidReply
from syft.graph.returned import with_state
from syft.graph.script import is_script
from tests.graph.arriving import both
from tests.graph.test_interpret import Tied
from tests.models import Classifier, blobs, nll


def state_of(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def test_a_model_comes_back_with_other_parameters_and_nothing_else_changed():
    plain = Classifier()
    for _, sent in (("plain", plain), *both(plain, blobs().data)):
        before = copy.deepcopy(sent.state_dict())
        state = {name: tensor + 1 for name, tensor in state_of(sent).items()}
        model = with_state(sent, dict(state), "alice")
        assert is_script(model) is is_script(sent)
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
        assert all(torch.equal(tensor, before[name]) for name, tensor in sent.state_dict().items())
        assert [p.requires_grad for p in model.parameters()] == [
            p.requires_grad for p in sent.parameters()
        ]
        model(blobs().data).sum().backward()


def test_tied_and_frozen_parameters_stay_so():
    sent = Tied()
    state = {name: tensor for name, tensor in state_of(sent).items() if name != "tied.weight"} | {
        "scale": sent.scale
    }
    model = with_state(sent, state, "alice")
    assert model.first.weight is model.tied.weight and not model.first.bias.requires_grad


def test_a_function_comes_back_as_it_went():
    assert with_state(nll, {}, "alice") is nll
    with pytest.raises(InvalidReply, match="'alice'"):
        with_state(nll, {"weight": torch.ones(1)}, "alice")


CHANGES = {
    "another name": lambda state: state.update(more=torch.ones(1)),
    "a name missing": lambda state: state.pop("output.bias"),
    "another shape": lambda state: state.update({"output.bias": torch.ones(4)}),
    "another dtype": lambda state: state.update({"output.bias": state["output.bias"].double()}),
    "nothing": lambda state: state.update({"output.bias": None}),
    "a list": lambda state: state.update({"output.bias": [1.0, 2.0, 3.0]}),
    "no number": lambda state: state["output.bias"].fill_(float("nan")),
    "an infinity": lambda state: state["hidden.weight"][0].fill_(float("inf")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_tensors_that_are_not_like_those_that_were_sent_are_refused(name):
    sent = Classifier()
    state = state_of(sent)
    CHANGES[name](state)
    with pytest.raises(InvalidReply, match="worker 'alice' sent an invalid reply"):
        with_state(sent, state, "alice")


def test_a_reply_that_is_no_map_is_refused():
    for state in (None, [], "x", torch.ones(1), {1: torch.ones(1)}):
        with pytest.raises(InvalidReply):
            with_state(Classifier(), state, "alice")


class Masked(nn.Module):
    """Has infinities where they belong."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("mask", torch.tensor([0.0, -float("inf")]))
        self.register_buffer("missing", torch.tensor([float("nan"), 1.0]))


def test_infinities_may_stay_where_they_were_and_come_nowhere_else():
    sent = Masked()
    model = with_state(sent, state_of(sent), "alice")
    assert torch.equal(model.mask, sent.mask)
    for name, value in (
        ("mask", torch.tensor([-float("inf"), 0.0])),
        ("missing", torch.tensor([1.0, float("nan")])),
    ):
        with pytest.raises(InvalidReply, match="1 values that are not finite"):
            with_state(sent, state_of(sent) | {name: value}, "alice")


def test_parameters_that_come_back_in_one_memory_are_taken_apart():
    sent = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    same = torch.ones(2, 2)
    model = with_state(sent, state_of(sent) | {"0.weight": same, "1.weight": same}, "alice")
    with torch.no_grad():
        model[0].weight.add_(1)
    assert torch.equal(model[1].weight, torch.ones(2, 2))
