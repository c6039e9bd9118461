"""The measurements of the book: what each depends on, its record, and whether that still holds.

A measurement is declared here alone: its function, the parameters with which the book shows it, what it depends on, and
how a part of it is repeated. The function is named, not imported, so that reading a record loads no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dcn_study.errors import DataError, LockedError, RecordError
from dcn_study.runs import reading, records
from dcn_study.runs.catalogue import REALISATIONS
from dcn_study.runs.configuration import TEST_IMAGES
from dcn_study.runs.data import data_sha256
from dcn_study.runs.files import locked, now, project_root, wait_for
from dcn_study.runs.inputs import MODEL_CODE, RUN_CODE, Inputs, code_sha256, machine, versions
from dcn_study.runs.libraries import load_tensorflow
from dcn_study.runs.records import Measurement, Status

__all__ = ["MEASUREMENTS", "Declared", "inspect", "missing", "path_of", "read", "result", "status", "take"]

_TRAINED: dict[str, Any] = {"seed": 0, "epochs": None, "train_size": None, "test_size": None}
_DIAGNOSED = (*RUN_CODE, "dcn.diagnostics")
_POOLING = (
    *(f"dcn.ops.{name}" for name in ("compilation", "differentiation", "geometry", "interpolation", "roi_pooling")),
    "dcn.layers.roi_pooling",
)


@dataclasses.dataclass(frozen=True)
class Declared:
    """A measurement.

    Attributes:
        function: module and name in `dcn_study.experiments`. It takes the parameters, which it checks, and returns the
            results, as JSON holds them.
        parameters: those with which the book shows it.
        code: modules outside `dcn_study.experiments` that compute it.
        experiments: modules there that do, besides the function's own.
        data: whether it uses images: those of its parameter `data`, or MNIST.
        repeat: what `repetition.confirm` changes in its parameters, so that its results are the beginning of
            those on record, or some of its rows of times; None: it is taken again instead.
    """

    function: str
    parameters: Mapping[str, Any]
    code: tuple[str, ...] = RUN_CODE
    experiments: tuple[str, ...] = ()
    data: bool = True
    repeat: Mapping[str, Any] | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that compute it."""
        experiments = (*self.experiments, self.function.partition(".")[0])
        return (*self.code, *(f"dcn_study.experiments.{name}" for name in experiments))

    def measure(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the results of its function. Loads TensorFlow if the library computes them."""
        if any(module.startswith("dcn.") for module in self.modules):
            load_tensorflow()
        module, _, name = self.function.partition(".")
        return getattr(importlib.import_module(f"dcn_study.experiments.{module}"), name)(**parameters)


MEASUREMENTS: dict[str, Declared] = {
    "models": Declared(
        "layers.model_costs",
        {"height": 28, "width": 28, "classes": 10},
        (*RUN_CODE, *_POOLING),
        ("regions",),
        data=False,
        repeat={},
    ),
    "lineage": Declared(
        "lineage.probe_found",
        {"seed": 0},
        (*MODEL_CODE, "dcn.diagnostics"),
        ("choices", "implementations"),
        data=False,
        repeat={},
    ),
    "offsets": Declared(
        "offsets.trace_offsets", {"run": "deformable_cnn", "steps": 300, "seed": 0}, repeat={"steps": 5}
    ),
    "identity": Declared("identity.without_offsets", {"run": "deformable_cnn", **_TRAINED}, _DIAGNOSED, repeat={}),
    "residual": Declared("blocks.residual", {"size": 1.0, **_TRAINED}, _DIAGNOSED, ("identity",), repeat={}),
    "batch_statistics": Declared(
        "blocks.batch_statistics",
        {"run": "cnn_scaled", "seeds": None, "epochs": None, "train_size": None, "test_size": None},
        _DIAGNOSED,
        ("identity",),
        repeat={},
    ),
    "sampling": Declared(
        "receptive_field.fields", {"digit": 0, "occluded": 5, **_TRAINED, "data": ""}, _DIAGNOSED, repeat={}
    ),
    "laboratory": Declared(
        "laboratory.answers",
        {"scale": 0.5, **_TRAINED, "data": ""},
        _DIAGNOSED,
        ("mechanism", "presets", "receptive_field"),
        repeat={},
    ),
    "sensitivity": Declared("sensitivity.sensitivity", {"draws": 5, "images": TEST_IMAGES}, repeat={"draws": 1}),
    "robustness": Declared("robustness.robustness", {"zooms": 7, "shifts": 9, "images": 500}, experiments=("moves",)),
    "mechanism": Declared(
        "mechanism.mechanism",
        {"realisations": REALISATIONS, "images": 2000, "digits": 50, "occluded": 3},
        _DIAGNOSED,
        ("receptive_field",),
        repeat={"realisations": 1},
    ),
    "regions": Declared(
        "regions.regions",
        {"realisations": 6, "canvases": 4000, "test_canvases": 1000, "epochs": 8},
        (*_POOLING, "dcn_study.runs.mnist_scale"),
        repeat={"realisations": 1},
    ),
    "runtime": Declared(
        "runtime.compare",
        {
            "batches": "1,32,128",
            "sizes": "28,56",
            "batch": 32,
            "repeats": 7,
            "threads": 0,
            "device": "/CPU:0",
            "memory": True,
        },
        MODEL_CODE,
        ("as_published", "timing"),
        data=False,
        repeat={"batches": "32", "sizes": "28", "repeats": 5, "memory": False},
    ),
    "bench": Declared("bench.bench", {"repeats": 15}, MODEL_CODE, ("as_published", "ratios", "timing"), data=False),
    "arms": Declared(
        "arms.arm_costs",
        {"arms": "all", "batch": 128, "repeats": 9, "threads": 1, "memory": True},
        experiments=("timing",),
        data=False,
    ),
    "multiverse": Declared(
        "multiverse.multiverse",
        {"fewest": 3, "levels": "90,95,99", "effects": "0.1,0.15,0.2,0.25,0.3,0.4,0.5,0.75,1"},
        (),
        ("agreement", "statistics", "study"),
        data=False,
        repeat={},
    ),
}


def path_of(name: str, parameters: Mapping[str, Any]) -> Path:
    """Returns where a measurement is kept: in `book/records` as the book shows it, with other parameters in `runs`.

    Args:
        name: a key of `MEASUREMENTS`.
        parameters: those that differ from the book's; others are ignored.
    """
    complete = _complete(name, parameters)
    if complete == MEASUREMENTS[name].parameters:
        return project_root() / "book" / "records" / f"{name}.json"
    digest = hashlib.sha256(json.dumps(complete, sort_keys=True).encode()).hexdigest()[:8]
    return project_root() / "runs" / f"{name}-{digest}.json"


def _complete(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {key: parameters.get(key, value) for key, value in MEASUREMENTS[name].parameters.items()}


def read(name: str, parameters: Mapping[str, Any] | None = None) -> Measurement | None:
    """Returns the record of a measurement, or None; by default that which the book shows.

    Raises:
        RecordError: if the file is there but is no valid record.
    """
    path = path_of(name, parameters or {})
    reading.note_file(path)
    return records.read_file(path, Measurement) if path.is_file() else None


def result(name: str, parameters: Mapping[str, Any] | None = None, *, force: bool = False) -> Measurement:
    """Returns a measurement; takes and stores it if it is missing, or if `force`. Reading loads no TensorFlow.

    If another process takes it, it waits, and without `force` returns what that one has measured.

    Args:
        name: a key of `MEASUREMENTS`.
        parameters: those that differ from the book's.
        force: whether to measure although there is a record.

    Raises:
        ConfigurationError: if a parameter breaks its rule.
        RecordError: if a record is damaged, or is missing while only records may be read.
    """
    complete, path = _complete(name, parameters or {}), path_of(name, parameters or {})
    lock = lock_of(path)
    while True:
        if not force or reading.records_only():
            found = read(name, complete)
            if found is not None and found.parameters == complete:
                return found
        if reading.records_only():
            raise RecordError(missing(name, complete))
        try:
            with locked(lock, f"measurement {path.stem}"):
                measured = take(name, complete)
                records.write(measured)
                return measured
        except LockedError as error:
            wait_for(lock, str(error))


def lock_of(path: Path) -> Path:
    """Returns the file that is locked while the measurement with this record is taken or confirmed."""
    return project_root() / "runs" / f".{path.stem}.lock"


def missing(name: str, parameters: Mapping[str, Any] | None = None) -> str:
    """Returns the message that a measurement has no record, and the command that makes one."""
    return f"{path_of(name, parameters or {})} is missing. Take it, on an idle machine, with: dcn measure {name}"


def take(name: str, parameters: Mapping[str, Any]) -> Measurement:
    """Takes a measurement with all of its parameters, and returns it; `result` stores it too."""
    declared, started, before = MEASUREMENTS[name], now(), time.monotonic()
    with reading.noted() as read_by_it:
        results = json.loads(json.dumps(declared.measure(parameters)))
    return Measurement(
        name=name,
        parameters=dict(parameters),
        results=results,
        inputs=_inputs(name, parameters, read_by_it.weights),
        machine=machine(),
        started=started,
        seconds=round(time.monotonic() - before, 1),
        path=path_of(name, parameters),
    )


def _inputs(name: str, parameters: Mapping[str, Any], weights: Mapping[str, str]) -> Inputs:
    declared = MEASUREMENTS[name]
    data = data_sha256(parameters.get("data", "")) if declared.data else ""
    return Inputs(code=code_sha256(declared.modules), versions=versions(), data=data, weights=dict(weights))


def current_weights(measured: Measurement) -> dict[str, str]:
    """Returns the digests of the weights that a measurement evaluates, as they are on record now; empty without one."""
    found = {run: records.read_named(run) for run in measured.inputs.weights}
    return {run: record.provenance.weights if record else "" for run, record in found.items()}


def status(name: str, parameters: Mapping[str, Any] | None = None) -> Status:
    """Returns whether the record of a measurement holds, as `records.status` does for a run.

    It is confirmed by a repetition of a part of it, see `repetition.confirm`.

    Raises:
        RecordError: if a record is damaged.
    """
    found = read(name, parameters)
    if found is None:
        return Status("missing")
    changes = ["parameters"] if found.parameters != _complete(name, parameters or {}) else []
    for record in filter(None, map(records.read_named, found.inputs.weights)):
        origin = records.status(record.run, record)
        changes += [] if origin.holds else [f"{record.name}, which it evaluates, is {origin}"]
    current = _inputs(name, found.parameters, current_weights(found))
    made = [found.inputs, *(confirmation.inputs for confirmation in found.confirmations)]
    if current not in made:
        changes += made[-1].changes(current)
    if changes:
        return Status("stale", tuple(changes))
    return Status("fresh" if current == made[0] else "confirmed")


def inspect(name: str, parameters: Mapping[str, Any] | None = None) -> tuple[Measurement | None, Status]:
    """Returns the record of a measurement, if it is valid, and its status, "damaged" included."""
    try:
        return read(name, parameters), status(name, parameters)
    except (DataError, RecordError) as error:
        return None, Status("damaged", (str(error),))
