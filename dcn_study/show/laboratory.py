"""A laboratory in the page: networks that classify a digit while one draws, scales, shifts and rotates it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib.colors import to_hex

from dcn.layers import ConvOffset2D, DeformableConv2D
from dcn_study.experiments.presets import REGULAR
from dcn_study.names import MODELS
from dcn_study.show.figures import COLOURS

__all__ = ["KERNEL_BITS", "OFFSET_BITS", "laboratory", "packed"]

FOLDER = Path(__file__).parent
KERNEL_BITS, OFFSET_BITS = 12, 16  # offset kernels decide where samples are taken, so that they are kept more exactly
OTHERS = (keras.layers.InputLayer, keras.layers.Activation, keras.layers.GlobalAveragePooling2D)
NUMBERS = ("name", "stride", "height", "width", "channels", "rows", "columns", "filters")


def laboratory(
    models: Mapping[str, keras.Model],
    images: np.ndarray,
    labels: Sequence[int],
    shown: Mapping[str, Any],
    presets: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Returns HTML in which one changes a digit and networks classify it; it needs no server and loads nothing.

    Args:
        models: by name, as `names.MODELS` has them: the paper's CNN, also with layers that move samples.
        images: (N, H, W), uint8, the digits to choose from.
        labels: N digits.
        shown: what is shown at first: "digit", "scale", "layer", "overlay", and those of "width", "down", "right" and
            "rotation" that differ from `presets.REGULAR`.
        presets: as `presets.presets` returns them.

    Raises:
        ValueError: if a network has other layers or convolutions than the paper's CNNs, or one of its `ConvOffset2D`
            layers moves samples.
    """
    tensors: list[dict[str, Any]] = []
    data = {
        "networks": {name: _network(model, tensors) for name, model in models.items()},
        "titles": {name: {"name": MODELS[name], "colour": to_hex(COLOURS[name])} for name in models},
        "numbers": NUMBERS,
        "digits": [
            {"label": str(label), "image": _encoded(image)} for label, image in zip(labels, images, strict=True)
        ],
        "side": images.shape[1],
        "shown": {**REGULAR, **shown},
        "presets": list(presets),
        "tensors": tensors,
    }
    page = (FOLDER / "laboratory.html").read_text(encoding="utf-8")
    page = page.replace("WORKER", json.dumps((FOLDER / "laboratory.worker.js").read_text(encoding="utf-8")))
    return page.replace("DATA", json.dumps(data, separators=(",", ":")))


def _network(model: keras.Model, tensors: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns a network as its layers and the places of their weights in `tensors`, to which it adds them."""

    def keep(values: Any, bits: int = 32) -> int:
        content = packed(np.asarray(values, np.float32), bits)
        if content not in tensors:  # networks share weights
            tensors.append(content)
        return tensors.index(content)

    layers: list[dict[str, Any]] = []
    for layer in model.layers:
        if isinstance(layer, ConvOffset2D):
            if np.any(layer.kernel):
                raise ValueError(f"offsets of ConvOffset2D layers must be zero. Received: {layer.name} of {model.name}")
        elif isinstance(layer, keras.layers.Conv2D):
            plain = layer.dilation_rate == (1, 1) and layer.groups == 1 and layer.activation is keras.activations.linear
            if layer.kernel_size != (3, 3) or layer.padding != "same" or not plain:
                raise ValueError(f"convolutions must be plain, 3x3, 'same'. Received: {layer.name} of {model.name}")
            deformable = isinstance(layer, DeformableConv2D)
            _, height, width, channels = layer.input.shape
            layers.append(
                {
                    "name": layer.name,
                    "stride": layer.strides[0],
                    "height": height,
                    "width": width,
                    "channels": channels,
                    "rows": layer.output.shape[1],
                    "columns": layer.output.shape[2],
                    "filters": layer.filters,
                    "kernel": keep(layer.kernel, KERNEL_BITS),
                    "bias": keep(layer.bias),
                    "offsetKernel": keep(layer.offset_kernel, OFFSET_BITS) if deformable else None,
                    "offsetBias": keep(layer.offset_bias) if deformable else None,
                }
            )
        elif isinstance(layer, keras.layers.BatchNormalization):
            scale = np.asarray(layer.gamma) / np.sqrt(np.asarray(layer.moving_variance) + layer.epsilon)
            layers[-1] |= {
                "scale": keep(scale),
                "shift": keep(np.asarray(layer.beta) - np.asarray(layer.moving_mean) * scale),
            }
        elif isinstance(layer, keras.layers.Dense):
            dense = {"dense": keep(layer.kernel), "denseBias": keep(layer.bias)}
        elif not isinstance(layer, OTHERS):
            raise ValueError(f"layers must be those of the paper's CNNs. Received: {layer.name} of {model.name}")
    return {"layers": layers, **dense}


def packed(values: np.ndarray, bits: int) -> dict[str, Any]:
    """Returns numbers as text: base64 of 32-bit floats, or of 12 or 16-bit integers with a scale for each last index.

    Args:
        values: (..., filters), float32.
        bits: 12, 16 or 32.
    """
    shape = list(values.shape)
    if bits == 32:
        return {"shape": shape, "bits": bits, "data": base64.b64encode(values.astype("<f4").tobytes()).decode()}
    flat = values.reshape(-1, shape[-1])
    scales = (np.abs(flat).max(axis=0) / (2 ** (bits - 1) - 1)).astype(np.float32)
    codes = np.rint(flat / np.where(scales, scales, 1)).astype(np.int64).ravel() + 2 ** (bits - 1)
    if bits == 16:
        content = codes.astype("<u2").tobytes()
    else:
        first, second = np.pad(codes, (0, len(codes) % 2)).reshape(-1, 2).T
        halves = (first & 255, first >> 8 | (second & 15) << 4, second >> 4)
        content = np.stack(halves, axis=1).astype(np.uint8).tobytes()
    return {"shape": shape, "bits": bits, "scales": packed(scales, 32), "data": base64.b64encode(content).decode()}


def _encoded(image: np.ndarray) -> str:
    return base64.b64encode(image.astype(np.uint8).tobytes()).decode()
