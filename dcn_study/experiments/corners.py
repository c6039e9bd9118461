"""Value and derivative between the pixels of one row, as the layer's operator computes them."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from dcn import resample_by_offsets

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
    positions = np.asarray(positions, float)
    if positions.size and not (positions.min() >= 0 and positions.max() <= len(row) - 1):
        raise ValueError(f"positions must be from 0 to {len(row) - 1}. Received: {positions}")
    images = tf.constant(np.tile(np.asarray(row, float), (len(positions), 1))[:, None, :, None])
    moves = np.zeros((len(positions), 1, len(row), 2))
    moves[:, 0, 0, 1] = positions  # the first pixel is moved to the position
    offsets = tf.constant(moves)
    with tf.GradientTape() as tape:
        tape.watch(offsets)
        values = resample_by_offsets(images, offsets, corners=corners, pairing="per_pixel", jit_compile=False)[
            :, 0, 0, 0
        ]
    return values.numpy(), tape.gradient(values, offsets)[:, 0, 0, 1].numpy()
