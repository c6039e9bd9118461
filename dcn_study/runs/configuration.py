"""The configuration of a training run: small, frozen, validated."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any

from dcn_study.errors import ConfigurationError

__all__ = ["TEST_IMAGES", "TRAIN_IMAGES", "RunConfig"]

MODELS = ("cnn", "deformable_cnn", "deform_conv_cnn", "mini_resnet", "deformable_mini_resnet")
# The networks of the study on MNIST-Scale that are not among the models, functions of `dcn_study.runs.arms`.
ARMS = (
    "small_cnn",
    "wide_cnn",
    "wider_cnn",
    "dilated_cnn",
    "modulated_deform_conv_cnn",
    "shared_offsets_cnn",
    "transformer_cnn",
    "deform_conv_mini_resnet",
)
INITIAL_RUNS = ("cnn", "cnn_validation")
OPTIMIZERS = ("adam", "sgd")
DECAYS = ("none", "cosine")
IMAGES = {"mnist": ("plain", "scaled"), "mnist_scale": ("plain", "rescaled", "rescaled_shifted")}
TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One training run, completely.

    Attributes:
        model: name of the model, a function of `dcn.models` or `dcn_study.runs.arms`.
        epochs: passes over the training images.
        optimizer: "adam", or "sgd" (momentum 0.9, Nesterov).
        learning_rate: of the optimiser, in the first step. With 0 nothing changes but the running statistics of the
            batch normalisation.
        batch_size: images in a training step.
        train_on: "plain" images, or images "scaled" and translated, drawn anew in every epoch; for MNIST-Scale "plain",
            "rescaled" or "rescaled_shifted", see `dcn_study.runs.mnist_scale`.
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
        task: "mnist", the training and test images of the data file; or "mnist_scale", a realisation of MNIST-Scale
            drawn from all of them, whose number is the seed.
        weights_seed, order_seed, augmentation_seed: seeds of one source of chance each, to vary it alone: the initial
            weights, the order of images, the drawn transformations; -1 for `seed`.
        decay: how the learning rate falls from step to step: "none", or "cosine" to zero at the last step.
        offset_stddev: standard deviation of the initial offset kernels, normally distributed, for models that have
            `ConvOffset2D`; 0 for kernels of zeros, as published.
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
    task: str = "mnist"
    decay: str = "none"
    weights_seed: int = -1
    order_seed: int = -1
    augmentation_seed: int = -1
    offset_stddev: float = 0.0

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(type(self)).items():
            self._require_type(name, kind)
        self._require("model", self.model in (*MODELS, *ARMS), f"one of {(*MODELS, *ARMS)}")
        self._require("optimizer", self.optimizer in OPTIMIZERS, f"one of {OPTIMIZERS}")
        self._require("task", self.task in IMAGES, f"one of {tuple(IMAGES)}")
        images = IMAGES[self.task]
        self._require("train_on", self.train_on in images, f"one of {images} for task {self.task}")
        self._require("decay", self.decay in DECAYS, f"one of {DECAYS}")
        self._require("epochs", self.epochs >= 1, "at least 1")
        self._require("batch_size", self.batch_size >= 1, "at least 1")
        self._require("seed", 0 <= self.seed < 2**32, "from 0 to 2**32 - 1")
        for name in ("weights_seed", "order_seed", "augmentation_seed"):
            self._require(name, -1 <= getattr(self, name) < 2**32, "-1 or from 0 to 2**32 - 1")
        self._require("train_size", self.train_size >= 1, "at least 1")
        self._require("test_size", self.test_size >= 1, "at least 1")
        self._require(
            "learning_rate",
            math.isfinite(self.learning_rate) and self.learning_rate >= 0,
            "finite and not negative",
        )
        self._require("corners", self.corners in ("published", "bilinear"), "'published' or 'bilinear'")
        self._require("pairing", self.pairing in ("published", "per_pixel"), "'published' or 'per_pixel'")
        self._require("offset_stddev", 0 <= self.offset_stddev < math.inf, "finite and not negative")
        resampled = self.model in ("deformable_cnn", "deformable_mini_resnet")
        for name, published in (("corners", "published"), ("pairing", "published"), ("offset_stddev", 0.0)):
            holds = resampled or getattr(self, name) == published
            self._require(name, holds, f"{published!r} for model {self.model}, which has no ConvOffset2D")
        self._require(
            "chained", not self.chained or "resnet" in self.model, "False for a model without residual blocks"
        )
        self._require("trainable", self.trainable or self.model not in ARMS, f"True for model {self.model}")
        self._require("validation_size", self.validation_size >= 0, "0 or more")
        self._require(
            "validation_size",
            self.validation_size > 0 or self.task == "mnist",
            "at least 1 for task mnist_scale, which has validation images of its own",
        )
        self._require("initial_run", self.initial_run in ("", *INITIAL_RUNS), f"empty or one of {INITIAL_RUNS}")

    def _require_type(self, name: str, kind: type) -> None:
        value = getattr(self, name)
        if kind is float and type(value) is int:
            object.__setattr__(self, name, float(value))
        else:
            self._require(name, type(value) is kind, f"of type {kind.__name__}")

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ConfigurationError(f"{name} must be {rule}. Received: {name}={getattr(self, name)!r}")

    def seed_of(self, source: str) -> int:
        """Returns the seed of a source of chance, "weights", "order" or "augmentation"."""
        own = getattr(self, f"{source}_seed")
        return self.seed if own < 0 else own

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON types."""
        return dataclasses.asdict(self)
