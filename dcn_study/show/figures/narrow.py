"""A second form of each figure, for the screen of a phone: panels one below the other, and short lines of text."""

from __future__ import annotations

import textwrap

from IPython.core.pylabtools import print_figure
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from dcn_study.show.figures.ends import space_ends, wrap_ends

__all__ = ["COMPACT", "NARROW", "narrow"]

NARROW = "application/vnd.dcn.narrow+svg"  # the media type of the second form in a notebook's output
WIDTH = 4.3  # inches
COMPACT = 5.4  # inches: a drawing as wide can be read on a phone as it is
LABEL, TITLE = 18, 40  # letters in a line of a tick's label and of a title
LINE = 0.19  # inches from one line of a label to the next
OF_PANEL = 0.75  # the height of the axes, as a share of that of their panel


def narrow(figure: Figure) -> str | None:
    """Rearranges a figure that has been shown already, and returns it as SVG.

    Returns:
        The picture; None for wide drawings, which a phone scrolls.
    """
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    place = panels[0].get_subplotspec() if panels and not figure.subfigs else None
    if place is None or not all(ax.axison for ax in panels):
        return print_figure(figure, "svg", bbox_inches="tight") if figure.get_figwidth() <= COMPACT else None
    grid = place.get_gridspec()
    if grid.ncols > 2 and grid.nrows > 1 and not any(len(ax.get_xticks()) for ax in panels):
        return _shrunk(figure, panels, grid.ncols)
    height, column = figure.get_figheight() / grid.nrows, figure.add_gridspec(len(panels), 1)
    for number, ax in enumerate(panels):
        ax.set_subplotspec(column[number])
        if len(panels) > 1 and len(ax.get_xticks()) and len(ax.get_yticks()):
            ax.tick_params(labelleft=True, labelbottom=True)
        first, last = number - number % grid.ncols, number % grid.ncols - grid.ncols
        ax.set_ylabel(ax.get_ylabel() or panels[first].get_ylabel())
        ax.set_xlabel(ax.get_xlabel() or panels[last].get_xlabel())
        ax.set_title(textwrap.fill(ax.get_title() or panels[number % grid.ncols].get_title(), TITLE))
        height = max(height, LINE * _shorten_labels(ax) + 1, wrap_ends(ax, LABEL) / OF_PANEL)
    entries = _gather_legends(figure, panels)
    figure.set_size_inches(WIDTH, height * len(panels) + 1.1 * LINE * entries)
    for ax in panels:
        space_ends(ax, OF_PANEL * height)
    return print_figure(figure, "svg", bbox_inches="tight")


def _shrunk(figure: Figure, panels: list[Axes], columns: int) -> str:
    """Returns a grid of pictures without ticks as SVG, as wide as the screen."""
    width, height = figure.get_size_inches()
    for ax in panels:
        ax.set_title(textwrap.fill(ax.get_title(), max(1, TITLE // columns)), fontsize="small")
        ax.set_ylabel(ax.get_ylabel(), fontsize="small")
        for points in ax.findobj(PathCollection):
            points.set_sizes(points.get_sizes() * (WIDTH / width) ** 2)
    figure.set_size_inches(WIDTH, 1.1 * WIDTH * height / width + LINE)
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
    drawn = {name: artist for ax in panels for artist, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    for legend in [*figure.legends, *(found for ax in panels if (found := ax.get_legend()))]:
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            if handle is not None:
                entries.setdefault(text.get_text(), drawn.get(text.get_text(), handle))
        title = title or legend.get_title().get_text()
        legend.remove()
    if entries:
        handles, labels = list(entries.values()), list(entries)
        figure.legend(handles, labels, loc="outside lower left", fontsize="small", title=title or None)
    return len(entries) + bool(title)
