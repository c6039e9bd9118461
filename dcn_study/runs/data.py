"""The data sets, their checks, and the scaling and translating of digits."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from dcn_study.errors import DataError

__all__ = [
    "FASHION_MNIST",
    "MNIST_SHA256",
    "SHIFT",
    "ZOOM",
    "Digits",
    "Transforms",
    "apply_transforms",
    "data_sha256",
    "digest",
    "draw_transforms",
    "fingerprint",
    "load_digits",
]

MNIST = Path(__file__).with_name("mnist.npz")
MNIST_SHA256 = "a01671389766172d0fe3c6ce94e27aea68db16480c3e1dda5bb946a18204cf3b"
KEYS = ("x_train", "y_train", "x_test", "y_test")

# H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
# Algorithms", 2017, arXiv:1708.07747. It is asked for by this name, and looked for where Debian's package
# dataset-fashion-mnist and Keras put it.
FASHION_MNIST = "fashion_mnist"
FASHION_MNIST_SHA256 = "9ada4c58fe1add22709fb509731f7f78d61f0ee1c98e67bf5a36588531fdd3b6"
FASHION_MNIST_FOLDERS = (
    Path("/usr/share/datasets/fashion-mnist"),
    Path(os.path.expanduser("~/.keras/datasets/fashion-mnist")),
)
FASHION_MNIST_FILES = {
    "x_train": "train-images-idx3-ubyte.gz",
    "y_train": "train-labels-idx1-ubyte.gz",
    "x_test": "t10k-images-idx3-ubyte.gz",
    "y_test": "t10k-labels-idx1-ubyte.gz",
}

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
        path: empty for the embedded file, or "fashion_mnist", each of which must have its known digest. Or an `.npz`
            with the keys that Keras uses: x_train, x_test (N, H, W) uint8 and y_train, y_test (N,) integers from 0
            to 9.

    Raises:
        DataError: if a file is missing, unreadable, of another form, or has another digest than the known one.
    """
    if path == FASHION_MNIST:
        return _load_fashion_mnist()
    file = Path(path) if path else MNIST
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"{file} must be a readable .npz with the keys {', '.join(KEYS)}: {error}") from error
    return _load(file.absolute(), MNIST_SHA256 if not path else "", (status.st_mtime_ns, status.st_size))


def data_sha256(path: str | os.PathLike[str] = "") -> str:
    """Returns the SHA-256 of the arrays in a data set, as `load_digits` loads it.

    That of Fashion-MNIST is known: it need not be there.

    Raises:
        DataError: as `load_digits`.
    """
    return FASHION_MNIST_SHA256 if path == FASHION_MNIST else load_digits(path).sha256


@functools.lru_cache(maxsize=4)
def _load(file: Path, expected: str, version: tuple[int, int]) -> Digits:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in KEYS}
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} must be a readable .npz with the keys {', '.join(KEYS)}: {error}") from error
    return _checked(file, arrays, expected)


@functools.cache
def _load_fashion_mnist() -> Digits:
    folder = next((each for each in FASHION_MNIST_FOLDERS if each.is_dir()), None)
    if folder is None:
        places = " or ".join(map(str, FASHION_MNIST_FOLDERS))
        raise DataError(
            f"Fashion-MNIST must be in {places}: install Debian's package dataset-fashion-mnist, or call "
            "keras.datasets.fashion_mnist.load_data()"
        )
    try:
        arrays = {key: _read_idx(folder / name) for key, name in FASHION_MNIST_FILES.items()}
    except (OSError, EOFError, IndexError, ValueError, zlib.error) as error:
        raise DataError(f"{folder} must hold the four files of Fashion-MNIST: {error}") from error
    return _checked(folder, arrays, FASHION_MNIST_SHA256)


def _read_idx(file: Path) -> np.ndarray:
    """Reads a compressed file of unsigned bytes in the format of MNIST: two zeros, the type, the rank, the shape."""
    with gzip.open(file) as stream:
        content = stream.read()
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def _checked(source: Path, arrays: dict[str, np.ndarray], expected: str) -> Digits:
    """Returns the arrays of a data set if they have the right form and, where one is known, digest."""
    found = digest(arrays)
    if expected and found != expected:
        raise DataError(f"{source} is damaged: expected SHA-256 {expected}, found {found}")
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if images.dtype != np.uint8 or images.ndim != 3 or labels.shape != images.shape[:1] or not len(images):
            raise DataError(
                f"{source} must hold x_{part} (N, H, W) of uint8 and y_{part} (N,), N at least 1. Received: "
                f"x_{part} {images.shape} of {images.dtype}, y_{part} {labels.shape}"
            )
        if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 9:
            raise DataError(f"{source} must hold in y_{part} integers from 0 to 9. Received: {np.unique(labels)}")
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise DataError(f"{source} must hold training and test images of one size")
    for array in arrays.values():
        array.flags.writeable = False  # shared by all that load this data set
    return Digits(**arrays, sha256=found)


def digest(arrays: dict[str, np.ndarray]) -> str:
    """Returns the SHA-256 of the four arrays of a data file, with their types and shapes."""
    found = hashlib.sha256()
    for key in KEYS:
        found.update(f"{key} {arrays[key].dtype} {arrays[key].shape}".encode())
        found.update(np.ascontiguousarray(arrays[key]).data)
    return found.hexdigest()


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


def fingerprint(images: np.ndarray, labels: np.ndarray) -> tuple[str, float]:
    """Returns the fingerprint of an epoch: the SHA-256 of its labels (N,), and a weighted sum over its first images.

    Each pixel has a weight of its own. The sum is the same on all processors to about 1e-4, where the pixels themselves
    may differ in their last bit.
    """
    pixels = images.astype(np.float64).ravel()
    return hashlib.sha256(labels.tobytes()).hexdigest(), float(pixels @ np.cos(np.arange(len(pixels))))
