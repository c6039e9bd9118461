"""The scaling and translating of digits, as the paper does it."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

__all__ = ["SHIFT", "ZOOM", "Transforms", "about_former_centre", "apply_transforms", "draw_transforms", "fingerprint"]

ZOOM = (1.0, 2.5)  # range of the zoom of each axis; a factor above 1 shrinks the digit
SHIFT = 0.2  # largest shift of each axis, as a share of the side
BLOCK = 5000  # images transformed at a time, to bound the memory


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


def about_former_centre(transforms: Transforms) -> Transforms:
    """Returns transformations that zoom about the point that Keras took for the centre of an image until October 2020.

    That point is one pixel below and to the right of the centre: at half the side plus a half, where the middle of the
    pixels 0 to side - 1 is half the side minus a half. Source: keras-team/keras-preprocessing, pull request 314.
    """
    return Transforms(transforms.zoom, transforms.shift + (1 - transforms.zoom))


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
