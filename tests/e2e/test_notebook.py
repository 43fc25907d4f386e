"""The notebook, executed from top to bottom by a kernel of its own, against the four workers as
users start them."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import nbformat
import pytest

import run_websocket_client
import run_websocket_server
from tests.e2e.notebooks import (
    cell_with,
    check_cells_are_short,
    check_figures,
    check_links,
    check_ran_without_warnings,
    check_stored_outputs,
    code_cells,
    execute,
    has_figure,
    printed,
    set_parameters,
    workers,
)
from tests.e2e.programs import REPOSITORY

NOTEBOOK = REPOSITORY / "federated_training.ipynb"
ANSWERS = REPOSITORY / "docs" / "exercise_answers.md"

# Fewer rounds than in the tutorial, and the accuracy that these reach for certain (87 % in the
# stored run).
FEWER_ROUNDS = {"TRAINING_ROUNDS": 11, "VARIATION_ROUNDS": 2, "CLAIMED_ACCURACY": 0.6}
FASTER_ANSWERS = {
    "LOCAL_STEPS, SEEDS = 120, (1, 2, 3)": "LOCAL_STEPS, SEEDS = 6, (1,)",
    "in (1, 3, 10, 30):": "in (1, 3, 6):",
    "LOCAL_BATCHES = 60": "LOCAL_BATCHES = 6",
}
INTERRUPT = (
    "        if curr_round == 2: "
    "asyncio.get_running_loop().call_later(0.1, signal.raise_signal, signal.SIGINT)\n"
)


@pytest.fixture(scope="module")
def stored() -> Any:
    """The notebook as it is in the repository."""
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def ports(tmp_path_factory) -> Iterator[dict[str, int]]:
    """The ports of four workers, which the launcher has started."""
    with workers(tmp_path_factory.mktemp("workers")) as ports:
        yield ports


@pytest.fixture(scope="module")
def executed(stored: Any, ports: dict[str, int]) -> Any:
    """The notebook after its execution, in which the training is interrupted once and then run
    again.

    The code of the exercises' answers follows at its end.
    """
    notebook = nbformat.from_dict(stored)
    set_parameters(notebook, PORTS=ports, **FEWER_ROUNDS)
    loop = next(
        index
        for index, cell in enumerate(notebook.cells)
        if "for curr_round in range" in cell.source
    )
    notebook.cells.insert(loop, interrupted(notebook.cells[loop].source))
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in answers()]
    execute(notebook)
    return notebook


def interrupted(source: str) -> Any:
    """Return a cell that runs the training loop and is interrupted, as by the button of JupyterLab,
    in round 2."""
    head, loop, body = re.split(r"(?m)^(    for curr_round in .*\n)", source)
    cell = nbformat.v4.new_code_cell(f"import signal\n{head}{loop}{INTERRUPT}{body}")
    cell.metadata["tags"] = ["interrupted"]
    return cell


def answers() -> list[str]:
    """Return the blocks of code in the file with the exercises' answers, made faster."""
    text = ANSWERS.read_text(encoding="utf-8")
    for slow, fast in FASTER_ANSWERS.items():
        assert slow in text
        text = text.replace(slow, fast)
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


# Executed


def test_the_interrupted_training_stopped_where_it_was_interrupted(executed):
    (cell,) = [
        cell for cell in code_cells(executed) if "interrupted" in cell.metadata.get("tags", [])
    ]
    assert printed(cell) == "Interrupted. Run the cell again to train from the start.\n"


def test_all_cells_run_without_warnings_also_after_an_interruption(executed):
    check_ran_without_warnings(executed)


def test_every_figure_holds_something(executed):
    assert check_figures(executed) >= 11


def test_the_workers_are_ready_and_hold_their_digits(executed, ports):
    (output,) = cell_with(executed, "tutorial.check_workers").outputs
    rows = [line.split() for line in output.data["text/plain"].splitlines()]
    assert rows[1:] == [
        ["alice", f"ws://localhost:{ports['alice']}", "ready", "0-3", "24,754"],
        ["bob", f"ws://localhost:{ports['bob']}", "ready", "4-6", "17,181"],
        ["charlie", f"ws://localhost:{ports['charlie']}", "ready", "7-9", "18,065"],
        ["testing", f"ws://localhost:{ports['testing']}", "ready", "0-9", "10,000"],
    ]


def test_alice_alone_cannot_know_more_than_her_digits(executed):
    log = printed(cell_with(executed, "alice alone"))
    assert 35 < float(re.search(r"\((\d+\.\d+)%\)", log)[1]) <= 41.57


def test_the_loop_prints_nothing_because_the_figure_shows_it(executed):
    *_, loop = [
        cell for cell in code_cells(executed) if "for curr_round in range(1, args" in cell.source
    ]
    assert printed(loop) == ""


def test_the_saved_model_reads_digits(executed):
    shown = printed(cell_with(executed, "mnist_cnn.pt"))
    predicted, actual = (line.split()[1:] for line in shown.splitlines())
    assert len(actual) == 30
    assert sum(one == other for one, other in zip(predicted, actual, strict=True)) > 10


# As it is stored


def test_cells_are_short(stored):
    check_cells_are_short(stored, median=5)


def test_every_section_has_a_figure_or_a_picture(stored):
    sections: list[list[Any]] = []
    for cell in stored.cells:
        if cell.cell_type == "markdown" and re.match(r"##? ", cell.source):
            sections.append([])
        sections[-1].append(cell)
    without = [
        cells[0].source.splitlines()[0]
        for cells in sections
        if not any(has_figure(cell) or "](docs/images/" in cell.source for cell in cells)
    ]
    assert without == [
        "## Federated Learning setup",  # continues the picture at the top
        "## Preparation: Start the websocket workers",
        "## Summary",
    ]


def test_stored_outputs_come_from_one_run_from_top_to_bottom(stored):
    check_stored_outputs(stored)


def test_stored_outputs_show_the_code_as_it_is_now(stored):
    shown = {
        "rws.start_websocket_server_worker": run_websocket_server.start_websocket_server_worker,
        "rws.MnistWorker": run_websocket_server.MnistWorker,
        "rwc.Net": run_websocket_client.Net,
    }
    for name, source in shown.items():
        cell = cell_with(stored, f"inspect.getsource({name})")
        assert printed(cell).strip() == inspect.getsource(source).strip()


def test_stored_run_reaches_what_the_tutorial_claims(stored):
    parameters = cell_with(stored, "CLAIMED_ACCURACY = ").source
    assert "TRAINING_ROUNDS = 40" in parameters and "CLAIMED_ACCURACY = 0.95" in parameters
    text = printed(cell_with(stored, "assert federated_accuracy > CLAIMED_ACCURACY"))
    assert 95 < float(re.search(r"After 40 rounds: (\d+\.\d+)%", text)[1]) < 99


def test_links_to_files_lead_to_files(stored):
    check_links(stored)
