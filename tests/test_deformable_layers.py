import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from dcn import ops
from dcn.layers import DeformableConv2D, DeformableRoIPooling2D

ARGUMENTS = [
    {"filters": 4, "kernel_size": 3},
    {"filters": 4, "kernel_size": (3, 2), "padding": "same", "strides": (2, 1)},
    {"filters": 4, "kernel_size": (3, 2), "padding": "same", "dilation_rate": (2, 1), "groups": 2},
    {"filters": 4, "kernel_size": 3, "activation": "relu", "use_bias": False, "modulated": True, "offset_groups": 3},
]


def draw_inputs(random, channels=6):
    return tf.constant(random.normal(size=(2, 7, 6, channels)), tf.float32)


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_a_new_layer_computes_what_conv2d_computes(random, arguments):
    inputs = draw_inputs(random)
    layer = DeformableConv2D(**arguments, bias_initializer="ones")
    outputs = layer(inputs)
    plain = {name: value for name, value in arguments.items() if name not in ("modulated", "offset_groups")}
    conv = keras.layers.Conv2D(**plain)
    conv.build(inputs.shape)
    conv.set_weights([weight.numpy() for weight in (layer.kernel, layer.bias) if weight is not None])
    np.testing.assert_allclose(outputs, conv(inputs), atol=2e-6)
    assert layer.compute_output_shape(inputs.shape) == outputs.shape


def test_its_offsets_are_used_and_learn(random):
    inputs = draw_inputs(random)
    layer = DeformableConv2D(4, 3, padding="same", modulated=True, offset_groups=2, offset_initializer="he_normal")
    outputs = layer(inputs)
    predicted = tf.nn.conv2d(inputs, layer.offset_kernel, 1, "SAME")
    expected = ops.deform_conv2d(
        inputs,
        layer.kernel.value,
        predicted[..., :36],
        2 * tf.sigmoid(predicted[..., 36:]),
        padding="same",
        offset_groups=2,
    )
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    for initializer in ("zeros", "he_normal"):
        layer = DeformableConv2D(4, 3, padding="same", modulated=True, offset_initializer=initializer)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(inputs) ** 2)
        for weight, gradient in zip(
            layer.trainable_weights, tape.gradient(loss, layer.trainable_variables), strict=True
        ):
            assert np.abs(gradient).max() > 0, weight.path


@pytest.mark.parametrize(
    "optimizer", [keras.optimizers.SGD(0.1, momentum=0.9), keras.optimizers.Adam(0.1)], ids=["sgd", "adam"]
)
def test_the_learning_rate_multiplier_scales_the_step_of_any_optimiser(random, optimizer):
    inputs = draw_inputs(random)
    steps = {}
    for factor in (1.0, 0.25):
        keras.utils.set_random_seed(1)
        layer = DeformableConv2D(4, 3, offset_learning_rate_multiplier=factor, offset_initializer="he_normal")
        layer.build(inputs.shape)
        before = layer.offset_kernel.numpy() * factor
        same = type(optimizer).from_config(optimizer.get_config())
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(inputs) ** 2)
        same.apply(tape.gradient(loss, layer.trainable_variables), layer.trainable_variables)
        steps[factor] = layer.offset_kernel.numpy() * factor - before
    assert np.abs(steps[1.0]).max() > 0
    np.testing.assert_allclose(steps[0.25], 0.25 * steps[1.0], rtol=1e-3, atol=1e-4 * np.abs(steps[1.0]).max())


def test_from_a_trained_conv2d(random):
    inputs = draw_inputs(random)
    conv = keras.layers.Conv2D(4, 3, strides=2, padding="same", groups=2, bias_initializer="ones", name="trained")
    expected = conv(inputs)
    layer = DeformableConv2D.from_conv2d(conv, offset_groups=3, modulated=True)
    assert (layer.name, layer.offset_groups, layer.modulated) == ("trained", 3, True)
    np.testing.assert_allclose(layer(inputs), expected, atol=2e-6)
    for wrong in (keras.layers.Conv2D(4, 3), keras.layers.Dense(2), layer):
        with pytest.raises(ValueError, match="layer must be a built keras.layers.Conv2D"):
            DeformableConv2D.from_conv2d(wrong)


def test_with_a_group_for_each_channel_it_is_a_depthwise_convolution(random):
    depthwise = keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, use_bias=False)
    images = random.normal(size=(2, 6, 5, 3)).astype("float32")
    expected = depthwise(images)
    layer = DeformableConv2D(6, 3, padding="same", groups=3, use_bias=False)
    layer.build(images.shape)
    layer.kernel.assign(np.reshape(depthwise.kernel, (3, 3, 1, 6)))
    np.testing.assert_allclose(layer(images), expected, atol=1e-5)


def test_a_frozen_kernel_stays_and_the_offsets_train(tmp_path, random):
    inputs = draw_inputs(random)
    layer = DeformableConv2D(4, 3, padding="same", freeze_kernel=True, offset_initializer="he_normal")
    model = keras.Sequential([layer, keras.layers.GlobalAveragePooling2D()])
    model.compile("sgd", "mse", jit_compile=False)
    model.build(inputs.shape)
    before = [weight.numpy() for weight in layer.weights]
    model.fit(inputs, random.normal(size=(inputs.shape[0], 4)), verbose=0)
    changed = {weight.name for weight, old in zip(layer.weights, before, strict=True) if np.any(weight.numpy() != old)}
    assert changed == {"offset_kernel", "offset_bias"}
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").layers[0]
    for each in (again, keras.models.clone_model(model).layers[0], layer):
        each.trainable = False
        assert each.trainable_weights == []
        each.trainable = True
        assert [weight.name for weight in each.trainable_weights] == ["offset_kernel", "offset_bias"]


def test_frozen_weights_load_into_a_layer_that_trains(tmp_path, random):
    inputs = draw_inputs(random)
    models = [keras.Sequential([DeformableConv2D(4, 3, freeze_kernel=frozen)]) for frozen in (True, False)]
    before, after = (model(inputs) for model in models)
    assert np.any(before != after)
    models[0].save_weights(tmp_path / "frozen.weights.h5")
    models[1].load_weights(tmp_path / "frozen.weights.h5")
    np.testing.assert_array_equal(models[1](inputs), before)
    other = keras.Sequential([DeformableConv2D(4, 3, use_bias=False)])
    other.build(inputs.shape)
    with pytest.raises(ValueError, match="has 3 weights. Received: 4"):
        other.load_weights(tmp_path / "frozen.weights.h5")


def test_offsets_go_no_further_than_their_limit(random):
    inputs = draw_inputs(random)
    layer = DeformableConv2D(4, 3, modulated=True, max_offset=0.5, offset_initializer="he_normal")
    layer.build(inputs.shape)
    offsets, mask = layer.offsets_and_mask(inputs)
    assert tf.reduce_max(tf.abs(offsets)) == 0.5
    assert tf.reduce_max(mask) > 1
    free = DeformableConv2D(4, 3, modulated=True)
    free.build(inputs.shape)
    free.set_weights(layer.get_weights())
    np.testing.assert_array_equal(offsets, tf.clip_by_value(free.offsets_and_mask(inputs)[0], -0.5, 0.5))


def test_pooling_takes_part_in_a_functional_model(random):
    inputs, boxes, indices = keras.Input((6, 5, 2)), keras.Input((4,)), keras.Input((), dtype="int32")
    layer = DeformableRoIPooling2D((3, 2), sampling_ratio=1)
    model = keras.Model([inputs, boxes, indices], keras.layers.Flatten()(layer(inputs, boxes, indices)))
    assert model.output_shape == (None, 12)
    arguments = (
        random.normal(size=(2, 6, 5, 2)),
        np.array([[0.0, 0.0, 3.0, 4.0], [1.0, 1.0, 5.0, 4.0]]),
        np.array([0, 1]),
    )
    np.testing.assert_allclose(model(arguments), tf.reshape(layer(*arguments), (2, 12)), rtol=1e-6)


def test_configurations_round_trip():
    layer = DeformableConv2D(
        4,
        (3, 2),
        strides=(2, 1),
        groups=2,
        offset_groups=3,
        modulated=True,
        offset_initializer="he_normal",
        offset_regularizer="l2",
        offset_constraint="max_norm",
        offset_learning_rate_multiplier=0.1,
        max_offset=3.0,
        freeze_kernel=True,
    )
    assert DeformableConv2D.from_config(layer.get_config()).get_config() == layer.get_config()
    layer = DeformableRoIPooling2D((3, 2), spatial_scale=0.5, sampling_ratio=2, gamma=0.2)
    assert DeformableRoIPooling2D.from_config(layer.get_config()).get_config() == layer.get_config()


def small_model():
    inputs = keras.Input((6, 5, 2))
    outputs = DeformableConv2D(3, 3, padding="same", modulated=True, offset_initializer="he_normal")(inputs)
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(outputs)))


def test_a_saved_model_and_its_weights_reload_in_another_process(tmp_path, random):
    model = small_model()
    images = random.normal(size=(2, 6, 5, 2)).astype("float32")
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    np.savez(tmp_path / "expected.npz", images=images, outputs=model(images))
    code = (
        "import dcn, keras, numpy\n"
        "model = keras.models.load_model('model.keras')\n"
        "expected = numpy.load('expected.npz')\n"
        "numpy.testing.assert_allclose(model(expected['images']), expected['outputs'], rtol=1e-5, atol=1e-5)\n"
        "again = keras.models.clone_model(model)\n"
        "again.load_weights('model.weights.h5')\n"
        "numpy.testing.assert_allclose(again(expected['images']), expected['outputs'], rtol=1e-5, atol=1e-5)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_it_trains_from_tf_data_compiled_or_not(random, jit_compile):
    images = random.normal(size=(24, 6, 5, 2)).astype("float32")
    targets = np.stack([images[:, :3].mean((1, 2, 3)), images[:, 3:].mean((1, 2, 3))], axis=1)
    data = tf.data.Dataset.from_tensor_slices((images, targets)).batch(10)
    model = small_model()
    model.compile("adam", "mse", jit_compile=jit_compile)
    before = model.layers[1].offset_kernel.numpy()
    losses = model.fit(data, epochs=3, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert not np.array_equal(before, model.layers[1].offset_kernel)


def test_mixed_precision(random):
    images = random.normal(size=(2, 6, 5, 2)).astype("float32")
    for policy in ("mixed_float16", "mixed_bfloat16"):
        layer = DeformableConv2D(3, 3, modulated=True, offset_initializer="he_normal", dtype=policy)
        outputs = layer(images)
        assert outputs.dtype == policy.removeprefix("mixed_")
        assert layer.kernel.dtype == "float32"
        exact = DeformableConv2D(3, 3, modulated=True)
        exact.build(images.shape)
        exact.set_weights(layer.get_weights())
        np.testing.assert_allclose(tf.cast(outputs, "float32"), exact(images), atol=0.1)


def test_saved_model(tmp_path, random):
    model = small_model()
    images = random.normal(size=(3, 6, 5, 2)).astype("float32")
    model.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(served.serve(images), model(images), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_tflite(random):
    model = small_model()
    images = random.normal(size=(1, 6, 5, 2)).astype("float32")
    inputs = keras.Input(batch_shape=images.shape)
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(inputs, model(inputs)))
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
    interpreter.invoke()
    outputs = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(outputs, model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"offset_groups": 0}, "offset_groups must be a positive integer. Received: offset_groups=0"),
        ({"offset_groups": 1.5}, "offset_groups must be a positive integer"),
        ({"padding": "causal"}, "padding"),
        ({"data_format": "channels_first"}, "data_format must be 'channels_last'"),
        ({"max_offset": 0}, "max_offset must be above 0, or None. Received: max_offset=0"),
        ({"offset_learning_rate_multiplier": 0}, "offset_learning_rate_multiplier must be finite and above 0"),
        ({"kernel_size": (3, 0)}, "kernel_size"),
        ({"filters": 0}, "filters"),
        ({"strides": 0}, "strides"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        DeformableConv2D(**{"filters": 4, "kernel_size": 3, **arguments})


def test_wrong_inputs():
    with pytest.raises(ValueError, match=r"divisible by groups and offset_groups. Received: .*offset_groups=4"):
        DeformableConv2D(4, 3, offset_groups=4).build((None, 5, 5, 6))
    with pytest.raises(ValueError, match="inputs must have shape"):
        DeformableConv2D(4, 3).build((None, 5, 6))
    with pytest.raises(ValueError, match="output_size must be"):
        DeformableRoIPooling2D(0)
    with pytest.raises(ValueError, match="with known channels"):
        DeformableRoIPooling2D(2).build((None, 5, 5, None))


def test_roi_pooling_layer(random):
    inputs = draw_inputs(random, 3)
    boxes, indices = tf.constant([[0.0, 1, 8, 9], [2, 2, 10, 6]]), tf.constant([0, 1])
    layer = DeformableRoIPooling2D((3, 2), spatial_scale=0.5, sampling_ratio=2)
    outputs = layer(inputs, boxes, indices)
    plain = ops.deform_roi_pool(inputs, boxes, indices, output_size=(3, 2), spatial_scale=0.5, sampling_ratio=2)
    np.testing.assert_allclose(outputs, plain, rtol=1e-6)
    assert layer.compute_output_shape(inputs.shape, boxes.shape, indices.shape) == outputs.shape
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(inputs, boxes, indices) ** 2)
    for gradient in tape.gradient(loss, layer.trainable_variables):
        assert np.abs(gradient).max() > 0
