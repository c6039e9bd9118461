"""Which offsets the published layer takes for a pair."""

from __future__ import annotations

import numpy as np

__all__ = ["own_pairs", "pairing_sources"]


def pairing_sources(height: int, width: int, channels: int) -> np.ndarray:
    """Returns where the published layer takes the offsets of every value of a feature map from.

    Sends the places of a tensor of offsets, (height, width, 2·channels), through the published transposition and
    reshaping instead of the offsets themselves.

    Returns:
        (height, width, channels, 2, 3): for each value, and for dy and dx, the (y, x, channel) of the offsets' tensor.
    """
    places = np.indices((height, width, 2 * channels))
    pairs = places.transpose(3, 1, 2, 0).reshape(channels, height, width, 2, 3)
    return pairs.transpose(1, 2, 0, 3, 4)


def own_pairs(height: int, width: int, channels: int) -> int:
    """Returns how many values of a channel are moved by the dy of their own pixel, see `pairing_sources`."""
    found = pairing_sources(height, width, channels)[:, :, 0, 0, :2]
    own = np.moveaxis(np.indices((height, width)), 0, 2)
    return int((found == own).all(axis=2).sum())
