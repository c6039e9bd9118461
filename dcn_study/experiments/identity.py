"""Whether trained networks deform: their logits with and without their offset layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from dcn import dead_weights
from dcn.layers import ConvOffset2D
from dcn_study.runs import networks, weights
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.records import Record
from dcn_study.runs.results import result
from dcn_study.runs.splits import splits

__all__ = ["compare_with_identity", "dead", "without_offsets"]


def without_offsets(
    *, run: str, seed: int, epochs: int | None, train_size: int | None, test_size: int | None
) -> dict[str, Any]:
    """Compares the logits of a trained network with those of the same network without its offset layers.

    Args:
        run: a run whose model has `ConvOffset2D` layers; it is trained if it has no record.
        seed: of the run.
        epochs: of the run; None: its own.
        train_size: the same.
        test_size: the same.

    Returns:
        "compared": by kind of test images, see `compare_with_identity`. "dead": the weights that no gradient reaches in
        a new network of this kind, "as published" and with "corners repaired".

    Raises:
        ConfigurationError: if a parameter breaks its rule.
        RecordError: if the weights are missing or damaged.
    """
    record = result(find_run(run, seed=seed, epochs=epochs, train_size=train_size, test_size=test_size))
    images, _ = splits(record.config).test("scaled")
    changes: dict[str, dict[str, Any]] = {"as published": {}, "corners repaired": {"corners": "bilinear"}}
    built = {
        name: networks.build_model(dataclasses.replace(record.config, **change), images.shape[1:3])
        for name, change in changes.items()
    }
    return {
        "compared": {kind: compare_with_identity(record, kind) for kind in ("plain", "scaled")},
        "dead": {name: dead(model, images) for name, model in built.items()},
    }


def dead(model: keras.Model, images: np.ndarray) -> list[str]:
    """Returns the weights of a model that no gradient reaches, on the first images."""
    return dead_weights(model, images[:8])


def compare_with_identity(record: Record, kind: str) -> dict[str, Any]:
    """Returns how the logits of a trained network change when its `ConvOffset2D` layers are left out.

    Args:
        record: of a run of a model with these layers.
        kind: "plain" or "scaled" test images.

    Returns:
        "images", "logits" (how many were compared), "different" (how many differ in any bit), "largest_difference",
        "largest_kernel" (absolute value in any offset kernel).
    """
    deformable = weights.load_model(record)
    images, _ = splits(record.config).test(kind)
    regular = record.config.model.removeprefix("deformable_")
    config = dataclasses.replace(
        record.config, model=regular, corners="published", pairing="published", offset_stddev=0.0
    )
    plain = networks.build_model(config, images.shape[1:3])
    named = {layer.name: layer for layer in deformable.layers}
    for layer in plain.layers:
        layer.set_weights(named[layer.name].get_weights())
    first, second = networks.logits(deformable, images), networks.logits(plain, images)
    kernels = [layer.kernel for layer in deformable.layers if isinstance(layer, ConvOffset2D)]
    return {
        "images": len(images),
        "logits": first.size,
        "different": int((first.view(np.int32) != second.view(np.int32)).sum()),
        "largest_difference": float(np.abs(first - second).max()),
        "largest_kernel": max(float(np.abs(kernel).max()) for kernel in kernels),
    }
