"""Models as people have them: one of each family of torchvision, and layers that draw random
numbers.

`make test` tries a few, which have nearly all operators of the others; with ALL_TESTS=1, as in
`make test-all`, all are tried. Not among them since they are large, but tried: vgg11, vit_b_16,
swin_v2_t and maxvit_t as torchvision has them.
"""

import os
import warnings

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    SwinTransformer,
    SwinTransformerBlockV2,
)

from tests.graph.arriving import arrived

SMALL = {
    "alexnet": 64,
    "squeezenet1_0": 64,
    "resnet18": 32,
    "densenet121": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "shufflenet_v2_x0_5": 32,
    "mnasnet0_5": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 32,
    "regnet_y_400mf": 32,
    "convnext_tiny": 32,
    "swin_t": 64,
}
"""Name -> width of its images."""


def vision_transformer():
    return torchvision.models.VisionTransformer(32, 16, 2, 2, 32, 64, dropout=0.1, num_classes=4)


def swin_v2():
    settings = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
    return SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=4, **settings)


def max_vit():
    return torchvision.models.MaxVit((64, 64), 16, 2, [16, 32], [1, 1], 16, 0.2, num_classes=4)


FAMILIES = {
    **{name: (lambda name=name: named(name), width) for name, width in SMALL.items()},
    "vit": (vision_transformer, 32),
    "maxvit": (max_vit, 64),
    "swin_v2": (swin_v2, 64),
}
TRIED = (
    FAMILIES
    if os.environ.get("ALL_TESTS")
    else ("vit", "maxvit", "swin_v2", "mobilenet_v3_small", "googlenet")
)


def named(name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name == "inception_v3":
        options["aux_logits"] = False  # they need images of 299
    return torchvision.models.get_model(name, num_classes=4, **options)


def step(model, x):
    """Train one step; return the loss."""
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    output = model(x)
    outputs = output if isinstance(output, (tuple, list)) else [output]
    loss = sum(F.cross_entropy(each, torch.tensor([1, 2])) for each in outputs if each is not None)
    loss.backward()
    optimizer.step()
    return loss


def traced(model, x):
    """Return a trace of a model in training mode, which stays as it is."""
    before = [buffer.clone() for buffer in model.buffers()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = torch.jit.trace(model, x, check_trace=False)
    for buffer, value in zip(model.buffers(), before, strict=True):
        buffer.copy_(value)
    return trace


@pytest.mark.parametrize("name", TRIED)
def test_a_model_of_torchvision_trains_one_step_as_in_plain_torch(name):
    make, width = FAMILIES[name]
    model, x = make(), torch.randn(2, 3, width, width)
    here = arrived(traced(model, x))
    assert torch.equal(step(here, x), step(model.train(), x))
    state = here.graph_state()
    for key, tensor in model.state_dict().items():
        assert torch.equal(state[key], tensor), key


class DropPath(nn.Module):
    """Stochastic depth, as timm has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        kept = x.new_empty([x.size(0)] + [1] * (x.dim() - 1)).bernoulli_(0.8)
        kept.div_(0.8)
        return x * kept


class LockedDropout(nn.Module):
    """The same mask for each step of a sequence, as language models have it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        mask = torch.empty(1, x.size(1)).bernoulli_(0.7)
        return x * mask.div_(0.7).expand_as(x)


class Checked(nn.Module):
    """Says what it does, and what is wrong."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.size(0) > 0, "%d samples" % x.size(0)  # noqa: UP031
        print("samples:", x.size(0))
        noise = (
            torch.empty(x.size(0), 1).bernoulli_(0.5)
            + torch.empty_like(x).normal_()
            + torch.rand_like(x)
        )
        return (
            x
            + noise * torch.randn(x.shape)
            + torch.empty(3, dtype=torch.float64).uniform_().sum().float()
        )


@pytest.mark.parametrize("layer", [DropPath, LockedDropout, Checked])
def test_layers_that_draw_random_numbers_train_one_step_as_in_plain_torch(layer):
    x = torch.randn(2, 6)
    for kind in (lambda model: traced(model, x), torch.jit.script):
        model = nn.Sequential(nn.Linear(6, 6), layer(), nn.Linear(6, 4))
        here = arrived(kind(model))
        assert torch.equal(step(here, x), step(model, x))
        assert all(
            torch.equal(here.graph_state()[key], tensor)
            for key, tensor in model.state_dict().items()
        )
