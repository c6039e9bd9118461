"""Deformable convolution layers: drop-in for `Conv1D` and `Conv2D`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcn import ops
from dcn.ops.geometry import require_positive

__all__ = ["DeformableConv1D", "DeformableConv2D"]


class _DeformableConv(keras.layers.Layer):
    """What the layers share. Stands before a Keras convolution among the bases of a class, and extends it."""

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        *,
        offset_groups: int = 1,
        modulated: bool = False,
        offset_initializer: Any = "zeros",
        offset_regularizer: Any = None,
        offset_constraint: Any = None,
        offset_learning_rate_multiplier: float = 1.0,
        max_offset: float | None = None,
        freeze_kernel: bool = False,
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
        if self.data_format != "channels_last":
            raise ValueError(f"data_format must be 'channels_last'. Received: data_format={self.data_format!r}")
        if self.padding not in ("valid", "same"):
            raise ValueError(f"padding must be 'valid' or 'same'. Received: padding={padding!r}")
        require_positive("offset_groups", offset_groups)
        if not 0 < offset_learning_rate_multiplier < float("inf"):
            raise ValueError(
                "offset_learning_rate_multiplier must be finite and above 0. "
                f"Received: offset_learning_rate_multiplier={offset_learning_rate_multiplier!r}"
            )
        if max_offset is not None and not max_offset > 0:
            raise ValueError(f"max_offset must be above 0, or None. Received: max_offset={max_offset!r}")
        self.offset_groups = offset_groups
        self.max_offset = max_offset
        self.modulated = bool(modulated)
        self.offset_initializer = keras.initializers.get(offset_initializer)
        self.offset_regularizer = keras.regularizers.get(offset_regularizer)
        self.offset_constraint = keras.constraints.get(offset_constraint)
        self.offset_learning_rate_multiplier = float(offset_learning_rate_multiplier)
        self.freeze_kernel = bool(freeze_kernel)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1] if len(input_shape) == self.rank + 2 else None
        if not channels or channels % self.groups or channels % self.offset_groups:
            sizes = "length" if self.rank == 1 else "height, width"
            raise ValueError(
                f"inputs must have shape (batch, {sizes}, channels), with channels divisible by groups and "
                f"offset_groups. Received: input_shape={tuple(input_shape)}, groups={self.groups}, "
                f"offset_groups={self.offset_groups}"
            )
        super().build(input_shape)
        numbers = (self.rank + self.modulated) * self.offset_groups * math.prod(self.kernel_size)
        self.offset_kernel = self.add_weight(
            name="offset_kernel",
            shape=(*self.kernel_size, channels, numbers),
            initializer=self._scaled_offset_initializer,
            regularizer=self.offset_regularizer,
            constraint=self.offset_constraint,
        )
        self.offset_bias = self.add_weight(name="offset_bias", shape=(numbers,), initializer="zeros")

    def add_weight(self, *arguments: Any, name: str | None = None, **options: Any) -> keras.Variable:
        # Not a flag on the variable: setting `trainable` of a layer overwrites the flags of its trainable variables.
        if self.freeze_kernel and name in ("kernel", "bias"):
            options["trainable"] = False
        return super().add_weight(*arguments, name=name, **options)

    def _scaled_offset_initializer(self, shape: tuple[int, ...], dtype: Any = None) -> tf.Tensor:
        return self.offset_initializer(shape, dtype=dtype) / self.offset_learning_rate_multiplier

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        offsets, mask = self.offsets_and_mask(inputs)
        bias = tf.convert_to_tensor(self.bias) if self.use_bias else None
        outputs = self._convolve(inputs, tf.convert_to_tensor(self.kernel), offsets, mask, bias)
        return outputs if self.activation is None else self.activation(outputs)

    def offsets_and_mask(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns the offsets that the layer predicts, and its mask or None.

        They are (B, Ho, Wo, 2·G·K) in pixels, or of a sequence (B, Lo, G·K) in its steps.
        """
        rescale = _rate_multiplier(self.offset_learning_rate_multiplier)
        predicted = keras.ops.conv(
            inputs,
            rescale(tf.convert_to_tensor(self.offset_kernel)),
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format="channels_last",
        )
        predicted = tf.nn.bias_add(predicted, rescale(tf.convert_to_tensor(self.offset_bias)))
        count = self.rank * self.offset_groups * math.prod(self.kernel_size)
        offsets = predicted[..., :count] if self.modulated else predicted
        if self.max_offset is not None:
            offsets = tf.clip_by_value(offsets, -self.max_offset, self.max_offset)
        return offsets, 2 * tf.sigmoid(predicted[..., count:]) if self.modulated else None

    # Keras stores only kernel and bias of its convolutions, and trainable weights of other layers first; freezing must
    # not change the file.
    def save_own_variables(self, store: dict[str, Any]) -> None:
        for number, weight in enumerate(self._weights_in_files()):
            store[str(number)] = weight

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        expected = self._weights_in_files()
        if len(store) != len(expected):
            raise ValueError(f"layer {self.name} has {len(expected)} weights. Received: {len(store)}")
        for number, weight in enumerate(expected):
            weight.assign(store[str(number)])

    def _weights_in_files(self) -> list[keras.Variable]:
        return [self.kernel, *([self.bias] if self.use_bias else []), self.offset_kernel, self.offset_bias]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "offset_groups": self.offset_groups,
            "modulated": self.modulated,
            "offset_initializer": keras.initializers.serialize(self.offset_initializer),
            "offset_regularizer": keras.regularizers.serialize(self.offset_regularizer),
            "offset_constraint": keras.constraints.serialize(self.offset_constraint),
            "offset_learning_rate_multiplier": self.offset_learning_rate_multiplier,
            "max_offset": self.max_offset,
            "freeze_kernel": self.freeze_kernel,
        }


@keras.saving.register_keras_serializable(package="dcn")
class DeformableConv2D(_DeformableConv, keras.layers.Conv2D):
    """Deformable convolution: `keras.layers.Conv2D` whose kernel points move, by offsets learned from the input.

    A convolution with the layer's own kernel size, strides, padding and dilation predicts the offsets, two numbers for
    each kernel point and offset group. Its kernel starts at zero: a new layer computes what `Conv2D` with the same
    kernel computes, and learns from there.

    Args:
        filters, kernel_size, strides, padding, data_format, dilation_rate, groups, activation, use_bias: as for
            `Conv2D`; padding "valid" or "same", data_format "channels_last".
        offset_groups: number of groups of input channels with offsets of their own.
        modulated: whether each sample is also weighted (version 2), by 2·sigmoid of a further channel: by exactly 1
            in a new layer.
        offset_initializer: initial value of the offset kernel.
        offset_regularizer: regulariser of the offset kernel.
        offset_constraint: constraint on the offset kernel.
        offset_learning_rate_multiplier: factor of the learning rate for offset kernel and bias, with any optimiser.
            Below 1 it keeps offsets from growing out of the image early in training. The weights are stored divided by
            it, and offset_regularizer and offset_constraint see them so.
        max_offset: how far a point may move along an axis, in pixels; what goes beyond is cut off, and has no gradient.
            None for no limit.
        freeze_kernel: whether kernel and bias stay as they are, also if `trainable` is set, so that the offsets alone
            train: for a layer made by `from_conv2d` or `from_torch`.
        **kwargs: initialisers, regularisers and constraints of kernel and bias, `name`, `dtype`, as for `Conv2D`.

    Input shape: (B, H, W, C). Output shape: (B, Ho, Wo, filters), as for `Conv2D`.

    Raises:
        ValueError: if an argument breaks its rule, or the input channels do not divide into the groups.

    Example:
        >>> layer = DeformableConv2D(8, 3, padding="same", modulated=True)
        >>> layer(keras.ops.ones((2, 5, 4, 3))).shape
        TensorShape([2, 5, 4, 8])

    Source: J. Dai et al., "Deformable Convolutional Networks", ICCV 2017, arXiv:1703.06211; modulated: X. Zhu et al.,
    "Deformable ConvNets v2", CVPR 2019, arXiv:1811.11168.
    """

    @classmethod
    def from_conv2d(cls, layer: keras.layers.Conv2D, **changes: Any) -> DeformableConv2D:
        """Returns a deformable layer that computes what a trained `Conv2D` computes, with its name and weights.

        Args:
            layer: the built `Conv2D`.
            **changes: arguments of the new layer, in addition to those of `layer` or in place of them.

        Raises:
            ValueError: if `layer` is no `Conv2D` or has not been built.
        """
        if type(layer) is not keras.layers.Conv2D or not layer.built:
            raise ValueError(f"layer must be a built keras.layers.Conv2D. Received: layer={layer!r}")
        deformable = cls(**{**layer.get_config(), **changes})
        deformable.build((None, None, None, layer.kernel.shape[2] * layer.groups))
        deformable.kernel.assign(layer.kernel)
        if layer.use_bias and deformable.use_bias:
            deformable.bias.assign(layer.bias)
        return deformable

    @classmethod
    def from_torch(cls, state: Mapping[str, Any], *, modulated: bool = False, **arguments: Any) -> DeformableConv2D:
        """Returns a layer with the weights of a PyTorch module: one of MMCV, or torchvision's `DeformConv2d`.

        MMCV's `DeformConv2dPack` and, modulated, `ModulatedDeformConv2dPack` predict their offsets as this layer does,
        and compute the same. torchvision's module is given its offsets: those of the new layer start at zero. Where
        PyTorch pads by a number of pixels that is not what "same" or "valid" is, put a `ZeroPadding2D` before a layer
        with "valid".

        Args:
            state: of the module, as arrays: "weight" (F, C / groups, kh, kw), "bias" (F,) if it has one, and of MMCV
                "conv_offset.weight" and "conv_offset.bias".
            modulated: whether the module is of version 2.
            **arguments: of the new layer; `strides`, `padding`, `dilation_rate` and `groups` as the module has them.

        Raises:
            ValueError: if the state lacks "weight", or one of MMCV's two, or its shapes do not fit.
        """
        if "weight" not in state or np.ndim(state["weight"]) != 4:
            raise ValueError(f"state must have a weight of rank 4. Received: {sorted(state)}")
        if ("conv_offset.weight" in state) != ("conv_offset.bias" in state):
            raise ValueError(f"state must have both conv_offset.weight and conv_offset.bias. Received: {sorted(state)}")
        kernel = np.transpose(np.asarray(state["weight"]), (2, 3, 1, 0))
        height, width, channels, filters = kernel.shape
        per_group = (3 if modulated else 2) * height * width
        predicting = np.asarray(state["conv_offset.weight"]) if "conv_offset.weight" in state else None
        numbers = per_group * arguments.pop("offset_groups", 1) if predicting is None else len(predicting)
        if numbers % per_group:
            raise ValueError(f"conv_offset.weight must have a multiple of {per_group} filters. Received: {numbers}")
        layer = cls(
            filters,
            (height, width),
            use_bias="bias" in state,
            modulated=modulated,
            offset_groups=numbers // per_group,
            **arguments,
        )
        layer.build((None, None, None, channels * layer.groups))
        # A modulated layer weights its samples by twice the sigmoid, MMCV's by the sigmoid.
        layer.kernel.assign(kernel / 2 if modulated and predicting is not None else kernel)
        if "bias" in state:
            layer.bias.assign(np.asarray(state["bias"]))
        if predicting is not None:
            factor = layer.offset_learning_rate_multiplier
            layer.offset_kernel.assign(np.transpose(predicting, (2, 3, 1, 0)) / factor)
            layer.offset_bias.assign(np.asarray(state["conv_offset.bias"]) / factor)
        return layer

    def _convolve(
        self,
        inputs: tf.Tensor,
        kernel: tf.Tensor,
        offsets: tf.Tensor,
        mask: tf.Tensor | None,
        bias: tf.Tensor | None,
    ) -> tf.Tensor:
        return ops.deform_conv2d(
            inputs,
            kernel,
            offsets,
            mask,
            bias,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            groups=self.groups,
            offset_groups=self.offset_groups,
        )


@keras.saving.register_keras_serializable(package="dcn")
class DeformableConv1D(_DeformableConv, keras.layers.Conv1D):
    """Deformable convolution of sequences: `keras.layers.Conv1D` whose kernel points move along the sequence.

    A convolution with the layer's own kernel size, strides, padding and dilation predicts one offset for each kernel
    point and offset group. It starts at zero: a new layer computes what `Conv1D` with the same kernel computes, and
    learns from there.

    Args:
        filters, kernel_size, strides, padding, data_format, dilation_rate, groups, activation, use_bias: as for
            `Conv1D`; padding "valid" or "same", data_format "channels_last".
        max_offset: how far a point may move, in steps of the sequence; what goes beyond is cut off, and has no
            gradient. None for no limit.
        offset_groups, modulated, offset_initializer, offset_regularizer, offset_constraint: as for `DeformableConv2D`.
        offset_learning_rate_multiplier, freeze_kernel: as for `DeformableConv2D`.
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

    def _convolve(
        self,
        inputs: tf.Tensor,
        kernel: tf.Tensor,
        offsets: tf.Tensor,
        mask: tf.Tensor | None,
        bias: tf.Tensor | None,
    ) -> tf.Tensor:
        """A sequence is an image of height 1, whose points do not move across it."""
        along = tf.stack([tf.zeros_like(offsets), offsets], axis=-1)
        shape = tf.shape(offsets)
        return ops.deform_conv2d(
            inputs[:, None],
            kernel[None],
            tf.reshape(along, (shape[0], 1, shape[1], 2 * offsets.shape[2])),
            None if mask is None else mask[:, None],
            bias,
            strides=(1, *self.strides),
            padding=self.padding,
            dilation_rate=(1, *self.dilation_rate),
            groups=self.groups,
            offset_groups=self.offset_groups,
        )[:, 0]


def _rate_multiplier(factor: float) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that multiplies a stored weight by a factor and passes its gradient on as it is.

    A step of any optimiser on the stored weight is then that step, times the factor, on the weight in use.
    """
    if factor == 1:
        return lambda weight: weight

    @tf.custom_gradient
    def rescale(weight: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return weight * tf.cast(factor, weight.dtype), lambda upstream: upstream

    return rescale
