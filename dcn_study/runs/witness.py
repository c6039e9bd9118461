"""The witness of a run: results of its first steps, recorded in training and compared with a replay."""

from __future__ import annotations

import math

import keras
import numpy as np

from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.data import fingerprint
from dcn_study.runs.networks import initial_model
from dcn_study.runs.records import FirstBatch, Witness
from dcn_study.runs.splits import Splits

__all__ = ["FirstSteps", "compare", "first_batch", "objections", "replay"]

STEPS = 20
EARLY = 3
# Largest differences that another processor may cause; all but those of pixels and accuracies are relative. Sums in
# another order differ by some 1e-7. Adam, whose first steps are nearly the signs of the gradients, lets that grow fast,
# most of all where offsets learn. Measured between an AMD EPYC and an Intel Xeon, with instruction sets of other
# processors, and without oneDNN: 1e-5 in the first three losses, 1.5e-1 in all twenty, 1.5e-2 in the norms, 2.6e-1 in
# Adam's variables; 2e-6, 3e-6, 4e-4 and 1e-4 for the residual networks.
TOLERANCES = {
    "first losses": 1e-4,
    "losses": 3e-1,
    "norms": 5e-2,
    "slots": 5e-1,
    "labels": 0.0,
    "pixels": 1e-3,  # absolute, for sums over one batch
    "test loss": 1e-4,  # of stored weights
    "test accuracy": 3e-4,  # absolute, of stored weights: 3 of 10,000 images may be on the edge between two classes
}
# Larger steps and wider networks let differences grow faster. Measured between an AMD EPYC and an Intel Xeon for arms
# of the study, at rates from 1e-3 to 3e-2: 2.2e-3 in the first three losses, 1.9e-1 in the norms. And between each of
# these and an AMD EPYC without AVX-512: 8.3e-1 and 6.8e-1 in one of Adam's variables of two runs, where 4.3e-1 is the
# most in all others. A variable that has vanished differs by 1.
FAST = 1e-3  # the highest rate with the tolerances above, except in the study
FAST_TOLERANCES = {"first losses": 1e-2, "norms": 4e-1, "slots": 9e-1}
SMALL_NORM = 0.01  # differences of smaller norms are taken relative to this: they may be sums of rounding errors


def replay(config: RunConfig, data: Splits) -> Witness:
    """Returns the witness of a run, trained anew for its first steps, with the images of all of its epochs."""
    model = initial_model(config, data)
    images, labels = data.train(0, first=STEPS * config.batch_size)
    steps = FirstSteps(config.batch_size, len(images))
    model.fit(images, labels, batch_size=config.batch_size, shuffle=False, verbose=0, callbacks=[steps])
    for epoch in range(config.epochs):
        images, _ = data.train(epoch, first=config.batch_size)
        steps.witness.epochs.append(first_batch(images, data.labels(epoch)))
    return steps.witness


def first_batch(images: np.ndarray, labels: np.ndarray) -> FirstBatch:
    digest, pixels = fingerprint(images, labels)
    return FirstBatch(labels=digest, pixels=pixels)


def compare(found: Witness, recorded: Witness) -> dict[str, float]:
    """Returns the largest difference of each kind of number in two witnesses, for the epochs that the second has.

    It is infinite where one has other weights, steps or epochs.
    """
    batches = found.epochs[: len(recorded.epochs)]
    same_labels = [each.labels for each in batches] == [each.labels for each in recorded.epochs]
    return {
        "first losses": _relative(_numbered(found.losses[:EARLY]), _numbered(recorded.losses[:EARLY]), 0.0),
        "losses": _relative(_numbered(found.losses), _numbered(recorded.losses), 0.0),
        "norms": _relative(found.norms, recorded.norms, SMALL_NORM),
        "slots": _relative(_numbered(found.slots), _numbered(recorded.slots), SMALL_NORM),
        "labels": 0.0 if same_labels else math.inf,
        "pixels": max((abs(a.pixels - b.pixels) for a, b in zip(batches, recorded.epochs, strict=False)), default=0.0),
    }


def objections(differences: dict[str, float], learning_rate: float, *, study: bool = False) -> list[str]:
    """Returns, in words, those differences that are beyond their tolerance.

    Args:
        differences: as `compare` returns them.
        learning_rate: of the run.
        study: whether the run is one of the study on MNIST-Scale.
    """
    tolerances = TOLERANCES | (FAST_TOLERANCES if study or learning_rate > FAST else {})
    return [
        f"{kind} differ by {value:.1e}, tolerance {tolerances[kind]:.0e}"
        for kind, value in differences.items()
        if not value <= tolerances[kind]
    ]


def _numbered(values: list[float]) -> dict[str, float]:
    return {str(number): value for number, value in enumerate(values)}


def _relative(found: dict[str, float], recorded: dict[str, float], floor: float) -> float:
    if set(found) != set(recorded):
        return math.inf
    return max(
        (abs(found[name] - value) / max(abs(value), floor, 1e-12) for name, value in recorded.items()), default=0
    )


class FirstSteps(keras.callbacks.Callback):
    """Takes the witness of an epoch's first steps.

    Args:
        batch_size: images in a step.
        images: images in the epoch.
    """

    def __init__(self, batch_size: int, images: int) -> None:
        super().__init__()
        self.batch_size, self.images = batch_size, images
        self.witness = Witness(losses=[], norms={}, slots=[], epochs=[])
        self.steps = min(STEPS, math.ceil(images / batch_size))
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
