"""Records of measurements: taken once, kept, and stale as soon as anything that they depend on changes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dcn_study.errors import DataError, RecordError
from dcn_study.runs.catalogue import MEASUREMENTS, REMEASURE
from dcn_study.runs.data import data_sha256
from dcn_study.runs.files import now, project_root
from dcn_study.runs.inputs import MEASUREMENT_CODE, Inputs, code_sha256, machine, versions
from dcn_study.runs.records.form import Measurement, Record, read_file, write
from dcn_study.runs.records.runs import Standing, read_named, standing

__all__ = [
    "RECORDS_ONLY",
    "inspect_measurement",
    "measurement",
    "measurement_path",
    "measurement_standing",
    "read_measurement",
    "records_only",
]

RECORDS_ONLY = "DCN_RECORDS_ONLY"  # environment variable: set while a book is built, so that nothing trains or measures


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
    return read_file(path, Measurement) if path.is_file() else None


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
    """Returns whether the record of a measurement holds, as `standing` does for a run.

    It is confirmed by a repetition of a part of it, see `experiments.repetition`; one of times is taken again.

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
        record = read_named(run)
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
    made = [found.inputs, *(confirmation.inputs for confirmation in found.confirmations)]
    if current not in made:
        changes += made[-1].changes(current)
    if changes:
        return Standing("stale", tuple(changes))
    return Standing("fresh" if current == made[0] else "confirmed")


def inspect_measurement(name: str, parameters: Mapping[str, Any]) -> tuple[Measurement | None, Standing]:
    """Returns the record of a measurement, if it is valid, and its standing, "damaged" included."""
    try:
        return read_measurement(name, parameters), measurement_standing(name, parameters)
    except (DataError, RecordError) as error:
        return None, Standing("damaged", (str(error),))
