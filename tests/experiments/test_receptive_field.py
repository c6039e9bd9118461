import keras
import numpy as np
import pytest

from dcn import models
from dcn_study.experiments.receptive_field import centre_of, largest_offset, occlusion_field, sampling_points
from dcn_study.runs.effective_field import area, gradient_field


@pytest.fixture
def image(random):
    return random.uniform(size=(12, 9, 1)).astype("float32")


def reads(model, image, layer, position):
    """The pixels that one output depends on, found by changing one pixel at a time."""
    part = keras.Model(model.input, model.get_layer(layer).output)
    changed = np.repeat(image[None], image.size, axis=0)
    changed.reshape(image.size, -1)[np.arange(image.size), np.arange(image.size)] += 1
    outputs = np.asarray(part(changed))[:, position[0], position[1]]
    before = np.asarray(part(image[None]))[0, position[0], position[1]]
    return np.argwhere(np.abs(outputs - before).max(axis=1).reshape(image.shape[:2]) > 1e-6)


@pytest.mark.parametrize(("layer", "position"), [("conv11", (0, 0)), ("conv12", (3, 4)), ("conv22", (1, 1))])
def test_regular_points_are_the_pixels_that_an_output_depends_on(image, layer, position):
    model = models.cnn(image.shape)
    points, paths = sampling_points(model, image, layer, position)
    inside = points[((points >= 0) & (points < image.shape[:2])).all(axis=1)]
    np.testing.assert_array_equal(inside, reads(model, image, layer, position))
    assert (paths >= 1).all()


def test_untrained_deformable_networks_read_the_same_points(image):
    expected = sampling_points(models.cnn(image.shape), image, "conv21", (2, 2))
    for build in (models.deformable_cnn, models.deform_conv_cnn):
        model = build(image.shape)
        assert largest_offset(model, image[None]) == 0
        points, paths = sampling_points(model, image, "conv21", (2, 2))
        if build is models.deform_conv_cnn:  # the other moves coordinates outside the image to its border
            np.testing.assert_array_equal(points, expected[0])
            np.testing.assert_array_equal(paths, expected[1])


def test_offsets_move_the_points(image):
    model = models.deform_conv_cnn(image.shape)
    model.get_layer("conv12").offset_bias.assign(np.tile([0.5, -1.0], 9))
    points, _ = sampling_points(model, image, "conv12", (3, 2))
    regular, _ = sampling_points(models.cnn(image.shape), image, "conv12", (3, 2))
    # conv12 reads half a pixel lower and one to the left; from there conv11 goes on at the nearest, even pixel.
    assert largest_offset(model, image[None]) == 1
    assert points[:, 1].min() == regular[:, 1].min() - 1
    assert points[:, 1].max() == regular[:, 1].max() - 1


def test_offsets_of_every_channel_move_the_points_of_the_published_layer(image):
    model = models.deformable_cnn(image.shape)
    layer = model.get_layer("conv12_offset")
    layer.pairing = "per_pixel"
    regular, _ = sampling_points(model, image, "conv12", (3, 2))
    kernel = np.zeros(layer.kernel.shape, "float32")
    kernel[1, 1, :, 0] = 1e3  # a large dy for channel 0 of every pixel whose features are positive
    layer.kernel.assign(kernel)
    points, _ = sampling_points(model, image, "conv12", (3, 2))
    assert {tuple(point) for point in regular} < {tuple(point) for point in points}


@pytest.mark.parametrize(
    ("layer", "position", "message"),
    [
        ("conv99", (0, 0), "layer must be the name of a convolution of the model. Received: layer='conv99'"),
        ("fc1", (0, 0), "layer must be the name of a convolution"),
        ("conv22", (3, 0), r"position must lie within 3 x 3. Received: position=\(3, 0\)"),
    ],
)
def test_wrong_arguments(image, layer, position, message):
    with pytest.raises(ValueError, match=message):
        sampling_points(models.cnn(image.shape), image, layer, position)


def averaging(layers=2):
    """A chain of 3x3 convolutions that sum what they see."""
    inputs = x = keras.Input((9, 9, 1))
    for number in range(layers):
        x = keras.layers.Conv2D(1, 3, padding="same", kernel_initializer="ones", name=f"layer{number}")(x)
    return keras.Model(inputs, x)


def test_the_gradient_of_a_sum_of_sums_is_a_pyramid():
    images = np.zeros((2, 9, 9, 1), "float32")
    field = gradient_field(averaging(), images, "layer1")
    pyramid = np.outer([1, 2, 3, 2, 1], [1, 2, 3, 2, 1])
    np.testing.assert_allclose(field[2:7, 2:7], pyramid / pyramid.sum(), rtol=1e-5)
    assert field[:2].sum() == field[:, 7:].sum() == 0
    assert area(field, 1.0) == 25
    assert area(field, 9 / 81) == 1
    assert area(field, 9.1 / 81) == 2


def test_what_lies_out_of_the_field_does_not_matter_when_it_is_occluded():
    images = np.random.default_rng(0).uniform(size=(2, 9, 9, 1)).astype("float32")
    field = occlusion_field(averaging(), images, "layer1", patch=1)
    assert (field > 1e-6).sum() == 25
    assert field.sum() == pytest.approx(1)
    wider = occlusion_field(averaging(), images, "layer1", patch=3)
    assert (wider > 1e-6).sum() == 49  # a square that reaches the field from one pixel further


def test_the_centre_is_that_of_the_ink():
    image = np.zeros((10, 20))
    image[2:5, 8:13] = 1
    assert centre_of(image) == (0.3, 0.5)
    assert centre_of(np.zeros((4, 4))) == (0.5, 0.5)
