"""Notebooks in tests: the workers they need, their execution, and what is in their cells."""

import base64
import contextlib
import io
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread
from nbclient import NotebookClient

from tests.e2e import programs
from tests.e2e.programs import REPOSITORY, free_ports, running

CELL_SECONDS, NOTEBOOK_SECONDS = 600, 1800  # on an idle machine they take a tenth of it


@contextlib.contextmanager
def workers(folder: Path, *options: str) -> Iterator[dict[str, int]]:
    """Run the four workers while the context lasts, as users start them; yield their ports."""
    ports = free_ports()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "DEADLINE", NOTEBOOK_SECONDS)
        for variable, value in programs.ENVIRONMENT.items():  # for the kernel too
            patch.setenv(variable, value)
        arguments = ["--ports", *map(str, ports), *options]
        with running("start_websocket_servers.py", *arguments, folder=folder) as launcher:
            launcher.read_until("Ctrl-C stops the workers")
            yield dict(zip(("alice", "bob", "charlie", "testing"), ports, strict=True))


def execute(notebook: Any) -> None:
    """Execute a notebook from top to bottom, by a kernel of its own."""
    resources = {"metadata": {"path": str(REPOSITORY)}}
    NotebookClient(
        notebook, timeout=CELL_SECONDS, kernel_name="python3", resources=resources
    ).execute()


def set_parameters(notebook: Any, **values: Any) -> None:
    """Give the parameter cell of a notebook other values."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = with_parameters(cell.source, **values)


def with_parameters(source: str, **values: Any) -> str:
    """Return the source of the parameter cell with other values."""
    for name, value in values.items():
        source, count = re.subn(
            rf"^{name} = .*$", f"{name} = {value!r}", source, flags=re.MULTILINE
        )
        assert count == 1, f"the parameter cell sets {name} {count} times"
    return source


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def pictures(cell: Any) -> list[Any]:
    """Return the pixels of a cell's figures."""
    found = [output.data.get("image/png") for output in cell.outputs if "data" in output]
    return [imread(io.BytesIO(base64.b64decode(png))) for png in found if png]


def has_figure(cell: Any) -> bool:
    return "tutorial.plot_" in cell.source


def cell_with(notebook: Any, text: str) -> Any:
    """Return the only code cell that contains a text."""
    (cell,) = [cell for cell in code_cells(notebook) if text in cell.source]
    return cell


# What every notebook has to keep


def check_ran_without_warnings(executed: Any) -> None:
    """Fail unless all cells were executed and none warned."""
    for cell in code_cells(executed):
        assert cell.execution_count is not None, cell.source
        assert not [output.text for output in cell.outputs if output.get("name") == "stderr"]
        assert "Warning" not in printed(cell), cell.source


def check_figures(executed: Any) -> int:
    """Fail unless each cell that draws shows one figure that is not empty; return their number."""
    cells = [cell for cell in code_cells(executed) if has_figure(cell)]
    for cell in cells:
        assert len(pictures(cell)) == 1, cell.source
        assert pictures(cell)[0].std() > 0.01, cell.source
    return len(cells)


def check_cells_are_short(stored: Any, median: int) -> None:
    """Fail if half of the cells have more lines than `median`, or one has more than 15."""
    lengths = [len(cell.source.splitlines()) for cell in code_cells(stored)]
    assert statistics.median(lengths) <= median
    assert max(lengths) <= 15


def check_stored_outputs(stored: Any) -> None:
    """Fail unless the outputs come from one run from top to bottom, without errors."""
    counts = [cell.execution_count for cell in code_cells(stored)]
    assert counts == list(range(1, len(counts) + 1))
    for cell in code_cells(stored):
        assert not [output for output in cell.outputs if output.get("name") == "stderr"]
        assert not [output for output in cell.outputs if output.output_type == "error"]
        assert bool(pictures(cell)) == has_figure(cell), cell.source


def check_links(stored: Any) -> None:
    """Fail unless there are links to files, and all of them lead to files."""
    texts = [cell.source for cell in stored.cells if cell.cell_type == "markdown"]
    links = [link for text in texts for link in re.findall(r"\]\(([^)]+)\)", text)]
    files = [link for link in links if not link.startswith("http")]
    assert files
    assert [link for link in files if not (REPOSITORY / link).is_file()] == []
