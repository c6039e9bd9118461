"""Records: the form of those of runs and measurements; of runs, where they are and whether they still hold.

A record holds if everything that it depends on is what it was, or if the current code and libraries have been shown to
give the same results. See `status`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable

from dcn_study.errors import ConfigurationError, DataError, RecordError
from dcn_study.runs.catalogue import NOT_RUN, book_runs, find_run, study_runs
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.data import data_sha256
from dcn_study.runs.files import file_sha256, project_root
from dcn_study.runs.inputs import RUN_CODE, Inputs, code_sha256, versions
from dcn_study.runs.reading import note_file
from dcn_study.runs.records.schema import (
    Confirmation,
    Epoch,
    Evaluation,
    FirstBatch,
    Measurement,
    Provenance,
    Record,
    Witness,
    add_confirmation,
    explained,
    parse,
    read_file,
    seal,
    write,
)
from dcn_study.runs.run import Run

__all__ = [
    "Confirmation",
    "Epoch",
    "Evaluation",
    "FirstBatch",
    "Measurement",
    "Provenance",
    "Record",
    "Status",
    "Witness",
    "add_confirmation",
    "by_seed",
    "current_inputs",
    "existing",
    "explained",
    "initial_record",
    "initial_run",
    "inspect",
    "matching",
    "missing",
    "parse",
    "read",
    "read_file",
    "read_named",
    "recorded",
    "seal",
    "shown",
    "status",
    "trained",
    "write",
]


@dataclasses.dataclass(frozen=True)
class Status:
    """Whether a record holds: "fresh", "confirmed", "stale", "missing" or "damaged"; and what is wrong with it."""

    state: str
    changes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return self.state in ("fresh", "confirmed")

    def __str__(self) -> str:
        return f"{self.state}: {'; '.join(self.changes)}" if self.changes else self.state


def read(run: Run) -> Record | None:
    """Returns the record of a run, or None.

    Raises:
        RecordError: if the file is there but is no valid record.
    """
    note_file(run.path)
    return read_file(run.path, Record) if run.path.is_file() else None


def matching(run: Run) -> Record | None:
    """Returns the record of a run if it is of its configuration, or None.

    Raises:
        RecordError: as `read`.
    """
    record = read(run)
    return record if record is not None and record.config == run.config else None


def recorded(runs: Iterable[Run]) -> list[Record]:
    """Returns the existing records of these runs, in their order.

    Raises:
        RecordError: as `read`.
    """
    return [record for record in map(matching, runs) if record is not None]


def by_seed(run: Run) -> dict[int, Record]:
    """Returns the existing records of a run and its configuration by seed, of the seeds that the book shows.

    Raises:
        RecordError: as `read`.
    """
    found = {seed: matching(run.seeded(seed)) for seed in run.seeds}
    return {seed: record for seed, record in found.items() if record is not None}


def existing() -> list[Record]:
    """Returns all valid records of runs in the project, those of the book first."""
    found = []
    for folder in ("book/records", "runs"):
        for path in sorted((project_root() / folder).glob("*.json")):
            with contextlib.suppress(RecordError):  # damaged, or the record of a measurement
                found.append(read_file(path, Record))
                note_file(path)
    return found


def shown() -> list[Run]:
    """Returns all runs that the book shows.

    These are its own and those of the studies; of `catalogue.NOT_RUN` those that have a record all the same.
    """
    studies = [run for run in study_runs() if run.entry not in NOT_RUN or run.path.is_file()]
    return list(dict.fromkeys(book_runs() + studies))


def trained(names: Iterable[str]) -> dict[str, Record]:
    """Returns the records of runs by their names, as the book shows them.

    Raises:
        ConfigurationError: if a run has no record of its configuration.
        RecordError: as `read`.
    """
    found = {}
    for name in names:
        run = find_run(name)
        record = matching(run)
        if record is None:
            raise ConfigurationError(missing(run))
        found[name] = record
    return found


def missing(run: Run) -> str:
    """Returns the message that a run has no record, and the command that makes one."""
    return f"{run.path} is missing. {run.how_to_train}"


def initial_run(config: RunConfig) -> Run | None:
    """Returns the run whose weights this configuration starts from; None for random initial weights."""
    return find_run(config.initial_run, seed=config.seed, data=config.data) if config.initial_run else None


def initial_record(config: RunConfig) -> Record | None:
    """Returns the record of the run whose weights this configuration starts from; None for random initial weights.

    Raises:
        ConfigurationError: if there is no such record.
        RecordError: as `read`.
    """
    initial = initial_run(config)
    record = read(initial) if initial else None
    if initial and record is None:
        raise ConfigurationError(
            f"initial_run must have been trained with the same seed and data, and {initial.path} "
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


def status(run: Run, record: Record | None) -> Status:
    """Returns whether the record kept under a run's name holds.

    It is fresh if configuration, code, library versions, data and initial weights are those that it was made with, and
    confirmed if they are those of a successful replay. Either way the files next to it must be those that it wrote, and
    the run that it starts from must hold. Otherwise it is stale. Weights may be missing where no page evaluates a run
    again, see `Run.kept`.

    Raises:
        DataError: if the data are missing or damaged.
    """
    if record is None:
        return Status("missing")
    if record.config != run.config:
        return Status("stale", ("configuration",))
    changes = []
    files = {record.weights_path: record.provenance.weights, record.predictions_path: record.provenance.predictions}
    for path, expected in files.items():
        note_file(path)
        if not path.is_file():
            if expected and (path != record.weights_path or run.keeps_weights):
                changes.append(f"{path.name} is missing")
        elif file_sha256(path) != expected:
            changes.append(f"{path.name} has other content")
    try:
        current, initial = current_inputs(run.config), initial_record(run.config)
    except (ConfigurationError, RecordError) as error:
        state = "missing" if isinstance(error, ConfigurationError) else "damaged"
        return Status("stale", (*changes, f"{run.config.initial_run}, from which it starts, is {state}"))
    if initial is not None:
        origin = status(initial.run, initial)
        if not origin.holds:
            changes.append(f"{initial.name}, from which it starts, is {origin}")
    made = [record.provenance.inputs, *(confirmation.inputs for confirmation in record.confirmations)]
    if current not in made:
        changes += made[-1].changes(current)
    if changes:
        return Status("stale", tuple(changes))
    return Status("fresh" if current == made[0] else "confirmed")


def inspect(run: Run) -> tuple[Record | None, Status]:
    """Returns the record kept under a run's name, if it is valid, and its status, "damaged" included."""
    try:
        record = read(run)
        return record, status(run, record)
    except (DataError, RecordError) as error:
        return None, Status("damaged", (str(error),))
