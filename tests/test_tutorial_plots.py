"""The helpers of the notebooks, on small data: what a figure holds is compared with the numbers it
was given."""

import asyncio
import logging
import socket
import warnings

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import BarContainer

import syft as sy
from run_websocket_server import MnistWorker
from syft.federated import History
from tests.models import classifier, nll
from tutorial import plots
from tutorial.traffic import Message

COUNTS = {"alice": [5, 3, 0, 0, 0, 0, 0, 0, 0, 0], "bob": [0, 0, 7, 1, 1, 1, 1, 1, 1, 2]}
MATRIX = np.diag(np.arange(1, 11)) + np.eye(10, k=1, dtype=int)
MATRIX[9, 0] = 1


def evaluation(correct, predictions):
    return {
        "nr_correct_predictions": correct,
        "nr_predictions": sum(predictions),
        "histogram_predictions": np.array(predictions, dtype=float),
        "histogram_target": np.full(10, sum(predictions) / 10),
    }


def history(numbers):
    models = {"alice": evaluation(6, [20] + [0] * 9), "bob": evaluation(2, [0] * 9 + [20])}
    models[plots.AVERAGE] = evaluation(18, [2] * 10)
    losses = {"alice": 0.5, "bob": 0.25}
    return [plots.Round(n, 2.0 * n, losses, models if n % 10 == 1 else {}) for n in numbers]


def heights(ax):
    """Return the heights of all bars of an axes, by set of bars."""
    return [
        [bar.get_height() for bar in bars]
        for bars in ax.containers
        if isinstance(bars, BarContainer)
    ]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def drawn(figure):
    """Return a figure's pixels in grey, 0 to 255; fails if drawing warns."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].mean(axis=2)


# Figures


def test_digits_are_shown_in_the_column_of_their_label():
    labels = torch.arange(10).repeat_interleave(2)
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1).expand(20, 28, 28)
    figure = plots.plot_digits(images, labels, each=2)
    shown = np.array([ax.images[0].get_array()[0, 0] for ax in figure.axes]).reshape(2, 10)
    np.testing.assert_array_equal(shown, [np.arange(0, 20, 2), np.arange(1, 20, 2)])
    assert [ax.get_title() for ax in figure.axes[:10]] == [str(digit) for digit in range(10)]


def test_label_counts_are_stacked_bars_and_named_with_their_sums():
    (ax,) = plots.plot_label_counts(COUNTS | {"carol": [1] * 10}).axes
    assert heights(ax) == [COUNTS["alice"], COUNTS["bob"], [1] * 10]
    assert [bar.get_y() for bar in ax.containers[2]] == [5, 3, 7, 1, 1, 1, 1, 1, 1, 2]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["alice (8 images)", "bob (15 images)", "carol (10 images)"]


def test_bytes_are_bars_in_megabytes():
    (ax,) = plots.plot_bytes({"model": 1_734_719, "images": 19_407_136}, "Sizes").axes
    assert [bar.get_width() for bars in ax.containers for bar in bars] == [1.734719, 19.407136]
    assert texts(ax) == ["1.73 MB", "19.41 MB"]


def test_predictions_are_bars_and_the_actual_digits_a_line():
    (ax,) = plots.plot_predictions(COUNTS["alice"], COUNTS["bob"], "Alone").axes
    assert heights(ax) == [COUNTS["alice"]]
    (line,) = ax.patches[10:]
    assert list(line.get_data().values) == COUNTS["bob"]


def test_timelines_share_one_axis_of_time():
    timelines = {"apart": plots.Timeline(), "together": plots.Timeline()}
    timelines["apart"].spans = [
        ("alice", "train", 0.0, 1.0),
        ("bob", "train", 1.0, 3.0),
        ("bob", "fetch", 3.0, 4.0),
    ]
    timelines["together"].spans = [("alice", "train", 0.0, 1.0), ("bob", "train", 0.5, 2.5)]
    apart, together = plots.plot_timelines(timelines).axes
    assert [(bar.get_x(), bar.get_width()) for bars in apart.containers for bar in bars] == [
        (0, 1),
        (1, 2),
        (3, 1),
    ]
    assert [(bar.get_x(), bar.get_width()) for bars in together.containers for bar in bars] == [
        (0, 1),
        (0.5, 2),
    ]
    assert apart.get_xlim() == together.get_xlim()
    assert (apart.get_title(), together.get_title()) == ("apart: 4.00 s", "together: 2.50 s")


def test_messages_are_bars_up_and_down_with_their_operations_and_times():
    messages = [
        Message(0.002, True, 1500, "operate", 33, False),
        Message(0.02, True, 500, "operate", 0, True),
        Message(0.3, False, 250, "reply", 0, False),
    ]
    (ax,) = plots.plot_messages(messages, "Messages").axes
    assert heights(ax) == [[1.5], [0.5], [-0.25]]
    assert texts(ax) == ["33"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "20", "300"]
    assert len({bar.get_hatch() for bars in ax.containers for bar in bars}) == 3


def test_panels_have_a_scale_for_each_quantity():
    figure = plots.plot_panels(
        {"waits": {"here": 0, "there": 2}, "kB": {"here": 1.25, "there": 3474.1}}, "Costs"
    )
    waits, size = figure.axes
    assert [bar.get_width() for bars in size.containers for bar in bars] == [1.25, 3474.1]
    assert (texts(waits), texts(size)) == (["0", "2"], ["1.2", "3,474"])
    assert waits.get_xlim()[1] < size.get_xlim()[1]
    panels = {"digits": {"averaging": 22, "momentum": 15}, "IID": {"averaging": 8, "momentum": 7}}
    digits, iid = plots.plot_panels(panels, "Rounds", one_scale=True).axes
    assert digits.get_xlim() == iid.get_xlim() and digits.get_xlim()[1] > 22


def test_training_shows_progress_accuracies_and_losses():
    progress, accuracy, loss = plots.plot_training(history(range(1, 13)), 40).axes
    assert progress.get_title() == "Round 12 of 40: 24 s"
    assert [list(line.get_xdata()) for line in accuracy.lines] == [[1, 11]] * 3
    assert [list(line.get_ydata()) for line in accuracy.lines] == [[30, 30], [10, 10], [90, 90]]
    assert [list(line.get_ydata()) for line in loss.lines] == [[0.5] * 12, [0.25] * 12]


def test_training_shows_the_quick_measurement_from_round_1_on():
    rounds = [plots.Round(n, 1.0, {}, {}, quick=n / 10) for n in (1, 2, 3)]
    _, accuracy, _ = plots.plot_training(rounds, 40).axes
    (line,) = accuracy.lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2, 3], [10, 20, 30])
    assert line.get_label() == "average, your own images"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, asyncio.CancelledError])
def test_an_interrupted_training_ends_with_one_line(capsys, interruption):
    logger = logging.getLogger("a training")
    logger.setLevel(logging.INFO)
    with plots.quiet_training(logger) as seconds:
        assert logger.level == logging.WARNING and seconds() >= 0
        raise interruption
    assert logger.level == logging.INFO
    assert capsys.readouterr().out == "Interrupted. Run the cell again to train from the start.\n"


def test_a_training_that_fails_shows_its_error():
    with pytest.raises(OSError), plots.quiet_training(logging.getLogger("a training")):
        raise OSError


def test_training_can_be_drawn_before_the_first_round_and_after_the_last():
    assert plots.plot_training([], 40).axes[0].get_title() == "Round 0 of 40: 0 s"
    assert plots.plot_training(history([1, 2]), 2).axes[0].get_title() == "Round 2 of 2: 4 s"


def test_prediction_histograms_have_a_row_for_each_evaluated_round():
    figure = plots.plot_prediction_histograms(history(range(1, 13)))
    axes = np.array(figure.axes).reshape(2, 3)
    for row in axes:
        assert [heights(ax) for ax in row] == [[[20] + [0] * 9], [[0] * 9 + [20]], [[2] * 10]]
    assert [ax.get_ylabel().splitlines()[0] for ax in axes[:, 0]] == ["round 1", "round 11"]
    assert axes[0, 2].get_title() == "average: 90.0 % correct"


def test_confusion_matrix_shows_every_count_in_its_cell():
    ax = plots.plot_confusion_matrix(torch.as_tensor(MATRIX), "Confusion").axes[0]
    assert {tuple(map(int, text.get_position())): int(text.get_text()) for text in ax.texts} == {
        (column, row): MATRIX[row, column] for row in range(10) for column in range(10)
    }


def test_recall_is_the_share_of_each_actual_digit():
    ax = plots.plot_recall({"alice": torch.as_tensor(MATRIX), "bob": np.eye(10)}, "Recall").axes[0]
    expected = [round(100 * n / (n + 1)) for n in range(1, 11)]
    assert [int(text) for text in texts(ax)] == [*expected, *[100] * 10]


def test_bias_changes_have_a_panel_for_each_worker():
    changes = {"alice": torch.linspace(-1, 1, 10), "bob": torch.zeros(10)}
    alice, bob = plots.plot_bias_changes(changes).axes
    assert heights(alice) == [pytest.approx(np.linspace(-1, 1, 10))]
    assert heights(bob) == [[0] * 10]


def test_curves_are_percentages_with_the_last_in_the_legend():
    figure = plots.plot_curves({"digits": [0.1, 0.25], "IID": [0.5, 0.875]}, "Ways")
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[10, 25], [50, 87.5]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "digits: 25.0 %",
        "IID: 87.5 %",
    ]


def test_splits_have_a_panel_of_stacked_bars_each():
    iid, digits = plots.plot_splits(
        {"IID": {"alice": [1] * 10, "bob": [2] * 10}, "digits": COUNTS}
    ).axes
    assert heights(iid) == [[1] * 10, [2] * 10]
    assert heights(digits) == list(COUNTS.values())
    assert [bar.get_y() for bar in digits.containers[1]] == COUNTS["alice"]
    assert (iid.get_title(), digits.get_title()) == ("IID", "digits")


def test_curve_panels_mark_the_goal_and_the_first_model_that_is_not_finite():
    nan = float("nan")
    panels = {"noise": {"mean": [0.1, nan, nan], "median": [0.5, 0.75, 0.8]}}
    figure = plots.plot_curve_panels(panels | {"none": {"mean": [0.5]}}, "Spoiled", goal=0.9)
    noise, none = figure.axes
    mean, cross, median, goal = noise.lines
    np.testing.assert_equal(mean.get_xydata().tolist(), [[1, 10], [2, nan], [3, nan]])
    assert median.get_xydata().tolist() == [[1, 50], [2, 75], [3, 80]]
    assert (cross.get_xydata().tolist(), texts(noise)) == ([[2, 0]], ["mean:\nnot finite"])
    assert list(goal.get_ydata()) == [90, 90]
    assert len(none.lines) == 2 and texts(none) == []
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mean", "median"]


def test_costs_are_lines_over_the_number_of_steps():
    (ax,) = plots.plot_costs(
        [10, 20], {"noise 1": [0.5, 0.75], "noise 2": [0.1, 0.2]}, "Costs"
    ).axes
    assert [line.get_xydata().tolist() for line in ax.lines] == [
        [[10, 0.5], [20, 0.75]],
        [[10, 0.1], [20, 0.2]],
    ]
    assert ax.get_yscale() == "log"


def test_privacy_is_accuracy_against_epsilon_in_ascending_order():
    (ax,) = plots.plot_privacy({8.0: 0.75, 0.5: 0.25}, 0.9, "Privacy").axes
    curve, without = ax.lines
    assert curve.get_xydata().tolist() == [[0.5, 25], [8, 75]]
    assert list(without.get_ydata()) == [90, 90]
    assert ax.get_xscale() == "log" and texts(ax) == ["25 %", "75 %"]


def test_dots_are_in_the_row_of_their_group():
    panels = {"without": {"with a nine": [1.0, 2.0], "no nine": [0.0]}}
    (ax,) = plots.plot_dots(panels, "change").axes
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[1, 0], [2, 0]], [[0, 1]]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["with a nine", "no nine"]
    assert len({line.get_marker() for line in ax.lines}) == 2


FIGURES = {
    "digits": lambda: plots.plot_digits(torch.zeros(10, 28, 28), torch.arange(10), each=1),
    "label counts": lambda: plots.plot_label_counts(COUNTS),
    "bytes": lambda: plots.plot_bytes({"model": 10, "images": 20}, "Sizes"),
    "predictions": lambda: plots.plot_predictions(COUNTS["alice"], COUNTS["bob"], "Alone"),
    "timelines": lambda: plots.plot_timelines(
        {"one": plots.Timeline([("alice", "train", 0.0, 1.0)])}
    ),
    "training": lambda: plots.plot_training(history(range(1, 13)), 40),
    "histograms": lambda: plots.plot_prediction_histograms(history([1, 11])),
    "confusion": lambda: plots.plot_confusion_matrix(MATRIX, "Confusion"),
    "recall": lambda: plots.plot_recall({"alice": MATRIX}, "Recall"),
    "bias": lambda: plots.plot_bias_changes({"alice": torch.ones(10)}),
    "curves": lambda: plots.plot_curves({"one": [0.1, 0.2]}, "Ways"),
    "splits": lambda: plots.plot_splits({"digits": COUNTS}),
    "curve panels": lambda: plots.plot_curve_panels({"a": {"b": [0.1, float("nan")]}}, "Ways"),
    "costs": lambda: plots.plot_costs([10, 20], {"noise 1": [0.5, 0.7]}, "Costs"),
    "privacy": lambda: plots.plot_privacy({0.5: 0.2, 8.0: 0.6}, 0.9, "Privacy"),
    "dots": lambda: plots.plot_dots({"one": {"a": [1.0], "b": [2.0]}}, "change"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_can_be_drawn_without_a_warning_and_is_described(name):
    figure = FIGURES[name]()
    assert drawn(figure).std() > 0
    assert any(ax.get_title() for ax in figure.axes) or figure.get_suptitle()
    if name != "digits":
        assert any(ax.get_xlabel() for ax in figure.axes)


def test_workers_differ_without_colour():
    styles = [{**plots._fill(index), "facecolor": None} for index in range(len(plots.COLORS))]
    assert len({style["hatch"] for style in styles}) == len(styles)
    lines = [plots._line(index) for index in range(len(plots.COLORS))]
    assert len({line["marker"] for line in lines}) == len(lines)


# Helpers


def test_a_table_is_shown_as_text_and_as_html():
    table = plots.Table(("worker", "samples"), [("alice", 24754), ("<b>", 0)], "a note")
    assert repr(table) == "worker  samples\nalice   24,754\n<b>     0\na note"
    text = table._repr_html_()
    assert '<td style="text-align: right">24,754</td>' in text
    assert "&lt;b&gt;" in text and "<b>" not in text
    assert text.endswith("<p>a note</p>")


def test_timeline_notes_spans_in_their_order():
    timeline = plots.Timeline()
    assert timeline.seconds == 0
    with timeline.span("alice", "send"):
        pass
    with timeline.span("alice", "train"):
        pass
    (worker, phase, begin, end), later = timeline.spans
    assert (worker, phase) == ("alice", "send")
    assert 0 <= begin <= end <= later[2] <= later[3] == timeline.seconds


def test_layer_table_of_a_model_whose_numbers_are_known():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 5))
    table = plots.layer_table(model, torch.zeros(6, 1, 4, 4))
    assert table.rows == [
        ("0", (6, 2, 2, 2), "(2, 1, 3, 3), (2,)", 20),
        ("2", (6, 5), "(5, 8), (5,)", 45),
        ("total", "", "", 65),
    ]
    assert not model[0]._forward_hooks


def test_bytes_on_the_wire_grow_by_four_bytes_for_each_float():
    small, large = (plots.bytes_on_the_wire(torch.zeros(n)) for n in (1000, 3000))
    assert 4000 < small < 4400
    assert abs(large - small - 8000) < 16


def test_bytes_on_the_wire_of_a_model_are_little_more_than_those_of_its_parameters():
    model = classifier()
    parameters = sum(4 * parameter.numel() for parameter in model.parameters())
    assert parameters < plots.bytes_on_the_wire(model) < parameters + 4000
    assert plots.bytes_on_the_wire(nll) < 2000


def test_normalised_images_are_those_that_the_workers_use():
    from torchvision import transforms

    images = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8)
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )
    expected = torch.stack([transform(image.numpy()) for image in images])
    torch.testing.assert_close(plots.normalised(images), expected)


def test_accuracy_is_the_share_of_correct_predictions():
    class SaysThree(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scores = torch.nn.Parameter(torch.eye(10)[3])

        def forward(self, x):
            return self.scores.expand(len(x), 10)

    labels = torch.tensor([3, 3, 3, 1])
    assert plots.accuracy(SaysThree(), torch.zeros(4, 28, 28, dtype=torch.uint8), labels) == 0.75


def test_iid_workers_deal_out_every_sample_once():
    dataset = sy.BaseDataset(torch.arange(10.0), torch.arange(10) % 3)
    dataset.transform = None  # as torchvision's datasets have it: an attribute
    workers = plots.iid_workers(dataset, ["dora", "emil", "frida"])
    parts = [worker.datasets["mnist"] for worker in workers]
    assert [len(part) for part in parts] == [4, 3, 3]
    assert torch.cat([part.data for part in parts]).sort().values.tolist() == list(range(10))
    assert all(int(value) % 3 == target for part in parts for value, target in part)
    assert [worker.id for worker in workers] == ["dora", "emil", "frida"]


def test_a_package_that_a_notebook_needs_and_has_not_is_told_in_one_line():
    plots.require("torch")
    with pytest.raises(plots.PackageMissing) as missing:
        plots.require("no_such_package")
    (line,) = missing.value._render_traceback_()
    assert line.endswith("pip install no_such_package") and "\n" not in line


def test_check_workers_tells_who_is_ready_and_what_to_start_else(monkeypatch):
    monkeypatch.setattr(plots, "CHECK_SECONDS", 0.5)
    worker = MnistWorker(hook=None, host="localhost", port=0, id="alice")
    worker.add_dataset(
        sy.BaseDataset(torch.zeros(5, 2), torch.tensor([1, 2, 2, 4, 4])), key="mnist"
    )
    worker.start(block=False)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # not listening
        port = nobody.getsockname()[1]
        try:
            table = plots.check_workers({"alice": worker.port, "bob": port})
        finally:
            worker.stop()
    assert table.rows == [
        ("alice", f"ws://localhost:{worker.port}", "ready", "1-4", 5),
        ("bob", f"ws://localhost:{port}", "WorkerUnreachable", "", ""),
    ]
    assert table.note == "Not ready: bob. Run in a terminal: python start_websocket_servers.py"


RUN = [
    {
        "round": 1,
        "losses": {"alice": 2.0, "bob": 1.5},
        "accuracies": {"alice": 0.2, "federated": 0.3},
    },
    {"round": 2, "losses": {"alice": 1.0}, "failures": {"bob": "timeout after 60 s"}},
    {"round": 3, "losses": {"alice": 0.5, "bob": None}, "accuracies": {"federated": 0.75}},
]


def test_a_history_is_drawn_with_gaps_where_nothing_was_measured():
    figure = plots.plot_history(RUN, "a run")
    accuracy, loss = figure.axes
    drawn(figure)
    lines = {line.get_label(): line.get_xydata().tolist() for line in accuracy.lines}
    np.testing.assert_equal(
        lines, {"alice": [[1, 20], [3, np.nan]], "federated": [[1, 30], [3, 75]]}
    )
    lines = {line.get_label(): line.get_xydata().tolist() for line in loss.lines}
    np.testing.assert_equal(
        lines, {"alice": [[1, 2], [2, 1], [3, 0.5]], "bob": [[1, 1.5], [2, np.nan], [3, np.nan]]}
    )
    assert figure.get_suptitle() == "a run"


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_history_is_drawn_into_a_file(tmp_path, ending):
    with History(tmp_path / "run.jsonl") as history:
        for each in RUN:
            history.append(**each)
    target = tmp_path / f"run.{ending}"
    assert plots.main([str(tmp_path / "run.jsonl"), str(target)]) == 0
    beginning = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert target.read_bytes().startswith(beginning)


@pytest.mark.parametrize(
    ("content", "target", "complaint"),
    [
        (None, "run.png", "is not the history of a run: it has no rounds"),
        ("", "run.png", "is not the history of a run: it has no rounds"),
        ("no json\n", "run.png", "is not the history of a run: "),
        ('{"losses": {"alice": 1}}\n', "run.png", "is not the history of a run: 'round'"),
        ('{"round": 1, "losses": [1]}\n', "run.png", "is not the history of a run: "),
        ('{"round": 1}\n', "nowhere/run.png", "cannot write "),
        ('{"round": 1}\n', "run.xyz", "cannot write "),
    ],
)
def test_what_cannot_be_drawn_is_one_line(tmp_path, capsys, content, target, complaint):
    source = tmp_path / "run.jsonl"
    if content is not None:
        source.write_text(content)
    with pytest.raises(SystemExit) as exited:
        plots.main([str(source), str(tmp_path / target)])
    assert exited.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line and line.endswith("; see --help")
