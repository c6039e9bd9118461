"""The effective receptive field of a network, by its gradient."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

__all__ = ["area", "gradient_field", "middle_of"]


def gradient_field(model: keras.Model, images: np.ndarray, layer: str) -> np.ndarray:
    """Returns the effective receptive field of the output in the middle of a layer, by its gradient.

    Args:
        model: any model.
        images: (B, H, W, C).
        layer: name of a layer with an output (B, H', W', C').

    Returns:
        (H, W): the absolute gradient of the sum of the output's channels, a mean over the images; its sum is 1.

    Source: W. Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", NeurIPS
    2016, arXiv:1701.04128.
    """
    inner, (y, x) = middle_of(model, layer)
    inputs = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(inner(inputs)[:, y, x])
    gradient = np.abs(tape.gradient(total, inputs)).sum(axis=3).mean(axis=0)
    return gradient / gradient.sum()


def area(field: np.ndarray, share: float) -> int:
    """Returns how many pixels, the strongest first, hold a share of a field whose sum is 1."""
    held = np.cumsum(np.sort(field.ravel().astype(float))[::-1])
    return int(np.searchsorted(held, share * (1 - 1e-6))) + 1


def middle_of(model: keras.Model, layer: str) -> tuple[keras.Model, tuple[int, int]]:
    """Returns the model up to a layer, and the (y, x) of the output in the middle of its feature map."""
    inner = keras.Model(model.input, model.get_layer(layer).output)
    height, width = inner.output.shape[1:3]
    return inner, (height // 2, width // 2)
