"""The notebook on uneven data, spoilers and privacy, executed from top to bottom by a kernel of its
own: by `make test-all`, since it takes minutes. Its workers live in that kernel's process; its last
part needs Opacus."""

import importlib.util
import os
import re
import statistics
from typing import Any

import nbformat
import pytest

from tests.e2e import programs
from tests.e2e.notebooks import cell_with, code_cells, execute, has_figure, pictures, printed
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
    for cell in code_cells(executed):
        assert cell.execution_count is not None
        assert not [output.text for output in cell.outputs if output.get("name") == "stderr"]
        assert "Warning" not in printed(cell)


def test_every_figure_holds_something(executed):
    cells = [cell for cell in code_cells(executed) if has_figure(cell)]
    assert len(cells) == (8 if HAS_OPACUS else 4)
    for cell in cells:
        assert len(pictures(cell)) == 1, cell.source
        assert pictures(cell)[0].std() > 0.01, cell.source


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
    lengths = [len(cell.source.splitlines()) for cell in code_cells(stored)]
    assert statistics.median(lengths) <= 8
    assert max(lengths) <= 15


def test_stored_outputs_come_from_one_run_from_top_to_bottom(stored):
    counts = [cell.execution_count for cell in code_cells(stored)]
    assert counts == list(range(1, len(counts) + 1))
    for cell in code_cells(stored):
        assert not [output for output in cell.outputs if output.get("name") == "stderr"]
        assert not [output for output in cell.outputs if output.output_type == "error"]
        assert bool(pictures(cell)) == has_figure(cell)


def test_links_to_files_lead_to_files(stored):
    texts = [cell.source for cell in stored.cells if cell.cell_type == "markdown"]
    links = [link for text in texts for link in re.findall(r"\]\(([^)]+)\)", text)]
    files = [link for link in links if not link.startswith("http")]
    assert files
    assert [link for link in files if not (REPOSITORY / link).is_file()] == []
