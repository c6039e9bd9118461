"""MNIST-Scale: realisations, resampling, and what a run on it trains and tests on."""

import numpy as np
import pytest

from dcn_study.errors import ConfigurationError, DataError
from dcn_study.runs import mnist_scale
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.data import load_digits
from dcn_study.runs.mnist_scale import OUT_OF_RANGE, realisation, resample
from dcn_study.runs.splits import SCALED_TEST_SEED, splits
from dcn_study.runs.transforms import apply_transforms, draw_transforms

SIZES = (300, 100, 500)
SMALL = dict(zip(("train_size", "validation_size", "test_size"), SIZES, strict=True))


def test_each_class_has_its_share_of_every_part():
    digits = load_digits()
    share = np.bincount(np.concatenate([digits.y_train, digits.y_test])) / 70_000
    drawn = realisation(0, SIZES).digits
    for labels in (drawn.y_train[:300], drawn.y_train[300:], drawn.y_test):
        assert np.abs(np.bincount(labels, minlength=10) - len(labels) * share).max() <= 2


def test_realisations_repeat_and_differ():
    first, again, second = realisation(0, SIZES), realisation.__wrapped__(0, SIZES), realisation(1, SIZES)
    np.testing.assert_array_equal(first.digits.x_test, again.digits.x_test)
    assert first.digits.sha256 == again.digits.sha256 != second.digits.sha256
    assert 0.3 <= first.test_scales.min() < 0.32
    assert 0.98 < first.test_scales.max() <= 1.0


def test_no_image_is_in_two_parts():
    labels = np.arange(1000) % 7
    parts = mnist_scale._stratified(labels, (300, 100, 500), np.random.default_rng(0))  # noqa: SLF001
    assert [len(part) for part in parts] == [300, 100, 500]
    assert len(set(np.concatenate(parts))) == 900


def test_a_realisation_of_full_size_is_the_recorded_one(monkeypatch):
    assert len(mnist_scale.DIGESTS) == 15
    monkeypatch.setitem(mnist_scale.DIGESTS, 0, "other")
    with pytest.raises(DataError, match="realisation 0 of MNIST-Scale: expected SHA-256 other, found c51a57"):
        realisation.__wrapped__(0)


def test_more_images_than_there_are_is_an_error():
    with pytest.raises(ConfigurationError, match=r"at most the number of images, 70000\. Received: 60000 \+ 1"):
        realisation(0, (60_000, 1, 10_000))


def square():
    image = np.zeros((1, 28, 28), np.uint8)
    image[:, 4:12, 10:18] = 200  # above the centre
    return image


def middle(image):
    rows, columns = np.nonzero(image > 100)
    return rows.mean() - 13.5, columns.mean() - 13.5


def test_scale_one_changes_nothing():
    images = load_digits().x_test[:5]
    np.testing.assert_array_equal(resample(images, 1.0), images)


def test_digits_shrink_about_the_centre_turn_and_move():
    half = resample(square(), 0.5)[0]
    assert half.sum() == pytest.approx(square().sum() / 4, rel=0.2)
    assert middle(half) == pytest.approx((-3, 0), abs=0.3)
    turned = resample(square(), 1.0, rotation=90)[0]  # what was above is on the left
    assert middle(turned) == pytest.approx((0, -6), abs=0.3)
    moved = resample(square(), 1.0, shifts=(2.0, 3.0))[0]
    np.testing.assert_array_equal(moved[2:, 3:], square()[0, :-2, :-3])
    each = resample(np.repeat(square(), 2, axis=0), np.array([0.5, 1.0]))
    np.testing.assert_array_equal(each[0], half)
    np.testing.assert_array_equal(each[1], square()[0])


def test_what_is_beyond_the_image_is_empty():
    full = np.full((1, 28, 28), 255, np.uint8)
    assert resample(full, 0.5)[0, 0].max() == 0
    assert resample(full, 1.0, shifts=(0.0, 5.0))[0, :, :5].max() == 0


def test_a_run_trains_on_its_own_realisation_and_validates_on_images_as_they_are():
    plain = splits(find_run("scale_cnn", **SMALL).config)
    rescaled = splits(find_run("rescaled_cnn", **SMALL).config)
    np.testing.assert_array_equal(plain.labels(3), rescaled.labels(3))
    first, again, next_ = plain.train(0)[0], plain.train(0)[0], rescaled.train(0)[0]
    np.testing.assert_array_equal(first, again)
    assert first.shape == next_.shape == (300, 28, 28, 1)
    assert np.abs(first - next_).max() > 0.5
    np.testing.assert_array_equal(rescaled.train(0, first=20)[0], next_[:20])
    assert np.abs(rescaled.train(1)[0] - next_).max() > 0.5
    for data in (plain, rescaled):
        images, labels = data.validation("rescaled")
        np.testing.assert_array_equal((images[..., 0] * 255).round(), data.digits.x_train[300:])
        np.testing.assert_array_equal(labels, data.digits.y_train[300:])
    other = splits(find_run("scale_cnn", **SMALL, seed=1).config)
    assert other.digits.sha256 != plain.digits.sha256


def test_shifts_are_drawn_where_asked_for():
    scaled = splits(find_run("rescaled_cnn", **SMALL).config).train(0)[0]
    shifted = splits(find_run("rescaled_cnn", **SMALL, train_on="rescaled_shifted").config).train(0)[0]
    centre = [[middle(255 * image[..., 0]) for image in images if image.max() > 0.5] for images in (scaled, shifted)]
    assert np.std(centre[1]) > 2 * np.std(centre[0])


def test_one_source_of_chance_can_be_varied_alone():
    base = find_run("spread", **SMALL).config
    images, order = splits(base).train(0)[0], splits(base).labels(0)
    changed = splits(find_run("spread", **SMALL, augmentation_seed=5).config)
    np.testing.assert_array_equal(changed.labels(0), order)
    assert np.abs(changed.train(0)[0] - images).max() > 0.5
    assert (splits(find_run("spread", **SMALL, order_seed=5).config).labels(0) != order).any()
    assert splits(find_run("spread", **SMALL, seed=5).config).digits.sha256 != splits(base).digits.sha256
    np.testing.assert_array_equal(splits(find_run("spread", **SMALL, weights_seed=5).config).train(0)[0], images)


def test_the_further_test_sets_are_made_of_the_first_unscaled_images():
    data = splits(find_run("scale_cnn", **SMALL).config)
    assert data.kinds == ("plain", "scaled", *OUT_OF_RANGE)
    drawn = realisation(0, SIZES)
    images, labels = data.test("scale 1.0")
    np.testing.assert_array_equal((images[..., 0] * 255).round(), drawn.originals)
    np.testing.assert_array_equal(labels, drawn.digits.y_test)
    sums = {kind: data.test(kind)[0].sum() for kind in data.kinds}
    assert sums["scale 0.2"] < sums["scale 0.6"] < sums["scale 1.4"]
    right = data.test("shift 8")[0] - data.test("shift -8")[0]
    assert right[:, :, 18:].mean() > 0.05 > -0.05 > right[:, :, :10].mean()


def test_a_pooled_run_trains_on_plain_digits_and_is_tested_on_all_of_its_test_digits_scaled():
    run = find_run(
        "cnn", task="mnist_pooled", train_size=200, validation_size=100, test_size=150, scaled_test_size=150, seed=3
    )
    data = splits(run.config)
    scaled = splits(find_run("scale_cnn", train_size=200, validation_size=100, test_size=150, seed=3).config)
    np.testing.assert_array_equal(data.labels(1), scaled.labels(1))  # the same digits in the same order
    np.testing.assert_array_equal((data.test("plain")[0][..., 0] * 255).round(), scaled.originals)
    source = load_digits()
    known = {image.tobytes() for image in np.concatenate([source.x_train, source.x_test])}
    assert all(image.tobytes() in known for image in (*data.digits.x_train, *data.digits.x_test))
    moved, labels = data.test("scaled")
    assert len(moved) == 150
    np.testing.assert_array_equal(labels, data.test("plain")[1])
    transforms = draw_transforms(150, SCALED_TEST_SEED)
    np.testing.assert_allclose(moved[..., 0], apply_transforms(data.test("plain")[0][..., 0], transforms), atol=1e-6)
    fewer = splits(run.changed(scaled_test_size=40).config)
    assert len(fewer.test("scaled")[0]) == 40
    assert len(splits(find_run("scale_cnn", **SMALL).config).test("scaled")[0]) == SMALL["test_size"]
    assert data.kinds == scaled.kinds
