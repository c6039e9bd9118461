"""The progress of a training run, and how it is shown in a terminal."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import keras
from tqdm import tqdm

__all__ = ["Bar", "Progress", "Reporting"]

PAUSE = 1.0  # least seconds between two reports of an epoch


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is: steps of this epoch, epochs from 1, and the means over the epoch so far."""

    run: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float


class Reporting(keras.callbacks.Callback):
    """Reports the progress of an epoch about once a second, and at its end.

    Args:
        run: name of the run.
        epoch: the epoch, from 1.
        epochs: how many the run has.
        steps: how many steps the epoch has.
        report: takes the progress.
    """

    def __init__(self, run: str, epoch: int, epochs: int, steps: int, report: Callable[[Progress], None]) -> None:
        super().__init__()
        self.run, self.epoch, self.epochs, self.steps, self.report = run, epoch, epochs, steps, report
        self.due = -math.inf

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        step = batch + 1
        if step == self.steps or time.monotonic() >= self.due:
            self.due = time.monotonic() + PAUSE
            loss, accuracy = float(logs["loss"]), float(logs["accuracy"])
            self.report(Progress(self.run, self.epoch, self.epochs, step, self.steps, loss, accuracy))


class Bar:
    """Shows progress as one bar for each epoch; when its steps are done, that the network is evaluated."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def __call__(self, progress: Progress) -> None:
        if self.bar is None or self.bar.n == progress.steps:
            self._close()
            name = f"{progress.run} {progress.epoch}/{progress.epochs}"
            self.bar = tqdm(total=progress.steps, desc=name, unit="step")
        self.bar.set_postfix(loss=f"{progress.loss:.4f}", accuracy=f"{progress.accuracy:.4f}", refresh=False)
        self.bar.update(progress.step - self.bar.n)
        if progress.step == progress.steps:
            self.bar.set_postfix_str(f"{self.bar.postfix}, evaluating on test images")

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(self.bar.postfix.removesuffix(", evaluating on test images"))
            self.bar.close()
            self.bar = None
