"""The networks of the study on MNIST-Scale: each is the paper's CNN or mini-ResNet with one thing changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from dcn import models
from dcn.layers import DeformableConv2D
from dcn.ops import resample_by_offsets

__all__ = [
    "AffineSampling",
    "BlurPooling2D",
    "SharedOffsetsConv2D",
    "antialiased_cnn",
    "deform_conv_mini_resnet",
    "dilated_cnn",
    "modulated_deform_conv_cnn",
    "shared_offsets_cnn",
    "small_cnn",
    "transformer_cnn",
    "wide_cnn",
    "wider_cnn",
]

# Filters by convolution: to train many runs; for the multiply-adds of `deform_conv_cnn`; for its seconds per step.
SMALL = {"conv11": 8, "conv12": 16, "conv21": 32, "conv22": 32}
WIDE = {"conv11": 40, "conv12": 68, "conv21": 136, "conv22": 136}
WIDER = {"conv11": 64, "conv12": 128, "conv21": 160, "conv22": 128}


def small_cnn(input_shape: tuple[int, int, int] = (28, 28, 1)) -> keras.Model:
    """The paper's CNN with a quarter of its filters."""
    return _widened("small_cnn", input_shape, SMALL)


def wide_cnn(input_shape: tuple[int, int, int] = (28, 28, 1)) -> keras.Model:
    """The paper's CNN with more filters: as many multiply-adds as `dcn.deform_conv_cnn` has."""
    return _widened("wide_cnn", input_shape, WIDE)


def wider_cnn(input_shape: tuple[int, int, int] = (28, 28, 1)) -> keras.Model:
    """The paper's CNN with more filters yet: a training step takes as long as one of `dcn.deform_conv_cnn`."""
    return _widened("wider_cnn", input_shape, WIDER)


def dilated_cnn(input_shape: tuple[int, int, int] = (28, 28, 1)) -> keras.Model:
    """The paper's CNN with dilation 2 in its convolutions without stride, the first one excepted."""

    def dilate(layer: keras.layers.Conv2D) -> keras.layers.Layer:
        rate = 2 if layer.strides == (1, 1) and layer.name != "conv11" else 1
        return _changed(layer, dilation_rate=rate)

    base = models.cnn(input_shape)
    dilated = _with_convolutions("dilated_cnn", base, dilate)
    models.copy_weights_by_name(base, dilated)
    return dilated


def antialiased_cnn(input_shape: tuple[int, int, int] = (28, 28, 1)) -> keras.Model:
    """The paper's CNN whose strided convolutions go without their stride, and are low-pass filtered before it.

    Source: R. Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, arXiv:1904.11486.
    """
    base = models.cnn(input_shape)
    inputs = x = keras.Input(input_shape, name="input")
    for layer in base.layers[1:]:
        strided = isinstance(layer, keras.layers.Conv2D) and layer.strides != (1, 1)
        x = (_changed(layer, strides=(1, 1)) if strided else _changed(layer))(x)
        if layer.name in ("conv12_relu", "conv22_relu"):
            x = BlurPooling2D(name=layer.name.replace("relu", "blur"))(x)
    filtered = keras.Model(inputs, x, name="antialiased_cnn")
    models.copy_weights_by_name(base, filtered)
    return filtered


def modulated_deform_conv_cnn(input_shape: tuple[int, int, int] = (28, 28, 1)) -> keras.Model:
    """The paper's CNN with modulated deformable convolutions in place of all but the first."""
    return models.deform_conv_cnn(input_shape, modulated=True)


def shared_offsets_cnn(input_shape: tuple[int, int, int] = (28, 28, 1)) -> keras.Model:
    """`dcn.deform_conv_cnn` whose offsets are learned, but the same for every image and place."""
    base = models.cnn(input_shape)
    shared = _with_convolutions("shared_offsets_cnn", base, partial(_deformed, SharedOffsetsConv2D))
    models.copy_weights_by_name(base, shared)
    return shared


def transformer_cnn(input_shape: tuple[int, int, int] = (28, 28, 1)) -> keras.Model:
    """The paper's CNN behind a spatial transformer: an affine one, at the start the identity.

    Source: M. Jaderberg et al., "Spatial Transformer Networks", NeurIPS 2015, arXiv:1506.02025.
    """
    base = models.cnn(input_shape)
    inputs = x = keras.Input(input_shape, name="input")
    for index, filters in enumerate((16, 32), 1):
        x = keras.layers.Conv2D(
            filters, 3, strides=2, padding="same", activation="relu", name=f"localisation_conv{index}"
        )(x)
    x = keras.layers.Flatten(name="localisation_flat")(x)
    x = keras.layers.Dense(32, activation="relu", name="localisation_fc1")(x)
    change = keras.layers.Dense(6, kernel_initializer="zeros", name="localisation_fc2")(x)
    x = AffineSampling(name="sampling")([inputs, change])
    for layer in base.layers[1:]:
        x = layer(x)
    return keras.Model(inputs, x, name="transformer_cnn")


def deform_conv_mini_resnet(input_shape: tuple[int, int, int] = (28, 28, 1), *, chained: bool = False) -> keras.Model:
    """The paper's mini-ResNet with true deformable convolutions in its blocks."""
    base = models.mini_resnet(input_shape, chained=chained)
    deformable = _with_convolutions("deform_conv_mini_resnet", base, partial(_deformed, DeformableConv2D))
    models.copy_weights_by_name(base, deformable)
    return deformable


@keras.saving.register_keras_serializable(package="dcn_study")
class SharedOffsetsConv2D(DeformableConv2D):
    """A deformable convolution whose offset kernel stays zero: its offsets are a bias that learns."""

    def build(self, inputs_shape: tuple[int | None, ...], guide_shape: tuple[int | None, ...] | None = None) -> None:
        super().build(inputs_shape, guide_shape)
        self.offset_kernel.trainable = False


@keras.saving.register_keras_serializable(package="dcn_study")
class BlurPooling2D(keras.layers.Layer):
    """Filters images (B, H, W, C) by (1, 2, 1) / 4 along both axes and keeps every other pixel, from the first.

    The border pixel continues beyond the image. Output: (B, ceil(H / 2), ceil(W / 2), C).
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        channels = inputs.shape[3]
        taps = tf.constant([1.0, 2.0, 1.0], inputs.dtype) / 4
        kernel = tf.tile((taps[:, None] * taps)[:, :, None, None], (1, 1, channels, 1))
        padded = tf.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)), "SYMMETRIC")
        return tf.nn.depthwise_conv2d(padded, kernel, (1, 2, 2, 1), "VALID")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, channels = input_shape
        halved = (None if size is None else -(-size // 2) for size in (height, width))
        return (batch, *halved, channels)


@keras.saving.register_keras_serializable(package="dcn_study")
class AffineSampling(keras.layers.Layer):
    """Samples images (B, H, W, C) by affine maps: two inputs, the images and how each map differs from the identity.

    The second input (B, 6) holds, row by row, a 2x3 matrix over (y, x, 1) in coordinates from -1 to 1.
    """

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        images, change = inputs
        height, width, channels = images.shape[1:]
        y, x = tf.meshgrid(tf.linspace(-1.0, 1.0, height), tf.linspace(-1.0, 1.0, width), indexing="ij")
        places = tf.stack([y, x, tf.ones_like(y)], axis=-1)
        offsets = tf.einsum("hwk,bjk->bhwj", places, tf.reshape(change, (-1, 2, 3)))
        pixels = tf.constant([(height - 1) / 2, (width - 1) / 2], offsets.dtype)
        return resample_by_offsets(
            images, tf.tile(offsets * pixels, (1, 1, 1, channels)), corners="bilinear", pairing="per_pixel"
        )

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return tuple(input_shape[0])


def _widened(name: str, input_shape: tuple[int, int, int], filters: Mapping[str, int]) -> keras.Model:
    return _with_convolutions(name, models.cnn(input_shape), lambda layer: _changed(layer, filters=filters[layer.name]))


def _deformed(kind: type[DeformableConv2D], layer: keras.layers.Conv2D) -> keras.layers.Layer:
    """Returns a deformable layer for a convolution; a regular one for the first of a network."""
    return _changed(layer) if layer.name in ("conv11", "c_in") else kind.from_config(layer.get_config())


def _changed(layer: keras.layers.Layer, **changes: Any) -> keras.layers.Layer:
    return layer.__class__.from_config({**layer.get_config(), **changes})


def _with_convolutions(
    name: str, base: keras.Model, convolution: Callable[[keras.layers.Conv2D], keras.layers.Layer]
) -> keras.Model:
    """Returns a new model with the graph of another, and with other convolutions in it."""

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        return convolution(layer) if isinstance(layer, keras.layers.Conv2D) else _changed(layer)

    cloned = keras.models.clone_model(base, clone_function=clone)
    return keras.Model(cloned.input, cloned.output, name=name)
