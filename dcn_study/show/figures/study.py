"""Figures of the study on MNIST-Scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dcn_study.experiments.statistics import interval
from dcn_study.experiments.study import SMALLEST, Comparison, arm_label
from dcn_study.names import ARMS, TEST_IMAGES
from dcn_study.runs.records import Record
from dcn_study.show.figures.ends import label_ends
from dcn_study.show.figures.style import Colour, colour_of

__all__ = [
    "accuracy_and_cost",
    "answer",
    "beyond_training",
    "by_size",
    "differences",
    "field_and_accuracy",
    "moved_bins",
    "replaced_offsets",
]

MARKERS = "osD^vP*X"
SHORT = {"deform_conv_cnn": "deformable", "shared_offsets_cnn": "same offsets for all"}


def answer(found: Mapping[str, Mapping[str, Mapping[int, float]]]) -> np.ndarray:
    """Draws the study's answer in one picture: who classifies how many of the digits, on two test sets.

    Args:
        found: title of a test set → run → realisation → accuracy in percent; the same runs for both.

    Returns:
        The axes.
    """
    shown = {
        "scale_cnn": "CNN",
        "scale_shared_offsets_cnn": "deformable, same\noffsets for all images",
        "scale_deform_conv_cnn": "deformable",
        "scale_transformer_cnn": "CNN behind a\nspatial transformer",
        "rescaled_cnn": "CNN, augmented",
        "rescaled_deform_conv_cnn": "deformable, augmented",
    }
    _, axes = plt.subplots(1, len(found), figsize=(7.6, 3.1), squeeze=False, sharey=True, layout="constrained")
    for ax, (title, accuracies) in zip(axes[0], found.items(), strict=True):
        for height, run in enumerate(shown):
            values = list(accuracies[run].values())
            _values(ax, height, values, colour_of(run))
            ax.text(1.02, height, f"{np.mean(values):.2f}", transform=ax.get_yaxis_transform(), va="center")
        ax.set(title=title, xlabel="digits recognised (%)")
        ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.set_yticks(range(len(shown)), shown.values())
    ax.set_ylim(len(shown) - 0.5, -0.5)
    return axes[0]


def differences(
    compared: Mapping[str, Comparison],
    smallest: float = SMALLEST,
    others: Mapping[str, Comparison] | None = None,
) -> Axes:
    """Draws the primary contrasts: each pair's difference, and for two pairs or more their mean with its interval.

    Verdicts stand on the right once there are any.

    Args:
        compared: as `study.compared` returns it.
        smallest: the smallest effect of interest, in percentage points.
        others: the same contrasts at other learning rates; their means are open.

    Returns:
        The axes.
    """
    _, ax = plt.subplots(figsize=(8, 0.6 * len(compared) + 1.2), layout="constrained")
    ax.axvspan(-smallest, smallest, color="0.9", zorder=0, label="too small to matter")
    ax.axvline(0, color="0.5", linewidth=1)
    for height, (name, each) in enumerate(compared.items()):
        colour = colour_of(each.runs[0])
        _values(ax, height, each.differences, colour)
        if each.contrast:
            ax.text(1.02, height, each.contrast.verdict, transform=ax.get_yaxis_transform(), va="center")
        if others and len(others[name].differences) > 1:
            _mean(ax, height - 0.32, others[name].differences, colour, markerfacecolor="white")
    if others:
        ax.plot([], [], "o", color="0.3", markerfacecolor="white", label="at other learning rates")
    ax.set_yticks(range(len(compared)), compared)
    ax.set(xlabel="difference in accuracy, A - B (percentage points)", ylim=(len(compared) - 0.5, -0.5))
    ax.figure.legend(loc="outside lower center", fontsize="small")
    return ax


def field_and_accuracy(
    found: Mapping[str, Mapping[int, Record]], others: Mapping[str, Mapping[int, Record]] | None = None
) -> np.ndarray:
    """Draws the effective receptive field of each run against its accuracy on scaled digits, a panel by kind of digits.

    Args:
        found: arm → realisation → record; those without `field_areas` are left out.
        others: the same of the same arms at other learning rates, drawn open.

    Returns:
        The two axes: the field on plain and on scaled digits.
    """
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.8), sharey=True, layout="constrained")
    for ax, (kind, label) in zip(axes, TEST_IMAGES.items(), strict=True):
        for number, (arm, runs) in enumerate(found.items()):
            colour = colour_of(arm)
            for drawn, fill in ((runs, colour), ((others or {}).get(arm, {}), "white")):
                points = [
                    (record.field_areas[kind], 100 * record.evaluations["scaled"].accuracy)
                    for record in drawn.values()
                    if record.field_areas
                ]
                if points:
                    name = arm_label(arm) if ax is axes[0] and drawn is runs else None
                    style: dict[str, Any] = {"color": colour, "markerfacecolor": fill, "alpha": 0.8, "label": name}
                    ax.plot(*zip(*points, strict=True), MARKERS[number], markersize=5, **style)
        ax.set(title=f"{label} digits", xlabel="effective receptive field (pixels)")
        ax.xaxis.set_major_locator(MaxNLocator(5))
    axes[0].set_ylabel("accuracy on unseen digits (%)")
    if axes[0].get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return axes


def _values(ax: Axes, height: float, values: Sequence[float], colour: Colour) -> None:
    """Draws values as dots and, above them, their mean with its t-interval."""
    ax.plot(values, [height + 0.2] * len(values), "o", color=colour, markersize=4, alpha=0.6)
    if len(values) > 1:
        _mean(ax, height - 0.1, values, colour)


def _mean(ax: Axes, height: float, values: Sequence[float], colour: Colour, **style: Any) -> None:
    mean = interval(values)
    ax.errorbar(mean.mean, height, xerr=mean.half, fmt="o", color=colour, capsize=3, **style)


def accuracy_and_cost(found: Mapping[str, Mapping[int, float]], costs: Mapping[str, float], label: str) -> Axes:
    """Draws accuracy against a cost, a point for each run, named on the right; filled where augmentation was used.

    Args:
        found: run → realisation → accuracy in percent; runs without any are left out.
        costs: run → cost, above 0.
        label: what the cost is, and its unit.

    Returns:
        The axes.
    """
    _, ax = plt.subplots(figsize=(8, 4.4), layout="constrained")
    ends = []
    for run in (run for run in found if found[run]):
        values = found[run]
        mean, colour = interval(list(values.values())), colour_of(run)
        half, fill = mean.half if len(values) > 1 else 0.0, colour if run.startswith("rescaled") else "white"
        ax.errorbar(costs[run], mean.mean, yerr=half, fmt="o", color=colour, markerfacecolor=fill, capsize=3)
        ends.append((arm_label(run), mean.mean, colour))
    ax.set(xlabel=label, ylabel="test accuracy (%)")
    label_ends(ax, ends)
    return ax


def beyond_training(
    found: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]], ylabel: str = "test accuracy (%)"
) -> np.ndarray:
    """Draws accuracy beyond the range of training, a panel for each kind of change, with lines named at their ends.

    Args:
        found: kind of change → run → size of the change → accuracies in percent, one per realisation.
        ylabel: what is drawn.

    Returns:
        The axes.
    """
    _, axes = plt.subplots(len(found), 1, figsize=(7.6, 3.4 * len(found)), squeeze=False, layout="constrained")
    for ax, (kind, by_run) in zip(axes.ravel(), found.items(), strict=True):
        ends = []
        for number, (run, by_size) in enumerate(by_run.items()):
            line, how = ("--", ", augmented") if run.startswith("rescaled") else ("-", "")
            arm = run.removeprefix("scale_").removeprefix("rescaled_")
            _line(ax, by_size, colour_of(run), line + MARKERS[number % len(MARKERS)])
            last = float(np.mean(list(by_size.values())[-1]))
            ends.append((SHORT.get(arm, ARMS[arm]) + how, last, colour_of(run)))
        ax.set(xlabel=kind, ylabel=ylabel)
        label_ends(ax, ends, 0.075)
    return axes.ravel()


def replaced_offsets(accuracies: Mapping[str, Sequence[float]]) -> Axes:
    """Draws the accuracy of a deformable network with its own offsets, and with others in their place.

    Args:
        accuracies: what the offsets are → accuracies, one per realisation.

    Returns:
        The axes.
    """
    _, ax = plt.subplots(figsize=(7, 0.5 * len(accuracies) + 1), layout="constrained")
    for height, values in enumerate(accuracies.values()):
        _values(ax, height, [100 * value for value in values], colour_of("deform_conv_cnn"))
    ax.set_yticks(range(len(accuracies)), accuracies)
    ax.set(xlabel="test accuracy (%)", ylim=(len(accuracies) - 0.5, -0.5), xlim=(0, 102))
    return ax


def by_size(
    found: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
    xlabel: str,
    ylabel: str,
    titles: Mapping[str, str],
    colours: Mapping[str, Colour] | None = None,
) -> np.ndarray:
    """Draws how a quantity depends on the size of something, a line for each network.

    Args:
        found: title of a panel → network → size, a number as text → values, one per realisation.
        xlabel: what has a size, and its unit.
        ylabel: the quantity and its unit.
        titles: what the networks are called.
        colours: of the networks; by default those of their models.

    Returns:
        The axes.
    """
    figure, axes = plt.subplots(
        1, len(found), figsize=(max(5, 3 * len(found)), 3.4), squeeze=False, sharey=True, layout="constrained"
    )
    for ax, (panel, by_network) in zip(axes[0], found.items(), strict=True):
        for number, (network, values_by_size) in enumerate(by_network.items()):
            label = titles[network] if ax is axes[0, 0] else None
            sizes = {float(size): values for size, values in values_by_size.items()}
            colour = colours[network] if colours else colour_of(network)
            _line(ax, sizes, colour, f"-{MARKERS[number]}", label)
        ax.set(title=panel, xlabel=xlabel)
    axes[0, 0].set_ylabel(ylabel)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return axes[0]


def _line(
    ax: Axes, by_size: Mapping[float, Sequence[float]], colour: Colour, form: str, label: str | None = None
) -> None:
    """Draws means with t-intervals, where there are two or more values, joined by a line."""
    found = [interval(values) for values in by_size.values()]
    halves = [each.half if np.isfinite(each.half) else 0.0 for each in found]
    means = [each.mean for each in found]
    ax.errorbar(list(by_size), means, yerr=halves, fmt=form, color=colour, markersize=4, capsize=2, label=label)


def moved_bins(images: np.ndarray, boxes: np.ndarray, indices: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Draws boxes in images, and where the bins of a deformable pooling have moved.

    Args:
        images: (N, H, W), values from 0 to 1.
        boxes: (R, 4) as (y1, x1, y2, x2) in pixels.
        indices: (R,), the image of each box.
        bins: (R, h, w, 2), the centres of the bins as (y, x).

    Returns:
        The axes.
    """
    _, axes = plt.subplots(1, len(images), figsize=(3.2 * len(images), 3.3), squeeze=False, layout="constrained")
    for number, ax in enumerate(axes[0]):
        ax.imshow(images[number], cmap="gray_r", vmin=0, vmax=1.6)
        for (y1, x1, y2, x2), centres in zip(boxes[indices == number], bins[indices == number], strict=True):
            ax.add_patch(plt.Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, color="0.3"))
            rows, columns = centres.reshape(-1, 2).T - 0.5
            ax.plot(columns, rows, ".", color=colour_of("deform_conv_cnn"), markersize=4)
        side = images.shape[1]
        ax.set(xticks=[], yticks=[], xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
        ax.grid(False)
    return axes[0]
