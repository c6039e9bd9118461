"""The robustness measurement as a map to explore in a browser."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dcn_study.experiments.moves import move
from dcn_study.names import MODELS
from dcn_study.runs.data import load_digits

__all__ = ["interactive_map"]

TEMPLATE = Path(__file__).with_suffix(".html")


def interactive_map(measured: Mapping[str, Any], digit: int = 0) -> str:
    """Returns HTML that shows a measurement as a map: one chooses the model, and looks at each scale and shift.

    It loads neither a script nor a style sheet.

    Args:
        measured: the results of `robustness.robustness`.
        digit: index of the test digit that is shown as the chosen scale and shift make it.
    """
    image = load_digits().x_test[digit : digit + 1].astype(np.float32)
    data = {
        "names": {model: MODELS[model] for model in measured["accuracies"]},
        **{key: measured[key] for key in ("zooms", "shifts", "accuracies")},
        "digits": [[_encoded(move(image, zoom, shift)) for shift in measured["shifts"]] for zoom in measured["zooms"]],
        "side": image.shape[1],
    }
    return TEMPLATE.read_text(encoding="utf-8").replace("DATA", json.dumps(data))


def _encoded(image: np.ndarray) -> str:
    return base64.b64encode(image.round().astype(np.uint8).tobytes()).decode()
