"""A replay must see every change of what a run computes, above all of batch normalisation."""

import keras
import numpy as np
import pytest
from helpers import inside, new_project

from dcn_study.errors import LockedError, RecordError
from dcn_study.runs import confirmation, networks, records, steps, tolerances, training
from dcn_study.runs import splits as drawing
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.files import locked
from dcn_study.runs.splits import Splits, splits

SMALL = {"epochs": 2, "train_size": 96, "test_size": 40}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with a small run of each kind: plain digits; scaled ones; and statistics alone, at rate zero."""
    root = new_project(tmp_path_factory.mktemp("project"))
    runs = {
        "plain": find_run("cnn", **SMALL),
        "scaled": find_run("cnn", **SMALL, train_on="scaled"),
        "statistics": find_run("cnn", **SMALL, learning_rate=0.0),
    }
    with inside(root):
        return root, {name: training.train(run) for name, run in runs.items()}


@pytest.fixture
def record(trained, monkeypatch):
    """Gives a copy of a record, whose file is restored afterwards."""
    root, found = trained
    monkeypatch.chdir(root)
    yield lambda name: records.read(found[name].run)
    for each in found.values():
        records.write(each)


def violations(record):
    return [words.split(" differ")[0] for words in confirmation.confirm(record)]


def test_a_replay_with_the_same_code_gives_the_same_numbers(record):
    plain = record("plain")
    plain.provenance.inputs = plain.provenance.inputs.model_copy(update={"code": "earlier"})
    assert str(records.status(plain.run, plain)) == "stale: code"
    assert confirmation.confirm(plain) == []
    again = records.read(plain.run)
    assert str(records.status(again.run, again)) == "confirmed"
    assert set(again.confirmations[0].differences.values()) == {0}
    assert confirmation.confirm(again) == []
    assert len(again.confirmations) == 1  # the later one of the same inputs and machine replaces the earlier


@pytest.mark.parametrize("name", ["plain", "statistics"])
def test_it_sees_another_momentum_of_batch_normalisation(record, monkeypatch, name):
    """The losses of training do not depend on it, and the stored weights keep the old statistics."""
    made = record(name)
    original = keras.layers.BatchNormalization.__init__

    def with_less_momentum(self, *given, **named):
        original(self, *given, **{**named, "momentum": 0.5})

    monkeypatch.setattr(keras.layers.BatchNormalization, "__init__", with_less_momentum)
    assert violations(made) == ["norms"]


def test_it_sees_another_order_in_later_epochs(record, monkeypatch):
    plain = record("plain")
    order = Splits.labels

    def reversed_later(self, epoch):
        return order(self, epoch)[::-1].copy() if epoch else order(self, epoch)

    monkeypatch.setattr(Splits, "labels", reversed_later)
    assert violations(plain) == ["labels"]


def test_it_sees_other_images_in_later_epochs(record, monkeypatch):
    scaled = record("scaled")
    draw = drawing.draw_transforms

    def wider_later(count, seed, side=(28, 28)):
        drawn = draw(count, seed, side)
        later = isinstance(seed, tuple) and seed[1] > 0
        return drawing.Transforms(drawn.zoom * (1.01 if later else 1), drawn.shift)

    monkeypatch.setattr(drawing, "draw_transforms", wider_later)
    assert violations(scaled) == ["pixels"]


def test_it_sees_another_optimiser_at_rate_zero(record, monkeypatch):
    statistics = record("statistics")
    monkeypatch.setattr(keras.optimizers, "Adam", keras.optimizers.RMSprop)
    assert violations(statistics) == ["slots"]


def test_it_sees_a_slightly_larger_step(record, monkeypatch):
    plain = record("plain")
    adam = keras.optimizers.Adam
    monkeypatch.setattr(keras.optimizers, "Adam", lambda rate: adam(1.01 * rate))
    assert "first losses" in violations(plain)


def test_it_sees_other_evaluations(record):
    plain = record("plain")
    plain.evaluations["plain"].loss *= 1.001
    plain.evaluations["scaled"].accuracy += 0.001
    assert violations(plain) == ["test loss", "test accuracy"]
    assert records.read(plain.run).confirmations == []


def test_no_replay_makes_up_for_other_data_or_initial_weights(record):
    plain = record("plain")
    plain.provenance.inputs = plain.provenance.inputs.model_copy(update={"data": "other", "weights": {"cnn": "w"}})
    assert confirmation.confirm(plain) == ["data", "weights of cnn"]


def test_a_record_that_another_process_replaces_is_not_overwritten(record):
    plain = record("plain")
    with locked(plain.run.lock, "run cnn"), pytest.raises(LockedError, match="in use by process"):
        confirmation.confirm(plain)
    there = record("plain")
    there.provenance.finished = "later"
    records.write(there)
    with pytest.raises(RecordError, match="was replaced meanwhile"):
        confirmation.confirm(plain)
    assert record("plain").provenance.finished == "later"


def test_missing_weights_are_named(record):
    plain = record("plain")
    content = plain.weights_path.read_bytes()
    plain.weights_path.unlink()
    try:
        with pytest.raises(RecordError, match="is missing: the weights of run"):
            confirmation.confirm(plain)
    finally:
        plain.weights_path.write_bytes(content)


def test_the_losses_are_those_of_single_steps(record):
    """Keras gives the mean over all steps so far; the witness holds what each step adds."""
    plain = record("plain")
    model = networks.initial_model(splits(plain.config), None)
    images, labels = splits(plain.config).train(0)
    losses = []
    for start in range(0, len(images), plain.config.batch_size):
        part = slice(start, start + plain.config.batch_size)
        model.reset_metrics()
        losses.append(float(model.train_on_batch(images[part], labels[part])[0]))
    np.testing.assert_allclose(plain.witness.losses, losses, rtol=1e-5)


def test_the_loss_of_a_smaller_last_step_is_its_own():
    first = steps._FirstSteps(batch_size=4, images=10)  # noqa: SLF001
    for batch, mean in enumerate((1.0, 2.0, 2.2)):
        first._note_loss(batch, mean)  # noqa: SLF001
    assert first.witness.losses == pytest.approx([1.0, 3.0, 3.0])


def test_witnesses_of_another_form_differ_by_infinity(record):
    plain = record("plain").witness
    for changes in ({"losses": plain.losses[:2]}, {"norms": {}}, {"slots": []}, {"epochs": plain.epochs[:1]}):
        found = tolerances.compare(plain.model_copy(update=changes), plain)
        assert np.inf in found.values(), changes
        assert tolerances.violations(found, find_run("cnn", learning_rate=0.1).config)


def test_a_fast_run_may_differ_more_in_its_first_steps():
    def told(found, run, **changes):
        return tolerances.violations(found, find_run(run, **changes).config)

    found = {"first losses": 2e-3, "norms": 0.2, "slots": 0.8}
    assert [words.split(" differ")[0] for words in told(found, "cnn", learning_rate=1e-3)] == list(found)
    assert told(found, "cnn", learning_rate=3e-3) == []
    assert told(found, "scale_cnn", learning_rate=1e-3) == []
    assert told({"first losses": 0.1, "slots": 2.5}, "cnn", learning_rate=3e-2) == [
        "first losses differ by 1.0e-01, tolerance 1e-02",
        "slots differ by 2.5e+00, tolerance 2e+00",
    ]
