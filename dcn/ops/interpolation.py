"""Linear interpolation between two values."""

import tensorflow as tf

__all__ = ["lerp"]


def lerp(share: tf.Tensor, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns (1 - share) · one + share · other; a value of weight zero is ignored, even if it is NaN."""
    return tf.math.multiply_no_nan(one, 1 - share) + tf.math.multiply_no_nan(other, share)
