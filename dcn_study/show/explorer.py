"""Digits to choose from, and what the layers of trained networks read of each, before and after scaling."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib.colors import to_hex

from dcn_study.experiments.receptive_field import centre_of, points_at
from dcn_study.names import MODELS
from dcn_study.show.figures import COLOURS

__all__ = ["explorer"]

TEMPLATE = Path(__file__).with_suffix(".html")


def explorer(
    models: Mapping[str, keras.Model], images: Mapping[str, np.ndarray], labels: Sequence[int], layers: Sequence[str]
) -> str:
    """Returns HTML that shows where networks look: one chooses the digit, the network and the layer.

    It loads neither a script nor a style sheet.

    Args:
        models: by name, as `names.MODELS` has them.
        images: what each kind of images is called → (N, H, W, 1), values from 0 to 1; the same N digits in each kind.
        labels: N digits.
        layers: names of convolutions that all models have.
    """
    digits: list[dict[str, Any]] = [{"label": str(label)} for label in labels]
    lowest = highest = 0.0
    side = next(iter(images.values())).shape[1]
    for kind, all_of_kind in images.items():
        for digit, image in zip(digits, all_of_kind, strict=True):
            centre = centre_of(image[..., 0])
            points: dict[str, dict[str, list[list[float]]]] = {name: {} for name in models}
            for name, model in models.items():
                for layer in layers:
                    places, paths = points_at(model, image, layer, centre)
                    lowest, highest = min(lowest, places.min()), max(highest, places.max())
                    rounded = places.round(1).tolist()
                    points[name][layer] = [[y, x, int(count)] for (y, x), count in zip(rounded, paths, strict=True)]
            pixels = (255 * image[..., 0]).round().astype(np.uint8)
            digit[kind] = {"image": base64.b64encode(pixels.tobytes()).decode(), "points": points}
    data = {
        "digits": digits,
        "kinds": list(images),
        "models": {name: {"name": MODELS[name], "colour": to_hex(COLOURS[name])} for name in models},
        "layers": list(layers),
        "side": side,
        "margin": int(np.ceil(max(-lowest, highest - side + 1, 1))),
    }
    return TEMPLATE.read_text(encoding="utf-8").replace("DATA", json.dumps(data, separators=(",", ":")))
