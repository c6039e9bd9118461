"""Figures of the digits and of the accuracies of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from dcn_study.names import ARMS, MODELS
from dcn_study.runs import published
from dcn_study.runs.records import Record
from dcn_study.runs.transforms import SHIFT, ZOOM, Transforms
from dcn_study.show.figures.style import COLOURS, PALETTE

__all__ = ["accuracies", "digits", "selection", "training_curve", "transform_distribution", "validation_curves"]

_COLOUR_OF = {MODELS[model]: colour for model, colour in COLOURS.items()}


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


def transform_distribution(
    transforms: Transforms, side: int = 28, axes: Sequence[Axes] | None = None
) -> Sequence[Axes]:
    """Draws histograms of the sampled zooms and shifts, by axis, with the density of their distribution.

    Args:
        transforms: the drawn parameters.
        side: side of an image in pixels.
        axes: two axes to draw into; new ones by default.

    Returns:
        The two axes.
    """
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    bounds = (ZOOM, (-SHIFT * side, SHIFT * side))
    titles = ("zoom factor (above 1 shrinks)", "shift (pixels)")
    for ax, values, (low, high), title in zip(axes, (transforms.zoom, transforms.shift), bounds, titles, strict=True):
        for axis, name in enumerate(("vertical", "horizontal")):
            ax.hist(
                values[:, axis],
                bins=np.linspace(low, high, 26),
                density=True,
                histtype="step",
                color=PALETTE[(7, 9)[axis]],
                linewidth=1.5,
                label=name,
            )
        ax.hlines(1 / (high - low), low, high, color="black", linestyle="--", linewidth=1, label="density")
        ax.set(xlabel=title, ylabel="probability density", ylim=(0, 1.4 / (high - low)))
    axes[0].legend(ncols=3, loc="lower center")
    return axes


def training_curve(record: Record, others: Sequence[Record] = (), ax: Axes | None = None) -> Axes:
    """Draws training and validation accuracy by epoch: ours solid, the paper's dashed.

    Args:
        record: of the run.
        others: the same run with other seeds, or what stands in for it: thin lines.
        ax: axes to draw into; new ones by default.

    Returns:
        The axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    model = record.config.model
    reference = published.curve(model) if published.accuracies(record.config) else None
    for name, key, colour, marker in (
        ("training", "accuracy", "0.35", "s"),
        ("validation", "validation_accuracy", COLOURS.get(model, PALETTE[5]), "o"),
    ):
        for number, other in enumerate(others):
            label = f"{name}, other seeds" if number == 0 else None
            ax.plot(*_history(other, key), color=colour, linewidth=0.9, alpha=0.8, label=label)
        ax.plot(*_history(record, key), color=colour, marker=marker, markersize=5, label=f"{name}, this run")
        if reference is not None:
            ax.plot(
                reference["epoch"],
                reference["train_accuracy" if name == "training" else key],
                color=colour,
                linestyle="--",
                marker=marker,
                markerfacecolor="white",
                markersize=4,
                label=f"{name}, published",
            )
    ax.set(title=MODELS.get(model) or ARMS.get(model, model), xlabel="epoch", ylabel="accuracy")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.legend()
    return ax


def validation_curves(
    runs: Mapping[str, Record], others: Mapping[str, Sequence[Record]] | None = None, ax: Axes | None = None
) -> Axes:
    """Draws the validation accuracy of several runs by epoch, each model in its colour.

    Args:
        runs: by what each is called.
        others: the same runs with other seeds, by the same names: thin lines.
        ax: axes to draw into; new ones by default.

    Returns:
        The axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 4), layout="constrained")
    of_model: dict[str, int] = {}
    for label, record in runs.items():
        model = record.config.model
        number = of_model[model] = of_model.get(model, -1) + 1
        line, marker = ("-", "--", "-.", ":")[number % 4], "os^D"[number % 4]
        ax.plot(
            *_history(record, "validation_accuracy"), color=COLOURS[model], linestyle=line, marker=marker, label=label
        )
        for other in (others or {}).get(label, ()):
            ax.plot(*_history(other, "validation_accuracy"), color=COLOURS[model], linestyle=line, linewidth=0.7)
    ax.set(xlabel="epoch", ylabel="validation accuracy")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return ax


def _history(record: Record, key: str) -> tuple[list[float], list[float]]:
    return [epoch.epoch for epoch in record.history], [getattr(epoch, key) for epoch in record.history]


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
    handles = [
        Line2D([], [], marker="D", color="black", markerfacecolor="none", linestyle="", label="published"),
        Line2D([], [], marker="o", color="0.4", linestyle="", label="here, each seed"),
        Line2D([], [], color="0.4", linewidth=7, alpha=0.3, label="95% prediction interval of one more run"),
    ]
    ax.legend(handles=handles, ncols=3, loc="upper center", bbox_to_anchor=(0.4, -0.12))
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
    handles = [
        Line2D([], [], marker="D", color="black", markerfacecolor="none", linestyle="", label="published"),
        Line2D([], [], marker="o", color="0.4", linestyle="", label="here, each seed"),
    ]
    ax.figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return ax
