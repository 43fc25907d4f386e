"""What is installed: the package alone, with its types and all that it imports."""

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import syft

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib")

REPOSITORY = Path(__file__).parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


OPTIONAL = {"opacus", "sklearn"}
"""Imported where they are used; an error there says how to install what is missing."""


def test_the_package_needs_what_it_imports_and_no_more():
    imported = {
        name.partition(".")[0]
        for path in (REPOSITORY / "syft").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    needed = {re.split(r">=", each)[0] for each in PROJECT["dependencies"]}
    assert needed == imported - sys.stdlib_module_names - {"syft"} - OPTIONAL


def test_the_package_needs_the_versions_that_the_tutorial_needs():
    assert set(PROJECT["dependencies"]) <= set(requirements("requirements.txt"))


def test_the_extras_are_those_of_the_requirements_beside():
    extras = PROJECT["optional-dependencies"]
    assert extras == {name: requirements(f"requirements-{name}.txt") for name in extras}
    assert set(extras) == {"flower", "privacy", "tensorboard"}


def requirements(file: str) -> list[str]:
    """Return the lines of a file of requirements that are no comments."""
    lines = (REPOSITORY / file).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_changelog_tells_of_this_version():
    text = (REPOSITORY / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (\S+)$", text, re.MULTILINE)[0] == syft.__version__
    assert f"`v{syft.__version__}`" in text


def test_the_documents_name_the_tag_of_this_version():
    text = (REPOSITORY / "docs" / "your_own_data.md").read_text()
    assert set(re.findall(r"v\d+\.\d+\.\d+", text)) == {f"v{syft.__version__}"}
    assert f"version {syft.__version__} is" in text


def test_the_documents_name_no_address_of_which_the_project_does_not_know():
    for path in (*(REPOSITORY / "docs").glob("*.md"), *REPOSITORY.glob("*.md")):
        assert not re.search(r"git\+https?://\w", path.read_text()), path.name


def test_the_wheel_holds_the_package_alone_and_its_build_leaves_nothing_behind(tmp_path):
    pytest.importorskip("hatchling")
    before = tree()
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run([*command, "--directory", str(tmp_path)], cwd=REPOSITORY, check=True)
    assert tree() == before
    (wheel,) = tmp_path.iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    folders = {name.partition("/")[0] for name in names}
    information = f"federated_websocket_workers-{syft.__version__}.dist-info"
    assert folders == {"syft", information}
    assert "syft/py.typed" in names
    sources = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "syft").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources


def tree() -> set[str]:
    """Return what is at the root of the repository, and what is new in the package."""
    return {path.name for path in REPOSITORY.iterdir()} | {
        str(path) for path in (REPOSITORY / "syft").rglob("*") if "__pycache__" not in path.parts
    }
