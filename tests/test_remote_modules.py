"""Models at a worker train as they do here, to the bit."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import syft as sy

SGD, Adam, AdamW, RMSprop = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.RMSprop,
)


@pytest.fixture(autouse=True)
def hook():
    return sy.TorchHook(torch)


@pytest.fixture
def bob():
    return sy.VirtualWorker(id="bob")


class Images(nn.Module):
    """A small convolutional network for images of 8 x 8."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.second, self.drop = nn.Linear(36, 10), nn.Dropout(0.5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.first(x))), 2)
        return F.log_softmax(self.second(self.drop(x.view(-1, 36))), dim=1)


class Words(nn.Module):
    """Embedded words, read by a recurrent layer."""

    def __init__(self, layer):
        super().__init__()
        self.embedding = nn.Embedding(20, 6, padding_idx=0)
        self.layer = layer(6, 5, num_layers=2, batch_first=True, dropout=0.3)
        self.output = nn.Linear(5, 10)

    def forward(self, words):
        return F.log_softmax(self.output(self.layer(self.embedding(words))[0][:, -1]), dim=1)


class Attending(nn.Module):
    """Embedded words that attend to each other."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.output = nn.Linear(8, 10)

    def forward(self, words):
        return F.log_softmax(self.output(self.layer(self.embedding(words)).mean(1)), dim=1)


def images():
    return torch.randn(6, 1, 8, 8), torch.randint(10, (6,))


def words():
    return torch.randint(20, (6, 7)), torch.randint(10, (6,))


def train(model, optimizer, data, target):
    """Train for a step; return the loss."""
    optimizer.zero_grad()
    loss = F.nll_loss(model(data), target)
    loss.backward()
    optimizer.step()
    return loss


def same(model, other):
    """Return whether two models have equal parameters, buffers and gradients."""
    names = model.state_dict().keys()
    equal = all(torch.equal(model.state_dict()[name], other.state_dict()[name]) for name in names)
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return equal and all(a.grad is b.grad is None or torch.equal(a.grad, b.grad) for a, b in pairs)


@pytest.mark.parametrize(
    "optimizer, options",
    [
        (SGD, {}),
        (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (Adam, {}),
        (AdamW, {"amsgrad": True}),
        (RMSprop, {"momentum": 0.5}),
        (torch.optim.Adadelta, {}),
    ],
)
@pytest.mark.parametrize("is_made_before", [True, False])
def test_ten_steps_are_equal_to_the_bit(bob, optimizer, options, is_made_before):
    local, (data, target) = Images(), images()
    remote = copy.deepcopy(local)
    torch.manual_seed(1)
    stepping = optimizer(local.parameters(), lr=0.05, **options)
    expected = [train(local, stepping, data, target).item() for _ in range(10)]
    torch.manual_seed(1)
    stepping = optimizer(remote.parameters(), lr=0.05, **options) if is_made_before else None
    remote.send(bob)
    stepping = stepping or optimizer(remote.parameters(), lr=0.05, **options)
    there = data.send(bob), target.send(bob)
    losses = [train(remote, stepping, *there) for _ in range(10)]
    assert [loss.get().item() for loss in losses] == expected
    assert same(remote.get(), local)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Words(nn.LSTM),
        lambda: Words(nn.GRU),
        lambda: Words(nn.RNN),
        Attending,
    ],
)
def test_models_of_words_train_to_the_bit(bob, make):
    local, (data, target) = make(), words()
    remote = copy.deepcopy(local)
    there = data.send(bob), target.send(bob)
    for _ in range(3):
        torch.manual_seed(2)
        loss = train(local, Adam(local.parameters()), data, target)
        torch.manual_seed(2)
        remote.send(bob)
        found = train(remote, Adam(remote.parameters()), *there)
        remote.get()
        assert torch.equal(found.get(), loss) and same(remote, local)


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_packed_sequence_is_read_to_the_bit(bob, layer):
    local, data = layer(4, 3, num_layers=3, dropout=0.4, bidirectional=True), torch.randn(5, 3, 4)
    remote, sizes = copy.deepcopy(local).send(bob), torch.tensor([3, 3, 2, 1])
    results = []
    for model, values in ((local, data.view(15, 4)[:9]), (remote, data.view(15, 4)[:9].send(bob))):
        torch.manual_seed(2)
        packed, state = model(nn.utils.rnn.PackedSequence(values, sizes))
        packed.data.square().sum().backward()
        results.append((packed.data, state[0]))
    for found, expected in zip(results[1], results[0], strict=True):
        assert torch.equal(found.get(), expected)
    assert same(remote.get(), local)


@pytest.mark.parametrize("is_sorted", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_sequences_are_packed_and_padded(bob, is_sorted, batch_first):
    local, data = nn.LSTM(4, 3, batch_first=batch_first), torch.randn(5, 5, 4, requires_grad=True)
    remote, there = copy.deepcopy(local).send(bob), data.detach().requires_grad_().send(bob)
    lengths = [5, 4, 2, 2, 1] if is_sorted else [2, 5, 1, 4, 2]
    results = []
    for model, values in ((local, data), (remote, there)):
        packed = nn.utils.rnn.pack_padded_sequence(values, lengths, batch_first, is_sorted)
        padded, sizes = nn.utils.rnn.pad_packed_sequence(model(packed)[0], batch_first, -1.0, 6)
        padded.square().sum().backward()
        assert sizes.tolist() == lengths
        results.append(padded)
    assert torch.equal(results[1].get(), results[0])
    assert torch.equal(there.get().grad, data.grad)
    assert same(remote.get(), local)


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU])
def test_a_state_that_is_given_is_passed_on(bob, layer):
    local, data = layer(4, 3, num_layers=2, dropout=0.4), torch.randn(5, 2, 4)
    remote, state = copy.deepcopy(local).send(bob), torch.randn(2, 2, 3)
    there = state.send(bob)
    if layer is nn.LSTM:
        state, there = (state, state), (there, there)
    torch.manual_seed(2)
    expected, _ = local(data, state)
    torch.manual_seed(2)
    found, last = remote(data.send(bob), there)
    assert torch.equal(found.get(), expected)
    assert (last[0] if layer is nn.LSTM else last).shape == (2, 2, 3)


def test_attention_without_dropout_is_equal_to_the_bit(bob):
    local, data = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(3, 4, 8)
    remote = copy.deepcopy(local).send(bob)
    there = data.send(bob)
    result, expected = (
        model(x, x, x, need_weights=False)[0] for model, x in ((remote, there), (local, data))
    )
    for each in (result, expected):
        each.square().sum().backward()
    assert torch.equal(result.get(), expected)
    assert same(remote.get(), local)


def test_masks_of_dropout_are_those_of_this_process(bob):
    values = torch.ones(50)
    torch.manual_seed(3)
    expected = F.dropout(values), torch.rand(1)
    torch.manual_seed(3)
    found = F.dropout(values.send(bob)).get(), torch.rand(1)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_products_of_matrices_need_no_parts(bob):
    """Which parts they have depends on whether gradients are needed; the worker knows that."""
    left, right = torch.randn(2, 3, 4).transpose(0, 1), torch.randn(4, 5, requires_grad=True)
    (left @ right).square().sum().backward()
    there = right.detach().requires_grad_().send(bob)
    product = left.send(bob) @ there
    product.square().sum().backward()
    assert torch.equal(product.get(), left @ right)
    assert torch.equal(there.get().grad, right.grad)


def test_a_model_that_evaluates_gives_the_same(bob):
    local, (data, _) = Images(), images()
    remote = copy.deepcopy(local).send(bob).eval()
    with torch.no_grad():
        result = remote(data.send(bob))
        assert torch.equal(result.get(), local.eval()(data))
    assert not result.requires_grad


def test_the_state_of_an_optimizer_goes_on_at_the_same_worker(bob):
    local, (data, target) = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), images()
    remote = copy.deepcopy(local)
    steppings = [SGD(model.parameters(), lr=0.1, momentum=0.9) for model in (local, remote)]
    there = data.send(bob), target.send(bob)
    for _ in range(4):
        train(local, steppings[0], data, target)
        remote.send(bob)
        train(remote, steppings[1], *there)
        remote.get()
    assert same(remote, local)


def test_gradients_travel_with_a_model(bob):
    local, (data, target) = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), images()
    remote = copy.deepcopy(local)
    for model in (local, remote):
        F.nll_loss(model(data), target).backward()
    remote.send(bob)
    F.nll_loss(remote(data.send(bob)), target.send(bob)).backward()
    F.nll_loss(local(data), target).backward()
    assert same(remote.get(), local)


def test_frozen_and_shared_parameters_stay_so(bob):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    model.send(bob)
    assert model[0].weight is model[1].weight
    model(torch.ones(2, 4).send(bob)).sum().backward()
    model.get()
    assert model[0].weight is model[1].weight and type(model[0].weight) is nn.Parameter
    assert model[0].bias.grad is None and not model[0].bias.requires_grad
    assert model[1].bias.grad is not None


def test_the_norm_of_gradients_is_clipped_at_the_worker(bob):
    local = nn.Linear(4, 4)
    remote = copy.deepcopy(local).send(bob)
    data = torch.randn(3, 4)
    local(data).square().sum().backward()
    remote(data.send(bob)).square().sum().backward()
    norms = [nn.utils.clip_grad_norm_(model.parameters(), 0.1) for model in (local, remote)]
    assert torch.equal(norms[1].get(), norms[0])
    assert same(remote.get(), local)


def test_a_copy_is_another_model_at_the_same_worker(bob):
    model = nn.Linear(2, 2).send(bob)
    other = model.copy()
    assert other.location is bob and other.weight is not model.weight
    with torch.no_grad():
        other.weight.zero_()
    assert not other.get().weight.any() and model.get().weight.any()


def test_get_copy_leaves_the_model_at_the_worker(bob):
    model = nn.Linear(2, 2)
    expected = copy.deepcopy(model)
    fetched = model.send(bob).get(get_copy=True)
    assert same(fetched, expected) and model.location is bob
    assert same(model.get(), expected)


def test_nothing_is_left_after_a_step(bob):
    model, (data, target) = Images(), images()
    there = data.send(bob), target.send(bob)
    for _ in range(3):
        model.send(bob)
        loss = train(model, SGD(model.parameters(), lr=0.1), *there)
        model.get()
        loss.get()
        assert len(bob._objects) == 2
