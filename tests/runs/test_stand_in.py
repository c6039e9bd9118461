"""What stands in for a long run must compute the same numbers, not similar ones."""

import numpy as np
import pytest
import tensorflow as tf

from dcn import models
from dcn_study.runs.catalogue import RUNS, find_run
from dcn_study.runs.networks import initial_model
from dcn_study.runs.splits import splits
from dcn_study.runs.steps import train_epoch
from dcn_study.runs.weights import start_of

STEPS = 25


@pytest.mark.parametrize("run", [run for run in RUNS.values() if run.stand_in], ids=lambda run: run.name)
def test_training_without_the_offset_layers_is_training_with_them_bit_for_bit(run):
    """The published offsets have a gradient of exactly zero, so that their layers remain the identity."""
    trained = {}
    for name in (run.name, run.stand_in[0]):
        config = find_run(name, train_size=STEPS * run.config.batch_size, test_size=1).config
        data = splits(config)
        model = initial_model(data, start_of(config))
        _, witness = train_epoch(model, data, 0, None, [])
        trained[name] = model, witness.losses
    (deformable, first), (plain, second) = trained.values()
    assert first == second
    for layer in plain.layers:
        for ours, theirs in zip(layer.weights, deformable.get_layer(layer.name).weights, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)
    offsets = [layer for layer in deformable.layers if layer.name.endswith("_offset")]
    assert len(offsets) == {"deformable_cnn": 3, "deformable_mini_resnet": 2}[run.name]
    assert all(not np.any(layer.kernel) for layer in offsets)


def test_the_comparison_sees_a_layer_that_does_move(random):
    """With offsets that are not zero, the two networks differ: the test above could fail."""
    plain, moved = models.cnn(), models.deformable_cnn()
    models.copy_weights_by_name(plain, moved)
    offsets = moved.get_layer("conv12_offset")
    offsets.kernel.assign(0.1 * random.normal(size=offsets.kernel.shape))
    images = tf.constant(random.uniform(size=(2, 28, 28, 1)), tf.float32)
    assert np.any(plain(images) != moved(images))
