import json

import numpy as np
import pytest
from helpers import ROOT, keep, make

from dcn_study.errors import RecordError
from dcn_study.runs import inputs, measurements, records
from dcn_study.runs.catalogue import RUNS, find_run
from dcn_study.runs.data import load_digits
from dcn_study.runs.records import Confirmation


def test_a_record_survives_writing_and_reading(project):
    run = find_run("cnn", seed=2)
    record = keep(run)
    assert record.path == project / "book/records/cnn-seed2.json"
    assert records.read(run) == record
    assert records.read(run).run == run
    assert sorted(path.name for path in record.path.parent.iterdir()) == ["cnn-seed2.json", "cnn-seed2.weights.h5"]


def test_only_what_the_book_shows_is_written_among_its_records(project):
    beyond = len(RUNS["cnn"].seeds)
    for run in (find_run("cnn", epochs=1), find_run("cnn", seed=beyond), find_run("cnn_validation", seed=1)):
        assert keep(run).path.parent == project / "runs"
        assert records.read(run).run == run


def status_after(run, **changes):
    """The status of a fresh record whose inputs are other ones."""
    record = make(run)
    record.provenance.inputs = record.provenance.inputs.model_copy(update=changes)
    record.weights_path.parent.mkdir(parents=True, exist_ok=True)
    keep(run)
    return str(records.status(run, record))


def test_its_status_names_the_input_that_changed(project):
    run = find_run("cnn")
    assert str(records.status(run, None)) == "missing"
    assert status_after(run) == "fresh"
    assert str(records.status(run.changed(epochs=3), make(run))) == "stale: configuration"
    assert status_after(run, code="earlier") == "stale: code"
    assert status_after(run, data="other") == "stale: data"
    now = inputs.versions()
    told = status_after(run, versions={**now, "Keras": "3.0.0", "NumPy": "1.0.0"})
    assert told == f"stale: Keras 3.0.0, now {now['Keras']}; NumPy 1.0.0, now {now['NumPy']}"
    values = make(run).provenance.inputs.values
    told = status_after(run, values={**values, "batch_size": 8, "realisation": 5})
    assert told == "stale: batch_size 8, now 32; realisation 5, now 0"
    assert status_after(run, values={}) == "stale: values of the configuration, which were not recorded"


def test_a_record_depends_on_the_weights_that_it_starts_from(project):
    initial, run = find_run("cnn"), find_run("cnn_batch_norm")
    assert records.inspect(run) == (None, records.Status("missing"))
    origin, record = keep(initial), keep(run)
    assert str(records.status(run, record)) == "fresh"
    trained_again = keep(initial, weights="0" * 64)
    trained_again.weights_path.write_bytes(b"other weights")
    assert "weights of cnn" in records.status(run, record).changes
    records.write(origin)
    keep(initial, inputs=origin.provenance.inputs.model_copy(update={"code": "earlier"}))
    assert records.status(run, record).changes == ("cnn, from which it starts, is stale: code",)
    origin.path.unlink()
    assert records.status(run, record).changes == ("cnn, from which it starts, is missing",)


def test_a_record_depends_on_its_stored_weights(project):
    record = keep(find_run("cnn"))
    record.weights_path.write_bytes(b"other")
    assert str(records.inspect(record.run)[1]) == "stale: cnn.weights.h5 has other content"
    record.weights_path.unlink()
    assert str(records.inspect(record.run)[1]) == "stale: cnn.weights.h5 is missing"


def test_a_record_depends_on_the_content_of_its_data_file(project):
    digits = load_digits()
    arrays = {name: getattr(digits, name)[:9] for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez("own.npz", **arrays)
    run = find_run("cnn", data="own.npz", train_size=9, test_size=9)
    record = keep(run)
    assert str(records.status(run, record)) == "fresh"
    np.savez("own.npz", **{**arrays, "y_test": arrays["y_test"][::-1]})
    assert str(records.status(run, record)) == "stale: data"
    (project / "own.npz").unlink()
    assert records.inspect(run)[1].state == "damaged"
    assert "own.npz must be a readable .npz" in str(records.inspect(run)[1])


def test_a_confirmed_record_holds_under_the_inputs_of_its_replay(project):
    run = find_run("cnn")
    current = make(run).provenance.inputs
    record = keep(run, inputs=current.model_copy(update={"code": "earlier"}))

    def confirm(inputs):
        record.confirmations.append(
            Confirmation(inputs=inputs, machine=record.provenance.machine, date="2026", differences={})
        )
        return str(records.status(run, record))

    assert confirm(current.model_copy(update={"versions": {}})).startswith("stale: Keras none, now")
    assert confirm(current) == "confirmed"
    assert confirm(current.model_copy(update={"versions": {}})) == "confirmed"  # elsewhere, later


def replace(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('"format": 2', '"format": 99', "format: Input should be 2"),
        ('"provenance"', '"origin"', "provenance: Field required"),
        ('"weights": "', '"weight": "', "provenance.weights: Field required"),
        ('"loss": 0.1', '"loss": "low"', "history.0.loss: Input should be a valid number"),
        ('"epochs": 10', '"epochs": -1', "configuration: Value error, epochs must be from 1"),
        ('"accuracy": 0.8', '"accuracy": 0.9', "was edited"),
        ("{", "", "Extra data"),
    ],
)
def test_a_damaged_record_is_one_line_that_names_file_and_field(project, before, after, words):
    record = keep(find_run("cnn"))
    replace(record.path, before, after)
    with pytest.raises(RecordError, match=words) as error:
        records.read(record.run)
    assert str(record.path) in str(error.value)
    assert "\n" not in str(error.value)
    found, status = records.inspect(record.run)
    assert (found, status.state) == (None, "damaged")


def test_a_record_without_its_seal_is_damaged(project):
    record = keep(find_run("cnn"))
    content = json.loads(record.path.read_text())
    del content["sha256"]
    record.path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match="was edited"):
        records.read(record.run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda record: record.evaluations.pop("plain"),
            "evaluations must have the test sets of the task. Missing: plain",
        ),
        (lambda record: setattr(record.evaluations["plain"], "accuracy", 7.0), "accuracy: .*less than or equal to 1"),
        (lambda record: setattr(record.history[2], "loss", -1.0), "history.2.loss: .*greater than or equal to 0"),
        (lambda record: record.history.clear(), "history and witness must have the 10 epochs"),
        (lambda record: record.history.pop(3), "history and witness must have the 10 epochs"),
        (lambda record: record.witness.epochs.pop(), "history and witness must have the 10 epochs"),
        (
            lambda record: setattr(record, "name", "cnn-seed1"),
            "must hold the record of run cnn. Received: that of cnn-seed1",
        ),
    ],
)
def test_a_sealed_record_must_hold_what_a_run_gives(project, change, words):
    record = keep(find_run("cnn"))
    change(record)
    records.write(record)
    with pytest.raises(RecordError, match=words):
        records.read(record.run)


def test_a_number_that_is_not_finite_is_never_written(project):
    record = keep(find_run("cnn"))
    before = record.path.read_bytes()
    record.history[0].loss = float("nan")
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        records.write(record)
    assert record.path.read_bytes() == before
    assert len(list(record.path.parent.iterdir())) == 2


def test_the_committed_records_hold(monkeypatch):
    """Where other versions of the libraries are installed, nothing but these may have changed."""
    monkeypatch.chdir(ROOT)
    runs = [records.inspect(run) for run in records.shown()]
    statuses = [status for _, status in (*runs, *map(measurements.inspect, measurements.MEASUREMENTS))]
    recorded = runs[0][0].confirmations[-1].inputs.versions
    if inputs.versions() == recorded:
        assert [str(status) for status in statuses if not status.holds] == []
    for status in statuses:
        assert status.state in ("fresh", "confirmed", "stale")
        assert all(any(library in change for library in recorded) for change in status.changes), str(status)
