"""How long the models take, measured in one process, in turn, with quartiles; and the memory they need."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dcn import models, ops
from dcn.layers import ConvOffset2D, DeformableConv2D
from dcn_study.errors import ConfigurationError
from dcn_study.experiments.as_published import PublishedConvOffset2D
from dcn_study.experiments.timing import peak_memory, peak_memory_here, times

__all__ = ["CONTESTANTS", "compare", "contestant_call", "random_data", "training_step_here"]


class WithoutXLA(ConvOffset2D):
    """The layer with its resampling as plain TensorFlow operations."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        offsets = keras.ops.conv(inputs, self.kernel, padding="same", data_format="channels_last")
        return ops.resample_by_offsets(inputs, offsets, corners=self.corners, pairing=self.pairing, jit_compile=False)


def _with_layer(
    layer: type[ConvOffset2D], build: Callable[..., keras.Model], input_shape: tuple[int, int, int]
) -> keras.Model:
    """Returns a deformable model, frozen as in its run, with another layer in place of `ConvOffset2D`."""

    def clone(original: keras.layers.Layer) -> keras.layers.Layer:
        kind = layer if type(original) is ConvOffset2D else type(original)
        return kind.from_config(original.get_config())

    model = build(input_shape, trainable=False)
    replaced = keras.models.clone_model(model, clone_function=clone)
    replaced.set_weights(model.get_weights())
    return replaced


@dataclasses.dataclass(frozen=True)
class _Contestant:
    """A model, frozen as in its run, and whether XLA compiles all of it."""

    build: Callable[[tuple[int, int, int]], keras.Model]
    jit_compile: bool = False


_deformable_cnn = partial(models.deformable_cnn, trainable=False)
_deform_conv_cnn = partial(models.deform_conv_cnn, trainable=False)

CONTESTANTS = {
    "CNN": _Contestant(models.cnn),
    "deformable CNN, published code": _Contestant(partial(_with_layer, PublishedConvOffset2D, models.deformable_cnn)),
    "deformable CNN, ours without XLA": _Contestant(partial(_with_layer, WithoutXLA, models.deformable_cnn)),
    "deformable CNN, ours": _Contestant(_deformable_cnn),
    "deformable CNN, ours, whole model in XLA": _Contestant(_deformable_cnn, jit_compile=True),
    "CNN with DeformableConv2D": _Contestant(_deform_conv_cnn),
    "CNN with DeformableConv2D, modulated": _Contestant(partial(_deform_conv_cnn, modulated=True)),
    "mini-ResNet": _Contestant(models.mini_resnet),
    "deformable mini-ResNet, published code": _Contestant(
        partial(_with_layer, PublishedConvOffset2D, models.deformable_mini_resnet)
    ),
    "deformable mini-ResNet, ours": _Contestant(partial(models.deformable_mini_resnet, trainable=False)),
}


def compare(
    *,
    batches: str,
    sizes: str,
    batch: int,
    repeats: int,
    threads: int,
    device: str,
    memory: bool,
) -> dict[str, Any]:
    """Times all `CONTESTANTS`.

    Forward passes in inference mode, and training steps as `model.fit` takes them. Each measurement runs all models
    in turn, so that background load affects all models equally.

    Args:
        batches: batch sizes to measure at the first image size, separated by commas.
        sizes: sides of the square images, in pixels, separated by commas.
        batch: batch size for the further image sizes.
        repeats: measurements of each.
        threads: threads of one operation; 0 leaves it to TensorFlow. Only in a process that has not used it yet.
        device: as TensorFlow names it.
        memory: whether to measure the peak memory as well, each model in a process of its own.

    Returns:
        "rows" (milliseconds as quartiles) and "memory" (bytes by contestant).

    Raises:
        ConfigurationError: if a parameter breaks its rule.
    """
    batch_sizes, sides = _positive("batches", batches), _positive("sizes", sizes)
    for name, value, least in (("batch", batch, 1), ("repeats", repeats, 1), ("threads", threads, 0)):
        if value < least:
            raise ConfigurationError(f"{name} must be at least {least}. Received: {name}={value}")

    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    seen = [each.name.removeprefix("/device:") for each in tf.config.list_logical_devices()]
    if device.removeprefix("/").removeprefix("device:") not in seen:
        raise ConfigurationError(f"device must be one of {', '.join(seen)}. Received: device={device!r}")
    settings = dict.fromkeys([(each, sides[0]) for each in batch_sizes] + [(batch, side) for side in sides])
    results: list[dict[str, Any]] = []
    with tf.device(device):
        for batch_size, side in tqdm(settings, desc="batch and image sizes"):
            results += _measure(batch_size, side, repeats)
    peaks: dict[str, int | None] = dict.fromkeys(CONTESTANTS)
    for name in tqdm(CONTESTANTS if memory else (), desc="peak memory"):
        peaks[name] = peak_memory(training_step_here, name, batch, sides[0])
    return {"rows": results, "memory": peaks}


def _positive(name: str, text: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise ConfigurationError(f"{name} must be positive integers separated by commas. Received: {name}={text!r}")
    return values


def _measure(batch: int, side: int, repeats: int) -> list[dict[str, Any]]:
    images, labels = random_data(batch, side)
    rows = []
    for what in ("forward", "training step"):
        calls = {name: contestant_call(name, what, images, labels) for name in CONTESTANTS}
        for name, (low, median, high) in times(calls, repeats).items():
            row = {"model": name, "batch": batch, "size": side, "what": what}
            rows.append({**row, "low": low, "milliseconds": median, "high": high})
    return rows


def random_data(batch: int, side: int) -> tuple[tf.Tensor, tf.Tensor]:
    random = np.random.default_rng(0)
    images = tf.constant(random.uniform(size=(batch, side, side, 1)), tf.float32)
    return images, tf.constant(random.integers(10, size=batch))


def contestant_call(name: str, what: str, images: tf.Tensor, labels: tf.Tensor) -> Callable[[], Any]:
    """Returns a function that computes one forward pass or one training step of a contestant, traced already."""
    contestant = CONTESTANTS[name]
    model = contestant.build(tuple(images.shape[1:]))
    _draw_offset_kernels(model)
    if what == "forward":
        predict = tf.function(
            partial(model, training=False), autograph=False, jit_compile=contestant.jit_compile or None
        )
        call: Callable[[], Any] = lambda: predict(images)  # noqa: E731
    else:
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=contestant.jit_compile)
        call = lambda: model.train_on_batch(images, labels)  # noqa: E731
    call()
    return call


def _draw_offset_kernels(model: keras.Model) -> None:
    """Gives the offset kernels values that make offsets of about a pixel; zeros would read neighbouring memory."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, ConvOffset2D | DeformableConv2D):
            kernel = layer.kernel if isinstance(layer, ConvOffset2D) else layer.offset_kernel
            kernel.assign(random.normal(size=kernel.shape) / math.sqrt(math.prod(kernel.shape[:3])))


def training_step_here(name: str, batch: int, side: int) -> int:
    """Returns the bytes that a training step of a contestant takes at its peak, in this process."""
    images, labels = random_data(batch, side)
    return peak_memory_here(lambda: contestant_call(name, "training step", images, labels))
