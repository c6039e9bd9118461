"""The embedded MNIST, its checks, and the scaled and translated digits."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np

from dcn_study.errors import ConfigurationError, DataError
from dcn_study.runs.configuration import RunConfig

__all__ = [
    "SHIFT",
    "ZOOM",
    "Digits",
    "Splits",
    "Transforms",
    "apply_transforms",
    "data_sha256",
    "draw_transforms",
    "fingerprint",
    "load_digits",
    "splits",
]

MNIST = Path(__file__).with_name("mnist.npz")
MNIST_SHA256 = "a01671389766172d0fe3c6ce94e27aea68db16480c3e1dda5bb946a18204cf3b"
KEYS = ("x_train", "y_train", "x_test", "y_test")
SCALED_TEST_SEED = 20191215  # of the one scaled and translated test set on which all models are compared
SCALED_VALIDATION_SEED = 20191216
ZOOM = (1.0, 2.5)  # range of the zoom of each axis; a factor above 1 shrinks the digit
SHIFT = 0.2  # largest shift of each axis, as a share of the side
BLOCK = 5000  # images transformed at a time, to bound the memory


@dataclasses.dataclass(frozen=True)
class Digits:
    """Images (N, H, W) and labels (N,), both uint8, and the SHA-256 of all four arrays."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    sha256: str


def load_digits(path: str | os.PathLike[str] = "") -> Digits:
    """Loads the embedded MNIST, or another data set of the same form, once per process and content of the file.

    Args:
        path: an `.npz` with the keys that Keras uses: x_train, x_test (N, H, W) uint8 and y_train, y_test (N,)
            integers from 0 to 9. Empty for the embedded file, whose digest is checked.

    Raises:
        DataError: if the file is missing, unreadable, of another form, or, for MNIST, has another digest.
    """
    file = Path(path) if path else MNIST
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"{file} must be a readable .npz with the keys {', '.join(KEYS)}: {error}") from error
    return _load(file.absolute(), MNIST_SHA256 if not path else "", (status.st_mtime_ns, status.st_size))


def data_sha256(path: str | os.PathLike[str] = "") -> str:
    """Returns the SHA-256 of the arrays in a data file, as `load_digits` loads it.

    Raises:
        DataError: as `load_digits`.
    """
    return load_digits(path).sha256


@functools.lru_cache(maxsize=4)
def _load(file: Path, expected: str, version: tuple[int, int]) -> Digits:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in KEYS}
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} must be a readable .npz with the keys {', '.join(KEYS)}: {error}") from error
    found = _digest(arrays)
    if expected and found != expected:
        raise DataError(f"{file} is damaged: expected SHA-256 {expected}, found {found}")
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if images.dtype != np.uint8 or images.ndim != 3 or labels.shape != images.shape[:1] or not len(images):
            raise DataError(
                f"{file} must hold x_{part} (N, H, W) of uint8 and y_{part} (N,), N at least 1. Received: "
                f"x_{part} {images.shape} of {images.dtype}, y_{part} {labels.shape}"
            )
        if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 9:
            raise DataError(f"{file} must hold in y_{part} integers from 0 to 9. Received: {np.unique(labels)}")
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise DataError(f"{file} must hold training and test images of one size")
    for array in arrays.values():
        array.flags.writeable = False  # shared by all that load this file
    return Digits(**arrays, sha256=found)


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for key in KEYS:
        digest.update(f"{key} {arrays[key].dtype} {arrays[key].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[key]).data)
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Transforms:
    """Zoom (N, 2), a factor, and shift (N, 2), in pixels; one row per image, columns (y, x)."""

    zoom: np.ndarray
    shift: np.ndarray


def draw_transforms(count: int, seed: int | tuple[int, ...], side: tuple[int, int] = (28, 28)) -> Transforms:
    """Draws one random zoom and shift for each image and each axis, independently and uniformly.

    The distribution is that of Keras' `ImageDataGenerator(zoom_range=(1.0, 2.5), width_shift_range=0.2,
    height_shift_range=0.2)`; the numbers are not, as that class cannot be seeded for each image.

    Args:
        count: number of images.
        seed: one integer or several.
        side: (height, width) of an image, in pixels.
    """
    generator = np.random.default_rng(seed)
    zoom = generator.uniform(*ZOOM, size=(count, 2))
    shift = generator.uniform(-SHIFT, SHIFT, size=(count, 2)) * np.asarray(side)
    return Transforms(zoom, shift)


def apply_transforms(images: np.ndarray, transforms: Transforms) -> np.ndarray:
    """Zooms and shifts every image by its own transformation.

    Output pixel p of an axis reads the input at zoom·(p - centre) + centre + shift, bilinearly; what lies outside
    takes the value of the nearest border pixel. The axes are independent, so that the interpolation of an image
    is a product of three matrices.

    Args:
        images: (N, H, W), floating point.
        transforms: of the N images.

    Returns:
        (N, H, W), same type.
    """
    moved = np.empty_like(images)
    for start in range(0, len(images), BLOCK):
        part = slice(start, start + BLOCK)
        rows, columns = (
            _interpolation(transforms.zoom[part, axis], transforms.shift[part, axis], images.shape[axis + 1])
            for axis in (0, 1)
        )
        moved[part] = rows.astype(images.dtype) @ images[part] @ np.swapaxes(columns, 1, 2).astype(images.dtype)
    return moved


def _interpolation(zoom: np.ndarray, shift: np.ndarray, side: int) -> np.ndarray:
    """Returns (N, side, side): row p holds the weights with which output pixel p reads the input pixels."""
    centre, pixels = (side - 1) / 2, np.arange(side)
    coordinates = zoom[:, None] * (pixels - centre) + centre + shift[:, None]
    coordinates = np.clip(coordinates, 0, side - 1)
    return np.maximum(0, 1 - np.abs(coordinates[:, :, None] - pixels))


@dataclasses.dataclass(frozen=True)
class Splits:
    """What a run trains and tests on: images (N, H, W, 1) in [0, 1], float32; labels (N,), int32."""

    digits: Digits
    config: RunConfig

    def train(self, epoch: int, first: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the training images and labels of an epoch (from 0), shuffled and, if so configured, scaled.

        Args:
            epoch: the epoch.
            first: how many images to return, from the epoch's first; all by default.
        """
        size, seed = self.config.train_size, self.config.seed
        chosen = slice(first)
        order = self._order(epoch)[chosen]
        images = _normalise(self.digits.x_train[order])
        if self.config.train_on == "scaled":
            transforms = draw_transforms(size, (seed, epoch, 1), images.shape[1:])
            images = apply_transforms(images, Transforms(transforms.zoom[chosen], transforms.shift[chosen]))
        return images[..., None], self.labels(epoch)[chosen]

    def labels(self, epoch: int) -> np.ndarray:
        """Returns the training labels of an epoch (from 0), as `train` does, without the images."""
        return self.digits.y_train[self._order(epoch)].astype(np.int32)

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.config.seed, epoch, 0)).permutation(self.config.train_size)

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


def splits(config: RunConfig) -> Splits:
    """Loads the data of a run.

    Raises:
        DataError: as `load_digits`.
        ConfigurationError: if the run asks for more images than there are.
    """
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


def fingerprint(images: np.ndarray, labels: np.ndarray) -> tuple[str, float]:
    """Returns what identifies an epoch: the SHA-256 of its labels (N,), and a weighted sum over its first images.

    Each pixel has a weight of its own. The sum is the same on all processors to about 1e-4, where the pixels themselves
    may differ in their last bit.
    """
    pixels = images.astype(np.float64).ravel()
    return hashlib.sha256(labels.tobytes()).hexdigest(), float(pixels @ np.cos(np.arange(len(pixels))))


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
