"""Figures from arrays and records. Nothing here trains, reads or saves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from dcn.study import published
from dcn.study.data import SHIFT, ZOOM, Transforms
from dcn.study.records import Record

__all__ = ["COLOURS", "NAMES", "digits", "training_curve", "transform_distribution", "use_style"]

_PALETTE = sns.color_palette("colorblind")
NAMES = {"cnn": "CNN", "deformable_cnn": "deformable CNN"}
COLOURS = {"cnn": _PALETTE[0], "deformable_cnn": _PALETTE[1]}


def use_style() -> None:
    """Sets the look of the book's figures and tables: vector graphics, one size of type, no cell cut short."""
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    sns.set_theme(context="notebook", style="whitegrid")
    plt.rcParams.update({"svg.fonttype": "path", "svg.hashsalt": "dcn", "figure.dpi": 100, "axes.titlesize": 11})
    set_matplotlib_formats("svg")
    pd.set_option("display.max_colwidth", None)


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
    """Draws how often each zoom and each shift was drawn, by axis, beside the density they are drawn from.

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
                color=_PALETTE[2 + axis],
                linewidth=1.5,
                label=name,
            )
        ax.hlines(1 / (high - low), low, high, color="black", linestyle="--", linewidth=1, label="density")
        ax.set(xlabel=title, ylabel="probability density", ylim=(0, 1.4 / (high - low)))
    axes[0].legend(ncols=3, loc="lower center")
    return axes


def training_curve(record: Record, ax: Axes | None = None) -> Axes:
    """Draws training and validation accuracy by epoch: ours solid, the paper's dashed.

    Args:
        record: of the run.
        ax: axes to draw into; new ones by default.

    Returns:
        The axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    model = record.config.model
    reference = published.curve(model)
    epochs = [epoch["epoch"] for epoch in record.history]
    for name, key, colour, marker in (
        ("training", "accuracy", "0.35", "s"),
        ("validation", "validation_accuracy", COLOURS[model], "o"),
    ):
        ours = [epoch[key] for epoch in record.history]
        theirs = reference["train_accuracy" if name == "training" else key]
        ax.plot(epochs, ours, color=colour, marker=marker, markersize=5, label=f"{name}, this run")
        ax.plot(
            reference["epoch"],
            theirs,
            color=colour,
            linestyle="--",
            marker=marker,
            markerfacecolor="white",
            markersize=4,
            label=f"{name}, published",
        )
    ax.set(title=NAMES[model], xlabel="epoch", ylabel="accuracy")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.legend()
    return ax
