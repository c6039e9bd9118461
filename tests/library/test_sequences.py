"""Deformable convolution of sequences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dcn import DeformableConv1D

ARGUMENTS = [
    {"filters": 4, "kernel_size": 3},
    {"filters": 4, "kernel_size": 4, "padding": "same", "strides": 2, "groups": 2},
    {"filters": 4, "kernel_size": 3, "padding": "same", "dilation_rate": 2, "activation": "relu", "use_bias": False},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_a_new_layer_computes_what_conv1d_computes(random, arguments):
    inputs = tf.constant(random.normal(size=(2, 9, 6)), tf.float32)
    conv = keras.layers.Conv1D(**arguments, bias_initializer="ones")
    expected = conv(inputs)
    layer = DeformableConv1D(**arguments, offset_groups=3, modulated=True)
    layer.build(inputs.shape)
    layer.kernel.assign(conv.kernel)
    if conv.use_bias:
        layer.bias.assign(conv.bias)
    np.testing.assert_allclose(layer(inputs), expected, atol=2e-6)
    assert layer.compute_output_shape(inputs.shape) == expected.shape


def test_its_points_move_along_the_sequence(random):
    """Against linear interpolation by NumPy, between zeros beyond both ends."""
    inputs = random.normal(size=(2, 9, 4)).astype("float32")
    layer = DeformableConv1D(5, 3, padding="same", offset_groups=2, modulated=True)
    layer.build(inputs.shape)
    layer.offset_kernel.assign(random.normal(size=layer.offset_kernel.shape))
    offsets, mask = layer.offsets_and_mask(inputs)
    places = np.arange(-1, 10)
    expected = np.zeros((2, 9, 5))
    for image, step, group, point in np.ndindex(2, 9, 2, 3):
        place = step + point - 1 + float(offsets[image, step, group * 3 + point])
        weight = float(mask[image, step, group * 3 + point])
        for channel in (2 * group, 2 * group + 1):
            value = np.interp(place, places, np.pad(inputs[image, :, channel], 1), left=0, right=0)
            expected[image, step] += weight * value * layer.kernel.numpy()[point, channel]
    np.testing.assert_allclose(layer(inputs), expected, atol=1e-4)


def test_offsets_learn_within_their_limit(random):
    inputs = random.normal(size=(8, 9, 4)).astype("float32")
    layer = DeformableConv1D(5, 3, max_offset=0.5)
    model = keras.Sequential([keras.Input((None, 4)), layer, keras.layers.GlobalAveragePooling1D()])
    model.compile(keras.optimizers.SGD(50.0), "mse", jit_compile=False)
    model.fit(inputs, random.normal(size=(8, 5)), epochs=2, verbose=0)
    assert np.abs(layer.offset_kernel).max() > 0
    assert np.abs(layer.offsets_and_mask(inputs)[0]).max() == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": "causal"}, "padding must be 'valid' or 'same'; .* Received: padding='causal'"),
        ({"data_format": "channels_first"}, "data_format must be 'channels_last'"),
        ({"offset_groups": 0}, "offset_groups must be a positive integer. Received: offset_groups=0"),
        ({"max_offset": 0.0}, "max_offset must be a finite number above 0"),
        ({"offset_groups": 3}, r"channels divisible by groups and offset_groups.*input_shape=\(2, 9, 4\)"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DeformableConv1D(4, 3, **arguments).build((2, 9, 4))
