"""The data sets: where their files are, and their checks."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import os
import warnings
import zipfile
from pathlib import Path

import numpy as np

from dcn_study.errors import DataError

__all__ = ["FASHION_MNIST", "MNIST_SHA256", "Digits", "data_sha256", "digest", "load_digits"]

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
    file = (Path(path) if path else MNIST).absolute()
    try:
        status = file.stat()
    except OSError as error:
        raise _unreadable(file, error) from error
    return _load(file, MNIST_SHA256 if not path else "", (status.st_mtime_ns, status.st_size))


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
        with file.open("rb") as stream, zipfile.ZipFile(stream) as archive, warnings.catch_warnings():
            warnings.simplefilter("error")  # of a header that is no plain Python
            arrays = {key: _member(archive, f"{key}.npy") for key in KEYS}
    except Exception as error:  # a damaged archive raises errors of many modules
        raise _unreadable(file, error) from error
    return _checked(file, arrays, expected)


def _unreadable(file: Path, error: Exception) -> DataError:
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return DataError(f"{file} must be a readable .npz with the keys {', '.join(KEYS)}: {what}{_remedy(file)}")


def _remedy(file: Path) -> str:
    """Returns how to have the embedded file again; nothing for any other file."""
    return f". Restore it with: git checkout {file}" if file == MNIST else ""


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


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
    except Exception as error:  # a damaged file raises errors of many modules
        raise DataError(
            f"{folder} must hold the four files of Fashion-MNIST: {type(error).__name__}: {error}"
        ) from error
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
        raise DataError(f"{source} is damaged: expected SHA-256 {expected}, found {found}{_remedy(source)}")
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if images.dtype != np.uint8 or images.ndim != 3 or labels.shape != images.shape[:1] or 0 in images.shape:
            raise DataError(
                f"{source} must hold x_{part} (N, H, W) of uint8 and y_{part} (N,), no size 0. Received: "
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
