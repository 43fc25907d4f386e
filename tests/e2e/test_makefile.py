"""The Makefile: which environment a target uses, and what is installed there.

Commands are printed, not run.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def commands(*arguments: str) -> str:
    """Return the commands that make would run, with the environment to be made anew."""
    command = ["make", "--dry-run", "--assume-new=requirements.txt", *arguments]
    # Without the choice of the `make test` that runs this.
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize(
    ("choice", "folder"),
    [
        ([], ".venv"),
        (["PYTHON=python3.13"], ".venv-python3.13"),
        (["PYTHON=/opt/python/bin/python3.10", "LOWEST=1"], ".venv-python3.10-lowest"),
        (["LOWEST=1"], ".venv-lowest"),
    ],
)
def test_each_choice_of_versions_has_an_environment_of_its_own(
    choice: list[str], folder: str
) -> None:
    assert set(re.findall(r"\.venv[^/\s]*(?=/bin/)", commands("test", *choice))) == {folder}


def test_the_lowest_versions_are_the_lower_bounds() -> None:
    """Every line of requirements.txt is a comment or one name with one lower bound, which LOWEST=1
    pins."""
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    bounds = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z]+>=[\d.]+", line) for line in bounds), bounds
    assert "sed 's/>=/==/' requirements.txt" in commands("install", "LOWEST=1")
    assert "s/>=/==/" not in commands("install")


def test_the_workers_of_the_notebook_on_remote_tensors_allow_them() -> None:
    for target, allows in (("notebook", False), ("dataloader", True)):
        assert ("start_websocket_servers.py --remote_operations" in commands(target)) == allows


def test_flower_is_installed_with_ray_by_those_targets_alone_that_need_it() -> None:
    for target in ("simulate", "deployment", "test-engine", "install-flower"):
        assert "-r requirements-flower.txt" in commands(target)
    assert "requirements-flower.txt" not in commands("test")


def test_a_python_that_is_too_old_for_flower_is_told_before_anything_is_installed() -> None:
    steps = commands("simulate").splitlines()
    told = next(number for number, step in enumerate(steps) if "Flower needs 3.11" in step)
    assert told < next(number for number, step in enumerate(steps) if "pip install" in step)
