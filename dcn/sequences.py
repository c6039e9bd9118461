"""Deformable convolution of sequences, by the operator for images: a sequence is an image of height 1."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from dcn import ops

__all__ = ["DeformableConv1D"]


@keras.saving.register_keras_serializable(package="dcn")
class DeformableConv1D(keras.layers.Conv1D):
    """Deformable convolution of sequences: `keras.layers.Conv1D` whose kernel points move along the sequence.

    A convolution with the layer's own kernel size, strides, padding and dilation predicts one offset for each kernel
    point and offset group. It starts at zero: a new layer computes what `Conv1D` with the same kernel computes, and
    learns from there.

    Args:
        filters, kernel_size, strides, padding, data_format, dilation_rate, groups, activation, use_bias: as for
            `Conv1D`; padding "valid" or "same", data_format "channels_last".
        offset_groups: number of groups of input channels with offsets of their own.
        modulated: whether each sample is also weighted, see `DeformableConv2D`.
        max_offset: how far a point may move, in steps of the sequence; what goes beyond is cut off, and has no
            gradient. None for no limit.
        **kwargs: initialisers, regularisers and constraints of kernel and bias, `name`, `dtype`, as for `Conv1D`.

    Input shape: (B, L, C). Output shape: (B, Lo, filters), as for `Conv1D`.

    Raises:
        ValueError: if an argument breaks its rule, or the input channels do not divide into the groups.

    Example:
        >>> layer = DeformableConv1D(8, 3, padding="same")
        >>> layer(keras.ops.ones((2, 5, 3))).shape
        TensorShape([2, 5, 8])

    Source: J. Dai et al., "Deformable Convolutional Networks", ICCV 2017, Eq. 2, arXiv:1703.06211, along one axis.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        *,
        offset_groups: int = 1,
        modulated: bool = False,
        max_offset: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            groups=groups,
            activation=activation,
            use_bias=use_bias,
            **kwargs,
        )
        if self.data_format != "channels_last" or self.padding == "causal":
            raise ValueError(
                "data_format must be 'channels_last', and padding 'valid' or 'same'. "
                f"Received: data_format={self.data_format!r}, padding={padding!r}"
            )
        if not isinstance(offset_groups, int) or offset_groups < 1:
            raise ValueError(f"offset_groups must be a positive integer. Received: offset_groups={offset_groups!r}")
        if max_offset is not None and not max_offset > 0:
            raise ValueError(f"max_offset must be above 0, or None. Received: max_offset={max_offset!r}")
        self.offset_groups, self.modulated, self.max_offset = offset_groups, bool(modulated), max_offset

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1] if len(input_shape) == 3 else None
        if not channels or channels % self.groups or channels % self.offset_groups:
            raise ValueError(
                "inputs must have shape (batch, length, channels), with channels divisible by groups and "
                f"offset_groups. Received: input_shape={tuple(input_shape)}, groups={self.groups}, "
                f"offset_groups={self.offset_groups}"
            )
        super().build(input_shape)
        self.offset_layer = keras.layers.Conv1D(
            (1 + self.modulated) * self.offset_groups * self.kernel_size[0],
            self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            kernel_initializer="zeros",
            dtype=self.dtype_policy,
            name="offsets",
        )
        self.offset_layer.build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        offsets, mask = self.offsets_and_mask(inputs)
        along = tf.stack([tf.zeros_like(offsets), offsets], axis=-1)  # none across, where the image has one row
        outputs = ops.deform_conv2d(
            inputs[:, None],
            tf.convert_to_tensor(self.kernel)[None],
            tf.reshape(along, tf.concat([tf.shape(offsets)[:1], [1], tf.shape(offsets)[1:] * (1, 2)], 0)),
            None if mask is None else mask[:, None],
            tf.convert_to_tensor(self.bias) if self.use_bias else None,
            strides=(1, *self.strides),
            padding=self.padding,
            dilation_rate=(1, *self.dilation_rate),
            groups=self.groups,
            offset_groups=self.offset_groups,
        )[:, 0]
        return outputs if self.activation is None else self.activation(outputs)

    def offsets_and_mask(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns the offsets (B, Lo, G·K) that the layer predicts, in steps of the sequence, and its mask or None."""
        predicted = self.offset_layer(inputs)
        count = self.offset_groups * self.kernel_size[0]
        offsets = predicted[..., :count]
        if self.max_offset is not None:
            offsets = tf.clip_by_value(offsets, -self.max_offset, self.max_offset)
        return offsets, 2 * tf.sigmoid(predicted[..., count:]) if self.modulated else None

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "offset_groups": self.offset_groups,
            "modulated": self.modulated,
            "max_offset": self.max_offset,
        }
