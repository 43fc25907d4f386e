"""The Chinese labels of the notebooks' figures and tables."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
import torch
from matplotlib.font_manager import findfont, fontManager
from matplotlib.text import Text

from tutorial import chinese, plots
from tutorial.traffic import Message

REPOSITORY = Path(__file__).parent.parent
NOTEBOOKS = ["federated_training", "federated_dataloader", "uneven_data_and_privacy"]

COUNTS = {"alice": [5, 3, 0, 0, 0, 0, 0, 0, 0, 0], "bob": [0, 0, 7, 1, 1, 1, 1, 1, 1, 2]}
CURVES = {"digit split": [0.1, 0.5, 0.9], "IID split": [0.3, 0.6, float("nan")]}
RESULT = {
    "nr_correct_predictions": 15,
    "nr_predictions": 20,
    "histogram_predictions": np.full(10, 2.0),
    "histogram_target": np.full(10, 2.0),
}
ROUND = plots.Round(1, 2.0, {"alice": 0.5}, {"alice": RESULT, plots.AVERAGE: RESULT}, quick=0.8)
MATRICES = {"alice": np.eye(10) + 1, plots.AVERAGE: np.eye(10) + 1}
TIMELINE = plots.Timeline([("alice", "send", 0.0, 0.5), ("alice", "train", 0.5, 1.0)])
FIGURES = {
    "digits": lambda: plots.plot_digits(torch.zeros(10, 28, 28), torch.arange(10), each=1),
    "label counts": lambda: plots.plot_label_counts(COUNTS),
    "bytes": lambda: plots.plot_bytes({"loss function": 2, "model, one way": 5}, "alice"),
    "predictions": lambda: plots.plot_predictions([2] * 10, [2] * 10, "alice"),
    "timelines": lambda: plots.plot_timelines({"One after the other": TIMELINE}),
    "training": lambda: plots.plot_training([ROUND], 40),
    "histograms": lambda: plots.plot_prediction_histograms([ROUND]),
    "confusion matrix": lambda: plots.plot_confusion_matrix(MATRICES["alice"], "alice"),
    "recall": lambda: plots.plot_recall(MATRICES, "alice"),
    "bias changes": lambda: plots.plot_bias_changes(
        {"alice": [1] * 10, "alice (noise 1)": [2] * 10}
    ),
    "curves": lambda: plots.plot_curves(CURVES, "alice"),
    "splits": lambda: plots.plot_splits({"iid": COUNTS}),
    "curve panels": lambda: plots.plot_curve_panels({"mean": CURVES}, "alice", goal=0.9),
    "costs": lambda: plots.plot_costs([1, 2, 3], {"noise 0.5": [1.0, 2.0, 3.0]}, "alice"),
    "privacy": lambda: plots.plot_privacy({1.0: 0.5, 2.0: 0.6}, 0.9, "alice"),
    "dots": lambda: plots.plot_dots({"without privacy": {"a nine": [1.0]}}, "alice"),
    "messages": lambda: plots.plot_messages([Message(0.1, True, 5, "operate", 1, True)], "alice"),
    "panels": lambda: plots.plot_panels({"messages": {"local": 1, "mean": 2}}, "alice"),
    "history": lambda: plots.plot_history([{"round": 1, "losses": {"alice": 1.0}}], "alice"),
}
NAMES = {"nan", "worker", "alice", "bob", "IID", "iid", "epsilon"}
"""What stays as it is in Chinese."""


@pytest.fixture
def in_chinese(monkeypatch) -> Iterator[None]:
    """Chinese, as on a machine with one of the fonts."""
    monkeypatch.setattr(fontManager, "get_font_names", lambda: ["DejaVu Sans", "SimHei"])
    monkeypatch.setattr(chinese, "_on", False)
    with matplotlib.rc_context():
        plots.use_chinese()
        yield


def english(texts: list[str]) -> list[str]:
    """Return those texts that have English words in them, other than names; formulas have none."""
    words = {text: re.findall("[A-Za-z]{3,}", text) for text in texts if "$" not in text}
    return [text for text in words if set(words[text]) - NAMES]


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_no_label_of_a_figure_stays_english(in_chinese, figure):
    drawn = figure()
    drawn.translate()
    texts = [text.get_text() for text in drawn.findobj(Text)]
    ticks = [
        label
        for ax in drawn.axes
        for axis in (ax.xaxis, ax.yaxis)
        for label in axis.get_major_formatter().format_ticks(axis.get_majorticklocs())
    ]
    assert english(texts + ticks) == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_text_that_a_notebook_gives_a_figure_has_a_translation(in_chinese, name):
    notebook = nbformat.read(REPOSITORY / f"{name}.ipynb", as_version=4)
    calls = [
        call
        for cell in notebook.cells
        if cell.cell_type == "code" and "tutorial.plot_" in cell.source
        for call in ast.walk(ast.parse(cell.source))
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("tutorial.plot_")
    ]
    given = [argument for call in calls for argument in call.args]
    texts = [each.value for each in given if isinstance(each, ast.Constant)]
    assert calls
    assert [text for text in texts if chinese.translated(text) == text] == []


def test_a_figure_is_as_it_was_if_chinese_is_not_switched_on():
    drawn = plots.plot_curves({"alice": [0.5]}, "Rounds to the goal")
    drawn.translate()
    assert drawn.axes[0].get_title() == "Rounds to the goal"


def test_numbers_and_names_keep_their_places(in_chinese):
    assert chinese.translated("alice (24,754 images)") == "alice（24,754 张图像）"
    assert chinese.translated("Round 3 of 40: 5 s") == "第 3 / 40 轮：5 秒"
    assert chinese.translated("average: 96.1 % correct") == "平均：正确率 96.1 %"
    assert chinese.translated("update of alice (noise 8)") == "alice（噪声 8） 的更新"


def test_a_text_of_ones_own_stays_as_it_is(in_chinese):
    assert chinese.translated("My hospital: 3 scanners") == "My hospital: 3 scanners"


def test_tables_are_translated_too(in_chinese):
    table = plots.Table(
        ("worker", "state"), [("alice", "ready")], "Not ready: bob. Run in a terminal: start"
    )
    page = table._repr_html_()
    assert "状态" in page
    assert "就绪" in page
    assert "尚未就绪：bob。请在终端中运行：start" in page


def test_without_a_chinese_font_figures_stay_english_and_a_line_names_fonts(monkeypatch, capsys):
    monkeypatch.setattr(fontManager, "get_font_names", lambda: ["DejaVu Sans"])
    plots.use_chinese()
    assert chinese.translated("digit") == "digit"
    assert "Noto Sans CJK SC" in capsys.readouterr().out
    assert matplotlib.rcParams["font.family"] == ["sans-serif"]


def test_the_first_font_draws_what_it_has_and_a_chinese_one_the_rest(in_chinese):
    assert matplotlib.rcParams["font.family"] == ["DejaVu Sans", "SimHei"]


def test_a_font_that_was_installed_after_matplotlib_made_its_list_is_found(monkeypatch, capsys):
    path = findfont("DejaVu Sans")
    monkeypatch.setattr(fontManager, "ttflist", [])
    monkeypatch.setattr(chinese, "findSystemFonts", lambda: [path, __file__])
    monkeypatch.setattr(chinese, "FONTS", ("DejaVu Sans",))
    monkeypatch.setattr(chinese, "_on", False)
    with matplotlib.rc_context():
        plots.use_chinese()
    assert capsys.readouterr().out == ""
    assert chinese.translated("digit") == "数字"
