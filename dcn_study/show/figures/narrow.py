"""A second form of each figure, for the screen of a phone: panels one below the other, and short lines of text."""

from __future__ import annotations

import textwrap

from IPython.core.pylabtools import print_figure
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["NARROW", "narrow"]

NARROW = "application/vnd.dcn.narrow+svg"  # the media type of the second form in a notebook's output
WIDTH = 4.3  # inches
LABEL, TITLE = 18, 40  # letters in a line of a tick's label and of a title
LINE = 0.19  # inches from one line of a label to the next


def narrow(figure: Figure) -> str | None:
    """Rearranges a figure that has been shown already, and returns it as SVG.

    Returns:
        The picture; None for diagrams, and for grids of three columns and more, which a phone scrolls.
    """
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    place = panels[0].get_subplotspec() if panels and not figure.subfigs else None
    if place is None or not all(ax.axison for ax in panels):
        return None
    grid = place.get_gridspec()
    if grid.ncols > 2 and grid.nrows > 1:
        return None
    height, column = figure.get_figheight() / grid.nrows, figure.add_gridspec(len(panels), 1)
    for number, ax in enumerate(panels):
        ax.set_subplotspec(column[number])
        if len(panels) > 1 and len(ax.get_xticks()) and len(ax.get_yticks()):
            ax.tick_params(labelleft=True, labelbottom=True)
        first, last = number - number % grid.ncols, number % grid.ncols - grid.ncols
        ax.set_ylabel(ax.get_ylabel() or panels[first].get_ylabel())
        ax.set_xlabel(ax.get_xlabel() or panels[last].get_xlabel())
        ax.set_title(textwrap.fill(ax.get_title(), TITLE))
        height = max(height, LINE * _shorten_labels(ax) + 1)
    entries = _gather_legends(figure, panels)
    figure.set_size_inches(WIDTH, height * len(panels) + 1.1 * LINE * entries)
    return print_figure(figure, "svg", bbox_inches="tight")


def _shorten_labels(ax: Axes) -> int:
    """Breaks the lines of names on the vertical axis; returns how many lines there are."""
    labels = [label.get_text() for label in ax.get_yticklabels()]
    if not any(any(map(str.isalpha, label)) and len(label) > LABEL and "$" not in label for label in labels):
        return 0
    broken = ["\n".join(textwrap.fill(line, LABEL) for line in label.splitlines()) for label in labels]
    ax.set_yticks(ax.get_yticks(), broken)
    return len(broken) * max((label.count("\n") + 1 for label in broken), default=0)


def _gather_legends(figure: Figure, panels: list[Axes]) -> int:
    """Puts all legends into one below the panels; returns how many entries it has."""
    entries: dict[str, Artist] = {}
    title = ""
    for legend in [*figure.legends, *(found for ax in panels if (found := ax.get_legend()))]:
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            if handle is not None:
                entries.setdefault(text.get_text(), handle)
        title = title or legend.get_title().get_text()
        legend.remove()
    if entries:
        handles, labels = list(entries.values()), list(entries)
        figure.legend(handles, labels, loc="outside lower left", fontsize="small", title=title or None)
    return len(entries) + bool(title)
