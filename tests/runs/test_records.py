import dataclasses

import numpy as np
import pydantic_core
import pytest
from helpers import ROOT, keep, make

from dcn_study.errors import ConfigurationError, RecordError
from dcn_study.runs import inputs, measurements, records
from dcn_study.runs.catalogue import SEEDS, run_config
from dcn_study.runs.data import load_digits
from dcn_study.runs.records import Confirmation


def test_a_record_survives_writing_and_reading(project):
    config = run_config("cnn", seed=2)
    record = keep(config)
    assert record.path == project / "book/records/cnn-seed2.json"
    assert records.read(config) == record
    assert records.read(config).config == config
    assert sorted(path.name for path in record.path.parent.iterdir()) == ["cnn-seed2.json", "cnn-seed2.weights.h5"]


def test_only_what_the_book_shows_is_written_among_its_records(project):
    beyond = run_config("cnn", seed=SEEDS["cnn"])
    for config in (run_config("cnn", epochs=1), beyond, run_config("cnn_validation", seed=1)):
        assert records.record_path(config).parent == project / "runs"
    assert records.record_path(beyond, book=True).parent == project / "book/records"
    with pytest.raises(ConfigurationError, match="only named runs have records of the book. Received: cnn-"):
        records.record_path(run_config("cnn", epochs=1), book=True)


def test_a_further_seed_is_found_where_it_was_trained(project):
    config = run_config("cnn", seed=SEEDS["cnn"])
    record = make(config)
    record.path = records.record_path(config, book=True)
    records.write(record)
    assert records.read(config).path == record.path
    own = make(config)
    records.write(own)
    assert records.read(config).path == own.path != record.path
    assert records.read(config, book=True).path == record.path


def standing_after(config, **changes):
    """The standing of a fresh record whose inputs are other ones."""
    record = make(config)
    record.provenance.inputs = record.provenance.inputs.model_copy(update=changes)
    record.weights_path.parent.mkdir(parents=True, exist_ok=True)
    keep(config)
    return str(records.standing(config, record))


def test_standing_names_the_input_that_changed(project):
    config = run_config("cnn")
    assert str(records.standing(config, None)) == "missing"
    assert standing_after(config) == "fresh"
    assert str(records.standing(dataclasses.replace(config, epochs=3), make(config))) == "stale: configuration"
    assert standing_after(config, code="earlier") == "stale: code"
    assert standing_after(config, data="other") == "stale: data"
    now = inputs.versions()
    told = standing_after(config, versions={**now, "Keras": "3.0.0", "NumPy": "1.0.0"})
    assert told == f"stale: Keras 3.0.0, now {now['Keras']}; NumPy 1.0.0, now {now['NumPy']}"


def test_a_record_depends_on_the_weights_that_it_starts_from(project):
    initial, config = run_config("cnn"), run_config("cnn_batch_norm")
    assert records.inspect(config) == (None, records.Standing("missing"))
    origin, record = keep(initial), keep(config)
    assert str(records.standing(config, record)) == "fresh"
    trained_again = keep(initial, weights="0" * 64)
    trained_again.weights_path.write_bytes(b"other weights")
    assert "weights of cnn" in records.standing(config, record).changes
    records.write(origin)
    keep(initial, inputs=origin.provenance.inputs.model_copy(update={"code": "earlier"}))
    assert records.standing(config, record).changes == ("cnn, from which it starts, is stale: code",)
    origin.path.unlink()
    assert records.standing(config, record).changes == ("cnn, from which it starts, is missing",)


def test_a_record_depends_on_its_stored_weights(project):
    record = keep(run_config("cnn"))
    record.weights_path.write_bytes(b"other")
    assert str(records.inspect(record.config)[1]) == "stale: cnn.weights.h5 has other content"
    record.weights_path.unlink()
    assert str(records.inspect(record.config)[1]) == "stale: cnn.weights.h5 is missing"


def test_a_record_depends_on_the_content_of_its_data_file(project):
    digits = load_digits()
    arrays = {name: getattr(digits, name)[:9] for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez("own.npz", **arrays)
    config = run_config("cnn", data="own.npz", train_size=9, test_size=9)
    record = keep(config)
    assert str(records.standing(config, record)) == "fresh"
    np.savez("own.npz", **{**arrays, "y_test": arrays["y_test"][::-1]})
    assert str(records.standing(config, record)) == "stale: data"
    (project / "own.npz").unlink()
    assert records.inspect(config)[1].state == "damaged"
    assert "own.npz must be a readable .npz" in str(records.inspect(config)[1])


def test_a_confirmed_record_holds_under_the_inputs_of_its_replay(project):
    config = run_config("cnn")
    current = make(config).provenance.inputs
    record = keep(config, inputs=current.model_copy(update={"code": "earlier"}))

    def confirm(inputs):
        record.confirmations.append(
            Confirmation(inputs=inputs, machine=record.provenance.machine, date="2026", differences={})
        )
        return str(records.standing(config, record))

    assert confirm(current.model_copy(update={"versions": {}})).startswith("stale: Keras none, now")
    assert confirm(current) == "confirmed"


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
        ('"epochs": 10', '"epochs": -1', "configuration: Value error, epochs must be at least 1"),
        ('"accuracy": 0.8', '"accuracy": 0.9', "was edited"),
        ("{", "", "Extra data"),
    ],
)
def test_a_damaged_record_is_one_line_that_names_file_and_field(project, before, after, words):
    record = keep(run_config("cnn"))
    replace(record.path, before, after)
    with pytest.raises(RecordError, match=words) as error:
        records.read(record.config)
    assert str(record.path) in str(error.value)
    assert "\n" not in str(error.value)
    found, standing = records.inspect(record.config)
    assert (found, standing.state) == (None, "damaged")


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
    record = keep(run_config("cnn"))
    change(record)
    records.write(record)
    with pytest.raises(RecordError, match=words):
        records.read(record.config)


def test_a_number_that_is_not_finite_is_never_written(project):
    record = keep(run_config("cnn"))
    before = record.path.read_bytes()
    record.history[0].loss = float("nan")
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        records.write(record)
    assert record.path.read_bytes() == before


def test_a_failed_write_leaves_the_former_record(project):
    record = keep(run_config("cnn"))
    broken = make(record.config)
    broken.history[0].loss = object()
    with pytest.raises(pydantic_core.PydanticSerializationError, match="Unable to serialize"):
        records.write(broken)
    assert records.read(record.config) == record
    assert len(list(record.path.parent.iterdir())) == 2


def test_the_committed_records_hold(monkeypatch):
    """Where other versions of the libraries are installed, nothing but these may have changed."""
    monkeypatch.chdir(ROOT)
    runs = [records.inspect(config) for config in records.shown()]
    standings = [standing for _, standing in (*runs, *map(measurements.inspect, measurements.MEASUREMENTS))]
    recorded = runs[0][0].confirmations[-1].inputs.versions
    if inputs.versions() == recorded:
        assert [str(standing) for standing in standings if not standing.holds] == []
    for standing in standings:
        assert standing.state in ("fresh", "confirmed", "stale")
        assert all(any(library in change for library in recorded) for change in standing.changes), str(standing)
