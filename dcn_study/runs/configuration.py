"""The configuration of a training run: small, frozen, validated."""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Annotated, Any

from dcn_study.errors import ConfigurationError
from dcn_study.runs.rules import Rule

__all__ = ["RULES", "TEST_IMAGES", "TRAIN_IMAGES", "Resolved", "RunConfig"]

MODELS = ("cnn", "deformable_cnn", "deform_conv_cnn", "mini_resnet", "deformable_mini_resnet")
# The networks of the studies that are not among the models, functions of `dcn_study.runs.arms`.
ARMS = (
    "small_cnn",
    "wide_cnn",
    "wider_cnn",
    "dilated_cnn",
    "antialiased_cnn",
    "modulated_deform_conv_cnn",
    "shared_offsets_cnn",
    "transformer_cnn",
    "deform_conv_mini_resnet",
)
INITIAL_RUNS = ("cnn", "cnn_validation")
IMAGES = {
    "mnist": ("plain", "scaled"),
    "mnist_scale": ("plain", "rescaled", "rescaled_shifted"),
    "mnist_pooled": ("plain",),
}
TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000

_Count = Annotated[int, Rule("from 0")]
_Seed = Annotated[int, Rule("0 to 4294967295")]
_SourceSeed = Annotated[int, Rule("-1 to 4294967295")]


@dataclasses.dataclass(frozen=True)
class Resolved:
    """What a configuration comes to: the values that determine the numbers of a run, with no default left open.

    The code that computes a run reads these values alone. A record holds them, see `values`, and is compared with what
    its configuration comes to now: so the form of `RunConfig` is free to change, and its meaning is not.

    Attributes:
        realisation: number of the realisation, for the tasks that have them.
        weights_seed, order_seed, augmentation_seed: seeds of the initial weights, the order of images and the sampled
            transformations.

    All others are those of `RunConfig`.
    """

    model: str
    trainable: bool
    chained: bool
    corners: str
    pairing: str
    offset_stddev: float
    initial_run: str
    optimizer: str
    learning_rate: float
    decay: str
    epochs: int
    batch_size: int
    task: str
    data: str
    realisation: int
    train_on: str
    zoom_centre: str
    train_size: int
    validation_size: int
    test_size: int
    scaled_test_size: int
    weights_seed: int
    order_seed: int
    augmentation_seed: int
    re_estimate: bool

    def values(self) -> dict[str, Any]:
        """Returns the values as JSON types, without names of files: a record holds digests of their content."""
        return {name: value for name, value in vars(self).items() if name not in ("data", "initial_run")}


@functools.cache
def _kinds(configuration: type) -> dict[str, Any]:
    return typing.get_type_hints(configuration)


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
        train_size: how many training images, from the first; 0 for all, for task "mnist".
        test_size: how many test images, from the first; 0 for all, for task "mnist".
        seed: of the initial weights, the order of images and the drawn transformations.
        corners, pairing: as the arguments of `ConvOffset2D`, for models that have that layer.
        chained: as the argument of the residual networks.
        validation_size: how many of the images that follow the training images are held out to validate on; 0 to
            validate on the test images, as published.
        data: path of another data file of the same form; empty for the embedded MNIST.
        task: "mnist", the training and test images of the data file; or a realisation drawn from all of them, whose
            number is the seed: "mnist_scale", of MNIST-Scale, or "mnist_pooled", of plain digits.
        weights_seed, order_seed, augmentation_seed: seeds of one source of chance each, to vary it alone: the initial
            weights, the order of images, the drawn transformations; -1 for `seed`.
        zoom_centre: the point about which training images are scaled: of the "image", or the one that Keras took for it
            until October 2020, "former".
        scaled_test_size: how many test images of a realisation are scaled and translated, at most.
        re_estimate: whether to evaluate also with the averages of batch normalisation estimated anew from the training
            images, and on the validation images.
        decay: how the learning rate falls from step to step: "none", or "cosine" to zero at the last step.
        offset_stddev: standard deviation of the initial offset kernels, normally distributed, for models that have
            `ConvOffset2D`; 0 for kernels of zeros, as published.
    """

    model: Annotated[str, Rule(", ".join((*MODELS, *ARMS)))]
    epochs: Annotated[int, Rule("1 to 100000")]
    optimizer: Annotated[str, Rule("adam, sgd")]
    learning_rate: Annotated[float, Rule("0 to 1e38")]
    batch_size: Annotated[int, Rule("1 to 4096")] = 32
    train_on: Annotated[str, Rule("plain, scaled, rescaled, rescaled_shifted")] = "plain"
    trainable: bool = True
    initial_run: str = ""
    train_size: _Count = TRAIN_IMAGES
    test_size: _Count = TEST_IMAGES
    seed: _Seed = 0
    corners: Annotated[str, Rule("published, bilinear")] = "published"
    pairing: Annotated[str, Rule("published, per_pixel")] = "published"
    chained: bool = False
    validation_size: _Count = 0
    data: str = ""
    task: Annotated[str, Rule(", ".join(IMAGES))] = "mnist"
    decay: Annotated[str, Rule("none, cosine")] = "none"
    weights_seed: _SourceSeed = -1
    order_seed: _SourceSeed = -1
    augmentation_seed: _SourceSeed = -1
    offset_stddev: Annotated[float, Rule("0 to 1000")] = 0.0
    zoom_centre: Annotated[str, Rule("image, former")] = "image"
    scaled_test_size: Annotated[int, Rule("from 1")] = 2000
    re_estimate: bool = False

    def __post_init__(self) -> None:
        declared: type = type(self)
        for name, kind in _kinds(declared).items():
            if kind is float and type(getattr(self, name)) is int:
                object.__setattr__(self, name, float(getattr(self, name)))
            self._require(name, type(getattr(self, name)) is kind, f"of type {kind.__name__}")
            if name in RULES:
                self._require(name, RULES[name].holds(getattr(self, name)), RULES[name].words)
        task, images, validated = self.task, IMAGES[self.task], self.validation_size > 0
        least, scaled = 0 if task == "mnist" else 1, self.train_on == "scaled"
        resampled = self.model in ("deformable_cnn", "deformable_mini_resnet")
        without = f"for model {self.model}, which has no ConvOffset2D"
        own = f"for task {task}, which has validation images of its own"
        for name, holds, rule in (
            ("train_on", self.train_on in images, f"one of {', '.join(images)} for task {task}"),
            ("train_size", self.train_size >= least, f"at least {least} for task {task}"),
            ("test_size", self.test_size >= least, f"at least {least} for task {task}"),
            ("zoom_centre", scaled or self.zoom_centre == "image", "'image' unless train_on is 'scaled'"),
            ("re_estimate", not self.re_estimate or validated, "False without validation images"),
            ("corners", resampled or self.corners == "published", f"'published' {without}"),
            ("pairing", resampled or self.pairing == "published", f"'published' {without}"),
            ("offset_stddev", resampled or self.offset_stddev == 0, f"0.0 {without}"),
            ("chained", not self.chained or "resnet" in self.model, "False for a model without residual blocks"),
            ("trainable", self.trainable or self.model not in ARMS, f"True for model {self.model}"),
            ("validation_size", validated or task == "mnist", f"at least 1 {own}"),
            ("initial_run", self.initial_run in ("", *INITIAL_RUNS), f"empty or one of {INITIAL_RUNS}"),
        ):
            self._require(name, holds, rule)

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ConfigurationError(f"{name} must be {rule}. Received: {name}={getattr(self, name)!r}")

    def resolved(self) -> Resolved:
        """Returns the values that determine the numbers of this run."""
        values: dict[str, Any] = {
            field.name: getattr(self, field.name, self.seed) for field in dataclasses.fields(Resolved)
        }
        for name in ("weights_seed", "order_seed", "augmentation_seed"):
            values[name] = self.seed if values[name] < 0 else values[name]
        values["realisation"] = self.seed
        return Resolved(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON types."""
        return dataclasses.asdict(self)


_HINTS = typing.get_type_hints(RunConfig, include_extras=True)
RULES: dict[str, Rule] = {  # of the fields that have one
    name: kind.__metadata__[0] for name, kind in _HINTS.items() if typing.get_origin(kind) is Annotated
}
