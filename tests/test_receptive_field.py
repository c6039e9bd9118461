import keras
import numpy as np
import pytest

from dcn import models
from dcn_study.experiments.receptive_field import largest_offset, sampling_points


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
