"""The errors that the study raises on purpose. The `dcn` command prints their message; anything else is a defect."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BookError",
    "ClusterError",
    "ConfigurationError",
    "DataError",
    "DivergedError",
    "LockedError",
    "PageError",
    "RecordError",
    "StudyError",
    "did_you_mean",
]


class StudyError(Exception):
    """Base class: something outside the code is wrong, and the message says what and what to do."""

    exit_code = 1


class ConfigurationError(StudyError):
    """A parameter breaks a rule; the message names the parameter, the rule and the value."""

    exit_code = 2


class DataError(StudyError):
    """A data file is missing, damaged or of another form; the message names the file and what was found."""


class RecordError(StudyError):
    """A record, its weights or a checkpoint is missing, damaged or of no use; the message names the file."""


class DivergedError(StudyError):
    """The loss of a training is no longer finite; the message names the run and the epoch."""


class LockedError(StudyError):
    """Another process works on the same run or book; the message names the process."""


class PageError(StudyError):
    """A notebook is missing, or its parameters are not declared as they should be."""


class ClusterError(StudyError):
    """The scheduler of a cluster is gone, or a worker cannot be used; the message says which, and what to do."""


class BookError(StudyError):
    """A notebook failed or the book could not be built; nothing that was there before has changed."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Returns the end of a message about an unknown name: the nearest valid one, if there is one, as a question."""
    near = difflib.get_close_matches(name.lower(), valid, 1)
    return f", did you mean {near[0]}?" if near else "."
