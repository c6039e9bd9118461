from functools import partial

import keras
import numpy as np
import pytest

from dcn import models

CONVOLUTIONS = [f"conv{number}{part}" for number in (11, 12, 21, 22) for part in ("", "_relu", "_bn")]
NAMES = ["input", *CONVOLUTIONS, "avg_pool", "fc1", "out"]


def test_layer_names_are_the_published_ones():
    assert [layer.name for layer in models.cnn().layers] == NAMES
    deformable = [layer.name for layer in models.deformable_cnn().layers]
    assert [name for name in deformable if not name.endswith("_offset")] == NAMES
    for name in ("conv12", "conv21", "conv22"):
        assert deformable[deformable.index(name) - 1] == f"{name}_offset"


@pytest.mark.parametrize(
    "build", [models.deformable_cnn, partial(models.deformable_mini_resnet, chained=True)], ids=["cnn", "resnet"]
)
def test_offsets_start_at_zero_or_at_random_in_each_layer(build):
    start = {"class_name": "RandomNormal", "config": {"stddev": 0.01}}
    published, random = (
        [layer.kernel.numpy() for layer in model.layers if layer.name.endswith("_offset")]
        for model in (build(), build(offset_initializer=start))
    )
    assert len(published) == len(random) > 2
    assert not any(kernel.any() for kernel in published)
    assert all(abs(kernel.std() - 0.01) < 0.001 for kernel in random)
    assert len({kernel.flat[0] for kernel in random}) == len(random)


def test_parameters():
    # Weights and biases of the convolutions and the dense layer, by hand, and 4 numbers for each normalised channel.
    convolutions = (9 * 1 + 1) * 32 + (9 * 32 + 1) * 64 + (9 * 64 + 1) * 128 + (9 * 128 + 1) * 128
    expected = convolutions + (128 + 1) * 10 + 4 * (32 + 64 + 128 + 128)
    assert models.cnn().count_params() == expected
    offsets = 9 * (32 * 64 + 64 * 128 + 128 * 256)
    assert models.deformable_cnn().count_params() == expected + offsets


def test_frozen_means_offsets_and_normalisation_train():
    trainable = {weight.path.split("/")[0] for weight in models.deformable_cnn(trainable=False).trainable_weights}
    assert trainable == {f"conv{n}_bn" for n in (11, 12, 21, 22)} | {f"conv{n}_offset" for n in (12, 21, 22)}


def test_weights_load_by_name_from_a_model_trained_elsewhere(tmp_path, random):
    """As published: a file in the HDF5 format of older Keras versions, loaded by layer name."""
    source = models.cnn()
    for weight in source.weights:
        weight.assign(random.uniform(0.5, 1.5, weight.shape))
    source.save(tmp_path / "trained.h5")
    target = models.deformable_cnn(trainable=False)
    target.load_weights(tmp_path / "trained.h5", by_name=True)
    images = random.uniform(size=(2, 28, 28, 1)).astype("float32")
    np.testing.assert_array_equal(target(images), source(images))


def test_copying_nothing_or_other_shapes_is_an_error():
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="must share layer names"):
        models.copy_weights_by_name(keras.Model(inputs, keras.layers.Dense(2)(inputs)), models.cnn())
    target = models.cnn(classes=7)
    before = target.get_weights()
    with pytest.raises(ValueError, match="weights of one shape. Received: fc1"):
        models.copy_weights_by_name(models.cnn(), target)
    for old, new in zip(before, target.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_deformable_convolutions_take_the_weights_of_regular_ones(random):
    source, target = models.cnn(), models.deform_conv_cnn(trainable=False)
    for layer in source.layers:
        for weight in layer.weights:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    assert models.copy_weights_by_name(source, target) == [layer.name for layer in source.layers if layer.weights]
    images = random.uniform(size=(2, 28, 28, 1)).astype("float32")
    np.testing.assert_allclose(target(images), source(images), rtol=1e-4, atol=1e-6)
    trainable = {tuple(weight.path.split("/")[-2:]) for weight in target.trainable_weights}
    convolutions = {(f"conv{n}", f"offset_{kind}") for n in (12, 21, 22) for kind in ("kernel", "bias")}
    assert trainable == convolutions | {(f"conv{n}_bn", kind) for n in (11, 12, 21, 22) for kind in ("gamma", "beta")}


def test_residual_networks_have_the_published_layers():
    names = [layer.name for layer in models.mini_resnet().layers]
    assert names[1:3] == ["c_in", "bn_1"]
    assert names[-1] == "output_layer"
    frozen = [layer.name for layer in models.deformable_mini_resnet(trainable=False).layers if not layer.trainable]
    assert frozen == ["block1_conv2", "block2_conv2"]


def test_as_published_a_block_leaves_out_its_first_half(random):
    images = random.uniform(size=(2, 9, 8, 1)).astype("float32")
    for build in (models.mini_resnet, models.deformable_mini_resnet):
        published, chained = build((9, 8, 1)), build((9, 8, 1), chained=True)
        missing = {layer.name for layer in chained.layers} - {layer.name for layer in published.layers}
        assert {"block1_bn1", "block1_relu1", "block1_conv1", "block2_conv1"} <= missing
        assert all("1" in name.split("_")[1] for name in missing)
        # What a block adds to its input, written out.
        block = keras.Model(
            published.input, [published.get_layer("relu_1").output, published.get_layer("block1_add").output]
        )
        before, after = block(images)
        x = published.get_layer("block1_relu2")(published.get_layer("block1_bn2")(before))
        np.testing.assert_allclose(after, before + published.get_layer("block1_conv2")(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("build", [models.deformable_cnn, models.deform_conv_cnn, models.deformable_mini_resnet])
def test_images_need_not_be_square(random, build):
    images = random.uniform(size=(2, 12, 9, 3)).astype("float32")
    assert build((12, 9, 3), classes=4)(images).shape == (2, 4)
