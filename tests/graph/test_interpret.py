"""Received models compute what torch computes, to the bit; and what they may use is bounded."""

import copy
import threading
from typing import Optional

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from syft.access.limits import Budget, size_of
from syft.exceptions import CallAbandoned, LimitExceeded, MalformedMessage
from syft.graph import GraphModule, clone, read_structure
from syft.graph.convert import convert
from syft.graph.metering import meter
from tests.graph.arriving import arrived, both, calls, graph, structure
from tests.models import Classifier, blobs, nll


class Net(nn.Module):
    """The tutorial's network, smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3)
        self.fc1, self.fc2 = nn.Linear(24, 10), nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.relu(self.conv2(x)).flatten(1)
        return F.log_softmax(self.fc2(F.relu(self.fc1(x))), dim=1)


class Recurrent(nn.Module):
    def __init__(self, layer: type) -> None:
        super().__init__()
        self.layer, self.out = layer(4, 5, 2, dropout=0.5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(self.out(self.layer(x.unsqueeze(0).expand(3, -1, -1))[0][-1]), dim=1)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(10, 6, padding_idx=0), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(
            self.out(self.embedding((x.abs() * 3).long().clamp(max=9)).mean(1)), dim=1
        )


class Tied(nn.Module):
    """Running means, a tied weight, a frozen one, and a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.tied, self.norm = nn.Linear(4, 3), nn.Linear(4, 3), nn.BatchNorm1d(3)
        self.tied.weight = self.first.weight
        self.first.bias.requires_grad_(False)
        self.register_buffer("scale", torch.tensor([2.0], dtype=torch.float64), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(self.norm(self.first(x)) * self.scale.float() + self.tied(x), dim=1)


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
    return nn.Sequential(
        nn.Unflatten(1, (1, 4)),
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        nn.Flatten(),
        nn.Linear(4, 3),
        nn.LogSoftmax(1),
    )


def normalised() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 5),
        nn.BatchNorm1d(5),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(5, 3),
        nn.LogSoftmax(1),
    )


IMAGES = torch.randn(20, 1, 10, 10, generator=torch.Generator().manual_seed(0))
MODELS = {
    "Net": (Net, IMAGES),
    "BatchNorm": (normalised, blobs().data),
    "LSTM": (lambda: Recurrent(nn.LSTM), blobs().data),
    "GRU": (lambda: Recurrent(nn.GRU), blobs().data),
    "Transformer": (transformer, blobs().data),
    "Embedding": (Words, blobs().data),
    "Dropout": (lambda: Classifier(0.5), blobs().data),
    "Tied": (Tied, blobs().data),
}
OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
}


def trained(model, loss_fn, data, make_optimizer):
    """Train for three steps with batches of other sizes; return the last loss."""
    torch.manual_seed(1)
    optimizer = make_optimizer(
        [parameter for parameter in model.parameters() if parameter.requires_grad]
    )
    for indices in (range(8), range(8, 13), range(13, 20)):
        optimizer.zero_grad()
        loss = loss_fn(model(data[indices]), blobs().targets[indices])
        loss.backward()
        optimizer.step()
    return loss


@pytest.mark.parametrize("name", MODELS)
def test_training_gives_what_torch_gives_to_the_bit(name):
    make, data = MODELS[name]
    loss_fn = arrived(nll)
    for kind, model in both(make(), data[:5]):
        for optimizer in OPTIMIZERS.values():
            expected, model_here = copy.deepcopy(make_like(make, model)), arrived(model)
            losses = (
                trained(expected, F.nll_loss, data, optimizer),
                trained(model_here, loss_fn, data, optimizer),
            )
            assert torch.equal(*losses), kind
            state = dict(expected.named_parameters()) | dict(expected.named_buffers())
            here = model_here.graph_state()
            assert state.keys() == here.keys()
            assert all(torch.equal(state[key], here[key]) for key in state), kind


def make_like(make, model):
    """Return the plain model with the parameters of a traced or scripted one."""
    plain = make()
    plain.load_state_dict(model.state_dict(), strict=False)  # a trace saves each buffer
    return plain.train()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_in_eval_mode_gives_what_torch_gives_to_the_bit(name):
    make, data = MODELS[name]
    plain = make().eval()
    for kind, model in both(plain, data[:5]):
        assert torch.equal(arrived(model.eval())(data), plain(data)), kind


def test_the_mode_stays_and_can_change():
    model = torch.jit.script(Classifier(0.9))
    x = blobs().data
    for mode in (True, False):
        here = arrived(model.train(mode))
        assert here.training is mode
        assert torch.equal(here(x), here(x)) is not mode  # dropout draws anew in each forward pass
    assert not torch.equal(here.train()(x), here(x))


def test_names_values_flags_and_ties_stay():
    model = Tied()
    for _, script in both(model, blobs().data):
        here = arrived(script)
        for kind in ("named_parameters", "named_buffers"):
            before = dict(getattr(script, kind)(remove_duplicate=False))
            after = dict(getattr(here, kind)(remove_duplicate=False))
            assert {name for name in after if "_graph_constant" not in name} == before.keys()
            for name, tensor in before.items():
                assert torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype
                assert after[name].requires_grad == tensor.requires_grad and after[name].is_leaf
        assert here.first.weight is here.tied.weight
        assert len(list(here.parameters())) == len(list(script.parameters()))


def test_a_plain_model_takes_the_state_of_one_that_arrived():
    here, plain = arrived(torch.jit.script(Classifier())), Classifier()
    plain.load_state_dict(here.state_dict())
    assert torch.equal(plain(blobs().data), here(blobs().data))


@pytest.mark.parametrize("name", MODELS)
def test_a_clone_is_equal_independent_and_trainable(name):
    make, data = MODELS[name]
    plain = make()
    for model in (
        plain,
        *(each for _, each in both(plain, data[:5])),
        arrived(torch.jit.script(plain)),
    ):
        cloned = clone(model)
        for original, copied in zip(model.parameters(), cloned.parameters(), strict=True):
            assert torch.equal(original, copied) and original.data_ptr() != copied.data_ptr()
            assert copied.is_leaf and copied.requires_grad == original.requires_grad
        with torch.no_grad():
            expected = drawn(model, data)
            for parameter in cloned.parameters():
                parameter.add_(torch.rand(parameter.shape))
            assert torch.equal(drawn(model, data), expected) and not torch.equal(
                drawn(cloned, data), expected
            )


def drawn(model, data):
    """Return what a model gives in eval mode, with the same random numbers each time."""
    torch.manual_seed(2)
    return model.eval()(data)


class Control(nn.Module):
    """Branches, loops, lists, dicts, tuples, texts, a buffer that is replaced, optional values,
    tensor constants."""

    nothing: Optional[int]  # noqa: UP045

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.ModuleList([nn.Linear(3, 3) for _ in range(2)])
        self.register_buffer("count", torch.zeros(1))
        self.names, self.pair, self.nothing = ["a", "b"], (1, float("inf")), None
        self.weights = [torch.arange(2.0), torch.ones(2)]

    def forward(
        self,
        x: torch.Tensor,
        add: float = 1.0,
        sizes: Optional[list[int]] = None,  # noqa: UP045
    ) -> tuple[torch.Tensor, str, int]:
        if sizes is None:
            sizes = [3, 4]
        if x.dim() != 2:
            raise ValueError(f"expected 2 dimensions, got {x.dim()}")
        for index, layer in enumerate(self.more):
            x = layer(x) * (index + 1)
        turns = 0
        while bool(x.abs().max() > 2):
            x = x / 2
            turns += 1
            if turns > 5:
                break
        seen = {name: x[:, index] for index, name in enumerate(self.names)}
        kept = [2 * value for value in sizes]
        kept.append(len(seen))
        before = self.count
        self.count = self.count + 1
        for name, column in seen.items():
            if name == "b":
                x = x + column.unsqueeze(1)
        nothing = self.nothing
        if nothing is not None:
            x = x + nothing
        first, second = torch.chunk(x, 2, dim=1)
        (only,) = [second]
        text = "{} {} {}".format(turns, kept, "-".join(self.names)) + ("%d %s" % (len(kept), "a"))  # noqa: UP031
        x = first.sum() + only.sum() + before + self.weights[0].sum() + add
        if add > min(self.pair[0], 2):
            return x, text, kept.pop()
        return x * 2, text + str(turns), -7 // 2


@torch.no_grad()
def test_control_flow_lists_texts_and_defaults_give_what_torch_gives():
    model = Control()
    script = torch.jit.script(model)
    here = arrived(script)
    for scale, arguments in (
        (1, {}),
        (100, {"add": 3.0}),
        (7, {"sizes": [5, 6, 7], "add": -1.0}),
        (1e9, {}),
    ):
        x = scale * torch.randn(4, 3)
        assert str(here(x, **arguments)) == str(script(x, **arguments))
        assert torch.equal(here.count, script.count)
    assert str(here(x, 2.0, [1])) == str(script(x, 2.0, [1]))
    with pytest.raises(ValueError, match="expected 2 dimensions, got 1"):
        here(torch.ones(3))
    assert here.count.item() == 5


def test_arguments_are_bound_as_by_python():
    @torch.jit.script
    def weighted(pred: torch.Tensor, target: torch.Tensor, factor: float = 2.0):
        return (pred - target) * factor

    here, one, two = arrived(weighted), torch.ones(1), torch.full((1,), 2.0)
    assert (
        here(one, two).item()
        == here(target=two, pred=one).item()
        == here(one, target=two).item()
        == -2
    )
    assert here(one, two, 3.0).item() == here(one, two, factor=3.0).item() == -3
    for arguments, named in (
        ((one,), {}),
        ((one, two, 1.0, 1.0), {}),
        ((one, two), {"other": 1}),
        ((one, two), {"pred": one}),
    ):
        with pytest.raises(TypeError, match="the model takes the arguments"):
            here(*arguments, **named)


def test_submodules_and_parameters_may_have_any_name():
    names = [
        "state",
        "values",
        "digest",
        "training_step",
        "steps",
        "program",
        "structure",
        "constants",
        "places",
    ]
    names += ["run", "meter", "arguments", "graph", "id", "tags"]

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in names:
                self.add_module(name, nn.Linear(1, 1))
            self.register_parameter("_constants", nn.Parameter(torch.ones(1)))
            self.register_buffer("_places", torch.ones(1))

        def forward(self, x):
            for name in names:
                x = getattr(self, name)(x) + self._constants * self._places
            return x

    model, x = Named(), torch.randn(3, 1)
    here = arrived(torch.jit.trace(model, x))
    assert torch.equal(here(x), model(x))
    assert here.state_dict().keys() == model.state_dict().keys()


def test_constants_that_are_tensors_follow_the_model_to_a_device():
    table = torch.randn(5)
    here = arrived(torch.jit.trace(lambda x: x * table, torch.ones(5)))
    assert torch.equal(here(torch.ones(5)), table)
    assert not here.state_dict() and not here.graph_state()
    assert here.to("meta")(torch.ones(5, device="meta")).device.type == "meta"
    if torch.cuda.is_available():
        here = arrived(torch.jit.trace(lambda x: x * table, torch.ones(5))).to("cuda")
        assert torch.equal(here(torch.ones(5, device="cuda")).cpu(), table)


APPEND = {"operators": ("aten::append.t",), "constants": ([1], 7), "result": -1, "arguments": ()}


def test_a_list_that_a_graph_changes_is_a_new_one_in_each_call():
    packed = structure([0, [-1, -2], 1], **APPEND)
    first, second = (GraphModule(read_structure(packed), [], []) for _ in range(2))
    assert first.graph_structure is second.graph_structure
    assert first() == first() == second() == [1, 7]
    inner = structure(
        [0, [-1, -3], 1],
        [1, [1, -2], 1],
        **APPEND
        | {"operators": ("aten::__getitem__.t", "aten::append.t"), "constants": ([[1]], 7, 0)},
    )
    model = GraphModule(read_structure(inner), [], [])
    assert model() == model() == [[1, 7]]


def test_a_list_with_one_item_is_unpacked():
    unpack = graph(
        [0, [0], 1], [1, [2], 1], operators=("prim::ListConstruct", "prim::ListUnpack"), result=3
    )
    assert torch.equal(unpack(torch.ones(2)), torch.ones(2))


def test_tensors_that_are_not_those_of_the_structure_are_refused():
    model = convert(torch.jit.script(nn.Linear(2, 3)))
    weight, bias = model.state
    read = read_structure(model.structure)
    for state, text in [
        ([], "0 tensors; its structure has 2"),
        ([weight], "1 tensors"),
        ([weight, bias, bias], "3 tensors"),
        ([weight, bias.double()], "float64"),
        ([weight.t(), bias], r"\(2, 3\)"),
        ([weight, torch.ones(1)], r"\(1,\)"),
    ]:
        with pytest.raises(MalformedMessage, match=text):
            GraphModule(read, state, [])
    constant = structure(constants=({"tensor": [1, "float32", [2]]},), result=-1)
    for tensors, text in (
        ([], "0 constants"),
        ([bias], "as a constant"),
        ([bias, bias], "2 constants"),
    ):
        with pytest.raises(MalformedMessage, match=text):
            GraphModule(read_structure(constant), [], tensors)
    for shape, text in (([2], "constant 0"), ([2**40], "constant 0")):
        with pytest.raises(MalformedMessage, match=text):
            GraphModule(
                read_structure(structure(constants=({"tensor": [0, "float32", shape]},))),
                [],
                [torch.ones(3)],
            )


def test_names_that_modules_have_are_refused():
    for name in (
        "forward",
        "training",
        "graph_structure",
        "_parameters.x",
        "train.weight",
        "__class__",
        "weight.x",
    ):
        described = [[each, 0, True, "float32", [1]] for each in ("weight", name)]
        with pytest.raises(MalformedMessage, match=r"cannot have the name|occurs twice"):
            GraphModule(
                read_structure(structure(state=tuple(described))),
                [torch.ones(1), torch.ones(1)],
                [],
            )


def test_an_integer_parameter_with_gradients_is_refused():
    with pytest.raises(MalformedMessage, match="no gradients"):
        GraphModule(
            read_structure(structure(state=(["n", 0, True, "int64", [1]],))),
            [torch.ones(1).long()],
            [],
        )


def test_only_buffers_are_replaced_and_by_tensors_like_them():
    for kind, constant in (
        (0, {"tensor": [0, "float32", [1]]}),
        (1, {"tensor": [0, "float32", [2]]}),
        (1, 3),
    ):
        packed = structure(
            [0, [1, -1], 0],
            operators=("prim::SetAttr",),
            constants=(constant,),
            state=(["b", kind, False, "float32", [1]],),
        )
        tensors = [torch.ones(constant["tensor"][2])] if isinstance(constant, dict) else []
        with pytest.raises((MalformedMessage, TypeError)):
            GraphModule(read_structure(packed), [torch.ones(1)], tensors)(torch.ones(1))


def test_a_model_counts_for_more_than_its_tensors():
    """Small tensors in thousands of modules, or a large graph, take memory too."""
    small, large = (nn.Sequential(*[nn.ReLU() for _ in range(count)]) for count in (1, 1000))
    assert size_of(arrived(large)) - size_of(arrived(small)) > 500_000
    state = tuple([f"m{index}.w", 0, True, "float32", [1]] for index in range(1000))
    many = GraphModule(read_structure(structure(state=state)), [torch.ones(1)] * 1000, [])
    assert size_of(many) > 3_000_000


def test_the_operator_that_failed_is_named():
    with pytest.raises(RuntimeError) as caught:
        graph([0, [0, 0], 1], operators=("aten::matmul",), result=2)(torch.ones(2, 3))
    if hasattr(caught.value, "__notes__"):
        assert caught.value.__notes__ == ["The model failed at aten::matmul."]


def metered(model, *inputs, **bounds):
    """Run a model with a budget."""
    budget = Budget("alice", **{"seconds": 60, **bounds})
    budget.begin()
    token = meter.set(budget)
    try:
        return model(*inputs), budget
    finally:
        meter.reset(token)


ENDLESS = {"constants": (2**62, True), "operators": ("prim::Loop",)}


def test_a_loop_without_end_ends_with_its_time_or_its_caller():
    body = [1, [], [-2]]
    endless = graph([0, [-1, -2], 0, [body]], **ENDLESS)
    with pytest.raises(LimitExceeded, match="call_seconds"):
        metered(endless, torch.ones(1), seconds=0.05)
    nested = graph([0, [-1, -2], 0, [[1, [[0, [-1, -2], 0, [body]]], [-2]]]], **ENDLESS)
    with pytest.raises(LimitExceeded, match="call_seconds"):
        metered(nested, torch.ones(1), seconds=0.05)
    abandoned = threading.Event()
    timer = threading.Timer(0.05, abandoned.set)
    timer.start()
    with pytest.raises(CallAbandoned):
        metered(endless, torch.ones(1), abandoned=abandoned)
    timer.join()


def test_the_bytes_of_one_forward_pass_are_bounded_and_views_cost_little():
    x = torch.ones(1000)
    for operators, limit in (
        (("aten::relu",) * 3, 12_000),
        (("aten::view",) * 3, 2_000),
        (("aten::add_.Scalar",) * 3, 2_000),
    ):
        nodes = [
            [
                number,
                [number if number == 0 else number + 1, *([-1] if "relu" not in name else [])],
                1,
            ]
            for number, name in enumerate(operators)
        ]
        constants = ([-1],) if operators[0] == "aten::view" else (1,)
        model = graph(*nodes, operators=operators, constants=constants, result=len(nodes) + 1)
        for _ in range(3):  # each pass has an account of its own
            metered(model, x, bytes=limit + 3 * 600)
        if operators[0] == "aten::relu":
            with pytest.raises(LimitExceeded, match="call_bytes"):
                metered(model, x, bytes=limit - 1)


@torch.jit.script
def doubled(x: torch.Tensor, what: str):
    text, items, tensors = "ab", [1], [x]
    for _ in range(100):
        if what == "text":
            text = text + text
        elif what == "list":
            items = items + items
        elif what == "extend":
            items.extend(items)
        else:
            tensors = [torch.cat(tensors)] * 2
    return text, items, tensors


def test_what_doubles_again_and_again_is_stopped():
    for what, error in (
        ("text", ValueError),
        ("list", ValueError),
        ("extend", ValueError),
        ("tensors", LimitExceeded),
    ):
        with pytest.raises(error):
            metered(arrived(doubled), torch.ones(10), what, bytes=200_000_000)


def test_lists_in_lists_that_share_their_parts_are_not_looked_through():
    """Forty lists of two items each; together they have 2**40."""
    nodes = [[0, [0, 0], 1], *([0, [number, number], 1] for number in range(2, 42))]
    names = (
        "prim::ListConstruct",
        "aten::eq.int_list",
        "aten::format",
        "aten::__contains__.int_list",
        "aten::tensor",
        "aten::sum.dim_IntList",
    )
    with pytest.raises(ValueError, match="returned more than"):
        graph(*nodes, operators=names, result=42)(torch.ones(1))
    for operator, arguments in ((1, [42, 42]), (3, [42, 42]), (4, [42]), (5, [0, 42])):
        with pytest.raises((TypeError, ValueError)):
            graph(*nodes, [operator, arguments, 1], operators=names, result=43)(torch.ones(1))
    text = graph(*nodes, [2, [-1, 42], 1], operators=names, constants=("{}",), result=43)(
        torch.ones(1)
    )
    assert len(text) < 4000


def test_empty_tensors_hold_zeros():
    for name, arguments in (
        ("aten::empty.memory_format", ([100_000],)),
        ("aten::empty.memory_format", ([3, 4], 7)),
    ):
        assert not calls(name, *arguments).any()
    for name, constants in (("aten::new_empty", ([100_000],)), ("aten::empty_like", ())):
        numbers = [0, *(-1 - index for index in range(len(constants)))]
        assert not graph([0, numbers, 1], operators=(name,), constants=constants, result=2)(
            torch.ones(100_000)
        ).any()


def test_each_call_changes_lists_of_its_own_also_those_in_lists():
    @torch.jit.script
    def appends(x: torch.Tensor) -> torch.Tensor:
        rows = [[1, 2], [3]]
        rows[1].append(4)
        return x + len(rows[1])

    names = ("aten::__getitem__.t", "aten::append.t", "aten::len.t", "aten::add.Scalar")
    module = graph(
        [0, [-1, -2], 1],  # rows[1]
        [1, [2, -3], 1],  # rows[1].append(4)
        [2, [2], 1],
        [3, [0, 4, -2], 1],
        constants=([[1, 2], [3]], 1, 4),
        operators=names,
        result=5,
    )
    for function in (appends, module):
        assert [function(torch.zeros(1)).item() for _ in range(2)] == [2, 2]


def test_a_graph_branches_on_a_bool_only():
    branch = [0, [0], 1, [[0, [], [-1]], [0, [], [-2]]]]
    module = graph(branch, operators=("prim::If",), constants=(1, 2), result=2)
    assert [module(value) for value in (True, False)] == [1, 2]
    for value in (1, None, torch.tensor(True)):
        with pytest.raises(TypeError, match=f"branches on a {type(value).__name__}; expected a"):
            module(value)
