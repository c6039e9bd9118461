"""Measurements are confirmed by repeating a part of them."""

import math

import pytest

from dcn_study.experiments import repetition
from dcn_study.runs import records
from dcn_study.runs.catalogue import MEASUREMENTS
from dcn_study.runs.data import data_sha256


@pytest.fixture
def measured(project, monkeypatch):
    """A stale measurement, and a function that sets what a repetition of it gives."""
    results = {"accuracies": {"cnn": {"ours": [0.5, 0.6], "keras": [0.4, 0.3]}}}
    name, data = "sensitivity", data_sha256()
    record = records.measurement(name, MEASUREMENTS[name], lambda: results, data=data)
    record.inputs = record.inputs.model_copy(update={"code": "earlier"})
    records.write(record)

    def repeats(found):
        def take(*, force, **parameters):
            assert force
            assert parameters == {**MEASUREMENTS[name], "draws": 1}
            return records.measurement(name, parameters, lambda: found, data=data, force=True)

        monkeypatch.setattr("dcn_study.experiments.sensitivity.sensitivity", take)

    return record, repeats


def test_the_same_beginning_confirms(measured):
    record, repeats = measured
    repeats({"accuracies": {"cnn": {"ours": [0.5001], "keras": [0.4]}}})
    assert str(records.measurement_standing("sensitivity", {})) == "stale: code"
    assert repetition.confirm(record) == []
    assert str(records.measurement_standing("sensitivity", {})) == "confirmed"
    kept = records.read_measurement("sensitivity", {})
    assert kept.results == record.results
    assert kept.confirmations[0].differences["results"] == pytest.approx(1e-4)


@pytest.mark.parametrize("other", [{"ours": [0.51], "keras": [0.4]}, {"ours": [0.5]}, {"ours": [0.5] * 3, "keras": []}])
def test_other_numbers_or_another_form_do_not(measured, other):
    record, repeats = measured
    repeats({"accuracies": {"cnn": other}})
    assert repetition.confirm(record)
    assert str(records.measurement_standing("sensitivity", {})) == "stale: code"


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
    record = records.measurement("bench", MEASUREMENTS["bench"], dict)
    assert repetition.confirm(record) == ["it is taken again, not confirmed, with: dcn bench --record"]


def test_what_is_repeated_is_a_part_of_what_is_measured():
    for name, (_, _, changes) in repetition.REPEATED.items():
        assert set(changes) <= set(MEASUREMENTS[name])
        assert all(
            value in str(whole) if isinstance(value, str) else value < whole
            for key, value in changes.items()
            for whole in [MEASUREMENTS[name][key]]
        )
