"""Resampling for `ConvOffset2D`.

XLA compiles one cluster per result. A gather that only one result uses is fused with the arithmetic around it. A gather
shared by two results is written to memory first, which takes nearly twice as long.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from dcn.ops.compilation import cluster, require_choice, uses_xla
from dcn.ops.differentiation import differentiable_once
from dcn.ops.interpolation import lerp

__all__ = ["resample_by_offsets"]

_NUMBERS = 2**31  # limit for the numbers in a tensor, whose indices have 32 bits


def resample_by_offsets(
    inputs: tf.Tensor,
    offsets: tf.Tensor,
    *,
    corners: str = "published",
    pairing: str = "published",
    jit_compile: bool | None = None,
) -> tf.Tensor:
    """Resamples every value of every channel at its own offset: the operation of `ConvOffset2D`.

    Output (b, y, x, c) is channel c of image b at (y + dy, x + dx), by bilinear interpolation. Coordinates outside the
    image are clipped to its border, each axis separately; the derivative with respect to an offset is zero there.

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
        jit_compile: whether XLA compiles the resampling and its gradients, as for `deform_conv2d`. Without XLA the same
            TensorFlow operations run one by one, which is slower.

    Returns:
        (B, H, W, C), the resampled values. A NaN offset gives NaN where it is used. Only first derivatives in reverse
        mode are defined.

    Raises:
        ValueError: if a rank is not 4, a shape or a type does not fit, a choice is unknown, or `inputs` has 2^31
            numbers or more.
        tf.errors.InvalidArgumentError: when run, if sizes that were unknown do not fit. XLA omits this check.
        NotImplementedError: for a second derivative, and for forward mode.

    Source: D. Oza (2019), after F. Lau, "deform-conv" (2017).
    """
    require_choice(jit_compile)
    inputs, offsets = tf.convert_to_tensor(inputs), tf.convert_to_tensor(offsets)
    _check(inputs, offsets, corners, pairing)
    offsets = _checked_when_run(inputs, offsets)
    choices = corners == "bilinear", pairing == "per_pixel"
    compiled = uses_xla(jit_compile, ("resample", inputs.dtype, inputs.shape[3], choices), inputs)
    return _resample(inputs, offsets, *choices, compiled)


def _check(inputs: tf.Tensor, offsets: tf.Tensor, corners: str, pairing: str) -> None:
    received = f"Received: inputs.shape={inputs.shape}, offsets.shape={offsets.shape}"
    if inputs.shape.rank != 4 or offsets.shape.rank != 4:
        raise ValueError(f"inputs and offsets must have rank 4 (batch, height, width, channels). {received}")
    if inputs.shape[3] is None or offsets.shape[3] != 2 * inputs.shape[3]:
        raise ValueError(f"offsets must have twice as many channels as inputs. {received}")
    if not inputs.shape[:3].is_compatible_with(offsets.shape[:3]):
        raise ValueError(f"offsets must have the batch, the height and the width of inputs. {received}")
    if not inputs.dtype.is_floating or offsets.dtype != inputs.dtype:
        raise ValueError(
            "inputs and offsets must be of one floating-point type. "
            f"Received: inputs.dtype={inputs.dtype.name}, offsets.dtype={offsets.dtype.name}"
        )
    if corners not in ("published", "bilinear"):
        raise ValueError(f"corners must be 'published' or 'bilinear'. Received: corners={corners!r}")
    if pairing not in ("published", "per_pixel"):
        raise ValueError(f"pairing must be 'published' or 'per_pixel'. Received: pairing={pairing!r}")
    if None not in inputs.shape and math.prod(inputs.shape) >= _NUMBERS:
        raise ValueError(f"inputs must have fewer than 2^31 numbers. Received: inputs.shape={inputs.shape}")


def _checked_when_run(inputs: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
    """Returns the offsets unchanged, with a runtime check of the sizes that are unknown at tracing time."""
    if None not in inputs.shape and None not in offsets.shape:
        return offsets
    numbers = tf.size(inputs, tf.int64)
    checks = [
        tf.debugging.assert_less(numbers, tf.constant(_NUMBERS, tf.int64), "inputs must have fewer than 2^31 numbers"),
        tf.debugging.assert_equal(
            tf.shape(inputs)[:3],
            tf.shape(offsets)[:3],
            "offsets must have the batch, the height and the width of inputs",
        ),
    ]
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.ensure_shape(offsets, (*inputs.shape[:3], None))


def _resample(inputs: tf.Tensor, offsets: tf.Tensor, bilinear: bool, per_pixel: bool, compiled: bool) -> tf.Tensor:
    def run(function: Any, *arguments: Any) -> Any:
        return (function if compiled else function.__wrapped__)(*arguments)

    def values(inputs: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
        return run(_resample_values, inputs, offsets, bilinear, per_pixel)

    def gradients(upstream: tf.Tensor, inputs: tf.Tensor, offsets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        along_y = run(_resample_gradient_y, inputs, offsets, upstream, bilinear, per_pixel)
        along_x = run(_resample_gradient_x, inputs, offsets, upstream, bilinear, per_pixel)
        points = run(_sampling_points, inputs, offsets, bilinear, per_pixel)
        scatter = _resample_gradient_inputs if compiled else _gradient_inputs_at_once
        to_inputs = scatter(inputs, upstream, *points)
        to_offsets = run(_join_pairs, along_y, along_x, offsets, per_pixel)
        return tf.ensure_shape(to_inputs, inputs.shape), tf.ensure_shape(to_offsets, offsets.shape)

    outputs = differentiable_once("resample_by_offsets", values, gradients, inputs, offsets)
    outputs.set_shape(inputs.shape)
    return outputs


class _Corners:
    """Indices of each value's four neighbours in the flattened input, and its place between them; all (B, H·W, C)."""

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
    """Returns the clipped coordinate, whether it was inside, the preceding pixel's index, and the step to the next."""
    last = tf.cast(size - 1, coordinate.dtype)
    inside = (coordinate >= 0) & (coordinate <= last)
    readable = tf.math.logical_not(tf.math.is_nan(coordinate))
    clipped = tf.clip_by_value(coordinate, 0, last)
    before = tf.floor(clipped)
    after = tf.minimum(before + 1, last) if bilinear else tf.math.ceil(clipped)
    index, step = (tf.cast(tf.where(readable, number, 0), tf.int32) for number in (before, after - before))
    # NaN must stay NaN: XLA of some versions clips it to a number.
    return tf.where(readable, clipped, coordinate), inside, index, step


def _split_pairs(offsets: tf.Tensor, per_pixel: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns dy and dx, each (B, H·W, C), from (B, H, W, 2C), in float32 or better."""
    batch, height, width, doubled = tf.unstack(tf.shape(offsets))
    offsets = tf.cast(offsets, tf.float64 if offsets.dtype == tf.float64 else tf.float32)
    if per_pixel:
        pairs = tf.reshape(offsets, (batch, height * width, doubled // 2, 2))
        return pairs[..., 0], pairs[..., 1]
    # With channels 2c and 2c + 1 concatenated, number s·H·W + pixel is number i of pair p: 2p + i = s·H·W + pixel.
    pairs = tf.reshape(offsets, (batch, height * width, doubled // 2, 2))
    pairs = tf.transpose(pairs, (0, 3, 1, 2))  # (B, s, H·W, C)
    pairs = tf.reshape(pairs, (batch, height * width, 2, doubled // 2))
    return pairs[:, :, 0], pairs[:, :, 1]


@cluster
def _join_pairs(dy: tf.Tensor, dx: tf.Tensor, like: tf.Tensor, per_pixel: bool) -> tf.Tensor:
    """Inverts `_split_pairs`: returns (B, H, W, 2C), with the shape and type of `like`."""
    if per_pixel:
        pairs = tf.stack((dy, dx), axis=3)
    else:
        batch, pixels, channels = tf.unstack(tf.shape(dy))
        pairs = tf.reshape(tf.stack((dy, dx), axis=2), (batch, 2, pixels, channels))
        pairs = tf.transpose(pairs, (0, 2, 3, 1))
    return tf.cast(tf.reshape(pairs, tf.shape(like)), like.dtype)


@cluster
def _resample_values(inputs: tf.Tensor, offsets: tf.Tensor, bilinear: bool, per_pixel: bool) -> tf.Tensor:
    at, read = _Corners(inputs, offsets, bilinear, per_pixel), _reader(inputs)
    upper = lerp(at.right, read(at.top_left), read(at.top_right))
    lower = lerp(at.right, read(at.bottom_left), read(at.bottom_right))
    values = lerp(at.down, upper, lower)
    return tf.reshape(values, tf.shape(inputs))


@cluster
def _resample_gradient_y(
    inputs: tf.Tensor, offsets: tf.Tensor, upstream: tf.Tensor, bilinear: bool, per_pixel: bool
) -> tf.Tensor:
    at, read = _Corners(inputs, offsets, bilinear, per_pixel), _reader(inputs)
    slope = lerp(at.right, read(at.bottom_left) - read(at.top_left), read(at.bottom_right) - read(at.top_right))
    return tf.where(at.inside_y, slope * tf.reshape(upstream, tf.shape(slope)), 0)


@cluster
def _resample_gradient_x(
    inputs: tf.Tensor, offsets: tf.Tensor, upstream: tf.Tensor, bilinear: bool, per_pixel: bool
) -> tf.Tensor:
    at, read = _Corners(inputs, offsets, bilinear, per_pixel), _reader(inputs)
    slope = lerp(at.down, read(at.top_right) - read(at.top_left), read(at.bottom_right) - read(at.bottom_left))
    return tf.where(at.inside_x, slope * tf.reshape(upstream, tf.shape(slope)), 0)


@cluster
def _sampling_points(inputs: tf.Tensor, offsets: tf.Tensor, bilinear: bool, per_pixel: bool) -> tuple[tf.Tensor, ...]:
    """Returns each value's first neighbour, as an index within its image, and the distances to it; all (B, H·W, C)."""
    at = _Corners(inputs, offsets, bilinear, per_pixel)
    image = tf.range(tf.shape(inputs)[0])[:, None, None] * tf.reduce_prod(tf.shape(inputs)[1:])
    return at.top_left - image, at.right, at.down


@cluster
def _resample_gradient_inputs(
    inputs: tf.Tensor, upstream: tf.Tensor, first: tf.Tensor, right: tf.Tensor, down: tf.Tensor
) -> tf.Tensor:
    """Accumulates the gradient of the inputs image by image, so that it stays in the cache.

    The points come from another cluster: in this one XLA would recompute them for each of the four neighbours.
    """
    batch, height, width, channels = tf.unstack(tf.shape(inputs))
    size = height * width * channels
    images = tf.maximum(batch, 1)

    def by_image(tensor: tf.Tensor) -> tf.Tensor:
        return tf.pad(tf.reshape(tensor, (batch, size)), ((0, images - batch), (0, 0)))

    tensors = [by_image(tensor) for tensor in (upstream, first, right, down)]
    real = tf.float64 if inputs.dtype == tf.float64 else tf.float32

    def add_up(image: tf.Tensor) -> tf.Tensor:
        return _scatter(size, width * channels, channels, *(tensor[image] for tensor in tensors))

    gradients = tf.map_fn(add_up, tf.range(images), fn_output_signature=tf.TensorSpec((None,), real))
    return tf.cast(tf.reshape(gradients[:batch], tf.shape(inputs)), inputs.dtype)


def _gradient_inputs_at_once(
    inputs: tf.Tensor, upstream: tf.Tensor, first: tf.Tensor, right: tf.Tensor, down: tf.Tensor
) -> tf.Tensor:
    """Does without XLA what `_resample_gradient_inputs` does, and without its loop over the images."""
    batch, height, width, channels = tf.unstack(tf.shape(inputs))
    first += tf.range(batch)[:, None, None] * (height * width * channels)
    flat = (tf.reshape(tensor, (-1,)) for tensor in (upstream, first, right, down))
    gradient = _scatter(tf.size(inputs), width * channels, channels, *flat)
    return tf.cast(tf.reshape(gradient, tf.shape(inputs)), inputs.dtype)


def _scatter(
    size: tf.Tensor,
    to_below: tf.Tensor,
    to_right: tf.Tensor,
    upstream: tf.Tensor,
    first: tf.Tensor,
    x: tf.Tensor,
    y: tf.Tensor,
) -> tf.Tensor:
    """Returns the gradients that reach numbers (size,) from values, summed in float32 or better.

    Each value has the gradient `upstream`, `first` as the index of its first neighbour, and (y, x) as its distance from
    it; all (N,).
    """
    real = tf.float64 if upstream.dtype == tf.float64 else tf.float32
    upstream, x, y = (tf.cast(tensor, real) for tensor in (upstream, x, y))
    # A neighbour of weight zero may be outside the image: the first neighbour replaces it.
    to_right, to_below = tf.where(x > 0, to_right, 0), tf.where(y > 0, to_below, 0)
    gradient = tf.zeros((size,), real)
    for index, share in (
        (first, (1 - y) * (1 - x)),
        (first + to_right, (1 - y) * x),
        (first + to_below, y * (1 - x)),
        (first + to_below + to_right, y * x),
    ):
        gradient = tf.tensor_scatter_nd_add(gradient, index[:, None], share * upstream)
    return gradient


def _reader(inputs: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    values = tf.reshape(inputs, (-1,))
    return lambda index: tf.gather(values, index)
