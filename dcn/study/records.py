"""The record of a run: what it holds, where it lies, and whether it still stands."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dcn.study.config import MEASUREMENTS, ConfigurationError, RunConfig, is_published, record_name, run_config

__all__ = [
    "Record",
    "RecordError",
    "code_sha256",
    "environment",
    "measurement",
    "project_root",
    "read",
    "recorded",
    "standing",
    "trained",
    "write",
]

SCHEMA = 1
PACKAGE = Path(__file__).parents[1]
COMPUTES = (
    *(f"ops/{name}.py" for name in ("geometry", "convolution", "resampling", "roi_pooling")),
    *("layers.py", "models.py", "study/training.py", "study/data.py"),
)
MEASURED_BY = {
    "runtime": (*COMPUTES[:6], "study/runtime.py"),
    "offsets": (*COMPUTES, "study/audit.py"),
    "sensitivity": (*COMPUTES, "study/sensitivity.py"),
    "robustness": (*COMPUTES, "study/robustness.py"),
}


class RecordError(ValueError):
    """A record or its weights are missing or damaged; the message names the file."""


@dataclasses.dataclass
class Record:
    """One finished run.

    Attributes:
        name: as `config.record_name`.
        configuration: all fields of the `RunConfig`.
        history: one dictionary an epoch: epoch (from 1), loss, accuracy, validation_loss, validation_accuracy,
            seconds; test_loss and test_accuracy where the run validates on images of its own.
        evaluations: "plain" and "scaled", each with accuracy, loss and the number of images.
        witness: the running mean of the training loss after each of the first 20 steps.
        provenance: digests of data, code and weights, the environment, start, end and the seconds of training. If the
            run was interrupted and went on with other code, which gave the same first losses again, also of that code.
        confirmations: the later code under which the run was confirmed, with environment and date.
    """

    name: str
    configuration: dict[str, Any]
    history: list[dict[str, float]]
    evaluations: dict[str, dict[str, float]]
    witness: list[float]
    provenance: dict[str, Any]
    confirmations: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def config(self) -> RunConfig:
        return RunConfig(**self.configuration)


def project_root() -> Path:
    """Returns the nearest folder from here upwards that holds `_config.yml` and `book`, else this folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "_config.yml").is_file() and (folder / "book").is_dir():
            return folder
    return here


def folder(config: RunConfig) -> Path:
    """Returns where a run is kept: `book/records` for a published run, `runs` for any other."""
    return project_root() / ("book/records" if is_published(config) else "runs")


def record_path(config: RunConfig) -> Path:
    return folder(config) / f"{record_name(config)}.json"


def weights_path(config: RunConfig) -> Path:
    return folder(config) / f"{record_name(config)}.weights.h5"


def measurement_path(changes: Mapping[str, Any], name: str = "runtime") -> Path:
    """Returns where a measurement is kept: in `book/records` as the book shows it, with other parameters in `runs`.

    Args:
        changes: its parameters, as far as they may differ from the book's.
        name: a key of `config.MEASUREMENTS`.
    """
    parameters = {key: changes.get(key, value) for key, value in MEASUREMENTS[name].items()}
    if parameters == MEASUREMENTS[name]:
        return project_root() / "book" / "records" / f"{name}.json"
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:8]
    return project_root() / "runs" / f"{name}-{digest}.json"


def measurement(
    name: str, parameters: Mapping[str, Any], measure: Callable[[], dict[str, Any]], *, force: bool = False
) -> dict[str, Any]:
    """Returns a measurement with these parameters; takes and keeps it if there is none yet, or if forced to.

    Args:
        name: a key of `config.MEASUREMENTS`.
        parameters: all of its parameters.
        measure: takes the measurement; its result is kept as JSON.
        force: whether to measure although there is a record.

    Returns:
        What `measure` returned, with the parameters, the start, the code's fingerprint and the environment.
    """
    path = measurement_path(parameters, name)
    if path.is_file() and not force:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["parameters"] == parameters:
            return kept
    provenance = {"started": now(), "code_sha256": code_sha256(MEASURED_BY[name]), **environment()}
    measured = {"parameters": dict(parameters), **measure(), **provenance}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    return measured


def read(config: RunConfig) -> Record | None:
    """Returns the record kept under the name of this configuration, or None.

    Raises:
        RecordError: if the file is there but cannot be read as a record.
    """
    path = record_path(config)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema") != SCHEMA:
            raise ValueError(f"schema is not {SCHEMA}")
        record = Record(**content)
        RunConfig(**record.configuration)
        return record
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecordError(f"{path} is not a record that can be read: {error}") from error


def recorded(configurations: Iterable[RunConfig]) -> list[Record]:
    """Returns the records that there are of these configurations, in their order.

    Raises:
        RecordError: as `read`.
    """
    found = [(config, read(config)) for config in configurations]
    return [record for config, record in found if record is not None and record.config == config]


def trained(names: Iterable[str]) -> dict[str, Record]:
    """Returns the records of named runs, as the book shows them, seed 0.

    Raises:
        ConfigurationError: if a run has no record of its configuration.
        RecordError: as `read`.
    """
    found = {}
    for name in names:
        config = run_config(name)
        record = read(config)
        if record is None or record.config != config:
            raise ConfigurationError(
                f"{record_path(config)} is missing. Train it with: dcn train {record_name(config)}"
            )
        found[name] = record
    return found


def write(record: Record) -> Path:
    """Writes a record whole or not at all, and returns its path."""
    path = record_path(record.config)
    content = {"schema": SCHEMA, **dataclasses.asdict(record)}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path with the same ending, and puts it in the place of `path` if all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = "".join(path.suffixes[-2:])
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=ending)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def standing(config: RunConfig, record: Record | None) -> str:
    """Returns "fresh", "confirmed", "stale" or "missing" for the record kept under a configuration's name."""
    if record is None:
        return "missing"
    if record.config != config:
        return "stale"
    if record.provenance["code_sha256"] == code_sha256():
        return "fresh"
    confirmed = {confirmation["code_sha256"] for confirmation in record.confirmations}
    return "confirmed" if code_sha256() in confirmed else "stale"


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.cache
def code_sha256(files: tuple[str, ...] = COMPUTES) -> str:
    """Returns the digest of source files, by default those that compute a run, as they were when first asked for."""
    digest = hashlib.sha256()
    for name in files:
        digest.update(name.encode())
        digest.update((PACKAGE / name).read_text(encoding="utf-8").encode())
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    """Returns versions, processor and threads."""
    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
    return {**versions, "python": platform.python_version(), "processor": _processor(), "threads": _threads()}


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
