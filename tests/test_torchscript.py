"""Models and functions taken apart and put together again."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from syft import torchscript
from syft.archive import structure_digest
from syft.exceptions import MalformedMessage, NotScriptable
from syft.vetting import Memory
from tests.models import CLASSES, FEATURES, Classifier, blobs, classifier, nll

X = blobs().data


class Everything(nn.Module):
    """Running means, a tied weight, a frozen one, a buffer that is not saved, and constructor arguments."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, width)
        self.norm = nn.BatchNorm1d(width)
        self.tied = nn.Linear(FEATURES, width)
        self.tied.weight = self.first.weight
        self.first.bias.requires_grad_(False)
        self.register_buffer("scale", torch.tensor([2.0], dtype=torch.float64), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.first(x)) * self.scale.float() + self.tied(x)


def everything() -> nn.Module:
    model = Everything(3)
    model(X)  # moves the running means
    return model


def there_and_back(obj):
    return torchscript.load(*torchscript.dump(obj))


MODELS = {
    "plain": lambda: Classifier(),
    "scripted": lambda: classifier(),
    "traced": lambda: torch.jit.trace(Classifier(), X),
    "everything": everything,
    "double": lambda: Classifier().double(),
    "no parameters": lambda: nn.Softmax(dim=1),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_computes_the_same_afterwards(make):
    model = make()
    x = X.double() if any(p.dtype == torch.float64 for p in model.parameters()) else X
    arrived = there_and_back(model)
    for mode in (True, False):
        assert torch.equal(arrived.train(mode)(x), model.train(mode)(x))


def test_names_values_and_flags_stay():
    model = everything()
    arrived = there_and_back(model)
    for kind in ("named_parameters", "named_buffers"):
        before = dict(getattr(model, kind)(remove_duplicate=False))
        after = dict(getattr(arrived, kind)(remove_duplicate=False))
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            assert torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype
            assert after[name].requires_grad == tensor.requires_grad and after[name].is_leaf


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_of_a_scripted_model_stays(mode):
    model = classifier(dropout=0.9).train(mode)
    arrived = there_and_back(model)
    assert arrived.training is mode
    assert torch.equal(arrived(X), arrived(X)) is not mode  # dropout draws anew in each forward pass


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_dump_leaves_the_model_alone(make):
    model = make()
    before = copy.deepcopy(model.state_dict())
    torchscript.dump(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_structure_holds_no_weights():
    small, tensors = torchscript.dump(nn.Linear(4, 4))
    large, _ = torchscript.dump(nn.Linear(1000, 1000))
    assert abs(len(large) - len(small)) < 1000
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {"weight": (4, 4), "bias": (4,)}


class Attributes(nn.Module):
    """Attributes of the kinds that a structure holds."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 3
        self.share = 0.0
        self.text = "a"
        self.linear = nn.Linear(2, 2)
        self.other = nn.Linear(2, 2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.text == "a":
            x = x * self.share
        return self.dropout(self.other(self.linear(x))) * self.number


class WithList(Attributes):
    def __init__(self) -> None:
        super().__init__()
        self.sizes = [1, 2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.sizes[0]


class WithTensor(Attributes):
    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.ones(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def digest_of_a_saved(model: nn.Module) -> str:
    return structure_digest(torchscript._saved_empty(model))


@pytest.mark.parametrize("kind", [Attributes, WithList, WithTensor])
@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model, "number", 4),
        lambda model: setattr(model, "share", -0.0),
        lambda model: setattr(model, "text", "b"),
        lambda model: model.dropout.eval(),
        lambda model: model.linear.weight.requires_grad_(False),
        lambda model: setattr(model.linear.weight, "data", model.linear.weight.data.double()),
        lambda model: setattr(model.linear, "weight", model.other.weight),
        lambda model: model.define("def more(self, x):\n    return x + 1\n"),
    ],
    ids=["integer", "sign of a zero", "text", "mode inside", "frozen", "dtype", "tied", "method"],
)
def test_what_changes_in_a_model_changes_its_structure(kind, change):
    model = torch.jit.script(kind())
    before = structure_digest(torchscript.dump(model)[0])
    assert before == digest_of_a_saved(model)
    change(model)
    assert before != structure_digest(torchscript.dump(model)[0]) == digest_of_a_saved(model)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (WithList, lambda model: setattr(model, "sizes", [3, 2])),
        (WithTensor, lambda model: model.factor.add_(1)),
    ],
    ids=["list", "tensor that is no buffer"],
)
def test_a_list_and_a_tensor_that_is_no_buffer_arrive_as_they_are_now(kind, change):
    model, x = torch.jit.script(kind()), torch.ones(1, 2)
    before = there_and_back(model)(x)
    change(model)
    assert torch.equal(there_and_back(model)(x), model(x))
    assert not torch.equal(model(x), before)


def test_a_structure_is_saved_once_for_all_copies_of_a_model(monkeypatch):
    saved = []
    monkeypatch.setattr(
        torchscript, "_archive", lambda script, save=torchscript._archive: saved.append(1) or save(script)
    )
    model = torch.jit.trace(Classifier(), X)
    archives = {torchscript.dump(each)[0] for each in (model, model, torchscript.clone(model))}
    assert (len(archives), len(saved)) == (1, 1)
    arrived = there_and_back(model)
    saved.clear()
    for _ in range(3):
        torchscript.dump(torchscript.clone(arrived))
    assert len(saved) == 1


def test_few_structures_are_remembered_and_no_large_ones(monkeypatch):
    for _ in range(torchscript.MAX_STRUCTURES + 1):
        torchscript.dump(torch.jit.script(nn.Linear(1, 1)).train(False))
    assert len(torchscript._model_archives) <= torchscript.MAX_STRUCTURES
    monkeypatch.setattr(torchscript, "MAX_STRUCTURE_BYTES", 10)
    monkeypatch.setattr(torchscript, "_model_archives", Memory(4))
    torchscript.dump(torch.jit.script(nn.Bilinear(1, 1, 1)))
    assert len(torchscript._model_archives) == 0


def test_a_model_that_changes_while_it_is_saved_is_not_remembered(monkeypatch):
    model = torch.jit.script(Attributes())

    def saved_while_another_thread_evaluates(script, save=torchscript._saved_empty):
        model.eval()
        return save(script)

    monkeypatch.setattr(torchscript, "_saved_empty", saved_while_another_thread_evaluates)
    torchscript.dump(model)
    monkeypatch.undo()
    assert there_and_back(model.train()).training


def test_a_scripted_convolution_is_remembered(monkeypatch):
    """It has a tuple among its attributes."""
    model = torch.jit.script(nn.Conv2d(1, 1, 3))
    torchscript.dump(model)
    monkeypatch.setattr(torchscript, "_saved_empty", pytest.fail)
    torchscript.dump(torchscript.clone(model))


@pytest.mark.parametrize(
    "loss_fn",
    [
        nll,
        torch.jit.trace(lambda pred, target: F.nll_loss(pred, target), (X.log_softmax(1), torch.zeros(20).long())),
        nn.NLLLoss(),
    ],
    ids=["scripted", "traced", "module"],
)
def test_a_loss_function_computes_the_same_afterwards(loss_fn):
    pred, target = X.log_softmax(1), blobs().targets
    assert torch.equal(there_and_back(loss_fn)(pred, target), F.nll_loss(pred, target))


def plain_loss(pred, target):
    return F.nll_loss(pred, target)


def test_a_plain_function_is_scripted():
    assert torch.equal(there_and_back(plain_loss)(X, blobs().targets), F.nll_loss(X, blobs().targets))


def generator_loss(pred, target):
    return sum(loss for loss in (pred - target))


class Branching(nn.Module):
    def forward(self, *inputs):
        return inputs[0]


@pytest.mark.parametrize(
    ("obj", "name"),
    [
        (generator_loss, "function 'generator_loss'"),
        (lambda pred, target: pred, "function '<lambda>'"),
        (len, "function 'len'"),
        (Branching(), "model 'Branching'"),
    ],
)
def test_what_cannot_be_compiled_is_refused_by_name_and_with_a_way_out(obj, name):
    with pytest.raises(NotScriptable, match=r"torch\.jit\.trace\(model, example_input\)") as refused:
        torchscript.dump(obj)
    assert refused.value.what == name
    assert isinstance(refused.value, TypeError)


def test_broken_archives_and_foreign_tensors_are_refused():
    structure, tensors = torchscript.dump(nn.Linear(2, 1))
    weight, bias = tensors["weight"], tensors["bias"]
    for archive, given, text in [
        (b"", tensors, "cannot be read"),
        (b"no archive", tensors, "cannot be read"),
        (structure[: len(structure) // 2], tensors, "cannot be read"),
        (structure, {}, r"do not match: \['bias', 'weight'\]"),
        (structure, {"weight": weight}, r"do not match: \['bias'\]"),
        (structure, {**tensors, "more": weight}, r"do not match: \['more'\]"),
        (structure, {"weight": weight, "bias": bias.double()}, "'bias' of a model is torch.float64; expected"),
    ]:
        with pytest.raises(MalformedMessage, match=text):
            torchscript.load(archive, given)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_clone_is_equal_independent_and_trainable(make):
    model = make()
    cloned = torchscript.clone(model)
    pairs = list(zip(model.parameters(), cloned.parameters(), strict=True))
    for original, copied in pairs:
        assert torch.equal(original, copied) and original.data_ptr() != copied.data_ptr()
        assert copied.is_leaf and copied.requires_grad == original.requires_grad
        with torch.no_grad():
            copied.add_(1)
        assert not torch.equal(original, copied)


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).softmax(dim=1)


@pytest.mark.parametrize("kind", [torch.jit.script, lambda model: torch.jit.trace(model, torch.zeros(2, 1, 4, 4))])
def test_the_model_for_inference_computes_the_same_but_for_rounding(kind):
    model = kind(Convolution().eval())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = torch.randn(5, 1, 4, 4)
    faster = torchscript.for_inference(model)
    assert faster is not model
    assert torch.allclose(faster(images), model(images), atol=1e-6)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("model", [Classifier().eval(), classifier().train()], ids=["plain", "in training mode"])
def test_other_models_are_not_made_faster(model):
    assert torchscript.for_inference(model) is model


class Counter(nn.Module):
    """Changes an attribute of its own."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * self.calls


def test_a_model_for_inference_may_count():
    faster = torchscript.for_inference(torch.jit.script(Counter()).eval())
    assert [faster(torch.ones(1)).item() for _ in range(3)] == [1, 2, 3]


def by_name(target, pred):
    return pred - target


def by_position(output, label):
    return output - label


class ByName(nn.Module):
    def forward(self, target: torch.Tensor, pred: torch.Tensor) -> torch.Tensor:
        return pred - target


PRED, TARGET = torch.tensor([5.0]), torch.tensor([3.0])
LOSSES = [by_name, by_position, lambda pred, target: pred - target, lambda *, target, pred: pred - target]


@pytest.mark.parametrize(
    "loss_fn",
    [*LOSSES, torch.jit.script(by_name), torch.jit.script(by_position), torch.jit.script(ByName())],
)
def test_losses_are_called_by_name_where_they_name_pred_and_target_else_in_order(loss_fn):
    assert torchscript.loss_of(loss_fn)(PRED, TARGET).item() == 2


def test_losses_of_torch_are_called_in_order():
    pred, target = X.log_softmax(1), blobs().targets
    for loss_fn in (F.nll_loss, nn.NLLLoss(), nn.functional.cross_entropy):
        assert torch.equal(torchscript.loss_of(loss_fn)(pred, target), loss_fn(pred, target))


def test_is_script():
    assert torchscript.is_script(classifier()) and torchscript.is_script(nll)
    assert not torchscript.is_script(Classifier()) and not torchscript.is_script(plain_loss)


def test_what_arrives_can_be_saved_and_gives_its_state_to_a_plain_model():
    arrived = there_and_back(classifier())
    buffer = io.BytesIO()
    torch.jit.save(arrived, buffer)
    plain = Classifier()
    plain.load_state_dict(arrived.state_dict())
    assert torch.equal(plain(X), classifier()(X))
    assert plain(X).shape == (len(X), CLASSES)
