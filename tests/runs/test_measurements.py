"""Measurements: taken once, read without TensorFlow, stale with what they depend on, confirmed by a part of them."""

import contextlib
import inspect
import math
import subprocess
import sys

import pytest
from helpers import ROOT, keep, keep_measurement

from dcn_study.errors import LockedError, RecordError
from dcn_study.runs import measurements, reading, records, repetition
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.files import locked
from dcn_study.runs.measurements import MEASUREMENTS, Declared

THREE = {"repeats": 3}


@pytest.fixture
def taken(monkeypatch):
    """The parameters with which measurements are taken, and what each gives."""
    given = []
    monkeypatch.setattr(
        Declared, "measure", lambda self, parameters: given.append(dict(parameters)) or {"n": len(given)}
    )
    return given


def test_a_measurement_is_taken_once_and_named_by_its_parameters(project, taken):
    first = measurements.result("bench", THREE)
    assert first.path.parent == project / "runs"
    assert measurements.result("bench", THREE) == first
    assert measurements.result("bench").path == project / "book/records/bench.json"
    assert taken == [THREE, MEASUREMENTS["bench"].parameters]
    assert measurements.result("bench", THREE, force=True).results == {"n": 3}
    assert str(measurements.status("bench", THREE)) == "fresh"
    assert str(measurements.status("bench", {"repeats": 4})) == "missing"


def test_a_measurement_goes_stale_with_the_weights_that_it_read(project, monkeypatch):
    def evaluates(self, parameters):
        record = records.read(find_run("cnn"))
        reading.note_weights(record.name, record.provenance.weights)
        return {}

    record = keep(find_run("cnn"))
    monkeypatch.setattr(Declared, "measure", evaluates)
    assert measurements.result("robustness").inputs.weights.keys() == {"cnn"}
    assert str(measurements.status("robustness")) == "fresh"
    record = keep(find_run("cnn"), finished="later")
    assert str(measurements.status("robustness")) == "fresh"  # the same weights
    record.weights_path.write_bytes(b"others")
    told = "stale: cnn, which it evaluates, is stale: cnn.weights.h5 has other content"
    assert str(measurements.status("robustness")).startswith(told)
    keep(find_run("cnn"), weights="trained again")
    assert "weights of cnn" in measurements.status("robustness").changes


def test_a_damaged_measurement_is_one_line_that_names_file_and_field(project, taken):
    path = measurements.result("bench", THREE).path
    path.write_text(path.read_text().replace('"parameters"', '"arguments"'))
    with pytest.raises(RecordError, match=f"{path} is not a valid record: parameters: Field required"):
        measurements.read("bench", THREE)
    assert measurements.inspect("bench", THREE)[1].state == "damaged"
    assert measurements.result("bench", THREE, force=True).results == {"n": 2}


def test_where_only_records_may_be_read_nothing_is_measured(project, taken, monkeypatch):
    made = measurements.result("bench", THREE)
    monkeypatch.setenv(reading.RECORDS_ONLY, "1")
    assert measurements.result("bench", THREE, force=True) == made
    with pytest.raises(RecordError, match="bench-.* is missing. Take it, on an idle machine, with: dcn measure bench"):
        measurements.result("bench", {"repeats": 4})
    assert len(taken) == 1


def test_what_another_process_measures_is_waited_for(project, taken, monkeypatch):
    lock = project / "runs" / f".{measurements.path_of('bench', THREE).stem}.lock"
    holder, waited = contextlib.ExitStack(), []

    def other_process_ends(path, why):
        waited.append((path, why))
        holder.close()
        keep_measurement("bench", THREE, {"n": "theirs"})

    monkeypatch.setattr(measurements, "wait_for", other_process_ends)
    holder.enter_context(locked(lock, "it"))
    assert measurements.result("bench", THREE).results == {"n": "theirs"}
    assert [path for path, _ in waited] == [lock]
    assert "is in use by process" in waited[0][1]
    assert taken == []


def test_reading_loads_no_tensorflow():
    program = (
        "import sys\nfrom dcn_study.runs import measurements, results\nfrom dcn_study.runs.catalogue import RUNS\n"
    )
    program += "measurements.result('offsets'), results.result(RUNS['cnn'])\n"
    program += "sys.exit('loaded' if 'tensorflow' in sys.modules else 0)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_what_is_declared_is_what_the_function_takes(name):
    declared = MEASUREMENTS[name]
    module, _, function = declared.function.partition(".")
    taken = inspect.signature(getattr(__import__(f"dcn_study.experiments.{module}", fromlist=[module]), function))
    assert set(declared.parameters) == set(taken.parameters) - {"peer_python"}
    for key, value in (declared.repeat or {}).items():
        whole = declared.parameters[key]
        assert value in str(whole) if isinstance(value, str) else value < whole


@pytest.fixture
def measured(project, monkeypatch):
    """A stale measurement, and a function that sets what a repetition of it gives."""
    record = keep_measurement("sensitivity", results={"accuracies": {"cnn": {"ours": [0.5, 0.6], "keras": [0.4, 0.3]}}})
    record.inputs = record.inputs.model_copy(update={"code": "earlier"})
    records.write(record)

    def repeats(found):
        def measure(self, parameters):
            assert parameters == {**MEASUREMENTS["sensitivity"].parameters, "draws": 1}
            return found

        monkeypatch.setattr(Declared, "measure", measure)

    return record, repeats


def test_the_same_beginning_confirms(measured):
    record, repeats = measured
    repeats({"accuracies": {"cnn": {"ours": [0.5001], "keras": [0.4]}}})
    assert str(measurements.status("sensitivity")) == "stale: code"
    assert repetition.confirm(record) == []
    assert str(measurements.status("sensitivity")) == "confirmed"
    kept = measurements.read("sensitivity")
    assert kept.results == record.results
    assert kept.confirmations[0].differences["results"] == pytest.approx(1e-4)
    assert repetition.confirm(record) == []
    assert len(measurements.read("sensitivity").confirmations) == 1  # with the same inputs, on the same machine


def test_weights_that_a_part_does_not_read_count_too(measured):
    record, repeats = measured
    record.inputs = record.inputs.model_copy(update={"weights": {keep(find_run("cnn")).name: "others"}})
    records.write(record)
    repeats({"accuracies": {"cnn": {"ours": [0.5], "keras": [0.4]}}})
    assert repetition.confirm(record) == ["weights of cnn"]


def test_a_measurement_that_is_taken_meanwhile_is_not_overwritten(measured):
    record, _ = measured
    with locked(measurements.lock_of(record.path), "it"), pytest.raises(LockedError, match="in use by process"):
        repetition.confirm(record)
    records.write(record.model_copy(update={"started": "later"}))
    with pytest.raises(RecordError, match="was replaced meanwhile"):
        repetition.confirm(record)


@pytest.mark.parametrize("other", [{"ours": [0.51], "keras": [0.4]}, {"ours": [0.5]}, {"ours": [0.5] * 3, "keras": []}])
def test_other_numbers_or_another_form_do_not(measured, other):
    record, repeats = measured
    repeats({"accuracies": {"cnn": other}})
    assert repetition.confirm(record)
    assert str(measurements.status("sensitivity")) == "stale: code"


def test_differences_are_relative_for_large_numbers():
    assert repetition.differences({"a": [100.0, "x"]}, {"a": [101.0, "x", 3]}) == {
        "results.a.0": pytest.approx(1 / 101)
    }
    assert repetition.differences({"a": "x"}, {"a": "y"}) == {"results.a": math.inf}


def test_times_are_compared_as_ratios_to_the_regular_network():
    def results(*rows):
        return {
            "rows": [{"model": m, "batch": b, "size": 28, "what": "forward", "milliseconds": t} for m, b, t in rows]
        }

    recorded = results(("CNN", 1, 2.0), ("deformable CNN", 1, 6.0), ("CNN", 32, 10.0), ("deformable CNN", 32, 40.0))
    found = results(("CNN", 32, 20.0), ("deformable CNN", 32, 100.0))  # a slower machine, and slower by a quarter
    assert repetition.ratio_differences(found, recorded) == {
        "CNN 32 28 forward": 0.0,
        "deformable CNN 32 28 forward": pytest.approx(0.25),
    }
    assert repetition.ratio_differences(results(("CNN", 2, 1.0)), recorded) == {"CNN 2 28 forward": math.inf}


def test_times_are_taken_again(project):
    record = keep_measurement("bench")
    assert repetition.confirm(record) == ["it is taken again, not confirmed, with: dcn measure bench"]
