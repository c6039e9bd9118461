import functools

import numpy as np
import pytest
import reference
import tensorflow as tf

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


@pytest.mark.parametrize("wanted", [0, 3], ids=["inputs", "offsets"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_gradients_equal_finite_differences(random, sampling_ratio, wanted):
    tensors = list(draw(random, 3))
    upstream = random.normal(size=(3, 3, 2, 3))

    def totals(many):
        inputs, boxes, indices, offsets = [np.broadcast_to(each, (len(many), *each.shape)) for each in tensors]
        inputs, offsets = (many, offsets) if wanted == 0 else (inputs, many)
        indices = indices + inputs.shape[1] * np.arange(len(many))[:, None]
        joined = (each.reshape(-1, *each.shape[2:]) for each in (inputs, boxes, indices, offsets))
        pooled = plain(*joined, sampling_ratio=sampling_ratio, **SETTINGS).numpy()
        return (pooled.reshape(len(many), *upstream.shape) * upstream).sum(axis=(1, 2, 3, 4))

    argument = tf.constant(tensors[wanted])
    with tf.GradientTape() as tape:
        tape.watch(argument)
        arguments = [*tensors[:wanted], argument, *tensors[wanted + 1 :]]
        loss = tf.reduce_sum(plain(*arguments, sampling_ratio=sampling_ratio, **SETTINGS) * upstream)
    actual = tf.convert_to_tensor(tape.gradient(loss, argument))
    expected = reference.finite_differences(totals, tensors[wanted])
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_other_types(random, dtype):
    inputs, boxes, indices, offsets = draw(random)
    result = plain(tf.cast(inputs, dtype), boxes, indices, offsets, sampling_ratio=2, **SETTINGS)
    assert result.dtype == dtype
    expected = reference.deform_roi_pool(inputs, boxes, indices, offsets, (3, 2), 0.5, 2, 0.3)
    np.testing.assert_allclose(tf.cast(result, "float64"), expected, atol=3e-2)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_unknown_sizes(random, jit_compile):
    inputs, boxes, indices, offsets = draw(random)
    signature = [
        tf.TensorSpec((None, None, None, 3), tf.float64),
        tf.TensorSpec((None, 4), tf.float64),
        tf.TensorSpec((None,), tf.int64),
        tf.TensorSpec((None, 3, 2, 2), tf.float64),
    ]
    pool = tf.function(
        lambda *tensors: deform_roi_pool(*tensors, **SETTINGS), input_signature=signature, jit_compile=jit_compile
    )
    np.testing.assert_allclose(
        pool(inputs, boxes, indices, offsets), deform_roi_pool(inputs, boxes, indices, offsets, **SETTINGS)
    )


def test_no_boxes_and_empty_boxes(random):
    inputs, boxes, indices, offsets = draw(random)
    assert deform_roi_pool(inputs, boxes[:0], indices[:0], offsets[:0], **SETTINGS).shape == (0, 3, 2, 3)
    backwards = boxes[:1, [2, 3, 0, 1]]
    assert not np.any(deform_roi_pool(inputs, backwards, indices[:1], **SETTINGS))


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
@pytest.mark.parametrize("unknown", [False, True])
def test_gradients_in_a_function_that_xla_compiles(random, sampling_ratio, unknown):
    tensors = [tf.constant(array, tf.float64) for array in draw(random)]
    indices = tf.cast(tensors.pop(2), tf.int32)

    def gradients(inputs, boxes, offsets):
        with tf.GradientTape() as tape:
            tape.watch([inputs, boxes, offsets])
            pooled = deform_roi_pool(inputs, boxes, indices, offsets, sampling_ratio=sampling_ratio, **SETTINGS)
            loss = tf.reduce_sum(pooled**2)
        return tape.gradient(loss, [inputs, boxes, offsets])

    shapes = [(None, None, None, 3), (None, 4), (None, 3, 2, 2)] if unknown else [tensor.shape for tensor in tensors]
    signature = [tf.TensorSpec(shape, tf.float64) for shape in shapes]
    compiled = tf.function(gradients, input_signature=signature, jit_compile=True)
    for found, expected in zip(compiled(*tensors), gradients(*tensors), strict=True):
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_second_derivatives(random, sampling_ratio):
    inputs, boxes, indices, offsets = draw(random, 2)

    def slopes(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            pooled = deform_roi_pool(
                inputs, boxes, indices, offsets, sampling_ratio=sampling_ratio, jit_compile=False, **SETTINGS
            )
            loss = tf.reduce_sum(pooled**3)
        return tape.gradient(loss, inputs)

    inputs, direction = tf.constant(inputs), tf.constant(random.normal(size=inputs.shape))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        along = tf.reduce_sum(slopes(inputs) * direction)
    step = 1e-6 * direction
    expected = (slopes(inputs + step) - slopes(inputs - step)) / 2e-6
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(tape.gradient(along, inputs), expected, atol=1e-6)


def test_xla_refuses_second_derivatives(random):
    inputs, boxes, indices, _ = draw(random, 2)
    inputs = tf.constant(inputs)
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            pooled = deform_roi_pool(inputs, boxes, indices, output_size=2, jit_compile=True)
        slopes = inner.gradient(pooled, inputs)
    with pytest.raises(NotImplementedError, match="deform_roi_pool with jit_compile=True has first derivatives"):
        outer.gradient(slopes, inputs)


@pytest.mark.parametrize("boxes", [np.zeros((0, 4)), [[3.0, 3.0, 3.0, 3.0]]], ids=["no boxes", "no area"])
def test_what_reads_nothing_has_gradients_of_zero(random, boxes):
    inputs, offsets = tf.constant(random.normal(size=(1, 5, 4, 2))), tf.zeros((len(boxes), 2, 2, 2), tf.float64)
    boxes = tf.constant(boxes, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch([inputs, boxes, offsets])
        pooled = deform_roi_pool(inputs, boxes, np.zeros(len(boxes), int), offsets, output_size=2)
    for tensor, gradient in zip([inputs, boxes, offsets], tape.gradient(pooled, [inputs, boxes, offsets]), strict=True):
        np.testing.assert_array_equal(gradient, np.zeros(tensor.shape))


def test_no_boxes_have_indices_of_any_type():
    assert deform_roi_pool(tf.zeros((1, 5, 4, 2)), tf.zeros((0, 4)), [], output_size=2).shape == (0, 2, 2, 2)


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
