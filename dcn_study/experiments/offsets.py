"""Whether offsets learn: the published layer in the first steps of its training."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dcn.layers import ConvOffset2D
from dcn_study.errors import ConfigurationError
from dcn_study.names import RANDOM_START
from dcn_study.runs import networks, weights
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.splits import splits

__all__ = ["trace_offsets"]

TRACED: dict[str, dict[str, Any]] = {
    "as published": {},
    "random start": {"offset_stddev": RANDOM_START},
    "corners repaired": {"corners": "bilinear"},
    "corners and pairing repaired": {"corners": "bilinear", "pairing": "per_pixel"},
}


def trace_offsets(*, run: str, steps: int, seed: int) -> dict[str, Any]:
    """Follows the offset layers through the first steps of a run.

    Args:
        run: a run whose model has `ConvOffset2D` layers.
        steps: how many training steps, within the first epoch.
        seed: of the run.

    Returns:
        "traces": for each of `TRACED` the "loss", and by offset layer the largest
        absolute value of "gradient", of the loss with respect to its kernel, and of "kernel" after the step; one number
        per step.

    Raises:
        ConfigurationError: if a parameter breaks its rule, or the run that it starts from has no record.
        RecordError: if a record is damaged.
    """
    configurations = {name: find_run(run, seed=seed, **changes).config for name, changes in TRACED.items()}
    published = configurations["as published"]
    most = published.train_size // published.batch_size
    if not 1 <= steps <= most:
        raise ConfigurationError(f"steps must be from 1 to {most}. Received: steps={steps}")
    return {"traces": {name: _trace(config, steps, name) for name, config in configurations.items()}}


def _trace(config: RunConfig, steps: int, name: str) -> dict[str, Any]:
    data = splits(config)
    model = networks.initial_model(data, weights.start_of(config))
    kernels = {layer.name: layer.kernel for layer in model.layers if isinstance(layer, ConvOffset2D)}

    @tf.function(autograph=False)
    def step(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            predicted = model(images, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, predicted))
        weights = model.trainable_variables
        gradients = tape.gradient(loss, [weight.value for weight in weights])
        model.optimizer.apply(gradients, weights)
        by_path = {weight.path: gradient for weight, gradient in zip(weights, gradients, strict=True)}
        return loss, [tf.reduce_max(tf.abs(by_path[kernel.path])) for kernel in kernels.values()]

    images, labels = data.train(0, first=steps * config.batch_size)
    losses: list[float] = []
    traced: dict[str, dict[str, list[float]]] = {layer: {"gradient": [], "kernel": []} for layer in kernels}
    for number in tqdm(range(steps), desc=name):
        part = slice(number * config.batch_size, (number + 1) * config.batch_size)
        loss, largest = step(tf.constant(images[part]), tf.constant(labels[part]))
        losses.append(float(loss))
        for (layer, kernel), gradient in zip(kernels.items(), largest, strict=True):
            traced[layer]["gradient"].append(float(gradient))
            traced[layer]["kernel"].append(float(np.abs(kernel).max()))
    return {"loss": losses, "layers": traced}
