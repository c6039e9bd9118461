"""The paper's layer, as published and repaired."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from dcn import ops
from dcn.ops.compilation import require_choice
from dcn.ops.geometry import require_positive

__all__ = ["ConvOffset2D"]


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
        jit_compile: as for `dcn.ops.resample_by_offsets`.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.

    Input shape: (B, H, W, C). Output shape: the same.

    Raises:
        ValueError: if an argument breaks its rule, the input has not `filters` channels, or Keras is configured for
            channels first.

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
        jit_compile: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_positive("filters", filters)
        require_choice(jit_compile)
        require_channels_last()
        self.filters = int(filters)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        for name, choice, repaired in (("corners", corners, "bilinear"), ("pairing", pairing, "per_pixel")):
            if choice not in ("published", repaired):
                raise ValueError(f"{name} must be 'published' or {repaired!r}. Received: {name}={choice!r}")
        self.corners, self.pairing, self.jit_compile = corners, pairing, jit_compile

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
        return ops.resample_by_offsets(
            inputs, self.offsets(inputs), corners=self.corners, pairing=self.pairing, jit_compile=self.jit_compile
        )

    def offsets(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the offsets (B, H, W, 2C) in pixels that the layer predicts.

        Args:
            inputs: of the layer, in the type of its weights: unlike a call, this casts nothing.

        Raises:
            ValueError: if the layer has not been built.
        """
        if not self.built:
            raise ValueError(f"layer must be built: call it once. Received: {self}")
        return keras.ops.conv(inputs, self.kernel, padding="same", data_format="channels_last")

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
            "jit_compile": self.jit_compile,
        }


def require_channels_last() -> None:
    """Checks the global setting of Keras.

    Raises:
        ValueError: if it is "channels_first".
    """
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "data_format must be 'channels_last'. Received: keras.config.image_data_format()='channels_first'"
        )
