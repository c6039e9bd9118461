"""Public samplers, rewritten as compositions of a few named choices, and five probes that each of them is put through.

No code is copied. `implementations.FOUND` names, for each implementation, the lines that a composition was read from.

Convention: images are (B, H, W, C), coordinates are (dy, dx) in pixels with the origin at the centre of pixel (0, 0).
A sampler reads N points per output pixel and channel: one for a layer that moves the pixels of each channel before a
regular convolution, nine for a 3x3 deformable convolution. Everything is computed in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcn import dead_weights
from dcn_study.experiments.choices import Choices
from dcn_study.experiments.implementations import FOUND

__all__ = ["PROBES", "RewrittenLayer", "moves", "probe", "probe_found", "sample", "state"]

_POINTS = np.stack(np.meshgrid((-1.0, 0.0, 1.0), (-1.0, 0.0, 1.0), indexing="ij"), axis=2).reshape(9, 2)
_STEP = 1e-5  # of the finite differences, in pixels
_DIRECTIONS = 2  # random directions in which they are taken
_TOLERANCE = 1e-6  # relative error that finite differences may have

Result = dict[str, Any]


def moves(choices: Choices, offsets: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns the offsets as a layer distributes them: (B, h, w, N, C, 2) from (B, h, w, M), (dy, dx) last.

    Args:
        choices: of the sampler.
        offsets: as a convolution predicts them, of any type.
        channels: of the images.
    """
    batch, height, width, numbers = offsets.shape
    if choices.pairing == "neighbours":
        pairs = tf.reshape(tf.transpose(offsets, (0, 3, 1, 2)), (batch, numbers // 2, height, width, 2))
        pairs = tf.transpose(pairs, (0, 2, 3, 1, 4))
    elif choices.pairing == "halves":
        pairs = tf.stack(tf.split(offsets, 2, axis=3), axis=4)
    else:
        pairs = tf.reshape(offsets, (batch, height, width, numbers // 2, 2))
        pairs = pairs[..., ::-1] if choices.pairing == "swapped" else pairs
    if choices.points == 1:
        return pairs[:, :, :, None]
    found = tf.repeat(pairs[..., None, :], channels, axis=4)
    if choices.images == "own":
        return found
    whose = (np.arange(batch)[:, None] * channels + np.arange(channels)) % batch
    return tf.transpose(tf.gather(pairs, whose, axis=0), (0, 2, 3, 4, 1, 5))


def sample(choices: Choices, images: tf.Tensor, moved: tf.Tensor) -> tf.Tensor:
    """Returns the values at all points, (B, h, w, N, C), for moves (B, h, w, N, C, 2) as `moves` returns them."""
    padded = choices.border in ("pad", "pad_and_round") or (
        choices.border == "clip_corners" and choices.padding == "same"
    )
    start = _grid(choices, *moved.shape[1:3]) + (1.0 if padded else 0.0)
    if padded:
        images = tf.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    batch, height, width, channels = images.shape
    position = start[:, :, :, None] + moved
    values = tf.reshape(images, (-1,))
    first, channel = np.arange(batch).reshape(batch, 1, 1, 1, 1) * (height * width), np.arange(channels)
    found = tf.zeros(position.shape[:-1], images.dtype)
    limit = height if choices.border == "clip_by_height" else width
    for y, down in _corners(choices, position[..., 0], height):
        for x, right in _corners(choices, position[..., 1], limit):
            found += down * right * tf.gather(values, (first + y * width + x) * channels + channel)
    return found


def _grid(choices: Choices, height: int, width: int) -> np.ndarray:
    """Returns the positions of the points before they are moved, (h, w, N, 2)."""
    pixels = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=2).astype(float)
    if choices.points == 1:
        return pixels[:, :, None]
    points = _POINTS.T.reshape(9, 2) if choices.grid == "unstacked" else _POINTS
    return pixels[:, :, None] + points + (choices.padding == "valid")


def _corners(choices: Choices, place: tf.Tensor, size: int) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Returns the pixels that are read along one axis of this size, and the weight of each."""
    last = size - 1.0
    if choices.border in ("clip", "clip_by_height", "clip_corners"):
        place = tf.clip_by_value(place, 0.0, last)
    low = tf.floor(tf.stop_gradient(place))
    high = low + 1 if choices.second in ("next", "both") else tf.math.ceil(tf.stop_gradient(place))
    if choices.border == "clip_corners":
        low, high = (tf.clip_by_value(each, 0.0, last) for each in (low, high))
        return [(_index(low), high - place), (_index(high), place - low)]
    if choices.border in ("pad", "pad_and_round"):
        if choices.border == "pad_and_round":
            place = tf.where((place < 1) | (place > last - 1), low, place)
        low, high, place = (tf.clip_by_value(each, 0.0, last) for each in (low, high, place))
        return [(_index(low), 1 + low - place), (_index(high), 1 - (high - place))]
    if choices.second == "ceil_shared":
        share = tf.cast(low == high, place.dtype) + 1
        found = [(each, (1 - tf.abs(place - each)) / share) for each in (low, high)]
    else:
        found = [(low, 1 - (place - low)), (high, place - low)]
    if choices.second == "both":
        before = tf.math.ceil(tf.stop_gradient(place)) - 1
        found += [(before, 1 - (place - before)), (before + 1, place - before)]
        found = [(each, weight / 2) for each, weight in found]
    inside = [tf.cast((each >= 0) & (each <= last), weight.dtype) for each, weight in found]
    # A pixel outside has weight zero: of the zeros outside, or as the pixel after the last one of a clipped coordinate.
    return [
        (_index(tf.clip_by_value(each, 0.0, last)), weight * (kept if choices.border == "zeros" else 1.0))
        for (each, weight), kept in zip(found, inside, strict=True)
    ]


def _index(place: tf.Tensor) -> tf.Tensor:
    return tf.cast(place, tf.int64)


class RewrittenLayer(keras.layers.Layer):
    """A layer around the sampler: predicts offsets and mask with 3x3 convolutions, samples, and convolves the samples.

    A layer of one point per channel returns the samples themselves, as the published `ConvOffset2D` does.

    Args:
        choices: of the sampler, its start and its mask.
    """

    def __init__(self, choices: Choices) -> None:
        super().__init__(dtype="float64", name="rewritten")
        self.choices = choices

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Creates the weights, with the implementation's own start for those that predict offsets and mask."""
        channels, start = input_shape[-1], self.choices.start
        numbers, bound = self.choices.numbers(channels), 1 / (9 * channels) ** 0.5
        spread: Mapping[str, Any] = {
            "normal": keras.initializers.RandomNormal(stddev=0.01, seed=1),
            "truncated_normal": keras.initializers.TruncatedNormal(stddev=0.02, seed=1),
            "uniform": keras.initializers.RandomUniform(-bound, bound, seed=1),
        }
        self.offset_kernel = self.add_weight(
            shape=(3, 3, channels, numbers), initializer=spread.get(start, "zeros"), name="offset_kernel"
        )
        self.offset_start = np.zeros(numbers)
        if start in ("uniform", "uniform_bias"):
            self.offset_start = np.random.default_rng(1).uniform(-bound, bound, numbers)
        elif start == "directions":
            self.offset_start = np.resize((1.0, 0.0, 1.0, 1.0, 0.0, 1.0, -1.0, 1.0), numbers)
        if self.choices.mask != "none":
            begin = keras.initializers.Constant(0.5 if self.choices.mask == "sum" else 0.0)
            self.mask_kernel = self.add_weight(shape=(3, 3, channels, 9), initializer=begin, name="mask_kernel")
        if self.choices.points == 9:
            begin = keras.initializers.GlorotUniform(seed=2)
            self.kernel = self.add_weight(shape=(9, channels, 2), initializer=begin, name="kernel")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the output of the layer."""
        padding = self.choices.padding.upper()
        offsets = tf.nn.conv2d(inputs, self.offset_kernel, 1, padding) + self.offset_start
        found = sample(self.choices, inputs, moves(self.choices, offsets, inputs.shape[-1]))
        if self.choices.mask != "none":
            factor = tf.sigmoid(tf.nn.conv2d(inputs, self.mask_kernel, 1, padding))
            found *= (2 if self.choices.mask == "one" else 1) * factor[..., None]
        return tf.einsum("bhwnc,nco->bhwo", found, self.kernel) if self.choices.points == 9 else found[:, :, :, 0]


def _images(height: int, width: int, seed: int, channels: int = 3) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).uniform(0.5, 1.5, (2, height, width, channels)))


def _shape(choices: Choices, images: tf.Tensor) -> tuple[int, ...]:
    """Returns the shape of the offsets for these images."""
    less = 2 if choices.padding == "valid" else 0
    batch, height, width, channels = images.shape
    return batch, height - less, width - less, choices.numbers(channels)


def gradient(choices: Choices, seed: int = 0) -> Result:
    """Returns whether offsets of zero get a gradient, and whether the layer as it starts can learn them.

    Returns:
        "number": largest absolute derivative of a random sum of all samples with respect to offsets of zero; "dead":
        the weights that `dcn.dead_weights` names for the layer as it starts; "outcome": "dead", "zero" or "alive".
    """
    images = _images(5, 5, seed)
    offsets = tf.zeros(_shape(choices, images), tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(offsets)
        found = sample(choices, images, moves(choices, offsets, 3))
        total = tf.reduce_sum(found * np.random.default_rng(seed + 1).normal(size=found.shape))
    largest = float(tf.reduce_max(tf.abs(tape.gradient(total, offsets))))
    dead = [path.split("/")[-1] for path in dead_weights(RewrittenLayer(choices), images)]
    outcome = "dead" if "offset_kernel" in dead else "alive" if largest else "zero"
    return {"number": largest, "dead": dead, "outcome": outcome}


def pairing(choices: Choices, seed: int = 0) -> Result:
    """Returns how many pairs of dy and dx come from the pixel, and the image, that they move.

    Sends the places of the offsets through the implementation's reshapes, instead of the offsets.

    Returns:
        "number": the share of the pairs; "outcome": "own pixel", "other pixels" or "other images".
    """
    images = _images(4, 4, seed)
    shape = _shape(choices, images)
    places = moves(choices, tf.reshape(tf.range(np.prod(shape)), shape), 3).numpy() // shape[3]
    pixel, image = places % (shape[1] * shape[2]), places // (shape[1] * shape[2])
    own_image = image == np.arange(shape[0]).reshape(-1, 1, 1, 1, 1, 1)
    own_pixel = pixel == np.arange(shape[1] * shape[2]).reshape(1, shape[1], shape[2], 1, 1, 1)
    share = float((own_image & own_pixel).all(axis=5).mean())
    outcome = "own pixel" if share == 1 else "other images" if not own_image.all() else "other pixels"
    return {"number": share, "outcome": outcome}


def differences(choices: Choices, seed: int = 0) -> Result:
    """Compares derivatives with finite differences at offsets that are not whole numbers.

    Returns:
        "number": largest relative error in some random directions; "outcome": "agree" or "differ".
    """
    images, random = _images(5, 5, seed), np.random.default_rng(seed + 2)
    shape = _shape(choices, images)
    offsets = tf.constant(random.uniform(0.15, 0.85, shape) - random.integers(0, 2, shape))

    def total(offsets: tf.Tensor) -> tf.Tensor:
        found = sample(choices, images, moves(choices, offsets, 3))
        return tf.reduce_sum(found * np.random.default_rng(seed + 1).normal(size=found.shape))

    with tf.GradientTape() as tape:
        tape.watch(offsets)
        value = total(offsets)
    slopes = tape.gradient(value, offsets).numpy()
    errors = []
    for _ in range(_DIRECTIONS):
        direction = random.normal(size=shape)
        measured = float(total(offsets + _STEP * direction) - total(offsets - _STEP * direction)) / (2 * _STEP)
        errors.append(float(abs(measured - (slopes * direction).sum()) / abs(measured)))
    return {"number": max(errors), "outcome": "agree" if max(errors) < _TOLERANCE else "differ"}


def border(choices: Choices, seed: int = 0) -> Result:
    """Reads a wide image at offsets of zero, and moves points half a pixel beyond its upper border.

    Returns:
        "number": share of the points inside the image that do not read their own pixel; "beyond": the share of the
        points between the border and one pixel beyond that have a derivative; "outcome": "right" or "wrong".
    """
    images = _images(4, 7, seed, channels=1)
    shape = _shape(choices, images)
    moved = tf.zeros((*shape[:3], choices.points, 1, 2), tf.float64)
    found = sample(choices, images, moved).numpy()[..., 0]
    rows, columns = np.moveaxis(_grid(dataclasses.replace(choices, grid="rows"), *shape[1:3]), 3, 0).astype(int)
    inside = (rows >= 0) & (rows < 4) & (columns >= 0) & (columns < 7)
    expected = images.numpy()[:, rows.clip(0, 3), columns.clip(0, 6), 0]
    wrong = float((abs(found - expected) > 1e-9)[:, inside].mean())
    up = moved - (0.5, 0.0)
    with tf.GradientTape() as tape:
        tape.watch(up)
        total = tf.reduce_sum(sample(choices, images, up))
    slopes = tape.gradient(total, up).numpy()[..., 0, 0]
    rows, columns = np.moveaxis(_grid(choices, *shape[1:3]), 3, 0)
    at = (rows == 0) & (columns >= 0) & (columns < 4)
    beyond = float((slopes[:, at] != 0).mean())
    return {"number": wrong, "beyond": beyond, "outcome": "wrong" if wrong else "right"}


def shift(choices: Choices, seed: int = 0) -> Result:
    """Sets the first number of each pair to one, where the layer's layout says that it is, and looks what is read.

    Returns:
        "number": share of the values that are those of the next pixel along one axis; "outcome": "(dy, dx)", "(dx, dy)"
        or "neither".
    """
    images = _images(6, 6, seed)
    shape = _shape(choices, images)
    first = np.zeros(shape)
    first[..., : shape[3] // 2 if choices.pairing == "halves" else None : 1 if choices.pairing == "halves" else 2] = 1
    centre = int(np.abs(_grid(dataclasses.replace(choices, padding="same"), 1, 1)[0, 0]).sum(axis=1).argmin())
    found = sample(choices, images, moves(choices, tf.constant(first), 3)).numpy()[:, :, :, centre]
    start = 1 if choices.padding == "valid" else 0
    kept, pixels = slice(1 - start, 4 - start), images.numpy()
    shares = {
        "(dy, dx)": float(np.isclose(found[:, kept, kept], pixels[:, 2:5, 1:4]).mean()),
        "(dx, dy)": float(np.isclose(found[:, kept, kept], pixels[:, 1:4, 2:5]).mean()),
    }
    order = max(shares, key=lambda name: shares[name])
    return {"number": shares[order], "outcome": order if shares[order] == 1 else "neither"}


def state(choices: Choices, seed: int = 0) -> Result:
    """Compares a new layer with the convolution, or the image, that it takes the place of.

    Returns:
        "number": the factor by which the output differs, by least squares; "rest": the relative size of what the
        factor does not explain.
    """
    images = _images(6, 6, seed)
    layer = RewrittenLayer(choices)
    found = layer(images).numpy()
    if choices.points == 1:
        expected = images.numpy()
    else:
        kernel = tf.reshape(layer.kernel, (3, 3, 3, 2))
        expected = tf.nn.conv2d(images, kernel, 1, choices.padding.upper()).numpy()
    factor = float((found * expected).sum() / (expected**2).sum())
    return {"number": factor, "rest": float(np.linalg.norm(found - factor * expected) / np.linalg.norm(expected))}


PROBES: dict[str, Callable[[Choices, int], Result]] = {
    "gradient at zero": gradient,
    "pairing": pairing,
    "finite differences": differences,
    "border": border,
    "shift by one pixel": shift,
}


def probe(found: Mapping[str, Choices], seed: int = 0) -> dict[str, dict[str, Result]]:
    """Returns what each probe of `PROBES` finds for each sampler, and under "start" what `state` finds.

    Args:
        found: name → sampler.
        seed: of the images, the offsets and the random sums.
    """
    probes = {**PROBES, "start": state}
    alike = {choices: {each: run(choices, seed) for each, run in probes.items()} for choices in set(found.values())}
    return {name: alike[choices] for name, choices in found.items()}


def probe_found(*, seed: int) -> dict[str, Any]:
    """Returns what each probe finds for each implementation of `implementations.FOUND`, see `probe`.

    Args:
        seed: of the images, the offsets and the random sums.
    """
    return probe({name: each.choices for name, each in FOUND.items()}, seed)
