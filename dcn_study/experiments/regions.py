"""Deformable RoI pooling at work: classify the digits in boxes that do not fit well."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dcn.layers import DeformableRoIPooling2D
from dcn.ops import deform_roi_pool
from dcn_study.errors import ConfigurationError
from dcn_study.runs import mnist_scale
from dcn_study.runs.data import load_digits

__all__ = [
    "BINS",
    "EXAMPLES",
    "JITTERS",
    "POOLINGS",
    "SCALES",
    "SMALLEST",
    "Canvases",
    "RegionClassifier",
    "draw_canvases",
    "jittered",
    "regions",
]

SIDE = 60  # of a canvas, in pixels
DIGITS = (2, 4)  # in a canvas, at least and at most
SCALES = (0.4, 1.0)  # of a digit
FRAGMENTS, FRAGMENT = 6, 7  # pieces of other digits in a canvas, and their side in pixels
JITTERS = (0.0, 0.1, 0.2, 0.3)  # by what share of its side an edge of a box is moved at most
POOLINGS = ("average", "deformable")
BINS = 5  # along each axis of a box
BATCH = 32  # canvases in a training step
RATE = 1e-3  # of Adam, at the start
SMALLEST = 0.5  # the smallest difference of interest, in percentage points
EXAMPLES = 3  # canvases of realisation 0 whose bins are kept


@dataclasses.dataclass(frozen=True)
class Canvases:
    """Images with several digits and clutter.

    Attributes:
        images: (N, 60, 60, 1), float32, from 0 to 1.
        boxes: (R, 4) as (y1, x1, y2, x2) in pixels, the ink of each digit.
        indices: (R,), the image of each box, in ascending order.
        labels: (R,), the digit in each box.
    """

    images: np.ndarray
    boxes: np.ndarray
    indices: np.ndarray
    labels: np.ndarray

    def part(self, chosen: np.ndarray) -> Canvases:
        """Returns the canvases with these numbers, in this order."""
        rows = [np.flatnonzero(self.indices == number) for number in chosen]
        counts = [len(each) for each in rows]
        taken = np.concatenate(rows)
        indices = np.repeat(np.arange(len(chosen)), counts)
        return Canvases(self.images[chosen], self.boxes[taken], indices, self.labels[taken])


def regions(*, realisations: int, canvases: int, test_canvases: int, epochs: int) -> dict[str, Any]:
    """Trains a network with average and with deformable RoI pooling, and tests it on boxes that fit worse and worse.

    Both have the same images, boxes, initial weights and order. Training moves the edges of boxes by up to the largest
    of `JITTERS`, by a share that is drawn for each box.

    Args:
        realisations: how many, from 0; the number fixes everything that is random.
        canvases: how many to train on.
        test_canvases: how many to test on, with digits that training does not have.
        epochs: passes over the canvases.

    Returns:
        One value per realisation in each list: "accuracies", by pooling and jitter; "displacements",
        by jitter the mean absolute displacement of a bin, in sides of the box. For the first `EXAMPLES` test images of
        realisation 0, with the largest jitter: "boxes" (R, 4), and "bins" (R, bins, bins, 2), the centres of their bins
        as (y, x).

    Raises:
        ConfigurationError: if a parameter breaks its rule.
    """
    for name, value in (
        ("realisations", realisations),
        ("canvases", canvases),
        ("test_canvases", test_canvases),
        ("epochs", epochs),
    ):
        if not 1 <= value <= 100_000:
            raise ConfigurationError(f"{name} must be from 1 to 100000. Received: {name}={value}")

    accuracies: dict[str, dict[str, list[float]]] = {
        pooling: {str(jitter): [] for jitter in JITTERS} for pooling in POOLINGS
    }
    displacements: dict[str, list[float]] = {str(jitter): [] for jitter in JITTERS}
    examples: dict[str, Any] = {}
    bar = tqdm(total=realisations * len(POOLINGS) * epochs, desc="epochs", unit="epoch")
    for number in range(realisations):
        training, test = draw_canvases(number, canvases, "train"), draw_canvases(number, test_canvases, "test")
        for pooling in POOLINGS:
            keras.utils.set_random_seed(number)
            model = RegionClassifier(deformable=pooling == "deformable")
            _train(model, training, epochs, number, bar)
            for jitter in JITTERS:
                boxes = jittered(test, jitter, (number, 2))
                probabilities, offsets = _apply(model, test, boxes)
                found = float((probabilities.argmax(axis=1) == test.labels).mean())
                accuracies[pooling][str(jitter)].append(found)
                if pooling == "deformable":
                    displacements[str(jitter)].append(float(np.abs(offsets).mean()))
                    if number == 0 and jitter == JITTERS[-1]:
                        few = test.indices < EXAMPLES
                        bins = _centres(boxes[few], offsets[few])
                        examples = {"boxes": boxes[few].tolist(), "bins": bins.tolist()}
    bar.close()
    return {"accuracies": accuracies, "displacements": displacements, **examples}


def draw_canvases(number: int, count: int, part: str) -> Canvases:
    """Returns canvases with digits of different scale that do not touch each other, and fragments of others.

    Args:
        number: of the realisation.
        count: how many.
        part: "train" or "test", of MNIST, from which the digits are.
    """
    digits = load_digits()
    images, labels = (digits.x_train, digits.y_train) if part == "train" else (digits.x_test, digits.y_test)
    random = np.random.default_rng((number, 0 if part == "train" else 1))
    canvases = np.zeros((count, SIDE, SIDE), np.uint8)
    boxes, indices, found = [], [], []
    for index, canvas in enumerate(canvases):
        taken: list[tuple[int, int, int, int]] = []
        wanted = random.integers(DIGITS[0], DIGITS[1] + 1)
        while len(taken) < wanted:
            chosen, scale = random.integers(len(images)), random.uniform(*SCALES)
            digit = _ink(mnist_scale.resample(images[chosen : chosen + 1], scale)[0])
            box = _place(digit.shape, taken, random)
            if box is None:  # no room left
                break
            _draw(canvas, digit, box)
            taken.append(box)
            found.append(labels[chosen])
        for _ in range(FRAGMENTS):
            y, x = random.integers(0, 28 - FRAGMENT, 2)
            fragment = images[random.integers(len(images))][y : y + FRAGMENT, x : x + FRAGMENT]
            top, left = random.integers(0, SIDE - FRAGMENT, 2)
            _draw(canvas, fragment, (top, left, top + FRAGMENT, left + FRAGMENT))
        boxes += taken
        indices += [index] * len(taken)
    return Canvases(
        canvases[..., None].astype(np.float32) / 255,
        np.array(boxes, np.float32),
        np.array(indices, np.int32),
        np.array(found, np.int32),
    )


def _ink(image: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero((image > 64).any(axis=axis)) for axis in (1, 0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else image


def _place(
    size: tuple[int, ...], taken: list[tuple[int, int, int, int]], random: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """Returns a random box of a size that touches none of those taken; None if 50 draws have found none."""
    for _ in range(50):
        y, x = (int(random.integers(0, SIDE - side + 1)) for side in size)
        box = (y, x, y + size[0], x + size[1])
        if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            return box
    return None


def _draw(canvas: np.ndarray, image: np.ndarray, box: tuple[int, int, int, int]) -> None:
    part = canvas[box[0] : box[2], box[1] : box[3]]
    np.maximum(part, image, out=part)


def jittered(canvases: Canvases, jitter: float | np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
    """Returns the boxes (R, 4) with each edge moved by up to `jitter` of the box's side, uniformly.

    Args:
        canvases: whose boxes.
        jitter: for all boxes, or (R,).
        seed: of the random numbers.
    """
    sides = canvases.boxes[:, 2:] - canvases.boxes[:, :2]
    moves = np.random.default_rng(seed).uniform(-1, 1, canvases.boxes.shape) * np.tile(sides, 2)
    return (canvases.boxes + np.reshape(jitter, (-1, 1)) * moves).astype(np.float32)


def parameters() -> dict[str, int]:
    """Returns how many parameters the deformable "pooling" has, and "all" of the network."""
    network, canvases = RegionClassifier(deformable=True), draw_canvases(0, 1, "test")
    network(canvases.images, canvases.boxes, canvases.indices)  # makes its weights
    return {"pooling": network.pooling.count_params(), "all": network.count_params()}


class RegionClassifier(keras.Model):
    """The network (images (B, 60, 60, 1), boxes (R, 4), box indices (R,)) → probabilities (R, 10).

    Two convolutions, RoI pooling and two dense layers.

    Args:
        deformable: whether the bins of the pooling move. Otherwise their offsets stay zero: average RoI pooling.
    """

    def __init__(self, *, deformable: bool) -> None:
        super().__init__()
        self.features = keras.Sequential(
            [
                keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
                keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            ]
        )
        self.pooling = DeformableRoIPooling2D(BINS, spatial_scale=0.5, sampling_ratio=2, trainable=deformable)
        self.classifier = keras.Sequential(
            [
                keras.layers.Flatten(),
                keras.layers.Dense(64, activation="relu"),
                keras.layers.Dense(10, activation="softmax"),
            ]
        )

    def call(self, images: tf.Tensor, boxes: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        return self.classifier(self.pooling(self.features(images), boxes=boxes, box_indices=indices))

    def displacements(self, images: tf.Tensor, boxes: tf.Tensor, indices: tf.Tensor) -> np.ndarray:
        """Returns by how much each bin moves, (R, bins, bins, 2) as (dy, dx) in sides of its box."""
        layer = self.pooling
        pooled = deform_roi_pool(
            self.features(images),
            boxes,
            indices,
            output_size=layer.output_size,
            spatial_scale=layer.spatial_scale,
            sampling_ratio=layer.sampling_ratio,
        )
        offsets = np.reshape(pooled, (len(indices), -1)) @ layer.offset_kernel + layer.offset_bias
        return layer.gamma * np.reshape(offsets, (-1, *layer.output_size, 2))


def _train(model: RegionClassifier, canvases: Canvases, epochs: int, seed: int, bar: tqdm) -> None:
    count = len(canvases.images)
    steps = epochs * math.ceil(count / BATCH)
    model(canvases.images[:1], canvases.boxes[:1], canvases.indices[:1])  # makes its weights
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps))
    optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy()

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, SIDE, SIDE, 1)),
            tf.TensorSpec((None, 4)),
            tf.TensorSpec((None,), tf.int32),
            tf.TensorSpec((None,), tf.int32),
        ]
    )
    def step(images: tf.Tensor, boxes: tf.Tensor, indices: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, boxes, indices))
        weights = model.trainable_variables
        optimizer.apply(tape.gradient(loss, [weight.value for weight in weights]), weights)

    for epoch in range(epochs):
        random = np.random.default_rng((seed, 3, epoch))
        order = random.permutation(count)
        for start in range(0, count, BATCH):
            part = canvases.part(order[start : start + BATCH])
            jitter = random.uniform(0, JITTERS[-1], len(part.boxes))
            boxes = jittered(part, jitter, (seed, 4, epoch, start))
            step(part.images, boxes, part.indices, part.labels)
        bar.update()


def _apply(model: RegionClassifier, canvases: Canvases, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the probabilities (R, 10) and the displacements of the bins (R, bins, bins, 2), in sides of the box."""
    probabilities, displacements = [], []
    for start in range(0, len(canvases.images), BATCH):
        chosen = (canvases.indices >= start) & (canvases.indices < start + BATCH)
        arguments = canvases.images[start : start + BATCH], boxes[chosen], canvases.indices[chosen] - start
        probabilities.append(np.asarray(model(*arguments)))
        displacements.append(model.displacements(*arguments))
    return np.concatenate(probabilities), np.concatenate(displacements)


def _centres(boxes: np.ndarray, displacements: np.ndarray) -> np.ndarray:
    """Returns the centres (R, bins, bins, 2) of moved bins, as (y, x) in pixels."""
    middle = (np.arange(BINS) + 0.5) / BINS
    regular = np.stack(np.meshgrid(middle, middle, indexing="ij"), axis=-1)
    sides = (boxes[:, 2:] - boxes[:, :2])[:, None, None]
    return boxes[:, None, None, :2] + sides * (regular + displacements)
