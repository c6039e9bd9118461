"""The specification curve: outcomes of all claims of a group in all universes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from dcn_study.experiments.multiverse import LETTERS, Multiverse, option
from dcn_study.show.figures.style import PALETTE

__all__ = ["specification_curve"]

# Colours as in the tables of claims; hatches, so that a difference does not rest on colour.
_GOOD, _BAD = {"facecolor": PALETTE[2]}, {"facecolor": PALETTE[3], "hatch": "////", "edgecolor": "white"}
_LOOKS: dict[str, dict[str, Any]] = {
    "agrees": _GOOD,
    "differs": _BAD,
    "undecided": {"facecolor": "0.8"},
    "better": _GOOD,
    "equivalent": {"facecolor": PALETTE[0], "hatch": "...", "edgecolor": "white"},
    "worse": _BAD,
}


def specification_curve(found: Multiverse, ax: Axes | None = None) -> Axes:
    """Draws the outcomes of claims in all universes, a column each, and below them the options of each universe.

    Columns are sorted by how many outcomes are other than the stated ones. The first is the stated universe: a
    triangle marks it and its options.

    Args:
        found: the outcomes of a group of claims.
        ax: axes to draw into; new ones by default.

    Returns:
        The axes.
    """
    universes, stated = list(itertools.product(*found.choices.values())), found.place()
    columns = list(zip(*found.outcomes.values(), strict=True))
    changed = [sum(here != there for here, there in zip(column, columns[stated], strict=True)) for column in columns]
    order = sorted(range(len(columns)), key=lambda place: (changed[place], columns[place], place != stated, place))
    options = [(number, each) for number, several in enumerate(found.choices.values()) for each in several]
    if ax is None:
        _, ax = plt.subplots(figsize=(8.5, 0.24 * (len(found.outcomes) + len(options)) + 1.6), layout="constrained")
    labels, heights = [], []
    for height, (claim, letters) in enumerate(found.outcomes.items()):
        for letter, outcome in LETTERS.items():
            here = [letters[place] == letter for place in order]
            ax.broken_barh(_bars(here), (height - 0.4, 0.8), linewidth=0, **_LOOKS[outcome])
        labels.append(claim)
        heights.append(float(height))
    names, below = list(found.choices), len(found.outcomes) - 0.3
    for place, (number, each) in enumerate(options):
        below += 1.4 if place and options[place - 1][0] != number else 1
        marked = each == found.stated[names[number]]
        here = [universes[universe][number] == each for universe in order]
        ax.broken_barh(_bars(here), (below - 0.35, 0.7), facecolor="0.2" if marked else "0.55", linewidth=0)
        labels.append(f"{names[number]}: {option(names[number], each)}{' ◂' if marked else ''}")
        heights.append(below)
    ax.set_yticks(heights, labels, fontsize="x-small")
    ax.set(xlabel="universes, the stated one first", xlim=(0, len(order)), ylim=(below + 0.6, -0.6))
    ax.plot(0.5, -1, "v", color="black", markersize=5, clip_on=False)
    ax.grid(visible=False)
    shown = [LETTERS[letter] for letter in LETTERS if any(letter in letters for letters in found.outcomes.values())]
    patches = [Patch(label=outcome, linewidth=0, **_LOOKS[outcome]) for outcome in shown]
    ax.figure.legend(handles=patches, loc="outside lower center", ncols=len(shown), fontsize="small")
    return ax


def _bars(here: Sequence[bool]) -> list[tuple[int, int]]:
    """Returns start and width of each series of columns that are marked."""
    found, start = [], 0
    for marked, group in itertools.groupby(here):
        width = len(list(group))
        if marked:
            found.append((start, width))
        start += width
    return found
