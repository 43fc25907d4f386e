"""The Chinese edition of the README and the notebooks.

The rule: a translation keeps the code, the links and the numbers of each part, in its place. One
line of code is its own: it switches the figures to Chinese.
"""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

REPOSITORY = Path(__file__).parent.parent
EDITIONS = [
    ("README.md", "README.zh-CN.md"),
    ("federated_training.ipynb", "federated_training.zh-CN.ipynb"),
    ("federated_dataloader.ipynb", "federated_dataloader.zh-CN.ipynb"),
    ("uneven_data_and_privacy.ipynb", "uneven_data_and_privacy.zh-CN.ipynb"),
]
OWN_LINE = "\ntutorial.use_chinese()"
TO_AN_EDITION = {name for pair in EDITIONS for name in pair}

FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`(?:[^`\n]|\n(?!\n))+`|\$[^$\n]+\$")
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Of two digits or more: smaller ones may be words in either language.
NUMBER = re.compile(r"\d[\d.,]*\d")


def parts(name: str) -> list[Any]:
    """Return the sections of a README, or the cells of a notebook, each as what a translation
    keeps."""
    if name.endswith(".md"):
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        code = iter(FENCED.findall(text))
        sections = re.split(r"^(?=#)", FENCED.sub("<code>", text), flags=re.MULTILINE)
        return [kept(re.sub("<code>", lambda _: next(code), section)) for section in sections]
    cells = nbformat.read(REPOSITORY / name, as_version=4).cells
    return [
        kept(cell.source)
        if cell.cell_type == "markdown"
        else (cell.source.replace(OWN_LINE, ""), [kind(output) for output in cell.outputs])
        for cell in cells
    ]


def kind(output: Any) -> tuple[str, list[str]]:
    """Return what an output is; what it shows differs from one execution to the next."""
    return output.output_type, sorted(output.get("data", {}))


def kept(text: str) -> dict[str, Any]:
    """Return what a translation keeps of a Markdown text."""
    prose = FENCED.sub("", text)
    numbers = NUMBER.findall(LINK.sub("", CODE.sub("", prose)))
    return {
        "code": FENCED.findall(text),
        "names": {" ".join(name.split()) for name in CODE.findall(prose)},
        "links": set(LINK.findall(prose)) - TO_AN_EDITION,
        "numbers": set(numbers),
    }


@pytest.mark.parametrize(("english", "chinese"), EDITIONS)
def test_the_chinese_edition_keeps_code_links_and_numbers(english: str, chinese: str) -> None:
    expected, found = parts(english), parts(chinese)
    assert len(found) == len(expected)
    for number, (theirs, ours) in enumerate(zip(expected, found, strict=True)):
        assert ours == theirs, f"part {number} of {chinese}"


@pytest.mark.parametrize("chinese", [name for _, name in EDITIONS if name.endswith(".ipynb")])
def test_each_chinese_notebook_has_its_figures_in_chinese(chinese: str) -> None:
    cells = nbformat.read(REPOSITORY / chinese, as_version=4).cells
    (setting,) = [cell for cell in cells if OWN_LINE in cell.source]
    assert "from tutorial import plots as tutorial" in setting.source
    assert setting.outputs == [], "executed without a Chinese font"
