"""The Chinese edition: the same code, outputs, numbers and links as the English one, with Chinese text."""

import functools
import re
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
import pytest

REPOSITORY = Path(__file__).parent.parent
ENGLISH, CHINESE = "federated_training.ipynb", "federated_training.zh-CN.ipynb"
README, CHINESE_README = "README.md", "README.zh-CN.md"

FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`(?:[^`\n]|\n(?!\n))+`")
MATHS = re.compile(r"\$[^$\n]+\$")
CITATION = re.compile(r"\[[^\]]*\]\(https?:[^)\s]+\)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
NUMBER = re.compile(r"\d[\d.,]*\d")  # two digits or more: smaller ones may be words in either language
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
CHINESE_CHARACTER = re.compile(r"[\u4e00-\u9fff]")
ENGLISH_SENTENCE = re.compile(r"(?:[A-Za-z]+ ){6}[A-Za-z]+")


@functools.cache
def read_notebook(name: str) -> Any:
    return nbformat.read(REPOSITORY / name, as_version=4)


def read_text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def cells(name: str, kind: str) -> list[Any]:
    return [cell for cell in read_notebook(name).cells if cell.cell_type == kind]


def markdown(name: str) -> str:
    """Return the Markdown of a notebook or a README."""
    if name.endswith(".md"):
        return read_text(name)
    return "\n\n".join(cell.source for cell in cells(name, "markdown"))


def prose(text: str) -> str:
    """Return Markdown without code, formulas and the targets of links."""
    for pattern in (FENCED, CODE, MATHS, LINK):
        text = pattern.sub("x", text)
    return text


def untranslated(text: str) -> list[str]:
    """Return the English sentences in a text; titles of cited papers are none."""
    return ENGLISH_SENTENCE.findall(prose(CITATION.sub("x", text)))


def code_names(text: str) -> set[str]:
    """Return what a text sets as code within its lines."""
    return {" ".join(name.split()) for name in CODE.findall(FENCED.sub("", text))}


def sections(text: str) -> list[str]:
    """Return the parts of a Markdown text, each from one heading to the next."""
    text = FENCED.sub(lambda match: re.sub("^#", "x", match[0], flags=re.MULTILINE), text)
    return re.split(r"^(?=#)", text, flags=re.MULTILINE)[1:]


def heading_levels(text: str) -> list[int]:
    return [len(level) for level, _ in HEADING.findall(FENCED.sub("", text))]


def anchors(text: str) -> set[str]:
    """Return the anchors that a code host gives the headings of a text."""
    titles = [CODE.sub(lambda match: match[0][1:-1], title) for _, title in HEADING.findall(FENCED.sub("", text))]
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def links(text: str) -> set[str]:
    return set(LINK.findall(FENCED.sub("", text)))


def assert_says_the_same(english: str, chinese: str) -> None:
    """Compare what a translation leaves as it is: numbers, names from the code, formulas, links, rows of tables."""
    language_links = {ENGLISH, CHINESE, README, CHINESE_README}
    assert set(NUMBER.findall(prose(chinese))) == set(NUMBER.findall(prose(english)))
    assert code_names(chinese) == code_names(english)
    assert MATHS.findall(chinese) == MATHS.findall(english)
    assert FENCED.findall(chinese) == FENCED.findall(english)
    assert links(chinese) - language_links == links(english) - language_links
    assert len(re.findall(r"^\|", chinese, re.MULTILINE)) == len(re.findall(r"^\|", english, re.MULTILINE))
    assert heading_levels(chinese) == heading_levels(english)


def is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LN"


def is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


def broken_emphasis(line: str) -> list[str]:
    """Return the bold parts of a line that Markdown shows as asterisks.

    So it does where punctuation inside the asterisks meets a letter outside, as Chinese text without spaces has it.
    """
    parts = line.split("**")
    assert len(parts) % 2 == 1, line
    return [
        inner
        for before, inner, after in zip(parts[0::2], parts[1::2], parts[2::2], strict=False)
        if (is_punctuation(inner[-1]) and after and is_letter(after[0]))
        or (is_punctuation(inner[0]) and before and is_letter(before[-1]))
    ]


# The notebook


def test_the_cells_are_the_same_in_number_kind_and_place():
    expected = [(cell.id, cell.cell_type, cell.metadata) for cell in read_notebook(ENGLISH).cells]
    assert [(cell.id, cell.cell_type, cell.metadata) for cell in read_notebook(CHINESE).cells] == expected


def test_the_code_is_the_same():
    expected = [cell.source for cell in cells(ENGLISH, "code")]
    assert len(expected) > 25
    assert [cell.source for cell in cells(CHINESE, "code")] == expected


def test_the_stored_outputs_are_those_of_the_same_run():
    pairs = zip(cells(ENGLISH, "code"), cells(CHINESE, "code"), strict=True)
    others = [
        english.id
        for english, chinese in pairs
        if (chinese.outputs, chinese.execution_count) != (english.outputs, english.execution_count)
    ]
    assert not others, f"copy the outputs of these cells from {ENGLISH}: {others}"


def test_the_kernel_is_the_same():
    assert read_notebook(CHINESE).metadata == read_notebook(ENGLISH).metadata
    assert read_notebook(CHINESE).metadata.kernelspec.name == "python3"


def test_the_notebook_is_valid():
    nbformat.validate(read_notebook(CHINESE))


def test_every_markdown_cell_is_in_chinese():
    texts = [cell.source for cell in cells(CHINESE, "markdown")]
    assert [text for text in texts if len(CHINESE_CHARACTER.findall(text)) < 10] == []
    assert [found for text in texts for found in untranslated(text)] == []


@pytest.mark.parametrize("number", range(len(cells(ENGLISH, "markdown"))))
def test_a_markdown_cell_says_the_same(number):
    assert_says_the_same(cells(ENGLISH, "markdown")[number].source, cells(CHINESE, "markdown")[number].source)


def test_predictions_are_asked_for_and_checked_where_the_english_text_does():
    english, chinese = cells(ENGLISH, "markdown"), cells(CHINESE, "markdown")
    for word, translated in (("**Predict", "**猜一猜"), ("**Check", "**对答案")):
        places = [index for index, cell in enumerate(english) if word in cell.source]
        assert len(places) > 5
        assert [index for index, cell in enumerate(chinese) if translated in cell.source] == places


# The README


def test_the_readme_has_the_same_headings_and_code():
    english, chinese = read_text(README), read_text(CHINESE_README)
    assert heading_levels(chinese) == heading_levels(english)
    assert len(FENCED.findall(english)) > 10
    assert FENCED.findall(chinese) == FENCED.findall(english)


@pytest.mark.parametrize("number", range(len(sections(read_text(README)))))
def test_a_section_of_the_readme_says_the_same(number):
    assert_says_the_same(sections(read_text(README))[number], sections(read_text(CHINESE_README))[number])


def test_every_section_of_the_readme_is_in_chinese():
    for section in sections(read_text(CHINESE_README)):
        title, text = section.split("\n", 1)
        assert CHINESE_CHARACTER.search(title), title
        assert untranslated(text) == []


# Both


@pytest.mark.parametrize("name", [CHINESE, CHINESE_README])
def test_links_lead_to_files_and_headings(name):
    local = [link for link in links(markdown(name)) if not re.match(r"[a-z]+:", link)]
    assert local
    for link in local:
        path, _, anchor = unquote(link).partition("#")
        assert (REPOSITORY / (path or name)).is_file(), link
        assert not anchor or anchor in anchors(markdown(path or name)), link


@pytest.mark.parametrize(
    ("name", "other"), [(ENGLISH, CHINESE), (CHINESE, ENGLISH), (README, CHINESE_README), (CHINESE_README, README)]
)
def test_each_edition_links_to_the_other_at_its_top(name, other):
    assert f"]({other})" in "\n".join(markdown(name).splitlines()[:6])


@pytest.mark.parametrize("name", [CHINESE, CHINESE_README])
def test_emphasis_is_shown_as_emphasis(name):
    lines = [line for line in CODE.sub("x", FENCED.sub("", markdown(name))).splitlines() if "**" in line]
    assert lines
    assert [part for line in lines for part in broken_emphasis(line)] == []


def test_broken_emphasis_is_found():
    assert broken_emphasis("一**二**三") == broken_emphasis("**一(二)** 三") == []
    assert broken_emphasis("**一.**二") == ["一."]
    assert broken_emphasis("一**(二**") == ["(二"]
