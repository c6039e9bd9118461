"""Validation of arguments: of any operator or layer, and of a deformable convolution."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence
from typing import NamedTuple, TypeGuard

import tensorflow as tf

from dcn.ops.compilation import on_gpu

__all__ = [
    "Geometry",
    "checked_geometry",
    "checked_when_run",
    "is_integer",
    "pair",
    "require_bool",
    "require_number",
    "require_positive",
]

PART_BYTES = 2**25  # limit for the samples, or the inputs, of one part of the batch; a part has at least one image

_ROWS = 2**31  # limit for the rows of one image, whose indices have 32 bits

Padding = str | tuple[tuple[int, int], tuple[int, int]]


class Geometry(NamedTuple):
    """Static parameters of a deformable convolution."""

    kernel_size: tuple[int, int]
    strides: tuple[int, int]
    padding: Padding
    dilation_rate: tuple[int, int]
    groups: int
    offset_groups: int
    accelerated: bool  # whether it runs on a GPU: that needs few large steps, a CPU many that fit its cache

    def kernel_points(self) -> tuple[list[int], list[int]]:
        """Returns the row and the column of each kernel point, in row-major order."""
        height, width = self.kernel_size
        return [row for row in range(height) for _ in range(width)], list(range(width)) * height

    def output_size(self, axis: int, size: int | tf.Tensor) -> int | tf.Tensor:
        """Returns the output size along an axis for an input size."""
        span = (self.kernel_size[axis] - 1) * self.dilation_rate[axis] + 1
        if self.padding == "same":
            return -(-size // self.strides[axis])
        total = 0 if self.padding == "valid" else sum(self.padding[axis])  # type: ignore[arg-type]
        steps = (size + total - span) // self.strides[axis] + 1
        return max(0, steps) if isinstance(steps, int) else tf.maximum(0, steps)

    def padding_before(self, axis: int, size: tf.Tensor, output_size: tf.Tensor) -> tf.Tensor:
        """Returns the number of zeros before the first pixel of an axis."""
        if self.padding == "valid":
            return tf.constant(0)
        if self.padding == "same":
            span = (self.kernel_size[axis] - 1) * self.dilation_rate[axis] + 1
            return tf.maximum((output_size - 1) * self.strides[axis] + span - size, 0) // 2
        return tf.constant(self.padding[axis][0])

    def parts(self, inputs: tf.Tensor, offsets: tf.Tensor) -> int | tf.Tensor:
        """Returns the number of parts of the batch: its smallest divisor that keeps each part below PART_BYTES."""
        batch, height, width, channels = inputs.shape
        _, lines, columns, _ = offsets.shape
        points = math.prod(self.kernel_size)
        if None not in (batch, height, width, lines, columns):
            image = inputs.dtype.size * channels * max(height * width, points * lines * columns)
            least = max(1, -(-batch * image // PART_BYTES))
            return next((parts for parts in range(least, batch) if batch % parts == 0), max(batch, 1))
        sizes = [tf.cast(tf.shape(tensor), tf.int64) for tensor in (inputs, offsets)]
        numbers = [tf.reduce_prod(size[1:3]) for size in sizes]
        image = inputs.dtype.size * channels * tf.maximum(numbers[0], points * numbers[1])
        images = tf.maximum(sizes[0][0], 1)
        parts = tf.range(1, images + 1)
        large_enough = (images % parts == 0) & (parts * PART_BYTES >= images * image)
        return tf.cast(tf.reduce_min(tf.where(large_enough, parts, images)), tf.int32)


def is_integer(value: object) -> TypeGuard[int]:
    """Returns whether a value is an integer of Python or NumPy; a bool is not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def pair(name: str, value: int | Sequence[int], least: int) -> tuple[int, int]:
    """Returns (value, value) for an integer, and a sequence of two integers as a tuple.

    Raises:
        ValueError: if the value is neither, or a number is below `least`.
    """
    values = (value, value) if is_integer(value) else tuple(value) if isinstance(value, Sequence) else ()
    if len(values) != 2 or not all(is_integer(number) and number >= least for number in values):
        raise ValueError(f"{name} must be an integer of at least {least}, or two. Received: {name}={value!r}")
    return operator.index(values[0]), operator.index(values[1])


def require_positive(name: str, value: object) -> None:
    """Checks an argument.

    Raises:
        ValueError: if it is not a positive integer.
    """
    if not is_integer(value) or value < 1:
        raise ValueError(f"{name} must be a positive integer. Received: {name}={value!r}")


def require_bool(name: str, value: object) -> None:
    """Checks an argument.

    Raises:
        ValueError: if it is not a bool.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False. Received: {name}={value!r}")


def require_number(name: str, value: object, *, above: float | None = None, least: float | None = None) -> None:
    """Checks an argument.

    Raises:
        ValueError: if it is not a finite real number, is not greater than `above`, or is less than `least`.
    """
    bounds = (("above", above), ("of at least", least))
    rule = " and".join(f" {words} {bound}" for words, bound in bounds if bound is not None)
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or (above is not None and value <= above) or (least is not None and value < least):  # type: ignore[operator]
        raise ValueError(f"{name} must be a finite number{rule}. Received: {name}={value!r}")


def _checked_padding(padding: str | Sequence[Sequence[int]]) -> Padding:
    """Returns "valid", "same" or two pairs.

    Raises:
        ValueError: for anything else.
    """

    def counts(value: object) -> bool:
        is_pair = isinstance(value, list | tuple) and len(value) == 2
        return is_pair and all(is_integer(number) and number >= 0 for number in value)  # type: ignore[attr-defined]

    if isinstance(padding, str) and padding.lower() in ("valid", "same"):
        return padding.lower()
    if isinstance(padding, list | tuple) and len(padding) == 2 and all(counts(sides) for sides in padding):
        return pair("padding", padding[0], 0), pair("padding", padding[1], 0)
    # Other libraries take one number for all sides, or one per axis for both of its sides.
    sides = (padding, padding) if is_integer(padding) else padding
    hint = ""
    if counts(sides):
        vertical, horizontal = pair("padding", sides, 0)  # type: ignore[arg-type]
        hint = (
            f". For {vertical} rows above and below and {horizontal} columns left and right, write "
            f"padding=(({vertical}, {vertical}), ({horizontal}, {horizontal}))"
        )
    raise ValueError(
        "padding must be 'valid', 'same' or ((top, bottom), (left, right)), whole numbers of at least 0. "
        f"Received: padding={padding!r}{hint}"
    )


def checked_geometry(
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    offsets: tf.Tensor,
    mask: tf.Tensor | None,
    bias: tf.Tensor | None,
    strides: int | Sequence[int],
    padding: str | Sequence[Sequence[int]],
    dilation_rate: int | Sequence[int],
    groups: int,
    offset_groups: int,
) -> Geometry:
    """Returns the static parameters, after checking all arguments and the shapes known at tracing time.

    Raises:
        ValueError: if an argument breaks its rule, or shapes do not fit.
    """
    for name, tensor in (("inputs", inputs), ("kernel", kernel), ("offsets", offsets), ("mask", mask)):
        if tensor is not None and tensor.shape.rank != 4:
            raise ValueError(f"{name} must have rank 4. Received: {name}.shape={tensor.shape}")
        if tensor is not None and not tensor.dtype.is_floating:
            raise ValueError(f"{name} must be of a floating-point type. Received: {name}.dtype={tensor.dtype.name}")
    if kernel.dtype != inputs.dtype:
        raise ValueError(
            f"kernel must have the type of inputs. Received: kernel.dtype={kernel.dtype.name}, "
            f"inputs.dtype={inputs.dtype.name}"
        )
    height, width, kernel_channels, filters = kernel.shape
    channels = inputs.shape[3]
    if None in (height, width, kernel_channels, filters, channels) or height * width * kernel_channels * filters == 0:
        raise ValueError(
            "the shape of the kernel and the channels of inputs must be known and not zero. "
            f"Received: kernel.shape={kernel.shape}, inputs.shape={inputs.shape}"
        )
    for name, count in (("groups", groups), ("offset_groups", offset_groups)):
        if not is_integer(count) or count < 1 or channels % count:
            raise ValueError(
                f"{name} must be a positive integer that divides the input channels. Received: {name}={count!r}, "
                f"inputs.shape={inputs.shape}"
            )
    if kernel_channels * groups != channels or filters % groups:
        raise ValueError(
            "kernel must have shape (height, width, input channels / groups, filters), filters divisible by groups. "
            f"Received: kernel.shape={kernel.shape}, inputs.shape={inputs.shape}, groups={groups}"
        )
    if bias is not None and tuple(bias.shape) != (filters,):
        raise ValueError(f"bias must have shape ({filters},), one number a filter. Received: bias.shape={bias.shape}")
    geometry = Geometry(
        (height, width),
        pair("strides", strides, 1),
        _checked_padding(padding),
        pair("dilation_rate", dilation_rate, 1),
        operator.index(groups),
        operator.index(offset_groups),
        accelerated=on_gpu(),
    )
    sizes = tuple(
        None if size is None else geometry.output_size(axis, size) for axis, size in enumerate(inputs.shape[1:3])
    )
    points = offset_groups * height * width
    for name, tensor, wanted in (("offsets", offsets, 2 * points), ("mask", mask, points)):
        if tensor is not None and not tensor.shape.is_compatible_with((inputs.shape[0], *sizes, wanted)):
            raise ValueError(
                f"{name} must have shape (batch, output height, output width, "
                f"{'2 * ' if name == 'offsets' else ''}offset_groups * kernel height * kernel width) = "
                f"({inputs.shape[0]}, {sizes[0]}, {sizes[1]}, {wanted}). Received: {name}.shape={tensor.shape}"
            )
    if None not in inputs.shape[1:3] and offset_groups * (inputs.shape[1] + 2) * (inputs.shape[2] + 2) >= _ROWS:
        raise ValueError(
            "an image must have fewer than 2^31 pixels times offset groups, with one more around it. "
            f"Received: inputs.shape={inputs.shape}, offset_groups={offset_groups}"
        )
    return geometry


def checked_when_run(
    geometry: Geometry, inputs: tf.Tensor, offsets: tf.Tensor, mask: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Returns offsets and mask unchanged, with a runtime check of the sizes that are unknown at tracing time.

    Raises:
        tf.errors.InvalidArgumentError: when run, if sizes do not fit. XLA omits the check, and fails to compile arrays
            that do not fit.
    """
    if None not in inputs.shape[:3] and None not in offsets.shape[:3] and (mask is None or None not in mask.shape[:3]):
        return offsets, mask
    batch, height, width, _ = tf.unstack(tf.shape(inputs))
    expected = [batch, *(geometry.output_size(axis, size) for axis, size in enumerate((height, width)))]
    rows = tf.cast(height + 2, tf.int64) * tf.cast(width + 2, tf.int64) * geometry.offset_groups
    checks = [tf.debugging.assert_less(rows, _ROWS, "an image must have fewer than 2^31 pixels times offset groups")]
    for name, tensor in (("offsets", offsets), ("mask", mask)):
        if tensor is not None:
            rule = f"{name} must have the batch, the output height and the output width"
            checks.append(tf.debugging.assert_equal(tf.shape(tensor)[:3], tf.stack(expected), rule))
    with tf.control_dependencies([check for check in checks if check is not None]):
        offsets, mask = tf.identity(offsets), None if mask is None else tf.identity(mask)
    # What inputs say of the sizes may be more than offsets do, and XLA serves known sizes.
    sizes = [None if size is None else geometry.output_size(axis, size) for axis, size in enumerate(inputs.shape[1:3])]
    for tensor in (offsets, mask):
        if tensor is not None:
            tensor.set_shape((inputs.shape[0], *sizes, None))
    return offsets, mask
