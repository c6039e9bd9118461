"""Names of lines and points to the right of the axes, at their heights and so far apart that all can be read."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.text import Annotation

__all__ = ["label_ends", "space_ends", "wrap_ends"]

MARK = "_end"  # the label of such a text, by which it is found again; legends leave it out
LINE = 0.15  # inches from one line of a name to the next


def label_ends(ax: Axes, labels: Sequence[tuple[str, float, Any]], gap: float = 0.055) -> None:
    """Writes the names of lines to the right of the axes, where they end, so far apart that all can be read.

    Args:
        ax: the axes, with their limits as they will stay.
        labels: name, height of the line's end, colour.
        gap: between two names, as a share of the height of the axes.
    """
    look: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "va": "center", "fontsize": "small", "label": MARK}
    texts = [ax.annotate(name, (1.01, height), color=colour, **look) for name, height, colour in labels]
    _spread(ax, texts, [gap] * len(texts))


def wrap_ends(ax: Axes, letters: int) -> float:
    """Breaks the names to the right of the axes into short lines; returns how high all of them are, in inches.

    Args:
        ax: the axes.
        letters: in a line.
    """
    for text in _names(ax):
        text.set_text(textwrap.fill(" ".join(text.get_text().split()), letters))
    return sum(map(_height, _names(ax)))


def space_ends(ax: Axes, height: float) -> None:
    """Puts the names to the right of the axes apart again, whose lines or whose axes have changed.

    Args:
        ax: the axes.
        height: of the axes, in inches.
    """
    _spread(ax, _names(ax), [_height(text) / height for text in _names(ax)])


def _names(ax: Axes) -> list[Annotation]:
    return [text for text in ax.texts if isinstance(text, Annotation) and text.get_label() == MARK]


def _height(text: Annotation) -> float:
    return LINE * (text.get_text().count("\n") + 1.2)


def _spread(ax: Axes, texts: Sequence[Annotation], sizes: Sequence[float]) -> None:
    """Moves texts from their lines' ends up until none covers another, and down where the axes are too low then."""
    to_axes = ax.transData + ax.transAxes.inverted()
    places = sorted((to_axes.transform((ax.get_xlim()[1], text.xy[1]))[1], number) for number, text in enumerate(texts))
    heights = [height for height, _ in places]
    gaps = [0.0, *((sizes[lower] + sizes[upper]) / 2 for (_, lower), (_, upper) in itertools.pairwise(places))]
    for rank in range(1, len(heights)):
        heights[rank] = max(heights[rank], heights[rank - 1] + gaps[rank])
    highest = 1.0
    for rank in reversed(range(len(heights))):
        heights[rank] = min(heights[rank], highest)
        highest = heights[rank] - gaps[rank]
    for height, (_, number) in zip(heights, places, strict=True):
        texts[number].set_y(to_axes.inverted().transform((0.0, height))[1])
