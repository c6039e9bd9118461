import functools

import numpy as np
import pytest
import reference
import tensorflow as tf
from gradients import assert_gradients_equal_differences, gradients

from dcn.ops import deform_roi_pool, roi_pooling

SETTINGS = {"output_size": (3, 2), "spatial_scale": 0.5, "gamma": 0.3}
# Without XLA, which takes no time to compile. `test_compilation` compares both.
plain = functools.partial(deform_roi_pool, jit_compile=False)


def draw(random, count=4):
    """Returns images, boxes of several sizes, their images and offsets, in float64."""
    corner = random.uniform(0, 8, size=(count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(1, 9, size=(count, 2))], axis=1)
    return random.normal(size=(2, 7, 6, 3)), boxes, np.arange(count) % 2, random.normal(size=(count, 3, 2, 2))


@pytest.mark.parametrize("with_offsets", [False, True])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2])
def test_values_equal_the_loops(random, assert_close, sampling_ratio, with_offsets):
    inputs, boxes, indices, offsets = draw(random)
    offsets = offsets if with_offsets else None
    result = plain(inputs, boxes, indices, offsets, sampling_ratio=sampling_ratio, **SETTINGS)
    expected = reference.deform_roi_pool(inputs, boxes, indices, offsets, (3, 2), 0.5, sampling_ratio, 0.3)
    assert np.abs(expected).max() > 0.1
    assert_close(result, expected, "float64")


def test_golden_value():
    # A 4x4 image of rows 0, 1, 2, 3. The box covers it; aligned, it begins half a pixel before the centre of pixel 0.
    # A bin has 2x2 samples at pixel centres, so that it is the mean of two rows: 0.5 and 2.5. An offset of 1 box
    # height, times gamma 0.25, moves the first bin down by one row.
    inputs = tf.reshape(tf.repeat(tf.range(4.0), 4), (1, 4, 4, 1))
    offsets = np.zeros((1, 2, 2, 2))
    offsets[0, 0, 0, 0] = 1
    result = plain(inputs, [[0.0, 0, 4, 4]], [0], offsets, output_size=2, gamma=0.25)
    assert result.numpy().ravel().tolist() == [1.5, 0.5, 2.5, 2.5]


def test_one_pixel_outside_the_border_still_counts_and_more_does_not():
    centres = np.array([[-1, 1], [1, -1], [4, 1], [1, 3], [4.25, 1], [1, -1.25]])  # of images of 4x3 pixels
    result = plain(tf.ones((1, 4, 3, 1)), np.hstack([centres, centres + 1]), [0] * 6, output_size=1, sampling_ratio=1)
    assert result.numpy().ravel().tolist() == [1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_gradients_equal_finite_differences(random, sampling_ratio):
    inputs, boxes, indices, offsets = draw(random, 3)

    def operator(inputs, boxes, offsets):
        return plain(inputs, boxes, indices, offsets, sampling_ratio=sampling_ratio, **SETTINGS)

    assert_gradients_equal_differences(random, operator, inputs, boxes, offsets)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_other_types(random, dtype):
    inputs, boxes, indices, offsets = draw(random)
    result = plain(tf.cast(inputs, dtype), boxes, indices, offsets, sampling_ratio=2, **SETTINGS)
    assert result.dtype == dtype
    expected = reference.deform_roi_pool(inputs, boxes, indices, offsets, (3, 2), 0.5, 2, 0.3)
    np.testing.assert_allclose(tf.cast(result, "float64"), expected, atol=3e-2)


def test_not_a_number_and_huge_offsets(random):
    inputs, boxes, indices, offsets = draw(random)
    clean = deform_roi_pool(inputs, boxes, indices, offsets, **SETTINGS).numpy()
    offsets[1, 2, 0, 0] = np.nan
    offsets[2, 0, 1, 1] = np.inf
    dirty = deform_roi_pool(inputs, boxes, indices, offsets, **SETTINGS).numpy()
    assert np.isnan(dirty[1, 2, 0]).all()
    np.testing.assert_array_equal(dirty[2, 0, 1], 0)
    for place in ((1, 2, 0), (2, 0, 1)):
        dirty[place] = clean[place]
    np.testing.assert_array_equal(dirty, clean)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize(("unknown", "jit_compile"), [(False, True), (True, True), (True, None)])
def test_values_and_gradients_in_a_function(random, sampling_ratio, unknown, jit_compile):
    inputs, boxes, indices, offsets = map(tf.constant, draw(random))

    def operator(indices, *tensors):
        def squares(inputs, boxes, offsets):
            return deform_roi_pool(inputs, boxes, indices, offsets, sampling_ratio=sampling_ratio, **SETTINGS) ** 2

        return gradients(squares, *tensors)

    tensors = indices, inputs, boxes, offsets
    shapes = [(None,), (None, None, None, 3), (None, 4), (None, 3, 2, 2)]
    signature = [
        tf.TensorSpec(shape if unknown else tensor.shape, tensor.dtype)
        for shape, tensor in zip(shapes, tensors, strict=True)
    ]
    function = tf.function(operator, input_signature=signature, jit_compile=jit_compile)
    for found, expected in zip(function(*tensors), operator(*tensors), strict=True):
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_second_derivatives(random, sampling_ratio):
    inputs, boxes, indices, offsets = draw(random, 2)

    def cubes(inputs):
        return plain(inputs, boxes, indices, offsets, sampling_ratio=sampling_ratio, **SETTINGS) ** 3

    assert_gradients_equal_differences(random, lambda inputs: gradients(cubes, inputs)[1], inputs)


def test_xla_refuses_second_derivatives(random):
    inputs, boxes, indices, _ = draw(random, 2)

    def slopes(inputs):
        return gradients(lambda x: deform_roi_pool(x, boxes, indices, output_size=2, jit_compile=True), inputs)[1]

    with pytest.raises(NotImplementedError, match="deform_roi_pool with jit_compile=True has first derivatives"):
        gradients(slopes, inputs)


@pytest.mark.parametrize(
    "boxes", [np.zeros((0, 4)), [[3.0, 3, 3, 3]], [[3.0, 3, 1, 1]]], ids=["no boxes", "no area", "backwards"]
)
def test_what_reads_nothing_is_zero_and_has_gradients_of_zero(random, boxes):
    indices = [0] * len(boxes)  # without boxes a list of no type
    tensors = random.normal(size=(1, 5, 4, 2)), np.array(boxes), np.zeros((len(boxes), 2, 2, 2))
    operator = functools.partial(deform_roi_pool, output_size=2)
    results = gradients(lambda inputs, boxes, offsets: operator(inputs, boxes, indices, offsets), *tensors)
    for result, shape in zip(results, [(len(boxes), 2, 2, 2), *map(np.shape, tensors)], strict=True):
        np.testing.assert_array_equal(result, np.zeros(shape))


def test_a_given_number_of_samples_reads_a_point_also_in_a_box_without_area(random):
    inputs = random.normal(size=(1, 5, 4, 2))
    pooled = deform_roi_pool(inputs, [[2.5, 1.5, 2.5, 1.5]], [0], output_size=2, sampling_ratio=2)
    np.testing.assert_allclose(pooled, np.broadcast_to(inputs[0, 2, 1], (1, 2, 2, 2)), atol=1e-12)


@pytest.mark.parametrize("jit_compile", [None, True])
@pytest.mark.parametrize("within", [lambda function: function, tf.function], ids=["eager", "graph"])
@pytest.mark.parametrize("index", [-1, 2, 2**32])
def test_an_index_out_of_range(random, within, index, jit_compile):
    inputs, boxes, _, _ = draw(random, 2)
    pool = within(lambda index: deform_roi_pool(inputs, boxes, index, output_size=2, jit_compile=jit_compile))
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"at least 0 and below the batch size of inputs\. Received:\] \[0 "
    ):
        pool(tf.constant([0, index], tf.int64))


@pytest.mark.parametrize("index", [-1, 2, 2**32])
def test_an_index_out_of_range_gives_nan_where_xla_compiles_all(random, index):
    inputs, boxes, _, _ = draw(random, 2)
    pool = tf.function(lambda index: deform_roi_pool(inputs, boxes, index, output_size=2), jit_compile=True)
    pooled = pool(tf.constant([0, index], tf.int64))
    assert np.isfinite(pooled[0]).all()
    assert np.isnan(pooled[1]).all()


def test_samples_that_a_smaller_box_does_not_have_read_nothing(random):
    inputs = random.normal(size=(1, 9, 9, 1))
    boxes = [[0.0, 0, 9, 9], [1.0, 1, 2, 2]]
    clean = deform_roi_pool(inputs, boxes, [0, 0], output_size=1)
    inputs[0, 2:] = np.nan
    dirty = deform_roi_pool(inputs, boxes, [0, 0], output_size=1)
    assert np.isnan(dirty[0]).all()
    np.testing.assert_array_equal(dirty[1], clean[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_box_that_is_not_finite_does_not_stop_the_others(random, bad):
    inputs, boxes, indices, offsets = draw(random)
    clean = deform_roi_pool(inputs, boxes, indices, offsets, **SETTINGS).numpy()
    boxes[1, 3] = bad
    dirty = deform_roi_pool(inputs, boxes, indices, offsets, **SETTINGS).numpy()
    assert not np.isfinite(dirty[1]).all() or np.isinf(bad)
    np.testing.assert_array_equal(dirty[[0, 2, 3]], clean[[0, 2, 3]])


def test_sizes_that_are_known_late(random, monkeypatch):
    inputs, boxes, indices, offsets = draw(random)
    shapes = (None, None, None, 3), (None, 4), (None,), (None, 3, 2, 2)
    types = tf.float64, tf.float64, tf.int64, tf.float64
    signature = [tf.TensorSpec(shape, dtype) for shape, dtype in zip(shapes, types, strict=True)]
    pool = tf.function(lambda *tensors: deform_roi_pool(*tensors, **SETTINGS), signature)
    with pytest.raises(tf.errors.InvalidArgumentError, match="box_indices must have one entry per box"):
        pool(inputs, boxes, indices[:1], offsets)
    with pytest.raises(tf.errors.InvalidArgumentError, match="offsets must have one entry per box"):
        pool(inputs, boxes, indices, offsets[:1])
    monkeypatch.setattr(roi_pooling, "_PIXELS", inputs[..., 0].size)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"fewer than 2\^31 pixels"):
        tf.function(lambda *tensors: deform_roi_pool(*tensors, **SETTINGS), signature)(inputs, boxes, indices, offsets)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": tf.zeros((7, 6, 3))}, "inputs must be floating point"),
        ({"boxes": tf.zeros((4, 5))}, "boxes must have shape"),
        ({"box_indices": [0, 1]}, "box_indices"),
        ({"offsets": tf.zeros((4, 2, 3, 2))}, "offsets must have shape \\(boxes, 3, 2, 2\\)"),
        ({"output_size": 0}, "output_size must be an integer of at least 1, or two. Received: output_size=0"),
        ({"output_size": True}, "output_size must be an integer of at least 1, or two. Received: output_size=True"),
        ({"spatial_scale": 0}, "spatial_scale must be a finite number above 0. Received: spatial_scale=0"),
        ({"spatial_scale": "2"}, "spatial_scale must be a finite number above 0. Received: spatial_scale='2'"),
        ({"gamma": np.nan}, "gamma must be a finite number. Received: gamma=nan"),
        ({"gamma": -np.inf}, "gamma must be a finite number. Received: gamma=-inf"),
        ({"gamma": "a"}, "gamma must be a finite number. Received: gamma='a'"),
        ({"sampling_ratio": -1}, "sampling_ratio must be an integer of at least 0"),
        ({"sampling_ratio": 1.0}, "sampling_ratio must be an integer of at least 0"),
        ({"sampling_ratio": 10**9}, "at most 46340. Received: sampling_ratio=1000000000"),
        ({"box_indices": [0.0, 1.0, 0.0, 1.0]}, "box_indices must be of an integer type"),
    ],
)
def test_errors(random, changes, words):
    arguments = dict(zip(("inputs", "boxes", "box_indices", "offsets"), draw(random), strict=True))
    with pytest.raises(ValueError, match=words):
        deform_roi_pool(**{**arguments, **SETTINGS, **changes})
