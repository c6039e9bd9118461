"""Training by configuration: seeded, with a checkpoint per epoch, resumed after the last complete epoch."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pydantic
import tensorflow as tf

from dcn_study.errors import ConfigurationError, DivergedError, RecordError, StudyError
from dcn_study.runs import records, steps, weights
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.confirmation import CODE_SHA256
from dcn_study.runs.files import file_sha256, locked, make_folder, now, replacing
from dcn_study.runs.inputs import Inputs, machine
from dcn_study.runs.networks import build_model, classes, initial_model
from dcn_study.runs.progress import Bar, Progress, Reporting
from dcn_study.runs.records import Epoch, Provenance, Record, Witness
from dcn_study.runs.run import CHECKPOINT, Run
from dcn_study.runs.splits import Splits, splits
from dcn_study.runs.tolerances import compare, violations

__all__ = ["train", "use_threads"]


def use_threads(threads: int) -> None:
    """Sets how many threads TensorFlow uses, within an operation and for concurrent operations.

    Args:
        threads: the number; 0 leaves it to TensorFlow: all processors.

    Raises:
        RuntimeError: if TensorFlow has already computed something in this process.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def train(run: Run, *, force: bool = False, report: Callable[[Progress], None] | None = None) -> Record:
    """Returns the record of a run; trains if there is none, if an interrupted training waits, or if `force`.

    An interrupted run resumes after the last complete epoch, with the result of an uninterrupted run. Seeds Python,
    NumPy and TensorFlow and makes TensorFlow's operations deterministic, for the whole process.

    Args:
        run: what is trained.
        force: whether to train from nothing, although there may be a record or a checkpoint. The record is replaced
            when the new run is finished.
        report: takes the progress; by default it is shown as a bar.

    Returns:
        The record, which is also stored, with the weights next to it.

    Raises:
        ConfigurationError: if the run cannot start: too many images asked for, or no record to start from.
        DataError, RecordError: if the data, the initial weights, the record or the checkpoint are damaged.
        LockedError: if another process trains this run.
        DivergedError: if a loss is no longer finite.
        StudyError: if memory runs out.
    """
    if not force and not run.interrupted and (found := records.matching(run)):
        return found
    data = splits(run.config)
    inputs = records.current_inputs(run.config).model_copy(update={"code": CODE_SHA256})
    make_folder(run.path.parent)  # before hours of training
    shown = Bar() if report is None else contextlib.nullcontext(report)
    with locked(run.lock, f"run {run.name}"), shown as told:
        if not force and not run.interrupted and (found := records.matching(run)):  # trained meanwhile
            return found
        if force:
            shutil.rmtree(run.checkpoint, ignore_errors=True)
        try:
            return _train(run, data, inputs, told)
        except (MemoryError, tf.errors.ResourceExhaustedError) as error:
            raise StudyError(f"memory ran out in run {run.name}; complete epochs are kept") from error


def _train(run: Run, data: Splits, inputs: Inputs, report: Callable[[Progress], None]) -> Record:
    config = run.config
    model = initial_model(data, weights.start_of(config))
    state = _resume(run, data, inputs) or _State(configuration=config.to_dict(), inputs=inputs, started=now())
    if state.history:
        model = keras.models.load_model(_checked(run, run.checkpoint / state.model, state.model_sha256))
    while len(state.history) < config.epochs:
        _train_epoch(run, model, data, state, report)
        _save(run.checkpoint, state, model)
    assert state.witness is not None
    bare = build_model(config, data.image_size)  # holds the weights alone, without those of the optimiser
    copy = keras.models.clone_model(model)  # calls each layer once, as the field needs; a built model may not
    for each in (bare, copy):
        each.set_weights(model.get_weights())
    with _reported(run, config.epochs, report, model):
        evaluations = steps.evaluations(model, data)
    record = Record(
        name=run.name,
        configuration=config.to_dict(),
        history=state.history,
        evaluations=evaluations,
        field_areas=steps.field_areas(copy, data),
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
        path=run.path,
    )
    if config.task != "mnist":
        with replacing(record.predictions_path) as temporary, _reported(run, config.epochs, report, bare):
            np.savez_compressed(temporary, allow_pickle=False, **_predictions(bare, data))
            record.provenance.predictions = file_sha256(temporary)
    with replacing(record.weights_path) as temporary:
        bare.save_weights(temporary)
        record.provenance.weights = file_sha256(temporary)
    records.write(record)
    shutil.rmtree(run.checkpoint)
    return record


def _predictions(model: keras.Model, data: Splits) -> dict[str, np.ndarray]:
    """Returns the class given to each test image, and the labels; of scaled digits too if all of them are scaled."""
    images, labels = data.test("plain")
    found = {"predicted": classes(model, images), "labels": labels.astype(np.uint8)}
    moved, answers = data.test("scaled")
    return found | ({"predicted_scaled": classes(model, moved)} if len(answers) == len(labels) else {})


class _State(pydantic.BaseModel, extra="forbid"):
    """What a checkpoint holds besides the model: see `Record` and `Provenance`.

    Attributes:
        model: name of the model's file.
        model_sha256: its digest.

    Checkpoints from before digests were kept have neither this one nor that of the state itself.
    """

    configuration: dict[str, Any]
    inputs: Inputs
    earlier: list[Inputs] = []
    started: str
    history: list[Epoch] = []
    witness: Witness | None = None
    model: str = ""
    model_sha256: str = ""

    @pydantic.model_validator(mode="after")
    def _complete(self) -> _State:
        epochs = list(range(1, len(self.history) + 1))
        witnessed = self.witness.epochs if self.witness else []
        if [each.epoch for each in self.history] != epochs or len(witnessed) != len(epochs):
            raise ValueError("history and witness must have the same epochs, from the first")
        if self.model != _model_name(self.history):
            raise ValueError(f"model must be {_model_name(self.history)}. Received: {self.model!r}")
        return self


def _model_name(history: Sequence[Epoch]) -> str:
    return f"epoch-{len(history):03}.keras" if history else ""


def _save(folder: Path, state: _State, model: keras.Model) -> None:
    """Writes model and state; until the last step the previous checkpoint remains the valid one."""
    previous, state.model = state.model, _model_name(state.history)
    with replacing(folder / state.model) as temporary:
        model.save(temporary)
        state.model_sha256 = file_sha256(temporary)
    with replacing(folder / CHECKPOINT) as temporary:
        content = state.model_dump(mode="json")
        temporary.write_text(json.dumps({**content, "sha256": records.seal(content)}, indent=1), encoding="utf-8")
    if previous and previous != state.model:
        (folder / previous).unlink(missing_ok=True)


def _checked(run: Run, path: Path, sha256: str) -> Path:
    """Returns the path of a checkpoint's model, which is there and has its digest; without one, it is there.

    Raises:
        RecordError: if it is missing or damaged.
    """
    if not path.is_file():
        raise RecordError(f"{path} is missing. {run.how_to_restart}")
    if sha256 not in ("", file_sha256(path)):
        raise RecordError(f"{path} is damaged: it has another SHA-256 than stated. {run.how_to_restart}")
    return path


def _resume(run: Run, data: Splits, inputs: Inputs) -> _State | None:
    """Returns the state after the last complete epoch of this run, or None.

    Raises:
        RecordError: if the checkpoint is damaged, or was made from other inputs that do not give the same results.
    """
    config, restart = run.config, run.how_to_restart
    path = run.checkpoint / CHECKPOINT
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        sealed = content.pop("sha256", None) if isinstance(content, dict) else None
        state = _State.model_validate(content)
        if sealed not in (None, records.seal(content)):
            raise ValueError("its content has another SHA-256 than it states")
        before = RunConfig(**state.configuration)
    except (ConfigurationError, RecursionError, TypeError, ValueError) as error:
        raise RecordError(f"{path} is damaged: {records.explained(error)}. {restart}") from error
    if before != config:
        return None
    if state.inputs == inputs:
        return state
    changes = "; ".join(state.inputs.changes(inputs))
    if (state.inputs.data, state.inputs.weights) != (inputs.data, inputs.weights):
        raise RecordError(f"{path} was made from other inputs ({changes}). {restart}")
    assert state.witness is not None
    found = violations(compare(steps.replay(data, weights.start_of(config)), state.witness), config)
    if found:
        raise RecordError(
            f"{path} was made from other inputs ({changes}), and a replay with the current ones gives other numbers "
            f"({'; '.join(found)}). {restart}"
        )
    state.earlier.append(state.inputs)
    state.inputs = inputs
    return state


def _train_epoch(run: Run, model: keras.Model, data: Splits, state: _State, report: Callable[[Progress], None]) -> None:
    number = len(state.history)
    try:
        with _reported(run, number + 1, report, model) as callbacks:
            epoch, state.witness = steps.train_epoch(model, data, number, state.witness, callbacks)
    except DivergedError as error:
        raise DivergedError(
            f"run {run.name} diverged in epoch {number + 1}: {error}. Train it at a lower "
            f"learning rate than {run.config.learning_rate:g}"
        ) from error
    state.history.append(epoch)


@contextlib.contextmanager
def _reported(
    run: Run, epoch: int, report: Callable[[Progress], None], model: keras.Model
) -> Iterator[list[keras.callbacks.Callback]]:
    """Has the evaluations of a model reported, and gives the callbacks that report an epoch."""
    reporting = Reporting(run.name, epoch, run.config.epochs, report)
    with reporting.evaluations(model):
        yield [reporting]
