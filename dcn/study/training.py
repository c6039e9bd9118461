"""Training by configuration: seeded, with a checkpoint each epoch, going on where it stopped."""

from __future__ import annotations

import json
import math
import shutil
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dcn import models
from dcn.layers import ConvOffset2D
from dcn.study import records
from dcn.study.config import ConfigurationError, RunConfig, record_name, run_config
from dcn.study.data import Splits, splits
from dcn.study.records import Record, RecordError

__all__ = ["build_model", "confirm", "evaluate", "load_model", "train"]

CODE_SHA256 = records.code_sha256()  # of the code that this process runs, whatever is edited meanwhile
WITNESS_STEPS = 20
EVALUATION_BATCH = 500
# Relative, for a replay of the first steps. Another processor sums in another order: float32 rounding of 6e-8 a sum
# grows over 20 steps to some 1e-5, and a changed computation is far off (another seed: 1e-1).
WITNESS_TOLERANCE = 1e-3
# Absolute, for the accuracy of stored weights: 3 of 10,000 images may lie on the edge between two classes.
ACCURACY_TOLERANCE = 3e-4


def train(config: RunConfig, *, force: bool = False, progress: bool = True) -> Record:
    """Returns the record of a run; trains only if there is none, or if forced to.

    A run that was interrupted goes on after its last whole epoch and ends as if it had not been. Seeds Python,
    NumPy and TensorFlow and makes TensorFlow's operations deterministic, for the whole process.

    Args:
        config: the run.
        force: whether to train although there is a record. It is replaced when the new run is finished.
        progress: whether to show a progress bar.

    Returns:
        The record, which also lies in `records.record_path(config)`, with the weights beside it.

    Raises:
        ConfigurationError: if the run cannot start: too many images asked for, or no record to start from.
        DataError, RecordError: if the data, the initial weights or the checkpoint are damaged.
    """
    found = records.read(config)
    if found is not None and found.config == config and not force:
        return found
    data = splits(config)
    model = _initial_model(config, data)
    state = _resume(config, data) or _State(config)
    if state.epoch:
        model = keras.models.load_model(state.folder / state.weights)
    while state.epoch < config.epochs:
        _train_epoch(model, data, state, progress)
        state.save(model)
    record = Record(
        name=record_name(config),
        configuration=config.to_dict(),
        history=state.history,
        evaluations={kind: evaluate(model, data, kind) for kind in ("plain", "scaled")},
        witness=state.witness,
        provenance={
            "data_sha256": data.digits.sha256,
            "code_sha256": CODE_SHA256,
            "earlier_code_sha256": state.earlier_code,
            **_initial_provenance(config),
            **records.environment(),
            "started": state.started,
            "finished": records.now(),
            "seconds": sum(epoch["seconds"] for epoch in state.history),
        },
    )
    weights = records.weights_path(config)
    with records.replacing(weights) as temporary:
        _without_optimizer(model, config, data).save_weights(temporary)
        record.provenance["weights_sha256"] = records.file_sha256(temporary)
    records.write(record)
    shutil.rmtree(state.folder)
    return record


def confirm(record: Record) -> list[str]:
    """Replays the first steps of a run and evaluates its stored weights again, with the code of today.

    If both give what the record holds, a confirmation is added to it and the record is written.

    Returns:
        The differences found, in words; none if the record is confirmed.

    Raises:
        DataError, RecordError: if the data or the weights are damaged.
    """
    config = record.config
    data = splits(config)
    differences = []
    if data.digits.sha256 != record.provenance["data_sha256"]:
        differences.append(f"data: SHA-256 {data.digits.sha256}, recorded {record.provenance['data_sha256']}")
    replayed = _replay(config, data)
    largest = _largest_difference(replayed, record.witness)
    if not largest <= WITNESS_TOLERANCE:
        differences.append(
            f"first {len(record.witness)} losses: differ by {largest:.1e}, tolerance {WITNESS_TOLERANCE:.0e}"
        )
    model = load_model(record)
    for kind, stored in record.evaluations.items():
        accuracy = evaluate(model, data, kind)["accuracy"]
        if not abs(accuracy - stored["accuracy"]) <= ACCURACY_TOLERANCE:
            differences.append(f"{kind} accuracy: {accuracy:.4f}, recorded {stored['accuracy']:.4f}")
    if not differences:
        today = {"code_sha256": CODE_SHA256, "date": records.now(), **records.environment()}
        record.confirmations.append({**today, "largest_witness_difference": largest})
        records.write(record)
    return differences


def build_model(config: RunConfig, image_size: tuple[int, int] = (28, 28)) -> keras.Model:
    """Returns the model of a run, untrained and not compiled, for images of (height, width)."""
    chained = {"chained": True} if config.chained else {}
    model = getattr(models, config.model)((*image_size, 1), trainable=config.trainable, **chained)
    for layer in model.layers:
        if isinstance(layer, ConvOffset2D):
            layer.corners, layer.pairing = config.corners, config.pairing
    return model


def load_model(record: Record) -> keras.Model:
    """Returns the trained model of a record, from the weights beside it.

    Raises:
        RecordError: if the weights are missing, or not those of the record.
    """
    path = records.weights_path(record.config)
    if not path.is_file():
        raise RecordError(f"{path} is missing: the weights of run {record.name}")
    expected, found = record.provenance["weights_sha256"], records.file_sha256(path)
    if expected != found:
        raise RecordError(f"{path} is not what run {record.name} wrote: expected SHA-256 {expected}, found {found}")
    model = build_model(record.config, splits(record.config).digits.x_test.shape[1:])
    model.load_weights(path)
    return model


def evaluate(model: keras.Model, data: Splits, kind: str) -> dict[str, float]:
    """Returns accuracy, loss and number of images of a model on the "plain" or the "scaled" test images."""
    return _evaluate(model, *data.test(kind))


def _evaluate(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    probabilities = model.predict(images, batch_size=EVALUATION_BATCH, verbose=0)
    loss = keras.ops.mean(keras.losses.sparse_categorical_crossentropy(labels, probabilities))
    return {
        "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
        "loss": float(loss),
        "images": len(labels),
    }


class _State:
    """What is needed, beside the model, to go on after an epoch."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.folder = records.project_root() / "checkpoints" / record_name(config)
        self.weights = ""
        self.history: list[dict[str, float]] = []
        self.witness: list[float] = []
        self.started = records.now()
        self.earlier_code: list[str] = []  # that trained the first epochs, confirmed by a replay when going on

    @property
    def epoch(self) -> int:
        return len(self.history)

    def save(self, model: keras.Model) -> None:
        """Writes model and state; until the last step the former checkpoint remains the valid one."""
        old, self.weights = self.weights, f"epoch-{self.epoch:03}.keras"
        with records.replacing(self.folder / self.weights) as temporary:
            model.save(temporary)
        content = {
            "configuration": self.config.to_dict(),
            "code_sha256": CODE_SHA256,
            **{name: getattr(self, name) for name in ("weights", "history", "witness", "started", "earlier_code")},
        }
        with records.replacing(self.folder / "state.json") as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")
        if old and old != self.weights:
            (self.folder / old).unlink(missing_ok=True)


def _resume(config: RunConfig, data: Splits) -> _State | None:
    """Returns the state after the last whole epoch of this run, if there is one that this code can go on from."""
    state = _State(config)
    path = state.folder / "state.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"{path} is damaged; remove it to train from the start: {error}") from error
    earlier = {**content.pop("configuration"), "epochs": config.epochs}
    if RunConfig(**earlier) != config or len(content["history"]) > config.epochs:
        return None
    earlier_code = content.pop("code_sha256")
    if earlier_code != CODE_SHA256:
        largest = _largest_difference(_replay(config, data), content["witness"])
        if not largest <= WITNESS_TOLERANCE:
            raise ConfigurationError(
                f"{path} was written by other code, and today's gives other losses (by {largest:.1e}). Remove "
                f"the folder {path.parent} to train from the start"
            )
    for name, value in content.items():
        setattr(state, name, value)
    if earlier_code != CODE_SHA256:
        state.earlier_code.append(earlier_code)
    return state


def _initial_model(config: RunConfig, data: Splits) -> keras.Model:
    """Returns the seeded, compiled model before its first step."""
    keras.utils.set_random_seed(config.seed)
    tf.config.experimental.enable_op_determinism()
    model = build_model(config, data.digits.x_train.shape[1:])
    if config.initial_run:
        models.copy_weights_by_name(load_model(_initial_record(config)), model)
    if config.optimizer == "adam":
        optimizer = keras.optimizers.Adam(config.learning_rate)
    else:
        optimizer = keras.optimizers.SGD(config.learning_rate, momentum=0.9, nesterov=True)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


def _initial_record(config: RunConfig) -> Record:
    initial = run_config(config.initial_run, seed=config.seed, data=config.data)
    record = records.read(initial)
    if record is None:
        raise ConfigurationError(
            f"initial_run must have been trained with the same seed and data, and {records.record_path(initial)} "
            f"is missing. Received: initial_run={config.initial_run!r}, seed={config.seed}"
        )
    return record


def _initial_provenance(config: RunConfig) -> dict[str, str]:
    if not config.initial_run:
        return {}
    return {"initial_weights_sha256": _initial_record(config).provenance["weights_sha256"]}


def _train_epoch(model: keras.Model, data: Splits, state: _State, progress: bool) -> None:
    config, epoch = state.config, state.epoch
    started = time.perf_counter()
    images, labels = data.train(epoch)
    with _Progress(config, epoch, progress) as bar:
        fitted = model.fit(images, labels, batch_size=config.batch_size, shuffle=False, verbose=0, callbacks=[bar])
    if epoch == 0:
        state.witness = bar.losses
    seconds = time.perf_counter() - started
    validation = _evaluate(model, *data.validation(config.train_on))
    test = evaluate(model, data, config.train_on) if config.validation_size else {}
    state.history.append(
        {
            "epoch": epoch + 1,
            "loss": fitted.history["loss"][0],
            "accuracy": fitted.history["accuracy"][0],
            "validation_loss": validation["loss"],
            "validation_accuracy": validation["accuracy"],
            **{f"test_{name}": test[name] for name in ("loss", "accuracy") if test},
            "seconds": round(seconds, 3),
        }
    )


def _replay(config: RunConfig, data: Splits) -> list[float]:
    """Returns the losses of the first steps, trained anew."""
    model = _initial_model(config, data)
    images, labels = data.train(0)
    first = WITNESS_STEPS * config.batch_size
    with _Progress(config, 0, False) as bar:
        model.fit(
            images[:first],
            labels[:first],
            batch_size=config.batch_size,
            shuffle=False,
            verbose=0,
            callbacks=[bar],
        )
    return bar.losses


def _largest_difference(losses: list[float], recorded: list[float]) -> float:
    """Returns the largest relative difference, infinite where the lengths differ."""
    if len(losses) != len(recorded):
        return math.inf
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(losses, recorded, strict=True))


def _without_optimizer(model: keras.Model, config: RunConfig, data: Splits) -> keras.Model:
    """Returns a copy that holds the weights alone, as they are stored."""
    bare = build_model(config, data.digits.x_train.shape[1:])
    bare.set_weights(model.get_weights())
    return bare


class _Progress(keras.callbacks.Callback):
    """Shows the progress of an epoch and keeps the running mean of the loss over the first steps."""

    def __init__(self, config: RunConfig, epoch: int, visible: bool) -> None:
        super().__init__()
        self.losses: list[float] = []
        steps = math.ceil(config.train_size / config.batch_size)
        name = f"{record_name(config)} {epoch + 1}/{config.epochs}"
        self.bar = tqdm(total=steps, desc=name, unit="step", disable=not visible, mininterval=1.0)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.bar.close()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        if batch < WITNESS_STEPS:
            self.losses.append(float(logs["loss"]))
        self.bar.set_postfix(loss=f"{logs['loss']:.4f}", accuracy=f"{logs['accuracy']:.4f}", refresh=False)
        self.bar.update()
