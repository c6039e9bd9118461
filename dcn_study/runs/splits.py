"""Training, validation and test images of a run."""

from __future__ import annotations

import dataclasses

import numpy as np

from dcn_study.errors import ConfigurationError
from dcn_study.runs import mnist_scale
from dcn_study.runs.configuration import Resolved, RunConfig
from dcn_study.runs.data import Digits, load_digits
from dcn_study.runs.transforms import SHIFT, Transforms, about_former_centre, apply_transforms, draw_transforms

__all__ = ["KINDS", "RealisationSplits", "Splits", "splits"]

SCALED_TEST_SEED = 20191215  # of the one scaled and translated test set on which all models are compared
SCALED_VALIDATION_SEED = 20191216
OUT_OF_RANGE_IMAGES = 2000  # in each test set of `mnist_scale.OUT_OF_RANGE`

# The test sets on which a finished run is evaluated, by task.
KINDS = {
    "mnist": ("plain", "scaled"),
    "mnist_scale": ("plain", "scaled", *mnist_scale.OUT_OF_RANGE),
    "mnist_pooled": ("plain", "scaled", *mnist_scale.OUT_OF_RANGE),
}


@dataclasses.dataclass(frozen=True)
class Splits:
    """Images of a run: images (N, H, W, 1) in [0, 1], float32; labels (N,), int32."""

    digits: Digits
    run: Resolved

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image."""
        height, width = self.digits.x_train.shape[1:]
        return height, width

    @property
    def kinds(self) -> tuple[str, ...]:
        """The test sets on which a finished run is evaluated."""
        return KINDS[self.run.task]

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
        if self.run.train_on == "scaled":
            transforms = draw_transforms(self.run.train_size, (self.run.augmentation_seed, epoch, 1), images.shape[1:])
            if self.run.zoom_centre == "former":
                transforms = about_former_centre(transforms)
            images = apply_transforms(images, Transforms(transforms.zoom[chosen], transforms.shift[chosen]))
        return images

    def labels(self, epoch: int) -> np.ndarray:
        """Returns the training labels of an epoch (from 0), as `train` does, without the images."""
        return self.digits.y_train[self._order(epoch)].astype(np.int32)

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.run.order_seed, epoch, 0)).permutation(self.run.train_size)

    def test(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the test images and labels, "plain" or "scaled"; the scaled ones are always the same."""
        chosen = slice(self.run.test_size)
        return _held_out(self.digits.x_test, self.digits.y_test, chosen, kind, SCALED_TEST_SEED)

    def validation(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images and labels that a run validates on; as published, these are the test images."""
        start, size = self.run.train_size, self.run.validation_size
        if not size:
            return self.test(kind)
        chosen = slice(start, start + size)
        return _held_out(self.digits.x_train, self.digits.y_train, chosen, kind, SCALED_VALIDATION_SEED)


@dataclasses.dataclass(frozen=True)
class RealisationSplits(Splits):
    """Images of a run on a realisation, of MNIST-Scale or of plain digits.

    Attributes:
        digits: of the realisation.
        run: the run.
        originals: the test images before they were scaled. Of the test sets, "plain" are those of the realisation; the
            others are made of the first of the originals.
    """

    originals: np.ndarray

    def _augmented(self, images: np.ndarray, epoch: int, chosen: slice) -> np.ndarray:
        if self.run.train_on != "plain":
            random = np.random.default_rng((self.run.augmentation_seed, epoch, 1))
            count, side = self.run.train_size, np.asarray(images.shape[1:])
            scales = random.uniform(*mnist_scale.RESCALED, size=count)
            shifts = random.uniform(-SHIFT, SHIFT, size=(count, 2)) * side
            if self.run.train_on == "rescaled":
                shifts[:] = 0
            images = mnist_scale.resample(images, scales[chosen], shifts=shifts[chosen])
        return _normalise(images)

    def test(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images and labels of a test set, one of `kinds`."""
        if kind == "plain":
            return super().test(kind)
        size = min(self.run.test_size, self.run.scaled_test_size if kind == "scaled" else OUT_OF_RANGE_IMAGES)
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
    run = config.resolved()
    if run.task != "mnist":
        sizes = (run.train_size, run.validation_size, run.test_size)
        drawn = mnist_scale.realisation(run.realisation, sizes, run.data, scaled=run.task == "mnist_scale")
        return RealisationSplits(drawn.digits, run, drawn.originals)
    digits = load_digits(run.data)
    run = dataclasses.replace(
        run,
        train_size=run.train_size or len(digits.x_train) - run.validation_size,
        test_size=run.test_size or len(digits.x_test),
    )
    for name, there_are in (("train_size", len(digits.x_train)), ("test_size", len(digits.x_test))):
        if getattr(run, name) > there_are:
            raise ConfigurationError(
                f"{name} must be at most the number of images, {there_are}. Received: {name}={getattr(run, name)}"
            )
    if run.train_size < 1 or run.train_size + run.validation_size > len(digits.x_train):
        raise ConfigurationError(
            f"train_size + validation_size must be at most the number of images, {len(digits.x_train)}. "
            f"Received: train_size={run.train_size}, validation_size={run.validation_size}"
        )
    return Splits(digits, run)


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
