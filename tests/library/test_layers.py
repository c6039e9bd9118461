"""What every layer does, and `ConvOffset2D`."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers_layers import check_layer

from dcn import ConvOffset2D, DeformableConv1D, DeformableConv2D, DeformableRoIPooling2D
from dcn.ops import resample_by_offsets

EVERY_OPTION = {
    "offset_groups": 2,
    "modulated": True,
    "offset_initializer": "he_normal",
    "offset_regularizer": "l2",
    "offset_constraint": "max_norm",
    "offset_learning_rate_multiplier": 0.1,
    "max_offset": 3.0,
    "freeze_kernel": True,
    "jit_compile": False,
}
IMAGES, SEQUENCES = {"inputs": (2, 7, 6, 4)}, {"inputs": (2, 9, 4)}
GUIDED = [{**shapes, "guide": (*shapes["inputs"][:-1], 3)} for shapes in (IMAGES, SEQUENCES)]
LAYERS = [
    (ConvOffset2D, {"filters": 4}, IMAGES),
    (ConvOffset2D, {"filters": 4, "corners": "bilinear", "pairing": "per_pixel", "jit_compile": False}, IMAGES),
    (ConvOffset2D, {"filters": 4, "kernel_regularizer": "l2", "kernel_constraint": "max_norm"}, IMAGES),
    (DeformableConv2D, {"filters": 6, "kernel_size": (3, 2), "strides": (2, 1)}, IMAGES),
    (DeformableConv2D, {"filters": 6, "kernel_size": 3, "groups": 2, "padding": "same", **EVERY_OPTION}, IMAGES),
    (DeformableConv2D, {"filters": 6, "kernel_size": 3, "use_bias": False, "modulated": True}, GUIDED[0]),
    (DeformableConv2D, {"filters": 6, "kernel_size": 3, "lora_rank": 2}, IMAGES),
    (DeformableConv1D, {"filters": 6, "kernel_size": 3, "groups": 2, **EVERY_OPTION}, SEQUENCES),
    (DeformableConv1D, {"filters": 6, "kernel_size": 3, "padding": "same"}, GUIDED[1]),
    (DeformableConv1D, {"filters": 6, "kernel_size": 3, "lora_rank": 2}, SEQUENCES),
    (DeformableRoIPooling2D, {"output_size": (3, 2), "sampling_ratio": 2}, IMAGES),
    (DeformableRoIPooling2D, {"output_size": 2, "spatial_scale": 0.5, "gamma": 0.2, "jit_compile": False}, IMAGES),
]


@pytest.mark.parametrize(("cls", "arguments", "shapes"), LAYERS)
def test_every_layer(random, tmp_path, cls, arguments, shapes):
    inputs = {name: random.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    if cls is DeformableRoIPooling2D:
        inputs["boxes"] = np.array([[0, 1, 5, 6], [2, 2, 6, 5], [1, 0, 9, 9]], "float32")
        inputs["box_indices"] = np.array([0, 1, 1], "int32")
    check_layer(cls, arguments, inputs, tmp_path)


def test_saved_models_reload_in_another_process(tmp_path, random):
    inputs = x = keras.Input((6, 5, 2))
    x = DeformableConv2D(3, 3, padding="same", modulated=True, offset_initializer="he_normal")(x)
    x = keras.layers.Reshape((30, 3))(ConvOffset2D(3, kernel_initializer="he_normal")(x))
    model = keras.Model(inputs, DeformableConv1D(2, 3)(x))
    images = random.normal(size=(2, 6, 5, 2)).astype("float32")
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "expected.npz", images=images, outputs=model(images))
    code = (
        "import dcn, keras, numpy\n"
        "model = keras.models.load_model('model.keras')\n"
        "expected = numpy.load('expected.npz')\n"
        "numpy.testing.assert_allclose(model(expected['images']), expected['outputs'], rtol=1e-5, atol=1e-5)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@keras.saving.register_keras_serializable(package="tests")
class Branches(keras.Model):
    """A model with a layer that it does not use."""

    def __init__(self, used, unused, **options):
        super().__init__(**options)
        self.used, self.unused = used, unused
        self.built = True

    def call(self, inputs):
        return self.used(inputs)

    def get_config(self):
        return {
            "used": keras.saving.serialize_keras_object(self.used),
            "unused": keras.saving.serialize_keras_object(self.unused),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{name: keras.saving.deserialize_keras_object(layer) for name, layer in config.items()})


@pytest.mark.parametrize("cls", [DeformableConv2D, keras.layers.Conv2D])
def test_a_model_with_a_layer_that_is_not_built_can_be_saved(tmp_path, random, cls):
    images = random.normal(size=(2, 6, 5, 2)).astype("float32")
    model = Branches(cls(3, 3), cls(3, 3))
    expected = model(images)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(images), expected)
    model.save_weights(tmp_path / "model.weights.h5")
    model.load_weights(tmp_path / "model.weights.h5")
    store = {}
    model.used.save_own_variables(store)
    with pytest.raises(ValueError, match="was never built"):
        model.unused.load_own_variables(store)


@pytest.mark.parametrize(
    "build",
    [
        lambda **kw: ConvOffset2D(2, **kw),
        lambda **kw: DeformableConv1D(2, 3, **kw),
        lambda **kw: DeformableRoIPooling2D(2, **kw),
    ],
)
def test_what_every_layer_refuses(build, monkeypatch):
    with pytest.raises(ValueError, match="jit_compile must be True, False or None. Received: jit_compile='yes'"):
        build(jit_compile="yes")
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    monkeypatch.setattr("keras.src.backend.config._IMAGE_DATA_FORMAT", "channels_first")
    with pytest.raises(ValueError, match="data_format must be 'channels_last'. Received: "):
        build()


@pytest.mark.parametrize("cls", [ConvOffset2D, DeformableConv1D, DeformableConv2D])
def test_numpys_integers_are_integers(cls):
    one, two, three = np.int64(1), np.int64(2), np.int64(3)
    if cls is ConvOffset2D:
        assert ConvOffset2D(two).get_config()["filters"] == 2
        return
    config = cls(two, three, strides=two, dilation_rate=one, groups=two, offset_groups=one).get_config()
    expected = cls(2, 3, strides=2, dilation_rate=1, groups=2, offset_groups=1, name=config["name"]).get_config()
    assert config == expected
    assert all(type(config[name]) is int for name in ("filters", "groups", "offset_groups"))
    assert {type(size) for name in ("kernel_size", "strides", "dilation_rate") for size in config[name]} == {int}


def test_quantisation_is_refused_as_by_keras():
    for cls in (DeformableConv2D, keras.layers.Conv2D):
        layer = cls(2, 3)
        layer.build((None, 5, 5, 2))
        with pytest.raises(NotImplementedError, match="does not have a `quantize` method"):
            layer.quantize("int8")


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
    np.testing.assert_allclose(layer.offsets(inputs), offsets, rtol=1e-6)
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
    with pytest.raises(ValueError, match="layer must be built: call it once. Received: <ConvOffset2D name="):
        ConvOffset2D(3).offsets(np.ones((1, 5, 4, 3), "float32"))
