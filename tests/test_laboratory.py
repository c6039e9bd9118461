"""The laboratory computes in the browser what Keras computes."""

import base64
import re

import numpy as np
import pytest
from helpers import ROOT, inside
from playwright.sync_api import expect

from dcn import deformable_cnn, mini_resnet
from dcn_study.book.pages import PAGES
from dcn_study.experiments import receptive_field
from dcn_study.experiments.mechanism import with_offsets
from dcn_study.runs import arms, effective_field, records, weights
from dcn_study.runs.data import load_digits
from dcn_study.show import laboratory

SHOWN = {"digit": 1, "scale": 0.5, "down": 0, "right": 0, "rotation": 0, "layer": "conv22", "overlay": "points"}
DIGITS = 40  # of which each takes some 0.04 s in each network


@pytest.fixture(scope="module")
def trained():
    with inside(ROOT):
        recorded = records.trained(PAGES["laboratory"].runs)
        return {record.config.model: weights.load_model(record) for record in recorded.values()}


@pytest.fixture(scope="module")
def images():
    return load_digits().x_test[:DIGITS]


@pytest.fixture(scope="module")
def path(trained, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("laboratory") / "page.html"
    content = laboratory.laboratory(trained, images[:3], load_digits().y_test[:3], SHOWN)
    path.write_text(f'<!doctype html><html lang="en"><meta charset="utf-8"><body>{content}', encoding="utf-8")
    assert path.stat().st_size < 0.8e6
    return path


@pytest.fixture
def opened(page, path):
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())  # from a file, without a server
    expect(page.locator(".laboratory[data-ready]")).to_be_attached()
    yield page
    assert not errors


def ask(page, network, image, **options):
    return page.evaluate(
        "([network, image, options]) => document.getElementById('laboratory').classify(network, image, options)",
        [network, image.ravel().tolist(), options],
    )


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_numbers_come_back_to_half_a_step(random, bits):
    values = random.normal(size=(3, 3, 5, 7)).astype("float32")
    values[..., 2] = 0
    content = laboratory.packed(values, bits)
    data = base64.b64decode(content["data"])
    if bits == 32:
        np.testing.assert_array_equal(np.frombuffer(data, "<f4"), values.ravel())
        return
    stream = int.from_bytes(data, "little")  # the first number in the lowest bits
    codes = np.array([stream >> bits * place & (2**bits - 1) for place in range(values.size)]) - 2 ** (bits - 1)
    scales = np.frombuffer(base64.b64decode(content["scales"]["data"]), "<f4")
    error = np.abs(codes.reshape(values.shape) * scales - values)
    assert (error <= 0.501 * scales).all()
    assert len(data) == -(-values.size * bits // 8 // 3) * 3 if bits == 12 else 2 * values.size


def test_it_classifies_as_keras_does(opened, trained, images):
    shown = images.astype("float32") / 255
    for name, model in trained.items():
        expected = model.predict(shown[..., None], verbose=0)
        found = np.array([ask(opened, name, image)["probabilities"] for image in shown])
        np.testing.assert_allclose(found, expected, atol=1e-2)
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.995


@pytest.mark.parametrize("layer", ["conv12", "conv22"])
def test_fields_and_points_are_those_of_the_book(opened, trained, images, layer):
    image = images[0].astype("float32")[..., None] / 255
    for name in ("cnn", "deform_conv_cnn"):
        answer = ask(opened, name, image, layer=layer, place=[0.5, 0.5])
        field = np.array(answer["field"])
        expected = effective_field.gradient_field(trained[name], image[None], layer).ravel()
        assert np.abs(field / field.sum() - expected).max() < 0.05 * expected.max()
        points, paths = receptive_field.points_at(trained[name], image, layer, (0.5, 0.5))
        found = np.array(sorted(answer["points"]))
        assert len(found) == pytest.approx(len(points), rel=0.1)  # a rounded weight may round a point otherwise
        if name == "cnn":
            np.testing.assert_allclose(found, np.column_stack([points, paths])[np.lexsort(points.T[::-1])], atol=1e-3)


def test_the_switch_removes_the_offsets(opened, trained, images):
    image = images[0].astype("float32") / 255
    model = with_offsets(trained["deform_conv_cnn"], lambda _, offsets: 0 * offsets)
    shown = images[:10].astype("float32") / 255
    found = [ask(opened, "deform_conv_cnn", each, offsets=False)["probabilities"] for each in shown]
    np.testing.assert_allclose(found, model.predict(shown[..., None], verbose=0), atol=1e-2)
    first, second = (ask(opened, "deformable_cnn", image, offsets=use)["probabilities"] for use in (True, False))
    assert first == second


def test_it_answers_to_its_controls_and_keeps_its_state_in_the_address(opened):
    told = opened.locator(".laboratory .told")
    before = told.inner_text()
    assert "it is a 2" in before or ": right" in before
    opened.locator("[name=scale]").fill("0.3")
    expect(told).not_to_have_text(before)
    expect(opened).to_have_url(re.compile("scale=0.3"))
    opened.get_by_role("button", name="7").click()
    expect(opened.get_by_role("button", name="7")).to_have_attribute("aria-pressed", "true")
    expect(opened).to_have_url(re.compile("digit=0"))
    opened.goto(f"{opened.url.split('#')[0]}#digit=1&scale=0.9&rotation=45&offsets=0")
    expect(opened.locator("[name=rotation]")).to_have_value("45")
    expect(opened.locator("[name=offsets]")).not_to_be_checked()


def test_one_can_draw(opened):
    box = opened.locator("canvas.pad").bounding_box()
    opened.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.2 * box["height"])
    opened.mouse.down()
    opened.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.8 * box["height"], steps=12)
    opened.mouse.up()
    opened.locator("[name=scale]").fill("1")
    expect(opened.locator(".laboratory .answer").first).to_contain_text("1, with")
    expect(opened.locator(".laboratory .answer").first).not_to_contain_text("right")


def test_other_networks_are_refused(trained, images):
    moving = deformable_cnn()
    moving.get_layer("conv12_offset").kernel.assign(np.ones((3, 3, 32, 64), "float32"))
    with pytest.raises(ValueError, match="offsets of ConvOffset2D layers must be zero. Received: conv12_offset"):
        laboratory.laboratory({"deformable_cnn": moving}, images[:1], [7], SHOWN)
    with pytest.raises(ValueError, match="layers must be those of the paper's CNNs"):
        laboratory.laboratory({"mini_resnet": mini_resnet()}, images[:1], [7], SHOWN)
    dilated = arms.dilated_cnn()
    with pytest.raises(ValueError, match="convolutions must be plain, 3x3, 'same'. Received: conv21"):
        laboratory.laboratory({"cnn": dilated}, images[:1], [7], SHOWN)
