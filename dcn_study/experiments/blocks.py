"""The residual block, layer by layer, as coded and as drawn; residual networks by the statistics of each batch."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcn import deformable_mini_resnet
from dcn_study.experiments.identity import compare_with_identity, dead
from dcn_study.names import LONGER, RESIDUAL
from dcn_study.runs import weights
from dcn_study.runs.catalogue import find_run, seeds_of
from dcn_study.runs.records import Record
from dcn_study.runs.results import result
from dcn_study.runs.splits import splits

__all__ = ["accuracy_by_batch", "batch_statistics", "disturb", "residual"]

FILTERS, SIDE, IMAGES = 16, 28, 8


def residual(
    *, size: float, seed: int, epochs: int | None, train_size: int | None, test_size: int | None
) -> dict[str, Any]:
    """Looks at the residual block, and at the trained residual networks.

    Args:
        size: standard deviation of the disturbance, see `disturb`.
        seed: of the disturbance and of the runs, which are trained if they have no record.
        epochs: of the runs; None: their own.
        train_size: the same.
        test_size: the same.

    Returns:
        "effects": by form and convolution, see `disturb`. "dead": the weights that no gradient reaches in a new
        deformable network, frozen as published. "compared": by deformable run and kind of test images, see
        `identity.compare_with_identity`; both kinds for the published run, plain ones for the others. "by_batch": by
        published run, and by run of more epochs, see `accuracy_by_batch`.

    Raises:
        ConfigurationError: if a parameter breaks its rule.
        RecordError: if the weights of a run are missing or damaged.
    """
    changes = {"seed": seed, "epochs": epochs, "train_size": train_size, "test_size": test_size}
    runs = {run: result(find_run(run, **changes)) for run in (*RESIDUAL, *LONGER)}
    images, _ = splits(runs["mini_resnet"].config).test("plain")
    kinds = {run: ("plain", "scaled")[: 2 if run == "deformable_mini_resnet" else 1] for run in RESIDUAL}
    return {
        "effects": disturb(size, seed),
        "dead": dead(deformable_mini_resnet((*images.shape[1:3], 1), trainable=False), images),
        "compared": {
            run: {kind: compare_with_identity(runs[run], kind) for kind in kinds[run]}
            for run in RESIDUAL
            if "deformable" in run
        },
        "by_batch": {run: accuracy_by_batch(runs[run]) for run in ("mini_resnet", "deformable_mini_resnet", *LONGER)},
    }


def batch_statistics(
    *, run: str, seeds: int | None, epochs: int | None, train_size: int | None, test_size: int | None
) -> dict[str, Any]:
    """Returns "accuracies" of a run on scaled digits, one per seed, see `accuracy_by_batch`.

    Args:
        run: a named run.
        seeds: how many, from 0; None: those of the book.
        epochs: of the run; None: its own.
        train_size: the same.
        test_size: the same.

    Raises:
        ConfigurationError: if a parameter breaks its rule.
        RecordError: if the weights of a run are missing or damaged.
    """
    configurations = seeds_of(run, seeds, epochs=epochs, train_size=train_size, test_size=test_size)
    return {"accuracies": [accuracy_by_batch(result(config), "scaled") for config in configurations]}


def disturb(size: float, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns what happens to the output of a residual block when one of its two kernels is disturbed.

    The block's layers are applied one after the other, outside any model, to normally distributed features.

    Args:
        size: standard deviation of what is added to every weight of the kernel.
        seed: of the weights, the features and the disturbance.

    Returns:
        By form, "as coded" or "as drawn", then by convolution, "first" or "second": "changed", the share of the outputs
        that differ in any bit; "change", (H, W), the absolute change of the first channel for the first features;
        "gradient", the largest absolute value in the gradient of the sum of squared outputs with respect to the
        kernel, or `None` if TensorFlow finds no path from one to the other.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for form in ("as coded", "as drawn"):
        for number, name in enumerate(("first", "second")):
            keras.utils.set_random_seed(seed)
            normalise = [keras.layers.BatchNormalization() for _ in range(2)]
            convolve = [keras.layers.Conv2D(FILTERS, 3, padding="same") for _ in range(2)]
            x = tf.random.normal((IMAGES, SIDE, SIDE, FILTERS))
            before = _block(x, normalise, convolve, form)
            kernel = convolve[number].kernel
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(_block(x, normalise, convolve, form) ** 2)
            gradient = tape.gradient(loss, kernel.value)
            kernel.assign_add(size * tf.random.normal(kernel.shape))
            change = np.abs(_block(x, normalise, convolve, form) - before)
            found.setdefault(form, {})[name] = {
                "changed": float((change > 0).mean()),
                "change": change[0, :, :, 0].tolist(),
                "gradient": None if gradient is None else float(tf.reduce_max(tf.abs(gradient))),
            }
    return found


def _block(x: tf.Tensor, normalise: list, convolve: list, form: str) -> tf.Tensor:
    first = convolve[0](tf.nn.relu(normalise[0](x)))
    second = convolve[1](tf.nn.relu(normalise[1](x if form == "as coded" else first)))
    return x + second


def accuracy_by_batch(record: Record, kind: str = "plain") -> float:
    """Returns the test accuracy of a run if batch normalisation takes mean and variance from each batch.

    So it does in training. In a test it takes the running averages of those of training, as a run's own evaluation.

    Args:
        record: of the run, whose weights are evaluated. Batches have its size, in the order of the test images.
        kind: of test images, "plain" or "scaled".

    Raises:
        RecordError: if the weights are missing or damaged.
    """
    model, size = weights.load_model(record), record.config.batch_size
    images, labels = splits(record.config).test(kind)
    batches = [images[first : first + size] for first in range(0, len(images), size)]
    classify = tf.function(lambda batch: tf.argmax(model(batch, training=True), axis=-1))
    predicted = np.concatenate([classify(batch) for batch in map(tf.constant, batches)])
    return float(np.mean(predicted == labels))
