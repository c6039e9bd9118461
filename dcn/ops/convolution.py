"""Deformable convolution, version 1 (Dai et al. 2017) and, with a mask, version 2 (Zhu et al. 2019).

XLA compiles the sampling, in two clusters: the coordinates of the points, and the values there. In a single cluster the
coordinates would be recomputed for every channel. TensorFlow multiplies the samples by the kernel, on a CPU with
oneDNN, because a product inside an XLA loop runs on one thread. The matrix of samples (im2col), nine times the input
for a 3x3 kernel, is built for one part of the batch at a time. The gradient samples again instead of storing it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from dcn.ops.compilation import cluster, graph
from dcn.ops.differentiation import differentiable_once
from dcn.ops.geometry import Geometry, checked_geometry, checked_when_run
from dcn.ops.interpolation import between

__all__ = ["deform_conv2d"]


def deform_conv2d(
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    offsets: tf.Tensor,
    mask: tf.Tensor | None = None,
    bias: tf.Tensor | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[Sequence[int]] = "valid",
    dilation_rate: int | Sequence[int] = 1,
    groups: int = 1,
    offset_groups: int = 1,
) -> tf.Tensor:
    """Convolves with a kernel whose points are each displaced by their own offset.

    With K kernel points p_n, output location p_0, offsets Δp_n and mask m_n (1 without a mask):

        y(p_0) = Σ_n  kernel(p_n) · m_n · x(p_0 + p_n + Δp_n)

    where x is read bilinearly. A pixel outside the image counts as zero, so that values fade out over one pixel around
    the border, and a sampling point outside the open window (-1, H) x (-1, W) reads zero. The derivative with respect
    to an offset is the bilinear slope, at integer coordinates the right-sided one: zero offsets have a useful gradient.
    With zero offsets and no mask the result is that of `tf.nn.conv2d`.

    First derivatives in reverse mode are defined for all five tensors. A NaN offset gives NaN only in the outputs that
    use it; an infinite offset reads zero. Pixels of weight zero are ignored, even if they are NaN or infinite; a
    derivative also uses the pixel that its slope leads to.

    Args:
        inputs: (B, H, W, C), float16, bfloat16, float32 or float64.
        kernel: (kh, kw, C / groups, F), the type of `inputs`.
        offsets: (B, Ho, Wo, 2·G·K) in pixels, with G offset groups and K = kh·kw. Channel (g·K + k)·2 holds dy, the
            next one dx, of kernel point k in row-major order: the order of torchvision, ONNX and MSRA. Input channel c
            belongs to offset group c // (C / G).
        mask: (B, Ho, Wo, G·K), factors of the samples; channel g·K + k.
        bias: (F,).
        strides: distance of the output locations, an integer or (vertical, horizontal).
        padding: "valid", "same" (TensorFlow's rule, which may pad one pixel more after than before) or
            ((top, bottom), (left, right)).
        dilation_rate: distance of the kernel points, an integer or (vertical, horizontal).
        groups: number of channel groups of the convolution.
        offset_groups: G, number of channel groups with offsets of their own.

    Returns:
        (B, Ho, Wo, F), the type of `inputs`.

    Raises:
        ValueError: if an argument breaks its rule, or shapes do not fit; the message states the rule and the value.
        tf.errors.InvalidArgumentError: when run, if sizes that were unknown do not fit.
        NotImplementedError: for a second derivative, and for forward mode.

    Example:
        >>> x = tf.random.normal((1, 5, 4, 2))
        >>> kernel = tf.random.normal((3, 3, 2, 6))
        >>> y = deform_conv2d(x, kernel, tf.zeros((1, 5, 4, 18)), padding="same")
        >>> bool(tf.reduce_all(tf.abs(y - tf.nn.conv2d(x, kernel, 1, "SAME")) < 1e-4))
        True

    Source: J. Dai et al., "Deformable Convolutional Networks", ICCV 2017, Eq. 2, arXiv:1703.06211; the mask: X. Zhu et
    al., "Deformable ConvNets v2", CVPR 2019, Eq. 1, arXiv:1811.11168.
    """
    inputs, kernel, offsets = (tf.convert_to_tensor(tensor) for tensor in (inputs, kernel, offsets))
    mask = None if mask is None else tf.convert_to_tensor(mask)
    bias = None if bias is None else tf.convert_to_tensor(bias)
    geometry = checked_geometry(
        inputs, kernel, offsets, mask, bias, strides, padding, dilation_rate, groups, offset_groups
    )
    offsets, mask = checked_when_run(geometry, inputs, offsets, mask)
    given = [mask is not None, bias is not None]

    def complete(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor | None]:
        """Returns all five tensors, with None for those that were not given."""
        optional = iter(tensors[3:])
        return [*tensors[:3], *(next(optional) if is_there else None for is_there in given)]

    def values(*tensors: tf.Tensor) -> tf.Tensor:
        return _in_graph(_values)(geometry, *complete(tensors))

    def gradients(upstream: tf.Tensor, *tensors: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return _in_graph(_gradients)(geometry, upstream, *complete(tensors))

    tensors = [tensor for tensor in (inputs, kernel, offsets, mask, bias) if tensor is not None]
    outputs = differentiable_once("deform_conv2d", values, gradients, *tensors)
    outputs.set_shape((*offsets.shape[:3], kernel.shape[3]))
    return outputs


def _in_graph(function: Any) -> Any:
    """Returns the compiled graph in eager mode, and the function itself inside a graph."""
    return function if tf.executing_eagerly() else function.__wrapped__


@graph
def _values(
    geometry: Geometry,
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    offsets: tf.Tensor,
    mask: tf.Tensor | None,
    bias: tf.Tensor | None,
) -> tf.Tensor:
    matrices = _kernel_matrices(kernel, geometry.groups)

    def convolve(inputs: tf.Tensor, offsets: tf.Tensor, mask: tf.Tensor | None = None) -> tuple[tf.Tensor]:
        places = _places(geometry, inputs, offsets, *_grid(geometry, inputs))
        samples = _samples(geometry, inputs, _rows(geometry, inputs), places, mask)
        products = _product(_columns(samples, geometry), matrices)
        return (tf.reshape(products, tf.concat([tf.shape(offsets)[:3], kernel.shape[3:]], 0)),)

    result = tf.TensorSpec((None, *offsets.shape[1:3], kernel.shape[3]), inputs.dtype)
    (outputs,) = _in_parts(geometry, convolve, [result], inputs, offsets, mask)
    outputs = tf.reshape(outputs, tf.concat([tf.shape(offsets)[:3], kernel.shape[3:]], 0))
    return outputs if bias is None else tf.nn.bias_add(outputs, bias)


@graph
def _gradients(
    geometry: Geometry,
    upstream: tf.Tensor,
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    offsets: tf.Tensor,
    mask: tf.Tensor | None,
    bias: tf.Tensor | None,
) -> tuple[tf.Tensor, ...]:
    matrices = _kernel_matrices(kernel, geometry.groups)
    real = _real(inputs)

    def back(
        inputs: tf.Tensor, offsets: tf.Tensor, upstream: tf.Tensor, mask: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, ...]:
        places = _places(geometry, inputs, offsets, *_grid(geometry, inputs))
        rows = _rows(geometry, inputs)
        columns = _columns(_samples(geometry, inputs, rows, places, mask), geometry)
        products = _by_group(tf.reshape(upstream, (-1, upstream.shape[3])), geometry.groups)
        to_kernel = tf.matmul(columns, products, transpose_a=True)
        to_samples = _samples_of(tf.matmul(products, matrices, transpose_b=True), geometry)
        return tf.cast(to_kernel, real), *_scattered(geometry, inputs, rows, places, offsets, mask, to_samples)

    results = [tf.TensorSpec(matrices.shape, real)]
    results += [tf.TensorSpec((None, *t.shape[1:]), t.dtype) for t in (inputs, offsets, mask) if t is not None]
    to_kernel, to_inputs, *rest = _in_parts(geometry, back, results, inputs, offsets, upstream, mask)
    to_kernel = tf.transpose(tf.reduce_sum(tf.reshape(to_kernel, (-1, *matrices.shape)), 0), (1, 0, 2))
    found = [
        tf.reshape(to_inputs, tf.shape(inputs)),
        tf.cast(tf.reshape(to_kernel, kernel.shape), kernel.dtype),
        tf.reshape(rest[0], tf.shape(offsets)),
    ]
    found += [] if mask is None else [tf.reshape(rest[1], tf.shape(mask))]
    found += [] if bias is None else [tf.cast(tf.reduce_sum(tf.cast(upstream, real), (0, 1, 2)), bias.dtype)]
    return tuple(found)


def _in_parts(
    geometry: Geometry, function: Callable, results: list[tf.TensorSpec], *tensors: tf.Tensor | None
) -> Sequence[tf.Tensor]:
    """Applies a function of tensors (images, ...) to one part of the batch at a time.

    If there is more than one part, the results have an additional first axis.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    parts = geometry.parts(*given[:2])
    if isinstance(parts, int) and parts == 1:
        return function(*given)
    images = tf.shape(given[0])[0] // parts
    cut = [tf.reshape(tensor, tf.concat([[parts, images], tf.shape(tensor)[1:]], 0)) for tensor in given]
    for part, tensor in zip(cut, given, strict=True):
        part.set_shape((None, None, *tensor.shape[1:]))
    return tf.map_fn(lambda part: function(*part), tuple(cut), fn_output_signature=tuple(results))


def _real(inputs: tf.Tensor) -> tf.DType:
    """Returns the dtype of coordinates, weights and sums."""
    return tf.float64 if inputs.dtype == tf.float64 else tf.float32


def _rows(geometry: Geometry, inputs: tf.Tensor) -> tf.Tensor:
    """Returns the images, padded by one pixel of zeros, as rows (pixels · G, C / G).

    They contain the four corners of every point. Row 0 is always zero, also for an empty batch.
    """
    missing = tf.maximum(1 - tf.shape(inputs)[0], 0) if not inputs.shape[0] else 0
    padded = tf.pad(inputs, ((0, missing), (1, 1), (1, 1), (0, 0)))
    return tf.reshape(padded, (-1, inputs.shape[3] // geometry.offset_groups))


def _grid(geometry: Geometry, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
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
    lines, down, x = (tf.cast(numbers, _real(inputs)) for numbers in (lines, tf.tile(down, [count]), x))
    return lines, down, x


class _Places(NamedTuple):
    """For each point, all (B, Ho, N): its first row, its distances from that pixel, and whether its slopes count."""

    first: tf.Tensor
    y: tf.Tensor
    x: tf.Tensor
    inside_y: tf.Tensor
    inside_x: tf.Tensor


@cluster
def _places(
    geometry: Geometry, inputs: tf.Tensor, offsets: tf.Tensor, lines: tf.Tensor, down: tf.Tensor, across: tf.Tensor
) -> _Places:
    batch, height, width, _ = tf.unstack(tf.shape(inputs))
    groups = geometry.offset_groups
    dy, dx = (_flat(tf.cast(offsets[..., i::2], across.dtype), groups) for i in (0, 1))
    y, inside_y, top = _before(dy + (lines[:, None] + down), height)
    x, inside_x, left = _before(dx + across, width)
    image = tf.range(batch)[:, None, None] * (height + 2)
    group = tf.range(tf.shape(dx)[2]) % groups
    return _Places(((image + top) * (width + 2) + left) * groups + group, y, x, inside_y, inside_x)


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
    coordinate = tf.clip_by_value(coordinate, 0, last)
    before = tf.minimum(tf.floor(coordinate), last - 1)
    readable = tf.math.logical_not(tf.math.is_nan(coordinate))
    return coordinate - before, inside, tf.cast(tf.where(readable, before, 0), tf.int32)


def _steps(geometry: Geometry, inputs: tf.Tensor) -> tuple[Any, ...]:
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
def _samples(geometry: Geometry, inputs: tf.Tensor, rows: tf.Tensor, at: _Places, mask: tf.Tensor | None) -> tf.Tensor:
    """Returns the values at the points, times the mask, (B, Ho, N, C / G)."""
    factors = None if mask is None else _flat(tf.cast(mask, at.x.dtype), geometry.offset_groups)
    corners = _weighted(geometry, at.first, at.y, at.x, factors, inputs)
    read = [weight[..., None] * tf.cast(tf.gather(rows, corner), weight.dtype) for corner, weight in corners]
    return tf.cast(tf.add_n(read), inputs.dtype)


@cluster
def _scattered(
    geometry: Geometry,
    inputs: tf.Tensor,
    rows: tf.Tensor,
    at: _Places,
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


def _by_group(matrix: tf.Tensor, groups: int, points: int = 1) -> tf.Tensor:
    """Returns (groups, rows, points · columns / groups) from (rows, points · columns)."""
    if groups == 1:
        return matrix[None]
    columns = matrix.shape[1] // points // groups
    cut = tf.transpose(tf.reshape(matrix, (-1, points, groups, columns)), (2, 0, 1, 3))
    return tf.reshape(cut, (groups, -1, points * columns))


def _columns(samples: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """Returns samples (B, Ho, N, C / G) as a matrix for each group, (groups, locations, K · C / groups)."""
    points = math.prod(geometry.kernel_size)
    matrix = tf.reshape(samples, (-1, points * geometry.offset_groups * samples.shape[3]))
    return _by_group(matrix, geometry.groups, points)


def _samples_of(columns: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """Inverts `_columns`, except that the shape is (points, C / G)."""
    points = math.prod(geometry.kernel_size)
    channels = columns.shape[2] // points
    if geometry.groups > 1:
        columns = tf.transpose(tf.reshape(columns, (geometry.groups, -1, points, channels)), (1, 2, 0, 3))
    return tf.reshape(columns, (-1, channels * geometry.groups // geometry.offset_groups))


def _kernel_matrices(kernel: tf.Tensor, groups: int) -> tf.Tensor:
    """Returns (groups, K · C / groups, F / groups)."""
    height, width, channels, filters = kernel.shape
    kernel = tf.reshape(kernel, (height * width * channels, groups, filters // groups))
    return tf.transpose(kernel, (1, 0, 2))


def _product(columns: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """Returns (locations, F). Uses a 1x1 convolution, which is the same product and faster on a CPU."""
    if matrices.shape[0] == 1:
        return tf.nn.conv2d(columns[None], matrices[None], 1, "SAME")[0, 0]
    return tf.reshape(tf.transpose(tf.matmul(columns, matrices), (1, 0, 2)), (-1, math.prod(matrices.shape[::2])))
