"""Seeds of a program, whatever trains beside it in the same process."""

import asyncio
import contextlib
import itertools

import pytest
import torch

import syft as sy
from syft.federated.seeding import draw_seed, fit_seeds, program_state, seeded, set_program_state
from syft.frameworks.torch.fl.utils import federated_avg
from tests.models import blobs, classifier, make_config


def test_the_seeds_of_a_fit_are_digests_that_other_programs_can_compute():
    """The oracle is sha256sum: printf 'shuffling 7 0 alice' | sha256sum."""
    assert fit_seeds(7, "alice", 0).shuffling == 0x1E15F8DA044A0536
    assert fit_seeds(-1, "王", 12).layers == 0x2D4AD162DDBE22C6


def test_every_fit_of_every_worker_has_seeds_of_its_own():
    fits = itertools.product((0, 1, 2**62), ("alice", "bob", "1 alice", "\udcff"), (0, 1, 10, 11))
    seeds = [seed for fit in fits for seed in fit_seeds(*fit)]
    assert len(set(seeds)) == 2 * 3 * 4 * 4
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_a_training_draws_from_its_seed():
    with seeded(5):
        drawn = torch.rand(3)
    assert torch.equal(drawn, torch.rand(3, generator=torch.Generator().manual_seed(5)))


def test_without_a_seed_torchs_generator_is_used_as_it_is():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeded(None):
        assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_programs_seeds_are_the_same_beside_trainings_that_end_in_any_order(order):
    torch.manual_seed(3)
    expected = [draw_seed() for _ in range(5)]
    torch.manual_seed(3)
    seeds, trainings = [draw_seed()], [contextlib.ExitStack() for _ in range(3)]
    for number, training in enumerate(trainings):
        training.enter_context(seeded(number))
        seeds.append(draw_seed())
        torch.rand(number)
    for number in order:
        trainings[number].close()
    assert [*seeds, draw_seed()] == expected


def test_a_checkpoint_beside_a_training_has_the_programs_state():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with seeded(1):
        assert torch.equal(program_state(), state)
        set_program_state(torch.Generator().manual_seed(9).get_state())
        assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(9)))


def test_a_training_that_fails_leaves_the_generator_as_it_was():
    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded(1):
        torch.rand(1 // 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_virtual_workers_that_train_at_once_are_reproducible():
    async def run() -> torch.Tensor:
        torch.manual_seed(1)
        model = classifier()
        workers = [sy.VirtualWorker(id=f"worker-{number}", auto_add=False) for number in range(4)]
        for worker in workers:
            worker.add_dataset(blobs(), key="blobs")

        async def fit(worker):
            config = make_config(model, seed=None, max_nr_batches=3).send(worker)
            await worker.async_fit(dataset_key="blobs")
            return (await config.model_ptr.async_get()).obj

        for _ in range(5):
            model = federated_avg(await asyncio.gather(*map(fit, workers)))
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    first = asyncio.run(run())
    assert all(torch.equal(asyncio.run(run()), first) for _ in range(3))
