import functools

import numpy as np
import pytest
import reference
import tensorflow as tf
from gradients import assert_gradients_equal_differences, gradients

from dcn.ops import resample_by_offsets, resampling

SHAPES = [(2, 5, 4, 3), (1, 1, 1, 2), (1, 4, 7, 1), (0, 5, 4, 3)]
# Without XLA, which takes no time to compile. `test_compilation` compares both.
plain = functools.partial(resample_by_offsets, jit_compile=False)


def draw(random, shape, spread=2.0):
    batch, height, width, channels = shape
    return random.normal(size=shape), spread * random.normal(size=(batch, height, width, 2 * channels))


@pytest.mark.parametrize("pairing", ["published", "per_pixel"])
@pytest.mark.parametrize("corners", ["published", "bilinear"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_values_equal_the_loops(random, assert_close, shape, dtype, corners, pairing):
    inputs, offsets = (tf.cast(array, dtype) for array in draw(random, shape))
    result = plain(inputs, offsets, corners=corners, pairing=pairing)
    assert result.dtype == inputs.dtype
    expected = reference.resample_by_offsets(
        tf.cast(inputs, "float64").numpy(), tf.cast(offsets, "float64").numpy(), pairing
    )
    assert_close(tf.cast(result, "float64"), expected, dtype)


def test_golden_value():
    # One row of two pixels, 10 and 20, one channel. Offset channel 0 holds (1, 2), channel 1 holds (0, 0.25).
    inputs = tf.constant([[[[10.0], [20.0]]]])
    offsets = tf.constant([[[[1.0, 0.0], [2.0, 0.25]]]])
    # Published: laid end to end 1, 2, 0, 0.25, so pixel 0 moves by (1, 2) and reads 20 at the border; pixel 1 moves by
    # (0, 0.25), past the border, and reads 20.
    assert resample_by_offsets(inputs, offsets).numpy().ravel().tolist() == [20, 20]
    # Paired: pixel 0 moves by (1, 0) and, as there is one row, reads 10; pixel 1 moves by (2, 0.25) and reads 20.
    paired = resample_by_offsets(inputs, offsets, pairing="per_pixel")
    assert paired.numpy().ravel().tolist() == [10, 20]


def test_zero_offsets_are_the_identity(random):
    inputs = random.normal(size=(2, 5, 4, 3)).astype("float32")
    outputs = plain(inputs, np.zeros((2, 5, 4, 6), "float32"))
    np.testing.assert_array_equal(outputs, inputs)


@pytest.mark.parametrize("pairing", ["published", "per_pixel"])
@pytest.mark.parametrize("corners", ["published", "bilinear"])
def test_gradients_equal_finite_differences(random, corners, pairing):
    inputs, offsets = draw(random, (2, 3, 4, 2))
    # Keep away from integers, where the derivative jumps, also those at the border.
    offsets = np.floor(offsets) + random.uniform(0.1, 0.9, offsets.shape)
    operator = functools.partial(plain, corners=corners, pairing=pairing)
    assert_gradients_equal_differences(random, operator, inputs, offsets)


def test_offset_gradient_at_integers(random):
    inputs = random.normal(size=(1, 4, 5, 1))
    published, (repaired,) = (
        gradients(functools.partial(plain, corners=corners, pairing="per_pixel"), inputs, np.zeros((1, 4, 5, 2)))[2]
        for corners in ("published", "bilinear")
    )
    assert not np.any(published)
    plane = inputs[0, :, :, 0]
    # The right-sided derivative: the next pixel minus this one; past the border nothing changes any more.
    np.testing.assert_allclose(repaired[:-1, :, 0], np.diff(plane, axis=0))
    np.testing.assert_allclose(repaired[:, :-1, 1], np.diff(plane, axis=1))
    assert not np.any(repaired[-1, :, 0])
    assert not np.any(repaired[:, -1, 1])


def test_results_do_not_depend_on_the_batch(random):
    inputs, offsets = (array.astype("float32") for array in draw(random, (3, 5, 4, 2)))
    together = resample_by_offsets(inputs, offsets)
    alone = [resample_by_offsets(inputs[b : b + 1], offsets[b : b + 1]) for b in range(3)]
    np.testing.assert_array_equal(together, tf.concat(alone, axis=0))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_unknown_sizes(random, jit_compile):
    inputs, offsets = (array.astype("float32") for array in draw(random, (2, 5, 4, 3)))
    signature = [tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((None, None, None, 6))]
    function = tf.function(resample_by_offsets, input_signature=signature, jit_compile=jit_compile)
    np.testing.assert_allclose(function(inputs, offsets), resample_by_offsets(inputs, offsets), rtol=1e-5)


def test_not_a_number_stays_where_it_is_read(random):
    inputs, offsets = draw(random, (2, 5, 4, 3))
    clean = resample_by_offsets(inputs, offsets, pairing="per_pixel").numpy()
    offsets[1, 2, 3, 4] = np.nan  # dy of channel 2 of that pixel
    outputs = resample_by_offsets(inputs, offsets, pairing="per_pixel").numpy()
    assert np.isnan(outputs[1, 2, 3, 2])
    outputs[1, 2, 3, 2] = clean[1, 2, 3, 2]
    np.testing.assert_array_equal(outputs, clean)


def test_huge_offsets_read_the_border(random):
    inputs, offsets = draw(random, (1, 5, 4, 1))
    for huge in (np.inf, 1e30):
        outputs = plain(inputs, np.full_like(offsets, huge))
        np.testing.assert_array_equal(outputs, np.full_like(inputs, inputs[0, -1, -1, 0]))
        outputs = plain(inputs, np.full_like(offsets, -huge))
        np.testing.assert_array_equal(outputs, np.full_like(inputs, inputs[0, 0, 0, 0]))


@pytest.mark.parametrize(
    ("inputs", "offsets", "choices", "words"),
    [
        ((2, 5, 4), (2, 5, 4, 6), {}, "must have rank 4"),
        ((2, 5, 4, 3), (2, 5, 4, 3), {}, "twice as many channels"),
        ((2, 5, 4, 3), (1, 5, 4, 6), {}, "offsets must have the batch, the height and the width of inputs. Received"),
        ((2, 5, 4, 3), (2, 4, 5, 6), {}, "offsets must have the batch, the height and the width of inputs. Received"),
        ((2, 5, 4, 3), (2, 5, 4, 6), {"corners": "ceil"}, "corners must be .* Received: corners='ceil'"),
        ((2, 5, 4, 3), (2, 5, 4, 6), {"pairing": "no"}, "pairing must be .* Received: pairing='no'"),
    ],
)
def test_errors(inputs, offsets, choices, words):
    with pytest.raises(ValueError, match=words):
        resample_by_offsets(tf.zeros(inputs), tf.zeros(offsets), **choices)


def test_types_must_agree():
    with pytest.raises(ValueError, match="must be of one floating-point type. Received: inputs.dtype=float32, offsets"):
        resample_by_offsets(tf.zeros((2, 5, 4, 3)), tf.zeros((2, 5, 4, 6), tf.float16))


def test_sizes_that_are_known_late(monkeypatch):
    signature = [tf.TensorSpec((None, None, None, channels)) for channels in (1, 2)]
    operator = tf.function(lambda *tensors: resample_by_offsets(*tensors), signature)
    assert operator(tf.zeros((2, 5, 4, 1)), tf.zeros((2, 5, 4, 2))).shape == (2, 5, 4, 1)
    for size in ((1, 5, 4), (2, 4, 5)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="the batch, the height and the width of inputs"):
            operator(tf.zeros((2, 5, 4, 1)), tf.zeros((*size, 2)))
    monkeypatch.setattr(resampling, "_NUMBERS", 40)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"fewer than 2\^31 numbers"):
        tf.function(lambda *tensors: resample_by_offsets(*tensors), signature)(
            tf.zeros((2, 5, 4, 1)), tf.zeros((2, 5, 4, 2))
        )


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_gradient_of_the_inputs_is_summed_in_single(dtype, jit_compile):
    inputs, offsets = tf.ones((1, 64, 64, 1), dtype), tf.fill((1, 64, 64, 2), tf.constant(-200, dtype))
    operator = functools.partial(resample_by_offsets, corners="bilinear", jit_compile=jit_compile)
    gradient = gradients(operator, inputs, offsets)[1]
    assert gradient.dtype == dtype
    assert float(gradient[0, 0, 0, 0]) == 4096  # all points read pixel (0, 0)
