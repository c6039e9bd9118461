"""Training by configuration: seeded, with a checkpoint per epoch, resumed after the last complete epoch."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pydantic
import tensorflow as tf

from dcn_study.errors import RecordError
from dcn_study.runs import records
from dcn_study.runs.catalogue import record_name
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.files import file_sha256, locked, now, replacing
from dcn_study.runs.inputs import Inputs, code_sha256, machine
from dcn_study.runs.networks import build_model, classes, evaluate, initial_model, score
from dcn_study.runs.progress import Bar, Progress, Reporting
from dcn_study.runs.records import Epoch, Provenance, Record, Witness
from dcn_study.runs.splits import Splits, splits
from dcn_study.runs.witness import FirstSteps, compare, first_batch, objections, replay

__all__ = ["CODE_SHA256", "train", "use_threads"]

CODE_SHA256 = code_sha256()  # taken now: this process keeps running this code, whatever is edited meanwhile


def use_threads(threads: int) -> None:
    """Sets how many threads TensorFlow uses, within an operation and for concurrent operations.

    Args:
        threads: the number; 0 leaves it to TensorFlow: all processors.

    Raises:
        RuntimeError: if TensorFlow has already computed something in this process.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def train(
    config: RunConfig,
    *,
    book: bool = False,
    force: bool = False,
    progress: bool = True,
    report: Callable[[Progress], None] | None = None,
) -> Record:
    """Returns the record of a run; trains if there is none, if an interrupted training waits, or if `force`.

    An interrupted run resumes after the last complete epoch, with the result of an uninterrupted run. Seeds Python,
    NumPy and TensorFlow and makes TensorFlow's operations deterministic, for the whole process.

    Args:
        config: the run.
        book: whether its record belongs among the book's, see `records.record_path`.
        force: whether to train from nothing, although there may be a record or a checkpoint. The record is replaced
            when the new run is finished.
        progress: whether to show a progress bar.
        report: takes the progress in place of the bar.

    Returns:
        The record, which is also stored, with the weights next to it.

    Raises:
        ConfigurationError: if the run cannot start: too many images asked for, or no record to start from.
        DataError, RecordError: if the data, the initial weights, the record or the checkpoint are damaged; or if the
            run has no record while only records may be read.
        LockedError: if another process trains this run.
    """
    if not force or records.records_only():
        found = records.read(config, book=book)
        kept = found if found is not None and found.config == config else None
        if records.records_only():
            if kept is None:
                raise RecordError(records.missing(config))
            return kept
        if kept is not None and not records.interrupted(config):
            return kept
    data = splits(config)
    inputs = records.current_inputs(config).model_copy(update={"code": CODE_SHA256})
    folder = records.checkpoint_folder(config)
    with locked(folder.with_name(f"{folder.name}.lock"), f"run {record_name(config)}"):
        report = report or (Bar() if progress else None)
        return _train(config, data, inputs, records.record_path(config, book=book), force, report)


def _train(
    config: RunConfig, data: Splits, inputs: Inputs, path: Path, force: bool, report: Callable[[Progress], None] | None
) -> Record:
    folder = records.checkpoint_folder(config)
    if force:
        shutil.rmtree(folder, ignore_errors=True)
    model = initial_model(config, data)
    state = _resume(config, data, inputs) or _State(configuration=config.to_dict(), inputs=inputs, started=now())
    if state.history:
        model = keras.models.load_model(folder / state.model)
    while len(state.history) < config.epochs:
        _train_epoch(config, model, data, state, report)
        _save(folder, state, model)
    assert state.witness is not None
    bare = build_model(config, data.digits.x_train.shape[1:])  # holds the weights alone, without those of the optimiser
    bare.set_weights(model.get_weights())
    record = Record(
        name=record_name(config),
        configuration=config.to_dict(),
        history=state.history,
        evaluations={kind: evaluate(model, data, kind) for kind in data.kinds},
        witness=state.witness,
        provenance=Provenance(
            inputs=inputs,
            earlier=state.earlier,
            machine=machine(tf.config.threading.get_intra_op_parallelism_threads()),
            started=state.started,
            finished=now(),
            seconds=sum(epoch.seconds for epoch in state.history),
            weights="",
        ),
        path=path,
    )
    if config.task == "mnist_scale":
        images, labels = data.test("plain")
        with replacing(record.predictions_path) as temporary:
            np.savez_compressed(temporary, predicted=classes(bare, images), labels=labels.astype(np.uint8))
            record.provenance.predictions = file_sha256(temporary)
    with replacing(record.weights_path) as temporary:
        bare.save_weights(temporary)
        record.provenance.weights = file_sha256(temporary)
    records.write(record)
    shutil.rmtree(folder)
    return record


class _State(pydantic.BaseModel, extra="forbid"):
    """What a checkpoint holds besides the model: see `Record` and `Provenance`; `model` is the name of its file."""

    configuration: dict[str, Any]
    inputs: Inputs
    earlier: list[Inputs] = []
    started: str
    history: list[Epoch] = []
    witness: Witness | None = None
    model: str = ""


def _save(folder: Path, state: _State, model: keras.Model) -> None:
    """Writes model and state; until the last step the previous checkpoint remains the valid one."""
    previous, state.model = state.model, f"epoch-{len(state.history):03}.keras"
    with replacing(folder / state.model) as temporary:
        model.save(temporary)
    with replacing(folder / records.CHECKPOINT) as temporary:
        temporary.write_text(state.model_dump_json(indent=1), encoding="utf-8")
    if previous and previous != state.model:
        (folder / previous).unlink(missing_ok=True)


def _resume(config: RunConfig, data: Splits, inputs: Inputs) -> _State | None:
    """Returns the state after the last complete epoch of this run, or None.

    Raises:
        RecordError: if the checkpoint is damaged, or was made from other inputs that do not give the same results.
    """
    path = records.checkpoint_folder(config) / records.CHECKPOINT
    if not path.is_file():
        return None
    restart = records.how_to_restart(config)
    try:
        state = _State.model_validate(json.loads(path.read_text(encoding="utf-8")))
        before = RunConfig(**{**state.configuration, "epochs": config.epochs})
    except (ValueError, TypeError) as error:
        raise RecordError(f"{path} is damaged: {error}. {restart}") from error
    if before != config or len(state.history) > config.epochs:
        return None
    if state.inputs == inputs:
        return state
    changes = "; ".join(state.inputs.changes(inputs))
    if (state.inputs.data, state.inputs.weights) != (inputs.data, inputs.weights):
        raise RecordError(f"{path} was made from other inputs ({changes}). {restart}")
    assert state.witness is not None
    objected = objections(compare(replay(config, data), state.witness), config.learning_rate)
    if objected:
        raise RecordError(
            f"{path} was made from other inputs ({changes}), and a replay with the current ones gives other numbers "
            f"({'; '.join(objected)}). {restart}"
        )
    state.earlier.append(state.inputs)
    state.inputs = inputs
    return state


def _train_epoch(
    config: RunConfig,
    model: keras.Model,
    data: Splits,
    state: _State,
    report: Callable[[Progress], None] | None,
) -> None:
    epoch = len(state.history)
    started = time.perf_counter()
    images, labels = data.train(epoch)
    callbacks: list[keras.callbacks.Callback] = []
    if state.witness is None:
        first = FirstSteps(config.batch_size, len(images))
        callbacks.append(first)
    if report is not None:
        steps = math.ceil(len(images) / config.batch_size)
        callbacks.append(Reporting(record_name(config), epoch + 1, config.epochs, steps, report))
    fitted = model.fit(images, labels, batch_size=config.batch_size, shuffle=False, verbose=0, callbacks=callbacks)
    if state.witness is None:
        state.witness = first.witness
    state.witness.epochs.append(first_batch(images[: config.batch_size], labels))
    seconds = time.perf_counter() - started
    validation = score(model, *data.validation(config.train_on))
    apart = config.validation_size and config.task == "mnist"
    test = evaluate(model, data, config.train_on) if apart else None
    state.history.append(
        Epoch(
            epoch=epoch + 1,
            loss=fitted.history["loss"][0],
            accuracy=fitted.history["accuracy"][0],
            validation_loss=validation.loss,
            validation_accuracy=validation.accuracy,
            test_loss=test.loss if test else None,
            test_accuracy=test.accuracy if test else None,
            seconds=round(seconds, 3),
        )
    )
