"""What is read: the sources of a page and the inputs of a measurement, noted while they are opened."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["LOG", "RECORDS_ONLY", "Reading", "log_modules", "note_file", "note_weights", "noted", "records_only"]

LOG = "DCN_READING"  # environment variable: the file to which a kernel writes what its page reads
RECORDS_ONLY = "DCN_RECORDS_ONLY"  # environment variable: set while a book is built, so that nothing trains or measures


@dataclasses.dataclass
class Reading:
    """What has been read.

    Attributes:
        files: those that were looked for, whether or not they are there.
        weights: name of a run → digest of its weights; empty if it has no record.
    """

    files: dict[Path, None] = dataclasses.field(default_factory=dict)
    weights: dict[str, str] = dataclasses.field(default_factory=dict)


_READINGS: list[Reading] = []


def records_only() -> bool:
    """Returns whether this process may only read records, because it belongs to the build of a book."""
    return bool(os.environ.get(RECORDS_ONLY))


@contextlib.contextmanager
def noted() -> Iterator[Reading]:
    """Gives what is read meanwhile in this process."""
    reading = Reading()
    _READINGS.append(reading)
    try:
        yield reading
    finally:
        _READINGS.remove(reading)


def note_file(path: Path) -> None:
    """Notes that a file of the project was looked for."""
    for reading in _READINGS:
        reading.files[path] = None
    _log("file", str(path))


def note_weights(run: str, digest: str) -> None:
    """Notes that the weights of a run, or its results, were read.

    Args:
        run: name of its record.
        digest: of its weights; empty if it has no record.
    """
    for reading in _READINGS:
        reading.weights[run] = digest


def log_modules() -> None:
    """Writes the project's modules that this process has loaded, for the build that executes a page in it."""
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] in ("dcn", "dcn_study") and getattr(module, "__file__", None):
            _log("module", str(module.__file__))


def _log(kind: str, text: str) -> None:
    target = os.environ.get(LOG)
    if target:
        with open(target, "a", encoding="utf-8") as file:
            file.write(f"{kind}\t{text}\n")
