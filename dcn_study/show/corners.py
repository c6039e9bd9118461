"""A point between the pixels of a row, to be moved: the value there and its derivative by the offset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.colors import to_hex

from dcn_study.show.figures.style import ACCENT, REGULAR

__all__ = ["corners"]

TEMPLATE = Path(__file__).with_suffix(".html")


def corners(row: np.ndarray, position: int) -> str:
    """Returns HTML in which one moves a point along a row of pixels, by pointer or keyboard; it loads nothing.

    Args:
        row: (W,), values of pixels from 0 to 1.
        position: of the point at first, from 0 to W - 2.
    """
    data = {"row": [round(float(value), 4) for value in row], "position": position}
    page = TEMPLATE.read_text(encoding="utf-8").replace("DATA", json.dumps(data))
    return page.replace("PUBLISHED", to_hex(ACCENT)).replace("REPAIRED", to_hex(REGULAR))
