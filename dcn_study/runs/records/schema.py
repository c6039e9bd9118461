"""The form of records: what their files hold, and how these are written and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic

from dcn_study.errors import ConfigurationError, RecordError
from dcn_study.runs.catalogue import run_of
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.files import replacing
from dcn_study.runs.inputs import Inputs, Machine
from dcn_study.runs.run import Run
from dcn_study.runs.splits import KINDS

__all__ = [
    "Confirmation",
    "Epoch",
    "Evaluation",
    "FirstBatch",
    "Measurement",
    "Provenance",
    "Record",
    "Witness",
    "add_confirmation",
    "explained",
    "parse",
    "read_file",
    "seal",
    "write",
]

# A whole number is a number too.
Number = Annotated[float, pydantic.Field(strict=False, allow_inf_nan=False)]
Accuracy = Annotated[float, pydantic.Field(strict=False, ge=0, le=1)]
Loss = Annotated[float, pydantic.Field(strict=False, allow_inf_nan=False, ge=0)]


class _Part(pydantic.BaseModel, extra="forbid", strict=True):
    """Base class of the parts of a record: unknown or missing fields are errors, types are not converted."""


class Epoch(_Part):
    """One epoch: its number from 1, training and validation results, those on the test images if others validate."""

    epoch: int
    loss: Loss
    accuracy: Accuracy
    validation_loss: Loss
    validation_accuracy: Accuracy
    test_loss: Loss | None = None
    test_accuracy: Accuracy | None = None
    seconds: Number


class Evaluation(_Part):
    """Result of a trained network on one kind of test images."""

    accuracy: Accuracy
    loss: Loss
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
        name: as `Run.name`.
        configuration: all fields of the `RunConfig`.
        history: one entry per epoch.
        evaluations: by test set, see `splits.KINDS`, and what `steps.evaluations` adds.
        field_areas: see `steps.field_areas`; empty in records from before these were kept.
        confirmations: successful replays, oldest first.
        path: where the record is; not part of its content.
    """

    format: Literal[2] = 2
    name: str
    configuration: dict[str, Any]
    history: list[Epoch]
    evaluations: dict[str, Evaluation]
    field_areas: dict[str, int] = {}
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

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Record:
        epochs = list(range(1, self.config.epochs + 1))
        if [each.epoch for each in self.history] != epochs or len(self.witness.epochs) != len(epochs):
            raise ValueError(f"history and witness must have the {len(epochs)} epochs of the configuration")
        missing = [kind for kind in KINDS[self.config.task] if kind not in self.evaluations]
        if missing:
            raise ValueError(f"evaluations must have the test sets of the task. Missing: {', '.join(missing)}")
        return self

    @property
    def config(self) -> RunConfig:
        return RunConfig(**self.configuration)

    @property
    def run(self) -> Run:
        return run_of(self.name, self.config)

    @property
    def weights_path(self) -> Path:
        return self.path.with_suffix(".weights.h5")

    @property
    def predictions_path(self) -> Path:
        return self.path.with_suffix(".predictions.npz")


class Measurement(_Part):
    """One measurement.

    Attributes:
        name: a key of `measurements.MEASUREMENTS`.
        parameters: all of its parameters.
        results: what was measured.
        inputs: what it depended on.
        machine: where it was taken.
        started: in UTC.
        seconds: how long it took; None in records from before this was kept.
        confirmations: successful repetitions of a part of it, oldest first.
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
    confirmations: list[Confirmation] = []
    path: Path = pydantic.Field(default=Path(), exclude=True)


def write(record: Record | Measurement) -> None:
    """Writes a record to its path, whole or not at all, with a digest of its content."""
    content = record.model_dump(mode="json", exclude_defaults=False)
    with replacing(record.path) as temporary:
        text = json.dumps({**content, "sha256": seal(content)}, indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def add_confirmation(record: Record | Measurement, confirmation: Confirmation) -> None:
    """Adds a confirmation to a record, in place of one with the same inputs on the same machine, and writes it."""
    new = (confirmation.inputs, confirmation.machine)
    record.confirmations = [each for each in record.confirmations if (each.inputs, each.machine) != new]
    record.confirmations.append(confirmation)
    write(record)


_Kind = TypeVar("_Kind", Record, Measurement)


def read_file(path: Path, kind: type[_Kind]) -> _Kind:
    """Returns the record in a file.

    Args:
        path: of the file.
        kind: `Record` or `Measurement`.

    Raises:
        RecordError: if the file cannot be read, or is no valid record.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _damaged(path, kind, f"is not a valid record: {error}") from error
    return parse(content, path, kind)


def parse(text: bytes, path: Path, kind: type[_Kind]) -> _Kind:
    """Returns the record that the content of a file holds.

    Args:
        text: the content.
        path: where the file is or will be.
        kind: `Record` or `Measurement`.

    Raises:
        RecordError: if it is no valid record.
    """
    try:
        content = json.loads(text)
        stated = content.pop("sha256", None) if isinstance(content, dict) else None
        record, found = kind.model_validate(content), seal(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, kind, f"is not a valid record: {explained(error)}") from error
    if stated != found:
        raise _damaged(path, kind, "was edited: its content has another SHA-256 than it states")
    if isinstance(record, Record) and record.name != path.stem:
        raise _damaged(path, kind, f"must hold the record of run {path.stem}. Received: that of {record.name}")
    record.path = path
    return record


def _damaged(path: Path, kind: type[_Kind], what: str) -> RecordError:
    """Returns an error that says what is wrong with a record, and how to have it again."""
    if path.parent.name != "records":
        return RecordError(f"{path} {what}. Make it again with: dcn run, with --force")
    again = f"dcn train --force {path.stem}" if kind is Record else f"dcn measure {path.stem}"
    return RecordError(f"{path} {what}. Restore it with: git checkout {path}, or make it again with: {again}")


def explained(error: Exception) -> str:
    """Returns what is wrong with the content of a file, in one line; of a validation the first field that is wrong."""
    if isinstance(error, pydantic.ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the whole file'}: {first['msg']}"
    return " ".join(f"{type(error).__name__}: {error}".split())


def seal(content: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the content of a JSON file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
