"""The model for evaluation computes the same as the model itself, but for rounding, and leaves it
alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from syft.graph import for_inference
from syft.graph.local import _FastModel
from tests.graph.arriving import arrived, both, graph
from tests.graph.test_interpret import MODELS
from tests.models import Classifier


class Net(nn.Module):
    """What `body` does with the layers that it is given."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


def net(forward, **layers):
    """Return a module with these layers and this forward(), as one that TorchScript can compile."""
    return type(forward.__name__, (Net,), {"forward": forward})(**layers)


def plain(self, x: torch.Tensor) -> torch.Tensor:
    return self.n(self.c(x))


def relu(self, x: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(F.relu(self.n(self.c(x))), 2)


def relu_in_place(self, x: torch.Tensor) -> torch.Tensor:
    return F.relu(self.n(self.c(x)), inplace=True) * 3


def convolution_twice(self, x: torch.Tensor) -> torch.Tensor:
    return self.n(self.c(x)) + self.c(2 * x)


def normalisation_twice(self, x: torch.Tensor) -> torch.Tensor:
    y = self.c(x)
    return self.n(y) + self.n(2 * y)


def output_twice(self, x: torch.Tensor) -> torch.Tensor:
    y = self.c(x)
    return self.n(y) + y


def sized(self, x: torch.Tensor) -> torch.Tensor:
    y = self.c(x)
    z = self.n(y)
    return z.view(y.size(0), -1) * y.dim()


def viewed(self, x: torch.Tensor) -> torch.Tensor:
    y = self.n(self.c(x))
    return y.view(y.size(0), -1).view_as(y.flatten(1)).unflatten(1, (2, -1)).permute(0, 2, 1)


def catenated(self, x: torch.Tensor) -> torch.Tensor:
    y = self.c(x)
    return torch.cat([self.n(y), torch.sigmoid(y), y.tanh()], 1)


def residual(self, x: torch.Tensor) -> torch.Tensor:
    y = F.relu(self.n(self.c(x)))
    z = y + self.d(y)
    z += y
    return F.adaptive_avg_pool2d(F.relu_(z), 1).flatten(1)


def written_and_read(self, x: torch.Tensor) -> torch.Tensor:
    y = F.relu(self.c(x))
    y.mul_(2)
    return y + 1


def written_through_a_view(self, x: torch.Tensor) -> torch.Tensor:
    y = self.c(x)
    y.view(-1)[:7].add_(5)
    return y * 1


def written_through_a_row(self, x: torch.Tensor) -> torch.Tensor:
    y = self.n(self.c(x))
    y[0, 0].zero_()
    z = y.flatten(1)
    z[:, 0].fill_(3)
    return y + 1


def written_before(self, x: torch.Tensor) -> torch.Tensor:
    y = self.c(x)
    z = self.n(y)
    F.relu_(y)
    return z + y


def written_in_a_branch(self, x: torch.Tensor) -> torch.Tensor:
    y = self.c(x)
    if x.size(0) > 1:
        y.add_(1)
    return y.relu()


def broadcast(self, x: torch.Tensor) -> torch.Tensor:
    y = F.relu(self.c(x))
    return y + F.adaptive_avg_pool2d(y, 1) + self.d(F.adaptive_avg_pool2d(y, 1))


def pooled(self, x: torch.Tensor) -> torch.Tensor:
    y = F.relu(self.c(x))
    one = F.max_pool2d(y, 3, 2, 1, ceil_mode=True) + F.avg_pool2d(
        y, 3, 2, 1, ceil_mode=True, count_include_pad=False
    )
    return (
        one.sum()
        + F.max_pool2d(y, 2, 1, dilation=2).mean()
        + F.adaptive_avg_pool2d(y, (2, 3)).sum()
    )


def gated(self, x: torch.Tensor) -> torch.Tensor:
    y = self.n(self.c(x))
    if self.training:
        y = y * 100
    elif y.size(0) > 3:
        y = y + 1
    return y


def in_a_dict(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
    y = self.c(x)
    return {"a": F.relu(y), "b": y}


def in_a_tuple(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    y = self.c(x)
    return F.relu(y), [y, y + 1]


def norm(channels=4, **settings):
    """Return a batch normalisation with statistics of its own."""
    layer = nn.BatchNorm2d(channels, **settings)
    with torch.no_grad():
        for tensor in layer.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2)
    return layer


def of_dimension(make_conv, make_norm):
    model = nn.Sequential(make_conv(4, 4, 3), make_norm(4), nn.ReLU())
    model[1].running_mean.uniform_(), model[1].running_var.uniform_(0.5, 2)
    return model


X = torch.randn(5, 4, 9, 9, generator=torch.Generator().manual_seed(0))


def conv(*arguments, **settings):
    return nn.Conv2d(4, 4, 3, *arguments, **settings)


def tied():
    model = net(residual, c=conv(padding=1), n=norm(), d=conv(padding=1))
    model.d.weight = model.c.weight
    return model


CASES = {
    "without bias": lambda: net(plain, c=conv(bias=False), n=norm()),
    "with bias": lambda: net(plain, c=conv(), n=norm(eps=0.1)),
    "relu and pooling": lambda: net(relu, c=conv(), n=norm()),
    "in place": lambda: net(relu_in_place, c=conv(), n=norm()),
    "grouped": lambda: net(plain, c=conv(groups=2), n=norm()),
    "depthwise": lambda: net(relu, c=conv(groups=4, bias=False), n=norm()),
    "dilated": lambda: net(plain, c=conv(dilation=2, stride=2, padding=3), n=norm()),
    "same padding": lambda: net(plain, c=conv(padding="same"), n=norm()),
    "reflected": lambda: net(plain, c=conv(padding=1, padding_mode="reflect"), n=norm()),
    "transposed": lambda: net(plain, c=nn.ConvTranspose2d(4, 4, 3, stride=2), n=norm()),
    "without scale": lambda: net(plain, c=conv(), n=norm(affine=False)),
    "without statistics": lambda: net(plain, c=conv(), n=norm(track_running_stats=False)),
    "cumulative mean": lambda: net(plain, c=conv(), n=norm(momentum=None)),
    "convolution twice": lambda: net(convolution_twice, c=conv(), n=norm()),
    "normalisation twice": lambda: net(normalisation_twice, c=conv(), n=norm()),
    "output twice": lambda: net(output_twice, c=conv(), n=norm()),
    "size of the output": lambda: net(sized, c=conv(), n=norm()),
    "views": lambda: net(viewed, c=conv(), n=norm()),
    "cat": lambda: net(catenated, c=conv(), n=norm()),
    "residual": lambda: net(residual, c=conv(padding=1), n=norm(), d=conv(padding=1)),
    "tied": tied,
    "written and read": lambda: net(written_and_read, c=conv()),
    "written through a view": lambda: net(written_through_a_view, c=conv()),
    "written through a row": lambda: net(written_through_a_row, c=conv(), n=norm()),
    "written before": lambda: net(written_before, c=conv(), n=norm()),
    "written in a branch": lambda: net(written_in_a_branch, c=conv()),
    "broadcast": lambda: net(broadcast, c=conv(), d=nn.Conv2d(4, 4, 1)),
    "pooling of all kinds": lambda: net(pooled, c=conv()),
    "a branch for training": lambda: net(gated, c=conv(), n=norm()),
    "a tuple": lambda: net(in_a_tuple, c=conv()),
    "frozen": lambda: net(plain, c=conv().requires_grad_(False), n=norm()),
}


def close(one, other):
    if isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in other)
    return one.layout == other.layout and torch.allclose(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_it_computes_the_same_but_for_rounding(name):
    model = CASES[name]().eval()
    for double in (False, True):
        dtype = torch.float64 if double else torch.float32
        model, x = model.to(dtype), X.to(dtype)
        for kind, script in both(model, x):
            here = arrived(script)
            before = copy.deepcopy(here.state_dict())
            fast = for_inference(here)
            assert isinstance(fast, _FastModel), kind
            views = name in ("size of the output", "views", "written through a view")
            for inputs in (x, x.to(memory_format=torch.channels_last), x.transpose(2, 3), x[:1])[
                : 1 if views else 4
            ]:
                if kind == "scripted" or len(inputs) > 1:  # a trace takes one branch
                    assert close(fast(inputs.clone()), model(inputs.clone())), kind
            after = here.state_dict()
            assert all(torch.equal(before[key], after[key]) for key in before)
            assert all(parameter.requires_grad for parameter in here.parameters()) is (
                name != "frozen"
            )


@torch.inference_mode()
def test_a_dict_and_images_without_a_batch_give_what_torch_gives():
    model = net(in_a_dict, c=conv()).eval()
    fast = for_inference(arrived(torch.jit.script(model)))
    assert close(fast(X), model(X)) and close(fast(X[0]), model(X[0]))


@torch.inference_mode()
def test_convolutions_of_other_dimensions_give_what_torch_gives():
    for make_conv, make_norm, shape in (
        (nn.Conv1d, nn.BatchNorm1d, (2, 4, 9)),
        (nn.Conv3d, nn.BatchNorm3d, (2, 4, 5, 5, 5)),
        (nn.ConvTranspose1d, nn.BatchNorm1d, (2, 4, 9)),
        (nn.ConvTranspose3d, nn.BatchNorm3d, (2, 4, 3, 3, 3)),
    ):
        model, x = of_dimension(make_conv, make_norm).eval(), torch.randn(shape)
        for _, script in both(model, x):
            assert close(for_inference(arrived(script))(x), model(x))


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_models_of_all_kinds_give_what_torch_gives(name):
    make, data = MODELS[name]
    model = make().eval()
    for _, script in both(model, data[:5]):
        here = arrived(script)
        assert close(for_inference(here)(data), model(data))


@torch.inference_mode()
def test_normalisation_goes_into_the_convolution():
    model = net(relu, c=conv(), n=norm()).eval()
    for kind, script in both(model, X):
        names = [step.name for step in for_inference(arrived(script))._program.steps]
        assert "aten::batch_norm" not in names, kind


def test_it_does_not_follow_later_changes():
    model = arrived(torch.jit.script(net(plain, c=conv(), n=norm()))).eval()
    fast = for_inference(model)
    expected = fast(X)
    with torch.no_grad():
        model.c.weight.add_(1)
    assert torch.equal(fast(X), expected) and not torch.equal(model(X), expected)


def counting(self, x: torch.Tensor) -> torch.Tensor:
    self.n.running_mean.view(-1).add_(1)
    return self.n(x)


def replacing(self, x: torch.Tensor) -> torch.Tensor:
    self.n.running_mean = self.n.running_mean + 1
    return self.n(x)


def test_models_that_change_while_they_compute_are_left_as_they_are():
    for forward in (counting, replacing):
        model = arrived(torch.jit.script(net(forward, n=norm()).eval()))
        assert for_inference(model) is model
        assert not torch.equal(model(X), model(X))
    constant = graph(
        [0, [-1, 0], 1],
        operators=("aten::add_.Tensor",),
        constants=({"tensor": [0, "float32", [1]]},),
        result=2,
        tensors=(torch.ones(1),),
    )
    assert for_inference(constant.eval()) is constant
    assert [constant(torch.ones(1)).item() for _ in range(3)] == [2, 3, 4]


def test_models_that_train_and_those_that_did_not_arrive_are_left_as_they_are():
    for model in (
        Classifier().eval(),
        torch.jit.script(Classifier()).eval(),
        arrived(torch.jit.script(Classifier())),
    ):
        assert for_inference(model) is model


def test_a_convolution_with_few_arguments_is_computed_too():
    weight = {"tensor": [0, "float32", [4, 4, 3, 3]]}
    few = graph(
        [0, [0, -1], 1],
        operators=("aten::conv2d",),
        constants=(weight,),
        result=2,
        tensors=(torch.ones(4, 4, 3, 3),),
    )
    assert torch.allclose(
        for_inference(few.eval())(X), F.conv2d(X, torch.ones(4, 4, 3, 3)), atol=1e-4
    )


def test_a_convolution_that_leaves_out_its_defaults_is_not_folded_and_computes_the_same():
    weight, vector = torch.rand(2, 1, 3, 3), torch.rand(2)
    model = graph(
        [0, [0, -1], 1],
        [1, [2, -2, -2, -2, -2, -3, -4, -4, -3], 1],
        constants=(
            {"tensor": [0, "float32", [2, 1, 3, 3]]},
            {"tensor": [1, "float32", [2]]},
            False,
            0.1,
        ),
        operators=("aten::conv2d", "aten::batch_norm"),
        tensors=(weight, vector),
        result=3,
    ).eval()
    images = torch.rand(2, 1, 5, 5)
    torch.testing.assert_close(for_inference(model)(images), model(images))


def test_what_a_layer_refuses_is_told_in_torchs_words():
    layer = nn.Conv2d(1, 2, 3).eval()
    fast = for_inference(arrived(torch.jit.script(layer)))
    assert isinstance(fast, _FastModel)
    small = torch.rand(1, 1, 2, 2)
    messages = []
    for each in (layer, fast):
        with torch.no_grad(), pytest.raises(RuntimeError) as caught:
            each(small)
        messages.append(str(caught.value))
    assert messages[0] == messages[1] and "Kernel size" in messages[0]
