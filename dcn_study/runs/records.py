"""Records of runs and measurements: form, location, and whether they still hold.

A record holds if everything that it depends on is what it was, or if the current code and libraries have been shown to
give the same results. See `standing`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic

from dcn_study.errors import ConfigurationError, DataError, RecordError
from dcn_study.runs.catalogue import (
    MEASUREMENTS,
    REMEASURE,
    book_runs,
    in_book,
    is_named,
    keeps_weights,
    record_name,
    run_config,
    run_named,
    study_runs,
)
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.data import data_sha256
from dcn_study.runs.files import file_sha256, now, project_root, replacing
from dcn_study.runs.inputs import MEASUREMENT_CODE, RUN_CODE, Inputs, Machine, code_sha256, machine, versions

__all__ = [
    "Confirmation",
    "Epoch",
    "Evaluation",
    "FirstBatch",
    "Measurement",
    "Provenance",
    "Record",
    "Standing",
    "Witness",
    "checkpoint_folder",
    "current_inputs",
    "existing",
    "how_to_restart",
    "initial_record",
    "inspect",
    "inspect_measurement",
    "interrupted",
    "measurement",
    "measurement_path",
    "measurement_standing",
    "missing",
    "parse",
    "read",
    "read_measurement",
    "record_path",
    "recorded",
    "records_only",
    "shown",
    "standing",
    "trained",
    "write",
]

CHECKPOINT = "state.json"  # the file of a checkpoint that is written last
RECORDS_ONLY = "DCN_RECORDS_ONLY"  # environment variable: set while a book is built, so that nothing trains or measures

Number = Annotated[float, pydantic.Field(strict=False)]  # a whole number is a number too


class _Part(pydantic.BaseModel, extra="forbid", strict=True):
    """Base class of the parts of a record: unknown or missing fields are errors, types are not converted."""


class Epoch(_Part):
    """One epoch: its number from 1, training and validation results, those on the test images if others validate."""

    epoch: int
    loss: Number
    accuracy: Number
    validation_loss: Number
    validation_accuracy: Number
    test_loss: Number | None = None
    test_accuracy: Number | None = None
    seconds: Number


class Evaluation(_Part):
    """Result of a trained network on one kind of test images."""

    accuracy: Number
    loss: Number
    images: int


class FirstBatch(_Part):
    """Fingerprint of the images of an epoch.

    Attributes:
        labels: SHA-256 of all labels in the epoch's order.
        pixels: a weighted sum of all pixels of the first batch. A digest of the pixels would not do: processors round
            the last bit of an interpolation differently.
    """

    labels: str
    pixels: Number


class Witness(_Part):
    """Results of a run's first steps, to be compared with a replay.

    Attributes:
        losses: the training loss of each of the first 20 steps.
        norms: Euclidean norm of every weight after these steps, moving statistics included.
        slots: the same of the optimiser's variables, in their order.
        epochs: one entry per epoch of the run.
    """

    losses: list[Number]
    norms: dict[str, Number]
    slots: list[Number]
    epochs: list[FirstBatch]


class Provenance(_Part):
    """Origin of a run.

    Attributes:
        inputs: what it depended on.
        earlier: the inputs of its first epochs, if it was interrupted and resumed with others that gave the same
            witness.
        machine: where it was trained.
        started, finished: in UTC.
        seconds: the sum over all epochs.
        weights: digest of the trained weights, which are stored next to the record, or were.
        predictions: digest of the stored classes that the run gives each test image; empty where none are stored.
    """

    inputs: Inputs
    earlier: list[Inputs] = []
    machine: Machine
    started: str
    finished: str
    seconds: Number
    weights: str
    predictions: str = ""


class Confirmation(_Part):
    """A successful replay.

    Attributes:
        inputs: what the replay depended on.
        machine: where it ran.
        date: in UTC.
        differences: the largest difference of each kind of number that was compared.
    """

    inputs: Inputs
    machine: Machine
    date: str
    differences: dict[str, Number]


class Record(_Part):
    """One finished run.

    Attributes:
        name: as `catalogue.record_name`.
        configuration: all fields of the `RunConfig`.
        history: one entry per epoch.
        evaluations: "plain" and "scaled" test images.
        confirmations: successful replays, oldest first.
        path: where the record is; not part of its content.
    """

    format: Literal[2] = 2
    name: str
    configuration: dict[str, Any]
    history: list[Epoch]
    evaluations: dict[str, Evaluation]
    witness: Witness
    provenance: Provenance
    confirmations: list[Confirmation] = []
    path: Path = pydantic.Field(default=Path(), exclude=True)

    @pydantic.field_validator("configuration")
    @classmethod
    def _valid(cls, configuration: dict[str, Any]) -> dict[str, Any]:
        try:
            return RunConfig(**configuration).to_dict()  # with today's defaults for fields that it does not have
        except (ConfigurationError, TypeError) as error:
            raise ValueError(str(error)) from error

    @property
    def config(self) -> RunConfig:
        return RunConfig(**self.configuration)

    @property
    def weights_path(self) -> Path:
        return self.path.with_suffix(".weights.h5")

    @property
    def predictions_path(self) -> Path:
        return self.path.with_suffix(".predictions.npz")


class Measurement(_Part):
    """One measurement.

    Attributes:
        name: a key of `catalogue.MEASUREMENTS`.
        parameters: all of its parameters.
        results: what was measured.
        inputs: what it depended on.
        machine: where it was taken.
        started: in UTC.
        seconds: how long it took; None in records from before this was kept.
        path: where the record is; not part of its content.
    """

    format: Literal[2] = 2
    name: str
    parameters: dict[str, Any]
    results: dict[str, Any]
    inputs: Inputs
    machine: Machine
    started: str
    seconds: Number | None = None
    path: Path = pydantic.Field(default=Path(), exclude=True)


@dataclasses.dataclass(frozen=True)
class Standing:
    """Whether a record holds: "fresh", "confirmed", "stale", "missing" or "damaged"; and what is wrong with it."""

    state: str
    changes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return self.state in ("fresh", "confirmed")

    def __str__(self) -> str:
        return f"{self.state}: {'; '.join(self.changes)}" if self.changes else self.state


def record_path(config: RunConfig, *, book: bool = False) -> Path:
    """Returns where a run is written.

    Args:
        config: the run.
        book: whether to write any seed of a named run into the book's records. Otherwise only the seeds that the book
            shows go there, and every other run goes to `runs`.

    Raises:
        ConfigurationError: if `book` is true and this is no named run.
    """
    if book and not is_named(config):
        raise ConfigurationError(f"only named runs have records of the book. Received: {record_name(config)}")
    folder = "book/records" if book or in_book(config) else "runs"
    return project_root() / folder / f"{record_name(config)}.json"


def read(config: RunConfig, *, book: bool = False) -> Record | None:
    """Returns the record of a run, or None.

    A named run with a seed beyond the book's is looked for in `runs` and then, unless `book` is true, among the book's
    records, where `dcn train` writes it if asked by name.

    Raises:
        RecordError: if the file is there but is no valid record.
    """
    paths = [record_path(config, book=book)]
    if not book and is_named(config):
        paths.append(record_path(config, book=True))
    for path in paths:
        if path.is_file():
            return _read(path, Record)
    return None


def recorded(configurations: Iterable[RunConfig]) -> list[Record]:
    """Returns the existing records of these configurations, in their order.

    Raises:
        RecordError: as `read`.
    """
    found = [(config, read(config)) for config in configurations]
    return [record for config, record in found if record is not None and record.config == config]


def existing() -> list[Record]:
    """Returns all valid records of runs in the project, those of the book first."""
    found = []
    for folder in ("book/records", "runs"):
        for path in sorted((project_root() / folder).glob("*.json")):
            with contextlib.suppress(RecordError):  # damaged, or the record of a measurement
                found.append(_read(path, Record))
    return found


def shown() -> list[RunConfig]:
    """Returns the configurations of all runs that the book shows: its own, and those of the study with a record."""
    return book_runs() + [config for config in study_runs() if record_path(config).is_file()]


def checkpoint_folder(config: RunConfig) -> Path:
    """Returns where the checkpoint of a run is kept until it is finished."""
    return project_root() / "checkpoints" / record_name(config)


def interrupted(config: RunConfig) -> bool:
    """Returns whether a checkpoint of this run waits to be resumed."""
    return (checkpoint_folder(config) / CHECKPOINT).is_file()


def trained(names: Iterable[str]) -> dict[str, Record]:
    """Returns the records of runs by their names, as the book shows them.

    Raises:
        ConfigurationError: if a run has no record of its configuration.
        RecordError: as `read`.
    """
    found = {}
    for name in names:
        config = run_named(name)
        record = read(config)
        if record is None or record.config != config:
            raise ConfigurationError(missing(config))
        found[name] = record
    return found


def missing(config: RunConfig) -> str:
    """Returns the message that a run has no record, and the command that makes one."""
    how = f"Train it with: dcn train {record_name(config)}" if is_named(config) else "Run its page by itself first"
    return f"{record_path(config)} is missing. {how}"


def how_to_restart(config: RunConfig) -> str:
    """Returns the advice to train a run from nothing."""
    command = f"dcn train --force {record_name(config)}" if is_named(config) else "dcn run, with --force"
    return f"Train from nothing with: {command}"


def initial_record(config: RunConfig) -> Record | None:
    """Returns the record of the run whose weights this one starts from; None for random initial weights.

    Raises:
        ConfigurationError: if there is no such record.
        RecordError: as `read`.
    """
    if not config.initial_run:
        return None
    initial = run_config(config.initial_run, seed=config.seed, data=config.data)
    record = read(initial)
    if record is None:
        raise ConfigurationError(
            f"initial_run must have been trained with the same seed and data, and {record_path(initial)} "
            f"is missing. Received: initial_run={config.initial_run!r}, seed={config.seed}"
        )
    return record


def write(record: Record | Measurement) -> None:
    """Writes a record to its path, whole or not at all, with a digest of its content."""
    content = record.model_dump(mode="json", exclude_defaults=False)
    with replacing(record.path) as temporary:
        temporary.write_text(json.dumps({**content, "sha256": _seal(content)}, indent=1) + "\n", encoding="utf-8")


_Kind = TypeVar("_Kind", Record, Measurement)


def parse(content: bytes, path: Path) -> Record:
    """Returns the record of a run from the content of its file.

    Args:
        content: of the file.
        path: where the file is or will be.

    Raises:
        RecordError: if it is no valid record.
    """
    return _parse(content, path, Record)


def _read(path: Path, kind: type[_Kind]) -> _Kind:
    try:
        return _parse(path.read_bytes(), path, kind)
    except OSError as error:
        raise RecordError(f"{path} is not a valid record: {error}") from error


def _parse(text: bytes, path: Path, kind: type[_Kind]) -> _Kind:
    try:
        content = json.loads(text)
        seal = content.pop("sha256", None) if isinstance(content, dict) else None
        record = kind.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the whole file"
        raise RecordError(f"{path} is not a valid record: {field}: {first['msg']}") from error
    except ValueError as error:
        raise RecordError(f"{path} is not a valid record: {error}") from error
    if seal != _seal(content):
        raise RecordError(f"{path} was edited: its content has another SHA-256 than it states")
    record.path = path
    return record


def _read_named(name: str) -> Record | None:
    for folder in ("book/records", "runs"):
        path = project_root() / folder / f"{name}.json"
        if path.is_file():
            return _read(path, Record)
    return None


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def current_inputs(config: RunConfig) -> Inputs:
    """Returns what a run would depend on now.

    Raises:
        ConfigurationError: if the run that it starts from has no record.
        DataError: if the data are missing or damaged.
    """
    initial = initial_record(config)
    return Inputs(
        code=code_sha256(RUN_CODE),
        versions=versions(),
        data=data_sha256(config.data),
        weights={initial.name: initial.provenance.weights} if initial else {},
    )


def standing(config: RunConfig, record: Record | None) -> Standing:
    """Returns whether the record kept under a configuration's name holds.

    It is fresh if configuration, code, library versions, data and initial weights are those that it was made with, and
    confirmed if they are those of a successful replay. Either way the files next to it must be those that it wrote, and
    the run that it starts from must hold. Otherwise it is stale. Weights may be missing where no page evaluates a run
    again, see `catalogue.keeps_weights`.

    Raises:
        DataError: if the data are missing or damaged.
    """
    if record is None:
        return Standing("missing")
    if record.config != config:
        return Standing("stale", ("configuration",))
    changes = []
    files = {record.weights_path: record.provenance.weights, record.predictions_path: record.provenance.predictions}
    for path, expected in files.items():
        if not path.is_file():
            if expected and (path != record.weights_path or keeps_weights(config)):
                changes.append(f"{path.name} is missing")
        elif file_sha256(path) != expected:
            changes.append(f"{path.name} has other content")
    try:
        current, initial = current_inputs(config), initial_record(config)
    except (ConfigurationError, RecordError) as error:
        state = "missing" if isinstance(error, ConfigurationError) else "damaged"
        return Standing("stale", (*changes, f"{config.initial_run}, from which it starts, is {state}"))
    if initial is not None:
        origin = standing(initial.config, initial)
        if not origin.holds:
            changes.append(f"{initial.name}, from which it starts, is {origin}")
    made = [record.provenance.inputs, *(confirmation.inputs for confirmation in record.confirmations)]
    if current not in made:
        changes += made[-1].changes(current)
    if changes:
        return Standing("stale", tuple(changes))
    return Standing("fresh" if current == made[0] else "confirmed")


def inspect(config: RunConfig) -> tuple[Record | None, Standing]:
    """Returns the record kept under a configuration's name, if it is valid, and its standing, "damaged" included."""
    try:
        record = read(config)
        return record, standing(config, record)
    except (DataError, RecordError) as error:
        return None, Standing("damaged", (str(error),))


def inspect_measurement(name: str, parameters: Mapping[str, Any]) -> tuple[Measurement | None, Standing]:
    """Returns the record of a measurement, if it is valid, and its standing, "damaged" included."""
    try:
        return read_measurement(name, parameters), measurement_standing(name, parameters)
    except (DataError, RecordError) as error:
        return None, Standing("damaged", (str(error),))


def records_only() -> bool:
    """Returns whether this process may only read records, because it belongs to the build of a book."""
    return bool(os.environ.get(RECORDS_ONLY))


def measurement_path(name: str, parameters: Mapping[str, Any]) -> Path:
    """Returns where a measurement is kept: in `book/records` as the book shows it, with other parameters in `runs`.

    Args:
        name: a key of `catalogue.MEASUREMENTS`.
        parameters: those that differ from the book's; others are ignored.
    """
    complete = {key: parameters.get(key, value) for key, value in MEASUREMENTS[name].items()}
    if complete == MEASUREMENTS[name]:
        return project_root() / "book" / "records" / f"{name}.json"
    digest = hashlib.sha256(json.dumps(complete, sort_keys=True).encode()).hexdigest()[:8]
    return project_root() / "runs" / f"{name}-{digest}.json"


def read_measurement(name: str, parameters: Mapping[str, Any]) -> Measurement | None:
    """Returns the record of a measurement, or None.

    Raises:
        RecordError: if the file is there but is no valid record.
    """
    path = measurement_path(name, parameters)
    return _read(path, Measurement) if path.is_file() else None


def measurement(
    name: str,
    parameters: Mapping[str, Any],
    measure: Callable[[], dict[str, Any]],
    *,
    runs: Iterable[Record] = (),
    data: str = "",
    force: bool = False,
) -> Measurement:
    """Returns a measurement with these parameters; measures and stores it if it is missing, or if `force`.

    Args:
        name: a key of `catalogue.MEASUREMENTS`.
        parameters: all of its parameters.
        measure: takes the measurement; its result is stored as JSON.
        runs: the records of the runs whose weights it evaluates or starts from.
        data: digest of the data that it uses.
        force: whether to measure although there is a record.

    Raises:
        RecordError: if the record is damaged, or is missing while only records may be read.
    """
    if not force or records_only():
        found = read_measurement(name, parameters)
        if found is not None and found.parameters == parameters:
            return found
    path = measurement_path(name, parameters)
    if records_only():
        raise RecordError(f"{path} is missing, and a build does not measure. Measure it with: {REMEASURE[name]}")
    inputs = Inputs(
        code=code_sha256(MEASUREMENT_CODE[name]),
        versions=versions(),
        data=data,
        weights={record.name: record.provenance.weights for record in runs},
    )
    started, before = now(), time.monotonic()
    results = json.loads(json.dumps(measure()))
    measured = Measurement(
        name=name,
        parameters=dict(parameters),
        results=results,
        inputs=inputs,
        machine=machine(),
        started=started,
        seconds=round(time.monotonic() - before, 1),
        path=path,
    )
    write(measured)
    return measured


def measurement_standing(name: str, parameters: Mapping[str, Any]) -> Standing:
    """Returns whether the record of a measurement holds; a measurement is fresh or stale, it is never confirmed.

    Raises:
        RecordError: if a record is damaged.
    """
    found = read_measurement(name, parameters)
    if found is None:
        return Standing("missing")
    complete = {key: parameters.get(key, value) for key, value in MEASUREMENTS[name].items()}
    changes = ["parameters"] if found.parameters != complete else []
    weights = {}
    for run in found.inputs.weights:
        record = _read_named(run)
        if record is not None:
            weights[run] = record.provenance.weights
            origin = standing(record.config, record)
            changes += [] if origin.holds else [f"{run}, which it evaluates, is {origin}"]
    current = Inputs(
        code=code_sha256(MEASUREMENT_CODE[name]),
        versions=versions(),
        data=data_sha256("") if found.inputs.data else "",
        weights=weights,
    )
    changes += found.inputs.changes(current)
    return Standing("stale", tuple(changes)) if changes else Standing("fresh")
