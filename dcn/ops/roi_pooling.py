"""Deformable region-of-interest pooling (Dai et al. 2017)."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from dcn.ops.compilation import cluster, graph, require_choice
from dcn.ops.differentiation import differentiable_once
from dcn.ops.geometry import is_integer, pair, require_number
from dcn.ops.interpolation import lerp

__all__ = ["deform_roi_pool"]

_PIXELS = 2**31  # limit for the pixels of a batch, whose indices have 32 bits
_MOST_PER_AXIS = math.isqrt(2**31 - 1)  # the samples of a bin have 32-bit numbers


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
    jit_compile: bool | None = None,
) -> tf.Tensor:
    """Pools each box into a grid of bins, each bin displaced by an offset of its own.

    A box, scaled to the feature map and moved by half a pixel (an aligned box), is cut into ph x pw bins. The value
    of a bin is the mean of a grid of bilinear samples. Offsets are in units of the box's height and width, times
    `gamma`. Without offsets this is aligned average RoI pooling.

    A sample outside [-1, H] x [-1, W] is zero. A sample inside it but outside the image reads the border pixel.

    Args:
        inputs: (B, H, W, C), floating point.
        boxes: (R, 4) as (y1, x1, y2, x2), in pixels of the image from the outer corner of pixel (0, 0).
        box_indices: (R,) integers from 0 to B - 1, the image of each box.
        offsets: (R, ph, pw, 2) as (dy, dx), in units of the box times `gamma`.
        output_size: (ph, pw), or one integer for both.
        spatial_scale: pixels of the feature map per pixel of the image.
        sampling_ratio: samples per bin along each axis, at most 46340; 0 takes as many as the bin has pixels, rounded
            up, for each box.
        gamma: factor of the offsets.
        jit_compile: True compiles the pooling with XLA, anew for every shape. False and None run without XLA, with one
            graph for all sizes. Only without XLA are second derivatives defined.

    Returns:
        (R, ph, pw, C), the type of `inputs`. Derivatives are defined for inputs, offsets and boxes. A box without area
        has no samples and gives zeros, unless `sampling_ratio` sets their number.

    Raises:
        ValueError: if an argument breaks its rule, or shapes do not fit.
        tf.errors.InvalidArgumentError: when run, if an index of `box_indices` is out of range, or sizes that were
            unknown do not fit. A function that XLA compiles as a whole omits these checks: there, a box whose index is
            out of range gives NaN.
        NotImplementedError: for a second derivative with `jit_compile=True`.

    Example:
        >>> x = tf.reshape(tf.range(16.0), (1, 4, 4, 1))
        >>> deform_roi_pool(x, [[0.0, 0.0, 4.0, 4.0]], [0], output_size=2).numpy().ravel().tolist()
        [2.5, 4.5, 10.5, 12.5]

    Source: J. Dai et al., "Deformable Convolutional Networks", ICCV 2017, section 2.2, arXiv:1703.06211.
    """
    require_choice(jit_compile)
    size = pair("output_size", output_size, 1)
    require_number("spatial_scale", spatial_scale, above=0)
    require_number("gamma", gamma)
    if not is_integer(sampling_ratio) or not 0 <= sampling_ratio <= _MOST_PER_AXIS:
        raise ValueError(
            f"sampling_ratio must be an integer of at least 0 and at most {_MOST_PER_AXIS}. "
            f"Received: sampling_ratio={sampling_ratio!r}"
        )
    inputs = tf.convert_to_tensor(inputs)
    real = tf.float64 if inputs.dtype == tf.float64 else tf.float32
    boxes, box_indices = tf.cast(boxes, real), tf.convert_to_tensor(box_indices)
    offsets = None if offsets is None else tf.cast(offsets, real)
    _check(inputs, boxes, box_indices, offsets, size)
    boxes, box_indices, known = _checked_when_run(inputs, boxes, tf.cast(box_indices, tf.int64), offsets)

    starts = boxes[:, :2] * float(spatial_scale) - 0.5  # (R, 2), as everything below in the order (y, x)
    sides = boxes[:, 2:] * float(spatial_scale) - 0.5 - starts
    bins = sides / tf.constant(size, real)
    origins = starts[:, None, None] + bins[:, None, None] * tf.cast(
        tf.stack(tf.meshgrid(tf.range(size[0]), tf.range(size[1]), indexing="ij"), axis=2), real
    )  # (R, ph, pw, 2)
    if offsets is not None:
        origins += float(gamma) * sides[:, None, None] * offsets
    origins = tf.where(known[:, None, None, None], origins, tf.constant(math.nan, real))
    if sampling_ratio > 0:
        counts = tf.fill(tf.shape(bins), operator.index(sampling_ratio))
    else:
        counts = tf.cast(tf.clip_by_value(tf.math.ceil(bins), 0, _MOST_PER_AXIS), tf.int32)  # (R, 2)
        counts = tf.where(tf.math.is_finite(bins), counts, 1)  # NaN has to reach the result
    pooled = _mean_of_samples(tf.cast(inputs, real), box_indices, origins, bins, counts, bool(jit_compile))
    return tf.ensure_shape(tf.cast(pooled, inputs.dtype), (boxes.shape[0], *size, inputs.shape[3]))


def _mean_of_samples(
    inputs: tf.Tensor, box_indices: tf.Tensor, origins: tf.Tensor, bins: tf.Tensor, counts: tf.Tensor, compiled: bool
) -> tf.Tensor:
    """Returns the mean over each bin's grid of samples, with counts (R, 2).

    The gradient samples again. TensorFlow's own would store every step of a loop, whose length XLA has to know then.
    """
    values, gradients = _COMPILED if compiled else _PLAIN

    def forward(inputs: tf.Tensor, origins: tf.Tensor, bins: tf.Tensor) -> tf.Tensor:
        return values(inputs, box_indices, origins, bins, counts)

    def backward(upstream: tf.Tensor, inputs: tf.Tensor, origins: tf.Tensor, bins: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return gradients(upstream, inputs, box_indices, origins, bins, counts)

    @tf.custom_gradient
    def pool(*tensors: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return forward(*map(tf.stop_gradient, tensors)), lambda upstream: backward(upstream, *tensors)

    if compiled:
        return differentiable_once("deform_roi_pool with jit_compile=True", forward, backward, inputs, origins, bins)
    return pool(inputs, origins, bins)


class _Grids(NamedTuple):
    """The grid of samples of each box."""

    total: tf.Tensor  # (R,), number of samples; a box that has none along one axis has none at all
    across: tf.Tensor  # (R,), number of samples in a row
    steps: tf.Tensor  # (R, 2), their distances
    most: tf.Tensor  # largest total

    def place(self, number: tf.Tensor) -> tf.Tensor:
        """Returns (R, 2), the place of a sample in its grid, in steps."""
        return tf.cast(tf.stack([number // self.across, number % self.across], axis=1), self.steps.dtype) + 0.5

    def share(self, values: tf.Tensor) -> tf.Tensor:
        """Divides values (R, ph, pw, C) by the number of samples."""
        return values / tf.cast(tf.maximum(self.total, 1), values.dtype)[:, None, None, None]


def _grids(bins: tf.Tensor, counts: tf.Tensor) -> _Grids:
    total = tf.reduce_prod(counts, axis=1)
    steps = bins / tf.cast(tf.maximum(counts, 1), bins.dtype)
    return _Grids(total, tf.maximum(counts[:, 1], 1), steps, tf.reduce_max(tf.concat([[0], total], axis=0)))


def _values(
    inputs: tf.Tensor, box_indices: tf.Tensor, origins: tf.Tensor, bins: tf.Tensor, counts: tf.Tensor
) -> tf.Tensor:
    grids, rows = _grids(bins, counts), tf.reshape(inputs, (-1, inputs.shape[3]))

    def add_sample(number: tf.Tensor, added: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        points = origins + (grids.steps * grids.place(number))[:, None, None]
        at = _corners(tf.shape(inputs), box_indices, points, number < grids.total)
        top_left, top_right, bottom_left, bottom_right = (tf.gather(rows, corner) for corner in at.rows)
        read = lerp(at.down, lerp(at.right, top_left, top_right), lerp(at.right, bottom_left, bottom_right))
        return number + 1, added + tf.where(at.counted, read, tf.zeros_like(read))

    start = tf.zeros(tf.concat([tf.shape(origins)[:3], [inputs.shape[3]]], axis=0), inputs.dtype)
    return grids.share(tf.while_loop(lambda number, _: number < grids.most, add_sample, (0, start))[1])


def _gradients(
    upstream: tf.Tensor,
    inputs: tf.Tensor,
    box_indices: tf.Tensor,
    origins: tf.Tensor,
    bins: tf.Tensor,
    counts: tf.Tensor,
) -> tuple[tf.Tensor, ...]:
    """Returns the gradients of inputs, origins and bins."""
    grids, rows = _grids(bins, counts), tf.reshape(inputs, (-1, inputs.shape[3]))
    upstream, last = grids.share(upstream), tf.cast(tf.shape(inputs)[1:3] - 1, bins.dtype)

    def add_sample(number, to_rows, to_origins, to_steps):  # type: ignore[no-untyped-def]
        place = grids.place(number)
        points = origins + (grids.steps * place)[:, None, None]
        at = _corners(tf.shape(inputs), box_indices, points, number < grids.total)
        to_read = tf.where(at.counted, upstream, tf.zeros_like(upstream))
        top_left, top_right, bottom_left, bottom_right = (tf.gather(rows, corner) for corner in at.rows)
        slopes = (
            lerp(at.right, bottom_left - top_left, bottom_right - top_right),
            lerp(at.down, top_right - top_left, bottom_right - bottom_left),
        )
        to_points = tf.stack([tf.reduce_sum(tf.math.multiply_no_nan(each, to_read), axis=3) for each in slopes], axis=3)
        to_points = tf.where((points < 0) | (points > last), tf.zeros_like(to_points), to_points)
        weights = [one * other for one in (1 - at.down, at.down) for other in (1 - at.right, at.right)]
        for corner, weight in zip(at.rows, weights, strict=True):
            handed_on = tf.math.multiply_no_nan(to_read, tf.broadcast_to(weight, tf.shape(to_read)))
            to_rows = tf.tensor_scatter_nd_add(to_rows, corner[..., None], handed_on)
        return number + 1, to_rows, to_origins + to_points, to_steps + place * tf.reduce_sum(to_points, axis=(1, 2))

    start = (0, tf.zeros_like(rows), tf.zeros_like(origins), tf.zeros_like(bins))
    _, to_rows, to_origins, to_steps = tf.while_loop(lambda number, *_: number < grids.most, add_sample, start)
    to_bins = to_steps / tf.cast(tf.maximum(counts, 1), bins.dtype)
    return tf.reshape(to_rows, tf.shape(inputs)), to_origins, to_bins


_PLAIN, _COMPILED = ([way(function) for function in (_values, _gradients)] for way in (graph, cluster))


class _Corners(NamedTuple):
    """What samples, (R, ph, pw), are interpolated from."""

    rows: tuple[tf.Tensor, ...]  # top left, top right, bottom left, bottom right: rows of the pixels (B·H·W, C)
    down: tf.Tensor  # (R, ph, pw, 1), fraction past the upper pixel
    right: tf.Tensor  # (R, ph, pw, 1)
    counted: tf.Tensor  # (R, ph, pw, 1), whether the sample exists and is not outside


def _corners(shape: tf.Tensor, box_indices: tf.Tensor, points: tf.Tensor, exists: tf.Tensor) -> _Corners:
    """Returns the corners of samples at points (R, ph, pw, 2) of images of a shape; exists (R,)."""
    size = tf.cast(shape[1:3], points.dtype)
    outside = tf.reduce_any((points < -1) | (points > size), axis=3, keepdims=True)
    points = tf.clip_by_value(points, 0, size - 1)
    before = tf.floor(tf.where(tf.math.is_nan(points), tf.zeros_like(points), points))
    beyond = points - before
    first = tf.cast(before, tf.int32)
    second = tf.minimum(first + 1, shape[1:3] - 1)
    image = box_indices[:, None, None] * shape[1]
    rows = tuple((image + y[..., 0]) * shape[2] + x[..., 1] for y in (first, second) for x in (first, second))
    return _Corners(rows, beyond[..., :1], beyond[..., 1:], exists[:, None, None, None] & ~outside)


def _check(
    inputs: tf.Tensor,
    boxes: tf.Tensor,
    box_indices: tf.Tensor,
    offsets: tf.Tensor | None,
    size: tuple[int, int],
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
    if not box_indices.dtype.is_integer and box_indices.shape != (0,):  # an empty list has no type
        raise ValueError(
            f"box_indices must be of an integer type. Received: box_indices.dtype={box_indices.dtype.name}"
        )
    if offsets is not None and not offsets.shape.is_compatible_with((boxes.shape[0], *size, 2)):
        raise ValueError(
            f"offsets must have shape (boxes, {size[0]}, {size[1]}, 2). Received: offsets.shape={offsets.shape}"
        )
    if None not in inputs.shape[:3] and math.prod(inputs.shape[:3]) >= _PIXELS:
        raise ValueError(f"inputs must have fewer than 2^31 pixels. Received: inputs.shape={inputs.shape}")


def _checked_when_run(
    inputs: tf.Tensor, boxes: tf.Tensor, box_indices: tf.Tensor, offsets: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the boxes; their indices, 0 in place of one out of range; and whether each is in range.

    Raises:
        tf.errors.InvalidArgumentError: when run, if an index is out of range, or sizes do not fit. XLA omits the check.
    """
    known = (box_indices >= 0) & (box_indices < tf.shape(inputs, tf.int64)[0])
    rule = "box_indices must be at least 0 and below the batch size of inputs"
    checks = [_required_when_run(rule, tf.reduce_all(known), box_indices)]
    for name, tensor in (("box_indices", box_indices), ("offsets", offsets)):
        if tensor is not None and None in (boxes.shape[0], tensor.shape[0]):
            shapes = tf.shape(boxes), tf.shape(tensor)
            alike = shapes[0][0] == shapes[1][0]
            checks.append(_required_when_run(f"{name} must have one entry per box", alike, *shapes))
    if None in inputs.shape[:3]:
        pixels = tf.reduce_prod(tf.shape(inputs, tf.int64)[:3])
        checks.append(_required_when_run("inputs must have fewer than 2^31 pixels", pixels < _PIXELS, tf.shape(inputs)))
    with _after(checks):
        boxes = tf.identity(boxes)
    return boxes, tf.cast(tf.where(known, box_indices, 0), tf.int32), known


def _required_when_run(rule: str, condition: tf.Tensor, *received: tf.Tensor | str) -> tf.Operation | None:
    """Returns an operation, for `_after`, that raises an error with the values received if a condition does not hold.

    A single operation, unlike `tf.debugging.Assert`, whose branches not every exporter knows. XLA omits it.

    Raises:
        tf.errors.InvalidArgumentError: when run, in eager mode at once.
    """
    return tf.raw_ops.Assert(condition=condition, data=[f"{rule}. Received:", *received], summarize=9)


def _after(checks: Sequence[tf.Operation | None]) -> Any:
    """Returns a context in which operations run after checks, of which eager mode keeps none."""
    return tf.control_dependencies([check for check in checks if check is not None])
