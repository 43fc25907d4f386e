"""The notebook on remote tensors, executed from top to bottom by a kernel of its own, against the
four workers as users start them for it."""

import re
from collections.abc import Iterator
from typing import Any

import nbformat
import pytest

from tests.e2e.notebooks import (
    cell_with,
    check_cells_are_short,
    check_figures,
    check_links,
    check_ran_without_warnings,
    check_stored_outputs,
    execute,
    printed,
    set_parameters,
    workers,
)
from tests.e2e.programs import REPOSITORY

NOTEBOOK = REPOSITORY / "federated_dataloader.ipynb"
# Less training than in the tutorial, and the accuracy that this reaches for certain.
LESS = {"SAMPLES": 4800, "EPOCHS": 1, "MEASURED_STEPS": 2, "CLAIMED_ACCURACY": 0.5}


@pytest.fixture(scope="module")
def stored() -> Any:
    """The notebook as it is in the repository."""
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def ports(tmp_path_factory) -> Iterator[dict[str, int]]:
    """The ports of four workers that carry out remote operations."""
    with workers(tmp_path_factory.mktemp("workers"), "--remote_operations") as ports:
        yield ports


@pytest.fixture(scope="module")
def executed(stored: Any, ports: dict[str, int]) -> Any:
    """The notebook after its execution."""
    notebook = nbformat.from_dict(stored)
    set_parameters(notebook, PORTS=ports, **LESS)
    execute(notebook)
    return notebook


# Executed


def test_all_cells_run_without_warnings(executed):
    check_ran_without_warnings(executed)


def test_every_figure_holds_something(executed):
    assert check_figures(executed) == 6


def test_the_errors_are_those_that_the_text_tells_of(executed):
    errors = printed(cell_with(executed, "for attempt in ("))
    names = re.findall(r"^(\w+): ", errors, re.MULTILINE)
    assert names == ["RemoteValueNeeded", "TensorsNotCollocatedException", "RuntimeError"]
    late = printed(cell_with(executed, "doubled.get()"))
    assert "aten::index.Tensor, posted at cell line 2, failed on worker 'alice': IndexErr" in late


def test_ten_steps_wait_once(executed):
    text = printed(cell_with(executed, "assert remote.waits == 1"))
    assert "waited 1 time in ten steps" in text


# As it is stored


def test_cells_are_short(stored):
    check_cells_are_short(stored, median=6)


def test_stored_outputs_come_from_one_run_from_top_to_bottom(stored):
    check_stored_outputs(stored)


def test_stored_run_reaches_what_the_tutorial_claims(stored):
    assert "CLAIMED_ACCURACY = 0.93" in cell_with(stored, "CLAIMED_ACCURACY = ").source
    text = printed(cell_with(stored, "assert accuracies[-1] > CLAIMED_ACCURACY"))
    assert 93 < float(re.search(r"After 20 rounds: (\d+\.\d+)%", text)[1]) < 99


def test_links_to_files_lead_to_files(stored):
    check_links(stored)
