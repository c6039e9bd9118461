"""States of the laboratory that show what their names say, found by computing them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from scipy.ndimage import map_coordinates

from dcn_study.experiments.mechanism import with_offsets

__all__ = ["REGULAR", "moved", "presets"]

REGULAR = {"scale": 1.0, "width": 1.0, "down": 0.0, "right": 0.0, "rotation": 0.0}
SMALLER = [{"scale": number / 20} for number in range(19, 5, -1)]  # in the steps of the laboratory's sliders
NARROWER = [{"width": number / 20} for number in range(19, 5, -1)]
SHIFTED = [{"right": 2.0}, {"right": -2.0}, {"down": 2.0}, {"down": -2.0}]
SURE = 0.6  # the least probability of the answer that a preset promises; rounded weights change it by less

Probabilities = Mapping[str, np.ndarray]


def presets(models: Mapping[str, keras.Model], images: np.ndarray, labels: Sequence[int]) -> list[dict[str, Any]]:
    """Returns the laboratory's presets, as many as these networks and digits have.

    - "Break the CNN": the largest scale at which the CNN is wrong about a digit and the two other networks are right.
    - "Squeeze": the same for the width of a digit of full height.
    - "Shift by two": the shift by two pixels that leaves the CNN the least probability of the right digit.
    - "Remove the offsets": the largest scale at which true deformable convolutions are right, and wrong
      without their offsets.

    Args:
        models: "cnn", "deformable_cnn" and "deform_conv_cnn", the trained networks of the laboratory.
        images: (N, H, W), uint8, the digits to choose from.
        labels: N digits.

    Returns:
        For each preset "key", "name" and "state": the parameters of the laboratory that it changes, with "digit".
    """
    without = with_offsets(models["deform_conv_cnn"], lambda _, offsets: 0 * offsets)
    compared = {**models, "without": without}
    smaller, narrower, shifted = (list(_answers(compared, images, changes)) for changes in (SMALLER, NARROWER, SHIFTED))

    def breaks(found: Probabilities, digit: int) -> bool:
        label = labels[digit]
        return _is_wrong(found["cnn"][digit], label) and all(
            _is_right(found[name][digit], label) for name in ("deformable_cnn", "deform_conv_cnn")
        )

    def needs_offsets(found: Probabilities, digit: int) -> bool:
        right = _is_right(found["deform_conv_cnn"][digit], labels[digit])
        return right and _is_wrong(found["without"][digit], labels[digit])

    lost = {
        (step, digit): found["cnn"][digit][labels[digit]]
        for step, (_, found) in enumerate(shifted)
        for digit in range(len(labels))
    }
    step, digit = min(lost, key=lambda place: lost[place])
    found = [
        ("break", "Break the CNN", _first(smaller, breaks, len(labels))),
        ("squeeze", "Squeeze", _first(narrower, breaks, len(labels))),
        ("shift", "Shift by two", {**SHIFTED[step], "digit": digit}),
        ("offsets", "Remove the offsets", _first(smaller, needs_offsets, len(labels))),
    ]
    return [
        {"key": key, "name": name, "state": {**REGULAR, "offsets": int(key != "offsets"), **state}}
        for key, name, state in found
        if state
    ]


def moved(images: np.ndarray, *, scale: float, width: float, down: float, right: float, rotation: float) -> np.ndarray:
    """Returns images as the laboratory changes them: about their centre, bilinearly, zero outside.

    Args:
        images: (N, H, W), values from 0 to 255.
        scale: factor on both axes; below 1 the digit shrinks.
        width: further factor on the digit's width.
        down: shift in pixels.
        right: shift in pixels.
        rotation: in degrees, counter-clockwise.

    Returns:
        (N, H, W, 1), float32, values from 0 to 1.
    """
    rows, columns = images.shape[1:]
    middle = (np.array([rows, columns]) - 1) / 2
    y, x = np.indices((rows, columns)) - np.add(middle, (down, right))[:, None, None]
    cosine, sine = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    read = [middle[0] + (cosine * y + sine * x) / scale, middle[1] + (cosine * x - sine * y) / (scale * width)]
    shown = [map_coordinates(image / 255, read, order=1, mode="grid-constant") for image in images]
    return np.stack(shown)[..., None].astype(np.float32)


def _answers(
    models: Mapping[str, keras.Model], images: np.ndarray, changes: Iterable[Mapping[str, float]]
) -> Iterable[tuple[Mapping[str, float], Probabilities]]:
    """Yields each change with the probabilities (N, 10) that the networks give to the images changed so."""
    changes = list(changes)
    shown = np.concatenate([moved(images, **{**REGULAR, **change}) for change in changes])
    answers = {name: model.predict(shown, verbose=0) for name, model in models.items()}
    for step, change in enumerate(changes):
        part = slice(step * len(images), (step + 1) * len(images))
        yield change, {name: answer[part] for name, answer in answers.items()}


def _first(
    answers: Sequence[tuple[Mapping[str, float], Probabilities]],
    holds: Callable[[Probabilities, int], bool],
    digits: int,
) -> dict[str, Any]:
    """Returns the first change and digit for which a condition holds; empty if there is none."""
    for (change, found), digit in itertools.product(answers, range(digits)):
        if holds(found, digit):
            return {**change, "digit": digit}
    return {}


def _is_right(probabilities: np.ndarray, label: int) -> bool:
    return bool(probabilities[label] >= SURE)


def _is_wrong(probabilities: np.ndarray, label: int) -> bool:
    return bool(np.delete(probabilities, label).max() >= SURE)
