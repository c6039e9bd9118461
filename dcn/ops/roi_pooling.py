"""Deformable region-of-interest pooling (Dai et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from dcn.ops.geometry import pair
from dcn.ops.interpolation import lerp

__all__ = ["deform_roi_pool"]


def deform_roi_pool(
    inputs: tf.Tensor,
    boxes: tf.Tensor,
    box_indices: tf.Tensor,
    offsets: tf.Tensor | None = None,
    *,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    gamma: float = 0.1,
) -> tf.Tensor:
    """Pools each box into a grid of bins, each bin displaced by an offset of its own.

    A box, scaled to the feature map and moved by half a pixel (an aligned box), is cut into ph x pw bins. The value
    of a bin is the mean of a grid of bilinear samples. Offsets are in units of the box's height and width, times
    `gamma`. Without offsets this is aligned average RoI pooling.

    A sample outside [-1, H] x [-1, W] is zero. A sample inside it but outside the image reads the border pixel.

    Args:
        inputs: (B, H, W, C), floating point.
        boxes: (R, 4) as (y1, x1, y2, x2), in pixels of the image.
        box_indices: (R,) integers, the image of each box.
        offsets: (R, ph, pw, 2) as (dy, dx), in units of the box times `gamma`.
        output_size: (ph, pw), or one integer for both.
        spatial_scale: pixels of the feature map per pixel of the image.
        sampling_ratio: samples per bin along each axis; 0 takes as many as the bin has pixels, rounded up, for each
            box. Inside a function compiled by XLA, 0 has no gradient.
        gamma: factor of the offsets.

    Returns:
        (R, ph, pw, C), the type of `inputs`.

    Raises:
        ValueError: if an argument breaks its rule, or shapes do not fit.

    Example:
        >>> x = tf.reshape(tf.range(16.0), (1, 4, 4, 1))
        >>> deform_roi_pool(x, [[0.0, 0.0, 4.0, 4.0]], [0], output_size=2).numpy().ravel().tolist()
        [2.5, 4.5, 10.5, 12.5]

    Source: J. Dai et al., "Deformable Convolutional Networks", ICCV 2017, section 2.2, arXiv:1703.06211.
    """
    inputs = tf.convert_to_tensor(inputs)
    real = tf.float64 if inputs.dtype == tf.float64 else tf.float32
    boxes, box_indices = tf.cast(boxes, real), tf.cast(box_indices, tf.int32)
    offsets = None if offsets is None else tf.cast(offsets, real)
    size = pair("output_size", output_size, 1)
    _check(inputs, boxes, box_indices, offsets, size, spatial_scale, sampling_ratio)

    starts = boxes[:, :2] * spatial_scale - 0.5  # (R, 2), as everything below in the order (y, x)
    sides = boxes[:, 2:] * spatial_scale - 0.5 - starts
    bins = sides / tf.constant(size, real)
    origins = starts[:, None, None] + bins[:, None, None] * tf.cast(
        tf.stack(tf.meshgrid(tf.range(size[0]), tf.range(size[1]), indexing="ij"), axis=2), real
    )  # (R, ph, pw, 2)
    if offsets is not None:
        origins += gamma * sides[:, None, None] * offsets
    if sampling_ratio > 0:
        counts = tf.fill(tf.shape(bins), sampling_ratio)
    else:
        counts = tf.maximum(tf.cast(tf.math.ceil(bins), tf.int32), 0)  # (R, 2)
    return tf.cast(_mean_of_samples(tf.cast(inputs, real), box_indices, origins, bins, counts), inputs.dtype)


def _mean_of_samples(
    inputs: tf.Tensor, box_indices: tf.Tensor, origins: tf.Tensor, bins: tf.Tensor, counts: tf.Tensor
) -> tf.Tensor:
    """Returns the mean over each bin's grid of samples, with counts (R, 2); loops over the samples of a bin."""
    # A box that has no samples along one axis has none at all, and its mean is zero.
    total = tf.reduce_prod(counts, axis=1)  # (R,)
    steps = bins / tf.cast(tf.maximum(counts, 1), bins.dtype)
    most = tf.reduce_max(tf.concat([[0], total], axis=0))
    across = tf.maximum(counts[:, 1], 1)
    rows = tf.reshape(inputs, (-1, inputs.shape[3]))

    def add_sample(number: tf.Tensor, added: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        place = tf.cast(tf.stack([number // across, number % across], axis=1), bins.dtype) + 0.5  # (R, 2)
        points = origins + (steps * place)[:, None, None]
        counted = tf.cast(number < total, bins.dtype)[:, None, None, None]
        return number + 1, added + counted * _read(rows, tf.shape(inputs), box_indices, points)

    start = tf.zeros(tf.concat([tf.shape(origins)[:3], [inputs.shape[3]]], axis=0), inputs.dtype)
    added = tf.while_loop(lambda number, _: number < most, add_sample, (0, start))[1]
    added = tf.ensure_shape(added, (*origins.shape[:3], inputs.shape[3]))
    return added / tf.cast(tf.maximum(total, 1), bins.dtype)[:, None, None, None]


def _read(rows: tf.Tensor, shape: tf.Tensor, box_indices: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """Reads an image bilinearly at points (R, ph, pw, 2); rows (B·H·W, C) are its pixels."""
    size = tf.cast(shape[1:3], points.dtype)
    outside = tf.reduce_any((points < -1) | (points > size), axis=3, keepdims=True)
    points = tf.clip_by_value(points, 0, size - 1)
    before = tf.floor(tf.where(tf.math.is_nan(points), tf.zeros_like(points), points))
    beyond = points - before
    first = tf.cast(before, tf.int32)
    second = tf.minimum(first + 1, shape[1:3] - 1)
    image = box_indices[:, None, None] * shape[1]

    def corner(y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        return tf.gather(rows, (image + y[..., 0]) * shape[2] + x[..., 1])

    down, right = beyond[..., :1], beyond[..., 1:]
    upper = lerp(right, corner(first, first), corner(first, second))
    lower = lerp(right, corner(second, first), corner(second, second))
    values = lerp(down, upper, lower)
    return tf.where(outside, tf.zeros_like(values), values)


def _check(
    inputs: tf.Tensor,
    boxes: tf.Tensor,
    box_indices: tf.Tensor,
    offsets: tf.Tensor | None,
    size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
) -> None:
    if inputs.shape.rank != 4 or inputs.shape[3] is None or not inputs.dtype.is_floating:
        raise ValueError(
            "inputs must be floating point, (batch, height, width, channels), with known channels. "
            f"Received: inputs.shape={inputs.shape}, inputs.dtype={inputs.dtype.name}"
        )
    if not boxes.shape.is_compatible_with((None, 4)) or not box_indices.shape.is_compatible_with(boxes.shape[:1]):
        raise ValueError(
            "boxes must have shape (boxes, 4) and box_indices (boxes,). "
            f"Received: boxes.shape={boxes.shape}, box_indices.shape={box_indices.shape}"
        )
    if offsets is not None and not offsets.shape.is_compatible_with((boxes.shape[0], *size, 2)):
        raise ValueError(
            f"offsets must have shape (boxes, {size[0]}, {size[1]}, 2). Received: offsets.shape={offsets.shape}"
        )
    if not spatial_scale > 0:
        raise ValueError(f"spatial_scale must be above 0. Received: spatial_scale={spatial_scale}")
    if not isinstance(sampling_ratio, int) or isinstance(sampling_ratio, bool) or sampling_ratio < 0:
        raise ValueError(
            f"sampling_ratio must be an integer of at least 0. Received: sampling_ratio={sampling_ratio!r}"
        )
