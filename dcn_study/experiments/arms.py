"""What the arms of the registered studies cost: parameters, time and memory of a training step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np

from dcn_study.errors import ConfigurationError
from dcn_study.experiments.timing import peak_memory, peak_memory_here, times
from dcn_study.names import ARMS
from dcn_study.runs import catalogue, networks
from dcn_study.runs.training import use_threads

__all__ = ["arm_costs", "arms_named", "step_memory_here"]


def arms_named(text: str) -> tuple[str, ...]:
    """Returns the arms that a text names, separated by commas; all of them for "all".

    Raises:
        ConfigurationError: if one is unknown.
    """
    found = tuple(ARMS) if text == "all" else tuple(text.split(","))
    if not set(found) <= set(ARMS):
        raise ConfigurationError(f"arms must be 'all' or some of {','.join(ARMS)}. Received: arms={text!r}")
    return found


def arm_costs(*, arms: str, batch: int, repeats: int, threads: int, memory: bool) -> dict[str, Any]:
    """Times the training steps of the studies' arms in turn, in one process.

    Args:
        arms: names, separated by commas, or "all".
        batch: images in a step.
        repeats: measurements of each.
        threads: of TensorFlow, as the study's runs have; 0 for all processors.
        memory: whether to measure the memory of a step too, each in a process of its own.

    Returns:
        By arm: "parameters", "step_ms" (first quartile, median, third quartile) and
        "memory" (at its peak, in bytes; None where it was not measured).

    Raises:
        ConfigurationError: if a parameter breaks its rule.
    """
    chosen = arms_named(arms)
    for name, value in (("batch", batch), ("repeats", repeats)):
        if value < 1:
            raise ConfigurationError(f"{name} must be at least 1. Received: {name}={value}")
    if threads < 0:
        raise ConfigurationError(f"threads must be at least 0. Received: threads={threads}")

    if threads:
        use_threads(threads)
    models = {arm: _built(arm) for arm in chosen}
    steps = {arm: _step(model, batch) for arm, model in models.items()}
    return {
        "parameters": {arm: model.count_params() for arm, model in models.items()},
        "step_ms": times(steps, repeats),
        "memory": {arm: peak_memory(step_memory_here, arm, batch, threads) if memory else None for arm in chosen},
    }


def step_memory_here(arm: str, batch: int, threads: int) -> int:
    """Returns the bytes that a training step of an arm takes at its peak, in this process, new for it."""
    if threads:
        use_threads(threads)
    return peak_memory_here(lambda: _step(_built(arm), batch))


def _built(arm: str) -> keras.Model:
    return networks.build_model(catalogue.arm_config(arm))


def _step(model: keras.Model, batch: int) -> Callable[[], Any]:
    random = np.random.default_rng(0)
    images = random.uniform(size=(batch, 28, 28, 1)).astype(np.float32)
    labels = random.integers(10, size=batch)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    return partial(model.train_on_batch, images, labels)
