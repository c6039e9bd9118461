"""Functions as graphs, and as clusters that XLA compiles."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = ["cluster", "graph"]


def graph(function: Callable) -> Callable:
    """Makes a function of tensors a graph, one for each signature."""
    return _traced(function, jit_compile=False)


def cluster(function: Callable) -> Callable:
    """Makes a function of tensors a cluster that XLA compiles, one for each signature."""
    return _traced(function, jit_compile=True)


def _traced(function: Callable, jit_compile: bool) -> Callable:
    traced = tf.function(function, jit_compile=jit_compile, autograph=False)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        # Called directly, it would warn of retracing in every network whose layers differ in shape.
        return traced.get_concrete_function(*arguments)(*arguments)

    return call
