"""Accuracy of the trained models over a grid of zoom and shift."""

from __future__ import annotations

from typing import Any

import numpy as np
from tqdm import tqdm

from dcn_study.errors import ConfigurationError
from dcn_study.experiments.moves import FURTHEST, move
from dcn_study.runs import networks, records, weights
from dcn_study.runs.configuration import TEST_IMAGES
from dcn_study.runs.data import load_digits
from dcn_study.runs.published import ACCURACY
from dcn_study.runs.transforms import ZOOM

__all__ = ["robustness"]


def robustness(*, zooms: int, shifts: int, images: int) -> dict[str, Any]:
    """Measures the accuracy of the paper's trained models, seed 0, with one zoom and shift for all digits.

    Both axes have the same zoom; the shift is horizontal.

    Args:
        zooms: how many factors, over the range that training draws from.
        shifts: how many shifts, from `FURTHEST` pixels to the left to as many to the right.
        images: how many test images, from the first.

    Returns:
        "zooms"; "shifts", by how many pixels the digit moves to the right; and
        "accuracies": for each of the paper's models one row per zoom, with one accuracy
        per shift.

    Raises:
        ConfigurationError: if a parameter breaks its rule, or a run has no record.
        RecordError: if the weights of a run are missing or damaged.
    """
    for name, value, most in (("zooms", zooms, 100), ("shifts", shifts, 100), ("images", images, TEST_IMAGES)):
        if not 1 <= value <= most:
            raise ConfigurationError(f"{name} must be from 1 to {most}. Received: {name}={value}")
    runs = records.trained(ACCURACY)
    digits = load_digits()
    grid = {
        "zooms": np.linspace(*ZOOM, zooms).round(3).tolist(),
        "shifts": np.linspace(-FURTHEST, FURTHEST, shifts).round(3).tolist(),
    }
    models = {model: weights.load_model(record) for model, record in runs.items()}
    accuracies: dict[str, list[list[float]]] = {model: [] for model in models}
    plain, labels = digits.x_test[:images].astype(np.float32) / 255, digits.y_test[:images]
    for zoom in tqdm(grid["zooms"], desc="zooms"):
        for rows in accuracies.values():
            rows.append([])
        for shift in grid["shifts"]:
            moved = move(plain, zoom, shift)[..., None]
            for model, network in models.items():
                accuracies[model][-1].append(networks.score(network, moved, labels).accuracy)
    return {**grid, "accuracies": accuracies}
