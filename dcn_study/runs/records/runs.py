"""Records of runs: where they are, and whether they still hold.

A record holds if everything that it depends on is what it was, or if the current code and libraries have been shown to
give the same results. See `standing`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable
from pathlib import Path

from dcn_study.errors import ConfigurationError, DataError, RecordError
from dcn_study.runs.catalogue import (
    book_runs,
    in_book,
    is_finished,
    is_named,
    keeps_weights,
    record_name,
    run_config,
    run_named,
    study_runs,
)
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.data import data_sha256
from dcn_study.runs.files import file_sha256, project_root
from dcn_study.runs.inputs import RUN_CODE, Inputs, code_sha256, versions
from dcn_study.runs.reading import note_file
from dcn_study.runs.records.form import Record, read_file

__all__ = [
    "CHECKPOINT",
    "Standing",
    "checkpoint_folder",
    "current_inputs",
    "existing",
    "how_to_restart",
    "initial_record",
    "inspect",
    "interrupted",
    "lock_path",
    "missing",
    "read",
    "read_named",
    "record_path",
    "recorded",
    "shown",
    "standing",
    "trained",
]

CHECKPOINT = "state.json"  # the file of a checkpoint that is written last


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
        note_file(path)
        if path.is_file():
            return read_file(path, Record)
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
                found.append(read_file(path, Record))
                note_file(path)
    return found


def shown() -> list[RunConfig]:
    """Returns the configurations of all runs that the book shows.

    These are its own, and those of the studies that are finished, see `catalogue.FINISHED`, or have a record.
    """
    studies = (config for config in study_runs() if is_finished(config) or record_path(config).is_file())
    return book_runs() + list(studies)


def checkpoint_folder(config: RunConfig) -> Path:
    """Returns where the checkpoint of a run is kept until it is finished."""
    return project_root() / "checkpoints" / record_name(config)


def lock_path(config: RunConfig) -> Path:
    """Returns the file that is locked while a run is trained."""
    folder = checkpoint_folder(config)
    return folder.with_name(f"{folder.name}.lock")


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


def read_named(name: str) -> Record | None:
    """Returns the record of this name, of the book or else of the project's own runs; None if there is none.

    Raises:
        RecordError: as `read`.
    """
    for folder in ("book/records", "runs"):
        path = project_root() / folder / f"{name}.json"
        note_file(path)
        if path.is_file():
            return read_file(path, Record)
    return None


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
        values=config.resolved().values(),
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
        note_file(path)
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
