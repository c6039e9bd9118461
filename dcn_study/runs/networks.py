"""The networks of runs: built, initialised for training, evaluated."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcn import models
from dcn_study.errors import DivergedError
from dcn_study.runs import arms
from dcn_study.runs.configuration import ARMS, Resolved, RunConfig
from dcn_study.runs.records import Evaluation
from dcn_study.runs.splits import Splits

__all__ = ["build_model", "classes", "evaluate", "initial_model", "logits", "re_estimated", "score"]

EVALUATION_BATCH = 500


def build_model(config: RunConfig, image_size: tuple[int, int] = (28, 28)) -> keras.Model:
    """Returns the model of a run, untrained and not compiled, for images of (height, width)."""
    return _build(config.resolved(), image_size)


def _build(run: Resolved, image_size: tuple[int, int]) -> keras.Model:
    options: dict[str, Any] = {"chained": run.chained} if "resnet" in run.model else {}
    if run.model in ARMS:
        return getattr(arms, run.model)((*image_size, 1), **options)
    options["trainable"] = run.trainable
    if run.model in ("deformable_cnn", "deformable_mini_resnet"):
        options |= {"corners": run.corners, "pairing": run.pairing}
        if run.offset_stddev:
            # A configuration, from which each layer makes an initializer with a seed of its own.
            start = keras.initializers.RandomNormal(stddev=run.offset_stddev)
            options["offset_initializer"] = keras.initializers.serialize(start)
    return getattr(models, run.model)((*image_size, 1), **options)


def initial_model(data: Splits, start: keras.Model | None) -> keras.Model:
    """Returns the seeded, compiled model of a run before its first step.

    Seeds Python, NumPy and TensorFlow and makes TensorFlow's operations deterministic, for the whole process.

    Args:
        data: of the run.
        start: the trained model whose weights it starts from, by layer name; None for random ones.
    """
    run = data.run
    keras.utils.set_random_seed(run.weights_seed)
    tf.config.experimental.enable_op_determinism()
    model = _build(run, data.image_size)
    if start is not None:
        models.copy_weights_by_name(start, model)
    rate: float | keras.optimizers.schedules.LearningRateSchedule = run.learning_rate
    if run.decay == "cosine":
        steps = run.epochs * math.ceil(run.train_size / run.batch_size)
        rate = keras.optimizers.schedules.CosineDecay(run.learning_rate, steps)
    if run.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate)
    else:
        optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


def re_estimated(model: keras.Model, images: np.ndarray, batch_size: int) -> keras.Model:
    """Returns a copy of a model whose batch normalisation has the mean statistics of all whole batches of images.

    The running averages that training leaves weigh the last batches most.

    Args:
        model: the model.
        images: (N, H, W, 1), at least one batch.
        batch_size: images in a batch.

    Source: Y. Wu and J. Johnson, 'Rethinking "Batch" in BatchNorm', 2021, arXiv:2105.07576, section 3.
    """
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    layers = [layer for layer in copy.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for number in range(max(1, len(images) // batch_size)):
        for layer in layers:
            layer.momentum = number / (number + 1)
        copy(images[number * batch_size : (number + 1) * batch_size], training=True)
    return copy


def evaluate(model: keras.Model, data: Splits, kind: str) -> Evaluation:
    """Returns the result of a model on one of the test sets, see `Splits.kinds`."""
    return score(model, *data.test(kind))


def score(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> Evaluation:
    """Returns the result of a model on images (N, H, W, 1) with labels (N,).

    Raises:
        DivergedError: if the loss is not finite.
    """
    probabilities = model.predict(images, batch_size=EVALUATION_BATCH, verbose=0)
    loss = float(keras.ops.mean(keras.losses.sparse_categorical_crossentropy(labels, probabilities)))
    if not math.isfinite(loss):
        raise DivergedError(f"the loss on {len(labels)} images is {loss}")
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    return Evaluation(accuracy=accuracy, loss=loss, images=len(labels))


def classes(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns the class that a model gives each image, (N,) uint8, for images (N, H, W, 1)."""
    return model.predict(images, batch_size=EVALUATION_BATCH, verbose=0).argmax(axis=1).astype(np.uint8)


def logits(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns the input of a model's softmax, (N, 10), for images (N, H, W, 1)."""
    inner = keras.Model(model.input, model.get_layer("fc1").output)
    return inner.predict(images, batch_size=EVALUATION_BATCH, verbose=0)
