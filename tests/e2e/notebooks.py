"""Notebooks in tests: the workers they need, their execution, and what is in their cells."""

import base64
import contextlib
import io
import re
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
