import re

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from dcn import ConvOffset2D, DeformableConv1D, DeformableConv2D, dead_weights, models, sampling_points


@pytest.fixture
def images(random):
    return random.uniform(size=(2, 6, 5, 3)).astype("float32")


@pytest.mark.parametrize(
    ("layer", "dead"),
    [
        (ConvOffset2D(3), ["kernel"]),
        (ConvOffset2D(3, pairing="per_pixel"), ["kernel"]),
        (ConvOffset2D(3, trainable=False), []),
        (ConvOffset2D(3, corners="bilinear"), []),
        (DeformableConv2D(4, 3, padding="same", modulated=True), []),
    ],
)
def test_of_new_layers_only_the_published_one_is_dead(images, layer, dead):
    assert dead_weights(layer, images) == [f"{layer.name}/{name}" for name in dead]


def test_a_model_names_its_dead_weights(random):
    images = random.uniform(size=(2, 12, 9, 1)).astype("float32")
    dead = dead_weights(models.deformable_cnn((12, 9, 1)), images)
    assert dead == [f"conv{number}_offset/kernel" for number in (12, 21, 22)]
    assert dead_weights(models.cnn((12, 9, 1)), images) == []


def test_a_weight_that_the_outputs_do_not_depend_on_is_dead(images):
    class Forgetful(keras.layers.Dense):
        def call(self, inputs):
            return inputs * 2

    assert [path.split("/")[-1] for path in dead_weights(Forgetful(4), images)] == ["kernel", "bias"]


def test_outputs_of_several_types_and_rows_that_are_looked_up(images):
    inputs = keras.Input(images.shape[1:])
    features = DeformableConv2D(4, 3, dtype="mixed_float16")(inputs)
    model = keras.Model(inputs, [features, keras.layers.Dense(2, dtype="float32")(features)])
    assert dead_weights(model, images) == []
    numbers = keras.Input((3,), dtype="int32")
    rows = keras.layers.Embedding(4, 2, name="rows")(numbers)
    assert dead_weights(keras.Model(numbers, rows), np.array([[1, 2, 3]])) == []
    assert dead_weights(keras.Model(numbers, rows * 0.0), np.array([[1, 2, 3]])) == ["rows/embeddings"]


def test_inputs_of_zeros_cannot_tell_and_are_refused(images):
    with pytest.raises(ValueError, match=r"inputs must not be all zero: .* Received: shapes \[\(2, 6, 5, 3\)\]"):
        dead_weights(DeformableConv2D(4, 3), np.zeros_like(images))
    assert dead_weights(keras.layers.Embedding(1, 2), np.zeros((1, 1), "int32")) == []


ARGUMENTS = [
    {"kernel_size": 3},
    {"kernel_size": (3, 2), "strides": (2, 1), "padding": "same", "offset_groups": 2},
    {"kernel_size": (2, 3), "dilation_rate": (2, 1), "padding": "same", "modulated": True, "max_offset": 0.75},
]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_a_layer_reads_at_its_sampling_points(random, arguments):
    """With a kernel of ones, the layer is the sum of what interpolation by loops finds at these points."""
    images = random.normal(size=(2, 7, 5, 4)).astype("float32")
    layer = DeformableConv2D(1, use_bias=False, kernel_initializer="ones", **arguments)
    layer.build(images.shape)
    layer.offset_kernel.assign(random.normal(size=layer.offset_kernel.shape) / 2)
    mask = layer.offsets_and_mask(images)[1]
    points = sampling_points(layer, images)
    outputs = layer(images).numpy()
    groups, count = points.shape[3:5]
    assert points.shape == (*outputs.shape[:3], layer.offset_groups, np.prod(layer.kernel_size), 2)
    assert np.abs(points - np.rint(points)).max() > 0.3
    expected = np.zeros_like(outputs)
    for image, row, column, group, point in np.ndindex(*points.shape[:5]):
        weight = 1 if mask is None else mask[image, row, column, group * count + point]
        for channel in np.split(np.arange(4), groups)[group]:
            value = reference.zero_outside(images[image, ..., channel], *points[image, row, column, group, point])
            expected[image, row, column] += weight * value
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)


def test_without_offsets_the_points_are_a_grid(images):
    layer = DeformableConv2D(4, (1, 3), strides=2, padding="same")
    layer(images)
    points = sampling_points(layer, images)
    assert points.dtype == "float32"
    assert points[0, :, 0, 0, 0, 0].tolist() == [0, 2, 4]
    assert points[1, 1, :, 0, :, 1].tolist() == [[-1, 0, 1], [1, 2, 3], [3, 4, 5]]
    for pairing in ("published", "per_pixel"):
        layer = ConvOffset2D(3, pairing=pairing)
        layer(images)
        assert sampling_points(layer, images)[1, 4, 3, 2].tolist() == [4, 3]


def test_the_points_of_a_sequence(random):
    sequences, guide = (random.normal(size=(2, 9, channels)).astype("float32") for channels in (4, 3))
    layer = DeformableConv1D(1, 3, strides=2, padding="same", offset_groups=2, offset_initializer="he_normal")
    layer(sequences, guide=guide)
    points = sampling_points(layer, guide)
    assert points.shape == (2, 5, 2, 3)
    offsets = layer.offsets_and_mask(guide)[0].numpy()
    np.testing.assert_allclose(points[1, 3, 1], 2 * 3 - 1 + np.arange(3) + offsets[1, 3, 3:], rtol=1e-5)


@pytest.mark.parametrize("pairing", ["published", "per_pixel"])
def test_the_published_layer_reads_at_its_sampling_points(random, pairing):
    images = random.normal(size=(2, 6, 5, 3)).astype("float32")
    layer = ConvOffset2D(3, pairing=pairing, kernel_initializer="he_normal")
    outputs = layer(images).numpy()
    np.testing.assert_allclose(layer.offsets(images), tf.nn.conv2d(images, layer.kernel, 1, "SAME"), rtol=1e-6)
    points = sampling_points(layer, images)
    assert points.shape == (*images.shape, 2)
    expected = [
        reference.bilinear(images[image, ..., channel], *points[image, row, column, channel])
        for image, row, column, channel in np.ndindex(*images.shape)
    ]
    np.testing.assert_allclose(outputs.ravel(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [DeformableConv2D(4, 3, dtype="mixed_bfloat16"), ConvOffset2D(3)])
@pytest.mark.parametrize("dtype", ["float64", "uint8", "bfloat16"])
def test_points_of_inputs_of_any_type(images, layer, dtype):
    layer(images)
    inputs = tf.cast(100 * images, dtype)
    np.testing.assert_array_equal(sampling_points(layer, inputs), sampling_points(layer, tf.cast(inputs, "float32")))


@pytest.mark.parametrize(("shape", "wrong"), [((2, 6, 5, 4), "(2, 6, 5, 4)"), ((6, 5, 2), "(6, 5, 2)")])
def test_points_are_predicted_from_the_guide(images, shape, wrong):
    layer = DeformableConv2D(4, 3)
    layer(images, guide=images[..., :2])
    words = re.escape(
        f"inputs must have rank 4 and the 2 channels that the offsets are predicted from. Received: shape {wrong}"
    )
    with pytest.raises(ValueError, match=words):
        sampling_points(layer, np.ones(shape))


@pytest.mark.parametrize("layer", [ConvOffset2D(3), DeformableConv2D(4, 3)])
@pytest.mark.parametrize("shape", [(2, 6, 5, 6), (2, 6, 5, 1), (6, 5, 3)])  # a convolution takes the first for groups
def test_points_are_those_of_inputs_that_the_layer_takes(images, layer, shape):
    layer(images)
    with pytest.raises(ValueError, match="have rank 4 and the 3 channels that"):
        sampling_points(layer, np.ones(shape))


def test_only_deformable_layers_have_sampling_points(images):
    with pytest.raises(ValueError, match="layer must be a DeformableConv2D, .* Received: layer=<Conv2D name="):
        sampling_points(keras.layers.Conv2D(4, 3), images)
    for layer in (ConvOffset2D(3), DeformableConv2D(4, 3)):
        with pytest.raises(ValueError, match="layer must be built: call it once"):
            sampling_points(layer, images)
