"""The networks of runs: built, initialised for training, loaded from records, evaluated."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcn import models
from dcn_study.errors import RecordError
from dcn_study.runs import arms, records
from dcn_study.runs.configuration import ARMS, RunConfig
from dcn_study.runs.data import load_digits
from dcn_study.runs.files import file_sha256
from dcn_study.runs.records import Evaluation, Record
from dcn_study.runs.splits import Splits

__all__ = ["build_model", "classes", "evaluate", "initial_model", "load_model", "logits", "score"]

EVALUATION_BATCH = 500


def build_model(config: RunConfig, image_size: tuple[int, int] = (28, 28)) -> keras.Model:
    """Returns the model of a run, untrained and not compiled, for images of (height, width)."""
    options: dict[str, Any] = {"chained": config.chained} if "resnet" in config.model else {}
    if config.model in ARMS:
        return getattr(arms, config.model)((*image_size, 1), **options)
    options["trainable"] = config.trainable
    if config.model in ("deformable_cnn", "deformable_mini_resnet"):
        options |= {"corners": config.corners, "pairing": config.pairing}
        if config.offset_stddev:
            # A configuration, from which each layer makes an initializer with a seed of its own.
            start = keras.initializers.RandomNormal(stddev=config.offset_stddev)
            options["offset_initializer"] = keras.initializers.serialize(start)
    return getattr(models, config.model)((*image_size, 1), **options)


def initial_model(config: RunConfig, data: Splits) -> keras.Model:
    """Returns the seeded, compiled model of a run before its first step.

    Seeds Python, NumPy and TensorFlow and makes TensorFlow's operations deterministic, for the whole process.

    Raises:
        ConfigurationError, RecordError: if the run that it starts from has no record, or a damaged one.
    """
    keras.utils.set_random_seed(config.seed_of("weights"))
    tf.config.experimental.enable_op_determinism()
    model = build_model(config, data.digits.x_train.shape[1:])
    initial = records.initial_record(config)
    if initial is not None:
        models.copy_weights_by_name(load_model(initial), model)
    rate: float | keras.optimizers.schedules.LearningRateSchedule = config.learning_rate
    if config.decay == "cosine":
        steps = config.epochs * math.ceil(config.train_size / config.batch_size)
        rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, steps)
    if config.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate)
    else:
        optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


def load_model(record: Record) -> keras.Model:
    """Returns the trained model of a record, from the weights next to it.

    Raises:
        RecordError: if the weights are missing, or not those of the record.
    """
    path = record.weights_path
    if not path.is_file():
        raise RecordError(f"{path} is missing: the weights of run {record.name}")
    expected, found = record.provenance.weights, file_sha256(path)
    if expected != found:
        raise RecordError(f"{path} is not what run {record.name} wrote: expected SHA-256 {expected}, found {found}")
    model = build_model(record.config, load_digits(record.config.data).x_test.shape[1:])
    model.load_weights(path)
    return model


def evaluate(model: keras.Model, data: Splits, kind: str) -> Evaluation:
    """Returns the result of a model on one of the test sets, see `Splits.kinds`."""
    return score(model, *data.test(kind))


def score(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> Evaluation:
    """Returns the result of a model on images (N, H, W, 1) with labels (N,)."""
    probabilities = model.predict(images, batch_size=EVALUATION_BATCH, verbose=0)
    loss = keras.ops.mean(keras.losses.sparse_categorical_crossentropy(labels, probabilities))
    return Evaluation(
        accuracy=float((probabilities.argmax(axis=1) == labels).mean()), loss=float(loss), images=len(labels)
    )


def classes(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns the class that a model gives each image, (N,) uint8, for images (N, H, W, 1)."""
    return model.predict(images, batch_size=EVALUATION_BATCH, verbose=0).argmax(axis=1).astype(np.uint8)


def logits(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns the input of a model's softmax, (N, 10), for images (N, H, W, 1)."""
    inner = keras.Model(model.input, model.get_layer("fc1").output)
    return inner.predict(images, batch_size=EVALUATION_BATCH, verbose=0)
