"""The documents: their code runs, their commands and links exist, and the README stays short."""

import ast
import contextlib
import functools
import importlib
import inspect
import io
import linecache
import re
import shlex
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote

import pytest

REPOSITORY = Path(__file__).parent.parent
README = REPOSITORY / "README.md"
# tests/e2e/test_notebook.py runs its code after the notebook's.
ANSWERS = REPOSITORY / "docs" / "exercise_answers.md"
RUNNABLE = [README, *sorted(set((REPOSITORY / "docs").glob("*.md")) - {ANSWERS})]
DOCUMENTS = [
    *RUNNABLE,
    *(REPOSITORY / name for name in ("README.zh-CN.md", "SECURITY.md", "benchmarks/README.md")),
    *sorted((REPOSITORY / "examples").glob("*/README.md")),
]

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def blocks(path: Path, language: str) -> list[str]:
    return [
        block for name, block in BLOCK.findall(path.read_text(encoding="utf-8")) if name == language
    ]


def prose(path: Path) -> str:
    return BLOCK.sub("", path.read_text(encoding="utf-8"))


def commands(path: Path) -> list[list[str]]:
    """Return the commands of a document's console blocks, as lists of words."""
    lines = "".join(blocks(path, "console")).replace("\\\n", " ").splitlines()
    # "(": shell, not ours. "--": what follows is a command that the first one runs.
    split = [shlex.split(line, comments=True) for line in lines if not line.startswith("(")]
    parts = [[list(part) for _, part in groupby(words, "--".__eq__)] for words in split]
    return [words for each in parts for words in each if words != ["--"]]


@functools.cache
def script_options(script: str) -> set[str]:
    """Return the options that the --help of a script or module names."""
    name = Path(script).stem if script.endswith(".py") else script
    module, shown = importlib.import_module(name), io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        getattr(module, "define_and_get_arguments", getattr(module, "main", None))(["--help"])
    return set(re.findall(r"--\w+", shown.getvalue()))


def anchors(path: Path) -> set[str]:
    """Return the anchors that a code host gives the headings of a document."""
    titles = [title.replace("`", "").strip().lower() for title in HEADING.findall(prose(path))]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "path", [path for path in RUNNABLE if blocks(path, "python")], ids=lambda path: path.name
)
async def test_the_python_blocks_of_a_document_run_one_after_the_other(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "document"}
    for number, block in enumerate(blocks(path, "python")):
        code = compile(
            block, f"{path.name}, block {number}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        )
        register_source(monkeypatch, code.co_filename, block)
        result = eval(code, namespace)
        if inspect.iscoroutine(result):
            await result


def register_source(monkeypatch, filename, source):
    """Let torch.jit.script find the source of a plain model, as it does in a notebook."""
    monkeypatch.setitem(
        linecache.cache, filename, (len(source), None, source.splitlines(keepends=True), filename)
    )


@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if blocks(path, "console")], ids=lambda path: path.name
)
def test_the_commands_of_a_document_exist(path):
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for command in commands(path):
        if command[0] == "make":
            assert {word for word in command[1:] if "=" not in word} <= targets, command
        elif command[0] == "sh":
            assert (REPOSITORY / command[1]).is_file(), command
        elif command[0] == "python" and command[1:3] != ["-m", "venv"]:
            _, script, *words = command if command[1].endswith(".py") else command[1:]
            options = {word for word in words if word.startswith("--")}
            assert options <= script_options(script), command


@pytest.mark.parametrize(
    "path", [*RUNNABLE, REPOSITORY / "SECURITY.md"], ids=lambda path: path.name
)
def test_the_options_that_a_document_mentions_exist(path):
    scripts = (
        "run_websocket_client.py",
        "run_websocket_server.py",
        "start_websocket_servers.py",
        "syft.worker",
        "flower/simulate.py",
        "flower/deployment.py",
    )
    mentioned = {
        option
        for code in CODE.findall(prose(path))
        for option in re.findall(r"(?<!\S)`?(--\w+)", code)
    }
    assert {option.strip("`") for option in mentioned} <= set().union(*map(script_options, scripts))


@each_document
def test_links_lead_to_files_and_headings(path):
    for link in LINK.findall(prose(path)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_document
def test_every_block_says_what_it_holds(path):
    languages = [name for name, _ in BLOCK.findall(path.read_text(encoding="utf-8"))]
    assert set(languages) <= {"python", "console", "text"}


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.name)
def test_lines_of_prose_can_be_read_in_an_editor(path):
    """Rows of tables and pictures cannot be broken."""
    lines = [line for line in prose(path).splitlines() if not line.startswith(("|", "!["))]
    assert [line for line in lines if len(line) > 130] == []


def test_the_notebooks_are_linked_from_the_documents_on_what_they_show():
    for name in ("uneven_data.md", "privacy.md"):
        text = (REPOSITORY / "docs" / name).read_text(encoding="utf-8")
        assert "](../uneven_data_and_privacy.ipynb)" in text


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_every_document_is_named_in_the_readme():
    named = set(LINK.findall(README.read_text(encoding="utf-8")))
    assert {f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")} <= named


def test_the_tests_that_security_names_exist():
    text = prose(REPOSITORY / "SECURITY.md")
    for name, test, sections in re.findall(r"`([\w/]+\.py)(?:::(\w+))?`(?:: (\"[^|;]+\"))?", text):
        path = REPOSITORY / (name if name.startswith(("tests/", "syft/")) else f"tests/{name}")
        assert path.is_file(), name
        lines = path.read_text().splitlines()
        assert not test or any(f"def {test}(" in line for line in lines), f"{name}::{test}"
        for section in re.findall(r'"([^"]+)"', sections):
            assert f"# {section}" in lines, f"{name}: {section}"
