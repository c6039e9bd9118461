"""Value and derivative between the pixels of one row, as the layer's operator gives them. Loads no TensorFlow."""

from __future__ import annotations

import numpy as np

__all__ = ["interpolated"]


def interpolated(row: np.ndarray, positions: np.ndarray, corners: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the value at each position of a row of pixels, and its derivative with respect to the position.

    Args:
        row: (W,), values of pixels.
        positions: (N,), from 0 to W - 1, in pixels; 0 is the centre of the first.
        corners: "published" or "bilinear", as for `dcn.resample_by_offsets`.

    Returns:
        Two arrays (N,), float64.

    Raises:
        ValueError: if a position is outside the row.
    """
    positions, last = np.asarray(positions, float), len(row) - 1
    if positions.size and not (positions.min() >= 0 and positions.max() <= last):
        raise ValueError(f"positions must be from 0 to {last}. Received: {positions}")
    first = np.floor(positions).astype(int)
    second = np.ceil(positions).astype(int) if corners == "published" else np.minimum(first + 1, last)
    slopes = np.asarray(row, float)[second] - row[first]
    return row[first] + (positions - first) * slopes, slopes
