"""Thin Keras layers over `dcn.ops`: they own weights and configuration, and leave the arithmetic to the operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcn import ops
from dcn.ops.geometry import pair

__all__ = ["ConvOffset2D", "DeformableConv2D", "DeformableRoIPooling2D"]


@keras.saving.register_keras_serializable(package="dcn")
class ConvOffset2D(keras.layers.Layer):
    """Resamples every channel by offsets that a 3x3 convolution predicts from the input, as published.

    The layer goes before a convolution and passes it a deformed input of the same shape. It is not the
    deformable convolution of Dai et al. (2017): it has one offset for each pixel and channel instead of one for
    each kernel point. See `dcn.ops.resample_by_offsets` for the rule.

    With the published initial kernel of zeros every offset is zero, every coordinate an integer, and the gradient
    of the kernel exactly zero.

    Args:
        filters: number of channels of the input, C.
        kernel_initializer: initial value of the offset kernel, (3, 3, C, 2C).
        kernel_regularizer: regulariser of the offset kernel.
        kernel_constraint: constraint on the offset kernel.
        corners: "published", or "bilinear" for the true derivative, see `dcn.ops.resample_by_offsets`.
        pairing: "published", or "per_pixel" for two offset channels of one pixel, see there.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.

    Input shape: (B, H, W, C). Output shape: the same.

    Raises:
        ValueError: if `filters` is not a positive integer, or the input has not `filters` channels.

    Example:
        >>> layer = ConvOffset2D(1)
        >>> layer(keras.ops.ones((2, 5, 4, 1))).shape
        TensorShape([2, 5, 4, 1])

    Source: D. Oza, "Expanding the Receptive Field for MNIST through Deformable Convolution" (2019).
    """

    def __init__(
        self,
        filters: int,
        *,
        kernel_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        kernel_constraint: Any = None,
        corners: str = "published",
        pairing: str = "published",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _require_positive("filters", filters)
        self.filters = filters
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        for name, choice, repaired in (("corners", corners, "bilinear"), ("pairing", pairing, "per_pixel")):
            if choice not in ("published", repaired):
                raise ValueError(f"{name} must be 'published' or {repaired!r}. Received: {name}={choice!r}")
        self.corners, self.pairing = corners, pairing

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != 4 or input_shape[3] != self.filters:
            raise ValueError(
                f"inputs must have shape (batch, height, width, filters). "
                f"Received: input_shape={tuple(input_shape)}, filters={self.filters}"
            )
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={3: self.filters})
        self.kernel = self.add_weight(
            name="kernel",
            shape=(3, 3, self.filters, 2 * self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        offsets = keras.ops.conv(inputs, self.kernel, padding="same", data_format="channels_last")
        return ops.resample_by_offsets(inputs, offsets, corners=self.corners, pairing=self.pairing)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "corners": self.corners,
            "pairing": self.pairing,
        }


@keras.saving.register_keras_serializable(package="dcn")
class DeformableConv2D(keras.layers.Conv2D):
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

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = (1, 1),
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
        _require_positive("offset_groups", offset_groups)
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

    @classmethod
    def from_conv2d(cls, layer: keras.layers.Conv2D, **changes: Any) -> DeformableConv2D:
        """Returns a deformable layer that computes what a trained `Conv2D` computes, with its name and weights.

        Args:
            layer: the built `Conv2D`.
            **changes: arguments of the new layer beside or in place of those of `layer`.

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
            ValueError: if the state lacks "weight", or its shapes do not fit.
        """
        if "weight" not in state or np.ndim(state["weight"]) != 4:
            raise ValueError(f"state must have a weight of rank 4. Received: {sorted(state)}")
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

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1] if len(input_shape) == 4 else None
        if not channels or channels % self.groups or channels % self.offset_groups:
            raise ValueError(
                "inputs must have shape (batch, height, width, channels), with channels divisible by groups and "
                f"offset_groups. Received: input_shape={tuple(input_shape)}, groups={self.groups}, "
                f"offset_groups={self.offset_groups}"
            )
        super().build(input_shape)
        numbers = (3 if self.modulated else 2) * self.offset_groups * self.kernel_size[0] * self.kernel_size[1]
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
        outputs = ops.deform_conv2d(
            inputs,
            tf.convert_to_tensor(self.kernel),
            offsets,
            mask,
            tf.convert_to_tensor(self.bias) if self.use_bias else None,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            groups=self.groups,
            offset_groups=self.offset_groups,
        )
        return outputs if self.activation is None else self.activation(outputs)

    def offsets_and_mask(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns the offsets (B, Ho, Wo, 2·G·K) that the layer predicts, in pixels, and its mask or None."""
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
        count = 2 * self.offset_groups * self.kernel_size[0] * self.kernel_size[1]
        offsets = predicted[..., :count] if self.modulated else predicted
        if self.max_offset is not None:
            offsets = tf.clip_by_value(offsets, -self.max_offset, self.max_offset)
        return offsets, 2 * tf.sigmoid(predicted[..., count:]) if self.modulated else None

    # `Conv2D` stores only kernel and bias, other layers trainable weights first; freezing must not change the file.
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
class DeformableRoIPooling2D(keras.layers.Layer):
    """Deformable RoI pooling: pools boxes into bins, moved by offsets that a dense layer predicts from their content.

    A first, undisplaced pooling feeds the dense layer, whose kernel starts at zero: a new layer is aligned average RoI
    pooling.

    Args:
        output_size: (ph, pw) bins, or one integer for both.
        spatial_scale, sampling_ratio, gamma: as for `dcn.ops.deform_roi_pool`.
        offset_initializer: initial value of the dense kernel, (ph·pw·C, 2·ph·pw).
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.

    Call arguments: inputs (B, H, W, C); boxes (R, 4) as (y1, x1, y2, x2) in image pixels; box_indices (R,) integers.
    Output shape: (R, ph, pw, C).

    Raises:
        ValueError: if an argument breaks its rule, or the channels of the input are unknown.

    Example:
        >>> layer = DeformableRoIPooling2D(2, sampling_ratio=2)
        >>> layer(keras.ops.ones((1, 6, 6, 3)), boxes=[[0.0, 0.0, 4.0, 4.0]], box_indices=[0]).shape
        TensorShape([1, 2, 2, 3])

    Source: J. Dai et al., "Deformable Convolutional Networks", ICCV 2017, section 2.2, arXiv:1703.06211.
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        *,
        spatial_scale: float = 1.0,
        sampling_ratio: int = 0,
        gamma: float = 0.1,
        offset_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.output_size = pair("output_size", output_size, 1)
        self.spatial_scale, self.sampling_ratio, self.gamma = spatial_scale, sampling_ratio, gamma
        self.offset_initializer = keras.initializers.get(offset_initializer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != 4 or input_shape[3] is None:
            raise ValueError(
                "inputs must have shape (batch, height, width, channels), with known channels. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        bins = self.output_size[0] * self.output_size[1]
        self.offset_kernel = self.add_weight(
            name="offset_kernel", shape=(bins * input_shape[3], 2 * bins), initializer=self.offset_initializer
        )
        self.offset_bias = self.add_weight(name="offset_bias", shape=(2 * bins,), initializer="zeros")

    def call(self, inputs: tf.Tensor, boxes: tf.Tensor, box_indices: tf.Tensor) -> tf.Tensor:
        def pool(offsets: tf.Tensor | None) -> tf.Tensor:
            return ops.deform_roi_pool(
                inputs,
                boxes,
                box_indices,
                offsets,
                output_size=self.output_size,
                spatial_scale=self.spatial_scale,
                sampling_ratio=self.sampling_ratio,
                gamma=self.gamma,
            )

        content = tf.reshape(pool(None), (-1, self.offset_kernel.shape[0]))
        offsets = tf.matmul(content, tf.convert_to_tensor(self.offset_kernel)) + self.offset_bias
        return pool(tf.reshape(offsets, (-1, *self.output_size, 2)))

    def compute_output_shape(
        self,
        inputs_shape: tuple[int | None, ...],
        boxes_shape: tuple[int | None, ...],
        box_indices_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        return (boxes_shape[0], *self.output_size, inputs_shape[3])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "output_size": self.output_size,
            "spatial_scale": self.spatial_scale,
            "sampling_ratio": self.sampling_ratio,
            "gamma": self.gamma,
            "offset_initializer": keras.initializers.serialize(self.offset_initializer),
        }


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


def _require_positive(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive integer. Received: {name}={value!r}")
