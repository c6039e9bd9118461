"""Whether offsets learn, whether trained layers deform, and which offsets are paired."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dcn.layers import ConvOffset2D
from dcn_study.errors import ConfigurationError
from dcn_study.runs import networks, records, weights
from dcn_study.runs.catalogue import run_config
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.data import data_sha256
from dcn_study.runs.records import Measurement, Record
from dcn_study.runs.splits import splits

__all__ = ["RANDOM_START", "compare_with_identity", "pairing_sources", "trace_offsets"]

RANDOM_START = 0.01  # standard deviation of the offset kernels: a default of the paper's listing, which it does not use
TRACED: dict[str, dict[str, Any]] = {
    "as published": {},
    "random start": {"offset_stddev": RANDOM_START},
    "corners repaired": {"corners": "bilinear"},
    "corners and pairing repaired": {"corners": "bilinear", "pairing": "per_pixel"},
}


def trace_offsets(*, run: str, steps: int, seed: int, force: bool = False) -> Measurement:
    """Follows the offset layers through the first steps of a run; measures if there is no record, or if `force`.

    Args:
        run: a run whose model has `ConvOffset2D` layers.
        steps: how many training steps, within the first epoch.
        seed: of the run.
        force: whether to measure although there is a record.

    Returns:
        A measurement with the results "traces": for each of `TRACED` the "loss", and by offset layer the largest
        absolute value of "gradient", of the loss with respect to its kernel, and of "kernel" after the step; one number
        per step.

    Raises:
        ConfigurationError: if a parameter breaks its rule, or the run that it starts from has no record.
        RecordError: if a record is damaged.
    """
    configurations = {name: run_config(run, seed=seed, **changes) for name, changes in TRACED.items()}
    published = configurations["as published"]
    most = published.train_size // published.batch_size
    if not 1 <= steps <= most:
        raise ConfigurationError(f"steps must be from 1 to {most}. Received: steps={steps}")

    def measure() -> dict[str, Any]:
        return {"traces": {name: _trace(config, steps, name) for name, config in configurations.items()}}

    initial = records.initial_record(published)
    parameters = {"run": run, "steps": steps, "seed": seed}
    return records.measurement(
        "offsets", parameters, measure, runs=[initial] if initial else [], data=data_sha256(), force=force
    )


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


def compare_with_identity(record: Record, kind: str) -> dict[str, Any]:
    """Returns how the logits of a trained network change when its `ConvOffset2D` layers are left out.

    Args:
        record: of a run of a model with these layers.
        kind: "plain" or "scaled" test images.

    Returns:
        "images", "logits" (how many were compared), "different" (how many differ in any bit), "largest_difference",
        "largest_kernel" (absolute value in any offset kernel).
    """
    deformable = weights.load_model(record)
    images, _ = splits(record.config).test(kind)
    regular = record.config.model.removeprefix("deformable_")
    config = dataclasses.replace(
        record.config, model=regular, corners="published", pairing="published", offset_stddev=0.0
    )
    plain = networks.build_model(config, images.shape[1:3])
    named = {layer.name: layer for layer in deformable.layers}
    for layer in plain.layers:
        layer.set_weights(named[layer.name].get_weights())
    first, second = networks.logits(deformable, images), networks.logits(plain, images)
    kernels = [layer.kernel for layer in deformable.layers if isinstance(layer, ConvOffset2D)]
    return {
        "images": len(images),
        "logits": first.size,
        "different": int((first.view(np.int32) != second.view(np.int32)).sum()),
        "largest_difference": float(np.abs(first - second).max()),
        "largest_kernel": max(float(np.abs(kernel).max()) for kernel in kernels),
    }


def pairing_sources(height: int, width: int, channels: int) -> np.ndarray:
    """Returns where the published layer takes the offsets of every value from.

    Sends the places of a tensor of offsets, (height, width, 2·channels), through the published transposition and
    reshaping instead of the offsets themselves.

    Args:
        height: of the feature map.
        width: of the feature map.
        channels: of the feature map.

    Returns:
        (height, width, channels, 2, 3): for each value, and for dy and dx, the (y, x, channel) of the offsets' tensor.
    """
    places = np.stack(np.meshgrid(*map(np.arange, (height, width, 2 * channels)), indexing="ij"), axis=3)
    pairs = places.transpose(2, 0, 1, 3).reshape(channels, height, width, 2, 3)
    return pairs.transpose(1, 2, 0, 3, 4)
