"""The result of a run: read, trained only where there is none, waited for where another process trains it."""

import pytest
from helpers import keep

from dcn_study.errors import LockedError, RecordError
from dcn_study.runs import reading, records, results, training
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.run import CHECKPOINT

CNN = find_run("cnn")


@pytest.fixture
def trains(monkeypatch):
    """What training is asked for; it leaves a record."""
    asked = []
    monkeypatch.setattr(training, "train", lambda run, *, force: asked.append(force) or keep(run))
    return asked


def test_it_is_trained_once(project, trains):
    assert results.result(CNN) == results.result(CNN)
    assert trains == [False]
    results.result(CNN, force=True)
    assert trains == [False, True]


def test_an_interrupted_training_is_resumed_although_there_is_a_record(project, trains):
    record = keep(CNN)
    state = CNN.checkpoint / CHECKPOINT
    state.parent.mkdir(parents=True)
    state.touch()
    assert results.result(CNN) == record
    assert trains == [False]


def test_a_record_of_another_configuration_is_not_its_result(project, trains):
    record = keep(CNN)
    record.configuration["learning_rate"] *= 2
    records.write(record)
    assert results.result(CNN).run == CNN
    assert trains == [False]


def test_what_another_process_trains_is_waited_for(project, monkeypatch):
    waited = []

    def in_use(config, *, force):
        raise LockedError("run cnn is in use")

    def other_process_ends(path, why):
        waited.append((path, why))
        keep(CNN)

    monkeypatch.setattr(training, "train", in_use)
    monkeypatch.setattr(results, "wait_for", other_process_ends)
    assert results.result(CNN).name == "cnn"
    assert waited == [(CNN.lock, "run cnn is in use")]


def test_a_build_trains_nothing(project, trains, monkeypatch):
    monkeypatch.setenv(reading.RECORDS_ONLY, "1")
    with pytest.raises(RecordError, match=r"cnn.json is missing. Train it with: dcn train cnn"):
        results.result(CNN)
    record = keep(CNN)
    assert results.result(CNN, force=True) == record
    assert trains == []
