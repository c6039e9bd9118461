import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from dcn.layers import ConvOffset2D
from dcn.ops import resample_by_offsets


def test_a_new_layer_is_the_identity(random):
    inputs = random.normal(size=(2, 5, 4, 3)).astype("float32")
    layer = ConvOffset2D(3)
    np.testing.assert_array_equal(layer(inputs), inputs)
    assert [weight.name for weight in layer.weights] == ["kernel"]
    assert layer.kernel.shape == (3, 3, 3, 6)


def test_it_resamples_by_the_convolution_of_its_input(random):
    inputs = random.normal(size=(2, 5, 4, 3)).astype("float32")
    layer = ConvOffset2D(3, kernel_initializer="he_normal", corners="bilinear", pairing="per_pixel")
    outputs = layer(inputs)
    offsets = tf.nn.conv2d(inputs, layer.kernel, 1, "SAME")
    expected = resample_by_offsets(inputs, offsets, corners="bilinear", pairing="per_pixel")
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)
    assert np.abs(outputs - inputs).max() > 0.1


def test_the_published_layer_starts_with_a_dead_gradient(random):
    inputs = tf.constant(random.normal(size=(2, 5, 4, 3)).astype("float32"))
    for corners, alive in (("published", False), ("bilinear", True)):
        layer = ConvOffset2D(3, corners=corners)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(inputs) ** 2)
        assert bool(np.any(tape.gradient(loss, layer.kernel))) == alive


def test_configuration_round_trip():
    layer = ConvOffset2D(3, kernel_regularizer="l2", kernel_constraint="max_norm", pairing="per_pixel", name="x")
    again = ConvOffset2D.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.compute_output_shape((None, None, 7, 3)) == (None, None, 7, 3)


def test_a_saved_model_reloads_in_another_process(tmp_path):
    inputs = keras.Input((5, 4, 2))
    model = keras.Model(inputs, ConvOffset2D(2, kernel_initializer="he_normal")(inputs))
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "expected.npy", model(np.ones((1, 5, 4, 2))))
    code = (
        "import dcn, keras, numpy\n"
        "model = keras.models.load_model('model.keras')\n"
        "numpy.testing.assert_array_equal(model(numpy.ones((1, 5, 4, 2))), numpy.load('expected.npy'))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.parametrize("filters", [0, -1, 1.5, "3", True])
def test_wrong_filters(filters):
    with pytest.raises(ValueError, match=r"filters must be a positive integer. Received: filters="):
        ConvOffset2D(filters)


def test_wrong_choices_and_shapes():
    with pytest.raises(ValueError, match="corners must be"):
        ConvOffset2D(3, corners="ceil")
    with pytest.raises(ValueError, match="pairing must be"):
        ConvOffset2D(3, pairing="no")
    with pytest.raises(ValueError, match=r"inputs must have shape .* filters=3"):
        ConvOffset2D(3).build((None, 5, 4, 2))
    with pytest.raises(ValueError, match="inputs must have shape"):
        ConvOffset2D(3).build((None, 5, 3))
