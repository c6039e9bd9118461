"""Accuracy of the trained models over a grid of zoom and shift, and a map of it to explore in a browser."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dcn.study import records, training
from dcn.study.config import TEST_IMAGES, ConfigurationError
from dcn.study.data import SHIFT, ZOOM, Transforms, apply_transforms, load_digits
from dcn.study.figures import NAMES
from dcn.study.published import ACCURACY

__all__ = ["interactive_map", "robustness"]

TEMPLATE = Path(__file__).with_name("robustness_map.html")


def robustness(*, zooms: int, shifts: int, images: int, force: bool = False) -> dict[str, Any]:
    """Returns the accuracy of the paper's trained models, seed 0, on digits that are all zoomed and shifted alike.

    Both axes are zoomed by one factor; the shift is horizontal.

    Args:
        zooms: how many factors, over the range that training draws from.
        shifts: how many shifts, over that range.
        images: how many test images, from the first.
        force: whether to measure although there is a record.

    Returns:
        "zooms"; "shifts", in pixels, as `Transforms` has them, where a positive one moves the digit to the left;
        "accuracies": for each of the paper's models a row for each zoom, with one accuracy a shift. Further where the
        measurement came from.

    Raises:
        ConfigurationError: if a parameter breaks its rule, or a run has no record.
        RecordError: if the weights of a run are missing or damaged.
    """
    for name, value, most in (("zooms", zooms, 100), ("shifts", shifts, 100), ("images", images, TEST_IMAGES)):
        if not 1 <= value <= most:
            raise ConfigurationError(f"{name} must be from 1 to {most}. Received: {name}={value}")
    runs = records.trained(ACCURACY)
    digits = load_digits()
    side = digits.x_test.shape[2]
    grid = {
        "zooms": np.linspace(*ZOOM, zooms).round(3).tolist(),
        "shifts": (side * np.linspace(-SHIFT, SHIFT, shifts)).round(3).tolist(),
    }

    def measure() -> dict[str, Any]:
        models = {model: training.load_model(record) for model, record in runs.items()}
        accuracies: dict[str, list[list[float]]] = {model: [] for model in models}
        plain, labels = digits.x_test[:images].astype(np.float32) / 255, digits.y_test[:images]
        for zoom in tqdm(grid["zooms"], desc="zooms"):
            for rows in accuracies.values():
                rows.append([])
            for shift in grid["shifts"]:
                moved = _moved(plain, zoom, shift)[..., None]
                for model, network in models.items():
                    accuracies[model][-1].append(training._evaluate(network, moved, labels)["accuracy"])
        digests = {record.name: record.provenance["weights_sha256"] for record in runs.values()}
        return {**grid, "accuracies": accuracies, "weights_sha256": digests}

    parameters = {"zooms": zooms, "shifts": shifts, "images": images}
    return records.measurement("robustness", parameters, measure, force=force)


def interactive_map(measured: dict[str, Any], digit: int = 0) -> str:
    """Returns HTML that shows a measurement as a map: one chooses the model, and looks at each zoom and shift.

    It needs nothing from elsewhere, neither a script nor a style sheet.

    Args:
        measured: as `robustness` returns it.
        digit: index of the test digit that is shown as the chosen zoom and shift make it.
    """
    image = load_digits().x_test[digit : digit + 1].astype(np.float32)
    data = {
        "names": {model: NAMES[model] for model in measured["accuracies"]},
        **{key: measured[key] for key in ("zooms", "shifts", "accuracies")},
        "digits": [
            [_encoded(_moved(image, zoom, shift)) for shift in measured["shifts"]] for zoom in measured["zooms"]
        ],
        "side": image.shape[1],
    }
    return TEMPLATE.read_text(encoding="utf-8").replace("DATA", json.dumps(data))


def _moved(images: np.ndarray, zoom: float, shift: float) -> np.ndarray:
    count = len(images)
    return apply_transforms(images, Transforms(np.full((count, 2), zoom), np.tile([0.0, shift], (count, 1))))


def _encoded(image: np.ndarray) -> str:
    return base64.b64encode(image.round().astype(np.uint8).tobytes()).decode()
