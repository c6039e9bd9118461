"""Figures of how long models take."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from dcn_study.show.figures.ends import label_ends
from dcn_study.show.figures.style import COLOURS

__all__ = ["cost_by_size", "runtime_ratios"]

# The networks whose cost is drawn against the size of the image, by what the measurement calls them: label and colour.
SHOWN = {
    "CNN": ("CNN", COLOURS["cnn"]),
    "deformable CNN, published code": ("deformable CNN,\npublished code", COLOURS["deformable_cnn"]),
    "CNN with DeformableConv2D": ("true deformable\nconvolutions", COLOURS["deform_conv_cnn"]),
}


def runtime_ratios(times: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Draws how many times as long as its regular model each model takes, with quartiles: forward passes, then steps.

    Args:
        times: rows "model" (as `runtime.CONTESTANTS` names them), "batch", "size", "what", "low", "milliseconds",
            "high", "ratio"; one image size.
        axes: two axes to draw into; new ones by default.

    Returns:
        The two axes.
    """
    models, batches = list(dict.fromkeys(times["model"])), sorted(times["batch"].unique())
    if axes is None:
        size = (9, 0.45 * len(models) + 1.4)
        _, axes = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    for ax, what in zip(axes, ("forward", "training step"), strict=True):
        for number, batch in enumerate(batches):
            shown = times[(times["what"] == what) & (times["batch"] == batch)]
            heights = [models.index(model) + 0.22 * (number - (len(batches) - 1) / 2) for model in shown["model"]]
            unit = shown["milliseconds"] / shown["ratio"]
            spread = [shown["ratio"] - shown["low"] / unit, shown["high"] / unit - shown["ratio"]]
            label, colour = f"batch {batch}" if ax is axes[0] else None, str(0.6 - 0.2 * min(number, 3))
            line = ax.errorbar(shown["ratio"], heights, xerr=spread, fmt="os^D"[number % 4], color=colour, label=label)
            line[0].set_markersize(4.5)
        ax.axvline(1, color="black", linewidth=1)
        ax.set(xscale="log", xlabel="times the regular model's", title=what, ylim=(len(models) - 0.5, -0.5))
        ticks = [tick for tick in (1, 2, 5, 10, 20, 50) if tick <= 1.1 * times["ratio"].max()]
        ax.set_xticks(ticks, [f"{tick}" for tick in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
    axes[0].set_yticks(range(len(models)), models)
    axes[0].figure.legend(loc="outside lower center", ncols=len(batches), fontsize="small")
    return axes


def cost_by_size(times: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Draws the time of forward passes and training steps of three CNNs against the side of the image, with quartiles.

    Args:
        times: rows "model", "size", "what", "low", "milliseconds", "high"; one batch size.
        axes: two axes to draw into; new ones by default.

    Returns:
        The two axes.
    """
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for ax, what in zip(axes, ("forward", "training step"), strict=True):
        ends = []
        for marker, (model, (label, colour)) in zip("os^", SHOWN.items(), strict=True):
            rows = times[(times["what"] == what) & (times["model"] == model)]
            if rows.empty:
                continue
            spread = [rows["milliseconds"] - rows["low"], rows["high"] - rows["milliseconds"]]
            ax.errorbar(rows["size"], rows["milliseconds"], spread, color=colour, marker=marker, capsize=3)
            ends.append((label, rows["milliseconds"].iloc[-1], colour))
        ax.set(xscale="log", yscale="log", xlabel="side of the image (pixels)", title=what)
        ax.set_xticks(sorted(times["size"].unique()), [str(size) for size in sorted(times["size"].unique())])
        ax.xaxis.set_minor_locator(NullLocator())
    label_ends(axes[1], ends, 0.12)
    axes[0].set_ylabel("milliseconds")
    return axes
