"""The trained weights of runs, from the files next to their records."""

from __future__ import annotations

import keras

from dcn_study.errors import RecordError
from dcn_study.runs import records
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.data import load_digits
from dcn_study.runs.files import file_sha256
from dcn_study.runs.networks import build_model
from dcn_study.runs.reading import note_file, note_weights
from dcn_study.runs.records import Record

__all__ = ["load_model", "start_of"]


def load_model(record: Record) -> keras.Model:
    """Returns the trained model of a record, from the weights next to it.

    Raises:
        RecordError: if the weights are missing, or not those of the record.
    """
    path, restore = record.weights_path, record.run.how_to_restart
    note_file(path)
    if not path.is_file():
        raise RecordError(f"{path} is missing: the weights of run {record.name}. {restore}")
    expected, found = record.provenance.weights, file_sha256(path)
    if expected != found:
        raise RecordError(
            f"{path} is not what run {record.name} wrote: expected SHA-256 {expected}, found {found}. {restore}"
        )
    model = build_model(record.config, load_digits(record.config.data).x_test.shape[1:])
    model.load_weights(path)
    note_weights(record.name, found)
    return model


def start_of(config: RunConfig) -> keras.Model | None:
    """Returns the trained model whose weights a run starts from; None for random initial weights.

    Raises:
        ConfigurationError, RecordError: if the run that it starts from has no record, or a damaged one.
    """
    initial = records.initial_record(config)
    return None if initial is None else load_model(initial)
