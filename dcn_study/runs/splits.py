"""Training, validation and test images of a run."""

from __future__ import annotations

import dataclasses

import numpy as np

from dcn_study.errors import ConfigurationError
from dcn_study.runs import mnist_scale
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.data import SHIFT, Digits, Transforms, apply_transforms, draw_transforms, load_digits

__all__ = ["ScaleSplits", "Splits", "splits"]

SCALED_TEST_SEED = 20191215  # of the one scaled and translated test set on which all models are compared
SCALED_VALIDATION_SEED = 20191216
OUT_OF_RANGE_IMAGES = 2000  # in each further test set of MNIST-Scale


@dataclasses.dataclass(frozen=True)
class Splits:
    """Images of a run: images (N, H, W, 1) in [0, 1], float32; labels (N,), int32."""

    digits: Digits
    config: RunConfig

    @property
    def kinds(self) -> tuple[str, ...]:
        """The test sets on which a finished run is evaluated."""
        return ("plain", "scaled")

    def train(self, epoch: int, first: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the training images and labels of an epoch (from 0), shuffled and, if so configured, scaled.

        Args:
            epoch: the epoch.
            first: how many images to return, from the epoch's first; all by default.
        """
        chosen = slice(first)
        images = self._augmented(self.digits.x_train[self._order(epoch)[chosen]], epoch, chosen)
        return images[..., None], self.labels(epoch)[chosen]

    def _augmented(self, images: np.ndarray, epoch: int, chosen: slice) -> np.ndarray:
        images = _normalise(images)
        if self.config.train_on == "scaled":
            size, seed = self.config.train_size, self.config.seed_of("augmentation")
            transforms = draw_transforms(size, (seed, epoch, 1), images.shape[1:])
            images = apply_transforms(images, Transforms(transforms.zoom[chosen], transforms.shift[chosen]))
        return images

    def labels(self, epoch: int) -> np.ndarray:
        """Returns the training labels of an epoch (from 0), as `train` does, without the images."""
        return self.digits.y_train[self._order(epoch)].astype(np.int32)

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.config.seed_of("order"), epoch, 0)).permutation(self.config.train_size)

    def test(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the test images and labels, "plain" or "scaled"; the scaled ones are always the same."""
        chosen = slice(self.config.test_size)
        return _held_out(self.digits.x_test, self.digits.y_test, chosen, kind, SCALED_TEST_SEED)

    def validation(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images and labels that a run validates on; as published, these are the test images."""
        start, size = self.config.train_size, self.config.validation_size
        if not size:
            return self.test(kind)
        chosen = slice(start, start + size)
        return _held_out(self.digits.x_train, self.digits.y_train, chosen, kind, SCALED_VALIDATION_SEED)


@dataclasses.dataclass(frozen=True)
class ScaleSplits(Splits):
    """Images of a run on MNIST-Scale.

    Attributes:
        digits: of the realisation.
        config: the run.
        originals: the test images before they were scaled.
    """

    originals: np.ndarray

    @property
    def kinds(self) -> tuple[str, ...]:
        """The test images of the realisation, "plain"; and others, made of the first of them as they were unscaled."""
        return ("plain", "scaled", *mnist_scale.OUT_OF_RANGE)

    def _augmented(self, images: np.ndarray, epoch: int, chosen: slice) -> np.ndarray:
        if self.config.train_on != "plain":
            random = np.random.default_rng((self.config.seed_of("augmentation"), epoch, 1))
            count, side = self.config.train_size, np.asarray(images.shape[1:])
            scales = random.uniform(*mnist_scale.RESCALED, size=count)
            shifts = random.uniform(-SHIFT, SHIFT, size=(count, 2)) * side
            if self.config.train_on == "rescaled":
                shifts[:] = 0
            images = mnist_scale.resample(images, scales[chosen], shifts=shifts[chosen])
        return _normalise(images)

    def test(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images and labels of a test set, one of `kinds`."""
        if kind == "plain":
            return super().test(kind)
        size = min(self.config.test_size, OUT_OF_RANGE_IMAGES)
        images, labels = self.originals[:size], self.digits.y_test[:size]
        if kind == "scaled":
            return _held_out(images, labels, slice(None), kind, SCALED_TEST_SEED)
        scale, rotation, right = mnist_scale.OUT_OF_RANGE[kind]
        moved = mnist_scale.resample(images, scale, rotation=rotation, shifts=(0.0, right))
        return _normalise(moved)[..., None], labels.astype(np.int32)

    def validation(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the validation images of the realisation and their labels, whatever the run trains on."""
        return super().validation("plain")


def splits(config: RunConfig) -> Splits:
    """Loads the data of a run.

    Raises:
        DataError: as `load_digits`.
        ConfigurationError: if the run asks for more images than there are.
    """
    if config.task == "mnist_scale":
        sizes = (config.train_size, config.validation_size, config.test_size)
        drawn = mnist_scale.realisation(config.seed, sizes, config.data)
        return ScaleSplits(drawn.digits, config, drawn.originals)
    digits = load_digits(config.data)
    for name, there_are in (("train_size", len(digits.x_train)), ("test_size", len(digits.x_test))):
        if getattr(config, name) > there_are:
            raise ConfigurationError(
                f"{name} must be at most the number of images, {there_are}. Received: {name}={getattr(config, name)}"
            )
    if config.train_size + config.validation_size > len(digits.x_train):
        raise ConfigurationError(
            f"train_size + validation_size must be at most the number of images, {len(digits.x_train)}. "
            f"Received: train_size={config.train_size}, validation_size={config.validation_size}"
        )
    return Splits(digits, config)


def _held_out(
    images: np.ndarray, labels: np.ndarray, chosen: slice, kind: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    transforms = draw_transforms(len(images), seed, images.shape[1:])
    images = _normalise(images[chosen])
    if kind == "scaled":
        images = apply_transforms(images, Transforms(transforms.zoom[chosen], transforms.shift[chosen]))
    return images[..., None], labels[chosen].astype(np.int32)


def _normalise(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 255
