"""Figures of how long models take."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

__all__ = ["cost_by_size", "runtime_ratios"]


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
    sns.move_legend(axes[1], "center left", bbox_to_anchor=(1, 0.5))
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
