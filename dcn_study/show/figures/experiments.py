"""Figures of the experiments on trained networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dcn_study.experiments.statistics import interval
from dcn_study.names import CONTROLS, MODELS
from dcn_study.runs import published
from dcn_study.runs.catalogue import RUNS
from dcn_study.show.figures.style import COLOURS, colour_of

__all__ = ["controls", "draws", "effective_fields", "finding", "offset_traces", "receptive_fields", "robustness"]

_RUN_OF = {name: run for run, name in CONTROLS.items()}


def controls(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draws the accuracies of the controls on plain and on scaled digits, from 50 to 100 percent or from the lowest.

    Args:
        table: as `tables.controls` returns it.
        ax: axes to draw into; new ones by default.

    Returns:
        The axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 0.6 * len(table) + 1.2), layout="constrained")
    heights, colours = np.arange(len(table)), [colour_of(_RUN_OF[name]) for name in table.index]
    seeds = [name for name in table if name.startswith("seed ")]
    for height, (colour, (_, row)) in enumerate(zip(colours, table.iterrows(), strict=True)):
        ax.plot([row["scaled"], row["plain"]], [height] * 2, color="0.85", linewidth=3, zorder=1)
        ax.plot(row["plain"], height, "o", color=colour, markerfacecolor="white", markersize=8)
        ax.plot(row["scaled"], height, "o", color=colour, markersize=8)
        ax.plot(row[seeds], [height + 0.27] * len(seeds), ".", color=colour, markersize=4)
    ax.plot(table["scaled, published protocol"], heights, "|", color="black", markersize=18, markeredgewidth=2)
    epochs = table["epochs on scaled digits"].items()
    ax.set_yticks(heights, [f"{name}\n{count:.0f} epochs on scaled digits" for name, count in epochs])
    ax.set(xlabel="test accuracy (%)", xlim=(min(50, table[["plain", "scaled"]].min().min() - 2), 101))
    ax.set_ylim(len(table) - 0.5, -0.5)
    return ax


def finding(table: pd.DataFrame, plain: np.ndarray, moved: np.ndarray, *, narrow: bool = False) -> Figure:
    """Draws the report's finding in one picture: digits, and how many scaled ones networks recognise.

    A dot is a seed, an open one a stand-in, a square the mean with its 95% interval, a diamond the published accuracy.

    Args:
        table: as `tables.controls` returns it.
        plain: (N, H, W), values from 0 to 1.
        moved: (N, H, W), the same images scaled and translated.
        narrow: whether for the screen of a phone.

    Returns:
        The figure.
    """
    shown = {
        "cnn": "CNN, trained on\nplain digits",
        "deformable_cnn": "with the new layer,\ntrained on scaled digits",
        "cnn_batch_norm": "without it, trained\nin the same way",
        "cnn_scaled": "without it,\nall weights trained",
    }
    figure = plt.figure(figsize=(4.3, 5.4) if narrow else (7.4, 3.1), layout="constrained")
    if narrow:
        parts = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.4))
    else:
        parts = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 2.6))
    left, right = parts.ravel()
    axes = left.subplots(2, len(plain))
    for row, (images, name) in enumerate(((plain, "plain"), (moved, "scaled"))):
        for ax, image in zip(axes[row], images, strict=True):
            ax.imshow(image, cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        axes[row, 0].set_ylabel(name)
    ax = right.subplots()
    names = []
    for height, (run, name) in enumerate(shown.items()):
        row, colour = table.loc[CONTROLS[run]], colour_of(run)
        values = row[[column for column in table if column.startswith("seed ")]].dropna().to_numpy(float)
        stand_in = RUNS[run].stand_in
        first = stand_in[1] if stand_in else len(values)
        heights = np.full(len(values), height + 0.17)
        ax.plot(values[first:], heights[first:], "o", color=colour, markersize=4, fillstyle="none")
        ax.plot(values[:first], heights[:first], "o", color=colour, markersize=4, alpha=0.7)
        mean = interval(values)
        half = mean.half if len(values) > 1 else 0.0
        ax.errorbar(mean.mean, height - 0.13, xerr=half, fmt="s", color=colour, capsize=3)
        ax.text(1.02, height, f"{mean.mean:.1f}", transform=ax.get_yaxis_transform(), va="center")
        if run in published.ACCURACY:
            theirs = 100 * published.ACCURACY[run]["scaled"]
            ax.plot(theirs, height - 0.13, "D", color="black", markerfacecolor="none", markersize=8)
        trained = row["epochs on scaled digits"]
        epochs = f", {trained:.0f} epochs" if trained else ""
        names.append(f"{name}\n{len(values)} seeds{epochs}")
    ax.set_yticks(range(len(shown)), names, fontsize="small")
    ax.set(xlabel="scaled digits recognised (%)", ylim=(len(shown) - 0.5, -0.5))
    ax.set_xlim(right=101)  # an interval of three seeds reaches beyond
    ax.xaxis.set_major_locator(MaxNLocator(6))
    return figure


def offset_traces(traces: Mapping[str, Mapping[str, Any]], axes: np.ndarray | None = None) -> np.ndarray:
    """Draws the largest gradient and the largest weight of every offset kernel, step by step.

    Args:
        traces: the result of `offsets.trace_offsets`.
        axes: (2, traces) axes to draw into; new ones by default.

    Returns:
        The axes.
    """
    if axes is None:
        size = (2.6 * len(traces), 5)
        _, axes = plt.subplots(2, len(traces), figsize=size, sharex=True, sharey="row", layout="constrained")
    for column, (name, trace) in zip(axes.T, traces.items(), strict=True):
        for ax, quantity in zip(column, ("gradient", "kernel"), strict=True):
            for number, (layer, values) in enumerate(trace["layers"].items()):
                steps = np.arange(1, len(values[quantity]) + 1)
                line = ("-", "--", ":")[number % 3]
                ax.plot(steps, values[quantity], line, color="0.2", linewidth=1.2, label=layer)
            ax.set_yscale("symlog", linthresh=1e-6)
        column[0].set_title(name.replace(" and ", "\nand "))
        column[1].set_xlabel("training step")
    for row in axes:  # shared within a row; a line of zeros would lie on the frame
        top = max(float(np.max(line.get_ydata())) for ax in row for line in ax.get_lines())
        row[0].set_ylim(-2e-7, max(3 * top, 1e-5))
    axes[0, 0].set_ylabel("largest |gradient|")
    axes[1, 0].set_ylabel("largest |offset kernel|")
    axes[0, -1].legend(fontsize="small")
    return axes


def receptive_fields(
    image: np.ndarray, points: Mapping[str, Mapping[str, Sequence[Any]]], axes: np.ndarray | None = None
) -> np.ndarray:
    """Draws, over an image, the points that one output depends on: a row for each model, a column for each layer.

    Args:
        image: (H, W), values from 0 to 1.
        points: model → layer → (points, paths), as `receptive_field.sampling_points` returns them.
        axes: (models, layers) axes to draw into; new ones by default.

    Returns:
        The axes.
    """
    rows, columns = len(points), len(next(iter(points.values())))
    if axes is None:
        size = (2.5 * columns, 2.65 * rows)
        _, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    everything = np.concatenate([places for by_layer in points.values() for places, _ in by_layer.values()])
    low, high = np.minimum(everything.min(axis=0), 4) - 2, np.maximum(everything.max(axis=0), image.shape[0] - 5) + 2
    for number, (row, (model, by_layer)) in enumerate(zip(axes, points.items(), strict=True)):
        for ax, (layer, found) in zip(row, by_layer.items(), strict=True):
            places, paths = map(np.asarray, found)
            ax.imshow(image, cmap="gray_r", vmin=0, vmax=1.6)
            strength = 0.25 + 0.75 * paths / paths.max()
            ax.scatter(places[:, 1], places[:, 0], s=10, color=COLOURS[model], alpha=strength, lw=0)
            ax.set(xlim=(low[1], high[1]), ylim=(high[0], low[0]), xticks=[], yticks=[])
            ax.grid(False)
            if number == 0:
                ax.set_title(f"one output of {layer}")
        row[0].set_ylabel(_on_lines(MODELS[model]))
    return axes


def _on_lines(name: str) -> str:
    """Returns the name of a network on as many lines as the height of a small picture needs."""
    return name.replace(" with ", "\nwith ").replace("true deformable ", "true deformable\n")


def draws(
    accuracies: Mapping[str, Mapping[str, Sequence[float]]],
    generators: Mapping[str, str],
    seeds: Mapping[str, Sequence[float]],
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Draws the accuracy on each scaled test set, a panel for each model, with the published one as a diamond.

    Args:
        accuracies: model → generator → one accuracy per draw, as `sensitivity.sensitivity` measures them.
        generators: what each is called.
        seeds: model → one accuracy per seed of its runs, on one test set: open circles.
        axes: as many axes as models; new ones by default.

    Returns:
        The axes.
    """
    if axes is None:
        size = (8, 2 * len(accuracies))
        axes = plt.subplots(len(accuracies), 1, figsize=size, squeeze=False, layout="constrained")[1].ravel()
    for ax, (model, by_generator) in zip(axes, accuracies.items(), strict=True):
        for height, values in enumerate(by_generator.values()):
            ax.plot(100 * np.asarray(values), [height] * len(values), "o", color=COLOURS[model], alpha=0.7)
        labels = [*(generators[name] for name in by_generator), "each seed, one test set", "published"]
        height, by_seed = len(by_generator), 100 * np.asarray(seeds[model])
        ax.plot(by_seed, [height] * len(by_seed), "o", color=COLOURS[model], fillstyle="none")
        theirs = 100 * published.ACCURACY[model]["scaled"]
        ax.plot(theirs, height + 1, "D", color="black", markerfacecolor="none", markersize=8)
        ax.set_yticks(range(len(labels)), labels)
        ax.set(title=MODELS[model], ylim=(len(labels) - 0.5, -0.5))
    axes[-1].set_xlabel("accuracy on scaled and translated test digits (%)")
    return axes


def robustness(measured: Mapping[str, Any], axes: np.ndarray | None = None) -> np.ndarray:
    """Draws a map of accuracy for each model: smaller digits below, those shifted to the right on the right.

    Args:
        measured: the results of `robustness.robustness`.
        axes: as many axes as models; new ones by default.

    Returns:
        The axes.
    """
    accuracies = measured["accuracies"]
    if axes is None:
        rows = (len(accuracies) + 1) // 2
        figure = plt.figure(figsize=(8, 3.2 * rows), layout="constrained")
        axes = figure.subplots(rows, 2, squeeze=False, sharex=True, sharey=True).ravel()
    for ax, (model, values) in zip(axes, accuracies.items(), strict=True):
        drawn = ax.imshow(100 * np.asarray(values), cmap="viridis", vmin=0, vmax=100, aspect="auto")
        every = slice(None, None, max(1, len(measured["shifts"]) // 4))
        ax.set_xticks(range(len(measured["shifts"]))[every], [f"{shift:.1f}" for shift in measured["shifts"][every]])
        ax.set_yticks(range(len(measured["zooms"])), [f"{1 / zoom:.2f}" for zoom in measured["zooms"]])
        ax.grid(False)
        ax.set_title(MODELS[model])
    axes[0].figure.supxlabel("shift (pixels)", fontsize="medium")
    axes[0].figure.supylabel("scale of the digit", fontsize="medium")
    axes[0].figure.colorbar(drawn, ax=list(axes), label="test accuracy (%)")
    return axes


def effective_fields(fields: Mapping[str, Mapping[str, np.ndarray]]) -> list[Axes]:
    """Draws effective receptive fields, one row per network, one column per way of measuring.

    Args:
        fields: network → way → (H, W), non-negative, as `receptive_field.gradient_field` returns them.

    Returns:
        The axes, row by row.
    """
    ways = list(next(iter(fields.values())))
    _, axes = plt.subplots(
        len(fields), len(ways), figsize=(3 * len(ways) + 1, 3 * len(fields)), squeeze=False, layout="constrained"
    )
    for row, (network, found) in zip(axes, fields.items(), strict=True):
        for ax, (way, field) in zip(row, found.items(), strict=True):
            ax.imshow(np.sqrt(field / field.max()), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[], title=way)
        row[0].set_ylabel(_on_lines(MODELS.get(network, network)))
    return list(axes.ravel())
