"""Configurations of training runs: small, frozen, validated; and the paper's runs by name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from typing import Any

__all__ = [
    "CONTROLS",
    "HELD_OUT",
    "RATES",
    "RESIDUAL",
    "RUNS",
    "SMOKE",
    "STAND_INS",
    "ConfigurationError",
    "RunConfig",
    "is_published",
    "record_name",
    "run_config",
    "seeds_of",
]

MODELS = ("cnn", "deformable_cnn", "deform_conv_cnn", "mini_resnet", "deformable_mini_resnet")
INITIAL_RUNS = ("cnn", "cnn_validation")
OPTIMIZERS = ("adam", "sgd")
IMAGES = ("plain", "scaled")
TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000


class ConfigurationError(ValueError):
    """A configuration breaks a rule; the message names the field, the rule and the value."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One training run, completely.

    Attributes:
        model: name of the model, a function of `dcn.models`.
        epochs: passes over the training images.
        optimizer: "adam", or "sgd" (momentum 0.9, Nesterov).
        learning_rate: of the optimiser, constant. With 0 nothing changes but the running statistics of the batch
            normalisation.
        batch_size: images in a training step.
        train_on: "plain" images, or images "scaled" and translated, drawn anew in every epoch.
        trainable: as the argument of the model: whether the convolutions that the published code can freeze train.
        initial_run: name of the run whose trained weights this one starts from, by layer name and with the same
            seed and data; empty for random initial weights.
        train_size: how many training images, from the first.
        test_size: how many test images, from the first.
        seed: of the initial weights, the order of images and the drawn transformations.
        corners, pairing: as the arguments of `ConvOffset2D`, for models that have that layer.
        chained: as the argument of the residual networks.
        validation_size: how many of the images that follow the training images are held out to validate on; 0 to
            validate on the test images, as published.
        data: path of another data file of the same form; empty for the embedded MNIST.
    """

    model: str
    epochs: int
    optimizer: str
    learning_rate: float
    batch_size: int = 32
    train_on: str = "plain"
    trainable: bool = True
    initial_run: str = ""
    train_size: int = TRAIN_IMAGES
    test_size: int = TEST_IMAGES
    seed: int = 0
    corners: str = "published"
    pairing: str = "published"
    chained: bool = False
    validation_size: int = 0
    data: str = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self._require_type(field.name, str(field.type))
        self._require("model", self.model in MODELS, f"one of {MODELS}")
        self._require("optimizer", self.optimizer in OPTIMIZERS, f"one of {OPTIMIZERS}")
        self._require("train_on", self.train_on in IMAGES, f"one of {IMAGES}")
        self._require("epochs", self.epochs >= 1, "at least 1")
        self._require("batch_size", self.batch_size >= 1, "at least 1")
        self._require("seed", 0 <= self.seed < 2**32, "from 0 to 2**32 - 1")
        self._require("train_size", self.train_size >= 1, "at least 1")
        self._require("test_size", self.test_size >= 1, "at least 1")
        self._require(
            "learning_rate",
            math.isfinite(self.learning_rate) and self.learning_rate >= 0,
            "finite and not negative",
        )
        self._require("corners", self.corners in ("published", "bilinear"), "'published' or 'bilinear'")
        self._require("pairing", self.pairing in ("published", "per_pixel"), "'published' or 'per_pixel'")
        for name in ("corners", "pairing"):
            holds = getattr(self, name) == "published" or self.model in ("deformable_cnn", "deformable_mini_resnet")
            self._require(name, holds, f"'published' for model {self.model}, which has no ConvOffset2D")
        self._require(
            "chained", not self.chained or "resnet" in self.model, "False for a model without residual blocks"
        )
        self._require("validation_size", self.validation_size >= 0, "0 or more")
        self._require("initial_run", self.initial_run in ("", *INITIAL_RUNS), f"empty or one of {INITIAL_RUNS}")

    def _require_type(self, name: str, kind: str) -> None:
        value = getattr(self, name)
        if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
            object.__setattr__(self, name, float(value))
        else:
            self._require(name, type(value).__name__ == kind, f"of type {kind}")

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ConfigurationError(f"{name} must be {rule}. Received: {name}={getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON types."""
        return dataclasses.asdict(self)


# The paper's runs, at the published protocol.
RUNS: dict[str, RunConfig] = {
    "cnn": RunConfig(model="cnn", epochs=10, optimizer="adam", learning_rate=1e-3),
    "deformable_cnn": RunConfig(
        model="deformable_cnn",
        epochs=20,
        optimizer="adam",
        learning_rate=5e-4,
        train_on="scaled",
        trainable=False,
        initial_run="cnn",
    ),
    "mini_resnet": RunConfig(model="mini_resnet", epochs=10, optimizer="sgd", learning_rate=1e-3),
    "deformable_mini_resnet": RunConfig(
        model="deformable_mini_resnet", epochs=10, optimizer="sgd", learning_rate=1e-3, trainable=False
    ),
}

# Controls: each differs from a run of the paper in what its line says, and in the epochs where it states them.
_DEFORMABLE, _RESIDUAL = RUNS["deformable_cnn"], RUNS["deformable_mini_resnet"]
_REPAIRED: dict[str, Any] = {"corners": "bilinear", "pairing": "per_pixel"}
_HELD_OUT: dict[str, Any] = {"train_size": TRAIN_IMAGES - TEST_IMAGES, "validation_size": TEST_IMAGES}
RUNS |= {
    # in place of deformable_cnn: the plain network, of which batch normalisation, its running statistics, or all train
    "cnn_batch_norm": dataclasses.replace(_DEFORMABLE, model="cnn", epochs=20),
    "cnn_statistics": dataclasses.replace(_DEFORMABLE, model="cnn", learning_rate=0.0, epochs=2),
    "cnn_scaled": dataclasses.replace(_DEFORMABLE, model="cnn", trainable=True, epochs=1),
    # offsets that learn: with scrambled pairs, with its own pairs, in a true deformable convolution
    "scrambled_cnn": dataclasses.replace(_DEFORMABLE, corners="bilinear", epochs=1),
    "repaired_cnn": dataclasses.replace(_DEFORMABLE, **_REPAIRED, epochs=1),
    "deform_conv_cnn": dataclasses.replace(_DEFORMABLE, model="deform_conv_cnn", epochs=1),
    # validated on images that are neither trained nor tested on
    "cnn_validation": dataclasses.replace(RUNS["cnn"], **_HELD_OUT),
    "cnn_batch_norm_validation": dataclasses.replace(
        _DEFORMABLE, model="cnn", initial_run="cnn_validation", epochs=5, **_HELD_OUT
    ),
    # at a tenth and at ten times the learning rate
    "slow_cnn_batch_norm": dataclasses.replace(_DEFORMABLE, model="cnn", learning_rate=5e-5, epochs=3),
    "fast_cnn_batch_norm": dataclasses.replace(_DEFORMABLE, model="cnn", learning_rate=5e-3, epochs=3),
    # the residual networks, one change after the other
    "chained_mini_resnet": dataclasses.replace(RUNS["mini_resnet"], chained=True),
    "unfrozen_deformable_mini_resnet": dataclasses.replace(_RESIDUAL, trainable=True, epochs=5),
    "repaired_deformable_mini_resnet": dataclasses.replace(_RESIDUAL, trainable=True, epochs=5, **_REPAIRED),
    "chained_deformable_mini_resnet": dataclasses.replace(
        _RESIDUAL, trainable=True, epochs=5, **_REPAIRED, chained=True
    ),
}

# What makes the gain on scaled digits: run → what it is called.
CONTROLS = {
    "cnn": "CNN",
    "cnn_statistics": "CNN, statistics only",
    "cnn_batch_norm": "CNN, batch normalisation only",
    "deformable_cnn": "deformable CNN, as published",
    "scrambled_cnn": "deformable CNN, corners repaired",
    "repaired_cnn": "deformable CNN, corners and pairing repaired",
    "deform_conv_cnn": "CNN with true deformable convolutions",
    "cnn_scaled": "CNN, all of it",
}

# The residual networks, one change after the other: run → what it is called.
RESIDUAL = {
    "mini_resnet": "mini-ResNet, as coded",
    "chained_mini_resnet": "mini-ResNet, as drawn",
    "deformable_mini_resnet": "deformable, as published",
    "unfrozen_deformable_mini_resnet": "and its blocks train",
    "repaired_deformable_mini_resnet": "and its offsets learn",
    "chained_deformable_mini_resnet": "and its blocks are as drawn",
}

# Validated on images that are neither trained nor tested on: run → what it is called.
HELD_OUT = {"cnn_validation": "CNN", "cnn_batch_norm_validation": "batch normalisation, on scaled digits"}

# The rate of the optimiser, where batch normalisation alone trains, from the lowest.
RATES = ("slow_cnn_batch_norm", "cnn_batch_norm", "fast_cnn_batch_norm")

# A cheaper run that computes the same numbers stands in for this one from seed 1 on. A test compares both bit by bit.
STAND_INS = {"deformable_cnn": "cnn_batch_norm"}

SEEDS = 3  # of every model in the book's table of accuracies

# The parameters of the measurements that the book shows: see `runtime.compare`, `audit.trace_offsets`,
# `sensitivity.sensitivity` and `robustness.robustness`.
MEASUREMENTS: dict[str, dict[str, Any]] = {
    "runtime": {
        "batches": "1,32,128",
        "sizes": "28,56,112",
        "batch": 32,
        "repeats": 7,
        "threads": 0,
        "device": "/CPU:0",
    },
    "offsets": {"run": "deformable_cnn", "steps": 300, "seed": 0},
    "sensitivity": {"draws": 5, "images": TEST_IMAGES},
    "robustness": {"zooms": 7, "shifts": 9, "images": 500},
}

# What the profile "smoke" changes in every run: enough to see that all of it works, in a minute.
SMOKE: dict[str, Any] = {"epochs": 1, "train_size": 1000, "test_size": 500}


def run_config(run: str, **changes: Any) -> RunConfig:
    """Returns the configuration of a named run with some fields changed; `None` keeps a field as it is.

    Args:
        run: a name in `RUNS`.
        **changes: fields of `RunConfig` with their new values.

    Raises:
        ConfigurationError: if the run or a field is unknown, or a value breaks its rule.
    """
    if run not in RUNS:
        raise ConfigurationError(f"run must be one of {tuple(RUNS)}. Received: run={run!r}")
    fields = [field.name for field in dataclasses.fields(RunConfig)]
    for name in changes:
        if name not in fields:
            raise ConfigurationError(f"parameters of a run are {', '.join(fields)}. Received: {name}")
    return dataclasses.replace(RUNS[run], **{name: value for name, value in changes.items() if value is not None})


def seeds_of(run: str, seeds: int, **changes: Any) -> list[RunConfig]:
    """Returns the configurations of a named run with the seeds from 0; from seed 1 on of its stand-in, if it has one.

    Args:
        run: a name in `RUNS`.
        seeds: how many.
        **changes: as for `run_config`.

    Raises:
        ConfigurationError: as `run_config`, and if `seeds` is not positive.
    """
    if seeds < 1:
        raise ConfigurationError(f"seeds must be at least 1. Received: seeds={seeds!r}")
    later = STAND_INS.get(run, run)
    return [run_config(later if seed else run, seed=seed, **changes) for seed in range(seeds)]


def record_name(config: RunConfig) -> str:
    """Returns the name under which a run is recorded, one name for each configuration.

    A published run with seed 0 has the run's name, with another seed `-seed<n>` behind it. Any other
    configuration has the model's name and eight digits of a hash of all its fields.
    """
    for name, published in RUNS.items():
        if dataclasses.replace(config, seed=published.seed) == published:
            return name if config.seed == published.seed else f"{name}-seed{config.seed}"
    text = json.dumps(config.to_dict(), sort_keys=True)
    return f"{config.model}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def is_published(config: RunConfig) -> bool:
    """Returns whether this is one of the runs that the book shows, whatever its seed."""
    return any(dataclasses.replace(config, seed=run.seed) == run for run in RUNS.values())
