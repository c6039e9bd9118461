"""Deformable convolution, version 1 (Dai et al. 2017) and, with a mask, version 2 (Zhu et al. 2019).

XLA compiles the sampling, in two clusters: the coordinates of the points, and the values there. In a single cluster the
coordinates would be recomputed for every channel. TensorFlow multiplies the samples by the kernel, on a CPU with
oneDNN, because a product inside an XLA loop runs on one thread. The matrix of samples (im2col), nine times the input
for a 3x3 kernel, is built for one part of the batch at a time. The gradient samples again instead of storing it.

Without XLA, one graph of TensorFlow operations serves all sizes. It samples and multiplies one kernel point after the
other, so that it needs neither that matrix nor a loop.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from dcn.ops.compilation import graph, require_choice, uses_xla
from dcn.ops.differentiation import differentiable_once
from dcn.ops.geometry import Geometry, checked_geometry, checked_when_run
from dcn.ops.sampling import (
    Corners,
    SamplingPoints,
    corner_gradients,
    corner_steps,
    factors_of,
    find_corners,
    find_points,
    grid,
    padded_rows,
    point_gradients,
    read_samples,
    real_type,
    scatter,
    scatter_gradients,
    to_arguments,
    weighted_sum,
)

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
    jit_compile: bool | None = None,
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
        offsets: (B, Ho, Wo, 2·G·K) in pixels, of any floating type, with G offset groups and K = kh·kw. Channel
            (g·K + k)·2 holds dy, the next one dx, of kernel point k in row-major order: the order of torchvision, ONNX
            and MSRA. Input channel c belongs to offset group c // (C / G).
        mask: (B, Ho, Wo, G·K), factors of the samples, of any floating type; channel g·K + k.
        bias: (F,), the type of `inputs`.
        strides: distance of the output locations, an integer or (vertical, horizontal).
        padding: "valid", "same" (TensorFlow's rule, which may pad one pixel more after than before) or
            ((top, bottom), (left, right)).
        dilation_rate: distance of the kernel points, an integer or (vertical, horizontal).
        groups: number of channel groups of the convolution.
        offset_groups: G, number of channel groups with offsets of their own.
        jit_compile: True compiles the sampling with XLA, anew for every shape. False runs the same mathematics as
            TensorFlow operations: for platforms without XLA, and for exporters. With None, XLA serves inside a graph if
            the height and the width of `inputs` are known when it is traced, and in eager mode the first 4 shapes of
            each kernel shape and set of arguments. All other calls run without XLA, since what XLA compiles for a shape
            stays in memory until the process ends.

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
    require_choice(jit_compile)
    inputs, kernel, offsets = (tf.convert_to_tensor(tensor) for tensor in (inputs, kernel, offsets))
    mask = None if mask is None else tf.convert_to_tensor(mask)
    bias = None if bias is None else tf.convert_to_tensor(bias)
    geometry = checked_geometry(
        inputs, kernel, offsets, mask, bias, strides, padding, dilation_rate, groups, offset_groups
    )
    # A graph that is traced for export may define what represents the operator in it, see dcn/interchange.py.
    exported = getattr(tf.compat.v1.get_default_graph(), "deform_conv2d", None)
    if exported is not None:
        return exported(geometry, inputs, kernel, offsets, mask, bias)
    offsets, mask = checked_when_run(geometry, inputs, offsets, mask)
    given = [mask is not None, bias is not None]

    def complete(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor | None]:
        """Returns all five tensors, with None for those that were not given."""
        optional = iter(tensors[3:])
        return [*tensors[:3], *(next(optional) if is_there else None for is_there in given)]

    if uses_xla(jit_compile, (geometry, inputs.dtype, *kernel.shape, *given), inputs):
        parts = geometry.parts(inputs, offsets) if tf.executing_eagerly() else None

        def values(*tensors: tf.Tensor) -> tf.Tensor:
            return _values(geometry, parts, *complete(tensors))

        def gradients(upstream: tf.Tensor, *tensors: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return _gradients(geometry, parts, upstream, *complete(tensors))
    else:

        def values(*tensors: tf.Tensor) -> tf.Tensor:
            return _plain_values(geometry, *complete(tensors))

        def gradients(upstream: tf.Tensor, *tensors: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return _plain_gradients(geometry, upstream, *complete(tensors))

    tensors = [tensor for tensor in (inputs, kernel, offsets, mask, bias) if tensor is not None]
    outputs = differentiable_once("deform_conv2d", values, gradients, *tensors)
    outputs.set_shape((*offsets.shape[:3], kernel.shape[3]))
    return outputs


_eager_graph = functools.partial(graph, exact=("kernel", "bias"))


@_eager_graph
def _values(
    geometry: Geometry,
    parts: int | None,
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    offsets: tf.Tensor,
    mask: tf.Tensor | None,
    bias: tf.Tensor | None,
) -> tf.Tensor:
    matrices, kernel_points = _kernel_matrices(kernel, geometry.groups), math.prod(geometry.kernel_size)

    def convolve(inputs: tf.Tensor, offsets: tf.Tensor, mask: tf.Tensor | None = None) -> tuple[tf.Tensor]:
        points = find_points(geometry, inputs, offsets, *grid(geometry, inputs), "int32")
        samples = read_samples(geometry, inputs, padded_rows(geometry, inputs), points, mask)
        products = _product(_columns(samples, geometry, kernel_points), matrices)
        return (tf.reshape(products, tf.concat([tf.shape(offsets)[:3], kernel.shape[3:]], 0)),)

    result = tf.TensorSpec((None, *offsets.shape[1:3], kernel.shape[3]), inputs.dtype)
    (outputs,) = _in_parts(geometry, parts, convolve, [result], inputs, offsets, mask)
    outputs = tf.reshape(outputs, tf.concat([tf.shape(offsets)[:3], kernel.shape[3:]], 0))
    return outputs if bias is None else tf.nn.bias_add(outputs, bias)


@_eager_graph
def _gradients(
    geometry: Geometry,
    parts: int | None,
    upstream: tf.Tensor,
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    offsets: tf.Tensor,
    mask: tf.Tensor | None,
    bias: tf.Tensor | None,
) -> tuple[tf.Tensor, ...]:
    matrices, kernel_points = _kernel_matrices(kernel, geometry.groups), math.prod(geometry.kernel_size)
    real = real_type(inputs)

    def back(
        inputs: tf.Tensor, offsets: tf.Tensor, upstream: tf.Tensor, mask: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, ...]:
        points = find_points(geometry, inputs, offsets, *grid(geometry, inputs), "int32")
        rows = padded_rows(geometry, inputs)
        columns = _columns(read_samples(geometry, inputs, rows, points, mask), geometry, kernel_points)
        products = _by_group(tf.reshape(upstream, (-1, upstream.shape[3])), geometry.groups)
        to_kernel = tf.matmul(columns, products, transpose_a=True)
        to_samples = _samples_of(tf.matmul(products, matrices, transpose_b=True), geometry, kernel_points)
        return tf.cast(to_kernel, real), *scatter_gradients(geometry, inputs, rows, points, offsets, mask, to_samples)

    results = [tf.TensorSpec(matrices.shape, real)]
    results += [tf.TensorSpec((None, *t.shape[1:]), t.dtype) for t in (inputs, offsets, mask) if t is not None]
    to_kernel, *rest = _in_parts(geometry, parts, back, results, inputs, offsets, upstream, mask)
    to_kernel = tf.transpose(tf.reduce_sum(tf.reshape(to_kernel, (-1, *matrices.shape)), 0), (1, 0, 2))
    given = (tensor for tensor in (inputs, offsets, mask) if tensor is not None)
    to_inputs, *rest = (tf.reshape(found, tf.shape(tensor)) for found, tensor in zip(rest, given, strict=True))
    return to_inputs, tf.cast(tf.reshape(to_kernel, kernel.shape), kernel.dtype), *rest, *_to_bias(upstream, bias)


def _to_bias(upstream: tf.Tensor, bias: tf.Tensor | None) -> list[tf.Tensor]:
    if bias is None:
        return []
    return [tf.cast(tf.reduce_sum(tf.cast(upstream, real_type(upstream)), (0, 1, 2)), bias.dtype)]


@_eager_graph
def _plain_values(
    geometry: Geometry,
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    offsets: tf.Tensor,
    mask: tf.Tensor | None,
    bias: tf.Tensor | None,
) -> tf.Tensor:
    """Does without XLA. Instead of the matrix of samples it has those of one kernel point at a time."""
    _, rows, all_corners = _without_xla(geometry, inputs, offsets, mask)
    matrices = _matrices_by_kernel_point(kernel, geometry.groups)
    outputs = tf.zeros((), real_type(inputs))
    for corners, matrix in zip(_by_kernel_point(geometry, all_corners), matrices, strict=True):
        # TensorFlow would otherwise run all kernel points at once, and hold the samples of all.
        with tf.control_dependencies([outputs]):
            samples = weighted_sum(rows, corners)
            outputs += tf.cast(_product(_columns(samples, geometry, 1), matrix), outputs.dtype)
    outputs = tf.reshape(outputs, tf.concat([tf.shape(offsets)[:3], kernel.shape[3:]], 0))
    outputs = tf.cast(outputs, inputs.dtype)
    return outputs if bias is None else tf.nn.bias_add(outputs, bias)


@_eager_graph
def _plain_gradients(
    geometry: Geometry,
    upstream: tf.Tensor,
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    offsets: tf.Tensor,
    mask: tf.Tensor | None,
    bias: tf.Tensor | None,
) -> tuple[tf.Tensor, ...]:
    points, rows, all_corners = _without_xla(geometry, inputs, offsets, mask)
    steps = corner_steps(geometry, inputs)
    matrices = _matrices_by_kernel_point(kernel, geometry.groups)
    products = _by_group(tf.reshape(upstream, (-1, upstream.shape[3])), geometry.groups)
    to_rows = tf.zeros_like(rows, real_type(inputs))
    to_kernel, to_corners = [], []
    split = zip(_split(geometry, points.first), _by_kernel_point(geometry, all_corners), matrices, strict=True)
    for first, corners, matrix in split:
        with tf.control_dependencies([to_rows]):
            columns = _columns(weighted_sum(rows, corners), geometry, 1)
            to_kernel.append(tf.transpose(tf.matmul(columns, products, transpose_a=True), (1, 0, 2)))
            to_samples = _samples_of(tf.matmul(products, matrix, transpose_b=True), geometry, 1)
            to_corners.append(corner_gradients(rows, first, steps, to_samples))
            to_rows = scatter(to_rows, corners, to_samples)
    joined = [_joined(geometry, each, tf.shape(points.first)) for each in zip(*to_corners, strict=True)]
    to_points = point_gradients(points, factors_of(geometry, points, mask), joined)
    to_inputs, *rest = to_arguments(geometry, inputs, offsets, mask, to_rows, *to_points)
    to_kernel = tf.cast(tf.reshape(tf.stack(to_kernel), kernel.shape), kernel.dtype)
    return to_inputs, to_kernel, *rest, *_to_bias(upstream, bias)


def _without_xla(
    geometry: Geometry, inputs: tf.Tensor, offsets: tf.Tensor, mask: tf.Tensor | None
) -> tuple[SamplingPoints, tf.Tensor, Corners]:
    """Returns the sampling points in all images, the padded rows, and the points' corners."""
    # A whole batch may have 2^31 rows or more.
    points = find_points.__wrapped__(geometry, inputs, offsets, *grid(geometry, inputs), "int64")
    corners = find_corners(geometry, inputs, points, factors_of(geometry, points, mask))
    return points, padded_rows(geometry, inputs), corners


def _by_kernel_point(geometry: Geometry, corners: Corners) -> list[Corners]:
    rows, weights = ([_split(geometry, tensor) for tensor in tensors] for tensors in corners)
    return [Corners(*each) for each in zip(zip(*rows, strict=True), zip(*weights, strict=True), strict=True)]


def _split(geometry: Geometry, tensor: tf.Tensor) -> list[tf.Tensor]:
    """Returns for each kernel point (B·Ho·Wo·G,), from (B, Ho, N)."""
    points = math.prod(geometry.kernel_size)
    split = tf.transpose(tf.reshape(tensor, (-1, points, geometry.offset_groups)), (1, 0, 2))
    return tf.unstack(tf.reshape(split, (points, -1)))


def _joined(geometry: Geometry, tensors: Sequence[tf.Tensor], shape: tf.Tensor) -> tf.Tensor:
    """Inverts `_split`; the shape is (B, Ho, N)."""
    split = tf.reshape(tf.stack(tensors), (len(tensors), -1, geometry.offset_groups))
    return tf.reshape(tf.transpose(split, (1, 0, 2)), shape)


def _matrices_by_kernel_point(kernel: tf.Tensor, groups: int) -> list[tf.Tensor]:
    """Returns (groups, C / groups, F / groups) for each kernel point."""
    return tf.split(_kernel_matrices(kernel, groups), math.prod(kernel.shape[:2]), axis=1)


def _in_parts(
    geometry: Geometry,
    parts: int | tf.Tensor | None,
    function: Callable,
    results: list[tf.TensorSpec],
    *tensors: tf.Tensor | None,
) -> Sequence[tf.Tensor]:
    """Applies a function of tensors (images, ...) to one part of the batch at a time; None finds how many there are.

    If there is more than one part, the results have an additional first axis.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    parts = geometry.parts(*given[:2]) if parts is None else parts
    if isinstance(parts, int) and parts == 1:
        return function(*given)
    images = tf.shape(given[0])[0] // parts
    cut = [tf.reshape(tensor, tf.concat([[parts, images], tf.shape(tensor)[1:]], 0)) for tensor in given]
    for part, tensor in zip(cut, given, strict=True):
        part.set_shape((None, None, *tensor.shape[1:]))
    return tf.map_fn(lambda part: function(*part), tuple(cut), fn_output_signature=tuple(results))


def _by_group(matrix: tf.Tensor, groups: int, points: int = 1) -> tf.Tensor:
    """Returns (groups, rows, points · columns / groups) from (rows, points · columns)."""
    if groups == 1:
        return tf.expand_dims(matrix, 0)
    columns = matrix.shape[1] // points // groups
    cut = tf.transpose(tf.reshape(matrix, (-1, points, groups, columns)), (2, 0, 1, 3))
    return tf.reshape(cut, (groups, -1, points * columns))


def _columns(samples: tf.Tensor, geometry: Geometry, points: int) -> tf.Tensor:
    """Returns samples of kernel points as a matrix for each group, (groups, locations, points · C / groups).

    They are in the order (location, kernel point, offset group), and have C / G channels.
    """
    matrix = tf.reshape(samples, (-1, points * geometry.offset_groups * samples.shape[-1]))
    return _by_group(matrix, geometry.groups, points)


def _samples_of(columns: tf.Tensor, geometry: Geometry, points: int) -> tf.Tensor:
    """Inverts `_columns`, to the shape (sampling points, C / G)."""
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
        products = tf.nn.conv2d(tf.expand_dims(columns, 0), tf.expand_dims(matrices, 0), 1, "SAME")
        return tf.reshape(products, (-1, matrices.shape[2]))
    return tf.reshape(tf.transpose(tf.matmul(columns, matrices), (1, 0, 2)), (-1, math.prod(matrices.shape[::2])))
