"""Compilation of functions to TensorFlow graphs and XLA clusters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = ["cluster", "graph"]


def graph(function: Callable) -> Callable:
    """Compiles a function of tensors to one TensorFlow graph per signature."""
    return _traced(function, jit_compile=False)


def cluster(function: Callable) -> Callable:
    """Compiles a function of tensors to one XLA cluster per signature."""
    return _traced(function, jit_compile=True)


def _traced(function: Callable, jit_compile: bool) -> Callable:
    traced = tf.function(function, jit_compile=jit_compile, autograph=False)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        # A direct call would warn of retracing in every network whose layers differ in shape.
        return traced.get_concrete_function(*arguments)(*arguments)

    return call
