"""The notebook on uneven data, spoilers and privacy, executed from top to bottom by a kernel of its
own: by `make test-all`, since it takes minutes. Its workers live in that kernel's process; its last
part needs Opacus."""

import importlib.util
import os
from typing import Any

import nbformat
import pytest

from tests.e2e import programs
from tests.e2e.notebooks import (
    cell_with,
    check_cells_are_short,
    check_figures,
    check_links,
    check_ran_without_warnings,
    check_stored_outputs,
    execute,
    printed,
)
from tests.e2e.programs import REPOSITORY

NOTEBOOK = REPOSITORY / "uneven_data_and_privacy.ipynb"
HAS_OPACUS = importlib.util.find_spec("opacus") is not None
NEEDS_OPACUS = 'tutorial.require("opacus")'


@pytest.fixture(scope="module")
def stored() -> Any:
    """The notebook as it is in the repository."""
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def executed(stored: Any) -> Any:
    """The notebook after its execution; without Opacus, up to the cell that asks for it."""
    if not os.environ.get("ALL_TESTS"):
        pytest.skip("it trains for minutes: make test-all executes it")
    notebook = nbformat.from_dict(stored)
    if not HAS_OPACUS:
        end = notebook.cells.index(cell_with(notebook, NEEDS_OPACUS)) + 1
        notebook.cells = notebook.cells[:end]
        notebook.cells[-1].metadata["tags"] = ["raises-exception"]
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in programs.ENVIRONMENT.items():
            patch.setenv(variable, value)
        execute(notebook)
    return notebook


# Executed


def test_all_cells_run_without_warnings(executed):
    check_ran_without_warnings(executed)


def test_every_figure_holds_something(executed):
    assert check_figures(executed) == (8 if HAS_OPACUS else 4)


@pytest.mark.skipif(HAS_OPACUS, reason="Opacus is installed")
def test_a_missing_package_is_told_in_one_line(executed):
    (error,) = cell_with(executed, NEEDS_OPACUS).outputs
    (line,) = error.traceback
    assert line.endswith("pip install opacus")


@pytest.mark.skipif(not HAS_OPACUS, reason="needs Opacus")
def test_the_refusals_say_what_was_spent_before_and_after_the_restart(executed):
    lines = printed(cell_with(executed, "TemporaryDirectory")).splitlines()
    assert [line.split(",")[0] for line in lines] == ["2 fits", "0 fits"]
    assert all("worker 'alice' has spent epsilon 2." in line for line in lines)


# As it is stored


def test_cells_are_short(stored):
    check_cells_are_short(stored, median=8)


def test_stored_outputs_come_from_one_run_from_top_to_bottom(stored):
    check_stored_outputs(stored)


def test_links_to_files_lead_to_files(stored):
    check_links(stored)
