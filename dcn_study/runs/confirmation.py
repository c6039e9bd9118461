"""Confirmation: shows that the current code, libraries and machine give the results of a record."""

from __future__ import annotations

from dcn_study.errors import RecordError
from dcn_study.runs import records, steps, weights
from dcn_study.runs.files import locked, now
from dcn_study.runs.inputs import code_sha256, machine
from dcn_study.runs.progress import Bar, Reporting
from dcn_study.runs.records import Confirmation, Record
from dcn_study.runs.splits import Splits, splits
from dcn_study.runs.tolerances import compare, violations

__all__ = ["CODE_SHA256", "compare_evaluations", "confirm"]

CODE_SHA256 = code_sha256()  # taken now: this process keeps running this code, whatever is edited meanwhile


def confirm(record: Record, *, every_seed: bool = True) -> list[str]:
    """Replays the first steps of a run and evaluates its stored weights again, with the current code and libraries.

    Where no weights are kept, the replay alone must do.

    Args:
        record: of the run.
        every_seed: whether to evaluate the weights of a named run with a seed above 0 too. The same code evaluates
            those of seed 0, and their files are checked by their digests either way.

    If all numbers are those of the record, within tolerances that another processor meets too, a confirmation is added
    to it and the record is written.

    Returns:
        The differences found, in words; none if the record is confirmed.

    Raises:
        ConfigurationError, DataError, RecordError: if the data, the initial run or the weights are missing or damaged.
        LockedError: if another process trains or confirms this run.
    """
    with locked(record.run.lock, f"run {record.name}"):
        there = records.read(record.run)
        if there is None or there.provenance.finished != record.provenance.finished:
            raise RecordError(f"the record of run {record.name} was replaced meanwhile. Confirm it again")
        return _confirm(record, every_seed)


def _confirm(record: Record, every_seed: bool) -> list[str]:
    config = record.config
    data = splits(config)
    current = records.current_inputs(config).model_copy(update={"code": CODE_SHA256})
    replayed = {name: getattr(current, name) for name in ("code", "versions", "values")}
    made = record.provenance.inputs.model_copy(update=replayed)
    found = made.changes(current)  # other data or initial weights: no replay can make up for them
    differences = compare(steps.replay(data, weights.start_of(config)), record.witness)
    evaluated = every_seed or config.seed == 0 or not record.run.entry
    if evaluated and (record.weights_path.is_file() or record.run.keeps_weights):
        differences |= compare_evaluations(record, data)
    found += violations(differences, config)
    if not found:
        confirmation = Confirmation(inputs=current, machine=machine(), date=now(), differences=differences)
        records.add_confirmation(record, confirmation)
    return found


def compare_evaluations(record: Record, data: Splits) -> dict[str, float]:
    """Returns by how much the stored weights give other test losses (relative) and accuracies than recorded."""
    model, epochs = weights.load_model(record), record.config.epochs
    with Bar() as bar, Reporting(record.name, epochs, epochs, bar).evaluations(model):
        again = steps.evaluations(model, data)
    pairs = [(again[kind], stored) for kind, stored in record.evaluations.items()]
    return {
        "test loss": max(abs(again.loss - stored.loss) / max(stored.loss, 1e-12) for again, stored in pairs),
        "test accuracy": max(abs(again.accuracy - stored.accuracy) for again, stored in pairs),
    }
