"""Time and peak memory of calls, measured in turn or in a process of their own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["peak_memory", "peak_memory_here", "quartiles", "times"]


def peak_memory(measure: Callable[..., int], *arguments: Any) -> int | None:
    """Returns what a function of a module returns in a new process; None where peak memory cannot be measured."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, *arguments).result()


def peak_memory_here(make: Callable[[], Callable[[], Any]]) -> int:
    """Returns the bytes by which the call that `make` returns raises the resident memory at its peak."""
    before = _status("VmRSS")
    call = make()
    call()  # compiles, which takes memory of its own
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets the peak back to what is resident now
    call()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def times(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Returns first quartile, median and third quartile of each call in milliseconds.

    The calls are measured in turn, each until its device has finished.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for call in contestants.values():
        call()
        call()
    for _ in range(repeats):
        for name, call in contestants.items():
            started = time.perf_counter()
            call()
            tf.test.experimental.sync_devices()
            seconds[name].append(time.perf_counter() - started)
    return {name: quartiles(values) for name, values in seconds.items()}


def quartiles(seconds: Iterable[float]) -> list[float]:
    return [round(float(value), 3) for value in 1000 * np.quantile(list(seconds), (0.25, 0.5, 0.75))]
