"""The resampling of `ConvOffset2D`.

It is cut into clusters that XLA compiles, one for each result: a gather that only one result reads is fused with the
arithmetic around it, one that two results share is written to memory first, which takes nearly twice as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = ["resample_by_offsets"]

_cluster = tf.function(jit_compile=True, autograph=False)


def resample_by_offsets(
    inputs: tf.Tensor,
    offsets: tf.Tensor,
    *,
    corners: str = "published",
    pairing: str = "published",
    jit_compile: bool = True,
) -> tf.Tensor:
    """Moves every value of every channel by its own offset: the resampling of `ConvOffset2D`.

    Output (b, y, x, c) reads channel c of image b at (y + dy, x + dx), bilinearly. Coordinates outside the image
    are moved to its border, each axis at its own end; the derivative with respect to an offset is zero there.

    Two properties of the published layer are unusual. They are the default, because results were published with
    them, and each can be repaired on its own:

    * Corners. "published" interpolates between floor and ceil of a coordinate. Where the coordinate is an integer
      both are the same pixel, and the derivative with respect to the offset is zero. "bilinear" interpolates
      between floor and floor + 1: the same values, and at an integer the right-sided derivative.
    * Pairing. "published" transposes the offsets to (B, 2C, H, W) and reshapes them to (B, C, H·W, 2), so that
      (dy, dx) are two neighbouring numbers of one offset channel. "per_pixel" takes channels (2c, 2c + 1) of the
      pixel itself.

    Args:
        inputs: (B, H, W, C), floating point.
        offsets: (B, H, W, 2C), in pixels, same type as `inputs`.
        corners: "published" or "bilinear".
        pairing: "published" or "per_pixel".
        jit_compile: whether XLA compiles the resampling and its gradients. Without it, the same TensorFlow operations
            run one by one: slower, for platforms that have no XLA.

    Returns:
        (B, H, W, C), the resampled values. A NaN offset gives NaN where it is read.

    Raises:
        ValueError: if a rank is not 4, `offsets` has not twice the channels of `inputs`, or a choice is unknown.

    Source: D. Oza (2019), after F. Lau, "deform-conv" (2017).
    """
    inputs, offsets = tf.convert_to_tensor(inputs), tf.convert_to_tensor(offsets)
    if inputs.shape.rank != 4 or offsets.shape.rank != 4:
        raise ValueError(
            "inputs and offsets must have rank 4 (batch, height, width, channels). "
            f"Received: inputs.shape={inputs.shape}, offsets.shape={offsets.shape}"
        )
    if inputs.shape[3] is None or offsets.shape[3] != 2 * inputs.shape[3]:
        raise ValueError(
            "offsets must have twice as many channels as inputs. "
            f"Received: inputs.shape={inputs.shape}, offsets.shape={offsets.shape}"
        )
    if corners not in ("published", "bilinear"):
        raise ValueError(f"corners must be 'published' or 'bilinear'. Received: corners={corners!r}")
    if pairing not in ("published", "per_pixel"):
        raise ValueError(f"pairing must be 'published' or 'per_pixel'. Received: pairing={pairing!r}")
    return _resample(inputs, offsets, corners == "bilinear", pairing == "per_pixel", jit_compile)


def _resample(inputs: tf.Tensor, offsets: tf.Tensor, bilinear: bool, per_pixel: bool, jit_compile: bool) -> tf.Tensor:
    def run(cluster: Any, *arguments: tf.Tensor) -> tf.Tensor:
        function = cluster if jit_compile else cluster.python_function
        return function(*arguments)

    @tf.custom_gradient
    def resample(inputs: tf.Tensor, offsets: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        # Hidden from an outer tape, which would differentiate the clusters themselves.
        inputs, offsets = tf.stop_gradient(inputs), tf.stop_gradient(offsets)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            along_y = run(_resample_gradient_y, inputs, offsets, upstream, bilinear, per_pixel)
            along_x = run(_resample_gradient_x, inputs, offsets, upstream, bilinear, per_pixel)
            return (
                run(_resample_gradient_inputs, inputs, offsets, upstream, bilinear, per_pixel),
                run(_join_pairs, along_y, along_x, offsets, per_pixel),
            )

        return run(_resample_values, inputs, offsets, bilinear, per_pixel), gradient

    return resample(inputs, offsets)


class _Corners:
    """For each value (B, H·W, C): where its four neighbours lie in the flattened input, and how far between."""

    def __init__(self, inputs: tf.Tensor, offsets: tf.Tensor, bilinear: bool, per_pixel: bool) -> None:
        batch, height, width, channels = tf.unstack(tf.shape(inputs))
        dy, dx = _split_pairs(offsets, per_pixel)  # (B, H·W, C)
        pixels = tf.range(height * width)[:, None]
        y = tf.cast(pixels // width, dy.dtype) + dy
        x = tf.cast(pixels % width, dx.dtype) + dx
        y, self.inside_y, top, down = _between(y, height, bilinear)
        x, self.inside_x, left, right = _between(x, width, bilinear)
        self.down = tf.cast(y - tf.cast(top, y.dtype), inputs.dtype)
        self.right = tf.cast(x - tf.cast(left, x.dtype), inputs.dtype)
        first = tf.range(batch)[:, None, None] * (height * width * channels) + tf.range(channels)
        self.top_left = first + (top * width + left) * channels
        self.top_right = self.top_left + right * channels
        self.bottom_left = self.top_left + down * width * channels
        self.bottom_right = self.bottom_left + right * channels


def _between(coordinate: tf.Tensor, size: tf.Tensor, bilinear: bool) -> tuple[tf.Tensor, ...]:
    """Returns the coordinate moved into the image, whether it was inside, the pixel before, the step to the next."""
    last = tf.cast(size - 1, coordinate.dtype)
    inside = (coordinate >= 0) & (coordinate <= last)
    coordinate = tf.clip_by_value(coordinate, 0, last)
    before = tf.floor(coordinate)
    after = tf.minimum(before + 1, last) if bilinear else tf.math.ceil(coordinate)
    readable = tf.math.logical_not(tf.math.is_nan(coordinate))
    index = tf.cast(tf.where(readable, before, 0), tf.int32)
    return coordinate, inside, index, tf.cast(tf.where(readable, after - before, 0), tf.int32)


def _split_pairs(offsets: tf.Tensor, per_pixel: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns dy and dx, each (B, H·W, C), from (B, H, W, 2C), in float32 or better."""
    batch, height, width, doubled = tf.unstack(tf.shape(offsets))
    offsets = tf.cast(offsets, tf.float64 if offsets.dtype == tf.float64 else tf.float32)
    if per_pixel:
        pairs = tf.reshape(offsets, (batch, height * width, doubled // 2, 2))
        return pairs[..., 0], pairs[..., 1]
    # Number s·H·W + pixel of the channels 2c + s laid end to end is number i of pair p, with 2p + i = s·H·W + pixel.
    pairs = tf.reshape(offsets, (batch, height * width, doubled // 2, 2))
    pairs = tf.transpose(pairs, (0, 3, 1, 2))  # (B, s, H·W, C)
    pairs = tf.reshape(pairs, (batch, height * width, 2, doubled // 2))
    return pairs[:, :, 0], pairs[:, :, 1]


@_cluster
def _join_pairs(dy: tf.Tensor, dx: tf.Tensor, like: tf.Tensor, per_pixel: bool) -> tf.Tensor:
    """Undoes `_split_pairs`: returns (B, H, W, 2C), with the shape and type of `like`."""
    if per_pixel:
        pairs = tf.stack((dy, dx), axis=3)
    else:
        batch, pixels, channels = tf.unstack(tf.shape(dy))
        pairs = tf.reshape(tf.stack((dy, dx), axis=2), (batch, 2, pixels, channels))
        pairs = tf.transpose(pairs, (0, 2, 3, 1))
    return tf.cast(tf.reshape(pairs, tf.shape(like)), like.dtype)


@_cluster
def _resample_values(inputs: tf.Tensor, offsets: tf.Tensor, bilinear: bool, per_pixel: bool) -> tf.Tensor:
    at, read = _Corners(inputs, offsets, bilinear, per_pixel), _reader(inputs)
    values = (1 - at.down) * ((1 - at.right) * read(at.top_left) + at.right * read(at.top_right)) + at.down * (
        (1 - at.right) * read(at.bottom_left) + at.right * read(at.bottom_right)
    )
    return tf.reshape(values, tf.shape(inputs))


@_cluster
def _resample_gradient_y(
    inputs: tf.Tensor, offsets: tf.Tensor, upstream: tf.Tensor, bilinear: bool, per_pixel: bool
) -> tf.Tensor:
    at, read = _Corners(inputs, offsets, bilinear, per_pixel), _reader(inputs)
    slope = (1 - at.right) * (read(at.bottom_left) - read(at.top_left)) + at.right * (
        read(at.bottom_right) - read(at.top_right)
    )
    return tf.where(at.inside_y, slope * tf.reshape(upstream, tf.shape(slope)), 0)


@_cluster
def _resample_gradient_x(
    inputs: tf.Tensor, offsets: tf.Tensor, upstream: tf.Tensor, bilinear: bool, per_pixel: bool
) -> tf.Tensor:
    at, read = _Corners(inputs, offsets, bilinear, per_pixel), _reader(inputs)
    slope = (1 - at.down) * (read(at.top_right) - read(at.top_left)) + at.down * (
        read(at.bottom_right) - read(at.bottom_left)
    )
    return tf.where(at.inside_x, slope * tf.reshape(upstream, tf.shape(slope)), 0)


@_cluster
def _resample_gradient_inputs(
    inputs: tf.Tensor, offsets: tf.Tensor, upstream: tf.Tensor, bilinear: bool, per_pixel: bool
) -> tf.Tensor:
    at = _Corners(inputs, offsets, bilinear, per_pixel)
    upstream = tf.reshape(upstream, tf.shape(at.down))
    gradient = tf.zeros_like(tf.reshape(inputs, (-1,)))
    # One scatter after the other: a single one over the four sets laid end to end takes twice as long.
    for index, share in (
        (at.top_left, (1 - at.down) * (1 - at.right)),
        (at.top_right, (1 - at.down) * at.right),
        (at.bottom_left, at.down * (1 - at.right)),
        (at.bottom_right, at.down * at.right),
    ):
        gradient = tf.tensor_scatter_nd_add(gradient, tf.reshape(index, (-1, 1)), tf.reshape(share * upstream, (-1,)))
    return tf.reshape(gradient, tf.shape(inputs))


def _reader(inputs: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    values = tf.reshape(inputs, (-1,))
    return lambda index: tf.gather(values, index)
