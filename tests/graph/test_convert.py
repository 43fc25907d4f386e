"""Models to plain graphs: what is written down, when it is written anew, and what cannot be
said."""

import copy
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from syft.exceptions import NotConvertible, NotScriptable
from syft.graph import clone, convert
from syft.graph.convert import MAX_DEPTH, digest_of
from tests.graph.arriving import arrived, both, fields_of
from tests.graph.test_interpret import MODELS
from tests.models import Classifier, blobs, classifier, nll


def test_the_structure_holds_no_weights():
    small, large = convert(nn.Linear(4, 4)), convert(nn.Linear(1000, 1000))
    assert abs(len(large.structure) - len(small.structure)) < 100
    assert [tuple(tensor.shape) for tensor in small.state] == [(4, 4), (4,)]
    assert not small.constants


@pytest.mark.parametrize("name", MODELS)
def test_converting_leaves_the_model_alone(name):
    make, data = MODELS[name]
    plain = make()
    for model in (plain, *(each for _, each in both(plain, data[:5]))):
        before = copy.deepcopy(model.state_dict())
        for tensor in convert(model).state:
            tensor.data_ptr()
        after = model.state_dict()
        assert before.keys() == after.keys() and all(
            torch.equal(before[key], after[key]) for key in before
        )


class Attributes(nn.Module):
    """Attributes of the kinds that a structure holds."""

    def __init__(self) -> None:
        super().__init__()
        self.number, self.share, self.text, self.sizes, self.pair = 3, 0.0, "a", [1, 2], (3, 4.5)
        self.factor = torch.ones(2)
        self.linear, self.other = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.text == "a":
            x = x * self.share + self.factor
        return self.other(self.linear(x)) * self.number + self.sizes[0] * self.pair[1]


def test_what_changes_in_a_model_changes_what_is_sent():
    changes = {
        "integer": lambda model: setattr(model, "number", 4),
        "sign of a zero": lambda model: setattr(model, "share", -0.0),
        "text": lambda model: setattr(model, "text", "b"),
        "list": lambda model: setattr(model, "sizes", [5, 2]),
        "tuple": lambda model: setattr(model, "pair", (3, 1.5)),
        "tensor that is no buffer": lambda model: model.factor.add_(1),
        "frozen": lambda model: model.linear.weight.requires_grad_(False),
        "dtype": lambda model: setattr(
            model.linear.weight, "data", model.linear.weight.data.double()
        ),
        "tied": lambda model: setattr(model.linear, "weight", model.other.weight),
    }
    for name, change in changes.items():
        model = torch.jit.script(Attributes())
        before = convert(model).digest
        assert before == convert(model).digest == convert(clone(model)).digest
        change(model)
        assert convert(model).digest != before, name
        if name != "dtype":
            assert torch.equal(arrived(model)(torch.ones(3, 2)), model(torch.ones(3, 2))), name


def test_the_mode_and_new_parameters_change_nothing_of_the_structure():
    model = classifier(dropout=0.5)
    digest = convert(model).digest
    assert convert(model.eval()).digest == convert(classifier(seed=2, dropout=0.5)).digest == digest


def test_the_digest_tells_structures_and_constants_apart():
    one, two = (
        torch.jit.trace(lambda x, c=c: x * c, torch.ones(2))
        for c in (torch.ones(2), torch.zeros(2))
    )
    assert convert(one).structure == convert(two).structure
    assert convert(one).digest != convert(two).digest
    for tensor in (
        torch.ones(()),
        torch.ones(0),
        torch.tensor([True]),
        torch.ones(2, dtype=torch.complex64).conj(),
        torch.ones(4)[::4],  # contiguous, with a stride of 4
    ):
        assert len(digest_of(b"", [tensor])) == 64


def test_a_structure_is_written_once_for_all_copies_of_a_model(monkeypatch):
    model = torch.jit.trace(Classifier(), blobs().data)
    first = convert(model)
    monkeypatch.setattr(sys.modules["syft.graph.convert"], "_Converter", pytest.fail)
    assert convert(model).structure is convert(clone(model)).structure is first.structure


def test_a_scripted_model_with_tuples_among_its_attributes_is_remembered(monkeypatch):
    model = torch.jit.script(nn.Conv2d(1, 1, 3))
    first = convert(model)
    monkeypatch.setattr(sys.modules["syft.graph.convert"], "_Converter", pytest.fail)
    assert convert(clone(model)).structure is first.structure


def test_losses_compute_the_same_afterwards():
    pred, target = blobs().data.log_softmax(1), blobs().targets
    trace = torch.jit.trace(lambda pred, target: F.nll_loss(pred, target), (pred, target))
    for loss_fn in (nll, trace, nn.NLLLoss(), plain_loss):
        assert torch.equal(arrived(loss_fn)(pred, target), F.nll_loss(pred, target))
    smooth = nn.CrossEntropyLoss(label_smoothing=0.1, weight=torch.rand(4))
    assert torch.equal(arrived(smooth)(pred, target), smooth(pred, target))
    one, other = torch.randn(5, 3), torch.rand(5, 3)
    for loss in (
        nn.MSELoss(),
        nn.BCEWithLogitsLoss(),
        nn.HuberLoss(),
        nn.L1Loss(),
        nn.SmoothL1Loss(),
    ):
        for _, script in both(loss, one, other):
            assert torch.equal(arrived(script)(one, other), loss(one, other))


def plain_loss(pred, target):
    return F.nll_loss(pred, target)


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
    with pytest.raises(
        NotScriptable, match=r"torch\.jit\.trace\(model, example_input\)"
    ) as refused:
        convert(obj)
    assert refused.value.what == name and isinstance(refused.value, TypeError)


class Counter(nn.Module):
    """Changes an attribute that is no tensor."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * self.calls


class Untracked(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return x + 1


class Table(nn.Module):
    """Has a dict among its attributes."""

    table: dict[str, int]

    def __init__(self):
        super().__init__()
        self.table = {"a": 1}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.table["a"]


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (Counter(), "'calls'"),
        (Untracked(), "CreateObject"),
        (Table(), "'table'"),
        (nn.LSTM(2, 2), r"forward\(\)"),
    ],
)
def test_what_a_plain_graph_cannot_say_is_refused_by_name(model, what):
    with pytest.raises(NotConvertible, match=what) as refused:
        convert(torch.jit.script(model))
    assert isinstance(refused.value, TypeError)


def test_constants_of_all_kinds_arrive_as_they_are():
    def kinds(x: torch.Tensor):
        return x, (1, (True, None)), [1.5, float("inf")], "ä\n", -0.0, [[1, 2], [3]], (1, "a")

    expected, got = torch.jit.script(kinds)(torch.ones(1)), arrived(kinds)(torch.ones(1))
    assert repr(got) == repr(expected)

    def others(x: torch.Tensor):
        return x.to(torch.device("cpu")) * 1j, torch.full([2], 3, dtype=torch.int8)

    expected, got = torch.jit.script(others)(torch.ones(1)), arrived(others)(torch.ones(1))
    assert repr(got) == repr(expected)


def test_equal_constants_are_written_once_and_one_is_not_true():
    def several(x: torch.Tensor):
        return x * 1, True, 1, 1.0, x + 1

    constants = fields_of(several)["constants"]
    assert sorted(map(repr, constants)) == ["1", "1.0", "True"]


# What a plain graph has no words for


@torch.jit.script
class Pair:
    def __init__(self, first: torch.Tensor) -> None:
        self.first = first


@torch.jit.script
def makes_an_object(x: torch.Tensor) -> torch.Tensor:
    return Pair(x).first


@torch.jit.script
def takes_an_object(pair: Pair) -> torch.Tensor:
    return pair.first


@torch.jit.ignore
def in_python(x: torch.Tensor) -> torch.Tensor:
    return x


@torch.jit.script
def calls_python(x: torch.Tensor) -> torch.Tensor:
    return in_python(x)


class GivesALayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor):
        return self.layer


@pytest.mark.parametrize(
    ("obj", "what"),
    [
        (makes_an_object, "prim::CreateObject"),
        (takes_an_object, "the attribute 'first' of an object that is no module"),
        (calls_python, "prim::PythonOp"),
        (GivesALayer(), r"a value of type __torch__\.\S+Linear"),
    ],
)
def test_objects_and_code_of_python_are_refused_by_name(obj, what):
    with pytest.raises(NotConvertible, match=f"it uses {what}, which a plain graph cannot express"):
        convert(torch.jit.script(obj))


def test_as_deep_as_a_structure_may_be_is_sent_and_deeper_is_refused():
    def nested(depth):
        """Return a function of `depth` ifs, each inside the one before."""
        lines = ["def nested(x: Tensor) -> Tensor:"]
        lines += [" " * (level + 1) + f"if x[{level}]:" for level in range(depth)]
        lines += [" " * (depth + 1) + "x = x + 1", " return x"]
        return torch.jit.CompilationUnit("\n".join([*lines, ""])).nested

    x = torch.ones(MAX_DEPTH)
    assert torch.equal(arrived(nested(MAX_DEPTH))(x), x + 1)
    with pytest.raises(NotConvertible, match=f"blocks nested more than {MAX_DEPTH} deep"):
        convert(nested(MAX_DEPTH + 1))


def test_as_many_nodes_as_a_structure_may_have_are_sent_and_more_are_refused(monkeypatch):
    model = nn.Sequential(nn.ReLU(), nn.Sigmoid(), nn.Tanh())
    monkeypatch.setattr(sys.modules["syft.graph.convert"], "MAX_NODES", 3)
    convert(torch.jit.script(model))
    with pytest.raises(NotConvertible, match="a graph of more than 3 nodes"):
        convert(torch.jit.script(model.append(nn.ReLU())))
