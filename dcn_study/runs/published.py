"""The paper's own figures, as reference values.

Source: D. Oza, "Expanding the Receptive Field for MNIST through Deformable Convolution", Columbia University, ECBM
E4040, 2019, and the training log in the author's repository github.com/mythrandire/deform-conv-mnist (16365e3).
"""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

from dcn_study.runs.catalogue.paper import RUNS
from dcn_study.runs.configuration import RunConfig

__all__ = ["ACCURACY", "FORWARD", "accuracies", "curve"]

CURVES = Path(__file__).with_name("published_curves.csv")

# Test accuracy, as the text states it: model → (plain, scaled and translated).
ACCURACY: dict[str, dict[str, float]] = {
    "cnn": {"plain": 0.9901, "scaled": 0.6067},
    "deformable_cnn": {"plain": 0.9611, "scaled": 0.941},
    "mini_resnet": {"plain": 0.9235, "scaled": 0.4957},
    "deformable_mini_resnet": {"plain": 0.4242, "scaled": 0.131},
}

# Milliseconds of a forward pass, as the text states them; batch size and hardware are not given.
FORWARD = {"deformable": 300.0, "regular": 10.0}


def accuracies(config: RunConfig) -> dict[str, float]:
    """Returns the published accuracies of a run, by kind of test images.

    None if its protocol is not the paper's, which may have another seed, fewer epochs and other numbers of images.
    """
    stated = RUNS[config.model].config if config.model in ACCURACY else None
    if stated is None or config.epochs > stated.epochs:
        return {}
    same = {name: getattr(stated, name) for name in ("seed", "epochs", "train_size", "test_size")}
    return ACCURACY[config.model] if dataclasses.replace(config, **same) == stated else {}


def curve(model: str) -> dict[str, list[float]]:
    """Returns the published training curve of a model.

    Args:
        model: a key of `ACCURACY`.

    Returns:
        One list each, with a value per epoch: epoch, train_accuracy, validation_accuracy, train_loss,
        milliseconds_per_step.

    Raises:
        KeyError: if the paper has no such model.
    """
    with CURVES.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("model") == model]
    if not rows:
        raise KeyError(f"model must be one of {tuple(ACCURACY)}. Received: {model!r}")
    return {name: [float(row[name]) for row in rows] for name in rows[0]}
