"""Confirmation: shows that the current code, libraries and machine give the results of a record."""

from __future__ import annotations

from dcn_study.runs import records
from dcn_study.runs.catalogue import keeps_weights
from dcn_study.runs.files import now
from dcn_study.runs.inputs import machine
from dcn_study.runs.networks import evaluate, load_model
from dcn_study.runs.records import Confirmation, Record
from dcn_study.runs.splits import Splits, splits
from dcn_study.runs.training import CODE_SHA256
from dcn_study.runs.witness import compare, objections, replay

__all__ = ["compare_evaluations", "confirm"]


def confirm(record: Record) -> list[str]:
    """Replays the first steps of a run and evaluates its stored weights again, with the current code and libraries.

    Where no weights are kept, the replay alone must do.

    If all numbers are those of the record, within tolerances that another processor meets too, a confirmation is added
    to it and the record is written.

    Returns:
        The differences found, in words; none if the record is confirmed.

    Raises:
        ConfigurationError, DataError, RecordError: if the data, the initial run or the weights are missing or damaged.
    """
    config = record.config
    data = splits(config)
    current = records.current_inputs(config).model_copy(update={"code": CODE_SHA256})
    made = record.provenance.inputs.model_copy(update={"code": current.code, "versions": current.versions})
    objected = made.changes(current)  # other data or initial weights: no replay can make up for them
    found = compare(replay(config, data), record.witness)
    if record.weights_path.is_file() or keeps_weights(config):
        found |= compare_evaluations(record, data)
    objected += objections(found, config.learning_rate, study=config.task == "mnist_scale")
    if not objected:
        confirmation = Confirmation(inputs=current, machine=machine(), date=now(), differences=found)
        same = [(each.inputs, each.machine) == (current, confirmation.machine) for each in record.confirmations]
        kept = [each for each, again in zip(record.confirmations, same, strict=True) if not again]
        record.confirmations = [*kept, confirmation]
        records.write(record)
    return objected


def compare_evaluations(record: Record, data: Splits) -> dict[str, float]:
    """Returns by how much the stored weights give other test losses (relative) and accuracies than recorded."""
    model = load_model(record)
    pairs = [(evaluate(model, data, kind), stored) for kind, stored in record.evaluations.items()]
    return {
        "test loss": max(abs(again.loss - stored.loss) / max(stored.loss, 1e-12) for again, stored in pairs),
        "test accuracy": max(abs(again.accuracy - stored.accuracy) for again, stored in pairs),
    }
