import numpy as np
import tensorflow as tf
from helpers import make

from dcn_study.experiments import blocks
from dcn_study.runs import weights
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.data import load_digits


def test_as_coded_the_first_convolution_is_dead():
    found = blocks.disturb(0.1, seed=3)
    assert [(form, list(by_name)) for form, by_name in found.items()] == [
        (form, ["first", "second"]) for form in ("as coded", "as drawn")
    ]
    dead = found["as coded"].pop("first")
    assert (dead["changed"], dead["gradient"]) == (0, None)
    assert not np.any(dead["change"])
    for by_name in found.values():
        for alive in by_name.values():
            assert alive["changed"] > 0.99
            assert alive["gradient"] > 0


def test_a_disturbance_of_zero_changes_nothing():
    for by_name in blocks.disturb(0.0, seed=0).values():
        for effect in by_name.values():
            np.testing.assert_array_equal(effect["change"], 0)


def test_batch_normalisation_takes_each_batch_as_in_training(monkeypatch):
    record = make(find_run("mini_resnet", test_size=70))

    def model(images, training):
        return tf.one_hot(tf.fill(tf.shape(images)[:1], 3 if training else 4), 10)

    monkeypatch.setattr(weights, "load_model", lambda given: model)
    assert blocks.accuracy_by_batch(record) == np.mean(load_digits().y_test[:70] == 3)
