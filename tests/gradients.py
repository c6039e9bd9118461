"""Gradients of operators, and their check against finite differences."""

import numpy as np
import tensorflow as tf


def gradients(operator, *tensors, upstream=None):
    """Returns the outputs of an operator and the gradients of all arguments, of the outputs' sum weighted by upstream.

    Without upstream every weight is 1.
    """
    tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outputs = operator(*tensors)
    return outputs, *tape.gradient(outputs, tensors, upstream)


def assert_gradients_equal_differences(random, operator, *arrays, step=1e-6):
    """Compares the gradient of each argument, in float64, with central differences along three random directions."""
    upstream = random.normal(size=operator(*arrays).shape)
    for number, gradient in enumerate(gradients(operator, *arrays, upstream=upstream)[1:]):
        gradient = tf.convert_to_tensor(gradient)
        assert np.abs(gradient).max() > 0.05, number
        for _ in range(3):
            direction = random.normal(size=gradient.shape)
            behind, ahead = (
                np.sum(operator(*arrays[:number], arrays[number] + move, *arrays[number + 1 :]) * upstream)
                for move in (-step * direction, step * direction)
            )
            expected = (ahead - behind) / (2 * step)
            np.testing.assert_allclose(np.sum(gradient * direction), expected, atol=1e-6, err_msg=f"argument {number}")
