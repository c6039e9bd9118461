"""Where operators end: what is not read, sizes known late, derivatives that are refused, nothing to compute."""

import functools
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from gradients import gradients

from dcn.ops import deform_conv2d, deform_roi_pool, geometry, resample_by_offsets

ONE = tf.ones((1, 1, 1, 1))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("pixel", [(0, 0), (4, 3)], ids=["first", "last"])
@pytest.mark.parametrize("offset", [1e3, -1e9, 1e30, np.inf, -np.inf])
def test_a_pixel_that_no_point_reads_does_not_count(bad, pixel, offset):
    inputs = np.ones((1, 5, 4, 2), "float32")
    inputs[0, pixel[0], pixel[1]] = bad
    operator = functools.partial(deform_conv2d, padding="same")
    results = gradients(operator, tf.constant(inputs), tf.ones((3, 3, 2, 3)), tf.fill((1, 5, 4, 18), offset))
    for result in results:
        np.testing.assert_array_equal(result, np.zeros(result.shape))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_corner_of_weight_zero_does_not_count(bad):
    inputs = np.ones((1, 5, 4, 1), "float32")
    inputs[0, 2, 1] = bad
    outputs = deform_conv2d(inputs, ONE, tf.zeros((1, 5, 4, 2)))
    np.testing.assert_array_equal(np.isfinite(outputs), np.isfinite(tf.nn.conv2d(inputs, ONE, 1, "SAME")))


def test_only_the_slopes_that_lead_to_a_pixel_read_it():
    inputs = np.ones((1, 5, 4, 1), "float32")
    inputs[0, 2, 1] = np.nan
    offsets = gradients(deform_conv2d, tf.constant(inputs), ONE, tf.zeros((1, 5, 4, 2)))[3].numpy()
    expected = np.zeros(offsets.shape, bool)
    expected[0, 1:3, 1, 0] = True  # from the pixel itself, and from the one above
    expected[0, 2, :2, 1] = True  # and from the one to the left
    np.testing.assert_array_equal(np.isnan(offsets), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_the_mask_takes_out_does_not_count(bad):
    inputs = np.ones((1, 5, 4, 1), "float32")
    inputs[0, 2, 1] = bad
    mask = np.ones((1, 5, 4, 1), "float32")
    mask[0, 2, 1] = 0
    outputs, to_inputs, to_kernel, to_offsets, to_mask = gradients(
        deform_conv2d, tf.constant(inputs), ONE, tf.zeros((1, 5, 4, 2)), tf.constant(mask)
    )
    np.testing.assert_array_equal(outputs, mask)
    np.testing.assert_array_equal(to_inputs, mask)
    assert to_kernel.numpy().item() == 19
    assert not np.isfinite(to_mask[0, 2, 1, 0])
    assert np.isfinite(to_offsets[0, 2, 1]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_resampling_and_pooling_read_no_more_than_they_weigh(bad):
    inputs = np.ones((1, 5, 4, 1), "float32")
    inputs[0, 2, 1] = bad
    expected = np.isfinite(inputs)
    for corners in ("published", "bilinear"):
        outputs = resample_by_offsets(inputs, tf.zeros((1, 5, 4, 2)), corners=corners)
        np.testing.assert_array_equal(np.isfinite(outputs), expected)
    boxes = [[0.0, 0.0, 5.0, 4.0]]
    pooled = deform_roi_pool(inputs, boxes, [0], output_size=(5, 4), sampling_ratio=1)
    np.testing.assert_array_equal(np.isfinite(pooled), expected)


UNKNOWN = [tf.TensorSpec((None, None, None, 2)), tf.TensorSpec((3, 3, 2, 3)), tf.TensorSpec((None, None, None, 18))]


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    ("wrong", "size"),
    [*(("offsets", size) for size in ((2, 4, 4), (2, 5, 5), (2, 4, 5), (1, 5, 4), (3, 5, 4))), ("mask", (2, 4, 4))],
)
def test_sizes_that_are_known_late_are_checked_late(size, wrong, jit_compile):
    signature = [*UNKNOWN, tf.TensorSpec((None, None, None, 9))]
    operator = tf.function(functools.partial(deform_conv2d, padding="same"), signature, jit_compile=jit_compile)
    given = {"offsets": tf.zeros((2, 5, 4, 18)), "mask": tf.ones((2, 5, 4, 9))}
    inputs, kernel = tf.ones((2, 5, 4, 2)), tf.ones((3, 3, 2, 3))
    assert operator(inputs, kernel, **given).shape == (2, 5, 4, 3)
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)) as error:
        operator(inputs, kernel, **{**given, wrong: tf.zeros((*size, given[wrong].shape[3]))})
    if not jit_compile:
        assert f"{wrong} must have the batch, the output height and the output width" in str(error.value)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("size", [(0, 5, 4), (2, 0, 4), (2, 5, 0), (2, 5, 4)], ids=str)
def test_nothing_to_compute_with_unknown_sizes(size, jit_compile):
    operator = functools.partial(gradients, functools.partial(deform_conv2d, padding="same"))
    operator = tf.function(operator, input_signature=UNKNOWN, jit_compile=jit_compile)
    tensors = tf.ones((*size, 2)), tf.ones((3, 3, 2, 3)), tf.zeros((*size, 18))
    outputs, *found = operator(*tensors)
    assert outputs.shape == (*size, 3)
    for tensor, gradient in zip(tensors, found, strict=True):
        assert gradient.shape == tensor.shape
        assert np.isfinite(gradient).all()


def convolve(random):
    kernel = tf.constant(random.normal(size=(3, 3, 2, 3)))
    tensors = random.normal(size=(1, 5, 4, 2)), random.normal(size=(1, 3, 2, 18))
    return lambda inputs, offsets: deform_conv2d(inputs, kernel, offsets), tensors


def resample(random):
    return resample_by_offsets, (random.normal(size=(1, 5, 4, 2)), random.normal(size=(1, 5, 4, 4)))


def pool(random):
    boxes = tf.constant([[0.5, 0.2, 4.1, 3.3], [1.0, 0.0, 5.0, 2.5]], tf.float64)

    def operator(inputs, offsets):
        return deform_roi_pool(inputs, boxes, [0, 0], offsets, output_size=2, sampling_ratio=2)

    return operator, (random.normal(size=(1, 5, 4, 2)), random.normal(size=(2, 2, 2, 2)))


@pytest.mark.parametrize("within", [lambda function: function, tf.function], ids=["eager", "graph"])
@pytest.mark.parametrize("make", [convolve, resample])
def test_gradients_image_by_image(random, make, within):
    """`vectorized_map` gives what a loop gives."""
    operator, tensors = make(random)
    many = [tf.constant(random.normal(size=(3, *tensor.shape))) for tensor in tensors]

    def one(tensors):
        return gradients(lambda *each: operator(*each) ** 2, *tensors)

    found = within(lambda: tf.vectorized_map(one, many))()
    for number in range(3):
        expected = one([tensor[number] for tensor in many])
        for actual, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(actual[number], wanted, atol=1e-12)


@pytest.mark.parametrize("make", [convolve, resample, pool])
def test_jacobians(random, make):
    operator, tensors = make(random)
    inputs, offsets = map(tf.constant, tensors)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(offsets)
        outputs = tf.reshape(operator(inputs, offsets), [-1])
        rows = [outputs[number] for number in range(outputs.shape[0])]
    expected = [tape.gradient(row, offsets) for row in rows]
    np.testing.assert_allclose(tape.jacobian(outputs, offsets), expected, atol=1e-12)


@pytest.mark.parametrize("within", [lambda function: function, tf.function], ids=["eager", "graph"])
@pytest.mark.parametrize("wanted", [0, 1], ids=["inputs", "offsets"])
@pytest.mark.parametrize("make", [convolve, resample])
def test_second_derivatives_are_refused(random, make, wanted, within):
    operator, tensors = make(random)

    def slopes(*tensors):
        return gradients(lambda *each: operator(*each) ** 2, *tensors)[1 + wanted]

    with pytest.raises(NotImplementedError, match="has first derivatives in reverse mode alone"):
        within(functools.partial(gradients, slopes))(*tensors)


@pytest.mark.parametrize("make", [convolve, resample])
def test_forward_mode_is_refused(random, make):
    operator, tensors = make(random)
    tensors = [tf.constant(tensor) for tensor in tensors]
    with (
        pytest.raises(NotImplementedError, match="no forward mode"),
        tf.autodiff.ForwardAccumulator(tensors, [tf.ones_like(tensor) for tensor in tensors]),
    ):
        operator(*tensors)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gradients_of_half_precision_are_summed_in_single(random, dtype):
    tensors = [random.normal(size=shape) for shape in ((8, 12, 12, 4), (3, 3, 4, 3), (8, 12, 12, 18), (3,))]
    tensors = [tf.cast(tensor, dtype) for tensor in tensors]

    def operator(inputs, kernel, offsets, bias):
        return tf.cast(deform_conv2d(inputs, kernel, offsets, None, bias, padding="same"), "float64")

    exact = gradients(operator, *(tf.cast(tensor, "float64") for tensor in tensors))
    for ours, expected in zip(gradients(operator, *tensors)[1:], exact[1:], strict=True):
        error = tf.norm(tf.cast(ours, "float64") - expected) / tf.norm(expected)
        assert error < {"bfloat16": 6e-3, "float16": 1e-3}[dtype]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_gradient_of_the_bias_is_summed_in_single(random, dtype):
    upstream = tf.cast(random.normal(size=(32, 28, 28, 4)) + 0.1, dtype)
    tensors = tf.zeros((32, 28, 28, 1), dtype), tf.zeros((1, 1, 1, 4), dtype), tf.zeros((32, 28, 28, 2)), None
    _, found = gradients(functools.partial(deform_conv2d, *tensors), tf.zeros((4,), dtype), upstream=upstream)
    expected = tf.reduce_sum(tf.cast(upstream, "float64"), (0, 1, 2))
    ours = tf.cast(found, "float64")
    np.testing.assert_allclose(ours, expected, rtol={"bfloat16": 4e-3, "float16": 5e-4}[dtype])  # that of the type


def test_images_of_two_to_the_31_pixels_are_refused():
    wide = tf.TensorSpec((1, 2**16, 2**15, 1)), tf.TensorSpec((1, 1, 1, 1)), tf.TensorSpec((1, 2**16, 2**15, 2))
    with pytest.raises(ValueError, match=r"fewer than 2\^31 pixels"):
        tf.function(deform_conv2d).get_concrete_function(*wide)
    wide = tf.TensorSpec((1, 2**16, 2**15, 1)), tf.TensorSpec((1, 2**16, 2**15, 2))
    with pytest.raises(ValueError, match=r"fewer than 2\^31 numbers"):
        tf.function(resample_by_offsets).get_concrete_function(*wide)


def test_many_shapes_do_not_make_tensorflow_warn_of_retracing(random, caplog):
    for size in range(3, 9):  # it would warn from the fifth on
        inputs = tf.constant(random.normal(size=(1, size, 3, 2)))
        gradients(lambda x: deform_conv2d(x, np.ones((1, 1, 2, 1)), np.zeros((1, *x.shape[1:]))), inputs)
        gradients(lambda x: resample_by_offsets(x, np.zeros((*x.shape[:3], 4))), inputs)
    assert "retracing" not in caplog.text


def operations(function, *tensors, folder):
    """Counts the operations of the graphs that TensorFlow runs, after its optimisation."""
    tf.summary.trace_on(graph=True)
    function(*tensors)
    with tf.summary.create_file_writer(str(folder)).as_default():
        tf.summary.trace_export("run", step=0)
    found = Counter()
    for path in folder.iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                metadata = tf.compat.v1.RunMetadata.FromString(value.tensor.string_val[0])
                for graph in (each.post_optimization_graph for each in metadata.function_graphs):
                    found.update(node.op for node in graph.node)
                    found.update(node.op for inner in graph.library.function for node in inner.node_def)
    return found


@pytest.mark.parametrize("limit", [geometry.PART_BYTES, 1000], ids=["whole batch", "in parts"])
def test_in_a_graph_the_gradient_of_a_frozen_kernel_is_not_computed(random, monkeypatch, tmp_path, limit):
    monkeypatch.setattr(geometry, "PART_BYTES", limit)
    shapes = [(4, 6, 5, 3), (3, 3, 3, 2), (4, 6, 5, 18)]
    tensors = [tf.constant(random.normal(size=shape), tf.float32) for shape in shapes]
    counts = {}
    for wanted in ((0, 1, 2), (0, 2)):

        def step(*tensors, wanted=wanted):
            found = gradients(lambda *each: deform_conv2d(*each, padding="same") ** 2, *tensors)
            return [found[1 + number] for number in wanted]

        counts[wanted] = operations(tf.function(step), *tensors, folder=tmp_path / str(len(wanted)))
    products = [counts[wanted]["BatchMatMulV2"] for wanted in counts]
    assert products == [2, 1]  # the gradients of kernel and samples; of the samples alone
