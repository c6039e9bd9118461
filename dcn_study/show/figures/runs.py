"""Figures of the digits and of the accuracies of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dcn_study.names import ARMS, MODELS
from dcn_study.runs import published
from dcn_study.runs.records import Record
from dcn_study.show.figures.ends import label_ends
from dcn_study.show.figures.style import COLOURS, PALETTE

__all__ = ["accuracies", "digits", "published_curves", "selection", "training_curve", "validation_curves"]

_COLOUR_OF = {name: COLOURS[model] for model, name in MODELS.items()}
# What a legend shows for the marks of accuracies.
_MARKS = (
    Line2D([], [], marker="D", color="black", markerfacecolor="none", linestyle="", label="published"),
    Line2D([], [], marker="o", color="0.4", linestyle="", label="here, each seed"),
)


def digits(plain: np.ndarray, moved: np.ndarray, labels: Sequence[int], axes: np.ndarray | None = None) -> np.ndarray:
    """Draws each plain image above its scaled and translated form.

    Args:
        plain: (N, H, W), values from 0 to 1.
        moved: (N, H, W), the same images transformed.
        labels: N digits.
        axes: (2, N) axes to draw into; new ones by default.

    Returns:
        The (2, N) axes.
    """
    if axes is None:
        _, axes = plt.subplots(2, len(plain), figsize=(1.05 * len(plain), 2.5), squeeze=False, layout="constrained")
    for column, label in enumerate(labels):
        for row, images in enumerate((plain, moved)):
            axes[row, column].imshow(images[column], cmap="gray_r", vmin=0, vmax=1)
            axes[row, column].set(xticks=[], yticks=[])
        axes[0, column].set_title(str(label))
    axes[0, 0].set_ylabel("plain")
    axes[1, 0].set_ylabel("scaled,\ntranslated")
    return axes


def training_curve(runs: Sequence[Record], ax: Axes | None = None, *, title: str = "") -> Axes:
    """Draws training and validation accuracy by epoch: a band from lowest to highest run, their mean, the paper's.

    Args:
        runs: the same run with one seed or several, or what stands in for it.
        ax: axes to draw into; new ones by default.
        title: of the axes; by default the name of the model.

    Returns:
        The axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    config, epochs = runs[0].config, min(len(record.history) for record in runs)
    reference = published.curve(config.model) if published.accuracies(config) else None
    ends = []
    for name, key, stated, colour in (
        ("training", "accuracy", "train_accuracy", "0.55"),
        ("validation", "validation_accuracy", "validation_accuracy", COLOURS.get(config.model, PALETTE[0])),
    ):
        mean = _curve(ax, runs, key, epochs, 0.2, color=colour, linewidth=1.8, label=f"{name}, here")
        ends.append((name, mean[-1], colour))
        if reference is not None:
            theirs = 100 * np.array(reference[stated])
            (line,) = ax.plot(reference["epoch"], theirs, "--o", color=colour, label=f"{name}, published")
            line.set(linewidth=1.2, markersize=3.5, markerfacecolor="white")
    ax.set(title=title or MODELS.get(config.model) or ARMS.get(config.model, config.model), xlabel="epoch")
    ax.set_ylabel("accuracy (%)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    label_ends(ax, ends, 0.09)
    return ax


def published_curves(runs: Mapping[str, Sequence[Record]], titles: Mapping[str, str]) -> np.ndarray:
    """Draws the paper's four training curves over ours, a panel for each, in rows of two.

    Args:
        runs: by model, the records of all seeds.
        titles: of the panels, by model.

    Returns:
        The axes.
    """
    rows = (len(runs) + 1) // 2
    _, axes = plt.subplots(rows, 2, figsize=(8.6, 2.9 * rows), squeeze=False, layout="constrained")
    for ax, (model, found) in zip(axes.ravel(), runs.items(), strict=True):
        training_curve(found, ax, title=titles[model])
    return axes.ravel()


def validation_curves(
    runs: Mapping[str, Record],
    others: Mapping[str, Sequence[Record]] | None = None,
    *,
    longest: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draws the validation accuracy of several runs by epoch, each model in its colour and named where its line ends.

    Args:
        runs: by what each is called.
        others: the same runs with other seeds, by the same names: a band and the mean of all.
        longest: the last epoch that is drawn; by default the last one of each run.
        ax: axes to draw into; new ones by default.

    Returns:
        The axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 4), layout="constrained")
    of_model: dict[str, int] = {}
    ends = []
    for label, record in runs.items():
        model = record.config.model
        number = of_model[model] = of_model.get(model, -1) + 1
        line, marker = ("-", "--", "-.", ":")[number % 4], "os^D"[number % 4]
        found = [record, *(others or {}).get(label, ())]
        epochs = min(longest or len(record.history), *(len(each.history) for each in found))
        look = {"color": COLOURS[model], "linestyle": line, "marker": marker, "markersize": 4, "label": label}
        mean = _curve(ax, found, "validation_accuracy", epochs, 0.15, **look)
        ends.append((label, mean[-1], COLOURS[model]))
    ax.set(xlabel="epoch", ylabel="validation accuracy (%)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    label_ends(ax, ends)
    return ax


def _curve(ax: Axes, runs: Sequence[Record], key: str, epochs: int, alpha: float, **look: Any) -> np.ndarray:
    """Draws the mean of runs by epoch, with a band from the lowest to the highest of several; returns the mean."""
    values = 100 * np.array([[getattr(epoch, key) for epoch in record.history[:epochs]] for record in runs])
    x, mean = np.arange(1, epochs + 1), values.mean(axis=0)
    if len(runs) > 1:
        ax.fill_between(x, values.min(axis=0), values.max(axis=0), color=look["color"], alpha=alpha, linewidth=0)
    ax.plot(x, mean, **look)
    return mean


def accuracies(agreement: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draws published accuracies next to ours, with the prediction interval of one more run.

    Args:
        agreement: as `tables.agreement` returns it.
        ax: axes to draw into; new ones by default.

    Returns:
        The axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 0.5 * len(agreement) + 1), layout="constrained")
    seeds = [name for name in agreement if name.startswith("seed ")]
    for height, ((model, _), row) in enumerate(agreement.iterrows()):
        ax.hlines(height, row["low"], row["high"], color=_COLOUR_OF[model], lw=7, alpha=0.3)
        ax.text(103, height, row["outcome"], verticalalignment="center", fontsize="small")
        ax.plot(row[seeds], [height] * len(seeds), "o", color=_COLOUR_OF[model], markersize=6)
        ax.plot(row["published"], height, "D", color="black", markerfacecolor="none", markersize=8)
    ax.set_yticks(range(len(agreement)), [f"{model}, {kind}" for model, kind in agreement.index])
    ax.set(xlabel="test accuracy (%)", xlim=(0, 102))
    ax.invert_yaxis()
    bar = Line2D([], [], color="0.4", linewidth=7, alpha=0.3, label="95% prediction interval of one more run")
    ax.legend(handles=[*_MARKS, bar], ncols=3, loc="upper center", bbox_to_anchor=(0.4, -0.12))
    return ax


def selection(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draws how much higher than the last epoch's accuracy the best epoch's is, a row for each model.

    Args:
        table: as `tables.selection` returns it.
        ax: axes to draw into; new ones by default.

    Returns:
        The axes.
    """
    models = list(dict.fromkeys(table.index.get_level_values("model")))
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 0.6 * len(models) + 1.2), layout="constrained")
    for height, model in enumerate(models):
        rows = table.loc[model, "difference"]
        ours = rows.drop("published")
        apart = np.linspace(-0.3, 0.3, len(ours)) if len(ours) > 1 else [0.0]  # many are zero
        ax.plot(ours, height + np.asarray(apart), "o", color=_COLOUR_OF[model], markersize=6, alpha=0.8)
        ax.plot(rows["published"], height, "D", color="black", markerfacecolor="none", markersize=8)
    ax.set_yticks(range(len(models)), models)
    ax.set(xlabel="best epoch minus last epoch (percentage points)", ylim=(len(models) - 0.5, -0.5))
    ax.figure.legend(handles=_MARKS, loc="outside lower center", ncols=2)
    return ax
