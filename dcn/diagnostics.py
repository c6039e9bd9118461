"""Detection of weights that receive no gradient, and the points at which a layer samples its input."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcn.layers import ConvOffset2D, DeformableConv1D, DeformableConv2D

__all__ = ["dead_weights", "sampling_points"]


def dead_weights(layer: keras.layers.Layer, inputs: Any, *, seed: int = 0) -> list[str]:
    """Returns the trainable weights that receive no gradient at these inputs: as they are, they do not learn.

    Computes the gradient of a random weighted sum of all outputs. A weight is dead if its gradient is exactly zero
    everywhere, or if the outputs do not depend on it. A gradient that is zero in places, as behind a ReLU, is ignored.
    Useful in the tests of any layer whose weights start at zero. Weights behind a factor that starts at zero, such as a
    gate or a residual scale, are named too: they learn once the factor has, so train one step before the test.

    Args:
        layer: a layer or a model; wrap a layer that takes several arguments in a `keras.Model`.
        inputs: what to call it with; random values, since zeros give no kernel a gradient.
        seed: seed of the random sum.

    Returns:
        The paths of the dead weights; an empty list if all learn.

    Raises:
        ValueError: if all floating-point inputs are zero.

    Example:
        >>> import dcn
        >>> images = keras.random.uniform((2, 6, 5, 3), seed=0)
        >>> dead_weights(dcn.ConvOffset2D(3, name="published"), images)
        ['published/kernel']
        >>> dead_weights(dcn.ConvOffset2D(3, corners="bilinear"), images)
        []
    """
    tensors = [tf.convert_to_tensor(tensor) for tensor in tf.nest.flatten(inputs)]
    tensors = [tensor for tensor in tensors if tensor.dtype.is_floating]
    if tensors and not any(bool(tf.reduce_any(tensor != 0)) for tensor in tensors):
        shapes = [tuple(tensor.shape) for tensor in tensors]
        raise ValueError(f"inputs must not be all zero: a kernel learns nothing from them. Received: shapes {shapes}")
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(layer(inputs))
        loss = tf.add_n([_random_sum(each, seed + number) for number, each in enumerate(outputs)])
    weights = layer.trainable_weights
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    alive = [
        gradient is not None and bool(tf.reduce_any(tf.convert_to_tensor(gradient) != 0)) for gradient in gradients
    ]
    return [weight.path for weight, learns in zip(weights, alive, strict=True) if not learns]


def _random_sum(outputs: tf.Tensor, seed: int) -> tf.Tensor:
    factors = tf.random.stateless_normal(tf.shape(outputs), (seed, seed))
    return tf.reduce_sum(tf.cast(outputs, tf.float64) * tf.cast(factors, tf.float64))


def sampling_points(layer: keras.layers.Layer, inputs: Any) -> np.ndarray:
    """Returns where a deformable layer samples its input, in pixels from the centre of pixel (0, 0).

    Strides, padding, dilation, offset groups and `max_offset` are taken into account. Points outside the image are
    included: a convolution reads zero there. `ConvOffset2D` clips its points to the image, and so are they here.
    Computed in the type of the weights: under a mixed policy the layer itself rounds its offsets.

    Args:
        layer: a built `DeformableConv2D`, `DeformableConv1D` or `ConvOffset2D`.
        inputs: of the layer; if it is called with a guide, the guide, which has the same height and width.

    Returns:
        (B, Ho, Wo, G, K, 2) as (y, x), for each output location, offset group and kernel point in row-major order; of a
        sequence (B, Lo, G, K), in its steps; of a `ConvOffset2D` (B, H, W, C, 2) as (y, x).

    Raises:
        ValueError: if the layer is none of the three or has not been built, or the inputs have other channels or
            another rank than those that its offsets are predicted from.

    Example:
        >>> import dcn
        >>> layer = dcn.DeformableConv2D(4, 3, padding="same")
        >>> images = keras.random.uniform((1, 6, 5, 2), seed=0)
        >>> features = layer(images)
        >>> sampling_points(layer, images)[0, 2, 1, 0].tolist()  # around pixel (2, 1)
        [[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [2.0, 0.0], [2.0, 1.0], [2.0, 2.0], [3.0, 0.0], [3.0, 1.0], [3.0, 2.0]]

        For a picture: `plt.scatter(points[..., 1], points[..., 0])` over `plt.imshow(image)`.
    """
    if not isinstance(layer, ConvOffset2D | DeformableConv1D | DeformableConv2D):
        raise ValueError(
            f"layer must be a DeformableConv2D, a DeformableConv1D or a ConvOffset2D. Received: layer={layer!r}"
        )
    if layer.built:
        weights = layer.kernel if isinstance(layer, ConvOffset2D) else layer.offset_kernel
        shape, expected, channels = tuple(np.shape(inputs)), len(weights.shape), weights.shape[-2]
        if len(shape) != expected or shape[-1] != channels:
            raise ValueError(
                f"inputs must have rank {expected} and the {channels} channels that the offsets are predicted from. "
                f"Received: shape {shape}"
            )
    if isinstance(layer, ConvOffset2D):
        return _points_of_values(layer, inputs)
    offsets = np.asarray(tf.cast(layer.offsets_and_mask(tf.cast(inputs, layer.variable_dtype))[0], tf.float32))
    rank, sizes = layer.rank, offsets.shape[1:-1]
    starts, places = [], []
    for axis, count in enumerate(sizes):
        points = layer.dilation_rate[axis] * np.arange(layer.kernel_size[axis])
        step, size = layer.strides[axis], np.shape(inputs)[1 + axis]
        padding = max(0, (count - 1) * step + points[-1] + 1 - size) if layer.padding == "same" else 0
        starts.append(step * np.arange(count) - padding // 2)
        places.append(points)
    outputs = np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1)  # (Ho, Wo, 2)
    kernel = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).reshape(-1, rank)  # (K, 2)
    moved = offsets.reshape(*offsets.shape[:-1], layer.offset_groups, len(kernel), rank)
    points = moved + np.float32(outputs[..., None, None, :] + kernel)
    return points if rank == 2 else points[..., 0]


def _points_of_values(layer: ConvOffset2D, inputs: Any) -> np.ndarray:
    offsets = np.asarray(tf.cast(layer.offsets(tf.cast(inputs, layer.variable_dtype)), tf.float32))
    batch, height, width, doubled = offsets.shape
    if layer.pairing == "published":  # see `resample_by_offsets`
        offsets = offsets.transpose(0, 3, 1, 2).reshape(batch, doubled // 2, height, width, 2).transpose(0, 2, 3, 1, 4)
    pixels = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1)[:, :, None]
    points = np.float32(pixels) + offsets.reshape(batch, height, width, doubled // 2, 2)
    return np.clip(points, 0, np.array([height - 1, width - 1], np.float32))
