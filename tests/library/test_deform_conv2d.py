import functools
import itertools

import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_sessions import needs_deform_conv, onnx_session

from dcn.ops import deform_conv2d
from dcn.ops.geometry import checked_geometry, require_bool, require_number, require_positive

# Awkward on purpose: 5x4 images, a 3x2 kernel, strides (2, 1), dilation (2, 1), asymmetric pads, two kinds of groups.
AWKWARD = {
    "strides": (2, 1),
    "padding": ((1, 2), (0, 1)),
    "dilation_rate": (2, 1),
    "groups": 2,
    "offset_groups": 3,
}
PLAIN = {"strides": (1, 1), "padding": ((0, 0), (0, 0)), "dilation_rate": (1, 1), "groups": 1, "offset_groups": 1}


def output_size(size, kernel, stride, pads, dilation):
    return max(0, (size + sum(pads) - (kernel - 1) * dilation - 1) // stride + 1)


def draw(random, case, *, batch=2, size=(5, 4), channels=6, kernel=(3, 2), filters=4, spread=2.0):
    """Returns inputs, kernel, offsets, mask and bias in float64."""
    outputs = [
        output_size(size[i], kernel[i], case["strides"][i], case["padding"][i], case["dilation_rate"][i])
        for i in (0, 1)
    ]
    points = case["offset_groups"] * kernel[0] * kernel[1]
    return (
        random.normal(size=(batch, *size, channels)),
        random.normal(size=(*kernel, channels // case["groups"], filters)),
        spread * random.normal(size=(batch, *outputs, 2 * points)),
        random.uniform(size=(batch, *outputs, points)),
        random.normal(size=(filters,)),
    )


# Most points are proved on the path without XLA, which takes no time to compile. `test_compilation` compares both.
plain = functools.partial(deform_conv2d, jit_compile=False)


def gradients(tensors, upstream, **case):
    tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outputs = deform_conv2d(*tensors, **case)
    return tape.gradient(outputs, tensors, tf.constant(upstream, outputs.dtype))


@pytest.mark.parametrize("parts", [3, 4, 5])
@pytest.mark.parametrize("case", [PLAIN, AWKWARD], ids=["plain", "awkward"])
def test_values_equal_the_loops(random, assert_close, case, parts):
    tensors = draw(random, case)[:parts]
    assert_close(
        deform_conv2d(*map(tf.constant, tensors), **case), reference.deform_conv2d(*tensors, **case), "float64"
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_other_types(random, dtype):
    tensors = [tf.cast(tensor, dtype) for tensor in draw(random, AWKWARD)]
    outputs = deform_conv2d(*tensors, **AWKWARD)
    assert outputs.dtype == dtype
    exact = reference.deform_conv2d(*(tf.cast(tensor, "float64").numpy() for tensor in tensors), **AWKWARD)
    # The sums of 18 products of numbers around 1, rounded to the type.
    resolution = {"float32": 1e-5, "float16": 2e-2, "bfloat16": 2e-1}[dtype]
    np.testing.assert_allclose(tf.cast(outputs, "float64"), exact, atol=resolution)
    for tensor, gradient in zip(tensors, gradients(tensors, np.ones(outputs.shape), **AWKWARD), strict=True):
        assert gradient.dtype == tensor.dtype
        assert np.isfinite(tf.cast(gradient, "float64")).all()


def test_golden_value():
    # One row 10, 20, 40; a 1x1 kernel of 3. Offsets dx: half a pixel to the right, half a pixel past the border, and a
    # whole pixel to the left with dy a quarter down, where the missing row below counts as zero.
    inputs = tf.reshape([10.0, 20.0, 40.0], (1, 1, 3, 1))
    offsets = tf.reshape([0, 0.5, 0, 1.5, 0.25, -1.0], (1, 1, 3, 2))
    outputs = plain(inputs, tf.fill((1, 1, 1, 1), 3.0), offsets)
    assert outputs.numpy().ravel().tolist() == [3 * 15, 3 * 20, 3 * 0.75 * 20]


def test_integer_offsets_are_a_shift(random):
    inputs = random.normal(size=(1, 5, 4, 1))
    offsets = np.tile([1.0, -1.0], (1, 5, 4, 1))
    outputs = plain(tf.constant(inputs), tf.ones((1, 1, 1, 1), tf.float64), tf.constant(offsets))
    expected = np.zeros((5, 4))
    expected[:4, 1:] = inputs[0, 1:, :3, 0]
    np.testing.assert_array_equal(outputs[0, :, :, 0], expected)


@pytest.mark.parametrize("dilation_rate", [(1, 1), (2, 1)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("padding", ["valid", "same", ((1, 2), (0, 3))])
@pytest.mark.parametrize("size", [(5, 4), (8, 7)])
def test_zero_offsets_and_unit_mask_equal_tensorflow(random, padding, strides, dilation_rate, size):
    inputs = tf.constant(random.normal(size=(2, *size, 3)), tf.float32)
    kernel = tf.constant(random.normal(size=(3, 2, 3, 4)), tf.float32)
    padded = inputs if isinstance(padding, str) else tf.pad(inputs, ((0, 0), *padding, (0, 0)))
    rule = padding.upper() if isinstance(padding, str) else "VALID"
    if max(strides) > 1 and max(dilation_rate) > 1:
        # TensorFlow's convolution takes either; a dilated kernel with zeros between its points is the same.
        spread = np.zeros((5, 2, 3, 4), "float32")
        spread[::2] = kernel
        expected = tf.nn.conv2d(padded, spread, (1, *strides, 1), rule)
    else:
        expected = tf.nn.conv2d(padded, kernel, (1, *strides, 1), rule, dilations=(1, *dilation_rate, 1))
    zeros = tf.zeros((*expected.shape[:3], 12))
    given_ = {"strides": strides, "padding": padding, "dilation_rate": dilation_rate}
    mask = tf.ones((*expected.shape[:3], 6)) if size == (8, 7) else None
    np.testing.assert_allclose(plain(inputs, kernel, zeros, mask, **given_), expected, atol=1e-5)


@st.composite
def cases(draw):
    """A deformable convolution: sizes, strides, dilations, asymmetric pads, groups, offset groups, mask, bias."""
    groups, offset_groups = draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2), (3, 2), (2, 3)]))
    small = st.integers(1, 3)
    case = {
        "strides": (draw(small), draw(small)),
        "dilation_rate": (draw(small), draw(small)),
        "padding": tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in (0, 1)),
        "groups": groups,
        "offset_groups": offset_groups,
    }
    kernel = (draw(small), draw(small))
    size = tuple(draw(st.integers((kernel[i] - 1) * case["dilation_rate"][i] + 1, 9)) for i in (0, 1))
    sizes = {
        "batch": draw(small),
        "size": size,
        "channels": 6 * draw(st.integers(1, 2)),
        "kernel": kernel,
        "filters": 6,
        "spread": draw(st.sampled_from([0.0, 0.5, 2.0, 20.0])),
    }
    return case, sizes, draw(st.booleans()), draw(st.booleans()), draw(st.integers(0, 2**32 - 1))


@needs_deform_conv
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(cases())
def test_values_equal_onnxruntime(drawn):
    case, sizes, with_mask, with_bias, seed = drawn
    random = np.random.default_rng(seed)
    inputs, kernel, offsets, mask, bias = (array.astype("float32") for array in draw(random, case, **sizes))
    ours = plain(inputs, kernel, offsets, mask if with_mask else None, bias if with_bias else None, **case)
    theirs = {
        "X": inputs.transpose(0, 3, 1, 2),
        "W": kernel.transpose(3, 2, 0, 1),
        "offset": offsets.transpose(0, 3, 1, 2),
    }
    if with_bias:
        theirs["B"] = bias
    if with_mask:
        theirs["mask"] = mask.transpose(0, 3, 1, 2)
    names = ["X", "W", "offset", "B" if with_bias else "", "mask" if with_mask else ""]
    session = onnx_session(case, sizes["kernel"], names)
    expected = session.run(None, {name: np.ascontiguousarray(array) for name, array in theirs.items()})[0]
    np.testing.assert_allclose(ours, expected.transpose(0, 2, 3, 1), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("wanted", range(5), ids=["inputs", "kernel", "offsets", "mask", "bias"])
@pytest.mark.parametrize("case", [PLAIN, AWKWARD], ids=["plain", "awkward"])
def test_gradients_equal_finite_differences(random, case, wanted):
    tensors = list(draw(random, case, batch=2, filters=2))
    tensors[2] = np.floor(tensors[2]) + random.uniform(0.1, 0.9, tensors[2].shape)  # away from integers
    upstream = random.normal(size=reference.deform_conv2d(*tensors, **case).shape)

    def totals(many):
        arguments = [np.broadcast_to(each, (len(many), *each.shape)) for each in tensors]
        arguments[wanted] = many
        if wanted in (1, 4):  # kernel or bias, of which all images of a call have the same
            outputs = np.stack([plain(*each, **case) for each in zip(*arguments, strict=True)])
        else:
            joined = [each.reshape(-1, *each.shape[2:]) for each in arguments]
            joined[1], joined[4] = tensors[1], tensors[4]
            outputs = plain(*joined, **case).numpy().reshape(len(many), *upstream.shape)
        return (outputs * upstream).sum(axis=(1, 2, 3, 4))

    expected = reference.finite_differences(totals, tensors[wanted])
    actual = gradients(tensors, upstream, jit_compile=False, **case)[wanted]
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_offset_gradient_at_integers_is_the_right_sided_one(random):
    # One image for each of the offsets that reach two pixels past every border.
    pairs = np.array([(dy, dx) for dy in range(-7, 8) for dx in range(-6, 7)], float)
    inputs = np.repeat(random.normal(size=(1, 5, 4, 1)), len(pairs), axis=0)
    offsets = np.broadcast_to(pairs[:, None, None], (len(pairs), 5, 4, 2)).copy()
    ones = np.ones((1, 1, 1, 1))
    actual = gradients([inputs, ones, offsets], np.ones(inputs.shape), jit_compile=False)[2].numpy()
    still = reference.deform_conv2d(inputs, ones, offsets, **PLAIN)
    step = 1e-7
    for axis in (0, 1):
        ahead = offsets.copy()
        ahead[..., axis] += step
        moved = reference.deform_conv2d(inputs, ones, ahead, **PLAIN)
        np.testing.assert_allclose(actual[..., axis], ((moved - still) / step)[..., 0], atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_unknown_batch_height_and_width(random, padding, jit_compile):
    inputs = tf.constant(random.normal(size=(2, 5, 4, 3)), tf.float32)
    kernel = tf.constant(random.normal(size=(3, 2, 3, 4)), tf.float32)
    height, width = (5, 4) if padding == "same" else (3, 3)
    offsets = tf.constant(random.normal(size=(2, height, width, 12)), tf.float32)

    def loss_and_gradients(inputs, kernel, offsets):
        with tf.GradientTape() as tape:
            tape.watch([inputs, kernel, offsets])
            loss = tf.reduce_sum(deform_conv2d(inputs, kernel, offsets, padding=padding) ** 2)
        return loss, *tape.gradient(loss, [inputs, kernel, offsets])

    signature = [tf.TensorSpec((None, None, None, size)) for size in (3, 4, 12)]
    signature[1] = tf.TensorSpec((3, 2, 3, 4))
    dynamic = tf.function(loss_and_gradients, input_signature=signature, jit_compile=jit_compile)
    if not jit_compile:
        assert dynamic(inputs[:0], kernel, offsets[:0])[3].shape == (0, height, width, 12)
    for ours, expected in zip(
        dynamic(inputs, kernel, offsets), loss_and_gradients(inputs, kernel, offsets), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("batch", "size", "case"),
    [
        (0, (5, 4), PLAIN),
        (1, (1, 1), {**PLAIN, "padding": ((1, 1), (1, 1))}),
        (1, (2, 1), {**PLAIN, "padding": ((2, 3), (2, 2))}),
        (2, (2, 1), PLAIN),
    ],
    ids=["batch 0", "1x1 image", "kernel larger than the image", "no output"],
)
def test_small_and_empty(random, assert_close, batch, size, case):
    tensors = draw(random, case, batch=batch, size=size, channels=2, filters=3)
    outputs = plain(*map(tf.constant, tensors), **case)
    assert_close(outputs, reference.deform_conv2d(*tensors, **case), "float64")
    for tensor, gradient in zip(
        tensors, gradients(tensors, np.ones(outputs.shape), jit_compile=False, **case), strict=True
    ):
        assert gradient.shape == tensor.shape
        assert np.isfinite(gradient).all()


def test_not_a_number_stays_where_it_is_read(random):
    tensors = draw(random, AWKWARD)
    clean = plain(*map(tf.constant, tensors), **AWKWARD).numpy()
    tensors[2][1, 1, 0, 0] = np.nan  # dy of point 0, offset group 0: input channels 0 and 1, of convolution group 0
    dirty = plain(*map(tf.constant, tensors), **AWKWARD).numpy()
    expected = np.zeros(dirty.shape, bool)
    expected[1, 1, 0, :2] = True
    np.testing.assert_array_equal(np.isnan(dirty), expected)
    np.testing.assert_array_equal(dirty[~expected], clean[~expected])


@pytest.mark.parametrize("huge", [np.inf, -np.inf, 1e30, -1e9])
def test_huge_offsets_read_zeros(random, huge):
    inputs, kernel, offsets, mask, bias = map(tf.constant, draw(random, AWKWARD))
    outputs = plain(inputs, kernel, tf.fill(offsets.shape, tf.cast(huge, tf.float64)), mask, bias, **AWKWARD)
    np.testing.assert_array_equal(outputs, np.broadcast_to(bias, outputs.shape))


def test_results_do_not_depend_on_the_batch_and_repeat(random):
    inputs, kernel, offsets, mask, bias = (tf.constant(t, tf.float32) for t in draw(random, AWKWARD, batch=3))
    together = deform_conv2d(inputs, kernel, offsets, mask, bias, **AWKWARD)
    np.testing.assert_array_equal(together, deform_conv2d(inputs, kernel, offsets, mask, bias, **AWKWARD))
    for b in range(3):
        alone = deform_conv2d(inputs[b : b + 1], kernel, offsets[b : b + 1], mask[b : b + 1], bias, **AWKWARD)
        np.testing.assert_allclose(together[b : b + 1], alone, rtol=1e-5, atol=1e-5)
    first = gradients([inputs, kernel, offsets, mask], np.ones(together.shape), **AWKWARD)
    again = gradients([inputs, kernel, offsets, mask], np.ones(together.shape), **AWKWARD)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("bytes_", "parts"), [(2**30, 1), (2 * 6 * 3 * 6 * 6 * 8, 3), (1, 6)])
def test_the_number_of_parts_does_not_matter(random, monkeypatch, bytes_, parts, known):
    tensors = [tf.constant(tensor) for tensor in draw(random, PLAIN, size=(8, 4), batch=6)]
    whole = deform_conv2d(*tensors, **PLAIN), *gradients(tensors, np.ones((6, 6, 3, 4)), **PLAIN)
    monkeypatch.setattr("dcn.ops.geometry.PART_BYTES", bytes_)
    shapes = [
        tensor.shape if known or len(tensor.shape) < 4 else (None, None, None, tensor.shape[3]) for tensor in tensors
    ]
    shapes[1] = tensors[1].shape

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float64) for shape in shapes])
    def cut(*tensors):
        given_ = checked_geometry(*tensors, **PLAIN)
        return (
            given_.parts(tensors[0], tensors[2]),
            deform_conv2d(*tensors, **PLAIN),
            *gradients(tensors, np.ones((6, 6, 3, 4)), **PLAIN),
        )

    count, *results = cut(*tensors)
    assert count == parts
    for one, two in zip(whole, results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-12)


def test_only_a_call_that_runs_on_a_gpu_scatters_the_samples_in_one_step(random, monkeypatch):
    tensors = [tf.constant(tensor) for tensor in draw(random, AWKWARD, channels=12)]  # as in no other test
    upstream = np.ones(deform_conv2d(*tensors, **AWKWARD).shape)
    expected = gradients(tensors, upstream, jit_compile=False, **AWKWARD)
    in_one_step, while_loop = [], tf.while_loop

    def noted(*arguments, maximum_iterations):
        in_one_step.append(isinstance(maximum_iterations, int))  # otherwise it is a tensor
        return while_loop(*arguments, maximum_iterations=maximum_iterations)

    monkeypatch.setattr(tf, "while_loop", noted)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    for device in (None, "/CPU:0"):

        @tf.function
        def step(*tensors, device=device):
            with tf.device(device):
                return gradients(tensors, upstream, **AWKWARD)

        for one, other in zip(step(*tensors), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    assert in_one_step == [True, False]


X, K, O = (2, 5, 4, 6), (3, 2, 6, 4), (2, 3, 3, 12)  # noqa: E741


@pytest.mark.parametrize(
    ("shapes", "given_", "words"),
    [
        ((X[:3], K, O), {}, "inputs must have rank 4. Received: inputs.shape=(2, 5, 4)"),
        ((X, K, (2, 3, 3, 11)), {}, "= (2, 3, 3, 12). Received: offsets.shape=(2, 3, 3, 11)"),
        ((X, K, (2, 5, 4, 12)), {}, "offsets must have shape"),
        ((X, K, O), {"mask": tf.zeros((2, 3, 3, 5))}, "mask must have shape"),
        ((X, K, O), {"bias": tf.zeros((5,))}, "bias must have shape (4,)"),
        ((X, (3, 2, 5, 4), O), {}, "kernel must have shape"),
        ((X, K, O), {"groups": 4}, "groups must be a positive integer that divides"),
        ((X, K, O), {"offset_groups": 0}, "offset_groups must be a positive integer"),
        ((X, K, O), {"strides": 0}, "strides must be an integer of at least 1, or two. Received: strides=0"),
        ((X, K, O), {"dilation_rate": (1, 2, 3)}, "dilation_rate must be"),
        ((X, K, O), {"padding": "full"}, "padding must be 'valid', 'same' or"),
        (
            (X, K, O),
            {"padding": 1},
            "Received: padding=1. For 1 rows above and below and 1 columns left and right, write",
        ),
        ((X, K, O), {"padding": (1, 2)}, "write padding=((1, 1), (2, 2))"),
        ((X, K, O), {"padding": ((0, -1), (0, 0))}, "whole numbers of at least 0. Received: padding=((0, -1), (0, 0))"),
        ((X, K, O), {"strides": True}, "strides must be an integer of at least 1"),
        ((X, K, O), {"groups": 1.0}, "groups must be a positive integer"),
    ],
)
def test_errors_state_the_rule_and_the_value(shapes, given_, words):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        deform_conv2d(*map(tf.zeros, shapes), **given_)
    assert words in str(error.value)


def test_integers_of_numpy_are_integers(random):
    tensors = draw(random, AWKWARD)
    integers = {
        name: np.int64(value) if isinstance(value, int) else tuple(map(np.int64, value))
        for name, value in AWKWARD.items()
        if name != "padding"
    }
    padding = [[np.int64(1), np.int64(2)], [np.int64(0), np.int64(1)]]
    np.testing.assert_array_equal(plain(*tensors, **integers, padding=padding), plain(*tensors, **AWKWARD))


def test_checks_of_single_arguments():
    require_bool("flag", False)
    require_positive("count", np.int64(3))
    require_number("share", np.float32(0.5), above=0, least=0.5)
    for check, value, rule in (
        (require_bool, "no", "flag must be True or False. Received: flag='no'"),
        (require_bool, 1, "flag must be True or False. Received: flag=1"),
        (require_positive, np.int64(0), "flag must be a positive integer"),
        (require_number, "3", "flag must be a finite number. Received: flag='3'"),
        (require_number, np.nan, "flag must be a finite number. Received: flag=nan"),
        (functools.partial(require_number, above=0), 0.0, "flag must be a finite number above 0. Received: flag=0.0"),
        (functools.partial(require_number, least=1), 0.5, "flag must be a finite number of at least 1. Received"),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            check("flag", value)
        assert rule in str(error.value)


def test_types_must_agree():
    with pytest.raises(ValueError, match="kernel must have the type of inputs"):
        deform_conv2d(tf.zeros(X), tf.zeros(K, tf.float64), tf.zeros(O))
    with pytest.raises(ValueError, match="inputs must be of a floating-point type"):
        deform_conv2d(tf.zeros(X, tf.int32), tf.zeros(K), tf.zeros(O))


def test_offset_channels_are_ordered_as_torchvision_orders_them(random):
    """Moving one kernel point of one offset group changes what a kernel of that point and group alone reads."""
    inputs = tf.constant(random.normal(size=(1, 5, 5, 4)))
    for group, point in itertools.product(range(2), range(9)):
        kernel = np.zeros((3, 3, 4, 1))
        kernel[point // 3, point % 3, 2 * group] = 1
        offsets = np.zeros((1, 3, 3, 36))
        still = plain(inputs, kernel, offsets, offset_groups=2)
        offsets[..., (group * 9 + point) * 2] = 0.5
        moved = plain(inputs, kernel, offsets, offset_groups=2)
        plane = inputs[0, :, :, 2 * group].numpy()
        plane = np.pad(plane, ((0, 1), (0, 0)))
        expected = 0.5 * (plane[1:] - plane[:-1])[point // 3 : point // 3 + 3, point % 3 : point % 3 + 3]
        np.testing.assert_allclose((moved - still)[0, :, :, 0], expected)
