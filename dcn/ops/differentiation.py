"""Operators with hand-written first derivatives; higher derivatives raise an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

__all__ = ["differentiable_once"]


def differentiable_once(
    operator: str,
    values: Callable[..., tf.Tensor],
    gradients: Callable[..., Sequence[tf.Tensor]],
    *tensors: tf.Tensor,
) -> tf.Tensor:
    """Evaluates an operator whose gradients are computed by a separate function.

    Args:
        operator: name of the operator, for the error message.
        values: function that returns the operator's output for the tensors.
        gradients: function that returns one gradient per tensor, given the gradient of the output and the tensors.
        *tensors: inputs of the operator.

    Raises:
        NotImplementedError: when a gradient is differentiated again, which forward mode does too.
    """

    @tf.custom_gradient
    def once(*tensors: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def backward(upstream: tf.Tensor) -> Sequence[tf.Tensor]:
            return never_again(upstream, *tensors)

        return values(*map(tf.stop_gradient, tensors)), backward

    @tf.custom_gradient
    def never_again(*arguments: tf.Tensor) -> tuple[Sequence[tf.Tensor], Callable]:
        def refuse(*_: tf.Tensor) -> None:
            raise NotImplementedError(
                f"{operator} has first derivatives in reverse mode alone: no second ones, no forward mode"
            )

        return gradients(*map(tf.stop_gradient, arguments)), refuse

    return once(*tensors)
