"""The steps of a run: its epochs, its final evaluations, and the replay of its first steps."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import keras
import numpy as np

from dcn_study.errors import DivergedError
from dcn_study.runs.effective_field import area, gradient_field
from dcn_study.runs.networks import evaluate, initial_model, re_estimated, score
from dcn_study.runs.records import Epoch, Evaluation, FirstBatch, Witness
from dcn_study.runs.splits import Splits
from dcn_study.runs.transforms import fingerprint

__all__ = ["evaluations", "field_areas", "replay", "train_epoch"]

WITNESSED = 20  # steps
FIELD_IMAGES = 200


def train_epoch(
    model: keras.Model, data: Splits, epoch: int, witness: Witness | None, callbacks: Sequence[keras.callbacks.Callback]
) -> tuple[Epoch, Witness]:
    """Trains for one epoch and validates.

    Args:
        model: as `initial_model` made it and the epochs before left it.
        data: of the run.
        epoch: the epoch, from 0.
        witness: of the epochs before; None in the first one.
        callbacks: of Keras, which change nothing.

    Returns:
        The results of the epoch, and the witness with its first batch.

    Raises:
        DivergedError: if a loss is not finite.
    """
    run = data.run
    started = time.perf_counter()
    images, labels = data.train(epoch)
    first = [] if witness else [_FirstSteps(run.batch_size, len(images))]
    fitted = model.fit(
        images, labels, batch_size=run.batch_size, shuffle=False, verbose=0, callbacks=[*first, *callbacks]
    )
    loss = fitted.history["loss"][0]
    if not math.isfinite(loss):
        raise DivergedError(f"the training loss is {loss}")
    witness = witness or first[0].witness
    witness.epochs.append(_first_batch(images[: run.batch_size], labels))
    seconds = time.perf_counter() - started
    validation = score(model, *data.validation(run.train_on))
    apart = run.validation_size and run.task == "mnist"
    test = evaluate(model, data, run.train_on) if apart else None
    result = Epoch(
        epoch=epoch + 1,
        loss=loss,
        accuracy=fitted.history["accuracy"][0],
        validation_loss=validation.loss,
        validation_accuracy=validation.accuracy,
        test_loss=test.loss if test else None,
        test_accuracy=test.accuracy if test else None,
        seconds=round(seconds, 3),
    )
    return result, witness


def evaluations(model: keras.Model, data: Splits) -> dict[str, Evaluation]:
    """Returns the results of a trained model, by test set; see `RunConfig.re_estimate` for further ones."""
    found = {kind: evaluate(model, data, kind) for kind in data.kinds}
    if data.run.re_estimate:
        images, _ = data.train(data.run.epochs - 1)
        for name, each in (("", model), (", re-estimated", re_estimated(model, images, data.run.batch_size))):
            found[f"validation{name}"] = score(each, *data.validation(data.run.train_on))
        found["plain, re-estimated"] = evaluate(each, data, "plain")
    return found


def field_areas(model: keras.Model, data: Splits) -> dict[str, int]:
    """Returns how many pixels hold half of the gradient field of the last features, on plain and on scaled digits.

    These are the features that global average pooling takes; a mean over the first test images. Of a network with other
    layers than those of the paper's CNN: nothing.
    """
    if not any(layer.name == "conv22_bn" for layer in model.layers):
        return {}
    images = {kind: data.test(kind)[0][:FIELD_IMAGES] for kind in ("plain", "scaled")}
    return {kind: area(gradient_field(model, some, "conv22_bn"), 0.5) for kind, some in images.items()}


def replay(data: Splits, start: keras.Model | None) -> Witness:
    """Returns the witness of a run, trained anew for its first steps, with the images of all of its epochs.

    Args:
        data: of the run.
        start: as for `initial_model`.
    """
    run = data.run
    model = initial_model(data, start)
    images, labels = data.train(0, first=WITNESSED * run.batch_size)
    steps = _FirstSteps(run.batch_size, len(images))
    model.fit(images, labels, batch_size=run.batch_size, shuffle=False, verbose=0, callbacks=[steps])
    for epoch in range(run.epochs):
        images, _ = data.train(epoch, first=run.batch_size)
        steps.witness.epochs.append(_first_batch(images, data.labels(epoch)))
    return steps.witness


def _first_batch(images: np.ndarray, labels: np.ndarray) -> FirstBatch:
    digest, pixels = fingerprint(images, labels)
    return FirstBatch(labels=digest, pixels=pixels)


class _FirstSteps(keras.callbacks.Callback):
    """Takes the witness of an epoch's first steps.

    Args:
        batch_size: images in a step.
        images: images in the epoch.
    """

    def __init__(self, batch_size: int, images: int) -> None:
        super().__init__()
        self.batch_size, self.images = batch_size, images
        self.witness = Witness(losses=[], norms={}, slots=[], epochs=[])
        self.steps = min(WITNESSED, math.ceil(images / batch_size))
        self.total = 0.0  # of the losses of all images so far

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        if batch < self.steps:
            self._note_loss(batch, float(logs["loss"]))
        if batch + 1 == self.steps:
            self._note_norms()

    def _note_loss(self, batch: int, mean: float) -> None:
        """Takes this step's loss out of the mean over all images so far, which is what Keras gives."""
        before = batch * self.batch_size
        seen = min(before + self.batch_size, self.images)
        total = seen * mean
        self.witness.losses.append((total - self.total) / (seen - before))
        self.total = total

    def _note_norms(self) -> None:
        self.witness.norms = {weight.path: _norm(weight) for weight in self.model.weights}
        self.witness.slots = [_norm(variable) for variable in self.model.optimizer.variables]


def _norm(variable: keras.Variable) -> float:
    return float(np.linalg.norm(np.asarray(variable, np.float64)))
