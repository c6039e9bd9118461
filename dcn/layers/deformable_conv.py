"""Deformable convolution layers: drop-in for `Conv1D` and `Conv2D`."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcn import ops
from dcn.ops.compilation import require_choice
from dcn.ops.geometry import is_integer, require_bool, require_number, require_positive

__all__ = ["DeformableConv1D", "DeformableConv2D"]

Shape = tuple[int | None, ...]


class _DeformableConv(keras.layers.Layer):
    """What the layers share. Stands before a Keras convolution among the bases of a class, and extends it."""

    lora_rank: int | None

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
        jit_compile: bool | None = None,
        **kwargs: Any,
    ) -> None:
        for name, count in (("filters", filters), ("groups", groups), ("offset_groups", offset_groups)):
            require_positive(name, count)
        if not isinstance(padding, str) or padding.lower() not in ("valid", "same"):
            raise ValueError(
                "padding must be 'valid' or 'same'; to pad by a number of pixels, put a ZeroPadding layer before one "
                f"with 'valid'. Received: padding={padding!r}"
            )
        for name, choice in (("modulated", modulated), ("freeze_kernel", freeze_kernel)):
            require_bool(name, choice)
        require_number("offset_learning_rate_multiplier", offset_learning_rate_multiplier, above=0)
        if max_offset is not None:
            require_number("max_offset", max_offset, above=0)
        require_choice(jit_compile)
        super().__init__(
            int(filters),
            _python_integers(kernel_size),
            strides=_python_integers(strides),
            padding=padding,
            data_format=data_format,
            dilation_rate=_python_integers(dilation_rate),
            groups=int(groups),
            activation=activation,
            use_bias=use_bias,
            **kwargs,
        )
        if self.data_format != "channels_last":
            raise ValueError(f"data_format must be 'channels_last'. Received: data_format={self.data_format!r}")
        self.offset_groups = int(offset_groups)
        self.max_offset = None if max_offset is None else float(max_offset)
        self.modulated = modulated
        self.offset_initializer = keras.initializers.get(offset_initializer)
        self.offset_regularizer = keras.regularizers.get(offset_regularizer)
        self.offset_constraint = keras.constraints.get(offset_constraint)
        self.offset_learning_rate_multiplier = float(offset_learning_rate_multiplier)
        self.freeze_kernel = freeze_kernel
        self.jit_compile = jit_compile
        self._slower: list[_SlowerSteps] = []
        self._require_kernel_that_may_change(self.lora_rank)

    def build(self, inputs_shape: Shape, guide_shape: Shape | None = None) -> None:
        channels = inputs_shape[-1] if len(inputs_shape) == self.rank + 2 else None
        if not channels or channels % self.groups or channels % self.offset_groups:
            sizes = "length" if self.rank == 1 else "height, width"
            raise ValueError(
                f"inputs must have shape (batch, {sizes}, channels), with channels divisible by groups and "
                f"offset_groups. Received: input_shape={tuple(inputs_shape)}, groups={self.groups}, "
                f"offset_groups={self.offset_groups}"
            )
        if guide_shape is not None:
            self._check_guide(inputs_shape, guide_shape, guide_shape[-1])
            channels = guide_shape[-1]
        # Keras switches LoRA on here and admits no weights after it: those of the offsets come first.
        rank: int | None = self.lora_rank
        self.lora_rank = None
        super().build(inputs_shape)
        numbers = (self.rank + self.modulated) * self.offset_groups * math.prod(self.kernel_size)
        self.offset_kernel = self._add_offset_weight(
            "offset_kernel",
            (*self.kernel_size, channels, numbers),
            self.offset_initializer,
            regularizer=self.offset_regularizer,
            constraint=self.offset_constraint,
        )
        self.offset_bias = self._add_offset_weight("offset_bias", (numbers,), "zeros")
        if rank:
            self.enable_lora(rank, **({"lora_alpha": self.lora_alpha} if hasattr(self, "lora_alpha") else {}))

    def _add_offset_weight(self, name: str, shape: Shape, initializer: Any, **options: Any) -> keras.Variable:
        weight = self.add_weight(name=name, shape=shape, initializer=initializer, **options)
        if self.offset_learning_rate_multiplier != 1:
            weight.constraint = _SlowerSteps(self.offset_learning_rate_multiplier, weight)
            self._slower.append(weight.constraint)
        return weight

    def add_weight(self, *arguments: Any, name: str | None = None, **options: Any) -> keras.Variable:
        # Not a flag on the variable: setting `trainable` of a layer overwrites the flags of its trainable variables.
        if self.freeze_kernel and name in ("kernel", "bias"):
            options["trainable"] = False
        return super().add_weight(*arguments, name=name, **options)

    @property
    def variables(self) -> list[keras.Variable]:
        # State, but no weights: it is in no file, and two layers have the same weights whatever their multiplier.
        return [*super().variables, *(slower.before for slower in self._slower)]

    def enable_lora(self, rank: int, **options: Any) -> None:
        """Adds a low-rank product to the kernel and trains that in place of the kernel, as for Keras' convolutions.

        Args:
            rank: of the product.
            **options: as for Keras' convolutions: `lora_alpha`, `a_initializer`, `b_initializer`.

        Raises:
            ValueError: for a layer with `freeze_kernel` or a constraint on its kernel, or that has not been built.
        """
        self._require_kernel_that_may_change(rank)
        super().enable_lora(rank, **options)

    def _require_kernel_that_may_change(self, rank: int | None) -> None:
        if rank and self.freeze_kernel:
            raise ValueError(
                "freeze_kernel must be False for LoRA, which keeps the kernel itself and changes what the layer "
                f"computes with it. Received: freeze_kernel=True, rank={rank}"
            )

    def call(self, inputs: tf.Tensor, guide: tf.Tensor | None = None) -> tf.Tensor:
        source = inputs if guide is None else guide
        self._check_guide(inputs.shape, source.shape, self.offset_kernel.shape[-2])
        if guide is not None and None in (*inputs.shape, *guide.shape):
            rule = "guide must have the batch and the size of inputs"
            tf.debugging.assert_equal(tf.shape(guide)[:-1], tf.shape(inputs)[:-1], rule)
        offsets, mask = self.offsets_and_mask(source)
        bias = tf.convert_to_tensor(self.bias) if self.use_bias else None
        outputs = self._convolve(inputs, tf.convert_to_tensor(self.kernel), offsets, mask, bias)
        return outputs if self.activation is None else self.activation(outputs)

    def _check_guide(self, inputs_shape: Shape, guide_shape: Shape, channels: int | None) -> None:
        sizes = tf.TensorShape(inputs_shape[:-1])
        if channels is None or not tf.TensorShape(guide_shape).is_compatible_with((*sizes, channels)):
            raise ValueError(
                f"guide, or without one inputs, must have the batch and the size of inputs, {tuple(sizes)}, and the "
                f"channels that the offsets are predicted from, {channels}. Received: shape {tuple(guide_shape)}"
            )

    def compute_output_shape(self, inputs_shape: Shape, guide_shape: Shape | None = None) -> Shape:
        if guide_shape is not None:
            self._check_guide(inputs_shape, guide_shape, guide_shape[-1])
        return super().compute_output_shape(inputs_shape)

    def offsets_and_mask(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns the offsets that the layer predicts, and its mask or None.

        Args:
            inputs: of the layer; if it is called with a guide, the guide. In the type of the weights and with their
                channels: unlike a call, this casts and checks nothing.

        Returns:
            The offsets, (B, Ho, Wo, 2·G·K) in pixels, or of a sequence (B, Lo, G·K) in its steps; and the mask, with
            one number per sample.

        Raises:
            ValueError: if the layer has not been built.
        """
        if not self.built:
            raise ValueError(f"layer must be built: call it once. Received: {self}")
        kernel, bias = (tf.convert_to_tensor(weight) for weight in (self.offset_kernel, self.offset_bias))
        if self._slower:
            kernel, bias = (slower.note(each) for slower, each in zip(self._slower, (kernel, bias), strict=True))
        predicted = keras.ops.conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format="channels_last",
        )
        predicted = tf.nn.bias_add(predicted, bias)
        count = self.rank * self.offset_groups * math.prod(self.kernel_size)
        offsets = predicted[..., :count] if self.modulated else predicted
        if self.max_offset is not None:
            offsets = tf.clip_by_value(offsets, -self.max_offset, self.max_offset)
        return offsets, 2 * tf.sigmoid(predicted[..., count:]) if self.modulated else None

    # Keras stores only kernel and bias of its convolutions, and trainable weights of other layers first; freezing must
    # not change the file. With LoRA the file has the sum, and a layer that reads it starts LoRA anew.
    def save_own_variables(self, store: dict[str, Any]) -> None:
        if self.built:
            for number, weight in enumerate([self.kernel, *self._weights_in_files()[1:]]):
                store[str(number)] = weight

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        if not self.built:
            super().load_own_variables(store)  # accepts an empty store, and says what to do about any other
            return
        expected = self._weights_in_files()
        if len(store) != len(expected):
            raise ValueError(f"layer {self.name} has {len(expected)} weights. Received: {len(store)}")
        for number, weight in enumerate(expected):
            weight.assign(store[str(number)])
        if self.lora_enabled:
            self.lora_kernel_b.assign(tf.zeros(self.lora_kernel_b.shape))  # the other one stays, or neither could learn

    def _weights_in_files(self) -> list[keras.Variable]:
        return [self._kernel, *([self.bias] if self.use_bias else []), self.offset_kernel, self.offset_bias]

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
            "jit_compile": self.jit_compile,
        }


@keras.saving.register_keras_serializable(package="dcn")
class DeformableConv2D(_DeformableConv, keras.layers.Conv2D):
    """Deformable convolution: `keras.layers.Conv2D` whose kernel points move, by offsets learned from the input.

    A convolution with the layer's own kernel size, strides, padding and dilation predicts the offsets, two numbers for
    each kernel point and offset group. Its kernel starts at zero: a new layer computes what `Conv2D` with the same
    kernel computes, and learns from there.

    Args:
        filters: number of output channels.
        kernel_size: points of the kernel along height and width: an integer for both, or a pair.
        strides: steps of the kernel over the image, in pixels: an integer for both axes, or a pair.
        padding: "valid" or "same".
        data_format: "channels_last", or None, if that is Keras' default.
        dilation_rate: pixels between neighbouring points of the kernel: an integer for both axes, or a pair.
        groups: number of groups into which the channels divide.
        activation: function of the output, or its name; None for none.
        use_bias: whether a number for each output channel is added.
        offset_groups: number of groups of input channels with offsets of their own.
        modulated: whether each sample is also weighted (version 2), by 2·sigmoid of a further channel: by exactly 1
            in a new layer.
        offset_initializer: initial value of the offset kernel.
        offset_regularizer: regulariser of the offset kernel.
        offset_constraint: constraint on the offset kernel.
        offset_learning_rate_multiplier: factor of the learning rate for offset kernel and bias: multiplies each step
            that an optimiser of Keras takes on them, whichever optimiser it is, weight decay included; a moving
            average (`use_ema`) is of whole steps. Below 1 it keeps offsets from growing out of the image early in
            training.
        max_offset: how far a point may move along an axis, in pixels; what goes beyond is cut off, and has no gradient.
            None for no limit.
        freeze_kernel: whether kernel and bias stay as they are, also if `trainable` is set, so that the offsets alone
            train: for a layer made by `from_conv2d` or `from_torch`. Excludes LoRA, which trains an addition to the
            kernel.
        jit_compile: as for `dcn.ops.deform_conv2d`.
        **kwargs: initialisers, regularisers and constraints of kernel and bias, `name`, `dtype`, as for `Conv2D`.

    Call arguments:
        inputs: (B, H, W, C), what is sampled.
        guide: (B, H, W, any number of channels), what the offsets and the mask are predicted from; None for `inputs`.

    A guide serves the alignment of two frames: features of one are sampled where features of both, concatenated, say.
    The first call fixes its channels; after `from_conv2d` and `from_torch` they are those of `inputs`.

    Output shape: (B, Ho, Wo, filters), as for `Conv2D`.

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
            **changes: arguments of the new layer, in addition to those of `layer` or in place of them: one that is
                frozen gives a layer that is, unless `trainable=True` is among them.

        Raises:
            ValueError: if `layer` is no `Conv2D`, has not been built, or the changes alter the shape of its kernel.
        """
        if type(layer) is not keras.layers.Conv2D or not layer.built:
            raise ValueError(f"layer must be a built keras.layers.Conv2D. Received: layer={layer!r}")
        config = {name: value for name, value in layer.get_config().items() if not name.startswith("lora")}
        deformable = cls(**{**config, **changes})
        kernel = np.asarray(layer.kernel)  # with LoRA, the sum
        deformable.build((None, None, None, kernel.shape[2] * layer.groups))
        if deformable.kernel.shape != kernel.shape:
            raise ValueError(
                f"changes must keep the shape of the kernel, {kernel.shape}. "
                f"Received: {changes}, which give {tuple(deformable.kernel.shape)}"
            )
        store: dict[str, Any] = {}
        deformable.save_own_variables(store)
        store["0"] = kernel
        if layer.use_bias and deformable.use_bias:
            store["1"] = layer.bias
        deformable.load_own_variables(store)
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
                "conv_offset.weight" and "conv_offset.bias". Other names are ignored: rename those of other code.
            modulated: whether the module is of version 2, which the shapes do not always tell.
            **arguments: of the new layer; `strides`, `padding`, `dilation_rate` and `groups` as the module has them,
                except that strides and dilation above 1 exclude each other, as in `Conv2D`. What the state shows need
                not be given: `kernel_size` (a pair), `filters`, `use_bias` and, of MMCV, `offset_groups`.

        Raises:
            ValueError: if the state lacks "weight", or one of MMCV's two, its shapes do not fit, or an argument
                contradicts it.
        """
        if "weight" not in state or np.ndim(state["weight"]) != 4:
            raise ValueError(f"state must have a weight of rank 4. Received: {sorted(state)}")
        predicts = "conv_offset.weight" in state
        if predicts != ("conv_offset.bias" in state):
            raise ValueError(f"state must have both conv_offset.weight and conv_offset.bias. Received: {sorted(state)}")
        require_bool("modulated", modulated)
        filters, channels, *size = np.shape(state["weight"])
        found: dict[str, Any] = {"filters": filters, "kernel_size": tuple(size), "use_bias": "bias" in state}
        if predicts:
            per_group, numbers = (3 if modulated else 2) * math.prod(size), len(state["conv_offset.weight"])
            if not numbers or numbers % per_group:
                raise ValueError(f"conv_offset.weight must have a multiple of {per_group} filters. Received: {numbers}")
            found["offset_groups"] = numbers // per_group
        for name, value in found.items():
            if arguments.setdefault(name, value) != value:
                raise ValueError(f"{name} must be that of state, {value}. Received: {name}={arguments[name]!r}")
        layer = cls(modulated=modulated, **arguments)
        layer.build((None, None, None, channels * layer.groups))
        store: dict[str, Any] = {}
        layer.save_own_variables(store)
        names = ["weight", *(["bias"] if layer.use_bias else []), "conv_offset.weight", "conv_offset.bias"]
        for number, name in enumerate(names):
            if name in state:
                values = np.asarray(state[name])
                values = np.transpose(values, (2, 3, 1, 0)) if values.ndim == 4 else values
                wanted = tuple(store[str(number)].shape)
                if values.shape != wanted:
                    shapes = (shape[3:] + shape[2:3] + shape[:2] for shape in (wanted, values.shape))
                    raise ValueError("{} must have shape {}. Received: {}".format(name, *shapes))
                store[str(number)] = values
        if modulated and predicts:  # a modulated layer weights its samples by twice the sigmoid, MMCV's by the sigmoid
            store["0"] = store["0"] / 2
        layer.load_own_variables(store)
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
            jit_compile=self.jit_compile,
        )


@keras.saving.register_keras_serializable(package="dcn")
class DeformableConv1D(_DeformableConv, keras.layers.Conv1D):
    """Deformable convolution of sequences: `keras.layers.Conv1D` whose kernel points move along the sequence.

    A convolution with the layer's own kernel size, strides, padding and dilation predicts one offset for each kernel
    point and offset group. It starts at zero: a new layer computes what `Conv1D` with the same kernel computes, and
    learns from there.

    Args:
        filters: number of output channels.
        kernel_size: points of the kernel along the sequence.
        strides: steps of the kernel along the sequence.
        padding: "valid" or "same".
        data_format: "channels_last", or None, if that is Keras' default.
        dilation_rate: steps of the sequence between neighbouring points of the kernel.
        groups: number of groups into which the channels divide.
        activation: function of the output, or its name; None for none.
        use_bias: whether a number for each output channel is added.
        max_offset: how far a point may move, in steps of the sequence; what goes beyond is cut off, and has no
            gradient. None for no limit.
        offset_groups: number of groups of input channels with offsets of their own.
        modulated: whether each sample is also weighted, by 2·sigmoid of a further channel: by exactly 1 in a new layer.
        offset_initializer: initial value of the offset kernel.
        offset_regularizer: regulariser of the offset kernel.
        offset_constraint: constraint on the offset kernel.
        offset_learning_rate_multiplier: factor of the learning rate for offset kernel and bias.
        freeze_kernel: whether kernel and bias stay as they are, so that the offsets alone train.
        jit_compile: as for `dcn.ops.deform_conv2d`.
        **kwargs: initialisers, regularisers and constraints of kernel and bias, `name`, `dtype`, as for `Conv1D`.

    Call arguments:
        inputs: (B, L, C), what is sampled.
        guide: (B, L, any number of channels), what the offsets and the mask are predicted from; None for `inputs`.

    Output shape: (B, Lo, filters), as for `Conv1D`.

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
            jit_compile=self.jit_compile,
        )[:, 0]


class _SlowerSteps(keras.constraints.Constraint):
    """Multiplies every step of an optimiser on a weight by a factor.

    As a constraint it is the last to change the weight, whatever the optimiser, and so sees the whole step: also
    weight decay, and the step of an optimiser that scales it by the size of the weight. The step starts from the value
    that the gradient was computed with.
    """

    def __init__(self, factor: float, weight: keras.Variable) -> None:
        self.factor, self.weight, self.constraint = factor, weight, weight.constraint
        self.before = keras.Variable(
            keras.initializers.Constant(float("nan")),  # until the first gradient
            shape=weight.shape,
            dtype=weight.dtype,
            trainable=False,
            aggregation="mean",
            name=f"{weight.name}_before",
        )

    def note(self, used: tf.Tensor) -> tf.Tensor:
        """Returns the value of the weight that a layer uses, unchanged, and records the weight with its gradient."""

        @tf.custom_gradient
        def identity(used: tf.Tensor) -> tuple[tf.Tensor, Callable]:
            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                self.before.assign(self.weight)
                return upstream

            return tf.identity(used), gradient

        return identity(used)

    def __call__(self, w: Any) -> tf.Tensor:
        w, before = tf.convert_to_tensor(w), tf.convert_to_tensor(self.before)
        after = tf.where(tf.math.is_nan(before), w, before + self.factor * (w - before))
        after = after if self.constraint is None else self.constraint(after)
        self.before.assign(after)
        return after


def _python_integers(value: Any) -> Any:
    """Returns Python's integers in place of NumPy's, which Keras refuses; anything else as it is."""
    if isinstance(value, tuple | list):
        return tuple(_python_integers(number) for number in value)
    return operator.index(value) if is_integer(value) else value
