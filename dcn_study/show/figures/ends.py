"""Names of lines and points to the right of the axes, at their heights and so far apart that all can be read."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

__all__ = ["label_ends", "wrap_ends"]

MARK = "_end"  # the label of such a text, by which it is found again; legends leave it out
LINE = 0.15  # inches from one line of a name to the next


def label_ends(ax: Axes, labels: Sequence[tuple[str, float, Any]], gap: float = 0.055) -> None:
    """Writes the names of lines to the right of the axes, where they end, so far apart that all can be read.

    Args:
        ax: the axes, with their limits as they will stay.
        labels: name, height of the line's end, colour.
        gap: between two names, as a share of the height of the axes.
    """
    look: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": "small", "label": MARK}
    texts = [ax.text(1.01, height, name, color=colour, **look) for name, height, colour in labels]
    _spread(ax, texts, [gap] * len(texts))


def wrap_ends(ax: Axes, letters: int, height: float) -> None:
    """Breaks the names to the right of the axes into short lines, and puts them apart again.

    Args:
        ax: the axes.
        letters: in a line.
        height: of the axes, in inches.
    """
    texts = [text for text in ax.texts if text.get_label() == MARK]
    for text in texts:
        text.set_text(textwrap.fill(" ".join(text.get_text().split()), letters))
    _spread(ax, texts, [LINE * (text.get_text().count("\n") + 1.2) / height for text in texts])


def _spread(ax: Axes, texts: Sequence[Any], sizes: Sequence[float]) -> None:
    """Moves texts up until none covers another, and all of them down if the highest leaves the axes."""
    to_axes = ax.transData + ax.transAxes.inverted()
    places = sorted(
        (to_axes.transform((ax.get_xlim()[1], text.get_position()[1]))[1], number) for number, text in enumerate(texts)
    )
    heights: list[float] = []
    for rank, (height, number) in enumerate(places):
        if rank:
            height = max(height, heights[-1] + (sizes[number] + sizes[places[rank - 1][1]]) / 2)
        heights.append(height)
    above = max(0.0, heights[-1] - 1.0) if heights else 0.0
    for height, (_, number) in zip(heights, places, strict=True):
        texts[number].set_y(to_axes.inverted().transform((0.0, height - above))[1])
