"""What the offsets of trained networks do: accuracy without them, and receptive fields by the scale of a digit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dcn.layers import DeformableConv2D
from dcn_study.errors import ConfigurationError
from dcn_study.experiments import receptive_field
from dcn_study.names import SHOWN_LAYERS
from dcn_study.runs import effective_field, mnist_scale, networks, records, weights
from dcn_study.runs.catalogue import DEFORMABLE_ARM, EVALUATED_ARMS, REALISATIONS, find_run
from dcn_study.runs.splits import RealisationSplits, splits

__all__ = ["SCALES", "SHARES", "expansion", "mechanism", "with_offsets"]

SCALES = (0.4, 0.6, 0.8, 1.0)  # of the digits whose receptive fields are measured
SHARES = (0.2, 0.5, 0.99)  # of all contributions to an output
BATCH = 500  # images whose offsets are computed at once

Change = Callable[[str, tf.Tensor], tf.Tensor]  # the name of a layer and its offsets → other offsets


def mechanism(*, realisations: int, images: int, digits: int, occluded: int) -> dict[str, Any]:
    """Measures what the offsets of the study's trained networks do.

    Args:
        realisations: how many, from the first.
        images: how many test images are classified with changed offsets, from the first.
        digits: how many test images show receptive fields, from the first; each is scaled by each of `SCALES`.
        occluded: how many of these are also occluded, 0 for none.

    Returns:
        One value per realisation in each list. "accuracies": by what the offsets of the deformable
        network are replaced with. "expansions": by layer and scale, see `expansion`; "offsets": the same of the mean
        absolute offset, in pixels of the layer's input. "areas": by run, layer, way ("gradient"; for the last layer
        also "occlusion"), share and scale, the number of pixels that hold this share of all contributions.

    Raises:
        ConfigurationError: if a parameter breaks its rule, or a run has no record.
        RecordError: if the weights of a run are missing or damaged.
    """
    most = find_run(DEFORMABLE_ARM).config.test_size
    limits = {"realisations": (realisations, REALISATIONS), "images": (images, most), "digits": (digits, most)}
    for name, (value, highest) in limits.items():
        if not 1 <= value <= highest:
            raise ConfigurationError(f"{name} must be from 1 to {highest}. Received: {name}={value}")
    if not 0 <= occluded <= digits:
        raise ConfigurationError(f"occluded must be from 0 to {digits}. Received: occluded={occluded}")
    names = [{run: find_run(run, seed=number).name for run in EVALUATED_ARMS} for number in range(realisations)]
    recorded = records.trained(name for by_run in names for name in by_run.values())

    found: dict[str, Any] = {"accuracies": {}, "expansions": {}, "offsets": {}, "areas": {}}
    bar = tqdm(total=realisations * (1 + len(SCALES)), desc="networks and scales")
    for by_run in names:
        models = {run: weights.load_model(recorded[name]) for run, name in by_run.items()}
        data = splits(recorded[by_run[DEFORMABLE_ARM]].config)
        assert isinstance(data, RealisationSplits)
        plain, labels = data.test("plain")
        for name, change in _replacements(models[DEFORMABLE_ARM], plain[:images]).items():
            changed = with_offsets(models[DEFORMABLE_ARM], change)
            accuracy = networks.score(changed, plain[:images], labels[:images]).accuracy
            _add(found["accuracies"], name, accuracy)
        bar.update()
        for scale in SCALES:
            scaled = mnist_scale.resample(data.originals[:digits], scale)[..., None].astype(np.float32) / 255
            for layer, (expanded, size) in _moved(models[DEFORMABLE_ARM], scaled).items():
                _add(found["expansions"], layer, str(scale), expanded)
                _add(found["offsets"], layer, str(scale), size)
            for run, model in models.items():
                for layer, way, field in _fields(model, scaled, occluded):
                    for share in SHARES:
                        area = effective_field.area(field, share)
                        _add(found["areas"], run, layer, way, str(share), str(scale), area)
            bar.update()
    bar.close()
    return found


def _add(found: dict[str, Any], *path: Any) -> None:
    """Appends the last argument to the list at a path through dictionaries, which are made as needed."""
    *keys, last, value = path
    for key in keys:
        found = found.setdefault(key, {})
    found.setdefault(last, []).append(value)


def _fields(model: keras.Model, images: np.ndarray, occluded: int) -> list[tuple[str, str, np.ndarray]]:
    found = [(layer, "gradient", effective_field.gradient_field(model, images, layer)) for layer in SHOWN_LAYERS]
    if occluded:
        found.append(
            (SHOWN_LAYERS[-1], "occlusion", receptive_field.occlusion_field(model, images[:occluded], SHOWN_LAYERS[-1]))
        )
    return found


def _replacements(model: keras.Model, images: np.ndarray) -> dict[str, Change]:
    """Returns what offsets are replaced with, by name; means are those of a model over images."""
    places = {layer: offsets.mean(axis=0) for layer, offsets in _offsets(model, images).items()}
    return {
        "as learned": lambda _, offsets: offsets,
        "of another image": lambda _, offsets: tf.roll(offsets, 1, axis=0),
        "mean over images, by place": lambda layer, offsets: tf.zeros_like(offsets) + places[layer],
        "mean over images and places": lambda layer, offsets: tf.zeros_like(offsets) + places[layer].mean(axis=(0, 1)),
        "zero": lambda _, offsets: tf.zeros_like(offsets),
    }


def with_offsets(model: keras.Model, change: Change) -> keras.Model:
    """Returns a copy of a model, with its weights, whose `DeformableConv2D` layers use changed offsets.

    Args:
        model: the model.
        change: takes the name of a layer and its offsets (B, Ho, Wo, 2·K), and returns those that it uses.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, DeformableConv2D):
            return _WithOffsets(change, **layer.get_config())
        return layer.__class__.from_config(layer.get_config())

    changed = keras.models.clone_model(model, clone_function=clone)
    changed.set_weights(model.get_weights())
    return changed


class _WithOffsets(DeformableConv2D):
    def __init__(self, change: Change, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.change = change

    def offsets_and_mask(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        offsets, mask = super().offsets_and_mask(inputs)
        return self.change(self.name, offsets), mask


def _offsets(model: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the offsets (B, Ho, Wo, 2·K) that a model's deformable layers predict for images, by layer."""
    layers = [layer for layer in model.layers if isinstance(layer, DeformableConv2D)]
    inner = keras.Model(model.input, [layer.input for layer in layers])
    found: dict[str, list[np.ndarray]] = {layer.name: [] for layer in layers}
    for start in range(0, len(images), BATCH):
        features = inner(images[start : start + BATCH])
        for layer, each in zip(layers, features, strict=True):
            found[layer.name].append(np.asarray(layer.offsets_and_mask(each)[0]))
    return {layer: np.concatenate(parts) for layer, parts in found.items()}


def _moved(model: keras.Model, images: np.ndarray) -> dict[str, tuple[float, float]]:
    """Returns the mean expansion and the mean absolute offset on the digits' ink, by layer."""
    found = {}
    for layer, offsets in _offsets(model, images).items():
        ink = np.asarray(tf.image.resize(images, offsets.shape[1:3], method="area"))[..., 0]
        kernel = model.get_layer(layer).kernel_size
        found[layer] = (
            float(np.average(expansion(offsets, kernel), weights=ink)),
            float(np.average(np.abs(offsets).mean(axis=3), weights=ink)),
        )
    return found


def expansion(offsets: np.ndarray, kernel_size: tuple[int, int]) -> np.ndarray:
    """Returns by what factor offsets enlarge the grid of a kernel's points: 1 leaves it as it is, 2 doubles it.

    It is the factor of the least-squares fit of an enlarged regular grid to the moved points.

    Args:
        offsets: (..., 2·K), a pair (dy, dx) for each point of the kernel, row by row.
        kernel_size: (height, width) of the kernel, K points.

    Returns:
        (...).
    """
    taps = np.stack(np.meshgrid(*(np.arange(size) - (size - 1) / 2 for size in kernel_size), indexing="ij"), axis=-1)
    return 1 + offsets @ taps.ravel() / (taps**2).sum()
