"""Gradients that are written by hand, and what is refused where they end."""

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
    """Returns the values of an operator whose gradients are computed by a function of its own.

    Args:
        operator: its name, for the error.
        values: of the tensors.
        gradients: of the gradient with respect to the values, and the tensors; one for each tensor.
        *tensors: what the operator works on.

    Raises:
        NotImplementedError: when a gradient is differentiated again, or the operator in forward mode, which does so.
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
