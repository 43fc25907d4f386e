"""BaseDataset: what it holds, returns and refuses."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision.transforms import Compose, Grayscale, Normalize, ToTensor

import syft as sy
from syft.frameworks.torch.fl.dataset import Batches

MNIST = Compose([ToTensor(), Normalize((0.1307,), (0.3081,))])


@pytest.mark.parametrize("to", [torch.tensor, np.array, list], ids=["tensor", "array", "list"])
def test_samples_come_in_order_with_their_targets(to):
    dataset = sy.BaseDataset(to([[1.0], [2.0], [3.0]]), to([7, 8, 9]))
    assert len(dataset) == 3
    assert [
        (float(data[0]), int(target)) for data, target in map(dataset.__getitem__, range(3))
    ] == [
        (1.0, 7),
        (2.0, 8),
        (3.0, 9),
    ]


def test_tensors_of_different_sizes_can_be_in_a_list():
    data = [torch.zeros(1), torch.zeros(2)]
    dataset = sy.BaseDataset(data, [0, 1])
    assert dataset[1][0] is data[1] and dataset[1][1] == 1


def test_the_tutorials_transform_gets_the_image_that_it_expects():
    images = torch.arange(2 * 4 * 4, dtype=torch.uint8).view(2, 4, 4)
    dataset = sy.BaseDataset(
        images, [0, 1], transform=Compose([ToTensor(), Normalize((0.5,), (0.5,))])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image, target = dataset[1]
    assert (image.shape, image.dtype, target) == ((1, 4, 4), torch.float32, 1)
    assert torch.allclose(image[0], images[1] / 255 * 2 - 1)
    assert dataset.data is images


class Doubling(sy.BaseDataset):
    def __getitem__(self, index):
        sample, target = super().__getitem__(index)
        return 2 * sample, target


@pytest.mark.parametrize("cls", [sy.BaseDataset, Doubling])
@pytest.mark.parametrize(
    "transform",
    [
        ToTensor(),
        Compose([ToTensor()]),
        MNIST,
        Compose([MNIST]),
        Compose([ToTensor(), Grayscale()]),
        np.negative,
    ],
    ids=["tensor", "one step", "mnist", "nested", "another", "numpy"],
)
def test_a_batch_is_the_same_as_its_samples_one_by_one_bit_for_bit(cls, transform):
    images = torch.arange(5 * 4 * 4, dtype=torch.uint8).view(5, 4, 4)
    dataset = cls(images.clone(), [3, 1, 4, 1, 5], transform=transform)
    ((batch, targets),) = DataLoader(dataset, batch_size=5, sampler=[4, 0, 1, 3, 2])
    samples, labels = zip(*[dataset[index] for index in [4, 0, 1, 3, 2]], strict=True)
    assert torch.equal(batch, torch.stack(samples)) and batch.dtype == samples[0].dtype
    assert targets.tolist() == list(labels) == [5, 3, 1, 1, 4]
    assert torch.equal(dataset.data, images)


@pytest.mark.parametrize(
    "transform", [lambda sample: sample * 2, lambda sample: torch.as_tensor(sample) * 2]
)
def test_results_of_a_transform_become_tensors(transform):
    dataset = sy.BaseDataset(
        torch.tensor([[1.0, 2.0]], requires_grad=True), [0], transform=transform
    )
    sample, _ = dataset[0]
    assert isinstance(sample, torch.Tensor) and sample.tolist() == [2, 4]


def test_transform_replaces_all_inputs_at_once():
    dataset = sy.BaseDataset(torch.ones(3, 2), torch.zeros(3))
    dataset.transform(lambda data: data * 5)
    assert torch.equal(dataset.data, torch.full((3, 2), 5.0))
    assert dataset.get_data() is dataset.data and dataset.get_targets() is dataset.targets


def test_transform_needs_one_tensor():
    with pytest.raises(TypeError, match=r"needs data in one torch\.Tensor; it is in a list"):
        sy.BaseDataset([1, 2], [0, 1]).transform(abs)


def test_every_sample_needs_a_target():
    with pytest.raises(ValueError, match="data and targets differ in length: 2 and 3"):
        sy.BaseDataset(torch.zeros(2), torch.zeros(3))


def test_a_data_loader_makes_batches_of_it():
    dataset = sy.BaseDataset(
        torch.arange(10.0).view(5, 2), torch.arange(5), owner="alice", more="ignored"
    )
    batches = list(DataLoader(dataset, batch_size=2))
    assert [target.tolist() for _, target in batches] == [[0, 1], [2, 3], [4]]
    assert torch.equal(torch.cat([data for data, _ in batches]), dataset.data)
    assert sy.BaseDataset(torch.ones(1), torch.ones(1)).owner is sy.local_worker
    assert dataset.owner == "alice" and repr(dataset) == "BaseDataset(5 samples)"


class Flipping(sy.BaseDataset):
    """Reads many samples in its own way."""

    batch = 32  # a name like any other

    def __getitems__(self, indices):
        return [(-data, target) for data, target in map(self.__getitem__, indices)]


class Counted(sy.BaseDataset):
    """Reads one sample in its own way, and has no targets beside."""

    def __init__(self, data):
        self.data, self.transform_ = data, None

    def __getitem__(self, index):
        return self.data[index], index


DATA, TARGETS = torch.rand(5, 2), torch.arange(5)
DATASETS = {
    "tensors": lambda: sy.BaseDataset(DATA, TARGETS),
    "list of targets": lambda: sy.BaseDataset(DATA, TARGETS.tolist()),
    "array of targets": lambda: sy.BaseDataset(DATA, TARGETS.numpy()),
    "arrays": lambda: sy.BaseDataset(DATA.numpy(), TARGETS.numpy()),
    "own way to read many": lambda: Flipping(DATA, TARGETS),
    "own way to read one": lambda: Counted(DATA),
    "subset": lambda: Subset(sy.BaseDataset(DATA, TARGETS), [4, 0, 2]),
    "subset by a tensor": lambda: Subset(sy.BaseDataset(DATA, TARGETS), torch.tensor([4, 0, 2])),
    "torch's own": lambda: TensorDataset(DATA, DATA, TARGETS),
    "list of pairs": lambda: list(zip(DATA, TARGETS.tolist(), strict=True)),
}


@pytest.mark.parametrize("make", DATASETS.values(), ids=DATASETS)
def test_whole_batches_are_those_of_a_data_loader(make):
    dataset = make()
    whole = DataLoader(Batches(dataset), batch_size=2, collate_fn=Batches.collate)
    assert len(whole.dataset) == len(dataset) and whole.batch_size == 2
    for batch, expected in zip(whole, DataLoader(dataset, batch_size=2), strict=True):
        assert all(map(torch.equal, batch, expected))
        assert [each.dtype for each in batch] == [each.dtype for each in expected]


def test_whole_batches_have_the_attributes_of_the_dataset():
    batches = Batches(sy.BaseDataset(DATA, TARGETS))
    assert batches.targets is TARGETS
    assert torch.equal(batches[3][0], DATA[3])
    with pytest.raises(AttributeError, match="nothing"):
        batches.nothing  # noqa: B018


# What torch 2.4 itself does to unpickle a tensor.
@pytest.mark.filterwarnings("ignore:You are using `torch.load`:FutureWarning")
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_batches_can_be_copied_and_sent_to_a_process_of_a_data_loader(copied):
    batches = Batches(sy.BaseDataset(torch.arange(3.0), torch.arange(3)))
    again = copied(batches)
    assert again.targets.tolist() == [0, 1, 2]  # an attribute of the dataset
    assert again.__getitems__([2, 0])[0].tolist() == [2, 0]
