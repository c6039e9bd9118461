"""Deformable convolution, version 1 (Dai et al. 2017) and, with a mask, version 2 (Zhu et al. 2019).

The operator runs as one XLA cluster, block by block of output lines: a block reads its sampling points, weights them
and multiplies by the kernel while its numbers are still in the cache. The matrix of all samples (im2col), nine times
the input for a 3x3 kernel, never exists. The gradient does the same and reads the samples again rather than keep them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from dcn.ops.geometry import Geometry, checked_geometry

__all__ = ["deform_conv2d"]

_cluster = tf.function(jit_compile=True, autograph=False)


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
    """Convolves with a kernel whose every point is displaced by an offset of its own.

    With K kernel points p_n, output location p_0, offsets Δp_n and mask m_n (1 without a mask):

        y(p_0) = Σ_n  kernel(p_n) · m_n · x(p_0 + p_n + Δp_n)

    where x is read bilinearly. A pixel outside the image counts as zero, so that values fade out over one pixel around
    the border, and a sampling point outside the open window (-1, H) x (-1, W) reads zero. The derivative with respect
    to an offset is the bilinear slope, at integer coordinates the right-sided one: zero offsets have a useful gradient.
    With zero offsets and no mask the result is that of `tf.nn.conv2d`.

    Gradients are defined for all five tensors. A NaN offset gives NaN in the outputs that read it and nowhere else;
    an infinite one reads zero. An empty batch is fine, but for a function that XLA compiles as a whole with sizes
    unknown when it is traced.

    Args:
        inputs: (B, H, W, C), float16, bfloat16, float32 or float64.
        kernel: (kh, kw, C / groups, F), the type of `inputs`.
        offsets: (B, Ho, Wo, 2·G·K) in pixels, with G offset groups and K = kh·kw. Channel (g·K + k)·2 holds dy, the
            next one dx, of kernel point k in row-major order: the order of torchvision, ONNX and MSRA. Input channel c
            belongs to offset group c // (C / G).
        mask: (B, Ho, Wo, G·K), factors of the samples; channel g·K + k.
        bias: (F,).
        strides: of the output locations, an integer or (vertical, horizontal).
        padding: "valid", "same" (TensorFlow's rule, which may pad one pixel more after than before) or
            ((top, bottom), (left, right)).
        dilation_rate: distance of the kernel points, an integer or (vertical, horizontal).
        groups: number of channel groups of the convolution.
        offset_groups: G, number of channel groups with offsets of their own.

    Returns:
        (B, Ho, Wo, F), the type of `inputs`.

    Raises:
        ValueError: if an argument breaks its rule, or shapes do not fit; the message states the rule and the value.

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
    geometry = checked_geometry(
        inputs, kernel, offsets, mask, bias, strides, padding, dilation_rate, groups, offset_groups
    )
    outputs = _differentiable(geometry)(inputs, kernel, offsets, *([] if mask is None else [mask]))
    return outputs if bias is None else tf.nn.bias_add(outputs, bias)


def _differentiable(geometry: Geometry) -> Callable[..., tf.Tensor]:
    @tf.custom_gradient
    def convolve(*tensors: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        # Hidden from an outer tape, which would differentiate the clusters themselves.
        tensors = tuple(map(tf.stop_gradient, tensors))

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return _unless_empty(
                tensors[2],
                lambda: _gradients(geometry, upstream, *tensors),
                lambda: tuple(map(tf.zeros_like, tensors)),
            )

        inputs, kernel, offsets = tensors[:3]
        outputs = _unless_empty(
            offsets,
            lambda: _values(geometry, *tensors),
            lambda: tf.zeros((*tf.unstack(tf.shape(offsets))[:3], kernel.shape[3]), inputs.dtype),
        )
        outputs.set_shape((*offsets.shape[:3], kernel.shape[3]))
        return outputs, gradient

    return convolve


def _unless_empty(offsets: tf.Tensor, compute: Callable, empty: Callable) -> Any:
    """Returns what `compute` returns, or `empty` if there is no output location, for which XLA has no blocks."""
    if offsets.shape.is_fully_defined():
        return compute() if offsets.shape.num_elements() else empty()
    return tf.cond(tf.size(offsets) > 0, compute, empty)


class _Samples:
    """The sampling points of all blocks, and how a block reads them.

    With P output locations, N = P·K·G points in the order (location, kernel point, offset group). The input is padded
    by one pixel of zeros and laid out as rows of C / G numbers, so that the four corners of every point are rows of it.
    """

    def __init__(self, geometry: Geometry, inputs: tf.Tensor, offsets: tf.Tensor, mask: tf.Tensor | None) -> None:
        batch, height, width, _ = tf.unstack(tf.shape(inputs))
        _, output_height, output_width, _ = tf.unstack(tf.shape(offsets))
        self.real = tf.float64 if inputs.dtype == tf.float64 else tf.float32
        self.groups = geometry.offset_groups
        self.group_channels = inputs.shape[3] // self.groups
        self.points = math.prod(geometry.kernel_size) * self.groups  # of one location
        self.blocks = batch * (output_height // geometry.lines)
        self.rows = self._to_rows(tf.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0))))
        self.padded_shape = (batch, height + 2, width + 2, inputs.shape[3])

        pairs = tf.reshape(tf.cast(offsets, self.real), (-1, 2))
        by_group = (batch, output_height, output_width, self.groups, self.points // self.groups)
        dy, dx = (tf.transpose(tf.reshape(pairs[:, i], by_group), (0, 1, 2, 4, 3)) for i in (0, 1))  # (B, Ho, Wo, K, G)
        grid = [
            self._grid(geometry, axis, size, output_size)
            for axis, (size, output_size) in enumerate(((height, output_height), (width, output_width)))
        ]
        y, self.inside_y, top = _before(dy + grid[0][:, None, :, None], height)
        x, self.inside_x, left = _before(dx + grid[1][:, :, None], width)
        image = tf.range(batch)[:, None, None, None, None] * (height + 2)
        first = ((image + top) * (width + 2) + left) * self.groups + tf.range(self.groups)
        self.right, self.down = self.groups, (width + 2) * self.groups  # steps between rows
        self.first = self.in_blocks(first)
        self.y, self.x = self.in_blocks(y), self.in_blocks(x)
        self.inside_y, self.inside_x = self.in_blocks(self.inside_y), self.in_blocks(self.inside_x)
        self.mask = None
        if mask is not None:
            factors = tf.reshape(tf.cast(mask, self.real), (-1, self.groups, self.points // self.groups))
            self.mask = self.in_blocks(tf.transpose(factors, (0, 2, 1)))

    def _grid(self, geometry: Geometry, axis: int, size: tf.Tensor, output_size: tf.Tensor) -> tf.Tensor:
        """Returns (output size, K): the undisplaced coordinates of an axis, in the padded image."""
        steps = tf.range(output_size) * geometry.strides[axis] - geometry.padding_before(axis, size, output_size) + 1
        kernel_height, kernel_width = geometry.kernel_size
        along = [
            point // kernel_width if axis == 0 else point % kernel_width
            for point in range(kernel_height * kernel_width)
        ]
        return tf.cast(steps[:, None] + tf.constant(along) * geometry.dilation_rate[axis], self.real)

    def _to_rows(self, tensor: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tensor, (-1, self.group_channels))

    def in_blocks(self, tensor: tf.Tensor) -> tf.Tensor:
        """Returns (blocks, points of a block) from a tensor of all N points."""
        return tf.reshape(tensor, (self.blocks, -1))

    def corners(self, block: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns the rows at the four corners (points, C / G): top left, top right, bottom left, bottom right."""
        first = tf.gather(self.first, block)
        return tuple(
            tf.cast(tf.gather(self.rows, first + step), self.real)
            for step in (0, self.right, self.down, self.down + self.right)
        )

    def weights(self, block: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns the bilinear weights of the four corners (points, 1), without the mask."""
        y, x = tf.gather(self.y, block)[:, None], tf.gather(self.x, block)[:, None]
        return (1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x

    def factor(self, block: tf.Tensor) -> tf.Tensor | float:
        """Returns the mask (points, 1), or 1."""
        return 1.0 if self.mask is None else tf.gather(self.mask, block)[:, None]


def _before(coordinate: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """For coordinates in the padded image: the distance to the pixel before, whether a slope is read, that pixel."""
    last = tf.cast(size + 1, coordinate.dtype)
    inside = (coordinate >= 0) & (coordinate < last)
    coordinate = tf.clip_by_value(coordinate, 0, last)
    before = tf.minimum(tf.floor(coordinate), last - 1)
    readable = tf.math.logical_not(tf.math.is_nan(coordinate))
    return coordinate - before, inside, tf.cast(tf.where(readable, before, 0), tf.int32)


def _columns(values: tf.Tensor, samples: _Samples, geometry: Geometry) -> tf.Tensor:
    """Returns the samples of a block (points, C / G) as a matrix for each group, (groups, locations, K·C / groups)."""
    channels = samples.groups * samples.group_channels // geometry.groups
    values = tf.reshape(values, (-1, samples.points // samples.groups, geometry.groups, channels))
    values = tf.transpose(values, (2, 0, 1, 3))
    return tf.reshape(values, (geometry.groups, -1, math.prod(geometry.kernel_size) * channels))


def _samples_of(columns: tf.Tensor, samples: _Samples, geometry: Geometry) -> tf.Tensor:
    """Undoes `_columns`."""
    channels = samples.groups * samples.group_channels // geometry.groups
    values = tf.reshape(columns, (geometry.groups, -1, samples.points // samples.groups, channels))
    return tf.reshape(tf.transpose(values, (1, 2, 0, 3)), (-1, samples.group_channels))


def _kernel_matrices(kernel: tf.Tensor, groups: int) -> tf.Tensor:
    """Returns (groups, K·C / groups, F / groups)."""
    height, width, channels, filters = kernel.shape
    kernel = tf.reshape(kernel, (height * width * channels, groups, filters // groups))
    return tf.transpose(kernel, (1, 0, 2))


@_cluster
def _values(
    geometry: Geometry, inputs: tf.Tensor, kernel: tf.Tensor, offsets: tf.Tensor, mask: tf.Tensor | None = None
) -> tf.Tensor:
    samples = _Samples(geometry, inputs, offsets, mask)
    matrices = _kernel_matrices(kernel, geometry.groups)
    batch, output_height, output_width, _ = tf.unstack(tf.shape(offsets))
    filters = kernel.shape[3]

    def convolve(block: tf.Tensor) -> tf.Tensor:
        pairs = zip(samples.weights(block), samples.corners(block), strict=True)
        values = samples.factor(block) * tf.add_n([weight * corner for weight, corner in pairs])
        columns = _columns(tf.cast(values, inputs.dtype), samples, geometry)
        products = tf.transpose(tf.matmul(columns, matrices), (1, 0, 2))
        return tf.reshape(products, (geometry.lines * output_width, filters))

    shape = (None if offsets.shape[2] is None else geometry.lines * offsets.shape[2], filters)
    outputs = tf.map_fn(convolve, tf.range(samples.blocks), fn_output_signature=tf.TensorSpec(shape, inputs.dtype))
    return tf.reshape(outputs, (batch, output_height, output_width, filters))


@_cluster
def _gradients(
    geometry: Geometry,
    upstream: tf.Tensor,
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    offsets: tf.Tensor,
    mask: tf.Tensor | None = None,
) -> tuple[tf.Tensor, ...]:
    samples = _Samples(geometry, inputs, offsets, mask)
    matrices = _kernel_matrices(kernel, geometry.groups)
    filters = kernel.shape[3] // geometry.groups
    _, _, output_width, _ = tf.unstack(tf.shape(offsets))
    upstream = tf.reshape(upstream, (samples.blocks, geometry.lines * output_width, geometry.groups, filters))
    ones = tf.ones((samples.group_channels,), samples.real)

    def add_block(block, to_kernel, to_rows, to_y, to_x, to_mask):  # type: ignore[no-untyped-def]
        products = tf.transpose(upstream[block], (1, 0, 2))  # (groups, locations, F / groups)
        to_samples = _samples_of(tf.matmul(products, matrices, transpose_b=True), samples, geometry)
        to_samples = tf.cast(to_samples, samples.real)
        corners, weights = samples.corners(block), samples.weights(block)
        values = tf.add_n([weight * corner for weight, corner in zip(weights, corners, strict=True)])
        columns = _columns(tf.cast(samples.factor(block) * values, inputs.dtype), samples, geometry)
        to_kernel += tf.cast(tf.matmul(columns, products, transpose_a=True), samples.real)

        # How much the loss changes with each corner of a point, summed over its channels; a product with ones, as XLA
        # sums rows on the CPU without vector instructions.
        top_left, top_right, bottom_left, bottom_right = (
            tf.linalg.matvec(to_samples * corner, ones) for corner in corners
        )
        y, x = samples.y[block], samples.x[block]
        factor = 1.0 if samples.mask is None else samples.mask[block]
        slope_y = factor * ((1 - x) * (bottom_left - top_left) + x * (bottom_right - top_right))
        slope_x = factor * ((1 - y) * (top_right - top_left) + y * (bottom_right - bottom_left))
        to_y = to_y.write(block, tf.where(samples.inside_y[block], slope_y, 0))
        to_x = to_x.write(block, tf.where(samples.inside_x[block], slope_x, 0))
        if samples.mask is not None:
            upper = (1 - x) * top_left + x * top_right
            lower = (1 - x) * bottom_left + x * bottom_right
            to_mask = to_mask.write(block, (1 - y) * upper + y * lower)

        to_samples *= samples.factor(block)
        first = samples.first[block, :, None]
        for weight, step in zip(weights, (0, samples.right, samples.down, samples.down + samples.right), strict=True):
            to_rows = tf.tensor_scatter_nd_add(to_rows, first + step, weight * to_samples)
        return block + 1, to_kernel, to_rows, to_y, to_x, to_mask

    arrays = [tf.TensorArray(samples.real, samples.blocks) for _ in range(3)]
    start = (0, tf.zeros_like(matrices, samples.real), tf.zeros_like(samples.rows, samples.real), *arrays)
    _, to_kernel, to_rows, to_y, to_x, to_mask = tf.while_loop(
        lambda block, *_: block < samples.blocks, add_block, start, maximum_iterations=samples.blocks
    )
    to_inputs = tf.reshape(to_rows, samples.padded_shape)[:, 1:-1, 1:-1]
    to_kernel = tf.transpose(to_kernel, (1, 0, 2))
    by_group = (-1, samples.points // samples.groups, samples.groups)
    to_offsets = tf.stack([tf.reshape(to_y.stack(), by_group), tf.reshape(to_x.stack(), by_group)], axis=3)
    gradients = [
        tf.cast(tf.reshape(to_inputs, tf.shape(inputs)), inputs.dtype),
        tf.cast(tf.reshape(to_kernel, kernel.shape), kernel.dtype),
        tf.cast(tf.reshape(tf.transpose(to_offsets, (0, 2, 1, 3)), tf.shape(offsets)), offsets.dtype),
    ]
    if mask is not None:
        to_mask = tf.transpose(tf.reshape(to_mask.stack(), by_group), (0, 2, 1))
        gradients.append(tf.cast(tf.reshape(to_mask, tf.shape(mask)), mask.dtype))
    return tuple(gradients)
