"""Torch's layers, losses and optimizers work through the operators that remote tensors may use.

A tensor subclass stands for the coordinator's side: it has no memory, and passes each operation
that arrives at it to a thread that stands for the worker, and has the graph.
"""

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from syft.remote.operators import resolve, without_out

WHOLE = ("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell")
"""What is not taken apart: the parts change views in place, which gradients do not allow."""


class Posted(torch.Tensor):
    """A tensor of another thread.

    Args:
        held: that tensor.
    """

    thread = None

    @staticmethod
    def __new__(cls, held):
        new = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), dtype=held.dtype
        )
        new.held = held
        return new

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), named=None):
        name = function.__name__
        if name in WHOLE:
            overload = "" if name.endswith("cell") else ".input"
            found = resolve(f"aten::{name}{overload}")
            result = cls.thread.submit(found.function, *tree_map(held, list(arguments))).result()
            return tree_map(cls, result)
        with torch._C.DisableTorchFunctionSubclass():
            return function(*arguments, **(named or {}))

    @classmethod
    def __torch_dispatch__(cls, operation, types, arguments=(), named=None):
        schema = operation._schema
        name = f"{schema.name}.{schema.overload_name}".rstrip(".")
        named, out = dict(named or {}), None
        if "out" in named:
            name, out = without_out(name), named.pop("out")
        found = resolve(name)
        assert found is not None, name
        values, named = tree_map(held, (list(arguments), named))
        result = cls.thread.submit(found.function, *values, **named).result()
        if out is not None:
            cls.thread.submit(out.held.data.copy_, result).result()
            return out
        if found.writes is not None and found.name != "aten::rrelu_with_noise":
            return arguments[found.writes]
        return tree_map(lambda each: cls(each) if isinstance(each, torch.Tensor) else each, result)


def held(value):
    return value.held if isinstance(value, Posted) else value


@pytest.fixture(autouse=True)
def worker(monkeypatch):
    with ThreadPoolExecutor(1) as thread:
        monkeypatch.setattr(Posted, "thread", thread)
        yield thread


def posted(module):
    """Return a copy of a module whose tensors are the worker's."""
    module = copy.deepcopy(module)
    for each in module.modules():
        if isinstance(each, nn.RNNBase):
            names = each._flat_weights_names
        for name, parameter in list(each._parameters.items()):
            if parameter is not None:
                del each._parameters[name]
                setattr(each, name, Posted(parameter.detach().requires_grad_()))
        for name, buffer in each._buffers.items():
            each._buffers[name] = None if buffer is None else Posted(buffer)
        if isinstance(each, nn.RNNBase):
            each._flat_weights = [getattr(each, name) for name in names]
    return module


def gradients(module, inputs, seed=0):
    """Return the outputs and all gradients of the sum of what a module computes."""
    torch.manual_seed(seed)
    given = module(*inputs)
    results = [
        held(each)
        for each in (given if isinstance(given, tuple) else [given])
        if isinstance(each, torch.Tensor)
    ]
    loss = sum((each * each).sum() for each in results if each.is_floating_point())
    loss.backward()
    leaves = [held(each) for each in tree_leaves(inputs) if isinstance(each, torch.Tensor)]
    tensors = (
        each
        for part in module.modules()
        for each in (*part._parameters.values(), *vars(part).values())
    )
    leaves += [held(each) for each in tensors if isinstance(each, (Posted, nn.Parameter))]
    return [each.detach() for each in results] + [each.grad for each in leaves]


def rows(*shape):
    return torch.randn(*shape)


IDS = torch.tensor([0, 2, 1])
LAYERS = [
    (nn.Linear(4, 5), rows(3, 4)),
    (nn.Bilinear(4, 4, 3), rows(3, 4), rows(3, 4)),
    (nn.Conv1d(3, 6, 3, padding=1), rows(2, 3, 9)),
    (nn.Conv2d(4, 8, 3, groups=4, padding_mode="circular", padding=1), rows(2, 4, 9, 9)),
    (nn.Conv3d(3, 6, 3), rows(2, 3, 5, 5, 5)),
    (nn.ConvTranspose2d(3, 6, 3, stride=2), rows(2, 3, 5, 5)),
    (nn.MaxPool1d(2), rows(2, 3, 8)),
    (nn.MaxPool2d(2), rows(2, 3, 8, 8)),
    (nn.MaxPool3d(2), rows(2, 3, 4, 4, 4)),
    (nn.AvgPool2d(2), rows(2, 3, 8, 8)),
    (nn.LPPool2d(2, 2), rows(2, 3, 8, 8)),
    (nn.AdaptiveAvgPool2d(3), rows(2, 3, 8, 8)),
    (nn.AdaptiveAvgPool3d(2), rows(2, 3, 4, 4, 4)),
    (nn.AdaptiveMaxPool2d(3), rows(2, 3, 8, 8)),
    (nn.FractionalMaxPool2d(2, output_size=3), rows(2, 3, 8, 8)),
    (nn.BatchNorm1d(4), rows(3, 4)),
    (nn.BatchNorm2d(4), rows(3, 4, 5, 5)),
    (nn.BatchNorm3d(4, track_running_stats=False), rows(3, 4, 3, 3, 3)),
    (nn.LayerNorm(4), rows(3, 4)),
    (nn.GroupNorm(2, 4), rows(3, 4, 5)),
    (nn.InstanceNorm1d(4, affine=True, track_running_stats=True), rows(3, 4, 5)),
    (nn.LocalResponseNorm(2), rows(3, 4, 5, 5)),
    (nn.RMSNorm(4), rows(3, 4)),
    (nn.ReLU(), rows(3, 4)),
    (nn.GELU(), rows(3, 4)),
    (nn.SiLU(), rows(3, 4)),
    (nn.Mish(), rows(3, 4)),
    (nn.ELU(), rows(3, 4)),
    (nn.Hardswish(), rows(3, 4)),
    (nn.LogSigmoid(), rows(3, 4)),
    (nn.PReLU(4), rows(3, 4)),
    (nn.Softplus(), rows(3, 4)),
    (nn.GLU(), rows(3, 4)),
    (nn.Softmax(-1), rows(3, 4)),
    (nn.LogSoftmax(-1), rows(3, 4)),
    (nn.Unflatten(1, (2, 2)), rows(3, 4)),
    (nn.Fold((4, 5), 2), rows(2, 12, 12)),
    (nn.Unfold(2), rows(2, 3, 4, 5)),
    (nn.PixelShuffle(2), rows(2, 4, 3, 3)),
    (nn.ReflectionPad2d(1), rows(2, 3, 4, 4)),
    (nn.RNN(4, 5, 2, bidirectional=True), rows(3, 2, 4), rows(4, 2, 5)),
    (nn.GRU(4, 5), rows(3, 2, 4), rows(1, 2, 5)),
    (nn.LSTMCell(4, 5), rows(3, 4), (rows(3, 5), rows(3, 5))),
    (nn.GRUCell(4, 5), rows(3, 4), rows(3, 5)),
    (nn.MultiheadAttention(4, 2), rows(3, 2, 4), rows(3, 2, 4), rows(3, 2, 4)),
    (nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0), rows(3, 2, 4)),
    (nn.TransformerDecoderLayer(4, 2, 8, dropout=0.0), rows(3, 2, 4), rows(3, 2, 4)),
    (nn.Embedding(7, 4, padding_idx=0), IDS),
    (nn.EmbeddingBag(7, 4), IDS[None]),
    (nn.EmbeddingBag(7, 4, mode="max"), IDS[None]),
    (nn.CosineSimilarity(), rows(3, 4), rows(3, 4)),
    (nn.Upsample(scale_factor=2), rows(2, 3, 4, 4)),
    (nn.Upsample(scale_factor=2, mode="bilinear"), rows(2, 3, 4, 4)),
    (nn.Upsample(scale_factor=2, mode="bicubic", align_corners=True), rows(2, 3, 4, 4)),
    (nn.MSELoss(), rows(3, 4), rows(3, 4)),
    (nn.SmoothL1Loss(), rows(3, 4), rows(3, 4)),
    (nn.HuberLoss(), rows(3, 4), rows(3, 4)),
    (nn.CrossEntropyLoss(label_smoothing=0.1), rows(3, 4), IDS),
    (nn.NLLLoss(), rows(3, 4), IDS),
    (nn.NLLLoss(), rows(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64)),
    (nn.BCEWithLogitsLoss(), rows(3, 4), torch.rand(3, 4)),
    (nn.BCELoss(), torch.rand(3, 4), torch.rand(3, 4)),
    (nn.KLDivLoss(reduction="batchmean"), rows(3, 4), torch.rand(3, 4)),
    (nn.PoissonNLLLoss(), rows(3, 4), torch.rand(3, 4)),
    (nn.MultiMarginLoss(), rows(3, 4), IDS),
    (nn.MultiLabelMarginLoss(), rows(3, 4), torch.zeros(3, 4, dtype=torch.int64)),
    (nn.MultiLabelSoftMarginLoss(), rows(3, 4), torch.rand(3, 4)),
    (nn.TripletMarginLoss(), rows(3, 4), rows(3, 4), rows(3, 4)),
    (nn.CosineEmbeddingLoss(), rows(3, 4), rows(3, 4), torch.ones(3)),
    (nn.MarginRankingLoss(), rows(3), rows(3), torch.ones(3)),
    (nn.CTCLoss(), rows(6, 2, 5), torch.randint(1, 5, (2, 3)), [6, 6], [3, 2]),
]  # fmt: skip
NAMES = [f"{number}-{type(layer).__name__}" for number, (layer, *_) in enumerate(LAYERS)]


def leaf(value):
    if isinstance(value, (tuple, list)):
        return type(value)(leaf(item) for item in value)
    if not isinstance(value, torch.Tensor):
        return value
    return value.clone().requires_grad_(value.is_floating_point())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("number", range(len(LAYERS)), ids=NAMES)
def test_a_layer_gives_what_it_gives_locally_and_so_do_its_gradients(number, training):
    layer, *inputs = LAYERS[number]
    layer.train(training)
    there = [
        tree_map(lambda each: Posted(leaf(each)) if isinstance(each, torch.Tensor) else each, each)
        for each in inputs
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = gradients(posted(layer), there)
        expected = gradients(copy.deepcopy(layer), [leaf(each) for each in inputs])

    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)
