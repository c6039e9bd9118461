import json

import numpy as np
import pytest

from dcn import cnn, deform_conv_cnn
from dcn_study.experiments import receptive_field
from dcn_study.show import explorer


def test_the_centre_is_that_of_the_ink():
    image = np.zeros((10, 20))
    image[2:5, 8:13] = 1
    assert receptive_field.centre_of(image) == (0.3, 0.5)
    assert receptive_field.centre_of(np.zeros((4, 4))) == (0.5, 0.5)


@pytest.mark.parametrize("layer", ["conv12", "conv22"])
def test_it_holds_the_points_of_every_network_and_digit(random, layer):
    models = {"cnn": cnn(), "deform_conv_cnn": deform_conv_cnn()}
    offsets = models["deform_conv_cnn"].get_layer("conv12").offset_kernel
    offsets.assign(random.normal(size=offsets.shape))
    images = {kind: random.uniform(size=(2, 28, 28, 1)).astype("float32") for kind in ("plain", "scaled")}
    page = explorer.explorer(models, images, [7, 2], [layer])
    data = json.loads(page.split("const data = ", 1)[1].split(";\n", 1)[0])
    assert [digit["label"] for digit in data["digits"]] == ["7", "2"]
    for number, digit in enumerate(data["digits"]):
        for kind in data["kinds"]:
            image = images[kind][number]
            for name, model in models.items():
                places, paths = receptive_field.points_at(model, image, layer, receptive_field.centre_of(image[..., 0]))
                np.testing.assert_allclose(
                    np.array(digit[kind]["points"][name][layer]), np.column_stack([places, paths]), atol=0.0501
                )
                assert places.min() >= -data["margin"]
                assert places.max() <= data["side"] - 1 + data["margin"]
    regular, moved = (data["digits"][0]["plain"]["points"][name][layer] for name in models)
    assert regular != moved
