"""Models for other runtimes: onnxruntime computes what Keras computes."""

import keras
import numpy as np
import onnxruntime
import pytest
from onnx_sessions import needs_deform_conv

import dcn
from dcn.interchange import to_onnx


def randomised(model, random):
    """Gives every weight a value of its own; variances stay positive."""
    for weight in model.weights:
        values = random.normal(size=weight.shape) / 3
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.name else values)
    return model


def run(exported, images):
    session = onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": images})[0]


def check(model, random, opset=22, batch=3):
    images = random.normal(size=(batch, *model.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(run(to_onnx(model, opset=opset), images), model(images), rtol=1e-4, atol=1e-4)


@needs_deform_conv
@pytest.mark.parametrize("opset", [19, 22])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"padding": "same", "strides": 2, "activation": "relu"},
        {"padding": "same", "dilation_rate": 2, "modulated": True, "use_bias": False},
        {"groups": 2, "offset_groups": 4, "strides": (2, 1), "modulated": True, "activation": "sigmoid"},
        {"max_offset": 0.25, "modulated": True},
        {"offset_learning_rate_multiplier": 0.1, "kernel_size": (5, 2), "padding": "same"},
    ],
)
def test_a_deformable_layer(random, opset, arguments):
    inputs = keras.Input((9, 8, 4))
    layer = dcn.DeformableConv2D(**{"filters": 6, "kernel_size": 3, **arguments})
    check(randomised(keras.Model(inputs, layer(inputs)), random), random, opset)


@pytest.mark.parametrize(
    "build", [dcn.cnn, pytest.param(dcn.deform_conv_cnn, marks=needs_deform_conv), dcn.mini_resnet]
)
def test_the_models_of_the_package(random, build):
    check(randomised(build((12, 10, 1)), random), random)


def test_other_layers(random):
    inputs = x = keras.Input((11, 10, 2))
    x = keras.layers.ZeroPadding2D(((1, 2), (0, 1)))(x)
    x = keras.layers.Conv2D(4, 3, groups=2, activation="tanh", use_bias=False)(x)
    x = keras.layers.BatchNormalization(scale=False)(x)
    x = keras.layers.MaxPooling2D(3, 2, padding="same")(x)
    x = keras.layers.Add()([x, keras.layers.ReLU()(x)])
    x = keras.layers.Flatten()(keras.layers.Dropout(0.5)(x))
    x = keras.layers.Activation("softmax")(keras.layers.Dense(5, use_bias=False)(x))
    check(randomised(keras.Model(inputs, x), random), random)


def test_a_model_without_maps(random):
    inputs = keras.Input((4,))
    check(randomised(keras.Model(inputs, keras.layers.Dense(3, activation="relu")(inputs)), random), random, batch=1)


class Doubled(keras.layers.Conv2D):
    """Is a `Conv2D`, and computes something else."""

    def call(self, inputs):
        return 2 * super().call(inputs)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (keras.layers.UpSampling2D(), "layer odd has no counterpart. Received: UpSampling2D"),
        (Doubled(2, 1), "layer odd has no counterpart. Received: Doubled"),
        (keras.layers.ReLU(dtype="bfloat16"), "layer odd must be used once, in float32"),
        (keras.layers.ReLU(max_value=6), "layer odd must have max_value=None. Received: 6"),
        (keras.layers.ReLU(negative_slope=0.1), "layer odd must have negative_slope=0"),
        (keras.layers.GlobalAveragePooling2D(keepdims=True), "layer odd must have keepdims=False"),
        (keras.layers.BatchNormalization(axis=1), "layer odd must have axis=-1. Received: 1"),
        (keras.layers.Dense(2), "layer odd must have an input of rank 2"),
        (keras.layers.Activation("gelu"), "layer odd must have one of the activations relu, sigmoid, tanh, softmax"),
        (keras.layers.Activation(lambda x: x + 1), "layer odd must have one of the activations"),
    ],
)
def test_what_has_no_counterpart_is_refused(layer, message):
    inputs = keras.Input((4, 4, 1))
    layer.name = "odd"
    with pytest.raises(ValueError, match=message):
        to_onnx(keras.Model(inputs, layer(inputs)))


def test_unknown_sizes_are_refused():
    inputs = keras.Input((None, 4, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3, padding="same", name="odd")(inputs))
    with pytest.raises(ValueError, match="layer odd must have known sizes"):
        to_onnx(model)


def test_another_opset_is_refused():
    with pytest.raises(ValueError, match=r"opset must be one of \(19, 22\). Received: opset=18"):
        to_onnx(dcn.cnn(), opset=18)
