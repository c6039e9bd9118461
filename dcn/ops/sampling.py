"""Reading images bilinearly at displaced points, and the gradients of that.

A deformable convolution has a point for each output location, kernel point and offset group. `find_places`,
`read_samples` and `scatter_gradients` are XLA clusters.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from dcn.ops.compilation import cluster
from dcn.ops.geometry import Geometry
from dcn.ops.interpolation import between

__all__ = ["Places", "find_places", "grid", "padded_rows", "read_samples", "real_type", "scatter_gradients"]


def real_type(inputs: tf.Tensor) -> tf.DType:
    """Returns the dtype of coordinates, weights and sums."""
    return tf.float64 if inputs.dtype == tf.float64 else tf.float32


def padded_rows(geometry: Geometry, inputs: tf.Tensor) -> tf.Tensor:
    """Returns the images, padded by one pixel of zeros, as rows (pixels · G, C / G).

    They contain the four corners of every point. Row 0 is always zero, also for an empty batch.
    """
    missing = tf.maximum(1 - tf.shape(inputs)[0], 0) if not inputs.shape[0] else 0
    padded = tf.pad(inputs, ((0, missing), (1, 1), (1, 1), (0, 0)))
    return tf.reshape(padded, (-1, inputs.shape[3] // geometry.offset_groups))


def grid(geometry: Geometry, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the coordinates of the points without offsets, in the padded image.

    An output line has N points, always in the order (output column, kernel point, offset group). Computed outside the
    clusters, where it is a constant if the sizes are known.

    Returns:
        (Ho,), y of the first kernel point on each line; (N,), what to add to that y; (N,), x.
    """
    lines, columns = (
        tf.range(count) * geometry.strides[axis] - geometry.padding_before(axis, size, count) + 1
        for axis, size in enumerate(tf.unstack(tf.shape(inputs)[1:3]))
        for count in [geometry.output_size(axis, size)]
    )
    down, across = (
        [place * geometry.dilation_rate[axis] for place in places for _ in range(geometry.offset_groups)]
        for axis, places in enumerate(geometry.kernel_points())
    )
    count = tf.size(columns)
    x = tf.repeat(columns, len(across)) + tf.tile(across, [count])
    lines, down, x = (tf.cast(numbers, real_type(inputs)) for numbers in (lines, tf.tile(down, [count]), x))
    return lines, down, x


class Places(NamedTuple):
    """For each point, all (B, Ho, N): its first row, its distances from that pixel, and whether its slopes count."""

    first: tf.Tensor
    y: tf.Tensor
    x: tf.Tensor
    inside_y: tf.Tensor
    inside_x: tf.Tensor


@cluster
def find_places(
    geometry: Geometry, inputs: tf.Tensor, offsets: tf.Tensor, lines: tf.Tensor, down: tf.Tensor, across: tf.Tensor
) -> Places:
    batch, height, width, _ = tf.unstack(tf.shape(inputs))
    groups = geometry.offset_groups
    dy, dx = (_flat(tf.cast(offsets[..., i::2], across.dtype), groups) for i in (0, 1))
    y, inside_y, top = _before(dy + (lines[:, None] + down), height)
    x, inside_x, left = _before(dx + across, width)
    image = tf.range(batch)[:, None, None] * (height + 2)
    group = tf.range(tf.shape(dx)[2]) % groups
    return Places(((image + top) * (width + 2) + left) * groups + group, y, x, inside_y, inside_x)


def _flat(numbers: tf.Tensor, groups: int) -> tf.Tensor:
    """Returns (B, Ho, N) from (B, Ho, Wo, G · K)."""
    batch, lines, columns, count = tf.unstack(tf.shape(numbers))
    if groups > 1:
        numbers = tf.reshape(numbers, (batch, lines, columns, groups, count // groups))
        numbers = tf.transpose(numbers, (0, 1, 2, 4, 3))
    return tf.reshape(numbers, (batch, lines, columns * count))


def _unflat(numbers: tf.Tensor, groups: int, shape: tf.Tensor) -> tf.Tensor:
    """Inverts `_flat`; the shape is (B, Ho, Wo, G · K)."""
    if groups > 1:
        batch, lines, columns, count = tf.unstack(shape)
        numbers = tf.reshape(numbers, (batch, lines, columns, count // groups, groups))
        numbers = tf.transpose(numbers, (0, 1, 2, 4, 3))
    return tf.reshape(numbers, shape)


def _before(coordinate: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the fraction past the preceding pixel, whether the point is inside, and that pixel's index."""
    last = tf.cast(size + 1, coordinate.dtype)
    inside = (coordinate >= 0) & (coordinate < last)
    readable = tf.math.logical_not(tf.math.is_nan(coordinate))
    clipped = tf.clip_by_value(coordinate, 0, last)
    before = tf.minimum(tf.floor(clipped), last - 1)
    # NaN must stay NaN: XLA of some versions clips it to a number.
    fraction = tf.where(readable, clipped - before, coordinate)
    return fraction, inside, tf.cast(tf.where(readable, before, 0), tf.int32)


def _steps(geometry: Geometry, inputs: tf.Tensor) -> tuple[int | tf.Tensor, ...]:
    """Returns the distances of a point's four rows from the first: top left, top right, bottom left, bottom right."""
    right, down = geometry.offset_groups, (tf.shape(inputs)[2] + 2) * geometry.offset_groups
    return 0, right, down, down + right


def _weighted(
    geometry: Geometry, first: tf.Tensor, y: tf.Tensor, x: tf.Tensor, factors: tf.Tensor | None, inputs: tf.Tensor
) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Returns the row and the weight of each corner of points.

    A corner of weight zero becomes row 0, which is zero: a NaN there must not reach the result.
    """
    weights = [(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x]
    if factors is not None:
        weights = [weight * factors for weight in weights]
    pairs = zip(_steps(geometry, inputs), weights, strict=True)
    return [(tf.where(weight == 0, 0, first + step), weight) for step, weight in pairs]


@cluster
def read_samples(
    geometry: Geometry, inputs: tf.Tensor, rows: tf.Tensor, at: Places, mask: tf.Tensor | None
) -> tf.Tensor:
    """Returns the values at the points, times the mask, (B, Ho, N, C / G)."""
    factors = None if mask is None else _flat(tf.cast(mask, at.x.dtype), geometry.offset_groups)
    corners = _weighted(geometry, at.first, at.y, at.x, factors, inputs)
    read = [weight[..., None] * tf.cast(tf.gather(rows, corner), weight.dtype) for corner, weight in corners]
    return tf.cast(tf.add_n(read), inputs.dtype)


@cluster
def scatter_gradients(
    geometry: Geometry,
    inputs: tf.Tensor,
    rows: tf.Tensor,
    at: Places,
    offsets: tf.Tensor,
    mask: tf.Tensor | None,
    to_samples: tf.Tensor,
) -> tuple[tf.Tensor, ...]:
    """Returns the gradients of inputs, offsets and mask from those of the samples, (points, C / G).

    On a CPU it works line by line, so that what a line needs is read from memory once and stays in the cache.
    """
    real = at.x.dtype
    ones = tf.ones((rows.shape[1],), real)
    blocks = 1 if geometry.accelerated else tf.maximum(tf.shape(offsets)[0] * tf.shape(offsets)[1], 1)

    def in_blocks(tensor: tf.Tensor, *last: int) -> tf.Tensor:
        return tf.reshape(tensor, (blocks, tf.size(at.x) // blocks, *last))

    first, y, x = in_blocks(at.first), in_blocks(at.y), in_blocks(at.x)
    inside_y, inside_x = (in_blocks(tf.cast(inside, real)) for inside in (at.inside_y, at.inside_x))
    factors = None if mask is None else in_blocks(_flat(tf.cast(mask, real), geometry.offset_groups))
    to_samples = in_blocks(to_samples, rows.shape[1])

    def add_block(block, to_rows, to_y, to_x, to_mask):  # type: ignore[no-untyped-def]
        to_block = tf.cast(to_samples[block], real)
        # Derivatives with respect to the weight of each corner, summed over channels. A product with ones, because
        # XLA sums rows on a CPU without vector instructions.
        top_left, top_right, bottom_left, bottom_right = (
            tf.linalg.matvec(to_block * tf.cast(tf.gather(rows, first[block] + step), real), ones)
            for step in _steps(geometry, inputs)
        )
        down, right = y[block], x[block]
        slope_y = between(right, bottom_left - top_left, bottom_right - top_right)
        slope_x = between(down, top_right - top_left, bottom_right - bottom_left)
        if factors is not None:
            slope_y, slope_x = (tf.math.multiply_no_nan(slope, factors[block]) for slope in (slope_y, slope_x))
            value = between(down, between(right, top_left, top_right), between(right, bottom_left, bottom_right))
            to_mask = to_mask.write(block, value)
        to_y = to_y.write(block, tf.math.multiply_no_nan(slope_y, inside_y[block]))
        to_x = to_x.write(block, tf.math.multiply_no_nan(slope_x, inside_x[block]))
        factor = None if factors is None else factors[block]
        for corner, weight in _weighted(geometry, first[block], down, right, factor, inputs):
            to_rows = tf.tensor_scatter_nd_add(to_rows, corner[:, None], weight[:, None] * to_block)
        return block + 1, to_rows, to_y, to_x, to_mask

    arrays = [tf.TensorArray(real, blocks) for _ in range(3)]
    start = (0, tf.zeros_like(rows, real), *arrays)
    _, to_rows, to_y, to_x, to_mask = tf.while_loop(
        lambda block, *_: block < blocks, add_block, start, maximum_iterations=blocks
    )
    batch, height, width, channels = tf.unstack(tf.shape(inputs))
    to_inputs = tf.reshape(to_rows, (-1, height + 2, width + 2, channels))[:batch, 1:-1, 1:-1]
    shape = tf.concat([tf.shape(offsets)[:3], tf.shape(offsets)[3:] // 2], 0)

    def joined(array: tf.TensorArray) -> tf.Tensor:
        return _unflat(array.stack(), geometry.offset_groups, shape)

    to_offsets = tf.reshape(tf.stack([joined(to_y), joined(to_x)], axis=4), tf.shape(offsets))
    found = [tf.cast(to_inputs, inputs.dtype), tf.cast(to_offsets, offsets.dtype)]
    return tuple(found if mask is None else [*found, tf.cast(joined(to_mask), mask.dtype)])
