"""Colours and the look of the book's figures and tables."""

from __future__ import annotations

import base64
import html
import io

import pandas as pd
import seaborn as sns
from IPython.core.formatters import SVGFormatter
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from dcn_study.runs.catalogue import NAMED, arm_config
from dcn_study.show.figures.narrow import NARROW, narrow

__all__ = ["ACCENT", "COLOURS", "PALETTE", "REGULAR", "Colour", "as_image", "as_table", "colour_of", "use_style"]

Colour = tuple[float, float, float]
PALETTE = sns.color_palette("colorblind")
# The colour of each model on every page: blue the CNN, orange the paper's layer, green true deformable convolutions.
COLOURS = {
    "cnn": PALETTE[0],
    "deformable_cnn": PALETTE[1],
    "deform_conv_cnn": PALETTE[2],
    "shared_offsets_cnn": PALETTE[4],
    "antialiased_cnn": PALETTE[9],
    "mini_resnet": (0.45, 0.45, 0.05),
    "deformable_mini_resnet": PALETTE[3],
    "wide_cnn": PALETTE[5],
    "wider_cnn": (0.45, 0.3, 0.2),
    "dilated_cnn": PALETTE[7],
    "modulated_deform_conv_cnn": (0.0, 0.35, 0.25),
    "transformer_cnn": (0.3, 0.1, 0.55),
    "deform_conv_mini_resnet": (0.45, 0.0, 0.1),
}
REGULAR, ACCENT = PALETTE[0], PALETTE[1]  # what stays on the grid, what is moved


def colour_of(name: str) -> Colour:
    """Returns the colour of a model, of a named run or of an arm: that of the network that it trains."""
    if name in COLOURS:
        return COLOURS[name]
    return COLOURS[(NAMED[name].config if name in NAMED else arm_config(name)).model]


def use_style() -> None:
    """Sets the look of a notebook's figures and tables: vector graphics, one size of type, readable numbers."""
    from IPython import get_ipython
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    sns.set_theme(context="notebook", style="whitegrid")
    plt.rcParams.update({"svg.fonttype": "path", "svg.hashsalt": "dcn", "figure.dpi": 100, "axes.titlesize": 11})
    plt.rcParams.update({"figure.facecolor": "none", "axes.facecolor": "none"})  # the page's ground, light or dark
    set_matplotlib_formats("svg")
    shell = get_ipython()
    if shell:
        formatters = shell.display_formatter.formatters
        formatters["text/html"].for_type(pd.DataFrame, as_table)
        formatters[NARROW] = SVGFormatter(parent=shell.display_formatter)  # the last: it changes the figure
        formatters[NARROW].for_type(Figure, narrow)


def as_table(frame: pd.DataFrame) -> str:
    """Returns a table as HTML: whole numbers by thousands, others with two decimals, or none, or more for small ones.

    A caption that `tables.captioned` gave it stands above.

    The attribute `data-csv` of the table holds its content as CSV, with all digits.
    """
    whole = dict.fromkeys(frame.select_dtypes("integer"), "{:,}".format)
    with pd.option_context("display.max_colwidth", None):  # no cell is cut short
        shown = frame.to_html(formatters=whole, float_format=_readable, na_rep="–", notebook=True)
    corner = str(frame.columns.name or "")
    content = frame.to_csv(index_label=[name or corner for name in frame.index.names], float_format="%.10g")
    shown = shown.replace("<table ", f'<table data-csv="{html.escape(content)}" ', 1)
    caption = frame.attrs.get("caption", "")
    return shown.replace("<thead>", f"<caption>{html.escape(caption)}</caption>\n  <thead>", 1) if caption else shown


def _readable(number: float) -> str:
    if abs(number) < 1e-11:  # what rounding leaves of a difference of equal numbers
        return "0"
    if abs(number) >= 100:
        return f"{number:,.0f}"
    if abs(number) < 0.0005:
        return f"{number:.1e}"
    return f"{number:.3f}" if abs(number) < 0.005 else f"{number:.2f}"


def as_image(figure: Figure, alternative: str, narrow: Figure) -> str:
    """Returns HTML that shows a figure as vector graphics, where a page cannot show the figure itself.

    Args:
        figure: any figure; it is closed.
        alternative: what it shows, in words.
        narrow: the figure for the screen of a phone; it is closed.
    """
    return (
        f'<picture><source media="(max-width: 600px)" srcset="{_address(narrow)}">'
        f'<img class="finding" alt="{html.escape(alternative)}" src="{_address(figure)}"></picture>'
    )


def _address(figure: Figure) -> str:
    """Closes a figure and returns an address that holds it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
