import keras
import pytest

from dcn import ConvOffset2D, DeformableConv2D, dead_weights, models


@pytest.fixture
def images(random):
    return random.uniform(size=(2, 6, 5, 3)).astype("float32")


def test_the_offsets_of_the_published_layer_are_dead(images):
    assert dead_weights(ConvOffset2D(3, name="layer"), images) == ["layer/kernel"]
    assert dead_weights(ConvOffset2D(3, pairing="per_pixel", name="layer"), images) == ["layer/kernel"]


def test_those_of_the_other_layers_are_not(images):
    assert dead_weights(ConvOffset2D(3, corners="bilinear"), images) == []
    assert dead_weights(DeformableConv2D(4, 3, padding="same", modulated=True), images) == []


def test_a_model_names_its_dead_weights(random):
    images = random.uniform(size=(2, 12, 9, 1)).astype("float32")
    dead = dead_weights(models.deformable_cnn((12, 9, 1)), images)
    assert dead == [f"conv{number}_offset/kernel" for number in (12, 21, 22)]
    assert dead_weights(models.cnn((12, 9, 1)), images) == []


def test_a_weight_that_the_outputs_do_not_depend_on_is_dead(images):
    class Forgetful(keras.layers.Dense):
        def call(self, inputs):
            return inputs * 2

    assert [path.split("/")[-1] for path in dead_weights(Forgetful(4), images)] == ["kernel", "bias"]


def test_frozen_weights_are_not_asked_for(images):
    layer = ConvOffset2D(3)
    layer.trainable = False
    assert dead_weights(layer, images) == []
