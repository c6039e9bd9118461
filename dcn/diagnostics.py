"""Detection of weights that receive no gradient."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

__all__ = ["dead_weights"]


def dead_weights(layer: keras.layers.Layer, inputs: Any, *, seed: int = 0) -> list[str]:
    """Returns the trainable weights that receive no gradient, and so never change in training.

    Computes the gradient of a random weighted sum of all outputs. A weight is dead if its gradient is exactly zero
    everywhere, or if the outputs do not depend on it. A gradient that is zero in places, as behind a ReLU, is ignored.
    Useful in the tests of any layer whose weights start at zero.

    Args:
        layer: a layer or a model.
        inputs: what to call it with; random values rather than zeros.
        seed: seed of the random sum.

    Returns:
        The paths of the dead weights; an empty list if all can learn.

    Example:
        >>> import dcn
        >>> images = keras.random.uniform((2, 6, 5, 3), seed=0)
        >>> dead_weights(dcn.ConvOffset2D(3, name="published"), images)
        ['published/kernel']
        >>> dead_weights(dcn.ConvOffset2D(3, corners="bilinear"), images)
        []
    """
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(layer(inputs))
        sums = [tf.reduce_sum(each * _random_like(each, seed + number)) for number, each in enumerate(outputs)]
        loss = tf.add_n(sums)
    weights = layer.trainable_weights
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    alive = [gradient is not None and bool(tf.reduce_any(gradient != 0)) for gradient in gradients]
    return [weight.path for weight, learns in zip(weights, alive, strict=True) if not learns]


def _random_like(outputs: tf.Tensor, seed: int) -> tf.Tensor:
    return tf.cast(tf.random.stateless_normal(tf.shape(outputs), (seed, seed)), outputs.dtype)
