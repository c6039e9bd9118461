"""Numbered realisations of all digits of a data file: MNIST-Scale, whose digits differ in scale; or plain digits.

The protocol is that of I. Sosnovik, M. Szmaja and A. Smeulders, "Scale-Equivariant Steerable Networks", ICLR 2020,
arXiv:1910.11093, after A. Kanazawa, A. Sharma and D. Jacobs, "Locally scale-invariant convolutional neural networks",
2014, arXiv:1412.5104. As theirs, images are scaled about their centre by Pillow, bicubically and without a filter
against aliasing, and rounded to 8 bits. The draws are our own, and so is the exact centre.
"""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from dcn_study.errors import ConfigurationError, DataError
from dcn_study.runs.data import MNIST_SHA256, Digits, digest, load_digits

__all__ = ["OUT_OF_RANGE", "RESCALED", "SCALES", "SIZES", "Realisation", "realisation", "resample"]

SCALES = (0.3, 1.0)  # range of the scale of each digit
RESCALED = (0.5, 2.0)  # range of the further scale that augmentation draws
SIZES = (10_000, 2_000, 50_000)  # images to train on, to validate on, to test on

# The digests of the realisations of MNIST-Scale at these sizes, by number.
DIGESTS = {
    0: "c51a57cd5409f374b697c3db33f6f242a979445ed7e2553adbe8deeac4d86601",
    1: "c370b871372b3c423f0a404811769a2cb29d7c8e6a1c7bde9628a899ab0ef26f",
    2: "65d054c3150cf8827b4e418bc184e60b4a910c153c338f4623af806d7f88497a",
    3: "d3924ed0141a7820d9b3d7d29d3b6370421eb15f79ba73062fdc4b4f2c16876a",
    4: "9d5343a782f959ee71d5b8a536bae5e4ba9548f4b0494722b443f03f0b73e720",
    5: "51d067c1abedb11723c3e46da88e5402c57aa155e4d40b7279b2b816dee8c6ed",
    6: "9431459ad299ee698bd654ea161fb72fce94e376a4873581004f1a731749e200",
    7: "257a364c34b1d4fc7969a3595d81367530736a3885da24774778e4786608aa51",
    8: "bd430d3853f76f006c46c3762c17f1acca8b920640bb2568b994ceba912da90a",
    9: "9ed936ab25b473283b2ecff74756f2d4decbe8f6bbe21201a7fcfef1cc718da6",
    10: "1205413313386bcb2c8e0d26a5e8b0720392751fa3184c0692ec5f7f584e3ea9",
    11: "a25fdf03a6e147dcda9a1c96828a00ff011c849e41e2cf1dfd33b225551ae80d",
    12: "ce88d3e6efcaa08ec88d4e1c69d969a884927abcd697aec4f810f014bec72112",
    13: "38664bb91cd5a9ced46664f47090256610ad7431f0f9935972a4386d2cc6405f",
    14: "9d88d812f31a1549327d1f41fc47cd90a546a85e179b60ca98abafde108443e2",
}

# Beyond what training has seen: name of a test set → scale, rotation in degrees, shift to the right in pixels.
OUT_OF_RANGE: dict[str, tuple[float, float, float]] = {
    **{f"scale {scale:.1f}": (scale, 0.0, 0.0) for scale in (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)},
    **{f"rotation {angle}": (0.6, float(angle), 0.0) for angle in (-90, -60, -30, 30, 60, 90)},
    **{f"shift {shift}": (0.6, 0.0, float(shift)) for shift in (-8, -6, -4, -2, 2, 4, 6, 8)},
}


class Realisation:
    """One draw of training, validation and test images.

    Attributes:
        digits: the images; those to validate on follow those to train on.
        test_scales: scale of each test image.
        originals: the test images before they were scaled.
    """

    def __init__(self, digits: Digits, test_scales: np.ndarray, originals: np.ndarray) -> None:
        self.digits, self.test_scales, self.originals = digits, test_scales, originals


@functools.lru_cache(maxsize=2)
def realisation(
    number: int, sizes: tuple[int, int, int] = SIZES, data: str = "", *, scaled: bool = True
) -> Realisation:
    """Returns a realisation: each class has the same share of every part as of all digits.

    Args:
        number: of the realisation. The scale of a digit depends on it alone, and not on the sizes.
        sizes: how many images to train on, to validate on and to test on.
        data: path of the data file; empty for the embedded MNIST.
        scaled: whether each digit has a scale of its own, as in MNIST-Scale; otherwise all have scale 1.

    Raises:
        ConfigurationError: if there are fewer images than asked for.
        DataError: as `load_digits`; or if a realisation of MNIST in the usual sizes is not the recorded one, because
            another version of Pillow scales otherwise.
    """
    source = load_digits(data)
    images = np.concatenate([source.x_train, source.x_test])
    labels = np.concatenate([source.y_train, source.y_test])
    if sum(sizes) > len(images):
        raise ConfigurationError(
            f"train_size + validation_size + test_size must be at most the number of images, {len(images)}. "
            f"Received: {' + '.join(map(str, sizes))}"
        )
    scales = np.random.default_rng((number, 0)).uniform(*SCALES, size=len(images)) if scaled else np.ones(len(images))
    parts = _stratified(labels, sizes, np.random.default_rng((number, 1)))
    training, test = np.concatenate(parts[:2]), parts[2]
    arrays = {
        "x_train": resample(images[training], scales[training]) if scaled else images[training],
        "y_train": labels[training],
        "x_test": resample(images[test], scales[test]) if scaled else images[test],
        "y_test": labels[test],
    }
    found = digest(arrays)
    recorded = scaled and source.sha256 == MNIST_SHA256 and sizes == SIZES
    if recorded and DIGESTS.get(number, found) != found:
        raise DataError(f"realisation {number} of MNIST-Scale: expected SHA-256 {DIGESTS[number]}, found {found}")
    return Realisation(Digits(**arrays, sha256=found), scales[test], images[test])


def resample(
    images: np.ndarray,
    scales: np.ndarray | float,
    *,
    rotation: float = 0.0,
    shifts: np.ndarray | tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Scales, rotates and shifts images about their centre, bicubically; what comes from outside is zero.

    Args:
        images: (N, H, W), uint8.
        scales: of each image or of all; below 1 the digit shrinks.
        rotation: in degrees, counter-clockwise.
        shifts: (N, 2) or one pair, in pixels, down and to the right.

    Returns:
        (N, H, W), uint8.
    """
    count, height, width = images.shape
    scales = np.broadcast_to(np.asarray(scales, float), count)
    shifts = np.broadcast_to(np.asarray(shifts, float), (count, 2))
    cosine, sine = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    result = np.empty_like(images)
    for index, (image, scale, (down, right)) in enumerate(zip(images, scales, shifts, strict=True)):
        # Pillow asks for the map from the output to the input, over (x, y) with the corner of the image at the origin.
        a, b, d, e = cosine / scale, -sine / scale, sine / scale, cosine / scale
        x, y = width / 2 + right, height / 2 + down
        matrix = (a, b, width / 2 - a * x - b * y, d, e, height / 2 - d * x - e * y)
        result[index] = np.asarray(
            Image.fromarray(image).transform(
                (width, height), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC
            )
        )
    return result


def _stratified(labels: np.ndarray, sizes: tuple[int, int, int], random: np.random.Generator) -> list[np.ndarray]:
    """Returns the indices of each part, in random order, with each class by its share."""
    shuffled = random.permutation(len(labels))
    # In this order the k-th of n members of a class is at (k + 1/2) / n: any part has all classes in proportion.
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.argsort(place, kind="stable")
    ends = np.cumsum(sizes)
    return [random.permutation(order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
