import functools

import numpy as np
import pytest
import reference
import tensorflow as tf
from gradients import assert_gradients_equal_differences, gradients
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_sessions import needs_deform_conv, onnx_session

from dcn.ops import deform_conv2d
from dcn.ops.geometry import checked_geometry

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
    outputs, *found = gradients(functools.partial(deform_conv2d, **AWKWARD), *tensors)
    assert outputs.dtype == dtype
    exact = reference.deform_conv2d(*(tf.cast(tensor, "float64").numpy() for tensor in tensors), **AWKWARD)
    # The sums of 18 products of numbers around 1, rounded to the type.
    resolution = {"float32": 1e-5, "float16": 2e-2, "bfloat16": 2e-1}[dtype]
    np.testing.assert_allclose(tf.cast(outputs, "float64"), exact, atol=resolution)
    for gradient in found:
        assert gradient.dtype == dtype
        assert np.isfinite(tf.cast(gradient, "float64")).all()


def test_golden_value():
    # One row 10, 20, 40; a 1x1 kernel of 3. Offsets dx: half a pixel to the right, half a pixel past the border, and a
    # whole pixel to the left with dy a quarter down, where the missing row below counts as zero.
    inputs = tf.reshape([10.0, 20.0, 40.0], (1, 1, 3, 1))
    offsets = tf.reshape([0, 0.5, 0, 1.5, 0.25, -1.0], (1, 1, 3, 2))
    outputs = plain(inputs, tf.fill((1, 1, 1, 1), 3.0), offsets)
    assert outputs.numpy().ravel().tolist() == [3 * 15, 3 * 20, 3 * 0.75 * 20]


@pytest.mark.parametrize("dilation_rate", [(1, 1), (2, 1)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("padding", ["valid", "same", ((1, 2), (0, 3))])
@pytest.mark.parametrize("size", [(5, 4), (8, 7)])
def test_zero_offsets_and_unit_mask_equal_tensorflow(random, padding, strides, dilation_rate, size):
    inputs = tf.constant(random.normal(size=(2, *size, 3)), tf.float32)
    kernel = tf.constant(random.normal(size=(3, 2, 3, 4)), tf.float32)
    padded = inputs if isinstance(padding, str) else tf.pad(inputs, ((0, 0), *padding, (0, 0)))
    rule = padding.upper() if isinstance(padding, str) else "VALID"
    # TensorFlow's convolution takes strides or dilation; a dilated kernel has zeros between its points.
    spread = np.zeros((2 * dilation_rate[0] + 1, 2, 3, 4), "float32")
    spread[:: dilation_rate[0]] = kernel
    expected = tf.nn.conv2d(padded, spread, strides, rule)
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


@pytest.mark.parametrize("case", [PLAIN, AWKWARD], ids=["plain", "awkward"])
def test_gradients_equal_finite_differences(random, case):
    tensors = list(draw(random, case, filters=2))
    tensors[2] = np.floor(tensors[2]) + random.uniform(0.1, 0.9, tensors[2].shape)  # away from integers
    assert_gradients_equal_differences(random, functools.partial(plain, **case), *tensors)


def test_offset_gradient_at_integers_is_the_right_sided_one(random):
    # One image for each of the offsets that reach two pixels past every border.
    pairs = np.array([(dy, dx) for dy in range(-7, 8) for dx in range(-6, 7)], float)
    inputs = np.repeat(random.normal(size=(1, 5, 4, 1)), len(pairs), axis=0)
    offsets = np.broadcast_to(pairs[:, None, None], (len(pairs), 5, 4, 2)).copy()
    ones = np.ones((1, 1, 1, 1))
    outputs, _, _, actual = gradients(plain, inputs, ones, offsets)
    still = reference.deform_conv2d(inputs, ones, offsets, **PLAIN)
    np.testing.assert_array_equal(outputs, still)  # a shift
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

    def squares(*tensors):
        return deform_conv2d(*tensors, padding=padding) ** 2

    operator = functools.partial(gradients, squares)
    signature = [tf.TensorSpec((None, None, None, size)) for size in (3, 4, 12)]
    signature[1] = tf.TensorSpec((3, 2, 3, 4))
    dynamic = tf.function(operator, input_signature=signature, jit_compile=jit_compile)
    for ours, expected in zip(dynamic(inputs, kernel, offsets), operator(inputs, kernel, offsets), strict=True):
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
    outputs, *found = gradients(functools.partial(plain, **case), *tensors)
    assert_close(outputs, reference.deform_conv2d(*tensors, **case), "float64")
    for tensor, gradient in zip(tensors, found, strict=True):
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


def test_results_do_not_depend_on_the_batch_and_repeat(random):
    inputs, kernel, offsets, mask, bias = (tf.constant(t, tf.float32) for t in draw(random, AWKWARD, batch=3))
    operator = functools.partial(deform_conv2d, **AWKWARD)
    first, again = (gradients(operator, inputs, kernel, offsets, mask, bias) for _ in range(2))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    for b in range(3):
        alone = operator(inputs[b : b + 1], kernel, offsets[b : b + 1], mask[b : b + 1], bias)
        np.testing.assert_allclose(first[0][b : b + 1], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("bytes_", "parts"), [(2**30, 1), (2 * 6 * 3 * 6 * 6 * 8, 3), (1, 6)])
def test_the_number_of_parts_does_not_matter(random, monkeypatch, bytes_, parts, known):
    tensors = [tf.constant(tensor) for tensor in draw(random, PLAIN, size=(8, 4), batch=6)]
    operator = functools.partial(deform_conv2d, **PLAIN)
    whole = gradients(operator, *tensors)
    monkeypatch.setattr("dcn.ops.geometry.PART_BYTES", bytes_)
    shapes = [
        tensor.shape if known or len(tensor.shape) < 4 else (None, None, None, tensor.shape[3]) for tensor in tensors
    ]
    shapes[1] = tensors[1].shape

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float64) for shape in shapes])
    def cut(*tensors):
        given_ = checked_geometry(*tensors, **PLAIN)
        return given_.parts(tensors[0], tensors[2]), *gradients(operator, *tensors)

    count, *results = cut(*tensors)
    assert count == parts
    for one, two in zip(whole, results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-12)


def test_only_a_call_that_runs_on_a_gpu_scatters_the_samples_in_one_step(random, monkeypatch):
    tensors = [tf.constant(tensor) for tensor in draw(random, AWKWARD, channels=12)]  # as in no other test
    expected = gradients(functools.partial(plain, **AWKWARD), *tensors)
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
                return gradients(functools.partial(deform_conv2d, **AWKWARD), *tensors)

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


def test_types_must_agree():
    with pytest.raises(ValueError, match="kernel must have the type of inputs"):
        deform_conv2d(tf.zeros(X), tf.zeros(K, tf.float64), tf.zeros(O))
    with pytest.raises(ValueError, match="inputs must be of a floating-point type"):
        deform_conv2d(tf.zeros(X, tf.int32), tf.zeros(K), tf.zeros(O))
