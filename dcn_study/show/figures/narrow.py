"""A second form of each figure, for the screen of a phone: panels one below the other, and short lines of text."""

from __future__ import annotations

import textwrap

from IPython.core.pylabtools import print_figure
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["NARROW", "narrow"]

NARROW = "application/vnd.dcn.narrow+svg"  # the media type of the second form in a notebook's output
WIDTH = 4.3  # inches
LABEL, TITLE = 18, 40  # letters in a line of a tick's label and of a title


def narrow(figure: Figure) -> str | None:
    """Rearranges a figure that has been shown already, and returns it as SVG.

    Returns:
        The picture; None for grids of three columns and more, which a phone shows whole or scrolls.
    """
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    place = panels[0].get_subplotspec() if panels and not figure.subfigs else None
    if place is None:
        return None
    grid = place.get_gridspec()
    if grid.ncols > 2 and grid.nrows > 1:
        return None
    height = figure.get_figheight() / grid.nrows
    column = figure.add_gridspec(len(panels), 1)
    for number, ax in enumerate(panels):
        ax.set_subplotspec(column[number])
        if len(panels) > 1 and len(ax.get_xticks()) and len(ax.get_yticks()):
            ax.tick_params(labelleft=True, labelbottom=True)
        ax.set_ylabel(ax.get_ylabel() or panels[0].get_ylabel())
        ax.set_xlabel(ax.get_xlabel() or panels[-1].get_xlabel())
        ax.set_title(textwrap.fill(ax.get_title(), TITLE))
        _shorten_labels(ax)
    entries = 0
    for legend in figure.legends:
        handles = [handle for handle in legend.legend_handles if handle is not None]
        labels = [text.get_text() for text in legend.get_texts()]
        legend.remove()
        figure.legend(handles, labels, loc="outside lower left", fontsize="small")
        entries += len(labels)
    figure.set_size_inches(WIDTH, height * len(panels) + 0.2 * entries)
    return print_figure(figure, "svg", bbox_inches="tight")


def _shorten_labels(ax: Axes) -> None:
    """Breaks the lines of names on the vertical axis."""
    labels = [label.get_text() for label in ax.get_yticklabels()]
    if any(len(line) > LABEL for label in labels for line in label.splitlines()):
        lines = ["\n".join(textwrap.fill(line, LABEL) for line in label.splitlines()) for label in labels]
        ax.set_yticks(ax.get_yticks(), lines)
