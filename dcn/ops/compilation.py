"""Compilation of functions to TensorFlow graphs and XLA clusters, and the choice whether XLA is used.

XLA compiles a cluster anew for every shape and never frees it. A function traced with unknown sizes serves all shapes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import tensorflow as tf

__all__ = ["EAGER_SHAPES", "cluster", "graph", "on_gpu", "require_choice", "uses_xla"]

EAGER_SHAPES = 4  # number of shapes per configuration that XLA serves in eager mode; each takes 4 to 6 MB for ever

_eager_shapes: dict[Hashable, set[Hashable]] = {}


def require_choice(jit_compile: object) -> None:
    """Checks the argument `jit_compile` of an operator.

    Raises:
        ValueError: if it is neither a bool nor None.
    """
    if jit_compile is not None and not isinstance(jit_compile, bool):
        raise ValueError(f"jit_compile must be True, False or None. Received: jit_compile={jit_compile!r}")


def uses_xla(jit_compile: bool | None, configuration: Hashable, images: tf.Tensor) -> bool:
    """Returns whether XLA serves a call: what the caller chose, or the rule of `deform_conv2d` for None.

    Args:
        jit_compile: the caller's choice.
        configuration: what the call has in common with calls for other sizes of the images.
        images: (B, H, W, C).
    """
    if jit_compile is not None:
        return jit_compile
    if not tf.executing_eagerly():
        return None not in images.shape[1:3]
    shapes = _eager_shapes.setdefault(configuration, set())
    if len(shapes) < EAGER_SHAPES:
        shapes.add(tuple(images.shape))
    return tuple(images.shape) in shapes


def on_gpu() -> bool:
    """Returns whether operations created now run on a GPU.

    A graph without a device scope is placed later: on a GPU if the machine has one.
    """
    device = tf.constant(0.0).device
    return "GPU" in device if device else bool(tf.config.list_physical_devices("GPU"))


def graph(function: Callable, exact: Sequence[str] = ()) -> Callable:
    """Compiles a function of tensors for eager mode, to one graph for all sizes; inside a graph it is inlined.

    Args:
        function: function of tensors, or None in their place, and of hashable values.
        exact: names of the tensors whose shapes the graph has to know. Of the others it knows the rank and, from rank
            2 on, the last axis.
    """
    traced = tf.function(function, autograph=False)
    names = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        if not tf.executing_eagerly():
            return function(*arguments)
        pairs = zip(names, arguments, strict=True)
        signature = [argument if name in exact else _of_any_size(argument) for name, argument in pairs]
        return traced.get_concrete_function(*signature)(*arguments)

    return call


def cluster(function: Callable) -> Any:
    """Compiles a function of tensors to XLA clusters, from one graph for all sizes.

    In a cluster the ranks are known and, from rank 2 on, the last axis. `__wrapped__` is the function itself.
    """
    traced = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        # A direct call would trace again for every shape, keep each graph, and warn.
        signature = tf.nest.map_structure(_of_any_size, arguments)
        return traced.get_concrete_function(*signature)(*arguments)

    return call


def _of_any_size(argument: Any) -> Any:
    if not tf.is_tensor(argument):
        return argument
    sizes = argument.shape.as_list()
    last = sizes[-1] if len(sizes) > 1 else None
    return tf.TensorSpec([*[None] * (len(sizes) - 1), last], argument.dtype)
