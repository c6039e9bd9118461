"""How far the accuracy on scaled digits depends on which transformations were drawn, by whom, and about what centre."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from keras.src.legacy.preprocessing.image import ImageDataGenerator
from tqdm import tqdm

from dcn.study import records, training
from dcn.study.config import TEST_IMAGES, ConfigurationError
from dcn.study.data import SHIFT, ZOOM, Transforms, apply_transforms, draw_transforms, load_digits
from dcn.study.published import ACCURACY

__all__ = ["GENERATORS", "sensitivity"]

GENERATORS = {
    "ours": "our draws",
    "keras": "Keras' generator",
    "former_centre": "our draws, former centre",
}


def sensitivity(*, draws: int, images: int, force: bool = False) -> dict[str, Any]:
    """Returns the accuracy of the paper's trained models, seed 0, on several scaled and translated test sets.

    Args:
        draws: how many test sets of each kind.
        images: how many test images, from the first.
        force: whether to measure although there is a record.

    Returns:
        "accuracies": for each of the paper's models and each of `GENERATORS` one accuracy a draw. Further the
        digests of the weights, and where the measurement came from.

    Raises:
        ConfigurationError: if a parameter breaks its rule, or a run has no record.
        RecordError: if the weights of a run are missing or damaged.
    """
    if draws < 1:
        raise ConfigurationError(f"draws must be at least 1. Received: draws={draws}")
    if not 1 <= images <= TEST_IMAGES:
        raise ConfigurationError(f"images must be from 1 to {TEST_IMAGES}. Received: images={images}")
    runs = records.trained(ACCURACY)

    def measure() -> dict[str, Any]:
        models = {model: training.load_model(record) for model, record in runs.items()}
        accuracies: dict[str, dict[str, list[float]]] = {model: {} for model in models}
        bar = tqdm(total=len(GENERATORS) * draws, desc="test sets", unit="set")
        for generator, moved, labels in _test_sets(draws, images):
            for model, network in models.items():
                accuracy = training._evaluate(network, moved, labels)["accuracy"]
                accuracies[model].setdefault(generator, []).append(accuracy)
            bar.update()
        bar.close()
        digests = {record.name: record.provenance["weights_sha256"] for record in runs.values()}
        return {"accuracies": accuracies, "weights_sha256": digests}

    return records.measurement("sensitivity", {"draws": draws, "images": images}, measure, force=force)


def _test_sets(draws: int, count: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields a key of `GENERATORS`, images (N, H, W, 1) in [0, 1] and labels (N,), for every test set."""
    digits = load_digits()
    images = digits.x_test[:count].astype(np.float32) / 255
    labels = digits.y_test[:count]
    for draw in range(draws):
        transforms = draw_transforms(count, draw)
        yield "ours", apply_transforms(images, transforms)[..., None], labels
        yield "former_centre", apply_transforms(images, about_former_centre(transforms))[..., None], labels
        generator = ImageDataGenerator(
            zoom_range=ZOOM, width_shift_range=SHIFT, height_shift_range=SHIFT, fill_mode="nearest"
        )
        flow = generator.flow(images[..., None], labels, batch_size=count, shuffle=False, seed=draw)
        yield "keras", *next(flow)


def about_former_centre(transforms: Transforms) -> Transforms:
    """Returns transformations that zoom about the point that Keras took for the centre of an image until October 2020.

    It lies one pixel below and to the right of the centre: at half the side plus a half, where the middle of the
    pixels 0 to side - 1 is half the side minus a half. Source: keras-team/keras-preprocessing, pull request 314.
    """
    return Transforms(transforms.zoom, transforms.shift + (1 - transforms.zoom))
