"""Drawings: those of the paper, how corners and pairs of offsets arise, and the family tree of implementations."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import FancyBboxPatch, Rectangle

from dcn_study.experiments.corners import interpolated
from dcn_study.show.figures.narrow import COMPACT
from dcn_study.show.figures.style import ACCENT, PALETTE, REGULAR

__all__ = [
    "deformable_convolution",
    "equal_corners",
    "family_tree",
    "offset_pairing",
    "residual_blocks",
    "sampling_grids",
]

GRID = np.stack(np.meshgrid([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0], indexing="ij"), axis=2).reshape(9, 2)  # (dy, dx)


def sampling_grids(axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Draws the nine points that a 3x3 kernel reads: on the grid, moved freely, scaled, and rotated.

    Args:
        axes: four axes to draw into; new ones by default.

    Returns:
        The four axes.
    """
    if axes is None:
        _, grid = plt.subplots(2, 2, figsize=(5.6, 6), layout="constrained")
        axes = grid.ravel()
    turn = np.deg2rad(30)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    free = np.random.default_rng(1).uniform(-0.8, 0.8, (9, 2))
    panels = {
        "regular grid": GRID,
        "free offsets": GRID + free,
        "special case: anisotropic scaling": GRID * (1.2, 1.9),
        "special case: rotation": GRID @ rotation,
    }
    for ax, (title, points) in zip(axes, panels.items(), strict=True):
        for edge in np.arange(-2.5, 3):
            ax.axhline(edge, color="0.85", linewidth=1, zorder=0)
            ax.axvline(edge, color="0.85", linewidth=1, zorder=0)
        moved = points is not GRID
        ax.scatter(GRID[:, 1], GRID[:, 0], s=70, color=REGULAR, alpha=0.4 if moved else 1, zorder=3)
        if moved:
            ax.scatter(points[:, 1], points[:, 0], s=70, color=ACCENT, zorder=4)
            for start, end in zip(GRID, points, strict=True):
                _arrow(ax, start, end)
        ax.set(xlim=(-2.5, 2.5), ylim=(2.5, -2.5), aspect="equal", xticks=[], yticks=[], title=title)
        ax.grid(False)
    return axes


def deformable_convolution(ax: Axes | None = None) -> Axes:
    """Draws a 3x3 deformable convolution: input map, the branch that predicts 2N offsets, the points read, output.

    Args:
        ax: axes to draw into; new ones by default.

    Returns:
        The axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(COMPACT, 5), layout="constrained")
    side, centre = 7, np.array([3.0, 3.0])
    _map(ax, (0, 0), side, "input feature map")
    _map(ax, (10.5, 0), side, "output feature map")
    for plane in range(3):
        _map(ax, (8.6 + 0.45 * plane, 9.8 - 0.45 * plane), 4, "", shade=True)
    ax.text(
        10.6, 14.2, "offset field, 2N channels: (dy, dx)\nfor each of the N = 9 kernel points", ha="center", va="top"
    )
    ax.text(2.9, 11.9, "convolution that\npredicts the offsets", ha="center", va="center")
    ax.text(14, 7.3, "one output, of the kernel\nat the moved points", ha="center", va="top")
    offsets = np.random.default_rng(1).uniform(-1.3, 1.3, (9, 2))
    for point, offset in zip(centre + GRID, offsets, strict=True):
        moved = np.clip(point + offset, 0, side - 1)
        ax.scatter(point[1] + 0.5, point[0] + 0.5, s=25, color=REGULAR, alpha=0.5, zorder=3)
        ax.scatter(moved[1] + 0.5, moved[0] + 0.5, s=25, color=ACCENT, zorder=5)
        _arrow(ax, point + 0.5, moved + 0.5)
        ax.plot([moved[1] + 0.5, 14], [moved[0] + 0.5, 3.5], color=ACCENT, linewidth=0.5, alpha=0.6, zorder=2)
    ax.add_patch(Rectangle((13.5, 3), 1, 1, facecolor=ACCENT, edgecolor="black", zorder=4))
    for start, end in (((2.9, 7.2), (2.9, 10.6)), ((6.3, 11.9), (8.4, 11.9)), ((9.4, 8.7), (6.2, 5.8))):
        ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "black", "linewidth": 1.5}, zorder=6)
    ax.set(xlim=(-0.3, 17.8), ylim=(16, -1.2), aspect="equal")
    ax.axis("off")
    return ax


def residual_blocks(ax: Axes | None = None) -> Axes:
    """Draws the residual block twice: as the paper shows it, and as the published code computes it.

    Args:
        ax: axes to draw into; new ones by default.

    Returns:
        The axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(COMPACT, 5.6), layout="constrained")
    first, second = ("batch norm 1", "ReLU", "3x3 conv 1"), ("batch norm 2", "ReLU", "3x3 conv 2")
    ax.text(2.2, -0.9, "as drawn", ha="center", fontweight="bold")
    _path(ax, 2.2, 1, first)
    _path(ax, 2.2, 4, second)
    _flow(ax, (2.2, -0.3), (2.2, 0.62))
    _flow(ax, (2.2, 3.38), (2.2, 3.62))
    _flow(ax, (2.2, 6.38), (2.2, 7.05))
    ax.plot([2.2, 0.2, 0.2], [0.15, 0.15, 7.3], color="black", linewidth=1.5)
    _flow(ax, (0.2, 7.3), (1.95, 7.3))
    ax.text(8.2, -0.9, "as coded", ha="center", fontweight="bold")
    _path(ax, 6.8, 1, first, dead=True)
    _path(ax, 9.6, 4, second)
    _flow(ax, (8.2, 0.15), (6.8, 0.62), dead=True)
    _flow(ax, (8.2, -0.3), (9.6, 3.62))
    _flow(ax, (9.6, 6.38), (8.45, 7.1))
    ax.text(6.8, 3.95, "nothing\nreads this", ha="center", va="center", style="italic", fontsize="small")
    ax.plot([8.2, 8.2], [-0.3, 4.5], color="black", linewidth=1.5)
    _flow(ax, (8.2, 4.5), (8.2, 7.05))
    for centre in (2.2, 8.2):
        ax.text(centre, -0.45, "input", ha="center")
        ax.text(centre, 7.3, "+", ha="center", va="center", fontsize=16)
        ax.add_patch(plt.Circle((centre, 7.3), 0.25, fill=False, edgecolor="black", linewidth=1.5))
        _flow(ax, (centre, 7.55), (centre, 8.1))
    ax.set(xlim=(-0.4, 11.4), ylim=(8.3, -1.3))
    ax.axis("off")
    return ax


def offset_pairing(sources: np.ndarray, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Draws from which pixel of the offsets' tensor the first channel's values take their dy, and from which channel.

    Args:
        sources: (H, W, C, 2, 3), as `offsets.pairing_sources` returns them.
        axes: three axes to draw into; new ones by default.

    Returns:
        The axes.
    """
    if axes is None:
        _, axes = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained")
    height, width = sources.shape[:2]
    taken, pixel = sources[:, :, 0], np.moveaxis(np.indices((height, width)), 0, 2)
    ax = axes[0]
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal")
    parts = ((0.15, 0.2), (0.3, 0.85), (0.43, 0.47), (0.65, 0.12), (0.8, 0.86))
    for colour, (down, right) in zip(PALETTE[:5], parts, strict=True):
        y, x = int(down * height), int(right * width)
        for start in taken[y, x, :, :2]:
            ax.add_patch(Rectangle((start[1] - 0.5, start[0] - 0.5), 1, 1, facecolor=colour, edgecolor="white", lw=0.5))
        dy = taken[y, x, 0, :2]
        style = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 5, "lw": 1.2}
        ax.annotate("", (x, y), (dy[1], dy[0]), arrowprops=style)
        ax.scatter(x, y, s=55, facecolor="white", edgecolor=colour, linewidth=2, zorder=5)
    channels = taken[..., 0, 2]
    axes[1].imshow(channels, cmap=ListedColormap(["0.9", "0.75"]))
    for channel in np.unique(channels):  # one or two
        y, x = np.argwhere(channels == channel).mean(axis=0)
        axes[1].text(x, y, f"channel {channel:g}", ha="center", va="center")
    distances = axes[2].imshow(np.hypot(*np.moveaxis(taken[..., 0, :2] - pixel, 2, 0)), cmap="viridis")
    titles = ("five values and their offsets", "offset channel of dy", "distance to its source (pixels)")
    for ax, title in zip(axes, titles, strict=True):
        ax.set(title=title, xticks=[], yticks=[])
        ax.grid(False)
    axes[2].figure.colorbar(distances, ax=axes[2], shrink=0.7)
    return axes


def equal_corners(row: np.ndarray, position: int, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Draws why equal corners make the gradient of an offset zero: between pixels of a row, value and derivative.

    Args:
        row: (W,), values of pixels, at least three.
        position: of the pixel at which the corners are shown, from 0 to W - 2.
        axes: four axes to draw into, two in a row; new ones by default. Values above, derivatives below; as published
            on the left, repaired on the right.

    Returns:
        The axes.
    """
    if axes is None:
        _, grid = plt.subplots(2, 2, figsize=(8.4, 5.4), sharex=True, sharey="row", layout="constrained")
        axes = grid.ravel()
    whole = np.arange(len(row) - 1)
    parts = whole[:, None] + np.linspace(0.02, 0.98, 13)
    forms = {
        "published": ("as published: floor and ceil", r"$x(\lceil p\rceil)-x(\lfloor p\rfloor)$"),
        "bilinear": ("repaired: floor and floor + 1", r"$x(\lfloor p\rfloor+1)-x(\lfloor p\rfloor)$"),
    }
    for column, (corners, (title, derivative)) in enumerate(forms.items()):
        above, below = axes[column], axes[2 + column]
        values, slopes = interpolated(row, parts.ravel(), corners)
        at_pixels, slopes_at_pixels = interpolated(row, whole, corners)
        colour = ACCENT if corners == "published" else REGULAR
        second = position + (corners == "bilinear")
        above.plot(parts.ravel(), values, color="0.6", linewidth=1.5, zorder=1)
        above.scatter(whole, at_pixels, s=45, color="white", edgecolor="0.3", zorder=2)
        named = {position: "first", second: "second" if second > position else "both"}
        for (place, name), size in zip(named.items(), (260, 160), strict=False):
            above.scatter(place, row[place], s=size, facecolor="none", edgecolor=colour, linewidth=2.2, zorder=3)
            above.annotate(name, (place, row[place]), (-12, 6), textcoords="offset points", ha="right", color=colour)
        reach = np.array([-0.45, 0.45])
        slope = slopes_at_pixels[position]
        above.plot(position + reach, row[position] + slope * reach, color=colour, linewidth=3, zorder=2)
        above.set_title(title)
        for each, part in zip(parts, slopes.reshape(parts.shape), strict=True):
            below.plot(each, part, color=colour, linewidth=2)
            ends = (each[0] - 0.02, each[-1] + 0.02)
            below.scatter(ends, (part[0], part[-1]), s=28, facecolor="white", edgecolor=colour, zorder=2)
        below.scatter(whole, slopes_at_pixels, s=34, color=colour, zorder=3)
        below.axhline(0, color="0.4", linewidth=0.8, zorder=0)
        below.axvline(position, color="0.6", linestyle=":", zorder=0)
        below.text(0.03, 0.06, derivative, transform=below.transAxes)
        below.set(xlabel="position $p$ (pixels)", xticks=whole)
    axes[0].set_ylabel("value $x(p)$")
    axes[2].set_ylabel("derivative by the offset")
    return axes


def family_tree(
    dates: Mapping[str, str], after: Mapping[str, str], marked: Mapping[str, str], ax: Axes | None = None
) -> Axes:
    """Draws implementations by the date by which each existed, with a line to the one that it names as its origin.

    Args:
        dates: name → ISO date, or empty where none was found; from top to bottom.
        after: name → name of the origin, or empty.
        marked: name → which of three kinds its marker shows: "dead", "zero" or "alive"; none for others.
        ax: axes to draw into; new ones by default.

    Returns:
        The axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(8.4, 0.33 * len(dates) + 1.2), layout="constrained")
    known = {name: _year(date) for name, date in dates.items() if date}
    first, undated = min(known.values()), max(known.values()) + 1.2
    places = {name: (known.get(name, undated), row) for row, name in enumerate(dates)}
    looks = {
        "dead": ("offsets cannot learn as it starts", {"marker": "X", "s": 110, "color": ACCENT}),
        "zero": ("no gradient at zero, starts elsewhere", {"marker": "D", "s": 60, "color": ACCENT}),
        "alive": ("gradient at zero", {"marker": "o", "s": 60, "color": REGULAR}),
        "": ("not probed", {"marker": "o", "s": 45, "color": "0.6"}),
    }
    for name, origin in after.items():
        if origin:
            (x, y), (from_x, from_y) = places[name], places[origin]
            ax.plot([from_x, from_x, x], [from_y, y, y], color="0.6", linewidth=1.2, zorder=1)
    for kind, (meaning, look) in looks.items():
        shown = [place for name, place in places.items() if marked.get(name, "") == kind]
        if shown:
            ax.scatter(*zip(*shown, strict=True), label=meaning, zorder=3, **look)
    ax.axvspan(undated - 0.5, undated + 0.5, color="0.5", alpha=0.12, linewidth=0)
    years = range(int(first), int(undated - 0.7), 3)
    ax.set(yticks=range(len(places)), yticklabels=list(places), xlabel="year by which it existed")
    ax.set_xticks([*years, undated], [*map(str, years), "no date"])
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return ax


def _year(date: str) -> float:
    day = datetime.date.fromisoformat(date)
    return day.year + (day.timetuple().tm_yday - 1) / 366


def _arrow(ax: Axes, start: np.ndarray, end: np.ndarray) -> None:
    """Draws an arrow between two points (y, x)."""
    style = {"arrowstyle": "->", "color": "black", "shrinkA": 0, "shrinkB": 2, "linewidth": 1}
    ax.annotate("", (end[1], end[0]), (start[1], start[0]), arrowprops=style, zorder=5)


def _map(ax: Axes, corner: tuple[float, float], side: int, title: str, *, shade: bool = False) -> None:
    x, y = corner
    ax.add_patch(Rectangle(corner, side, side, facecolor="0.93" if shade else "white", edgecolor="0.4", zorder=1))
    for step in range(1, side):
        ax.plot([x, x + side], [y + step] * 2, color="0.8", linewidth=0.8, zorder=1)
        ax.plot([x + step] * 2, [y, y + side], color="0.8", linewidth=0.8, zorder=1)
    ax.text(x + side / 2, y - 0.4, title, ha="center", va="bottom")


def _path(ax: Axes, centre: float, top: float, names: Sequence[str], *, dead: bool = False) -> None:
    """Draws boxes below each other, with arrows between."""
    look: dict[str, Any] = {"facecolor": "0.93", "edgecolor": "black"}
    if dead:
        look = {"facecolor": "white", "edgecolor": "0.6", "linestyle": "--"}
    for step, name in enumerate(names):
        corner = (centre - 1.1, top + step - 0.3)
        ax.add_patch(FancyBboxPatch(corner, 2.2, 0.6, boxstyle="round,pad=0.02", **look))
        colour = "0.45" if dead else "black"
        ax.text(centre, top + step, name, ha="center", va="center", color=colour, fontsize="small")
        if step:
            _flow(ax, (centre, top + step - 0.7), (centre, top + step - 0.34), dead=dead)


def _flow(ax: Axes, start: tuple[float, float], end: tuple[float, float], *, dead: bool = False) -> None:
    style = {"arrowstyle": "-|>", "color": "0.6" if dead else "black", "shrinkA": 0, "shrinkB": 0, "linewidth": 1.5}
    ax.annotate("", end, start, arrowprops={**style, "linestyle": "--" if dead else "-"})
