"""Models for other runtimes: onnxruntime computes what Keras computes."""

import sys

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from keras import layers
from onnx_sessions import needs_deform_conv, onnxruntime_has_the_kernel

import dcn

HAS_THE_KERNEL = onnxruntime_has_the_kernel()
UNKNOWN = (None, None, 4)


def randomised(model, random):
    """Gives every weight a value of its own, so that offsets are a few pixels; variances stay positive."""
    for weight in model.weights:
        values = random.normal(size=weight.shape) / 3
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.name else values)
    return model


def check(model, random, opset=22, expected=None):
    """Exports a model, and compares its outputs for images of two sizes with those of Keras."""
    exported = dcn.to_onnx(randomised(model, random) if expected is None else model, opset=opset)
    operators = [node.op_type for node in exported.graph.node]
    assert [value.name for value in exported.graph.input] == [tensor.name for tensor in model.inputs]
    assert [value.name for value in exported.graph.output] == [f"output_{i}" for i in range(len(model.outputs))]
    if "DeformConv" in operators and not HAS_THE_KERNEL:
        pytest.skip(needs_deform_conv.kwargs["reason"])
    session = onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch, sizes in ((1, (9, 12)), (3, (14, 7))):
        images = {
            tensor.name: random.normal(
                size=[batch, *(known or new for known, new in zip(tensor.shape[1:], (*sizes, 0), strict=False))]
            ).astype("float32")
            for tensor in model.inputs
        }
        outputs = (expected or model)(images if len(images) > 1 else images[model.inputs[0].name])
        for actual, output in zip(session.run(None, images), keras.tree.flatten(outputs), strict=True):
            assert actual.shape == output.shape
            np.testing.assert_allclose(actual, output, rtol=1e-4, atol=1e-5 * np.abs(output).max())
    return operators


def sequence(*steps, shape=UNKNOWN):
    inputs = x = keras.Input(shape)
    for step in steps:
        x = step(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("opset", [19, 22])
@pytest.mark.parametrize("shape", [(9, 8, 4), UNKNOWN])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"padding": "same", "strides": 2, "activation": "relu"},
        {"padding": "same", "dilation_rate": 2, "modulated": True, "use_bias": False},
        {"padding": "same", "groups": 2, "offset_groups": 4, "strides": (2, 3), "modulated": True},
        {"max_offset": 0.25, "modulated": True},
        {"offset_learning_rate_multiplier": 0.1, "kernel_size": (5, 2), "padding": "same"},
    ],
)
def test_a_deformable_layer(random, arguments, shape, opset):
    layer = dcn.DeformableConv2D(**{"filters": 6, "kernel_size": 3, **arguments})
    operators = check(sequence(layer, shape=shape), random, opset)
    assert operators.count("DeformConv") == 1
    assert shape == UNKNOWN or len(operators) <= 10


@pytest.mark.parametrize(
    "layer",
    [
        dcn.DeformableConv1D(6, 3, strides=2, padding="same", modulated=True, offset_groups=2),
        dcn.ConvOffset2D(4),
        dcn.ConvOffset2D(4, corners="bilinear", pairing="per_pixel"),
    ],
)
def test_other_layers_of_the_package(random, layer):
    operators = check(sequence(layer, shape=(None, 4) if layer.name.startswith("deformable") else UNKNOWN), random)
    assert operators.count("DeformConv") == isinstance(layer, dcn.DeformableConv1D)


def u_net(interpolation):
    inputs = keras.Input(UNKNOWN)
    fine = dcn.DeformableConv2D(4, 3, padding="same", activation="relu", modulated=True)(inputs)
    coarse = dcn.DeformableConv2D(6, 3, padding="same", strides=2)(layers.ZeroPadding2D(((3, 4), (3, 4)))(fine))
    x = layers.UpSampling2D(2, interpolation=interpolation)(layers.MaxPooling2D(2)(layers.BatchNormalization()(coarse)))
    # The sizes are made to fit, whatever those of the image are.
    x = layers.Cropping2D(2)(layers.Concatenate()([x, layers.UpSampling2D(2)(layers.AveragePooling2D(2)(coarse))]))
    x = layers.Conv2DTranspose(3, 3, strides=2, padding="same")(x)
    return keras.Model(inputs, [layers.Conv2D(2, 1, activation="softmax")(x), fine])


def mobile_block():
    inputs = keras.Input(UNKNOWN)
    x = layers.Rescaling(0.5, offset=-0.1)(inputs)
    x = layers.ReLU(max_value=6)(layers.BatchNormalization()(layers.Conv2D(6, 3, strides=2, padding="same")(x)))
    y = layers.Activation("relu6")(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x))
    x = layers.Add()([x, layers.SeparableConv2D(6, 3, padding="same")(y)])
    y = layers.Dense(2, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, layers.Dense(6, activation="sigmoid")(y)])
    x = layers.DepthwiseConv2D(3, padding="same", strides=2, depth_multiplier=2)(x)
    x = dcn.DeformableConv2D(4, 3, padding="same", strides=2)(x)
    x = x * layers.Conv2D(4, 1, activation="hard_sigmoid")(layers.Reshape((1, 1, 4))(layers.GlobalMaxPooling2D()(x)))
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


def activations_and_pooling():
    return sequence(
        layers.Conv2D(4, 3, groups=2, dilation_rate=2, activation="tanh"),
        layers.LayerNormalization(),
        layers.LeakyReLU(0.2),
        layers.Activation("silu"),
        layers.Activation("gelu"),
        layers.AveragePooling2D(3, 2, padding="same"),
        layers.GroupNormalization(2),
        layers.PReLU(shared_axes=[1, 2]),
    )


def shared_and_nested():
    inner = keras.Sequential([keras.Input(UNKNOWN), dcn.DeformableConv2D(3, 3, padding="same"), layers.ELU()])
    left, right = keras.Input(UNKNOWN, name="left"), keras.Input(UNKNOWN, name="right")
    x, y = inner(left), inner(right)
    return keras.Model({"left": left, "right": right}, {"z": x - y, "a": layers.Maximum()([x, y])})


class Subclassed(keras.Model):
    """Does not know its inputs."""

    def __init__(self):
        super().__init__()
        self.deform = dcn.DeformableConv2D(3, 3, padding="same")

    def build(self, shape):
        self.deform.build(shape)

    def call(self, inputs):
        return self.deform(inputs)


class InAFunction(Subclassed):
    """Has a TensorFlow function of its own, which outlives the export."""

    call = tf.function(Subclassed.call)


@pytest.mark.parametrize(
    "build",
    [
        lambda: dcn.cnn((12, 10, 1)),
        lambda: dcn.deform_conv_cnn((12, 10, 1)),
        lambda: dcn.deformable_cnn((12, 10, 1)),
        lambda: dcn.mini_resnet((12, 10, 1)),
        lambda: u_net("nearest"),
        lambda: u_net("bilinear"),
        mobile_block,
        activations_and_pooling,
        shared_and_nested,
        lambda: keras.Sequential([keras.Input((9, 12, 4)), dcn.DeformableConv2D(3, 3), layers.Flatten()]),
        lambda: sequence(Subclassed()),
        lambda: sequence(layers.Dense(3, activation="relu"), layers.Flatten(), shape=(4,)),
    ],
)
def test_networks(random, build):
    check(build(), random)


def test_a_function_of_a_layer_trains_after_the_export(random):
    model = sequence(InAFunction())
    dcn.to_onnx(model)
    check(model, random)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(tf.ones((1, 5, 6, 4))))
    assert None not in tape.gradient(total, model.trainable_variables)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_half_precision_becomes_float32(random, policy):
    def build(dtype):
        return sequence(
            dcn.DeformableConv2D(4, 3, dtype=dtype),
            layers.BatchNormalization(dtype=dtype),
            layers.Dense(2, dtype=dtype),
            layers.Activation("softmax", dtype="float32"),
        )

    expected = randomised(build("float32"), random)
    half = build(policy)
    half.set_weights(expected.get_weights())
    expected.set_weights([np.float32(weight) for weight in half.get_weights()])  # as they are rounded
    check(half, random, expected=expected)
    assert [layer.dtype_policy.name for layer in half.layers[1:]] == [policy] * 3 + ["float32"]


def named_like_an_output():
    inputs = keras.Input(UNKNOWN, name="output_0")
    return keras.Model(inputs, dcn.DeformableConv2D(2, 3)(inputs))


class InPython(layers.Layer):
    """Computes outside TensorFlow."""

    def call(self, inputs):
        return tf.ensure_shape(tf.numpy_function(np.copy, [inputs], inputs.dtype), inputs.shape)

    def compute_output_shape(self, shape):
        return shape


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "model must be a built Functional or Sequential keras.Model. Received: model=None"),
        (layers.Dense(2), "model must be a built Functional or Sequential"),
        (keras.Sequential([layers.Dense(2)]), "model must be a built Functional or Sequential"),
        (Subclassed(), "model must be a built Functional or Sequential keras.Model. Received: model=<Subclassed"),
        (named_like_an_output(), "inputs must not have the names of outputs. Received: output_0"),
        (sequence(InPython()), "model must consist of operations that tf2onnx converts. Received: .*PyFunc"),
    ],
)
def test_what_cannot_be_exported_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        dcn.to_onnx(model)


@pytest.mark.parametrize("opset", [18, 23, 19.0, None])
def test_another_opset_is_refused(opset):
    with pytest.raises(ValueError, match=f"opset must be from 19 to 22. Received: opset={opset}"):
        dcn.to_onnx(dcn.cnn(), opset=opset)


@pytest.mark.parametrize("package", ["onnx", "tf2onnx"])
def test_a_missing_package_is_named(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"to_onnx requires onnx and tf2onnx, .* Received: .*{package}"):
        dcn.to_onnx(dcn.cnn())
