"""Deformable pooling of regions of interest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from dcn import ops
from dcn.layers.conv_offset import require_channels_last
from dcn.ops.compilation import require_choice
from dcn.ops.geometry import is_integer, pair, require_number

__all__ = ["DeformableRoIPooling2D"]


@keras.saving.register_keras_serializable(package="dcn")
class DeformableRoIPooling2D(keras.layers.Layer):
    """Deformable RoI pooling: pools boxes into bins, moved by offsets that a dense layer predicts from their content.

    A first, undisplaced pooling feeds the dense layer, whose kernel starts at zero: a new layer is aligned average RoI
    pooling.

    Args:
        output_size: (ph, pw) bins, or one integer for both.
        spatial_scale: as for `dcn.ops.deform_roi_pool`: pixels of the feature map per pixel of the image.
        sampling_ratio: as there: samples per bin along each axis; 0, torchvision's -1, for as many as the bin has
            pixels.
        gamma: as there: factor of the offsets.
        offset_initializer: initial value of the dense kernel, (ph·pw·C, 2·ph·pw).
        jit_compile: as there.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.

    Call arguments: inputs (B, H, W, C); boxes (R, 4) as (y1, x1, y2, x2) in image pixels; box_indices (R,) integers,
    the image of each box. Boxes keep their type under a mixed policy: half precision would round their corners.

    Output shape: (R, ph, pw, C).

    Raises:
        ValueError: if an argument breaks its rule, or the channels of the input are unknown or others than at first.

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
        jit_compile: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        require_number("spatial_scale", spatial_scale, above=0)
        require_number("gamma", gamma)
        if not is_integer(sampling_ratio) or sampling_ratio < 0:
            raise ValueError(
                f"sampling_ratio must be an integer of at least 0. Received: sampling_ratio={sampling_ratio!r}"
            )
        require_choice(jit_compile)
        require_channels_last()
        self.output_size = pair("output_size", output_size, 1)
        self.spatial_scale, self.sampling_ratio, self.gamma = float(spatial_scale), int(sampling_ratio), float(gamma)
        self.jit_compile = jit_compile
        self.offset_initializer = keras.initializers.get(offset_initializer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != 4 or input_shape[3] is None:
            raise ValueError(
                "inputs must have shape (batch, height, width, channels), with known channels. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={3: input_shape[3]})
        bins = self.output_size[0] * self.output_size[1]
        self.offset_kernel = self.add_weight(
            name="offset_kernel", shape=(bins * input_shape[3], 2 * bins), initializer=self.offset_initializer
        )
        self.offset_bias = self.add_weight(name="offset_bias", shape=(2 * bins,), initializer="zeros")

    def call(self, inputs: tf.Tensor, boxes: tf.Tensor, box_indices: tf.Tensor) -> tf.Tensor:
        inputs, kernel, bias = (tf.cast(x, self.compute_dtype) for x in (inputs, self.offset_kernel, self.offset_bias))

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
                jit_compile=self.jit_compile,
            )

        content = tf.reshape(pool(None), (-1, kernel.shape[0]))
        offsets = tf.matmul(content, kernel) + bias
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
            "jit_compile": self.jit_compile,
        }
