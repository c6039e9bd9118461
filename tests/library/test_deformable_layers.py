import keras
import numpy as np
import pytest
import tensorflow as tf
from gradients import gradients

from dcn import dead_weights, ops
from dcn.layers import DeformableConv1D, DeformableConv2D, DeformableRoIPooling2D

ARGUMENTS = [
    (DeformableConv2D, {"kernel_size": 3}),
    (DeformableConv2D, {"kernel_size": (3, 2), "padding": "same", "strides": (2, 1)}),
    (DeformableConv2D, {"kernel_size": (3, 2), "padding": "same", "dilation_rate": (2, 1), "groups": 2}),
    (DeformableConv2D, {"kernel_size": 3, "groups": 6, "activation": "relu", "use_bias": False}),  # depthwise
    (DeformableConv1D, {"kernel_size": 3}),
    (DeformableConv1D, {"kernel_size": 4, "padding": "same", "strides": 2, "groups": 2}),
    (DeformableConv1D, {"kernel_size": 3, "padding": "same", "dilation_rate": 2, "use_bias": False}),
]


def draw_inputs(random, channels=6):
    return tf.constant(random.normal(size=(2, 7, 6, channels)), tf.float32)


@pytest.mark.parametrize(("cls", "arguments"), ARGUMENTS)
def test_a_new_layer_computes_what_a_regular_one_computes(random, cls, arguments):
    inputs = draw_inputs(random) if cls is DeformableConv2D else draw_inputs(random)[:, 0]
    layer = cls(12, **arguments, bias_initializer="ones", modulated=True, offset_groups=3)
    outputs = layer(inputs)
    regular = getattr(keras.layers, cls.__name__.removeprefix("Deformable"))(12, **arguments)
    regular.build(inputs.shape)
    regular.set_weights([weight.numpy() for weight in (layer.kernel, layer.bias) if weight is not None])
    np.testing.assert_allclose(outputs, regular(inputs), atol=2e-6)
    assert layer.compute_output_shape(inputs.shape) == outputs.shape


def test_points_move_along_a_sequence(random):
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
    rule = (
        r"changes must keep the shape of the kernel, \(3, 3, 3, 4\). Received: {'kernel_size': 5}, which give \(5, 5,"
    )
    with pytest.raises(ValueError, match=rule):
        DeformableConv2D.from_conv2d(conv, kernel_size=5)


def test_a_frozen_conv2d_gives_a_frozen_layer_unless_it_is_told_to_train(random):
    conv = keras.layers.Conv2D(4, 3, trainable=False)
    conv(draw_inputs(random))
    assert DeformableConv2D.from_conv2d(conv).trainable_weights == []
    assert len(DeformableConv2D.from_conv2d(conv, trainable=True).trainable_weights) == 4


OPTIMIZERS = [keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.AdamW]
OPTIMIZERS += [keras.optimizers.Lamb, keras.optimizers.Adafactor]


@pytest.mark.parametrize("start", ["zeros", "he_normal"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_multiplier_scales_every_step_of_every_optimiser(random, optimizer, start):
    """Three steps from the same weights with the same gradients, so that only the factor is different."""
    inputs = draw_inputs(random)
    gradients = [tf.constant(random.normal(size=(3, 3, 6, 18)), tf.float32) for _ in range(3)]
    steps = {}
    for factor in (1.0, 0.1):
        layer = DeformableConv2D(
            4, 3, offset_learning_rate_multiplier=factor, offset_initializer=start, kernel_initializer="ones"
        )
        layer.build(inputs.shape)
        weight, used = layer.offset_kernel, optimizer(0.01)
        if factor == 1:
            weights = [weight.numpy() if start == "zeros" else random.normal(size=weight.shape)]
        steps[factor] = []
        for number, gradient in enumerate(gradients):
            weight.assign(weights[number])
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(inputs, training=False) ** 2)
            assert np.abs(tape.gradient(loss, weight.value)).max() > 0
            used.apply([gradient], [weight])
            steps[factor].append(weight.numpy() - np.float32(weights[number]))
            if factor == 1:
                weights.append(weight.numpy())
    for slow, step in zip(steps[0.1], steps[1.0], strict=True):
        assert np.abs(step).max() > 0
        np.testing.assert_allclose(slow, 0.1 * step, rtol=1e-3, atol=1e-3 * np.abs(step).max())


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_multiplier_in_training(random, tmp_path, jit_compile, policy):
    inputs, targets = draw_inputs(random).numpy(), random.normal(size=(2, 4))
    changes = {}
    for factor in (1.0, 0.25):
        keras.utils.set_random_seed(1)
        layer = DeformableConv2D(4, 3, offset_learning_rate_multiplier=factor, dtype=policy)
        model = keras.Sequential([layer, keras.layers.GlobalAveragePooling2D()])
        model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=jit_compile)
        model.fit(inputs, targets, verbose=0)
        changes[factor] = layer.offset_kernel.numpy()
        assert [weight.name for weight in layer.weights] == ["kernel", "bias", "offset_kernel", "offset_bias"]
    np.testing.assert_allclose(changes[0.25], 0.25 * changes[1.0], rtol=1e-3, atol=1e-3 * np.abs(changes[1.0]).max())
    # Weights that were set meanwhile are not pulled back to those before, and are those in use.
    layer.offset_kernel.assign(np.ones(layer.offset_kernel.shape))
    model.fit(inputs, targets, verbose=0)
    assert np.abs(layer.offset_kernel.numpy() - 1).max() < 0.1
    model.save_weights(tmp_path / "slow.weights.h5")
    plain = keras.Sequential([DeformableConv2D(4, 3, dtype=policy), keras.layers.GlobalAveragePooling2D()])
    plain.build(inputs.shape)
    plain.load_weights(tmp_path / "slow.weights.h5")
    np.testing.assert_array_equal(plain(inputs), model(inputs))


def test_the_multiplier_keeps_the_constraint(random):
    inputs = draw_inputs(random)
    layer = DeformableConv2D(4, 3, offset_learning_rate_multiplier=0.5, offset_constraint="non_neg")
    layer.build(inputs.shape)
    keras.optimizers.SGD(1.0).apply(
        [tf.constant(random.normal(size=layer.offset_kernel.shape), tf.float32)], [layer.offset_kernel]
    )
    assert layer.offset_kernel.numpy().min() == 0
    assert layer.offset_kernel.numpy().max() > 0


def test_lora(random, tmp_path):
    inputs = draw_inputs(random)
    layer = DeformableConv2D(4, 3, offset_initializer="he_normal")
    model = keras.Sequential([layer, keras.layers.GlobalAveragePooling2D()])
    before = model(inputs)
    layer.enable_lora(2)
    trained = ["bias", "offset_kernel", "offset_bias", "lora_kernel_a", "lora_kernel_b"]
    assert [weight.name for weight in layer.trainable_weights] == trained
    np.testing.assert_array_equal(model(inputs), before)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", jit_compile=False)
    model.fit(inputs, random.normal(size=(2, 4)), epochs=2, verbose=0)
    expected = model(inputs)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(inputs), expected, rtol=1e-5, atol=1e-6)
    assert (again.layers[0].lora_rank, again.layers[0].get_config()["lora_rank"]) == (2, 2)
    assert [weight.name for weight in again.layers[0].trainable_weights] == trained
    for one, other in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    # The loaded model learns too; of a product of which one factor is zero, that one at first.
    assert [path.split("/")[-1] for path in dead_weights(again, inputs)] == ["lora_kernel_a"]
    model.save_weights(tmp_path / "model.weights.h5")
    for rank in (None, 3):
        plain = keras.Sequential([DeformableConv2D(4, 3, lora_rank=rank), keras.layers.GlobalAveragePooling2D()])
        plain.build(inputs.shape)
        plain.load_weights(tmp_path / "model.weights.h5")
        np.testing.assert_allclose(plain(inputs), expected, rtol=1e-5, atol=1e-6)


def test_lora_and_a_frozen_kernel_exclude_each_other():
    rule = "freeze_kernel must be False for LoRA, .* Received: freeze_kernel=True, rank=2"
    with pytest.raises(ValueError, match=rule):
        DeformableConv2D(4, 3, freeze_kernel=True, lora_rank=2)
    layer = DeformableConv2D(4, 3, freeze_kernel=True)
    layer.build((None, 5, 5, 2))
    with pytest.raises(ValueError, match=rule):
        layer.enable_lora(2)


def test_from_a_conv2d_with_lora(random):
    inputs = draw_inputs(random)
    conv = keras.layers.Conv2D(4, 3)
    conv.build(inputs.shape)
    conv.enable_lora(2)
    conv.lora_kernel_b.assign(random.normal(size=conv.lora_kernel_b.shape))
    layer = DeformableConv2D.from_conv2d(conv)
    np.testing.assert_allclose(layer(inputs), conv(inputs), rtol=1e-5, atol=1e-5)
    assert [weight.name for weight in layer.weights] == ["kernel", "bias", "offset_kernel", "offset_bias"]
    adapted = DeformableConv2D.from_conv2d(conv, lora_rank=3)
    np.testing.assert_allclose(adapted(inputs), conv(inputs), rtol=1e-5, atol=1e-5)
    assert adapted.lora_kernel_a.shape[-1] == 3


@pytest.mark.parametrize("modulated", [False, True])
def test_the_offsets_may_come_from_a_guide(random, modulated):
    """Features of one frame, sampled where another says, as the operator does with these offsets."""
    inputs = draw_inputs(random)
    guide = tf.constant(random.normal(size=(2, 7, 6, 5)), tf.float32)
    layer = DeformableConv2D(4, 3, strides=2, padding="same", modulated=modulated, offset_initializer="he_normal")
    outputs = layer(inputs, guide=guide)
    assert layer.offset_kernel.shape[2] == 5
    predicted = tf.nn.conv2d(guide, layer.offset_kernel, 2, "SAME")
    mask = 2 * tf.sigmoid(predicted[..., 18:]) if modulated else None
    kernel = layer.kernel.value
    expected = ops.deform_conv2d(inputs, kernel, predicted[..., :18], mask, strides=2, padding="same")
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    np.testing.assert_allclose(layer.offsets_and_mask(guide)[0], predicted[..., :18], atol=1e-6)
    assert np.abs(gradients(lambda guide: layer(inputs, guide=guide) ** 2, guide)[1]).max() > 0


def test_a_guide_that_does_not_fit(random):
    inputs, guide = draw_inputs(random), draw_inputs(random, 5)
    rule = r"guide, or without one inputs, must have the batch and the size of inputs, \(2, 7, 6\), and the channels"
    for wrong in (guide[:, :6], guide[:1], guide[:, 0]):
        with pytest.raises(ValueError, match=rule):
            DeformableConv2D(4, 3)(inputs, guide=wrong)
    layer = DeformableConv2D(4, 3)
    layer(inputs, guide=guide)
    for wrong in (inputs, None):
        with pytest.raises(ValueError, match=rule + r" .* from, 5. Received: shape \(2, 7, 6, 6\)"):
            layer(inputs, guide=wrong)
    with pytest.raises(ValueError, match=r"must have the batch and the size of inputs, \(None, 7, 6\)"):
        layer(keras.Input((7, 6, 6)), guide=keras.Input((7, 5, 5)))
    unknown = [tf.TensorSpec((None, None, None, channels)) for channels in (6, 5)]
    same = DeformableConv2D(4, 3, strides=2, padding="same")
    same(inputs, guide=guide)
    call = tf.function(lambda inputs, guide: same(inputs, guide=guide), input_signature=unknown)
    np.testing.assert_allclose(call(inputs, guide), same(inputs, guide=guide), atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="guide must have the batch and the size of inputs"):
        call(inputs, tf.pad(guide, ((0, 0), (0, 1), (0, 0), (0, 0))))


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
    layer = DeformableConv2D(4, 3, modulated=True, max_offset=np.float32(0.5), offset_initializer="he_normal")
    layer.build(inputs.shape)
    offsets, mask = layer.offsets_and_mask(inputs)
    assert tf.reduce_max(tf.abs(offsets)) == 0.5
    assert tf.reduce_max(mask) > 1
    free = DeformableConv2D(4, 3, modulated=True)
    free.build(inputs.shape)
    free.set_weights(layer.get_weights())
    np.testing.assert_array_equal(offsets, tf.clip_by_value(free.offsets_and_mask(inputs)[0], -0.5, 0.5))


def small_model():
    inputs = keras.Input((6, 5, 2))
    outputs = DeformableConv2D(3, 3, padding="same", modulated=True, offset_initializer="he_normal")(inputs)
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(outputs)))


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
        ({"padding": "causal"}, "padding must be 'valid' or 'same'; .* Received: padding='causal'"),
        ({"data_format": "channels_first"}, "data_format must be 'channels_last'"),
        ({"max_offset": 0}, "max_offset must be a finite number above 0. Received: max_offset=0"),
        ({"max_offset": "3"}, "max_offset must be a finite number above 0. Received: max_offset='3'"),
        ({"max_offset": float("inf")}, "max_offset must be a finite number"),
        ({"offset_learning_rate_multiplier": 0}, "offset_learning_rate_multiplier must be a finite number above 0"),
        ({"offset_learning_rate_multiplier": None}, "offset_learning_rate_multiplier must be a finite number above 0"),
        ({"max_offset": float("nan")}, "max_offset must be a finite number"),
        ({"freeze_kernel": "no"}, "freeze_kernel must be True or False. Received: freeze_kernel='no'"),
        ({"modulated": 2}, "modulated must be True or False. Received: modulated=2"),
        ({"jit_compile": 1}, "jit_compile must be True, False or None. Received: jit_compile=1"),
        ({"padding": 1}, "padding must be 'valid' or 'same'; .* put a ZeroPadding layer .* Received: padding=1"),
        ({"groups": 0}, "groups must be a positive integer. Received: groups=0"),
        ({"kernel_size": (3, 0)}, "kernel_size"),
        ({"filters": 0}, "filters"),
        ({"strides": 0}, "strides"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        DeformableConv2D(**{"filters": 4, "kernel_size": 3, **arguments})


def test_wrong_inputs():
    for cls, shape in (
        (DeformableConv2D, (None, 5, 5, 6)),
        (DeformableConv1D, (2, 9, 6)),
        (DeformableConv2D, (5, 5, 8)),
    ):
        with pytest.raises(ValueError, match=r"divisible by groups and offset_groups. Received: .*offset_groups=4"):
            cls(4, 3, offset_groups=4).build(shape)
    with pytest.raises(ValueError, match="layer must be built: call it once. Received: <DeformableConv2D name="):
        DeformableConv2D(4, 3).offsets_and_mask(np.zeros((1, 5, 5, 6), "float32"))
    for wrong, words in (
        ({"output_size": 0}, "output_size must be"),
        ({"sampling_ratio": -2}, "sampling_ratio must be an integer of at least 0. Received: sampling_ratio=-2"),
        ({"sampling_ratio": 1.5}, "sampling_ratio must be an integer"),
        ({"spatial_scale": -1}, "spatial_scale must be a finite number above 0. Received: spatial_scale=-1"),
        ({"gamma": "x"}, "gamma must be a finite number. Received: gamma='x'"),
    ):
        with pytest.raises(ValueError, match=words):
            DeformableRoIPooling2D(**{"output_size": 2, **wrong})
    with pytest.raises(ValueError, match="with known channels"):
        DeformableRoIPooling2D(2).build((None, 5, 5, None))
    layer, boxes = DeformableRoIPooling2D(2), {"boxes": [[0.0, 0.0, 4.0, 4.0]], "box_indices": [0]}
    layer(np.ones((1, 5, 5, 3), "float32"), **boxes)
    with pytest.raises(ValueError, match="expected axis 3 of input shape to have value 3"):
        layer(np.ones((1, 5, 5, 6), "float32"), **boxes)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_boxes_keep_their_precision_under_a_mixed_policy(random, policy):
    """In half precision, corners at 800 are rounded to 4 pixels, and images beyond the 2048th are mixed up."""
    half = policy.removeprefix("mixed_")
    inputs = tf.cast(random.uniform(size=(1, 64, 64, 2)), half)
    boxes = tf.constant([[100.3, 200.7, 801.2, 1001.6], [10.0, 33.3, 999.9, 1015.5]])
    options = {"output_size": 3, "sampling_ratio": 2, "spatial_scale": 1 / 16}
    expected = ops.deform_roi_pool(inputs, boxes, [0, 0], **options)
    layer = DeformableRoIPooling2D(**options, dtype=policy)
    np.testing.assert_array_equal(layer(inputs, boxes, np.array([0, 0])), expected)
    assert layer.offset_kernel.dtype == "float32"
    symbols = keras.Input((64, 64, 2)), keras.Input((4,)), keras.Input((), dtype="int32")
    model = keras.Model(symbols, layer(*symbols))
    assert model.output.dtype == half
    np.testing.assert_array_equal(model((inputs, boxes, tf.constant([0, 0]))), expected)
    many = tf.cast(np.arange(2050).reshape(-1, 1, 1, 1) % 7, half)
    pooled = DeformableRoIPooling2D(1, dtype=policy)(many, np.array([[0.0, 0, 1, 1]]), np.array([2049], "int64"))
    assert float(pooled[0, 0, 0, 0]) == 2049 % 7
