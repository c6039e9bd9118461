"""What every layer does, and `ConvOffset2D`."""

import keras
import numpy as np
import pytest
from helpers_layers import check_layer

from dcn import ConvOffset2D, DeformableConv1D, DeformableConv2D, DeformableRoIPooling2D

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
    (ConvOffset2D, {"filters": np.int64(4)}, IMAGES),
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


@pytest.mark.parametrize("cls", [DeformableConv2D, keras.layers.Conv2D])
def test_a_layer_that_is_not_built_can_be_saved(cls):
    """Keras saves and loads all layers of a model, also those that it does not use."""
    layer, store = cls(3, 3), {}
    layer.save_own_variables(store)
    assert store == {}
    layer.load_own_variables(store)
    with pytest.raises(ValueError, match="was never built"):
        layer.load_own_variables({"0": np.zeros((3, 3, 2, 3))})


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


@pytest.mark.parametrize("cls", [DeformableConv1D, DeformableConv2D])
def test_numpys_integers_are_integers(cls):
    one, two, three = np.int64(1), np.int64(2), np.int64(3)
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
