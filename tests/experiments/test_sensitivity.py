import numpy as np
import pytest
from helpers import keep
from keras.src.legacy.preprocessing import image

from dcn import models
from dcn_study import names
from dcn_study.experiments import sensitivity
from dcn_study.runs import weights
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.data import load_digits
from dcn_study.runs.published import ACCURACY
from dcn_study.runs.transforms import about_former_centre, apply_transforms, draw_transforms
from dcn_study.show import figures, tables

pytestmark = pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")


def test_the_former_centre_is_that_of_keras_before_its_repair(random, monkeypatch):
    digits = random.random((4, 28, 28)).astype("float32")
    transforms = draw_transforms(4, 3)
    centred = image.transform_matrix_offset_center
    monkeypatch.setattr(image, "transform_matrix_offset_center", lambda matrix, x, y: centred(matrix, x + 2, y + 2))
    moved = apply_transforms(digits, about_former_centre(transforms))
    generator = image.ImageDataGenerator(fill_mode="nearest", interpolation_order=1)
    for digit, ours, zoom, shift in zip(digits, moved, transforms.zoom, transforms.shift, strict=True):
        parameters = {"zy": zoom[0], "zx": zoom[1], "ty": shift[0], "tx": shift[1]}  # x is the column axis here
        np.testing.assert_allclose(ours, generator.apply_transform(digit[..., None], parameters)[..., 0], atol=1e-5)


def test_test_sets_have_one_form():
    digits = load_digits()
    test_sets = list(sensitivity.test_sets(2, 30))
    assert len(test_sets) == 6
    for generator, images, labels in test_sets:
        assert generator in names.GENERATORS
        assert images.shape == (30, 28, 28, 1)
        assert 0.0 <= images.min() < images.max() <= 1.0
        np.testing.assert_array_equal(labels, digits.y_test[:30])
        assert np.abs(images[..., 0] - digits.x_test[:30] / 255).mean() > 0.05


def test_models_are_evaluated_on_all_test_sets(project, monkeypatch):
    for model in ACCURACY:
        keep(find_run(model))
    monkeypatch.setattr(weights, "load_model", lambda record: models.mini_resnet())
    found = sensitivity.sensitivity(draws=2, images=20)["accuracies"]
    assert set(found) == set(ACCURACY)
    for by_generator in found.values():
        assert set(by_generator) == set(names.GENERATORS)
        assert all(len(values) == 2 and 0 <= min(values) <= max(values) <= 1 for values in by_generator.values())
    table = tables.draws(found, names.GENERATORS)
    assert len(table) == len(ACCURACY) * len(names.GENERATORS)
    values = found["cnn"]["keras"]
    assert table.loc[("CNN", "Keras' generator"), "mean"] == pytest.approx(100 * np.mean(values), abs=0.01)
    assert len(figures.draws(found, names.GENERATORS, {model: [0.5, 0.6] for model in found})) == len(ACCURACY)
