"""The arguments of a deformable convolution, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

__all__ = ["Geometry", "checked_geometry", "pair"]

_BLOCK_BYTES = 2**20  # of samples in a block: they and the four corners that they are made of stay in the cache

Padding = str | tuple[tuple[int, int], tuple[int, int]]


class Geometry(NamedTuple):
    """What is known before any tensor is."""

    kernel_size: tuple[int, int]
    strides: tuple[int, int]
    padding: Padding
    dilation_rate: tuple[int, int]
    groups: int
    offset_groups: int
    lines: int  # output lines in a block

    def output_size(self, axis: int, size: int) -> int:
        """Returns the output size along an axis of this input size."""
        span = (self.kernel_size[axis] - 1) * self.dilation_rate[axis] + 1
        if self.padding == "same":
            return -(-size // self.strides[axis])
        total = 0 if self.padding == "valid" else sum(self.padding[axis])  # type: ignore[arg-type]
        return max(0, (size + total - span) // self.strides[axis] + 1)

    def padding_before(self, axis: int, size: tf.Tensor, output_size: tf.Tensor) -> tf.Tensor:
        """Returns how many zeros stand before the first pixel of an axis."""
        if self.padding == "valid":
            return tf.constant(0)
        if self.padding == "same":
            span = (self.kernel_size[axis] - 1) * self.dilation_rate[axis] + 1
            return tf.maximum((output_size - 1) * self.strides[axis] + span - size, 0) // 2
        return tf.constant(self.padding[axis][0])


def pair(name: str, value: int | Sequence[int], least: int) -> tuple[int, int]:
    """Returns (value, value) for an integer, and a pair as it is.

    Raises:
        ValueError: if the value is neither, or below the least.
    """
    values = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(values) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) and v >= least for v in values):
        raise ValueError(f"{name} must be an integer of at least {least}, or two. Received: {name}={value!r}")
    return values[0], values[1]


def _checked_padding(padding: str | Sequence[Sequence[int]]) -> Padding:
    """Returns "valid", "same" or two pairs.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(padding, str):
        if padding.lower() in ("valid", "same"):
            return padding.lower()
    elif isinstance(padding, Sequence) and len(padding) == 2 and not any(isinstance(p, int | str) for p in padding):
        return pair("padding", padding[0], 0), pair("padding", padding[1], 0)  # type: ignore[arg-type]
    raise ValueError(
        f"padding must be 'valid', 'same' or ((top, bottom), (left, right)). Received: padding={padding!r}"
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
        if not isinstance(count, int) or isinstance(count, bool) or count < 1 or channels % count:
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
        groups,
        offset_groups,
        lines=1,
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
    return geometry._replace(lines=_lines_of_a_block(offsets.shape[1], offsets.shape[2], height * width * channels))


def _lines_of_a_block(output_height: int | None, output_width: int | None, line_channels: int) -> int:
    """Returns the number of output lines in a block, a divisor of the output height."""
    if not output_height or not output_width:
        return 1
    fitting = _BLOCK_BYTES // (4 * output_width * line_channels)
    return max(
        lines for lines in range(1, output_height + 1) if output_height % lines == 0 and lines <= max(1, fitting)
    )
