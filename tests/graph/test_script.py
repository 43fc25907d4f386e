"""What the package asks of TorchScript, and how losses are called."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from syft.graph import loss_of
from syft.graph.script import is_script, silence, to_script
from tests.graph.arriving import arrived
from tests.models import Classifier, blobs, classifier, nll


def by_name(target, pred):
    return pred - target


def by_position(output, label):
    return output - label


class ByName(nn.Module):
    def forward(self, target: torch.Tensor, pred: torch.Tensor) -> torch.Tensor:
        return pred - target


PRED, TARGET = torch.tensor([5.0]), torch.tensor([3.0])
LOSSES = [
    by_name,
    by_position,
    lambda pred, target: pred - target,
    lambda *, target, pred: pred - target,
]
SCRIPTED = [torch.jit.script(by_name), torch.jit.script(by_position), torch.jit.script(ByName())]


@pytest.mark.parametrize("loss_fn", [*LOSSES, *SCRIPTED, *map(arrived, SCRIPTED)])
def test_losses_are_called_by_name_where_they_name_pred_and_target_else_in_order(loss_fn):
    assert loss_of(loss_fn)(PRED, TARGET).item() == 2


def test_losses_of_torch_are_called_in_order():
    pred, target = blobs().data.log_softmax(1), blobs().targets
    for loss_fn in (F.nll_loss, nn.NLLLoss(), F.cross_entropy):
        assert torch.equal(loss_of(loss_fn)(pred, target), loss_fn(pred, target))


def test_traced_and_scripted_models_and_functions_are_told_from_plain_ones():
    assert is_script(classifier()) and is_script(nll)
    assert not is_script(Classifier()) and not is_script(by_name)


def test_a_parser_that_another_thread_disturbed_is_asked_again(monkeypatch):
    compile_, failures = torch.jit.script, [SystemError("AST constructor recursion depth mismatch")]

    def script(obj):
        if failures:
            raise failures.pop()
        return compile_(obj)

    monkeypatch.setattr(torch.jit, "script", script)
    assert is_script(to_script(nn.Linear(1, 1)))


@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning])
def test_torchs_warning_is_silenced_in_every_version_of_torch(category):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silence()
        warnings.warn("`torch.jit.script` is deprecated.", category, stacklevel=1)
