"""How long the models take, beside each other: in one process, in turn, with quartiles; and the memory they need."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from dcn import models
from dcn.layers import ConvOffset2D, DeformableConv2D
from dcn.ops import resampling
from dcn.study import records
from dcn.study.config import ConfigurationError

__all__ = ["CONTESTANTS", "compare", "resample_as_published", "table"]


def resample_as_published(inputs: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
    """Computes `resample_by_offsets` in the way of the published code, to be timed: one plane for each channel.

    Features and offsets are transposed to planes, the four corners are read by `tf.gather_nd` with stacked indices, and
    the result is transposed back. Square images only, as published.
    """
    batch, side, _, channels = inputs.shape
    planes = tf.reshape(tf.transpose(inputs, (0, 3, 1, 2)), (batch * channels, side, side))
    pairs = tf.reshape(tf.transpose(offsets, (0, 3, 1, 2)), (batch * channels, side * side, 2))
    grid = tf.stack(tf.meshgrid(tf.range(side), tf.range(side), indexing="ij"), axis=2)
    points = pairs + tf.cast(tf.reshape(grid, (side * side, 2)), inputs.dtype)
    points = tf.clip_by_value(points, 0, side - 1)
    first, last = tf.cast(tf.floor(points), tf.int32), tf.cast(tf.math.ceil(points), tf.int32)
    plane = tf.repeat(tf.range(batch * channels), side * side)

    def read(y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        places = tf.stack((plane, tf.reshape(y, (-1,)), tf.reshape(x, (-1,))), axis=1)
        return tf.reshape(tf.gather_nd(planes, places), (batch * channels, side * side))

    beyond = points - tf.cast(first, inputs.dtype)
    left = read(first[..., 0], first[..., 1])
    left += (read(last[..., 0], first[..., 1]) - left) * beyond[..., 0]
    right = read(first[..., 0], last[..., 1])
    right += (read(last[..., 0], last[..., 1]) - right) * beyond[..., 0]
    moved = left + (right - left) * beyond[..., 1]
    return tf.transpose(tf.reshape(moved, (batch, channels, side, side)), (0, 2, 3, 1))


class PublishedConvOffset2D(ConvOffset2D):
    """The layer with the published way of resampling in the place of ours."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        offsets = keras.ops.conv(inputs, self.kernel, padding="same", data_format="channels_last")
        return resample_as_published(inputs, offsets)


def _replaced(model: keras.Model, kind: type, replacement: Callable[..., keras.layers.Layer]) -> keras.Model:
    """Returns a model with all layers of a kind replaced by others of the same configuration."""

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        make = replacement if type(layer) is kind else type(layer).from_config
        return make(layer.get_config())

    return keras.models.clone_model(model, clone_function=clone)


def _as_published(build: Callable[..., keras.Model], input_shape: tuple[int, int, int]) -> keras.Model:
    model = build(input_shape, trainable=False)
    published = _replaced(model, ConvOffset2D, PublishedConvOffset2D.from_config)
    published.set_weights(model.get_weights())
    return published


def _modulated(input_shape: tuple[int, int, int]) -> keras.Model:
    return _replaced(
        models.deform_conv_cnn(input_shape, trainable=False),
        DeformableConv2D,
        lambda config: DeformableConv2D.from_config({**config, "modulated": True}),
    )


@contextmanager
def _without_xla() -> Iterator[None]:
    """Takes the resampling's clusters as the plain TensorFlow functions that they are made of."""
    clusters = {name: each for name, each in vars(resampling).items() if hasattr(each, "python_function")}
    try:
        for name, cluster in clusters.items():
            setattr(resampling, name, cluster.python_function)
        yield
    finally:
        for name, cluster in clusters.items():
            setattr(resampling, name, cluster)


@dataclasses.dataclass(frozen=True)
class _Contestant:
    """A model, frozen as in its run, and how it is computed: `around` is in force while TensorFlow traces it."""

    build: Callable[[tuple[int, int, int]], keras.Model]
    regular: str
    around: Callable[[], Any] = nullcontext
    jit_compile: bool = False


_deformable_cnn = partial(models.deformable_cnn, trainable=False)
_deformable_mini_resnet = partial(models.deformable_mini_resnet, trainable=False)
_deform_conv_cnn = partial(models.deform_conv_cnn, trainable=False)

CONTESTANTS = {
    "CNN": _Contestant(models.cnn, "CNN"),
    "deformable CNN, published code": _Contestant(partial(_as_published, models.deformable_cnn), "CNN"),
    "deformable CNN, ours without XLA": _Contestant(_deformable_cnn, "CNN", _without_xla),
    "deformable CNN, ours": _Contestant(_deformable_cnn, "CNN"),
    "deformable CNN, ours, whole model in XLA": _Contestant(_deformable_cnn, "CNN", jit_compile=True),
    "CNN with DeformableConv2D": _Contestant(_deform_conv_cnn, "CNN"),
    "CNN with DeformableConv2D, modulated": _Contestant(_modulated, "CNN"),
    "mini-ResNet": _Contestant(models.mini_resnet, "mini-ResNet"),
    "deformable mini-ResNet, published code": _Contestant(
        partial(_as_published, models.deformable_mini_resnet), "mini-ResNet"
    ),
    "deformable mini-ResNet, ours": _Contestant(_deformable_mini_resnet, "mini-ResNet"),
}


def compare(
    *,
    batches: str,
    sizes: str,
    batch: int,
    repeats: int,
    threads: int,
    device: str,
    force: bool = False,
) -> dict[str, Any]:
    """Returns the times of all `CONTESTANTS`; measures if there is no record of these parameters, or if forced to.

    Forward passes in inference mode, and training steps as `model.fit` takes them. Each measurement runs all models
    in turn, so that whatever else the machine does strikes all of them alike.

    Args:
        batches: batch sizes to measure at the first image size, separated by commas.
        sizes: sides of the square images, in pixels, separated by commas.
        batch: batch size for the further image sizes.
        repeats: measurements of each.
        threads: threads of one operation; 0 leaves it to TensorFlow. Only in a process that has not used it yet.
        device: as TensorFlow names it.
        force: whether to measure although there is a record.

    Returns:
        The record: "parameters", "results" (rows of milliseconds as quartiles), "memory", and where it came from.

    Raises:
        ConfigurationError: if a parameter breaks its rule.
    """
    parameters = {"batches": batches, "sizes": sizes, "batch": batch, "repeats": repeats, "threads": threads}
    parameters |= {"device": device}
    batch_sizes, sides = _positive("batches", batches), _positive("sizes", sizes)
    for name, value, least in (("batch", batch, 1), ("repeats", repeats, 1), ("threads", threads, 0)):
        if value < least:
            raise ConfigurationError(f"{name} must be at least {least}. Received: {name}={value}")

    def measure() -> dict[str, Any]:
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
        return {"results": results, "memory": _memory(batch, sides[0])}

    return records.measurement("runtime", parameters, measure, force=force)


def table(measured: dict[str, Any]) -> pd.DataFrame:
    """Returns the results of a comparison, one row each.

    Returns:
        Columns model, regular (the model it is compared with), batch, size, what, low, milliseconds, high (quartiles
        and median), ratio (of the medians, to the regular model).
    """
    frame = pd.DataFrame(measured["results"])
    frame["regular"] = frame["model"].map({name: each.regular for name, each in CONTESTANTS.items()})
    unit = frame.set_index(["model", "batch", "size", "what"])["milliseconds"]
    keys = frame[["regular", "batch", "size", "what"]].itertuples(index=False, name=None)
    frame["ratio"] = frame["milliseconds"] / [unit[key] for key in keys]
    return frame


def _positive(name: str, text: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise ConfigurationError(f"{name} must be positive integers separated by commas. Received: {name}={text!r}")
    return values


def _measure(batch: int, side: int, repeats: int) -> list[dict[str, Any]]:
    images, labels = _data(batch, side)
    rows = []
    for what in ("forward", "training step"):
        calls = {name: _call(name, what, images, labels) for name in CONTESTANTS}
        for name, (low, median, high) in times(calls, repeats).items():
            row = {"model": name, "batch": batch, "size": side, "what": what}
            rows.append({**row, "low": low, "milliseconds": median, "high": high})
    return rows


def _data(batch: int, side: int) -> tuple[tf.Tensor, tf.Tensor]:
    random = np.random.default_rng(0)
    images = tf.constant(random.uniform(size=(batch, side, side, 1)), tf.float32)
    return images, tf.constant(random.integers(10, size=batch))


def _call(name: str, what: str, images: tf.Tensor, labels: tf.Tensor) -> Callable[[], Any]:
    """Returns a function that computes one forward pass or one training step; it has been traced already."""
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
    with contestant.around():
        call()
    return call


def _draw_offset_kernels(model: keras.Model) -> None:
    """Gives the offset kernels values that make offsets of about a pixel; zeros would read neighbouring memory."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, ConvOffset2D | DeformableConv2D):
            kernel = layer.kernel if isinstance(layer, ConvOffset2D) else layer.offset_kernel
            kernel.assign(random.normal(size=kernel.shape) / math.sqrt(math.prod(kernel.shape[:3])))


def _memory(batch: int, side: int) -> dict[str, int | None]:
    """Returns the bytes that a training step takes at its peak, for each model in a process of its own."""
    code = "from functools import partial; from dcn.study.runtime import training_step_here; "
    return {
        name: peak_memory(f"{code}measure = partial(training_step_here, {name!r}, {batch}, {side})")
        for name in tqdm(CONTESTANTS, desc="peak memory")
    }


def training_step_here(name: str, batch: int, side: int) -> int:
    """Returns the bytes that a training step of a contestant takes at its peak, in this process."""
    images, labels = _data(batch, side)
    return peak_memory_here(lambda: _call(name, "training step", images, labels))


def peak_memory(setup: str) -> int | None:
    """Returns what the function `measure`, which `setup` defines, returns in a new process; None where unsupported."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    code = f"{setup}; print(measure())"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def peak_memory_here(make: Callable[[], Callable[[], Any]]) -> int:
    """Returns the bytes by which the call that `make` returns raises the resident memory at its peak."""
    before = _status("VmRSS")
    call = make()
    call()  # compiles, which takes memory of its own
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets the peak back to what is resident now
    call()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def times(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Returns first quartile, median and third quartile of each, in milliseconds, measured in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for call in contestants.values():
        call()
        call()
    for _ in range(repeats):
        for name, call in contestants.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return {name: quartiles(values) for name, values in seconds.items()}


def quartiles(seconds: Iterable[float]) -> list[float]:
    return [round(float(value), 3) for value in 1000 * np.quantile(list(seconds), (0.25, 0.5, 0.75))]
