"""Differential privacy: the account, the gradients, and what a coordinator can still ask for."""

import asyncio
import contextlib
import fcntl
import json
import math
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import run_websocket_client as rwc
import run_websocket_server as rws
import syft as sy
from syft.access import privacy as account
from syft.access.limits import Limits
from syft.access.privacy import DifferentialPrivacy, PrivacyAccount, epsilon_of
from syft.exceptions import (
    InvalidReply,
    LimitExceeded,
    NotPermitted,
    PrivacyAccountDamaged,
    PrivacyBudgetSpent,
    QuorumNotReached,
)
from syft.federated import run_round
from syft.federated.private_training import PrivateGradients, clipped, drawn, normal
from syft.federated.seeding import seeded
from syft.frameworks.torch.fl.dataset import Batches
from syft.policy import Policy
from tests.models import Classifier, blobs, classifier, make_config, same
from tests.network import DEADLINE, RemoteMethods, Server, proxy_of, serving

SETTINGS = {"noise_multiplier": 1.0, "max_grad_norm": 0.5, "epsilon": 10.0, "delta": 1e-5}
NO_NOISE = DifferentialPrivacy(**SETTINGS | {"noise_multiplier": 1e-12})


@pytest.fixture
def simple(monkeypatch):
    """Let a step cost as much epsilon as the share of the samples that it draws."""
    cost = lambda history, delta: sum(rate * steps for _, rate, steps in history)  # noqa: E731
    monkeypatch.setattr(account, "epsilon_of", cost)


def private(**changes) -> DifferentialPrivacy:
    return DifferentialPrivacy(**SETTINGS | changes)


# The account


# Noise multiplier, batch size, epochs; epsilon at delta 1e-5 for 60,000 samples as published with
# https://github.com/tensorflow/privacy/tree/master/tutorials. Newer conversions of Renyi
# differential privacy are tighter by up to a quarter.
PUBLISHED = [(1.3, 256, 15, 1.19), (1.1, 256, 60, 3.01), (0.7, 256, 45, 7.10)]


@pytest.mark.parametrize(("noise", "batch", "epochs", "epsilon"), PUBLISHED)
def test_epsilon_is_that_of_the_published_trainings_on_mnist(noise, batch, epochs, epsilon):
    pytest.importorskip("opacus")
    computed = epsilon_of([(noise, batch / 60_000, epochs * 60_000 // batch)], 1e-5)
    assert 0.75 * epsilon < computed <= epsilon


def test_epsilon_is_below_that_of_the_moments_accountant():
    """Abadi et al., section 3.2: q = 0.01, sigma = 4, delta = 1e-5, 10,000 steps: 1.26."""
    pytest.importorskip("opacus")
    assert 0.75 * 1.26 < epsilon_of([(4, 0.01, 10_000)], 1e-5) <= 1.26


def test_the_epsilon_of_one_gaussian_is_near_the_exact_one():
    """Balle and Wang, 2018: the exact epsilon of one Gaussian with sigma = 2 at delta 1e-5."""
    pytest.importorskip("opacus")

    def delta(epsilon: float, sigma: float) -> float:
        phi = lambda x: 0.5 * math.erfc(-x / math.sqrt(2))  # noqa: E731
        a, b = 1 / (2 * sigma), epsilon * sigma
        return phi(a - b) - math.exp(epsilon) * phi(-a - b)

    low, high = 0.0, 10.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if delta(middle, 2.0) > 1e-5 else (low, middle)
    assert high <= epsilon_of([(2.0, 1.0, 1)], 1e-5) < 1.15 * high


def test_epsilon_is_never_below_zero():
    """The bound is, where delta alone grants more than a training tells."""
    pytest.importorskip("opacus")
    assert epsilon_of([(50.0, 0.001, 1)], 0.1) == 0
    assert epsilon_of([(1.0, 0.5, 2**70)], 1e-5) > 1e18


def test_no_noise_to_speak_of_costs_more_than_any_budget():
    pytest.importorskip("opacus")
    assert epsilon_of([(1e-3, 0.5, 10)], 1e-5) > 1e4
    assert epsilon_of([], 1e-5) == 0


def test_a_missing_package_is_named(monkeypatch):
    for name in ("opacus", "opacus.accountants"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match="pip install opacus"):
        Server(policy=Policy(privacy=private()))


def test_fits_are_added_up_until_the_budget_is_spent(simple):
    kept = PrivacyAccount("alice", private(epsilon=1.0))
    kept.charge(0.25, 2)
    kept.charge(0.1, 4)
    with pytest.raises(PrivacyBudgetSpent) as refused:
        kept.charge(0.25, 1)
    error = refused.value
    assert (error.spent, error.asked, error.epsilon) == (pytest.approx(0.9), pytest.approx(1.15), 1)
    assert str(error).startswith("worker 'alice' has spent epsilon 0.9 of 1 (delta 1e-05); with ")
    kept.charge(0.1, 1)
    kept.charge(1.0, 0)
    assert kept.spent == pytest.approx(1.0)


def test_what_was_spent_survives_a_restart(simple, tmp_path):
    settings = private(epsilon=1.0, account=tmp_path / "alice.json")
    PrivacyAccount("alice", settings).charge(0.25, 3)
    again = PrivacyAccount("alice", settings)
    assert again.spent == 0.75
    with pytest.raises(PrivacyBudgetSpent):
        again.charge(0.5, 1)
    again.charge(0.25, 1)
    assert PrivacyAccount("alice", settings).spent == 1.0
    assert set(os.listdir(tmp_path)) == {"alice.json", ".alice.json.lock"}


def test_the_file_is_that_of_now_even_if_the_worker_changes_its_directory(
    simple, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    kept = PrivacyAccount("alice", private(account="alice.json"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    kept.charge(0.25, 1)
    assert (tmp_path / "alice.json").exists()


def test_nothing_is_charged_that_cannot_be_written(simple, tmp_path):
    (tmp_path / "folder").mkdir()
    kept = PrivacyAccount("alice", private(account=tmp_path / "folder" / "alice.json"))
    (tmp_path / "folder").rmdir()
    with pytest.raises(OSError):
        kept.charge(0.25, 1)
    assert kept.spent == 0


@pytest.mark.parametrize(
    "content",
    [
        "", "no json", "[]", "{}", '{"format": 2, "history": []}', '{"format": 1}',
        '{"format": 1, "history": [[1, 2]]}', '{"format": 1, "history": [[1, 0.1, -5]]}',
        '{"format": 1, "history": [[1, 2, 5]]}', '{"format": 1, "history": [[NaN, 0.1, 5]]}',
        '{"format": 1, "history": [[Infinity, 0.1, 5]]}',
        '{"format": 1, "history": [[1, 0.1, 1e999]]}', '{"format": 1, "history": [[1, 0.1, 2.5]]}',
        '{"format": 1, "history": [["1", 0.1, 2]]}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_rather_than_begun_anew(simple, tmp_path, content):
    path = tmp_path / "alice.json"
    path.write_text(content)
    with pytest.raises(PrivacyAccountDamaged, match="so the worker trains no more"):
        PrivacyAccount("alice", private(account=path))
    assert path.read_text() == content


def test_two_workers_with_one_file_cannot_spend_the_same_budget_twice(simple, tmp_path):
    settings = private(account=tmp_path / "account.json")
    first, second = PrivacyAccount("alice", settings), PrivacyAccount("bob", settings)
    first.charge(0.25, 1)
    with pytest.raises(PrivacyAccountDamaged, match="it has changed since this worker wrote it"):
        second.charge(0.25, 1)
    (tmp_path / "account.json").unlink()
    with pytest.raises(PrivacyAccountDamaged):
        first.charge(0.25, 1)


def test_two_workers_that_charge_one_file_at_the_same_time_take_turns(
    simple, tmp_path, monkeypatch
):
    """While the first writes, the second has read the file, or waits until it may."""
    settings = private(account=tmp_path / "account.json")
    first, second = PrivacyAccount("alice", settings), PrivacyAccount("bob", settings)
    ready, errors = threading.Event(), []

    def charge():
        try:
            second.charge(0.25, 1)
        except PrivacyAccountDamaged as error:
            errors.append(error)

    thread = threading.Thread(target=charge)

    def note():
        if threading.current_thread() is thread:
            ready.set()

    def read(path, read=account._read):
        history = read(path)
        note()
        return history

    def flock(file, how, flock=fcntl.flock):
        note()
        flock(file, how)

    def write(path, content, write=account.write_whole):
        if threading.current_thread() is not thread:
            thread.start()
            assert ready.wait(DEADLINE)
        write(path, content)

    monkeypatch.setattr(account, "_read", read)
    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(account, "write_whole", write)
    first.charge(0.25, 1)
    thread.join(DEADLINE)
    assert len(errors) == 1
    assert PrivacyAccount("alice", settings).spent == first.spent == 0.25


def test_a_folder_has_a_file_for_each_worker(simple, tmp_path):
    for worker in ("alice", "../bob"):
        PrivacyAccount(worker, private(account=tmp_path)).charge(0.25, 1)
    names = {"alice.privacy.json", "-2e--2e--2f-bob.privacy.json"}
    assert set(os.listdir(tmp_path)) == names | {f".{name}.lock" for name in names}


@pytest.mark.parametrize("name", list(SETTINGS))
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "1", None], ids=str)
def test_settings_that_promise_nothing_are_refused(name, value):
    with pytest.raises(ValueError, match=f"DifferentialPrivacy: {name} is "):
        private(**{name: value})
    with pytest.raises(ValueError, match="above 0 and below 1"):
        private(delta=1)


@pytest.mark.parametrize("privacy", [3.0, "3", True, [1.0]], ids=str)
def test_a_policy_whose_privacy_is_none_is_refused(privacy):
    with pytest.raises(ValueError, match=r"Policy: privacy is .*; expected a DifferentialPrivacy"):
        Policy(privacy=privacy)


# Gradients


def test_gradients_are_clipped_to_their_norm_together():
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    one, other = clipped(gradients, 1.0)
    assert one.tolist() == pytest.approx([0.6, 0]) and other.tolist() == [[pytest.approx(0.8)]]
    assert same(clipped(gradients, 5.5), [each.double() for each in gradients])
    assert same(clipped([torch.zeros(2)], 1.0), [torch.zeros(2).double()])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_gradients_that_are_not_finite_count_as_zero(value):
    zeros = clipped([torch.tensor([value, 1.0]), torch.ones(1)], 1.0)
    assert same(zeros, [torch.zeros(2).double(), torch.zeros(1).double()])
    assert all(each.isfinite().all() for each in clipped([torch.full((9,), 3e38)], 1.0))


def test_noise_is_standard_normal():
    found = normal((300, 1000)).numpy()
    assert abs(found.mean()) < 0.01 and abs(found.std() - 1) < 0.01
    assert abs((found**3).mean()) < 0.03 and abs((found**4).mean() - 3) < 0.1
    assert abs(np.mean(np.abs(found) > 2) - 0.0455) < 0.002
    assert abs(np.corrcoef(found[:, :-1].ravel(), found[:, 1:].ravel())[0, 1]) < 0.01


def test_noise_and_drawing_come_from_the_secure_generator_and_not_from_seeds():
    torch.manual_seed(1)
    np.random.seed(1)
    first = normal((5,))
    torch.manual_seed(1)
    np.random.seed(1)
    assert not torch.equal(normal((5,)), first)
    assert normal((0,)).shape == (0,) and normal(()).shape == ()
    ones = lambda count: b"\xff" * count  # noqa: E731 - the largest number that can be drawn
    assert normal((5,), ones).isfinite().all()


def test_each_sample_is_drawn_with_the_same_probability():
    counts = np.zeros(50)
    for _ in range(2000):
        counts[drawn(50, 0.3)] += 1
    assert abs(counts.mean() / 2000 - 0.3) < 0.01 and counts.std() / 2000 < 0.02
    sizes = [len(drawn(1000, 0.1)) for _ in range(300)]
    assert 90 < np.mean(sizes) < 110 and 7 < np.std(sizes) < 12  # binomial: 9.5
    assert drawn(7, 1.0).tolist() == list(range(7))


def test_a_step_without_noise_is_the_mean_of_the_clipped_gradients_of_single_samples():
    model, data = Classifier(), blobs()
    gradients = PrivateGradients(model, F.nll_loss, Batches(data), 1.0, NO_NOISE)
    gradients.step()
    expected = [torch.zeros_like(each, dtype=torch.float64) for each in model.parameters()]
    for x, target in zip(data.data, data.targets, strict=True):
        local = Classifier()
        local.load_state_dict(model.state_dict())
        F.nll_loss(local(x[None]), target[None]).backward()
        norm = torch.cat([each.grad.flatten() for each in local.parameters()]).norm()
        assert norm > 0.5  # so that clipping matters
        for total, each in zip(expected, local.parameters(), strict=True):
            total += each.grad * (0.5 / norm) / len(data)
    for parameter, wanted in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad.double(), wanted, rtol=1e-4, atol=1e-6)


def test_the_noise_of_a_step_has_the_deviation_of_its_settings():
    model = nn.Linear(4, 2000)
    data = sy.BaseDataset(torch.zeros(40, 4), torch.zeros(40, 2000))
    settings = private(noise_multiplier=2.0, max_grad_norm=0.25)
    gradients = PrivateGradients(
        model, lambda pred, target: pred.sum() * 0, Batches(data), 0.5, settings
    )
    gradients.step()
    found = torch.cat([each.grad.flatten() for each in model.parameters()])
    assert found.std().item() == pytest.approx(2.0 * 0.25 / 20, rel=0.05)


class Remembering(nn.Module):
    """Keeps what it sees in a buffer and in a frozen parameter, and lets it into its output."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4))
        self.frozen = nn.Parameter(torch.zeros(4), requires_grad=False)
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        past = self.seen.clone() + self.frozen.clone()
        self.seen.add_(x[0])
        self.frozen.add_(x[0])
        return (self.weight * (x + past)).sum().view(1)


def test_no_sample_reaches_the_gradient_of_another_or_a_buffer():
    """Each sample's gradient is the sample, if the model remembers none."""
    model = torch.jit.script(Remembering())
    data = sy.BaseDataset(torch.eye(4) * 0.1, torch.zeros(4))
    loss_fn = lambda pred, target: pred.sum()  # noqa: E731
    PrivateGradients(model, loss_fn, Batches(data), 1.0, NO_NOISE).step()
    torch.testing.assert_close(model.weight.grad, torch.full((4,), 0.1 / 4))
    assert model.seen.tolist() == model.frozen.tolist() == [0] * 4


class Treacherous(nn.Module):
    """Fails for one class, or overflows."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.sum() > 100):
            x = x.view(1, 5) if self.how == "fails" else x * float("nan")
        return (self.weight[: x.shape[1]] * x).sum().view(1)


@pytest.mark.parametrize("how", ["fails", "overflows"])
def test_a_sample_that_makes_the_model_fail_is_not_told(how):
    model = torch.jit.script(Treacherous(how))
    data = sy.BaseDataset(torch.tensor([[0.1, 0, 0, 0], [900.0, 0, 0, 0]]), torch.zeros(2))
    PrivateGradients(model, lambda p, t: p.sum(), Batches(data), 1.0, NO_NOISE).step()
    torch.testing.assert_close(model.weight.grad, torch.tensor([0.05, 0, 0, 0]))


class Unreadable(torch.utils.data.Dataset):
    """The first sample cannot be read; the error shows why."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if not index:
            raise ValueError("cannot parse 'Jane Doe, 42'")
        return torch.zeros(4), torch.tensor(0)


def test_a_sample_that_cannot_be_read_is_told_to_the_owner_only(simple, make_worker, caplog):
    worker = make_worker(policy=Policy(privacy=private()))
    worker.add_dataset(Unreadable(), "unreadable")
    with asking(worker) as proxy:
        make_config().send(proxy)
        with pytest.raises(ValueError, match="a sample of the dataset cannot be read") as refused:
            proxy.fit("unreadable")
    assert "Jane" not in f"{refused.value} {refused.value.remote_traceback}"
    assert "Jane Doe" in caplog.text


def test_a_model_that_fails_for_every_sample_is_told():
    with pytest.raises(RuntimeError, match="shape"):
        PrivateGradients(nn.Linear(5, 3), F.nll_loss, Batches(blobs()), 1.0, NO_NOISE)


def test_random_layers_follow_neither_from_a_seed_nor_from_the_place_of_a_sample():
    """Else each sample's gradient would depend on how many samples are before it."""
    gradients = PrivateGradients(
        Classifier(dropout=0.5), F.nll_loss, Batches(blobs()), 1.0, NO_NOISE
    )
    with seeded(1):
        first = [gradients._clipped(0) for _ in range(5)]
    with seeded(1):
        again = [gradients._clipped(0) for _ in range(5)]
    assert not same(first, again)
    assert len({str(each) for each in first}) > 1


# A worker


class Local(RemoteMethods, sy.VirtualWorker):
    """A worker in this process, which is its own proxy."""


@pytest.fixture(params=["websocket", "virtual"])
def make_worker(request):
    """Make a worker with the dataset "blobs": one behind a socket, or one of this process."""
    with contextlib.ExitStack() as stack:

        def make(**settings):
            if request.param == "websocket":
                return stack.enter_context(serving(Server(**settings)))
            local = Local(id="alice", **settings)
            local.add_dataset(blobs(), key="blobs")
            return local

        yield make


@pytest.fixture
def worker(simple, tmp_path, make_worker):
    settings = private(epsilon=3.0, account=tmp_path / "alice.json")
    return make_worker(policy=Policy(privacy=settings))


def asking(worker):
    """A proxy of a worker, as a context."""
    return proxy_of(worker) if isinstance(worker, Server) else contextlib.nullcontext(worker)


def train(proxy, **settings):
    config = make_config(**settings)
    config.send(proxy)
    loss = proxy.fit(dataset_key="blobs")
    return loss, config.model_ptr.get().obj


def test_a_private_fit_changes_the_model_and_withholds_the_loss(worker):
    with asking(worker) as proxy:
        loss, model = train(proxy)
        assert loss is None and not same(model, classifier())
        assert all(each.isfinite().all() for each in model.parameters())
        _, again = train(proxy)  # another proxy's first fit would have the same seed
        assert not same(model, again)


def test_a_seed_does_not_make_the_noise_predictable(worker):
    models = []
    for _ in range(2):
        with asking(worker) as proxy:
            models.append(train(proxy, max_nr_batches=1, shuffle=False)[1])
    assert not same(*models)


def test_the_budget_is_refused_however_it_is_asked_for(worker, tmp_path):
    with asking(worker) as proxy:
        # Three epochs of 20 samples cost 3 x 20 / 20, in batches of any size.
        with pytest.raises(PrivacyBudgetSpent):
            train(proxy, batch_size=1, epochs=4)
        train(proxy, batch_size=1, epochs=1)
        train(proxy, batch_size=5, epochs=1)
        for settings in ({"batch_size": 20, "epochs": 2}, {"batch_size": 1, "epochs": 2}):
            with pytest.raises(PrivacyBudgetSpent):
                train(proxy, **settings)
    with asking(worker) as other, pytest.raises(PrivacyBudgetSpent, match="spent epsilon 2 of 3"):
        train(other, batch_size=10, epochs=2)
    assert json.loads((tmp_path / "alice.json").read_text())["worker"] == "alice"


def test_a_fit_of_no_steps_costs_nothing(worker):
    with asking(worker) as proxy:
        for _ in range(5):
            _, model = train(proxy, epochs=0)
        assert same(model, classifier())
    assert worker._dispatcher.guard.policy.privacy.spent == 0


def test_a_fit_that_ends_half_way_stays_charged_over_a_restart(simple, tmp_path, make_worker):
    """What it has changed of the model can be fetched."""
    settings = private(epsilon=10**9, account=tmp_path / "alice.json")
    worker = make_worker(policy=Policy(privacy=settings), limits=Limits(call_seconds=1))
    with asking(worker) as proxy:
        config = make_config(batch_size=1, epochs=10**6).send(proxy)
        with pytest.raises(LimitExceeded, match="call_seconds"):
            proxy.fit("blobs")
        assert not same(config.model_ptr.get().obj, classifier())
    assert PrivacyAccount("alice", settings).spent == pytest.approx(10**6)


def test_what_would_tell_without_noise_is_refused(worker):
    with asking(worker) as proxy:
        make_config().send(proxy)
        for call in (
            lambda: proxy.evaluate(dataset_key="blobs"),
            lambda: proxy.call("scale", torch.ones(1)),
        ):
            with pytest.raises(NotPermitted, match=r"its owner allows these calls: .*'fit'"):
                call()
        with pytest.raises(NotPermitted, match="does not permit 'LBFGS'"):
            train(proxy, optimizer="LBFGS", optimizer_args={})


def test_archives_whose_code_could_read_the_data_are_not_taken_beside_a_budget(simple, make_worker):
    with pytest.raises(ValueError, match="allow_torchscript is set for a worker with a privacy"):
        make_worker(policy=Policy(privacy=private()), allow_torchscript=True)


def test_an_owner_may_name_methods_of_its_own_but_not_evaluate(simple, make_worker):
    policy = Policy(privacy=private(), calls=["fit", "scale", "evaluate"])
    with asking(make_worker(policy=policy)) as proxy:
        assert proxy.call("scale", torch.ones(1)).tolist() == [2]
        make_config().send(proxy)
        with pytest.raises(NotPermitted):
            proxy.evaluate(dataset_key="blobs")


def test_the_proximal_term_and_optimizers_with_state_work_on_noised_gradients(worker):
    with asking(worker) as proxy:
        loss, model = train(proxy, proximal_mu=0.1, optimizer="Adam", optimizer_args={"lr": 0.1})
        assert loss is None and not same(model, classifier())


def test_a_kept_optimizer_goes_on_from_one_private_fit_to_the_next(simple):
    """It remembers what it was given, which are noised gradients. The proximal term is zero in the
    first step of a fit, so two fits of a step each are one fit of two without it."""
    settings = {"batch_size": 20, "optimizer_args": {"lr": 0.1, "momentum": 0.9}}
    models = []
    with serving(Server(policy=Policy(privacy=NO_NOISE))) as server:
        for fits, keep in ((1, {}), (2, {"keep_optimizer": True, "proximal_mu": 0.5}), (2, {})):
            model = classifier()
            with proxy_of(server) as proxy:
                for _ in range(fits):
                    steps = {"epochs": 2 // fits}  # of all samples
                    _, model = train(proxy, model=model, **steps, **settings, **keep)
            models.append(list(model.parameters()))
    expected, kept, forgotten = models
    torch.testing.assert_close(kept, expected)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(forgotten, expected)


def test_a_canary_is_visible_without_privacy_and_not_with_it(simple, tmp_path: Path):
    """One sample has an input that no other has, so the weights of that input tell whether it was
    there."""
    without = blobs(40)
    without.data[:, 3] = 0
    data, targets = without.data.clone(), without.targets.clone()
    data[0, 3] = 50.0
    datasets = {"in": sy.BaseDataset(data, targets), "out": without}

    def trace(policy, key, runs):
        found = []
        with serving(Server(policy=policy)) as server:
            server.datasets["blobs"] = datasets[key]
            for seed in range(runs):
                with proxy_of(server) as proxy:
                    _, model = train(proxy, seed=seed, batch_size=10, optimizer_args={"lr": 0.1})
                change = model.hidden.weight[:, 3] - classifier().hidden.weight[:, 3]
                found.append(change.norm().item())
        return found

    assert min(trace(None, "in", 2)) > 100 * max(trace(None, "out", 2), default=0)
    settings = Policy(privacy=private(noise_multiplier=4.0, epsilon=1000))
    hidden, absent = trace(settings, "in", 8), trace(settings, "out", 8)
    assert max(hidden) < 3 * max(absent) and min(hidden) < max(absent)


# What coordinators are told of the budget


async def test_a_worker_tells_where_its_budget_stands(worker):
    with asking(worker) as proxy:
        assert proxy.privacy_spent() == {"spent": 0, "epsilon": 3.0, "delta": 1e-5}
        train(proxy, batch_size=5, epochs=2)
        expected = {"spent": 2.0, "epsilon": 3.0, "delta": 1e-5}
        assert proxy.privacy_spent() == await proxy.async_privacy_spent() == expected


async def test_a_worker_without_a_budget_tells_none(make_worker):
    with asking(make_worker()) as proxy:
        assert proxy.privacy_spent() is await proxy.async_privacy_spent() is None


@pytest.mark.parametrize(
    "reply",
    [5, {}, {"spent": 1.0}, {"spent": "1", "epsilon": 3.0, "delta": 1e-5},
     {"spent": math.nan, "epsilon": 3.0, "delta": 1e-5}],
    ids=str,
)  # fmt: skip
def test_what_is_no_state_of_a_budget_is_not_believed(alice, monkeypatch, reply):
    monkeypatch.setattr(alice, "privacy_spent", lambda: reply)
    with pytest.raises(InvalidReply, match=r"the reply to privacy_spent\(\)"):
        asyncio.run(alice.async_privacy_spent())


async def a_round(workers, **settings):
    """Run a round of one epoch on each worker."""

    async def fit(proxy):
        config = make_config(**{"batch_size": 5, **settings}).send(proxy)
        loss = await proxy.async_fit("blobs")
        return proxy.id, (await config.model_ptr.async_get()).obj, loss

    return await run_round(workers, fit)


@contextlib.contextmanager
def three_workers(**epsilons):
    """Proxies of three workers; those named have a budget."""
    with contextlib.ExitStack() as stack:
        proxies = []
        for name in ("alice", "bob", "charlie"):
            epsilon = epsilons.get(name)
            policy = None if epsilon is None else Policy(privacy=private(epsilon=epsilon))
            server = stack.enter_context(serving(Server(id=name, policy=policy)))
            proxies.append(stack.enter_context(proxy_of(server)))
        yield proxies


async def test_a_round_has_the_epsilon_of_each_worker_with_a_budget(simple):
    with three_workers(alice=3.0) as proxies:
        await a_round(proxies)
        result = await a_round(proxies)
        assert result.to_fields()["epsilons"] == {"alice": 2.0}
        assert list(result.losses.values())[1:] != [None, None]
        assert "epsilons" not in (await a_round(proxies[1:])).to_fields()


async def test_a_worker_whose_budget_is_spent_is_named_and_the_round_goes_on(simple):
    with three_workers(bob=1.5) as proxies:
        await a_round(proxies)
        result = await a_round(proxies)
    assert list(result.models) == ["alice", "charlie"]
    assert str(result) == (
        "received 2 models, 1 failure: bob: privacy budget spent: epsilon 1 of 1.5; with this fit "
        "it would be 2"
    )


async def test_an_owner_who_names_the_calls_may_leave_out_what_was_spent(simple, make_worker):
    policy = Policy(privacy=private(), calls=["fit"])
    with asking(make_worker(policy=policy)) as proxy:
        with pytest.raises(NotPermitted):
            proxy.privacy_spent()
        with pytest.raises(NotPermitted):
            await proxy.async_privacy_spent()
        result = await a_round([proxy])
        assert list(result.models) == ["alice"] and result.privacy_spent == {}


# The scripts


@pytest.fixture
def three_images():
    """Proxies of a worker with three random images, with a budget of two epochs."""
    images = sy.BaseDataset(torch.randn(3, 1, 28, 28), torch.tensor([0, 1, 2]))
    policy = Policy(privacy=private(epsilon=2.0))
    with serving(Server(policy=policy)) as server, proxy_of(server) as proxy:
        server.add_dataset(images, "mnist")
        yield [proxy]


async def test_the_script_logs_what_was_spent_and_says_in_one_line_when_nothing_is_left(
    simple, three_images, caplog
):
    args = rwc.define_and_get_arguments(["--federate_after_n_batches", "1", "--batch_size", "3"])
    caplog.set_level("INFO", rwc.logger.name)
    model = torch.jit.script(rwc.Net())
    for number in (1, 2):
        await rwc.train_one_round(three_images, model, number, 0.1, args)
    with pytest.raises(QuorumNotReached) as ended:
        await rwc.train_one_round(three_images, model, 3, 0.1, args)
    told = [message for message in caplog.messages if "spent" in message]
    assert told == ["alice: epsilon 1 of 2 spent", "alice: epsilon 2 of 2 spent"]
    assert (
        rwc._first_line(ended.value)
        == str(ended.value)
        == (
            "received 0 models; the round needs 1 (min_workers). Failures: alice: privacy budget "
            "spent: epsilon 2 of 2; with this fit it would be 3."
        )
    )


def test_the_scripts_make_a_policy_of_their_options(simple, tmp_path):
    given = ["--epsilon", "3", "--delta", "1e-6", "--noise_multiplier", "2"]
    given += ["--max_grad_norm", "0.7", "--privacy_folder", str(tmp_path)]
    args = rws.define_and_get_arguments(["--id", "alice", "--port", "0", *given])
    options = {name: value for name, value in args.options.items() if name != "limits"}
    policy = Policy(**options.pop("policy"))
    assert policy.privacy == DifferentialPrivacy(2.0, 0.7, 3.0, 1e-6, str(tmp_path))
    assert (
        "privacy" not in rws.define_and_get_arguments(["--id", "bob", "-p", "0"]).options["policy"]
    )


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["--epsilon", "0"], "argument --epsilon: '0'; expected a number above 0"),
        (
            ["--epsilon", "3", "--delta", "1"],
            "argument --delta: '1'; expected a number above 0 and",
        ),
        (["--noise_multiplier", "1"], "--noise_multiplier is for a privacy budget: give --epsilon"),
        (
            ["--epsilon", "3", "--privacy_folder", "nowhere"],
            "--privacy_folder: 'nowhere' is no fol",
        ),
        (["--epsilon", "3", "--allow_torchscript"], "--allow_torchscript would let code read the"),
        (["--epsilon", "3", "--remote_operations"], "would let coordinators get around --epsilon"),
        (["--epsilon", "3", "--testing"], "--epsilon is for training images"),
    ],
)
def test_a_mistake_in_a_budget_is_one_line(capsys, given, complaint):
    with pytest.raises(SystemExit) as exited:
        rws.define_and_get_arguments(["--id", "alice", "--port", "0", *given])
    assert exited.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line and line.endswith("; see --help")
