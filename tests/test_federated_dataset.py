"""Datasets on workers: sending and fetching them, and spreading one over several workers."""

import logging

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, RandomCrop, ToTensor

import syft as sy
from syft.exceptions import WorkerNotFoundException
from syft.frameworks.torch.fl.dataset import dataset_federate
from tests.models import blobs

DATA, TARGETS = torch.rand(6, 2), torch.arange(6)


@pytest.fixture
def bob() -> sy.VirtualWorker:
    return sy.VirtualWorker(id="bob")


@pytest.fixture
def workers(bob, alice) -> list[sy.VirtualWorker]:
    return [bob, alice]


def local(data=DATA, targets=TARGETS, **settings) -> sy.BaseDataset:
    return sy.BaseDataset(data.clone(), targets.clone(), **settings)


def contents(dataset: sy.FederatedDataset) -> dict[str, list]:
    """Fetch what is on each worker."""
    return {
        name: [part[name].get().tolist() for part in ({name: one.data}, {name: one.targets})]
        for name, one in dataset.datasets.items()
    }


# One worker


def test_a_dataset_that_is_sent_has_pointers_and_a_location(bob):
    dataset = local()
    assert dataset.send(bob) is dataset
    assert dataset.data.location is dataset.targets.location is dataset.location is bob
    assert len(dataset) == 6 and repr(dataset) == "BaseDataset(6 samples on worker 'bob')"


def test_a_worker_may_be_named_by_its_id(bob):
    assert local().send("bob").location is bob
    with pytest.raises(WorkerNotFoundException, match="no worker 'carol' is known"):
        local().send("carol")


def test_what_was_sent_comes_back_and_stays_nowhere_else(bob):
    dataset = local().send(bob)
    assert bob.objects_count() == 2
    assert dataset.get() is dataset
    assert torch.equal(dataset.data, DATA) and torch.equal(dataset.targets, TARGETS)
    assert bob.objects_count() == 0 and not hasattr(dataset, "location")


def test_a_sample_of_a_sent_dataset_is_a_pair_of_pointers(bob):
    data, target = local().send(bob)[2]
    assert data.location is target.location is bob
    assert torch.equal(data.get(), DATA[2]) and target.get().item() == 2


def test_the_transform_is_applied_when_the_dataset_is_sent(bob):
    images = torch.arange(3 * 4 * 4, dtype=torch.uint8).view(3, 4, 4)
    transform = Compose([ToTensor(), Normalize((0.5,), (0.5,))])
    dataset = sy.BaseDataset(images, torch.arange(3), transform=transform)
    expected = torch.stack([image for image, _ in dataset])
    assert torch.equal(dataset.send(bob).data.get(), expected)


def test_lists_and_arrays_become_tensors_when_they_are_sent(bob):
    dataset = sy.BaseDataset([torch.ones(2), torch.zeros(2)], TARGETS[:2].numpy()).send(bob)
    assert dataset.data.get().tolist() == [[1, 1], [0, 0]]
    assert dataset.targets.get().tolist() == [0, 1]


class Doubling(sy.BaseDataset):
    def __getitem__(self, index):
        data, target = super().__getitem__(index)
        return 2 * data, target


def test_a_subclass_reads_samples_in_its_own_way_on_the_worker_too(bob):
    dataset = Doubling(DATA, TARGETS).send(bob)
    assert torch.equal(dataset[1][0].get(), 2 * DATA[1])


def test_tags_of_a_dataset_find_its_tensors(bob):
    dataset = local(tags=["#x"]).tag("#y").describe("six samples").send(bob)
    found = bob.search(["#x", "#y"])
    assert {one.id_at_location for one in found} == {
        dataset.data.id_at_location,
        dataset.targets.id_at_location,
    }
    assert [one.description for one in found] == ["six samples"] * 2


def test_a_dataset_has_an_id_and_no_description():
    assert (local(id=1).id, local().description, local().tags) == (1, None, None)
    assert local().id != local().id


def test_a_dataset_of_pointers_is_on_their_worker(bob):
    dataset = sy.BaseDataset(local().send(bob).data, local().send(bob).targets)
    assert dataset.location is bob and len(dataset) == 6


def test_a_dataset_that_is_elsewhere_is_not_sent_once_more(workers):
    bob, alice = workers
    dataset = local().send(bob)
    for action in (lambda: dataset.send(alice), lambda: dataset.federate(workers)):
        with pytest.raises(ValueError, match=r"samples are on worker 'bob'; .* Call \.get\(\) fir"):
            action()


def test_a_dataset_that_is_here_can_neither_be_fetched_nor_located():
    with pytest.raises(ValueError, match=r"cannot get BaseDataset.*: its samples are in this pr"):
        local().get()
    with pytest.raises(AttributeError, match=r"has no location: .*, call \.send\(worker\)"):
        _ = local().location


def test_pointers_take_no_transform(bob):
    sent = local().send(bob)
    with pytest.raises(
        ValueError, match=r"on worker 'bob', where a transform cannot run; .* befor"
    ):
        sy.BaseDataset(sent.data, sent.targets, transform=ToTensor())


def test_samples_that_make_no_tensor_are_refused_with_the_reason(bob):
    uneven = sy.BaseDataset([torch.ones(1), torch.ones(2)], [0, 1])
    with pytest.raises(ValueError, match=r"samples of this BaseDataset do not make .*equal size"):
        uneven.send(bob)


# Several workers


def test_a_dataset_is_cut_into_one_part_for_each_worker(workers):
    federated = local().federate(workers)
    assert isinstance(federated, sy.FederatedDataset)
    assert federated.workers == ["bob", "alice"] and len(federated) == 6
    assert federated["bob"].location.id == "bob" and federated["alice"].location is workers[1]
    assert str(federated) == "FederatedDataset(6 samples on: bob, alice)"
    assert contents(federated) == {
        "bob": [DATA[:3].tolist(), [0, 1, 2]],
        "alice": [DATA[3:].tolist(), [3, 4, 5]],
    }


def test_federating_leaves_the_dataset_as_it_was(workers):
    dataset = local()
    dataset.federate(workers)
    assert torch.equal(dataset.data, DATA) and not hasattr(dataset, "location")


@pytest.mark.parametrize(
    ("samples", "parts"), [(6, [3, 3]), (5, [3, 2]), (3, [2, 1]), (2, [1, 1])], ids=str
)
def test_the_last_part_may_be_smaller(workers, samples, parts):
    federated = local(DATA[:samples], TARGETS[:samples]).federate(workers)
    assert list(map(len, federated.datasets.values())) == parts


def test_a_worker_for_whom_nothing_is_left_is_named_in_the_log(workers, caplog):
    federated = local(DATA[:1], TARGETS[:1]).federate(workers)
    assert federated.workers == ["bob"]
    assert caplog.messages == ["no samples are left for worker alice: 1 in all"]


def test_progress_is_logged(workers, caplog):
    caplog.set_level(logging.INFO, "syft.frameworks.torch.fl.dataset")
    local().federate(workers)
    assert caplog.messages == [
        "sending 3 of 6 samples to worker bob",
        "sending 3 of 6 samples to worker alice",
    ]


class Own(Dataset):
    """A dataset as users write them, with targets that are plain numbers."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index >= 4:
            raise IndexError
        return DATA[index], index


DATASETS = {
    "own": Own,
    "subset": lambda: Subset(Own(), [0, 1, 2, 3]),
    "tensors": lambda: TensorDataset(DATA[:4], TARGETS[:4]),
}


@pytest.mark.parametrize("make", DATASETS.values(), ids=DATASETS)
def test_a_hook_lets_every_dataset_be_federated(workers, make):
    sy.TorchHook(torch)
    federated = make().federate(tuple(workers))
    assert contents(federated) == {
        "bob": [DATA[:2].tolist(), [0, 1]],
        "alice": [DATA[2:4].tolist(), [2, 3]],
    }


@pytest.fixture
def mnist(tmp_path, monkeypatch) -> type[MNIST]:
    """torchvision's class, with 5 random images."""

    def load(self):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (5, 28, 28), generator=generator, dtype=torch.uint8)
        return images, torch.arange(5)

    monkeypatch.setattr(MNIST, "_load_data", load)
    monkeypatch.setattr(MNIST, "_check_exists", lambda self: True)
    return lambda **settings: MNIST(tmp_path, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"transform": ToTensor()},
        {"transform": Compose([ToTensor(), Normalize((0.1307,), (0.3081,))])},
        {"transform": Compose([RandomCrop(28), ToTensor()])},
        {"transform": ToTensor(), "target_transform": lambda target: target + 1},
    ],
    ids=["tensor", "normalized", "another", "targets too"],
)
def test_mnist_is_federated_as_its_samples_read_bit_for_bit(workers, mnist, settings):
    samples = list(mnist(**settings))
    federated = dataset_federate(mnist(**settings), workers)
    expected = torch.stack([image for image, _ in samples])
    assert torch.equal(
        torch.cat([federated[name].data.get() for name in federated.workers]), expected
    )
    targets = torch.cat([federated[name].targets.get() for name in federated.workers])
    assert targets.tolist() == [target for _, target in samples]


class Endless(IterableDataset):
    def __iter__(self):
        yield DATA[0], 0


@pytest.mark.parametrize(
    ("dataset", "error", "text"),
    [
        (Endless(), TypeError, "cannot federate a Endless: it has no length; expected a map-style"),
        (TensorDataset(DATA[:0]), ValueError, "cannot federate 0 samples over 2 workers"),
        (TensorDataset(DATA), ValueError, "a sample of this TensorDataset has 1 parts; expected t"),
        (TensorDataset(DATA, DATA, DATA), ValueError, "has 3 parts; expected two: an input and a"),
    ],
    ids=["endless", "empty", "one part", "three parts"],
)
def test_what_cannot_be_federated_is_refused(workers, dataset, error, text):
    with pytest.raises(error, match=text):
        dataset_federate(dataset, workers)


def test_a_federated_dataset_needs_workers():
    with pytest.raises(ValueError, match="cannot federate 6 samples over 0 workers; expected at l"):
        local().federate([])


def test_workers_may_be_named_by_their_ids(workers):
    assert local().federate(["alice", "bob"])["alice"].location is workers[1]
    with pytest.raises(WorkerNotFoundException, match="'carol'"):
        local().federate(["alice", "carol"])


def test_one_dataset_may_be_taken_out(workers):
    federated = local().federate(workers)
    for worker, rest in (("alice", ["bob"]), (workers[0], [])):
        taken = federated.get_dataset(worker)
        assert isinstance(taken.data, torch.Tensor) and not hasattr(taken, "location")
        assert len(taken) == 3 and federated.workers == rest
    assert len(federated) == 0


def test_two_datasets_on_one_worker_are_refused(bob):
    with pytest.raises(ValueError, match=r"two datasets are on worker 'bob'; .* Join their data"):
        sy.FederatedDataset([local().send(bob), local().send(bob)])


def test_a_dataset_that_is_not_on_one_worker_is_refused(workers):
    on_bob, on_alice = (local().send(worker) for worker in workers)
    with pytest.raises(
        ValueError, match="dataset 1 is not on one worker: its data are in this proc"
    ):
        sy.FederatedDataset([on_bob, local()])
    with pytest.raises(ValueError, match="data are on worker 'bob', its targets on worker 'alice'"):
        sy.FederatedDataset([sy.BaseDataset(on_bob.data, on_alice.targets)])


def test_a_dataset_goes_to_a_worker_behind_a_socket_and_comes_back(proxy):
    dataset, expected = blobs().send(proxy), blobs()
    assert dataset.location is proxy and proxy.objects_count_remote() == 2
    dataset.get()
    assert torch.equal(dataset.data, expected.data)
    assert torch.equal(dataset.targets, expected.targets)
    assert proxy.objects_count_remote() == 0
