"""Digits that are all zoomed and moved alike."""

from __future__ import annotations

import numpy as np

from dcn_study.runs.transforms import Transforms, apply_transforms

__all__ = ["FURTHEST", "move"]

FURTHEST = 8.0  # pixels that a digit is moved; with nine shifts all are whole numbers, and nothing is interpolated


def move(images: np.ndarray, zoom: float, right: float) -> np.ndarray:
    """Returns images (N, H, W), zoomed on both axes by one factor; then the digit moved to the right, in pixels."""
    count = len(images)
    return apply_transforms(images, Transforms(np.full((count, 2), zoom), np.tile([0.0, -zoom * right], (count, 1))))
