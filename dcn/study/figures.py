"""Figures from arrays and records. Nothing here trains, reads or saves."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from dcn.study import published
from dcn.study.config import CONTROLS
from dcn.study.data import SHIFT, ZOOM, Transforms
from dcn.study.records import Record

__all__ = [
    "COLOURS",
    "NAMES",
    "accuracies",
    "as_image",
    "block_changes",
    "controls",
    "cost_by_size",
    "digits",
    "draws",
    "finding",
    "offset_traces",
    "receptive_fields",
    "robustness",
    "runtime_ratios",
    "selection",
    "training_curve",
    "transform_distribution",
    "use_style",
    "validation_curves",
]

_PALETTE = sns.color_palette("colorblind")
NAMES = {
    "cnn": "CNN",
    "deformable_cnn": "deformable CNN",
    "deform_conv_cnn": "CNN with true deformable convolutions",
    "mini_resnet": "mini-ResNet",
    "deformable_mini_resnet": "deformable mini-ResNet",
}
COLOURS = dict(zip(NAMES, (_PALETTE[0], _PALETTE[1], _PALETTE[2], _PALETTE[4], _PALETTE[3]), strict=True))
REGULAR, ACCENT = _PALETTE[0], _PALETTE[1]  # what stays on the grid, what is moved


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
                color=_PALETTE[(7, 9)[axis]],
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
    reference = published.curve(model) if model in published.ACCURACY else None
    for name, key, colour, marker in (
        ("training", "accuracy", "0.35", "s"),
        ("validation", "validation_accuracy", COLOURS[model], "o"),
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
    ax.set(title=NAMES[model], xlabel="epoch", ylabel="accuracy")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.legend()
    return ax


def validation_curves(runs: Mapping[str, Record], ax: Axes | None = None) -> Axes:
    """Draws the validation accuracy of several runs by epoch, each model in its colour.

    Args:
        runs: by what each is called.
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
        epochs, values = _history(record, "validation_accuracy")
        ax.plot(epochs, values, color=COLOURS[model], linestyle=line, marker=marker, label=label)
    ax.set(xlabel="epoch", ylabel="validation accuracy")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return ax


def _history(record: Record, key: str) -> tuple[list[float], list[float]]:
    return [epoch["epoch"] for epoch in record.history], [epoch[key] for epoch in record.history]


def accuracies(agreement: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draws published accuracies beside ours, with the interval in which a published one agrees.

    Args:
        agreement: as `tables.agreement` returns it.
        ax: axes to draw into; new ones by default.

    Returns:
        The axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 0.5 * len(agreement) + 1), layout="constrained")
    colours = {NAMES[model]: colour for model, colour in COLOURS.items()}
    seeds = [name for name in agreement if name.startswith("seed ")]
    for height, ((model, _), row) in enumerate(agreement.iterrows()):
        ax.hlines(
            height,
            row["mean"] - row["tolerance"],
            row["mean"] + row["tolerance"],
            color=colours[model],
            lw=7,
            alpha=0.3,
        )
        ax.plot(row[seeds], [height] * len(seeds), "o", color=colours[model], markersize=6)
        ax.plot(row["published"], height, "D", color="black", markerfacecolor="none", markersize=8)
    ax.set_yticks(range(len(agreement)), [f"{model}, {kind}" for model, kind in agreement.index])
    ax.set(xlabel="test accuracy (%)", xlim=(0, 102))
    ax.invert_yaxis()
    handles = [
        Line2D([], [], marker="D", color="black", markerfacecolor="none", linestyle="", label="published"),
        Line2D([], [], marker="o", color="0.4", linestyle="", label="here, each seed"),
        Line2D([], [], color="0.4", linewidth=7, alpha=0.3, label="agrees within"),
    ]
    ax.legend(handles=handles, ncols=3, loc="upper center", bbox_to_anchor=(0.4, -0.12))
    return ax


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
    heights = np.arange(len(table))
    ax.hlines(heights, table["scaled"], table["plain"], color="0.8", linewidth=3, zorder=1)
    ax.plot(table["plain"], heights, "o", color=REGULAR, markerfacecolor="white", markersize=8, label="plain")
    ax.plot(table["scaled"], heights, "o", color=REGULAR, markersize=8, label="scaled and translated")
    for number, seed in enumerate(name for name in table if name.startswith("seed ")):
        label = "each seed" if number == 0 else None
        ax.plot(table[seed], heights + 0.25, ".", color=REGULAR, markersize=5, label=label)
    label = "published protocol after as many epochs"
    ax.plot(table["as published"], heights, "|", color=ACCENT, markersize=20, markeredgewidth=2.5, label=label)
    ax.set_yticks(heights, [f"{name}\nepochs: {row.epochs:.0f}" for name, row in table.iterrows()])
    ax.set(xlabel="test accuracy (%)", xlim=(min(50, table[["plain", "scaled"]].min().min() - 2), 101))
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    return ax


def finding(table: pd.DataFrame, plain: np.ndarray, moved: np.ndarray) -> Figure:
    """Draws the report's finding in one picture: digits, and how well scaled ones are read with and without the layer.

    Args:
        table: as `tables.controls` returns it.
        plain: (N, H, W), values from 0 to 1.
        moved: (N, H, W), the same images scaled and translated.

    Returns:
        The figure.
    """
    shown = {
        "cnn": "CNN, trained on\nplain digits",
        "deformable_cnn": "with the new layer,\ntrained on scaled digits",
        "cnn_batch_norm": "without it, trained\nin the same way",
        "cnn_scaled": "without it,\nall weights trained",
    }
    figure = plt.figure(figsize=(6.8, 2.7), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 2.4))[0]
    axes = left.subplots(2, len(plain))
    for row, (images, name) in enumerate(((plain, "plain"), (moved, "scaled"))):
        for ax, image in zip(axes[row], images, strict=True):
            ax.imshow(image, cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        axes[row, 0].set_ylabel(name)
    ax = right.subplots()
    values = [table.loc[CONTROLS[run], "scaled"] for run in shown]
    colours = [COLOURS["deformable_cnn" if run == "deformable_cnn" else "cnn"] for run in shown]
    ax.barh(range(len(shown)), values, color=colours, height=0.65)
    for height, value in enumerate(values):
        letters = "black" if colours[height] == COLOURS["deformable_cnn"] else "white"
        ax.text(3, height, f"{value:.1f} %", color=letters, verticalalignment="center")
        run = list(shown)[height]
        if run in published.ACCURACY:
            theirs = 100 * published.ACCURACY[run]["scaled"]
            ax.plot(theirs, height, "D", color="black", markerfacecolor="white", markersize=7)
    ax.set_yticks(range(len(shown)), shown.values())
    ax.set(xlabel="scaled digits read (%)", xlim=(0, 112), ylim=(len(shown) - 0.5, -0.5), xticks=range(0, 101, 20))
    ax.annotate("published", (published.ACCURACY["cnn"]["scaled"] * 100 + 5, 0), fontsize="small", va="center")
    ax.grid(axis="y", visible=False)
    return figure


def as_image(figure: Figure, alternative: str) -> str:
    """Returns HTML that shows a figure, vector graphics in a single tag, where a page cannot show the figure itself.

    Args:
        figure: any figure; it is closed.
        alternative: what it shows, in words.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    content = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="finding" alt="{html.escape(alternative)}" src="data:image/svg+xml;base64,{content}">'


def draws(
    accuracies: Mapping[str, Mapping[str, Sequence[float]]],
    generators: Mapping[str, str],
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Draws the accuracy on each scaled test set, a panel for each model, with the published one as a diamond.

    Args:
        accuracies: model → generator → one accuracy a draw, as `sensitivity.sensitivity` returns them.
        generators: what each is called.
        axes: as many axes as models; new ones by default.

    Returns:
        The axes.
    """
    if axes is None:
        size = (8, 1.75 * len(accuracies))
        axes = plt.subplots(len(accuracies), 1, figsize=size, squeeze=False, layout="constrained")[1].ravel()
    for ax, (model, by_generator) in zip(axes, accuracies.items(), strict=True):
        for height, values in enumerate(by_generator.values()):
            ax.plot(100 * np.asarray(values), [height] * len(values), "o", color=COLOURS[model], alpha=0.7)
        theirs = 100 * published.ACCURACY[model]["scaled"]
        ax.plot(theirs, len(by_generator), "D", color="black", markerfacecolor="none", markersize=8)
        ax.set_yticks(range(len(by_generator) + 1), [*(generators[name] for name in by_generator), "published"])
        ax.set(title=NAMES[model], ylim=(len(by_generator) + 0.5, -0.5))
    axes[-1].set_xlabel("accuracy on scaled and translated test digits (%)")
    return axes


def selection(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draws the accuracy after the last and after the best epoch of every run, joined by a line.

    Args:
        table: as `tables.selection` returns it.
        ax: axes to draw into; new ones by default.

    Returns:
        The axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 0.3 * len(table) + 1), layout="constrained")
    colours = {NAMES[model]: colour for model, colour in COLOURS.items()}
    for height, ((model, _), row) in enumerate(table.iterrows()):
        ax.plot([row["last"], row["best"]], [height] * 2, color=colours[model], linewidth=3, alpha=0.4)
        ax.plot(row["last"], height, "o", color=colours[model], markersize=7)
        ax.plot(row["best"], height, "^", color=colours[model], markerfacecolor="white", markersize=7)
    ax.set_yticks(range(len(table)), [f"{model}, {run}" for model, run in table.index])
    ax.set(xlabel="validation accuracy (%)", xlim=(0, 102), ylim=(len(table) - 0.5, -0.5))
    handles = [
        Line2D([], [], marker="o", color="0.4", linestyle="", label="last epoch"),
        Line2D([], [], marker="^", color="0.4", markerfacecolor="white", linestyle="", label="best epoch"),
    ]
    ax.figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return ax


def robustness(measured: Mapping[str, Any], axes: np.ndarray | None = None) -> np.ndarray:
    """Draws a map of accuracy for each model: zoom downwards, shift to the right.

    Args:
        measured: as `robustness.robustness` returns it.
        axes: as many axes as models; new ones by default.

    Returns:
        The axes.
    """
    accuracies = measured["accuracies"]
    if axes is None:
        rows = (len(accuracies) + 1) // 2
        size = (8, 3.2 * rows)
        axes = plt.subplots(rows, 2, figsize=size, squeeze=False, sharex=True, sharey=True, layout="constrained")[
            1
        ].ravel()
    for ax, (model, values) in zip(axes, accuracies.items(), strict=True):
        drawn = ax.imshow(100 * np.asarray(values), cmap="viridis", vmin=0, vmax=100, aspect="auto")
        every = slice(None, None, max(1, len(measured["shifts"]) // 4))
        ax.set_xticks(range(len(measured["shifts"]))[every], [f"{shift:.1f}" for shift in measured["shifts"][every]])
        ax.set_yticks(range(len(measured["zooms"])), [f"{zoom:.2f}" for zoom in measured["zooms"]])
        ax.grid(False)
        ax.set_title(NAMES[model])
    axes[0].figure.supxlabel("shift (pixels)", fontsize="medium")
    axes[0].figure.supylabel("zoom factor", fontsize="medium")
    axes[0].figure.colorbar(drawn, ax=list(axes), label="test accuracy (%)")
    return axes


def block_changes(found: Mapping[tuple[str, str], Mapping[str, Any]], axes: np.ndarray | None = None) -> np.ndarray:
    """Draws how much one channel of a residual block's output changes when one of its kernels is disturbed.

    Args:
        found: as `blocks.disturb` returns it.
        axes: as many axes as cases; new ones by default.

    Returns:
        The axes.
    """
    if axes is None:
        size = (2.3 * len(found), 2.7)
        axes = plt.subplots(1, len(found), figsize=size, squeeze=False, layout="constrained")[1].ravel()
    highest = max(effect["change"].max() for effect in found.values())
    for ax, ((form, name), effect) in zip(axes, found.items(), strict=True):
        drawn = ax.imshow(effect["change"], cmap="viridis", vmin=0, vmax=highest)
        ax.set(title=f"{form},\n{name} convolution", xticks=[], yticks=[])
        ax.grid(False)
    axes[0].figure.colorbar(drawn, ax=list(axes), label="|change|")
    return axes


def receptive_fields(
    image: np.ndarray,
    points: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    axes: np.ndarray | None = None,
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
        for ax, (layer, (places, paths)) in zip(row, by_layer.items(), strict=True):
            ax.imshow(image, cmap="gray_r", vmin=0, vmax=1.6)
            strength = 0.25 + 0.75 * paths / paths.max()
            ax.scatter(places[:, 1], places[:, 0], s=10, color=COLOURS[model], alpha=strength, lw=0)
            ax.set(xlim=(low[1], high[1]), ylim=(high[0], low[0]), xticks=[], yticks=[])
            ax.grid(False)
            if number == 0:
                ax.set_title(f"one output of {layer}")
        row[0].set_ylabel(NAMES[model].replace(" with ", "\nwith ").replace("true deformable ", "true deformable\n"))
    return axes


def offset_traces(traces: Mapping[str, Mapping[str, Any]], axes: np.ndarray | None = None) -> np.ndarray:
    """Draws the largest gradient and the largest weight of every offset kernel, step by step.

    Args:
        traces: as `audit.trace_offsets` returns them.
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
                ax.plot(steps, values[quantity], color=_PALETTE[(2, 4, 9)[number % 3]], linewidth=1.2, label=layer)
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


def runtime_ratios(times: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Draws how many times as long as its regular model each model takes: forward passes, then training steps.

    Args:
        times: rows "model" (as `runtime.CONTESTANTS` names them), "batch", "size", "what", "ratio"; one image size.
        axes: two axes to draw into; new ones by default.

    Returns:
        The two axes.
    """
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True, layout="constrained")
    for ax, what in zip(axes, ("forward", "training step"), strict=True):
        shown, legend = times[times["what"] == what], what == "training step"
        sns.barplot(shown, y="model", x="ratio", hue="batch", palette="crest", legend=legend, ax=ax)
        ax.axvline(1, color="black", linewidth=1)
        ax.set(xscale="log", xlabel="times the regular model's", ylabel="", title=what)
        ticks = [tick for tick in (1, 2, 5, 10, 20, 50) if tick <= 1.1 * times["ratio"].max()]
        ax.set_xticks(ticks, [f"{tick}" for tick in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
    return axes


def cost_by_size(times: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Draws the time of forward passes and training steps against the side of the image, with quartiles.

    Args:
        times: rows "model", "size", "what", "low", "milliseconds", "high"; one batch size.
        axes: two axes to draw into; new ones by default.

    Returns:
        The two axes.
    """
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True, layout="constrained")
    colours = sns.color_palette("colorblind", times["model"].nunique())
    for ax, what in zip(axes, ("forward", "training step"), strict=True):
        for (model, rows), colour in zip(
            times[times["what"] == what].groupby("model", sort=False), colours, strict=True
        ):
            spread = [rows["milliseconds"] - rows["low"], rows["high"] - rows["milliseconds"]]
            ax.errorbar(rows["size"], rows["milliseconds"], spread, color=colour, marker="o", capsize=3, label=model)
        ax.set(xscale="log", yscale="log", xlabel="side of the image (pixels)", title=what)
        ax.set_xticks(sorted(times["size"].unique()), [str(size) for size in sorted(times["size"].unique())])
        ax.xaxis.set_minor_locator(NullLocator())
    axes[0].set_ylabel("milliseconds")
    axes[1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return axes
