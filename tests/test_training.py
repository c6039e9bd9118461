import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from dcn.study import records, training
from dcn.study.config import ConfigurationError, run_config
from dcn.study.data import splits
from dcn.study.records import RecordError

SMALL = {"epochs": 2, "train_size": 96, "test_size": 40}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with one small finished run, and its record."""
    root = tmp_path_factory.mktemp("project")
    (root / "book").mkdir()
    (root / "_config.yml").touch()
    before = os.getcwd()
    os.chdir(root)
    record = training.train(run_config("cnn", **SMALL), progress=False)
    os.chdir(before)
    return root, record


@pytest.fixture
def inside(trained, monkeypatch):
    monkeypatch.chdir(trained[0])
    return trained[1]


def test_the_record_is_complete(inside):
    record = inside
    assert record == records.read(record.config)
    assert [epoch["epoch"] for epoch in record.history] == [1, 2]
    for epoch in record.history:
        assert np.isfinite(list(epoch.values())).all()
    assert record.evaluations["plain"]["accuracy"] == record.history[-1]["validation_accuracy"]
    assert {evaluation["images"] for evaluation in record.evaluations.values()} == {40}
    assert len(record.witness) == 3  # an epoch has no more steps
    origin = record.provenance
    assert origin["weights_sha256"] == records.file_sha256(records.weights_path(record.config))
    assert origin["code_sha256"] == records.code_sha256()
    assert records.standing(record.config, record) == "fresh"
    assert not list((records.project_root() / "checkpoints").iterdir())


def test_a_record_is_read_and_not_trained_again(inside, monkeypatch):
    monkeypatch.setattr(training, "_train_epoch", None)
    assert training.train(inside.config) == inside


def test_training_again_gives_the_same_numbers(inside):
    again = training.train(inside.config, force=True, progress=False)
    assert again.witness == inside.witness
    assert again.evaluations == inside.evaluations
    for first, second in zip(inside.history, again.history, strict=True):
        assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_stored_weights_give_the_recorded_accuracy(inside):
    model = training.load_model(inside)
    for kind, stored in inside.evaluations.items():
        assert training.evaluate(model, splits(inside.config), kind) == stored


def test_evaluation_agrees_with_keras(inside):
    model = training.load_model(inside)
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    images, labels = splits(inside.config).test("scaled")
    loss, accuracy = model.evaluate(images, labels, verbose=0)
    ours = training.evaluate(model, splits(inside.config), "scaled")
    assert ours["accuracy"] == pytest.approx(accuracy)
    assert ours["loss"] == pytest.approx(loss, rel=1e-5)


def test_confirmation_adds_the_code_of_today(inside):
    record = records.read(inside.config)
    record.provenance["code_sha256"] = "earlier"
    assert records.standing(record.config, record) == "stale"
    assert training.confirm(record) == []
    assert records.standing(record.config, records.read(record.config)) == "confirmed"
    assert record.confirmations[0]["largest_witness_difference"] == 0
    records.write(inside)


def test_confirmation_sees_another_computation(inside, monkeypatch):
    monkeypatch.setattr(training.models, "cnn", _other_model)
    record = records.read(inside.config)
    differences = training._largest_difference(training._replay(record.config, splits(record.config)), record.witness)
    assert differences > training.WITNESS_TOLERANCE


def _other_model(shape, **frozen):
    inputs = keras.Input(shape)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(keras.layers.Flatten()(inputs)))


def test_confirmation_names_what_differs(inside):
    record = records.read(inside.config)
    record.witness[1] *= 1.01
    record.evaluations["plain"]["accuracy"] += 0.1
    record.provenance["data_sha256"] = "other"
    differences = training.confirm(record)
    assert [words.split(":")[0] for words in differences] == ["data", "first 3 losses", "plain accuracy"]
    assert records.read(inside.config) == inside


def test_weights_that_are_missing_or_others(inside):
    path = records.weights_path(inside.config)
    content = path.read_bytes()
    try:
        path.write_bytes(content + b"x")
        with pytest.raises(RecordError, match=f"{path} is not what run {inside.name} wrote: expected"):
            training.load_model(inside)
        path.unlink()
        with pytest.raises(RecordError, match=f"{path} is missing"):
            training.load_model(inside)
    finally:
        path.write_bytes(content)


def test_a_run_needs_the_run_that_it_starts_from(project):
    with pytest.raises(ConfigurationError, match=r"cnn.json is missing. Received: initial_run='cnn', seed=0"):
        training.train(run_config("deformable_cnn", **SMALL))
    assert not (project / "checkpoints").exists()
    assert not (project / "runs").exists()


def test_too_many_images_are_refused_before_anything_starts(project):
    with pytest.raises(ConfigurationError, match="train_size must be at most"):
        training.train(run_config("cnn", train_size=60_001))
    assert [path.name for path in project.iterdir()] == ["_config.yml", "book"] or len(list(project.iterdir())) == 2


def test_a_deformable_run_starts_from_weights_by_name(project, monkeypatch):
    small = {**SMALL, "epochs": 1, "train_size": 32}
    monkeypatch.setattr(training, "run_config", lambda run, **changes: run_config(run, **small, **changes))
    initial = training.train(run_config("cnn", **small), progress=False)
    record = training.train(run_config("deformable_cnn", **small), progress=False)
    assert record.provenance["initial_weights_sha256"] == initial.provenance["weights_sha256"]
    before, after = training.load_model(initial), training.load_model(record)
    for name in ("conv11", "conv12", "conv21", "conv22", "fc1"):
        for old, new in zip(before.get_layer(name).get_weights(), after.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
    assert not np.array_equal(before.get_layer("conv11_bn").gamma, after.get_layer("conv11_bn").gamma)


SCRIPT = """
from dcn.study.config import run_config
from dcn.study.training import train
train(run_config("cnn", epochs=4, train_size=320, test_size=40), progress=False)
"""


def test_held_out_images_validate_and_the_test_images_are_evaluated_too(project):
    record = training.train(run_config("cnn", **{**SMALL, "train_size": 66}, validation_size=30), progress=False)
    last = record.history[-1]
    assert last["test_accuracy"] == record.evaluations["plain"]["accuracy"]
    assert last["test_loss"] == record.evaluations["plain"]["loss"]
    images, labels = splits(record.config).validation("plain")
    predicted = training.load_model(record).predict(images, verbose=0).argmax(axis=1)
    assert last["validation_accuracy"] == (predicted == labels).mean()


def test_without_a_learning_rate_only_running_statistics_change(project):
    config = run_config("cnn", **SMALL, learning_rate=0.0)
    before = training._initial_model(config, splits(config))
    after = training.load_model(training.train(config, progress=False))
    for old, new in zip(before.weights, after.weights, strict=True):
        moves = new.name in ("moving_mean", "moving_variance")
        assert np.array_equal(old, new) != moves, new.path


def test_repairs_reach_the_layers_and_survive_a_checkpoint(tmp_path):
    config = run_config("deformable_mini_resnet", corners="bilinear", pairing="per_pixel", chained=True)
    model = training.build_model(config)
    model.save(tmp_path / "model.keras")
    for each in (model, keras.models.load_model(tmp_path / "model.keras")):
        offsets = [layer for layer in each.layers if layer.name.endswith("_offset")]
        assert len(offsets) == 4
        assert {(layer.corners, layer.pairing) for layer in offsets} == {("bilinear", "per_pixel")}


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(project, monkeypatch):
    config = run_config("cnn", epochs=4, train_size=320, test_size=40)
    state = project / "checkpoints" / records.record_name(config) / "state.json"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT])
    while process.poll() is None and not state.is_file():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = len(json.loads(state.read_text())["history"])
    assert 1 <= finished < 4
    assert records.read(config) is None
    epochs = []
    train_epoch = training._train_epoch
    monkeypatch.setattr(training, "_train_epoch", lambda *given: (epochs.append(1), train_epoch(*given)))
    resumed = training.train(config, progress=False)
    assert len(epochs) == 4 - finished
    whole = training.train(config, force=True, progress=False)
    assert len(epochs) == 4 - finished + 4
    assert resumed.evaluations == whole.evaluations
    assert resumed.witness == whole.witness
    for first, second in zip(resumed.history, whole.history, strict=True):
        assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_a_checkpoint_of_other_code_is_used_only_if_it_computes_the_same(project, monkeypatch):
    config = run_config("cnn", **SMALL)
    save = training._State.save

    def save_and_stop(state, model):
        save(state, model)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training._State, "save", save_and_stop)
        patch.setattr(training, "CODE_SHA256", "earlier")
        with pytest.raises(KeyboardInterrupt):
            training.train(config, progress=False)
    state = project / "checkpoints" / records.record_name(config) / "state.json"
    content = json.loads(state.read_text())
    assert content["code_sha256"] == "earlier"
    state.write_text(json.dumps({**content, "witness": [9.0, 9.0, 9.0]}))
    with pytest.raises(ConfigurationError, match="was written by other code"):
        training.train(config, progress=False)
    state.write_text(json.dumps(content)[:-1])
    with pytest.raises(RecordError, match="state.json is damaged"):
        training.train(config, progress=False)
    state.write_text(json.dumps(content))
    record = training.train(config, progress=False)
    assert len(record.history) == 2
    assert record.provenance["earlier_code_sha256"] == ["earlier"]
