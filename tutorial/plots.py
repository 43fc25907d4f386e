"""What the notebooks draw and tabulate with; and a figure of any run's history.

    python -m tutorial.plots run.jsonl run.png

Each `plot_` function takes data and returns a new matplotlib Figure; nothing here keeps figures or
changes its arguments. Figures are readable without colour: every worker has its own hatch, marker
and line style.
"""

from __future__ import annotations

import asyncio
import html
import importlib.util
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import nn

import syft as sy
from syft import wire
from syft.exceptions import SyftError
from syft.federated import read_history
from syft.options import Parser
from tutorial.chinese import TranslatedFigure, translated
from tutorial.chinese import use_chinese as use_chinese
from tutorial.traffic import Message

DIGITS = np.arange(10)
START_COMMAND = "python start_websocket_servers.py"
CHECK_SECONDS = 5.0
"""How long `check_workers` waits for each worker."""

# Hues of Okabe and Ito's palette, which colour-blind readers can tell apart, and greys that differ
# in print.
COLORS = ("#0072B2", "#E69F00", "#56B49E", "#8C8C8C", "#CC79A7")
HATCHES = ("", "///", "...", "xx", "--")
MARKERS = ("o", "s", "^", "D", "v")
LINES = ("-", "--", "-.", "-", ":")
AVERAGE = "average"
"""The name of the federated model in `Round.evaluations`; drawn thicker than the others."""
FEDERATED = "federated"
"""Its name in a history."""


@dataclass(frozen=True)
class Table:
    """Rows under a header, for a notebook to show. Numbers are aligned to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def _repr_html_(self) -> str:
        head = "".join(
            f'<th style="text-align: left">{html.escape(translated(name))}</th>'
            for name in self.header
        )
        body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in self.rows)
        note = f"<p>{html.escape(translated(self.note))}</p>" if self.note else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"

    def __repr__(self) -> str:
        cells = [list(self.header), *([_text(value) for value in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in cells
        ]
        return "\n".join([*(line.rstrip() for line in lines), *([self.note] if self.note else [])])


@dataclass
class Timeline:
    """When each worker did what, as the coordinator sees it.

    Attributes:
        spans: worker, phase, begin and end of each span; seconds since the timeline was made.
    """

    spans: list[tuple[str, str, float, float]] = field(default_factory=list)
    _start: float = field(default_factory=time.perf_counter)

    @contextmanager
    def span(self, worker: str, phase: str) -> Iterator[None]:
        """Note how long the body of the `with` statement takes."""
        begin = time.perf_counter() - self._start
        yield
        self.spans.append((worker, phase, begin, time.perf_counter() - self._start))

    @property
    def seconds(self) -> float:
        """The end of the last span."""
        return max((end for *_, end in self.spans), default=0.0)


@dataclass(frozen=True)
class Round:
    """What is kept of one round of training.

    Attributes:
        number: 1 for the first round.
        seconds: time since the start of the training.
        losses: worker -> loss on its last batch.
        evaluations: model -> what the evaluator returned; empty in rounds without evaluation.
        quick: share of right predictions (0 to 1) of the average on some images of the
            coordinator's own; None: it was not measured.
    """

    number: int
    seconds: float
    losses: Mapping[str, float]
    evaluations: Mapping[str, Mapping[str, Any]]
    quick: float | None = None

    def accuracy(self, model: str) -> float:
        """Return the share of test images that a model got right."""
        result = self.evaluations[model]
        return float(result["nr_correct_predictions"] / result["nr_predictions"])


@contextmanager
def quiet_training(logger: logging.Logger) -> Iterator[Callable[[], float]]:
    """Have a training log warnings only, and end with one line if it is interrupted.

    The figure shows what it would log. An interruption in a notebook would leave a traceback of
    many lines otherwise.

    Args:
        logger: the logger of the evaluations.

    Yields:
        A function that returns the seconds since the start.
    """
    start, level = time.perf_counter(), logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield lambda: time.perf_counter() - start
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(translated("Interrupted. Run the cell again to train from the start."))
    finally:
        logger.setLevel(level)


class PackageMissing(ModuleNotFoundError):
    """A part of a notebook needs a package that is not installed. Notebooks show it as one line."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def require(package: str) -> None:
    """Do nothing if a package is installed.

    Raises:
        PackageMissing: it is not.
    """
    if importlib.util.find_spec(package) is None:
        raise PackageMissing(
            f"The rest of this notebook needs a package that is not here. Install it, then start "
            f"the kernel again: pip install {package}"
        )


def check_workers(ports: Mapping[str, int], host: str = "localhost") -> Table:
    """Ask each worker; return a table of whether it answers and what it holds."""
    rows = [
        (worker, f"ws://{host}:{port}", *_ask(worker, host, port)) for worker, port in ports.items()
    ]
    missing = [row[0] for row in rows if row[2] != "ready"]
    note = f"Not ready: {', '.join(missing)}. Run in a terminal: {START_COMMAND}" if missing else ""
    return Table(("worker", "address", "state", "digits", "samples"), rows, note)


def layer_table(model: nn.Module, example: torch.Tensor) -> Table:
    """Return a table of a model's layers.

    It has the shapes of their outputs and parameters, and the number of parameters.

    Args:
        model: it is run once on `example`. Not modified.
        example: one batch of inputs.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    layers = {
        name: layer
        for name, layer in model.named_children()
        if any(True for _ in layer.parameters())
    }
    hooks = [
        layer.register_forward_hook(
            lambda _, __, output, name=name: shapes.update({name: tuple(output.shape)})
        )
        for name, layer in layers.items()
    ]
    with torch.inference_mode():
        model(example)
    for hook in hooks:
        hook.remove()
    rows: list[tuple[Any, ...]] = [
        (
            name,
            shapes[name],
            ", ".join(str(tuple(p.shape)) for p in layer.parameters()),
            _parameters(layer),
        )
        for name, layer in layers.items()
    ]
    rows.append(("total", "", "", _parameters(model)))
    return Table(("layer", "output", "weight, bias", "parameters"), rows)


def bytes_on_the_wire(value: Any) -> int:
    """Return the size of the message that carries `value` to a worker, in bytes."""
    return len(wire.encode(wire.Request(1, "set", {"obj": value})))


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of images that a model gets right, computed here.

    Args:
        model: on any device; its training mode is not changed.
        images: (N, 28, 28) uint8, as MNIST has them.
        labels: (N,) digits.
    """
    with torch.inference_mode():
        predictions = model(normalised(images).to(next(model.parameters()).device)).argmax(dim=1)
    return float((predictions.cpu() == labels).float().mean())


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Return images (N, 28, 28) uint8 as the network's inputs, (N, 1, 28, 28) float32.

    Workers prepare theirs in the same way.
    """
    return (images.unsqueeze(1) / 255 - 0.1307) / 0.3081


def iid_workers(
    dataset: Any, names: Sequence[str], key: str = "mnist", seed: int = 1
) -> list[sy.VirtualWorker]:
    """Return workers inside this process that share out a dataset at random, in equal parts.

    Args:
        dataset: has `data`, `targets` and `transform`, as torchvision's MNIST. Not modified.
        names: ids of the workers.
        key: the key of each worker's part.
        seed: of the dealing.
    """
    order = torch.randperm(len(dataset.targets), generator=torch.Generator().manual_seed(seed))
    workers = []
    for name, part in zip(names, order.tensor_split(len(names)), strict=True):
        worker = sy.VirtualWorker(id=name)
        worker.add_dataset(
            sy.BaseDataset(dataset.data[part], dataset.targets[part], dataset.transform), key
        )
        workers.append(worker)
    return workers


def plot_digits(images: torch.Tensor, labels: torch.Tensor, each: int = 3) -> Figure:
    """Draw the first images of each digit, a column a digit."""
    figure, axes = _figure(8, 0.85 * each + 0.4, each, 10)
    for digit in DIGITS:
        for row, image in enumerate(images[labels == digit][:each]):
            axes[row, digit].imshow(np.asarray(image), cmap="Greys")
        axes[0, digit].set_title(str(digit))
    for ax in axes.flat:
        ax.set_axis_off()
    figure.suptitle("Test images of each digit, 28 x 28 pixels")
    return figure


def plot_label_counts(counts: Mapping[str, Sequence[int]]) -> Figure:
    """Draw how many images of each digit each worker holds, as stacked bars."""
    figure, ax = _single(8, 3)
    below = np.zeros(10)
    for index, (worker, numbers) in enumerate(counts.items()):
        heights = np.asarray(numbers, dtype=float)
        label = f"{worker} ({int(heights.sum()):,} images)"
        ax.bar(DIGITS, heights, bottom=below, label=label, **_fill(index))
        below += heights
    _axes(ax, "What each worker holds", "digit", "training images")
    ax.set_xticks(DIGITS)
    ax.set_ylim(0, 1.3 * max(below))
    ax.legend(ncols=len(counts), loc="upper center")
    return figure


def plot_bytes(sizes: Mapping[str, int], title: str) -> Figure:
    """Draw sizes as horizontal bars.

    Args:
        sizes: what it is -> bytes.
        title: title of the figure.
    """
    figure, ax = _single(8, 0.42 * len(sizes) + 1)
    megabytes = [size / 1e6 for size in sizes.values()]
    for index, value in enumerate(megabytes):
        ax.barh(index, value, **_fill(index))
        ax.annotate(
            f"{value:,.2f} MB", (value, index), (4, 0), textcoords="offset points", va="center"
        )
    _axes(ax, title, "megabytes (1 MB = 1,000,000 bytes)", "", grid="x")
    ax.set_yticks(range(len(sizes)), list(sizes))
    ax.set_xlim(0, 1.15 * max(megabytes))
    ax.invert_yaxis()
    return figure


def plot_predictions(predicted: Sequence[float], actual: Sequence[float], title: str) -> Figure:
    """Draw how often a model predicts each digit, and how often each digit occurs.

    Args:
        predicted: (10,) counts.
        actual: (10,) counts.
        title: title of the figure.
    """
    figure, ax = _single(8, 2.8)
    ax.bar(DIGITS, predicted, label="predicted", **_fill(1))
    _draw_actual(ax, actual)
    _axes(ax, title, "digit", "test images")
    ax.set_xticks(DIGITS)
    ax.legend()
    return figure


def plot_timelines(timelines: Mapping[str, Timeline]) -> Figure:
    """Draw timelines below each other on one time axis: a row a worker, a hatch a phase."""
    figure, axes = _figure(8, 1.5 * len(timelines) + 0.7, len(timelines), 1, sharex=True)
    phases = list(
        dict.fromkeys(phase for timeline in timelines.values() for _, phase, *_ in timeline.spans)
    )
    longest = max(timeline.seconds for timeline in timelines.values())
    for ax, (name, timeline) in zip(axes[:, 0], timelines.items(), strict=True):
        workers = list(dict.fromkeys(worker for worker, *_ in timeline.spans))
        for worker, phase, begin, end in timeline.spans:
            fill = _fill(phases.index(phase))
            ax.barh(workers.index(worker), end - begin, left=begin, height=0.6, **fill)
        _axes(ax, f"{name}: {timeline.seconds:.2f} s", "", "", grid="x")
        ax.set_yticks(range(len(workers)), workers)
        ax.set_ylim(len(workers) - 0.5, -0.5)
        ax.set_xlim(0, 1.02 * longest)
    axes[-1, 0].set_xlabel("seconds")
    handles = [Patch(label=phase, **_fill(index)) for index, phase in enumerate(phases)]
    figure.legend(handles=handles, loc="outside right upper")
    return figure


def plot_training(history: Sequence[Round], rounds: int) -> Figure:
    """Draw the state of a training.

    There are a progress bar, accuracies where they were measured, and losses of all rounds.

    Args:
        history: the rounds so far; may be empty.
        rounds: number of rounds in all.
    """
    figure = TranslatedFigure(figsize=(9, 4), layout="constrained")
    axes = figure.subplot_mosaic(
        [["progress", "progress"], ["accuracy", "loss"]], height_ratios=[0.08, 1]
    )
    _draw_progress(axes["progress"], history, rounds)
    evaluated = [each for each in history if each.evaluations]
    for index, model in enumerate(evaluated[0].evaluations if evaluated else ()):
        percent = [100 * each.accuracy(model) for each in evaluated]
        axes["accuracy"].plot(
            [each.number for each in evaluated], percent, label=model, **_line(index, model)
        )
    measured = [(each.number, 100 * each.quick) for each in history if each.quick is not None]
    if measured:
        label = f"{AVERAGE}, your own images"
        axes["accuracy"].plot(*zip(*measured, strict=True), color="black", linewidth=1, label=label)
    for index, worker in enumerate(history[0].losses if history else ()):
        losses = [each.losses[worker] for each in history]
        axes["loss"].plot(
            [each.number for each in history], losses, label=worker, **_line(index, marker=".")
        )
    _axes(axes["accuracy"], "Accuracy on test images", "round", "correct (%)")
    _axes(axes["loss"], "Loss on each worker's last batch", "round", "negative log-likelihood")
    axes["accuracy"].set_ylim(0, 100)
    for ax in (axes["accuracy"], axes["loss"]):
        ax.set_xlim(0, rounds + 1)
        if ax.lines:
            ax.legend(loc="best")
    return figure


def plot_prediction_histograms(history: Sequence[Round]) -> Figure:
    """Draw how often each model predicts each digit.

    There is a row for each round that was evaluated, and a column for each model.

    Each row has its own scale: what spreads over ten digits would be flat beside what piles up on
    one.
    """
    evaluated = [each for each in history if each.evaluations]
    models = list(evaluated[0].evaluations)
    figure, axes = _figure(
        9, 1.3 * len(evaluated) + 1, len(evaluated), len(models), sharex=True, sharey="row"
    )
    for row, each in zip(axes, evaluated, strict=True):
        row[0].set_ylabel(f"round {each.number}\ntest images")
        for index, (ax, model) in enumerate(zip(row, models, strict=True)):
            result = each.evaluations[model]
            ax.bar(DIGITS, result["histogram_predictions"], width=0.9, **_fill(index))
            _draw_actual(ax, result["histogram_target"])
            ax.set_title(f"{model}: {100 * each.accuracy(model):.1f} % correct", fontsize="small")
    for ax in axes[-1]:
        ax.set_xlabel("digit")
        ax.set_xticks(DIGITS, [str(digit) for digit in DIGITS], fontsize="x-small")
    figure.suptitle("Predicted digits (bars) and actual digits (line)")
    return figure


def plot_confusion_matrix(counts: Any, title: str) -> Figure:
    """Draw a confusion matrix with its counts.

    Args:
        counts: (10, 10); row: the digit, column: what it was taken for.
        title: title of the figure.
    """
    counts = np.asarray(counts)
    figure, ax = _single(6.2, 5)
    image = ax.imshow(np.log10(counts + 1), cmap="Greys")
    dark = np.log10(counts + 1) > np.log10(counts.max() + 1) / 2
    for row, column in np.ndindex(counts.shape):
        color = "white" if dark[row, column] else "black"
        ax.text(
            column,
            row,
            str(int(counts[row, column])),
            ha="center",
            va="center",
            color=color,
            fontsize="small",
        )
    _axes(ax, title, "predicted digit", "actual digit", grid="")
    ax.set_xticks(DIGITS)
    ax.set_yticks(DIGITS)
    ticks = [0, 1, 10, 100, 1000]
    bar = figure.colorbar(
        image, ticks=np.log10(np.add(ticks, 1)), label="test images (logarithmic)"
    )
    bar.set_ticklabels([f"{tick:,}" for tick in ticks])
    return figure


def plot_recall(matrices: Mapping[str, Any], title: str) -> Figure:
    """Draw, for each model and digit, the share of that digit's images that the model gets right.

    Args:
        matrices: model -> confusion matrix (10, 10), rows: actual digits.
        title: title of the figure.
    """
    recall = np.stack(
        [100 * np.diagonal(m) / np.sum(np.asarray(m), axis=1) for m in matrices.values()]
    )
    figure, ax = _single(8, 0.42 * len(matrices) + 1.2)
    image = ax.imshow(recall, cmap="Greys", vmin=0, vmax=100, aspect="auto")
    for row, column in np.ndindex(recall.shape):
        value = recall[row, column]
        ax.text(
            column,
            row,
            f"{value:.0f}",
            ha="center",
            va="center",
            color="white" if value > 50 else "black",
        )
    _axes(ax, title, "actual digit", "", grid="")
    ax.set_xticks(DIGITS)
    ax.set_yticks(range(len(matrices)), list(matrices))
    figure.colorbar(image, label="correct (%)")
    return figure


def plot_bias_changes(changes: Mapping[str, Any]) -> Figure:
    """Draw by how much each worker's training moved the output layer's bias of each digit.

    There is one panel for each worker.
    """
    figure, axes = _figure(9, 2.6, 1, len(changes), sharey=True)
    for index, (ax, (worker, change)) in enumerate(zip(axes[0], changes.items(), strict=True)):
        ax.bar(DIGITS, np.asarray(change), **_fill(index))
        ax.axhline(0, color="black", linewidth=1)
        _axes(ax, f"update of {worker}", "digit", "")
        ax.set_xticks(DIGITS)
    axes[0, 0].set_ylabel("change of the bias")
    return figure


def plot_curves(curves: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Draw the accuracy after each round, one line a training.

    Args:
        curves: name -> accuracies (0 to 1) after round 1, 2, ...
        title: title of the figure.
    """
    figure, ax = _single(8, 3.6)
    for index, (name, values) in enumerate(curves.items()):
        rounds = range(1, len(values) + 1)
        ax.plot(
            rounds,
            100 * np.asarray(values),
            label=f"{name}: {100 * values[-1]:.1f} %",
            **_line(index),
        )
    _axes(ax, title, "round", "correct (%)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(0, 100)
    figure.legend(loc="outside right upper", title="after the last round")
    return figure


def plot_splits(splits: Mapping[str, Mapping[str, Sequence[int]]]) -> Figure:
    """Draw how many images of each digit each worker holds, with a panel for each split.

    Args:
        splits: split -> worker -> number of images of each digit, (10,). The workers are the same
            in all splits.
    """
    figure, axes = _figure(9, 2.9, 1, len(splits), sharey=True)
    most = 0.0
    for ax, (split, counts) in zip(axes[0], splits.items(), strict=True):
        below = np.zeros(10)
        for index, (worker, numbers) in enumerate(counts.items()):
            ax.bar(DIGITS, numbers, bottom=below, label=worker, **_fill(index))
            below += np.asarray(numbers)
        _axes(ax, split, "digit", "")
        ax.set_xticks(DIGITS, [str(digit) for digit in DIGITS], fontsize="x-small")
        most = max(most, below.max())
    axes[0, 0].set(ylabel="training images", ylim=(0, 1.05 * most))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def plot_curve_panels(
    panels: Mapping[str, Mapping[str, Sequence[float]]], title: str, goal: float | None = None
) -> Figure:
    """Draw the accuracy after each round, one line a training, with a panel for each setting.

    Args:
        panels: setting -> name -> accuracies (0 to 1) after round 1, 2, ... NaN stands for a model
            that is not finite; a cross on the axis marks the first of them. The names are the same
            in all settings.
        title: title of the figure.
        goal: accuracy to mark by a horizontal line.
    """
    figure, axes = _figure(9, 3.4, 1, len(panels), sharey=True)
    for ax, (setting, curves) in zip(axes[0], panels.items(), strict=True):
        for index, (name, values) in enumerate(curves.items()):
            percent = 100 * np.asarray(values, dtype=float)
            rounds = np.arange(1, len(percent) + 1)
            every = max(1, len(percent) // 6)
            ax.plot(rounds, percent, label=name, markevery=every, markersize=4, **_line(index))
            if np.isnan(percent).any():
                lost = rounds[np.isnan(percent)][0]
                ax.plot(lost, 0, "X", color="black", markersize=10, clip_on=False)
                note = f"{name}:\nnot finite"
                ax.annotate(note, (lost, 0), (8, 8), textcoords="offset points", fontsize="small")
        if goal is not None:
            ax.axhline(100 * goal, color="black", linewidth=1, linestyle=":")
        _axes(ax, setting, "round", "")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0, 0].set(ylabel="correct (%)", ylim=(0, 100))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(title)
    return figure


def plot_costs(steps: Sequence[int], costs: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Draw what training costs, on a logarithmic axis.

    Args:
        steps: numbers of training steps.
        costs: name -> epsilon after each of these numbers of steps.
        title: title of the figure.
    """
    figure, ax = _single(8, 3.2)
    every = max(1, len(steps) // 6)
    for index, (name, epsilons) in enumerate(costs.items()):
        ax.plot(steps, epsilons, label=name, markevery=every, **_line(index))
    _axes(ax, title, "training steps", "epsilon")
    ax.set_yscale("log")
    figure.legend(loc="outside right upper")
    return figure


def plot_privacy(accuracies: Mapping[float, float], without: float, title: str) -> Figure:
    """Draw accuracy against epsilon, on a logarithmic axis.

    Args:
        accuracies: epsilon -> accuracy (0 to 1).
        without: accuracy without privacy, a horizontal line.
        title: title of the figure.
    """
    figure, ax = _single(8, 3.2)
    epsilons = sorted(accuracies)
    percent = [100 * accuracies[epsilon] for epsilon in epsilons]
    ax.plot(epsilons, percent, label="with privacy", **_line(0))
    for epsilon, value in zip(epsilons, percent, strict=True):
        text = f"{value:.0f} %"
        ax.annotate(text, (epsilon, value), (0, 7), textcoords="offset points", ha="center")
    label = f"without: {100 * without:.0f} %"
    ax.axhline(100 * without, color="black", linestyle="--", label=label)
    _axes(ax, title, "epsilon (smaller is more private)", "correct (%)")
    ax.set_xscale("log")
    ax.set_xticks(epsilons, [f"{epsilon:.2g}" for epsilon in epsilons])
    ax.set_xticks([], minor=True)
    ax.margins(x=0.1)
    ax.set_ylim(0, 100)
    ax.legend(loc="lower right")
    return figure


def plot_dots(panels: Mapping[str, Mapping[str, Sequence[float]]], xlabel: str) -> Figure:
    """Draw single measurements as dots, a row a group, with a panel and a scale for each setting.

    Args:
        panels: setting -> group -> measurements. The groups are the same in all settings.
        xlabel: what was measured.
    """
    groups = list(next(iter(panels.values())))
    figure, axes = _figure(9, 0.5 * len(groups) + 1.4, 1, len(panels), sharey=True)
    for ax, (setting, measured) in zip(axes[0], panels.items(), strict=True):
        for index, group in enumerate(groups):
            style = {**_line(index), "linestyle": "", "alpha": 0.7}
            ax.plot(measured[group], [index] * len(measured[group]), **style)
        _axes(ax, setting, xlabel, "", grid="x")
        ax.xaxis.set_major_locator(MaxNLocator(4))
    axes[0, 0].set_yticks(range(len(groups)), groups)
    axes[0, 0].set_ylim(len(groups) - 0.5, -0.5)
    return figure


def plot_messages(messages: Sequence[Message], title: str) -> Figure:
    """Draw messages in their order: those that were sent upwards, those that came downwards.

    The length is the size, the number at the end the operations in it, and the one below the time.
    """
    figure, ax = _single(9, 3.4)
    kinds = ("sent", "sent, and its reply waited for", "received")
    for index, message in enumerate(messages):
        kind = 2 if not message.sent else 1 if message.waited_for else 0
        size = message.bytes / 1000
        ax.bar(index, size if message.sent else -size, **_fill(kind))
        if message.operations:
            text = str(message.operations)
            ax.annotate(text, (index, size), (0, 3), textcoords="offset points", ha="center")
    ax.axhline(0, color="black", linewidth=1)
    _axes(ax, title, "milliseconds since the start, a bar a message", "kB received | kB sent")
    times = [f"{1000 * message.seconds:.0f}" for message in messages]
    ax.set_xticks(range(len(messages)), times)
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.margins(y=0.15)
    handles = [Patch(label=kind, **_fill(index)) for index, kind in enumerate(kinds)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(kinds))
    return figure


def plot_panels(
    panels: Mapping[str, Mapping[str, float]], title: str, one_scale: bool = False
) -> Figure:
    """Draw some quantities of the same things, with a panel and a scale for each quantity.

    Args:
        panels: quantity -> thing -> number.
        title: title of the figure.
        one_scale: whether all panels have the same scale, for quantities of one kind.
    """
    things = list(next(iter(panels.values())))
    figure, axes = _figure(9, 0.4 * len(things) + 1.3, 1, len(panels), sharey=True)
    for ax, (quantity, numbers) in zip(axes[0], panels.items(), strict=True):
        for index, thing in enumerate(things):
            value = numbers[thing]
            ax.barh(index, value, **_fill(index))
            text = f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:,.1f}"
            ax.annotate(text, (value, index), (4, 0), textcoords="offset points", va="center")
        _axes(ax, quantity, "", "", grid="x")
        scaled = panels.values() if one_scale else [numbers]
        ax.set_xlim(0, 1.35 * (max(max(each.values()) for each in scaled) or 1))
        ax.xaxis.set_major_locator(MaxNLocator(3))
    axes[0, 0].set_yticks(range(len(things)), things)
    axes[0, 0].invert_yaxis()
    figure.suptitle(title)
    return figure


def plot_history(rounds: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw a run's history: accuracies where they were measured, and losses of all rounds.

    Args:
        rounds: what `syft.federated.read_history` returns. A worker that was left out of a round
            has a gap there.
        title: title of the figure.
    """
    figure, axes = _figure(9, 4, 1, 2)
    panels = (
        ("accuracies", "Accuracy on the evaluator's test images", "correct (%)", 100),
        ("losses", "Loss on each worker's last batch", "negative log-likelihood", 1),
    )
    for ax, (field_, name, unit, scale) in zip(axes[0], panels, strict=True):
        found = [each for each in rounds if each.get(field_)]
        names = dict.fromkeys(name for each in found for name in each[field_])
        for index, line in enumerate(names):
            values = [_number(each[field_].get(line)) for each in found]
            style = _line(index, AVERAGE if line == FEDERATED else "")
            numbers = [each["round"] for each in found]
            ax.plot(numbers, scale * np.asarray(values), label=line, **style)
        _axes(ax, name, "round", unit)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if names:
            ax.legend(loc="best")
    axes[0, 0].set_ylim(0, 100)
    figure.suptitle(title)
    return figure


def plot_accuracy(rounds: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw the federated model's accuracy in a run's history, where it was measured."""
    figure, ax = _single(8, 4)
    found = [each for each in rounds if FEDERATED in each.get("accuracies", {})]
    percent = [100 * _number(each["accuracies"][FEDERATED]) for each in found]
    ax.plot([each["round"] for each in found], percent, **_line(0, AVERAGE))
    _axes(ax, title, "round", "correct of 10,000 test images (%)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(0, 100)
    return figure


def main(args: Sequence[str] | None = None) -> int:
    """Draw a history into a file; return the exit status. A mistake is one line and status 2."""
    parser = Parser("Draw the history of a run.")
    help_text = "what run_websocket_client.py --history has written, e.g. run.jsonl"
    parser.add_argument("history", metavar="HISTORY", help=help_text)
    help_text = "file to draw to; its ending tells its format, e.g. run.png, run.svg"
    parser.add_argument("figure", metavar="FIGURE", help=help_text)
    given = parser.parse_args(args)
    try:
        if not (rounds := read_history(given.history)):
            raise ValueError("it has no rounds")
        figure = plot_history(rounds, given.history)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as reason:
        parser.error(f"{given.history} is not the history of a run: {reason}")
    try:
        figure.savefig(given.figure, dpi=150)
    except (OSError, ValueError) as reason:
        parser.error(f"cannot write {given.figure}: {reason}")
    return 0


def _number(value: Any) -> float:
    """Return a number of a history; null and what is missing as NaN, which leaves a gap."""
    return float("nan") if value is None else float(value)


def _ask(worker: str, host: str, port: int) -> tuple[str, str, Any]:
    """Return a worker's state, its digits and its number of samples."""
    try:
        proxy = sy.WebsocketClientWorker(
            hook=None, host=host, port=port, id=worker, connect_timeout=CHECK_SECONDS
        )
        key = "mnist_testing" if worker == "testing" else "mnist"
        counts = proxy.call("label_counts", key, timeout=CHECK_SECONDS)
        proxy.close()
    except (SyftError, TimeoutError) as error:
        return type(error).__name__, "", ""
    held = counts.nonzero().flatten().tolist()
    return "ready", f"{held[0]}-{held[-1]}", counts.sum().item()


def _figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **kwargs: Any
) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes (rows, columns).

    It is made without pyplot, which would show it a second time.
    """
    figure = TranslatedFigure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def _single(width: float, height: float) -> tuple[Figure, Axes]:
    figure, axes = _figure(width, height)
    return figure, axes[0, 0]


def _axes(
    ax: Axes, title: str, xlabel: str, ylabel: str, grid: Literal["x", "y", ""] = "y"
) -> None:
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    ax.spines[["top", "right"]].set_visible(not grid)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, alpha=0.3)


def _draw_progress(ax: Axes, history: Sequence[Round], rounds: int) -> None:
    done = history[-1].number if history else 0
    seconds = history[-1].seconds if history else 0
    ax.barh(0, rounds, color="white", edgecolor="black")
    ax.barh(0, done, color=COLORS[0], edgecolor="black")
    ax.set_title(f"Round {done} of {rounds}: {seconds:.0f} s", fontsize="medium")
    ax.set_xlim(0, rounds)
    ax.set_axis_off()


def _draw_actual(ax: Axes, counts: Sequence[float]) -> None:
    ax.stairs(counts, np.arange(-0.5, 10.5), color="black", linewidth=1.5, label="actual")


def _fill(index: int) -> dict[str, Any]:
    return {
        "facecolor": COLORS[index % len(COLORS)],
        "hatch": HATCHES[index % len(HATCHES)],
        "edgecolor": "black",
    }


def _line(index: int, name: str = "", marker: str | None = None) -> dict[str, Any]:
    index %= len(COLORS)
    style: dict[str, Any] = {"color": COLORS[index], "linestyle": LINES[index], "linewidth": 1.5}
    if name == AVERAGE:
        style |= {"color": "black", "linewidth": 3}
    return style | {"marker": MARKERS[index] if marker is None else marker}


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _html_cell(value: Any) -> str:
    align = "right" if isinstance(value, int) else "left"
    return f'<td style="text-align: {align}">{html.escape(translated(_text(value)))}</td>'


if __name__ == "__main__":
    sys.exit(main())
