import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import inside, new_project, results_of

from dcn import models
from dcn_study.errors import ConfigurationError, DivergedError, LockedError, RecordError, StudyError
from dcn_study.runs import files, networks, records, steps, training, weights
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.files import file_sha256, locked
from dcn_study.runs.progress import Bar, Progress
from dcn_study.runs.splits import Splits, splits

SMALL = {"epochs": 2, "train_size": 96, "test_size": 40}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with one small finished run, and its record."""
    root = new_project(tmp_path_factory.mktemp("project"))
    with inside(root):
        record = training.train(find_run("cnn", **SMALL))
    return root, record


@pytest.fixture
def finished(trained, monkeypatch):
    monkeypatch.chdir(trained[0])
    return trained[1]


@pytest.fixture
def stopped(project, monkeypatch):
    """Trains a run until its first checkpoint; returns the file of its state, and what this contains."""

    def stop(run):
        def stop_after(*given):
            save(*given)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            save = training._save  # noqa: SLF001
            patch.setattr(training, "_save", stop_after)
            with pytest.raises(KeyboardInterrupt):
                training.train(run, force=True)
        state = project / "checkpoints" / run.name / "state.json"
        content = json.loads(state.read_text())
        del content["sha256"]  # so that the tests may change it
        return state, content

    return stop


def test_the_record_is_complete(finished):
    record = finished
    assert record == records.read(record.run)
    assert [epoch.epoch for epoch in record.history] == [1, 2]
    assert record.evaluations["plain"].accuracy == record.history[-1].validation_accuracy
    assert {evaluation.images for evaluation in record.evaluations.values()} == {40}
    assert len(record.witness.losses) == 3  # an epoch has no more steps
    assert len(record.witness.norms) == len(models.cnn().weights)
    assert len(record.witness.epochs) == 2
    assert record.provenance.weights == file_sha256(record.weights_path)
    assert record.provenance.inputs == records.current_inputs(record.config)
    assert str(records.status(record.run, record)) == "fresh"
    assert not record.run.interrupted


def test_a_record_is_read_and_not_trained_again(finished, monkeypatch):
    monkeypatch.setattr(training, "initial_model", None)
    assert training.train(finished.run) == finished


def test_a_clock_that_goes_backward_changes_what_is_stated_and_nothing_else(finished, monkeypatch):
    times = iter(f"2026-01-02T03:04:{second:02}+00:00" for second in range(59, 0, -1))
    for module in (training, files):
        monkeypatch.setattr(module, "now", lambda: next(times))
    again = training.train(finished.run, force=True)
    assert again.provenance.started > again.provenance.finished
    assert again.provenance.seconds > 0
    assert again.evaluations == finished.evaluations
    assert str(records.status(again.run, records.read(again.run))) == "fresh"


def test_stored_weights_give_the_recorded_results_and_keras_agrees(finished):
    model, data = weights.load_model(finished), splits(finished.config)
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    for kind, stored in finished.evaluations.items():
        assert networks.evaluate(model, data, kind) == stored
        assert model.evaluate(*data.test(kind), verbose=0) == pytest.approx([stored.loss, stored.accuracy], rel=1e-5)


def test_logits_are_what_the_softmax_takes(finished):
    model, (images, _) = weights.load_model(finished), splits(finished.config).test("plain")
    found = np.exp(networks.logits(model, images))
    np.testing.assert_allclose(found / found.sum(axis=1, keepdims=True), model(images), rtol=1e-4)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (find_run("deformable_cnn", **SMALL), "cnn.json is missing. Received: initial_run='cnn', seed=0"),
        (find_run("cnn", train_size=60_001), "train_size must be at most"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_starts(project, run, words):
    with pytest.raises(ConfigurationError, match=words):
        training.train(run)
    assert {path.name for path in project.iterdir()} == {"_config.yml", "book"}


def test_a_file_in_the_place_of_the_folder_of_records_is_found_before_anything_starts(project, monkeypatch):
    monkeypatch.setattr(training, "initial_model", None)
    (project / "runs").touch()
    with pytest.raises(NotADirectoryError, match=f"{project / 'runs'} must be a folder"):
        training.train(find_run("cnn", **SMALL))


def test_a_deformable_run_starts_from_weights_by_name(project, monkeypatch):
    small = {**SMALL, "epochs": 1, "train_size": 32}
    initial = training.train(find_run("cnn", **small))
    monkeypatch.setattr(records, "initial_record", lambda config: initial if config.initial_run else None)
    record = training.train(find_run("deformable_cnn", **small))
    assert record.provenance.inputs.weights == {initial.name: initial.provenance.weights}
    before, after = weights.load_model(initial), weights.load_model(record)
    for name in ("conv11", "conv12", "conv21", "conv22", "fc1"):
        for old, new in zip(before.get_layer(name).get_weights(), after.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
    assert not np.array_equal(before.get_layer("conv11_bn").gamma, after.get_layer("conv11_bn").gamma)


def test_a_diverged_run_leaves_no_record(project):
    run = find_run("cnn", **SMALL, learning_rate=1e30)
    with pytest.raises(DivergedError, match=r"run cnn-\w+ diverged in epoch 1: the .* lower learning rate than 1e\+30"):
        training.train(run)
    assert records.read(run) is None


@pytest.mark.parametrize("error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM")], ids=str)
def test_memory_that_runs_out_is_one_line(project, monkeypatch, error):
    monkeypatch.setattr(steps, "train_epoch", lambda *given: (_ for _ in ()).throw(error))
    with pytest.raises(StudyError, match=r"^memory ran out in run cnn-\w+; complete epochs are kept$"):
        training.train(find_run("cnn", **SMALL))


def test_held_out_images_validate_and_the_test_images_are_evaluated_too(project):
    record = training.train(find_run("mini_resnet", **{**SMALL, "train_size": 66}, validation_size=30))
    last = record.history[-1]
    assert last.test_accuracy == record.evaluations["plain"].accuracy
    assert last.test_loss == record.evaluations["plain"].loss
    images, labels = splits(record.config).validation("plain")
    predicted = weights.load_model(record).predict(images, verbose=0).argmax(axis=1)
    assert last.validation_accuracy == (predicted == labels).mean()


def test_without_a_learning_rate_only_running_statistics_change(project):
    run = find_run("mini_resnet", **{**SMALL, "epochs": 1}, learning_rate=0.0)
    before = networks.initial_model(splits(run.config), None)
    after = weights.load_model(training.train(run))
    for old, new in zip(before.weights, after.weights, strict=True):
        moves = new.name in ("moving_mean", "moving_variance")
        assert np.array_equal(old, new) != moves, new.path


def test_repairs_reach_the_layers_and_survive_a_checkpoint(tmp_path):
    run = find_run("deformable_mini_resnet", corners="bilinear", pairing="per_pixel", chained=True)
    model = networks.build_model(run.config)
    model.save(tmp_path / "model.keras")
    for each in (model, keras.models.load_model(tmp_path / "model.keras")):
        offsets = [layer for layer in each.layers if layer.name.endswith("_offset")]
        assert len(offsets) == 4
        assert {(layer.corners, layer.pairing) for layer in offsets} == {("bilinear", "per_pixel")}


SCRIPT = """
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.training import train
train(find_run("mini_resnet", epochs=8, train_size=160, test_size=40))
"""


def test_a_killed_run_resumes_with_the_result_of_an_uninterrupted_one(project, monkeypatch):
    run = find_run("mini_resnet", epochs=8, train_size=160, test_size=40)
    state = project / "checkpoints" / run.name / "state.json"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT])
    while process.poll() is None and not state.is_file():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = len(json.loads(state.read_text())["history"])
    assert 1 <= finished < 8
    assert records.read(run) is None
    assert run.interrupted
    epochs = []
    train = Splits.train
    monkeypatch.setattr(Splits, "train", lambda *given: epochs.append(1) or train(*given))
    resumed = training.train(run)  # the lock of the dead process is taken over
    assert len(epochs) == 8 - finished
    whole = training.train(run, force=True)
    assert len(epochs) == 8 - finished + 8
    assert results_of(resumed) == results_of(whole)


def test_force_trains_from_nothing(stopped):
    run = find_run("mini_resnet", **SMALL)
    state, _ = stopped(run)
    state.write_text("damaged")
    record = training.train(run, force=True)
    assert len(record.history) == 2
    record.path.write_text("damaged too")
    assert training.train(run, force=True).evaluations == record.evaluations


def test_an_interrupted_training_resumes_although_there_is_a_record(stopped):
    run = find_run("mini_resnet", **SMALL)
    first = training.train(run)
    stopped(run)
    second = training.train(run)
    assert second.provenance.started >= first.provenance.finished
    assert second.evaluations == first.evaluations
    assert not run.interrupted


def test_what_another_process_has_trained_meanwhile_is_not_trained_again(stopped, monkeypatch):
    run = find_run("mini_resnet", **SMALL)
    first, split = training.train(run), training.splits
    first.path.rename(first.path.with_suffix(".hidden"))

    def meanwhile(config):
        first.path.with_suffix(".hidden").rename(first.path)
        return split(config)

    monkeypatch.setattr(training, "splits", meanwhile)
    monkeypatch.setattr(training, "_train", None)
    assert training.train(run).provenance == first.provenance


def test_a_checkpoint_of_another_number_of_epochs_is_not_continued(stopped):
    run = find_run("mini_resnet", **SMALL)
    state, content = stopped(run)
    content["configuration"]["epochs"] = 3
    state.write_text(json.dumps(content))
    assert training.train(run).provenance.started > content["started"]


def test_a_training_that_ended_before_its_record_was_written_is_not_repeated(stopped, monkeypatch):
    run = find_run("mini_resnet", **{**SMALL, "epochs": 1})
    stopped(run)
    monkeypatch.setattr(training, "_train_epoch", None)
    assert len(training.train(run).history) == 1


def test_a_checkpoint_of_other_code_is_used_only_if_it_computes_the_same(stopped):
    run = find_run("mini_resnet", **SMALL)
    state, content = stopped(run)
    content["earlier"] = [{**content["inputs"], "code": "earliest"}]
    content["inputs"]["code"] = "earlier"
    other = {**content, "witness": {**content["witness"], "losses": [9.0, 9.0, 9.0]}}
    state.write_text(json.dumps(other))
    with pytest.raises(
        RecordError, match=r"inputs \(code\), and a replay .* \(first losses differ by .* dcn run, with --force"
    ):
        training.train(run)
    state.write_text(json.dumps(content))
    record = training.train(run)
    assert len(record.history) == 2
    assert [inputs.code for inputs in record.provenance.earlier] == ["earliest", "earlier"]


@pytest.mark.parametrize("changed", [{"data": "other"}, {"weights": {"cnn": "other"}}])
def test_a_checkpoint_from_other_data_or_initial_weights_is_refused(stopped, changed):
    run = find_run("mini_resnet", **SMALL)
    state, content = stopped(run)
    state.write_text(json.dumps({**content, "inputs": {**content["inputs"], **changed}}))
    with pytest.raises(RecordError, match=r"from other inputs \((data|weights of cnn)\)\. Train from nothing"):
        training.train(run)


def test_one_process_trains_a_run(project):
    run = find_run("mini_resnet", **SMALL)
    in_use = pytest.raises(LockedError, match=f"run mini_resnet-.* is in use by process {os.getpid()} on .*, since")
    with locked(run.lock, "run"), in_use:
        training.train(run)


@pytest.mark.parametrize("model", ["cnn", "transformer_cnn"])
def test_a_run_on_a_realisation_keeps_predictions_fields_and_re_estimated_results(project, model):
    run = find_run(
        "cnn", model=model, task="mnist_pooled", epochs=1, batch_size=32, train_size=96, validation_size=40,
        test_size=60, scaled_test_size=60, re_estimate=True,
    )  # fmt: skip
    record = training.train(run)
    kept = np.load(record.predictions_path)
    for kind, name in (("plain", "predicted"), ("scaled", "predicted_scaled")):
        assert (kept[name] == kept["labels"]).mean() == record.evaluations[kind].accuracy
    assert set(record.field_areas) == {"plain", "scaled"}
    assert all(1 <= area <= 28 * 28 for area in record.field_areas.values())
    assert record.evaluations["validation"].accuracy == record.history[-1].validation_accuracy
    # After three steps the running averages are far from those of the images, and estimated anew they are not.
    assert record.evaluations["plain, re-estimated"].loss < record.evaluations["plain"].loss
    assert str(records.status(run, record)) == "fresh"


def test_re_estimated_statistics_are_the_means_of_the_batches(random):
    images = random.uniform(size=(70, 12, 10, 1)).astype("float32")
    model = models.cnn((12, 10, 1))
    again = networks.re_estimated(model, images, 32)
    features = keras.Model(model.input, model.get_layer("conv11_relu").output)(images)
    expected = [np.mean(features[start : start + 32], axis=(0, 1, 2)) for start in (0, 32)]
    np.testing.assert_allclose(again.get_layer("conv11_bn").moving_mean, np.mean(expected, axis=0), rtol=1e-4)
    np.testing.assert_array_equal(model.get_layer("conv11_bn").moving_mean, np.zeros(32))  # the model stays as it was


def test_training_again_gives_the_same_numbers_and_its_evaluations_are_reported(finished):
    told = []
    again = training.train(finished.run, force=True, report=told.append)
    assert results_of(again) == results_of(finished)
    evaluated = [progress for progress in told if progress.loss is None]
    # Of the test images after each epoch, then of both test sets.
    assert [(each.epoch, each.step, each.steps) for each in evaluated] == [
        (epoch, step, 1) for epoch in (1, 2, 2, 2) for step in (0, 1)
    ]
    assert [progress.epoch for progress in told if progress.loss is not None and progress.step == 3] == [1, 2]


def test_an_evaluation_has_a_bar_of_its_own_that_goes(capsys):
    with Bar() as bar:
        for epoch in (1, 2):
            for step in (1, 3):
                bar(Progress("cnn", epoch, 2, step, 3, 0.5, 0.25))
            for step in (0, 10):
                bar(Progress("cnn", epoch, 2, step, 20))
            assert f"cnn {epoch}/2, evaluating:   0%" in capsys.readouterr().err
    shown = capsys.readouterr().err
    assert shown.endswith("\r")  # of the evaluation nothing is left
    assert "loss" not in shown
