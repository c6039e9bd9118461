"""Tables of models and their layers: parameters and multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from dcn_study.names import MODELS
from dcn_study.show.tables.layout import with_corner

if TYPE_CHECKING:
    import keras

__all__ = ["layers", "models", "multiply_adds"]

REGULAR_MODEL = {
    "cnn": "cnn",
    "deformable_cnn": "cnn",
    "deform_conv_cnn": "cnn",
    "mini_resnet": "mini_resnet",
    "deformable_mini_resnet": "mini_resnet",
}


def multiply_adds(layer: keras.layers.Layer) -> int:
    """Returns the multiply-adds that a layer takes for one image.

    Counts convolutions, dense layers and bilinear interpolation (four for each value read). Batch normalisation,
    activations, additions and pooling are not counted: together they are far below one per cent.
    """
    import keras  # which loads TensorFlow: other tables do without

    from dcn.layers import ConvOffset2D, DeformableConv2D

    output = layer.output.shape[1:]
    if isinstance(layer, ConvOffset2D):
        return math.prod(output[:2]) * (math.prod(layer.kernel.shape) + 4 * layer.filters)
    if isinstance(layer, keras.layers.Conv2D):
        reads = math.prod(layer.kernel.shape)
        if isinstance(layer, DeformableConv2D):
            reads += math.prod(layer.offset_kernel.shape) + 4 * math.prod(layer.kernel.shape[:3])
        return math.prod(output[:2]) * reads
    if isinstance(layer, keras.layers.Dense):
        return math.prod(layer.kernel.shape)
    return 0


def layers(model: keras.Model) -> pd.DataFrame:
    """Returns one row per layer: its output shape, its parameters, how many are trainable, and its multiply-adds."""
    rows = [
        {
            "layer": layer.name,
            "output": " x ".join(str(size) for size in layer.output.shape[1:]),
            "parameters": layer.count_params(),
            "trainable": _trainable(layer),
            "multiply-adds": multiply_adds(layer),
        }
        for layer in model.layers
    ]
    sums = {name: sum(row[name] for row in rows) for name in ("parameters", "trainable", "multiply-adds")}
    return with_corner(pd.DataFrame([*rows, {"layer": "all", "output": "", **sums}]).set_index("layer"), "layer")


def models(built: Mapping[str, keras.Model]) -> pd.DataFrame:
    """Returns one row per model: parameters, how many train, multiply-adds for one image, and these as a ratio.

    Args:
        built: by name, as `published.ACCURACY` names them, each with its layers frozen as in its run. The ratio is
            that to the regular model of the same family.
    """
    costs = {name: sum(multiply_adds(layer) for layer in model.layers) for name, model in built.items()}
    rows = {
        MODELS[name]: {
            "parameters": model.count_params(),
            "trainable": _trainable(model),
            "multiply-adds (million)": costs[name] / 1e6,
            "ratio": costs[name] / costs[REGULAR_MODEL[name]],
        }
        for name, model in built.items()
    }
    return with_corner(pd.DataFrame.from_dict(rows, orient="index"), "model")


def _trainable(part: keras.layers.Layer) -> int:
    return sum(math.prod(weight.shape) for weight in part.trainable_weights)
