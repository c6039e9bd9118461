"""The progress of a training run, and how it is shown in a terminal."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
from tqdm import tqdm

__all__ = ["Bar", "Progress", "Reporting"]

PAUSE = 1.0  # least seconds between two reports of an epoch


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        run: its name.
        epoch: the epoch, from 1.
        epochs: how many the run has.
        step: steps done, of this epoch or of one evaluation during or after it.
        steps: how many there are.
        loss: mean over the epoch so far; None while the network is evaluated.
        accuracy: likewise.
    """

    run: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None = None
    accuracy: float | None = None


class Reporting(keras.callbacks.Callback):
    """Reports the progress of an epoch or of an evaluation about once a second, and at its end.

    Args:
        run: name of the run.
        epoch: the epoch, from 1.
        epochs: how many the run has.
        report: takes the progress.
    """

    def __init__(self, run: str, epoch: int, epochs: int, report: Callable[[Progress], None]) -> None:
        super().__init__()
        self.run, self.epoch, self.epochs, self.report = run, epoch, epochs, report
        self.due = -math.inf

    @contextlib.contextmanager
    def evaluations(self, model: keras.Model) -> Iterator[None]:
        """Reports the evaluations of a model as well, whose code takes no callbacks."""
        model.predict = functools.partial(model.predict, callbacks=[self])
        try:
            yield
        finally:
            del model.predict

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        if self._is_due(batch + 1):
            self._report(batch + 1, float(logs["loss"]), float(logs["accuracy"]))

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._report(0)

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._is_due(batch + 1):
            self._report(batch + 1)

    def _is_due(self, step: int) -> bool:
        return step == self.params["steps"] or time.monotonic() >= self.due

    def _report(self, step: int, loss: float | None = None, accuracy: float | None = None) -> None:
        self.due = time.monotonic() + PAUSE
        self.report(Progress(self.run, self.epoch, self.epochs, step, self.params["steps"], loss, accuracy))


class Bar:
    """Shows progress as one bar for each epoch, and one for each evaluation, which goes when it is done."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def __call__(self, progress: Progress) -> None:
        name = f"{progress.run} {progress.epoch}/{progress.epochs}"
        if progress.loss is None:
            name += ", evaluating"
        if self.bar is None or self.bar.desc != name or self.bar.n == self.bar.total:
            self._close()
            self.bar = tqdm(total=progress.steps, desc=name, unit="step", leave=progress.loss is not None)
        if progress.loss is not None:
            self.bar.set_postfix(loss=f"{progress.loss:.4f}", accuracy=f"{progress.accuracy:.4f}", refresh=False)
        self.bar.update(progress.step - self.bar.n)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
