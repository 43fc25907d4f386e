"""FederatedDataLoader: which samples come in which batch, from whom, at what cost."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import syft as sy
from syft.exceptions import RemoteOperationsOff
from syft.frameworks.torch.fl.utils import extract_batches_per_worker, federated_avg
from tests.models import Classifier, blobs
from tests.network import Server, proxy_of, serving


def worker(name: str) -> sy.VirtualWorker:
    return sy.VirtualWorker(id=name)


def federated(**samples: int) -> sy.FederatedDataset:
    """Return a dataset with so many samples on each worker; sample n has the input [n, n] and the
    target n, counted through all workers."""
    parts = torch.arange(sum(samples.values())).split(list(samples.values()))
    return sy.FederatedDataset(
        sy.BaseDataset(part.float().view(-1, 1).expand(-1, 2).clone(), part.clone()).send(
            worker(name)
        )
        for name, part in zip(samples, parts, strict=True)
    )


def fetched(pair) -> tuple[str, list[int]]:
    """Return the worker that holds a batch, and the numbers of its samples."""
    data, target = pair
    assert data.location is target.location
    numbers = target.get().tolist()
    assert data.get().tolist() == [[number, number] for number in numbers]
    return data.location.id, numbers


def steps(loader) -> list[dict[str, list[int]]]:
    """Return what a loader that gives dicts gives: worker -> numbers of samples."""
    found = []
    for step in loader:
        assert all(data.location is where for where, (data, _) in step.items())
        found.append(dict(map(fetched, step.values())))
    return found


def test_batches_come_in_order_worker_after_worker():
    loader = sy.FederatedDataLoader(federated(bob=3, alice=4), batch_size=2)
    assert list(map(fetched, loader)) == [
        ("bob", [0, 1]),
        ("bob", [2]),
        ("alice", [3, 4]),
        ("alice", [5, 6]),
    ]
    assert loader.workers == loader.federated_dataset.workers == ["bob", "alice"]


def test_a_small_last_batch_may_be_left_out():
    loader = sy.FederatedDataLoader(federated(bob=3, alice=4, carl=1), 2, drop_last=True)
    assert list(map(fetched, loader)) == [
        ("bob", [0, 1]),
        ("alice", [3, 4]),
        ("alice", [5, 6]),
    ]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    "readers",
    [{}, {"num_iterators": 2}, {"num_iterators": 9}, {"iter_per_worker": True}],
    ids=str,
)
@pytest.mark.parametrize(
    "samples",
    [{"bob": 5}, {"bob": 2, "alice": 4}, {"bob": 2, "alice": 5, "carl": 3, "dora": 1}],
    ids=str,
)
def test_the_length_is_the_number_of_steps(samples, readers, shuffle, drop_last):
    loader = sy.FederatedDataLoader(
        federated(**samples), batch_size=2, shuffle=shuffle, drop_last=drop_last, **readers
    )
    assert len(list(loader)) == len(loader)
    assert len(list(loader)) == len(loader), "the second pass"


def test_a_shuffled_pass_has_each_sample_once_and_keeps_the_order_of_the_workers():
    loader = sy.FederatedDataLoader(federated(bob=20, alice=30), batch_size=8, shuffle=True)
    orders = []
    for _ in range(2):
        batches = list(map(fetched, loader))
        assert [name for name, _ in batches] == ["bob"] * 3 + ["alice"] * 4
        orders.append([number for _, numbers in batches for number in numbers])
        assert sorted(orders[-1][:20]) == list(range(20))
        assert sorted(orders[-1][20:]) == list(range(20, 50))
    assert orders[0] != orders[1] != sorted(orders[0])


def test_a_seed_repeats_the_order_whatever_else_is_drawn_meanwhile():
    loader = sy.FederatedDataLoader(federated(bob=20, alice=30), batch_size=8, shuffle=True)

    def order(draws: int) -> list[tuple[str, list[int]]]:
        torch.manual_seed(1)
        batches = []
        for pair in loader:
            batches.append(fetched(pair))
            torch.rand(draws)
        return batches

    assert order(0) == order(3)


def test_reading_in_order_draws_nothing():
    loader = sy.FederatedDataLoader(federated(bob=3))
    state = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_of_several_workers_come_at_each_step_until_no_worker_is_free():
    loader = sy.FederatedDataLoader(federated(bob=2, alice=4, james=4), 2, num_iterators=3)
    assert loader.num_iterators == 2  # one worker has to be free
    # Each of the two readers goes through all samples.
    assert steps(loader) == [
        {"bob": [0, 1], "alice": [2, 3]},
        {"james": [6, 7], "alice": [4, 5]},
        {"james": [8, 9], "bob": [0, 1]},
        {"alice": [2, 3], "james": [6, 7]},
        {"alice": [4, 5], "james": [8, 9]},
    ]


def test_two_workers_are_too_few_for_two_readers():
    loader = sy.FederatedDataLoader(federated(bob=2, alice=4), 2, num_iterators=2)
    assert loader.num_iterators == 1
    assert list(map(fetched, loader)) == [("bob", [0, 1]), ("alice", [2, 3]), ("alice", [4, 5])]


def test_a_batch_of_every_worker_comes_at_each_step_until_one_has_no_more():
    loader = sy.FederatedDataLoader(federated(bob=3, alice=8), 2, iter_per_worker=True)
    assert loader.num_iterators == 2
    assert steps(loader) == [
        {"bob": [0, 1], "alice": [3, 4]},
        {"bob": [2], "alice": [5, 6]},
    ]


def test_one_worker_alone_comes_in_a_dict_as_well_if_asked_for():
    loader = sy.FederatedDataLoader(federated(bob=3), 2, iter_per_worker=True)
    assert steps(loader) == [{"bob": [0, 1]}, {"bob": [2]}]


def test_next_goes_on_with_the_last_pass():
    loader = sy.FederatedDataLoader(federated(bob=5), batch_size=2)
    assert fetched(next(loader)) == ("bob", [0, 1])
    iter(loader)
    assert [fetched(next(loader))[1] for _ in range(3)] == [[0, 1], [2, 3], [4]]
    with pytest.raises(StopIteration):
        next(loader)


def test_two_passes_at_once_do_not_disturb_each_other():
    loader = sy.FederatedDataLoader(federated(bob=4), batch_size=2)
    pairs = [(fetched(one)[1], fetched(two)[1]) for one, two in zip(loader, loader, strict=True)]
    assert pairs == [([0, 1], [0, 1]), ([2, 3], [2, 3])]


class Operations(TorchDispatchMode):
    """Notes the operations on pointers."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if getattr(args[0], "location", None) is not None:
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_batch_is_one_operation_for_the_data_and_one_for_the_targets(shuffle):
    loader = sy.FederatedDataLoader(federated(bob=64, alice=64), batch_size=32, shuffle=shuffle)
    with Operations() as operations:
        batches = list(loader)
    assert operations.names == ["aten::index.Tensor"] * 2 * len(batches)


def test_batches_are_grouped_by_worker():
    loader = sy.FederatedDataLoader(federated(bob=2, alice=4), batch_size=2, shuffle=True)
    batches = extract_batches_per_worker(loader)
    assert {where.id: len(pairs) for where, pairs in batches.items()} == {"bob": 1, "alice": 2}


def test_changing_a_batch_leaves_the_dataset_alone():
    dataset = federated(bob=4)
    loader = sy.FederatedDataLoader(dataset, batch_size=4)
    ((data, _),) = loader
    data.zero_()
    assert fetched(next(iter(loader)))[1] == [0, 1, 2, 3]


def test_an_own_collate_function_gets_the_samples_one_by_one():
    def collate(samples):
        data, targets = zip(*samples, strict=True)
        return torch.stack(data), -torch.stack(targets)

    loader = sy.FederatedDataLoader(federated(bob=3), batch_size=2, collate_fn=collate)
    assert [target.get().tolist() for _, target in loader] == [[0, -1], [-2]]


class Negative(sy.BaseDataset):
    def __getitem__(self, index):
        data, target = super().__getitem__(index)
        return data, -target


def test_a_dataset_that_reads_in_its_own_way_is_read_sample_by_sample():
    dataset = Negative(torch.rand(3, 2), torch.arange(3)).send(worker("bob"))
    loader = sy.FederatedDataLoader(sy.FederatedDataset([dataset]), batch_size=2)
    assert [target.get().tolist() for _, target in loader] == [[0, -1], [-2]]


def test_tensors_that_a_search_found_can_be_loaded():
    sy.TorchHook(torch)
    workers = [worker("bob"), worker("alice")]
    sent = []
    for one in workers:
        sent.append(torch.zeros(10, 4).tag("data").send(one))
        sent.append(torch.zeros(10, 3).tag("target").send(one))
    grid = sy.PrivateGridNetwork(*workers)
    data, target = grid.search("data"), grid.search("target")
    dataset = sy.FederatedDataset(
        sy.BaseDataset(data[name][0], target[name][0]) for name in ("bob", "alice")
    )
    loader = sy.FederatedDataLoader(dataset, batch_size=4)
    assert [(tuple(x.shape), tuple(y.shape)) for x, y in loader] == [
        ((4, 4), (4, 3)),
        ((4, 4), (4, 3)),
        ((2, 4), (2, 3)),
    ] * 2
    assert len(loader) == 6


def test_arguments_of_torchs_loader_are_ignored_with_a_warning_in_the_log(caplog):
    sy.FederatedDataLoader(federated(bob=1), num_workers=1, pin_memory=True)
    (message,) = caplog.messages
    assert message == "FederatedDataLoader ignores these arguments: num_workers, pin_memory"


def test_a_dataset_of_this_process_is_refused():
    with pytest.raises(
        TypeError, match=r"cannot load batches of a BaseDataset; .* dataset\.federa"
    ):
        sy.FederatedDataLoader(sy.BaseDataset(torch.ones(1), torch.ones(1)))


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("num_iterators", -1), ("batch_size", 2.5)]
)
def test_numbers_that_make_no_batches_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; expected a positive number"):
        sy.FederatedDataLoader(federated(bob=1), **{name: value})


def trained(model, batches) -> torch.nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for data, target in batches:
        optimizer.zero_grad()
        F.nll_loss(model(data), target).backward()
        optimizer.step()
    return model


def test_rounds_of_training_on_workers_are_local_training_bit_for_bit():
    sy.TorchHook(torch)
    workers = [worker("bob"), worker("alice")]
    loader = sy.FederatedDataLoader(blobs().federate(workers), 4, iter_per_worker=True)
    remote = Classifier()
    here = copy.deepcopy(remote)
    iter(loader)
    for step in range(2):
        batches = next(loader)
        models = {}
        for where, pair in batches.items():
            models[where] = trained(remote.copy().send(where), [pair]).get()
        remote = federated_avg(models)
        models = []
        for first in (0, 10):
            chosen = slice(first + 4 * step, first + 4 * step + 4)
            pair = blobs().data[chosen], blobs().targets[chosen]
            models.append(trained(copy.deepcopy(here), [pair]))
        here = federated_avg(models)
    for name, tensor in here.state_dict().items():
        assert torch.equal(remote.state_dict()[name], tensor)


def test_batches_come_from_a_worker_behind_a_socket():
    with serving(Server(remote_operations=True)) as server, proxy_of(server) as proxy:
        dataset = blobs()
        loader = sy.FederatedDataLoader(blobs().federate([proxy]), batch_size=8)
        batches = list(loader)
        assert all(data.location is proxy for data, _ in batches)
        assert torch.equal(torch.cat([data.get() for data, _ in batches]), dataset.data)
        assert torch.equal(torch.cat([target.get() for _, target in batches]), dataset.targets)


def test_no_batches_come_from_a_worker_that_operates_on_no_remote_tensors(proxy):
    dataset = blobs().federate([proxy])
    with pytest.raises(RemoteOperationsOff, match="worker 'alice' runs no operations"):
        next(iter(sy.FederatedDataLoader(dataset, batch_size=8)))
    assert torch.equal(dataset.get_dataset("alice").data, blobs().data)
