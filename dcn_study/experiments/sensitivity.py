"""How the accuracy on scaled digits depends on the sampled transformations, the generator and the centre of zoom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dcn_study.errors import ConfigurationError
from dcn_study.names import GENERATORS
from dcn_study.runs import networks, records, weights
from dcn_study.runs.configuration import TEST_IMAGES
from dcn_study.runs.data import load_digits
from dcn_study.runs.published import ACCURACY
from dcn_study.runs.transforms import SHIFT, ZOOM, about_former_centre, apply_transforms, draw_transforms

__all__ = ["sensitivity", "test_sets"]


def sensitivity(*, draws: int, images: int) -> dict[str, Any]:
    """Measures the accuracy of the paper's trained models, seed 0, on several scaled and translated test sets.

    Args:
        draws: how many test sets of each kind.
        images: how many test images, from the first.

    Returns:
        "accuracies": for each of the paper's models and each of `names.GENERATORS` one
        accuracy per test set.

    Raises:
        ConfigurationError: if a parameter breaks its rule, or a run has no record.
        RecordError: if the weights of a run are missing or damaged.
    """
    if draws < 1:
        raise ConfigurationError(f"draws must be at least 1. Received: draws={draws}")
    if not 1 <= images <= TEST_IMAGES:
        raise ConfigurationError(f"images must be from 1 to {TEST_IMAGES}. Received: images={images}")
    runs = records.trained(ACCURACY)

    models = {model: weights.load_model(record) for model, record in runs.items()}
    accuracies: dict[str, dict[str, list[float]]] = {model: {} for model in models}
    bar = tqdm(total=len(GENERATORS) * draws, desc="test sets", unit="set")
    for generator, moved, labels in test_sets(draws, images):
        for model, network in models.items():
            accuracy = networks.score(network, moved, labels).accuracy
            accuracies[model].setdefault(generator, []).append(accuracy)
        bar.update()
    bar.close()
    return {"accuracies": accuracies}


def test_sets(draws: int, count: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields a key of `GENERATORS`, images (N, H, W, 1) in [0, 1] and labels (N,), for every test set."""
    digits = load_digits()
    images = digits.x_test[:count].astype(np.float32) / 255
    labels = digits.y_test[:count]
    for draw in range(draws):
        transforms = draw_transforms(count, draw)
        yield "ours", apply_transforms(images, transforms)[..., None], labels
        yield "former_centre", apply_transforms(images, about_former_centre(transforms))[..., None], labels
        generator = tf.keras.preprocessing.image.ImageDataGenerator(
            zoom_range=ZOOM, width_shift_range=SHIFT, height_shift_range=SHIFT, fill_mode="nearest"
        )
        flow = generator.flow(images[..., None], labels, batch_size=count, shuffle=False, seed=draw)
        yield "keras", *next(flow)
