"""What the layers of the networks cost: parameters and multiply-adds."""

from __future__ import annotations

import math
from typing import Any

import keras

from dcn import models
from dcn.layers import ConvOffset2D, DeformableConv2D
from dcn_study.experiments.regions import parameters
from dcn_study.names import ARMS
from dcn_study.runs import networks
from dcn_study.runs.catalogue import PAPER, RUNS, arm_config

__all__ = ["layers_of", "model_costs", "multiply_adds"]


def model_costs(*, height: int, width: int, classes: int) -> dict[str, Any]:
    """Returns what the layers of the paper's models cost, of the mini-ResNet as it draws it, and of the studies' arms.

    Args:
        height: of the images, in pixels.
        width: of the images, in pixels.
        classes: of the images.

    Returns:
        "layers": for each of the paper's models, frozen as in its run, and "chained_mini_resnet", see `layers_of`.
        "arms": by arm the multiply-adds for one image of its task.
        "regions": the parameters of the network that classifies regions, see `regions.parameters`.
    """
    built = {
        name: getattr(models, name)((height, width, 1), classes=classes, trainable=RUNS[name].config.trainable)
        for name in PAPER
    }
    built["chained_mini_resnet"] = models.mini_resnet((height, width, 1), classes=classes, chained=True)
    arms = {arm: networks.build_model(arm_config(arm)) for arm in ARMS}
    return {
        "layers": {name: layers_of(model) for name, model in built.items()},
        "arms": {arm: sum(map(multiply_adds, model.layers)) for arm, model in arms.items()},
        "regions": parameters(),
    }


def layers_of(model: keras.Model) -> list[dict[str, Any]]:
    """Returns for each layer its name, its output shape, its parameters, how many train, and its multiply-adds."""
    return [
        {
            "layer": layer.name,
            "output": " x ".join(str(size) for size in layer.output.shape[1:]),
            "parameters": layer.count_params(),
            "trainable": sum(math.prod(weight.shape) for weight in layer.trainable_weights),
            "multiply-adds": multiply_adds(layer),
        }
        for layer in model.layers
    ]


def multiply_adds(layer: keras.layers.Layer) -> int:
    """Returns the multiply-adds that a layer takes for one image.

    Counts convolutions, dense layers and, of deformable layers, bilinear interpolation (four for each value read).
    Batch normalisation, activations, additions and pooling are not counted, about two per cent of the residual networks
    and less of the others, nor is the sampling of the spatial transformer.
    """
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
