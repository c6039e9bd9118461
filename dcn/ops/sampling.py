"""Reading images bilinearly at displaced points, and the gradients of that.

A deformable convolution has a sampling point for each output location, kernel point and offset group. `find_points`,
`read_samples` and `scatter_gradients` are XLA clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from dcn.ops.compilation import cluster
from dcn.ops.geometry import Geometry
from dcn.ops.interpolation import lerp

__all__ = [
    "Corners",
    "SamplingPoints",
    "corner_gradients",
    "corner_steps",
    "factors_of",
    "find_corners",
    "find_points",
    "grid",
    "padded_rows",
    "point_gradients",
    "read_samples",
    "real_type",
    "scatter",
    "scatter_gradients",
    "to_arguments",
    "weighted_sum",
]


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


class SamplingPoints(NamedTuple):
    """For each point, all (B, Ho, N): its first row, its distances from that pixel, and whether its slopes count."""

    first: tf.Tensor
    y: tf.Tensor
    x: tf.Tensor
    inside_y: tf.Tensor
    inside_x: tf.Tensor


@cluster
def find_points(
    geometry: Geometry,
    inputs: tf.Tensor,
    offsets: tf.Tensor,
    lines: tf.Tensor,
    down: tf.Tensor,
    across: tf.Tensor,
    index: str,
) -> SamplingPoints:
    """Returns the sampling points, with rows of type `index`; a part of a batch has fewer than 2^31 rows."""
    batch, height, width, _ = tf.unstack(tf.shape(inputs))
    groups = geometry.offset_groups
    dy, dx = (_flat(tf.cast(offsets[..., i::2], across.dtype), groups) for i in (0, 1))
    y, inside_y, top = _before(dy + (lines[:, None] + down), height)
    x, inside_x, left = _before(dx + across, width)
    image, group, top, left, height, width = (
        tf.cast(number, index)
        for number in (tf.range(batch)[:, None, None], tf.range(tf.shape(dx)[2]) % groups, top, left, height, width)
    )
    first = ((image * (height + 2) + top) * (width + 2) + left) * groups + group
    return SamplingPoints(first, y, x, inside_y, inside_x)


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


def corner_steps(geometry: Geometry, inputs: tf.Tensor) -> tuple[int | tf.Tensor, ...]:
    """Returns the distances of a point's four rows from the first: top left, top right, bottom left, bottom right."""
    right, down = geometry.offset_groups, (tf.shape(inputs)[2] + 2) * geometry.offset_groups
    return 0, right, down, down + right


class Corners(NamedTuple):
    """The four rows that each point reads, and their weights: top left, top right, bottom left, bottom right."""

    rows: tuple[tf.Tensor, ...]
    weights: tuple[tf.Tensor, ...]


def find_corners(geometry: Geometry, inputs: tf.Tensor, at: SamplingPoints, factors: tf.Tensor | None) -> Corners:
    """Returns the corners of points, with their weights times the points' factors.

    A corner of weight zero becomes row 0, which is zero: a NaN there must not reach the result.
    """
    y, x = at.y, at.x
    weights = [(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x]
    if factors is not None:
        weights = [weight * factors for weight in weights]
    pairs = zip(corner_steps(geometry, inputs), weights, strict=True)
    rows = (tf.where(weight == 0, tf.zeros_like(at.first), _moved(at.first, step)) for step, weight in pairs)
    return Corners(tuple(rows), tuple(weights))


def _moved(first: tf.Tensor, step: int | tf.Tensor) -> tf.Tensor:
    return first + tf.cast(step, first.dtype)


def factors_of(geometry: Geometry, at: SamplingPoints, mask: tf.Tensor | None) -> tf.Tensor | None:
    """Returns the mask as one factor per sampling point, (B, Ho, N)."""
    return None if mask is None else _flat(tf.cast(mask, at.x.dtype), geometry.offset_groups)


def weighted_sum(rows: tf.Tensor, corners: Corners) -> tf.Tensor:
    """Returns the values at points, times their factors: (..., C / G) for points (...)."""
    pairs = zip(*corners, strict=True)
    read = [tf.expand_dims(weight, -1) * tf.cast(tf.gather(rows, corner), weight.dtype) for corner, weight in pairs]
    return tf.cast(tf.add_n(read), rows.dtype)


@cluster
def read_samples(
    geometry: Geometry, inputs: tf.Tensor, rows: tf.Tensor, at: SamplingPoints, mask: tf.Tensor | None
) -> tf.Tensor:
    """Returns the values at the points, times the mask, (B, Ho, N, C / G)."""
    return weighted_sum(rows, find_corners(geometry, inputs, at, factors_of(geometry, at, mask)))


@cluster
def scatter_gradients(
    geometry: Geometry,
    inputs: tf.Tensor,
    rows: tf.Tensor,
    at: SamplingPoints,
    offsets: tf.Tensor,
    mask: tf.Tensor | None,
    to_samples: tf.Tensor,
) -> tuple[tf.Tensor, ...]:
    """Returns the gradients of inputs, offsets and mask from those of the samples, (points, C / G).

    On a CPU it works line by line, so that what a line needs is read from memory once and stays in the cache.
    """
    real = at.x.dtype
    blocks = 1 if geometry.accelerated else tf.maximum(tf.shape(offsets)[0] * tf.shape(offsets)[1], 1)

    def in_blocks(tensor: tf.Tensor, *last: int) -> tf.Tensor:
        return tf.reshape(tensor, (blocks, tf.size(at.x) // blocks, *last))

    all_points = SamplingPoints(*map(in_blocks, at))
    all_factors = None if mask is None else in_blocks(factors_of(geometry, at, mask))
    to_samples = in_blocks(to_samples, rows.shape[1])

    def add_block(block, to_rows, *arrays):  # type: ignore[no-untyped-def]
        points = SamplingPoints(*(tensor[block] for tensor in all_points))
        factors = None if all_factors is None else all_factors[block]
        to_corners = corner_gradients(rows, points.first, corner_steps(geometry, inputs), to_samples[block])
        found = point_gradients(points, factors, to_corners)
        to_rows = scatter(to_rows, find_corners(geometry, inputs, points, factors), to_samples[block])
        written = (array.write(block, gradient) for array, gradient in zip(arrays, found, strict=True))
        return block + 1, to_rows, *written

    arrays = [tf.TensorArray(real, blocks) for _ in range(2 if mask is None else 3)]
    start = (0, tf.zeros_like(rows, real), *arrays)
    _, to_rows, *arrays = tf.while_loop(lambda block, *_: block < blocks, add_block, start, maximum_iterations=blocks)
    return to_arguments(geometry, inputs, offsets, mask, to_rows, *(array.stack() for array in arrays))


def corner_gradients(
    rows: tf.Tensor, first: tf.Tensor, steps: Sequence[int | tf.Tensor], to_samples: tf.Tensor
) -> list[tf.Tensor]:
    """Returns the gradients of the weight of each corner, (P,), from those of samples, (P, C / G)."""
    real = real_type(rows)
    to_samples, ones = tf.cast(to_samples, real), tf.ones((rows.shape[1],), real)
    # Sums over channels. A product with ones, because XLA sums rows on a CPU without vector instructions.
    return [tf.linalg.matvec(to_samples * tf.cast(tf.gather(rows, _moved(first, step)), real), ones) for step in steps]


def point_gradients(
    at: SamplingPoints, factors: tf.Tensor | None, to_corners: Sequence[tf.Tensor]
) -> tuple[tf.Tensor, ...]:
    """Returns the gradients of the points' y, of their x and, if there are factors, of these."""
    top_left, top_right, bottom_left, bottom_right = to_corners
    slope_y = lerp(at.x, bottom_left - top_left, bottom_right - top_right)
    slope_x = lerp(at.y, top_right - top_left, bottom_right - bottom_left)
    to_factors = []
    if factors is not None:
        slope_y, slope_x = (tf.math.multiply_no_nan(slope, factors) for slope in (slope_y, slope_x))
        to_factors = [lerp(at.y, lerp(at.x, top_left, top_right), lerp(at.x, bottom_left, bottom_right))]
    slopes = ((slope_y, at.inside_y), (slope_x, at.inside_x))
    return *(tf.math.multiply_no_nan(slope, tf.cast(inside, slope.dtype)) for slope, inside in slopes), *to_factors


def scatter(to_rows: tf.Tensor, corners: Corners, to_samples: tf.Tensor) -> tf.Tensor:
    """Returns the gradients of the rows, to which those that samples (P, C / G) hand on are added."""
    to_samples = tf.cast(to_samples, to_rows.dtype)
    for corner, weight in zip(*corners, strict=True):
        to_rows = tf.tensor_scatter_nd_add(to_rows, tf.expand_dims(corner, 1), tf.expand_dims(weight, 1) * to_samples)
    return to_rows


def to_arguments(
    geometry: Geometry,
    inputs: tf.Tensor,
    offsets: tf.Tensor,
    mask: tf.Tensor | None,
    to_rows: tf.Tensor,
    *to_points: tf.Tensor,
) -> tuple[tf.Tensor, ...]:
    """Returns the gradients of inputs, offsets and mask from those of the rows and of all points."""
    batch, height, width, channels = tf.unstack(tf.shape(inputs))
    to_inputs = tf.reshape(to_rows, (-1, height + 2, width + 2, channels))[:batch, 1:-1, 1:-1]
    shape = tf.concat([tf.shape(offsets)[:3], tf.shape(offsets)[3:] // 2], 0)
    to_y, to_x, *to_mask = (_unflat(gradients, geometry.offset_groups, shape) for gradients in to_points)
    to_offsets = tf.reshape(tf.stack([to_y, to_x], axis=4), tf.shape(offsets))
    found = [tf.cast(to_inputs, inputs.dtype), tf.cast(to_offsets, offsets.dtype)]
    return tuple(found if mask is None else [*found, tf.cast(to_mask[0], mask.dtype)])
