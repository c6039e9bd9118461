"""The result of a run: read, and trained only if it is missing."""

from __future__ import annotations

from dcn_study.errors import LockedError, RecordError
from dcn_study.runs import records
from dcn_study.runs.files import wait_for
from dcn_study.runs.libraries import load_tensorflow
from dcn_study.runs.reading import records_only
from dcn_study.runs.records import Record
from dcn_study.runs.run import Run

__all__ = ["result"]


def result(run: Run, *, force: bool = False) -> Record:
    """Returns the record of a run; trains it if there is none, if its training was interrupted, or if `force`.

    Reading loads no TensorFlow. If another process trains the run, it waits, and without `force` returns that record.

    Raises:
        ConfigurationError, DataError, DivergedError: as `training.train`.
        RecordError: if the record is damaged, or is missing while only records may be read.
    """
    while True:
        found = records.matching(run)
        if found is not None and (records_only() or not (force or run.interrupted)):
            return found
        if records_only():
            raise RecordError(records.missing(run))
        load_tensorflow()
        from dcn_study.runs import training

        try:
            return training.train(run, force=force)
        except LockedError as error:
            wait_for(run.lock, str(error))
