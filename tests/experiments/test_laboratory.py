"""The laboratory computes in the browser what Keras computes."""

import base64
import re

import numpy as np
import pytest
from helpers import ROOT, inside
from playwright.sync_api import expect

from dcn import deformable_cnn, mini_resnet
from dcn_study import names
from dcn_study.experiments import presets, receptive_field
from dcn_study.experiments.mechanism import with_offsets
from dcn_study.runs import arms, effective_field, measurements, records, weights
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.data import load_digits
from dcn_study.show import laboratory

SHOWN = {"digit": 1, "scale": 0.5, "down": 0, "right": 0, "rotation": 0, "layer": "conv22", "overlay": "points"}
DIGITS = 40  # of which each takes some 0.04 s in each network


@pytest.fixture(scope="module")
def trained():
    with inside(ROOT):
        return {model: weights.load_model(records.read(find_run(run))) for model, run in names.SHOWN.items()}


@pytest.fixture(scope="module")
def images():
    return load_digits().x_test[:DIGITS]


@pytest.fixture(scope="module")
def offered(trained):
    """The digits that the book's laboratory offers, and its presets."""
    digits = load_digits()
    first = [int(np.flatnonzero(digits.y_test == label)[0]) for label in range(10)]
    images, labels = digits.x_test[first], digits.y_test[first]
    with inside(ROOT):
        recorded = measurements.result("laboratory").results["presets"]
    assert recorded == presets.presets(trained, images, [int(label) for label in labels])
    return images, labels, recorded


@pytest.fixture(scope="module")
def path(trained, offered, tmp_path_factory):
    """The laboratory, and in a second file its small form."""
    path = tmp_path_factory.mktemp("laboratory") / "page.html"
    content = laboratory.laboratory(trained, offered[0], offered[1], SHOWN, offered[2])
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><body>'
    )
    path.write_text(head + content, encoding="utf-8")
    path.with_name("small.html").write_text(f'{head}<div data-preset="break">{content}</div>', encoding="utf-8")
    assert path.stat().st_size < 0.8e6
    return path


# Keeps, for each network, how many questions wait for their answer, and how many were asked. While `held` is a list,
# the questions that are asked wait in it, and no network answers.
COUNT = """
const Plain = Worker;
window.counted = [];
window.held = null;
window.Worker = class extends Plain {
  constructor(...given) {
    super(...given);
    this.count = { waiting: 0, most: 0, asked: 0 };
    counted.push(this.count);
    this.addEventListener("message", () => { this.count.waiting--; });
  }
  postMessage(message) {
    if (message.id) {
      this.count.asked++;
      this.count.most = Math.max(this.count.most, ++this.count.waiting);
    }
    if (held) held.push(() => super.postMessage(message));
    else super.postMessage(message);
  }
};
"""


@pytest.fixture
def opened(page, path):
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.add_init_script(COUNT)
    page.goto(path.as_uri())  # from a file, without a server
    expect(page.locator(".laboratory[data-ready]")).to_be_attached()
    yield page
    assert not errors


def draw(page, *, moves=12):
    """Draws an upright line, and waits until the address holds it."""
    box = page.locator("canvas.pad").bounding_box()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.8 * box["height"], steps=moves)
    page.mouse.up()
    expect(page).to_have_url(re.compile("drawing="))


def seen(page):
    """What the networks see, as the page shows it: 28 x 28, from 0 to 1."""
    script = """canvas => [...Array(784).keys()].map(i => 1 - canvas.getContext("2d")
        .getImageData(10 * (i % 28) + 5, 10 * Math.floor(i / 28) + 5, 1, 1).data[0] / 255)"""
    return np.array(page.locator("canvas.seen").evaluate(script)).reshape(28, 28)


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
    assert "it is a 1" in before or ": right" in before
    opened.locator("[name=scale]").fill("0.3")
    expect(told).not_to_have_text(before)
    expect(opened).to_have_url(re.compile("scale=0.3"))
    opened.get_by_role("button", name="7").click()
    expect(opened.get_by_role("button", name="7")).to_have_attribute("aria-pressed", "true")
    expect(opened).to_have_url(re.compile("digit=7"))
    opened.goto(f"{opened.url.split('#')[0]}#digit=1&scale=0.9&rotation=45&offsets=0")
    expect(opened.locator("[name=rotation]")).to_have_value("45")
    expect(opened.locator("[name=offsets]")).not_to_be_checked()


def test_digits_are_changed_as_for_the_presets(opened, offered):
    changes = {"scale": 0.7, "width": 1.4, "down": -2.5, "right": 3, "rotation": 35}
    opened.goto(opened.url + "#digit=4&" + "&".join(f"{name}={value}" for name, value in changes.items()))
    expect(opened.locator("[name=rotation]")).to_have_value("35")
    expected = presets.moved(offered[0][[4]], **changes)[0, ..., 0]
    np.testing.assert_allclose(seen(opened), expected, atol=1 / 255)


def test_presets_show_what_their_names_say(opened, offered):
    _, labels, found = offered
    assert [preset["key"] for preset in found] == ["break", "squeeze", "shift", "offsets"]
    answers = opened.locator(".laboratory .answer")  # of the CNN, the deformable CNN, true deformable convolutions
    for preset in found:
        button = opened.get_by_role("button", name=preset["name"])
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        wrong = {"break": [0], "squeeze": [0], "offsets": [2]}.get(preset["key"], [])
        for network in {"offsets": [2], "shift": []}.get(preset["key"], range(3)):
            label = labels[preset["state"]["digit"]]
            told = rf"^(?!{label}).*: wrong, it is a {label}$" if network in wrong else rf"^{label}, with \d+%: right$"
            expect(answers.nth(network)).to_have_text(re.compile(told))
    opened.locator("[name=offsets]").check()
    expect(answers.nth(2)).to_contain_text(": right")


def test_a_fast_stroke_has_no_gaps(opened):
    opened.locator("[name=centred]").uncheck()
    opened.locator("[name=scale]").fill("1")
    draw(opened, moves=1)
    assert (seen(opened)[7:22].max(axis=1) == 1).all()


def test_while_one_draws_a_network_is_asked_one_image_at_a_time(opened):
    opened.evaluate("held = []; counted.forEach(count => { count.asked = count.most = 0; })")
    draw(opened, moves=60)
    assert opened.evaluate("counted") == 3 * [{"waiting": 1, "most": 1, "asked": 1}]
    opened.evaluate("() => { const waiting = held; held = null; waiting.forEach(ask => ask()); }")
    told = opened.locator(".laboratory .told")
    expect(told).to_contain_text(re.compile(r"1, with \d+%\."))  # no digit to be right about
    # the question of the first move, then of the last: what it is, and where the network samples it
    assert opened.evaluate("counted") == 3 * [{"waiting": 0, "most": 1, "asked": 3}]


def test_an_empty_canvas_asks_for_a_digit(opened):
    opened.get_by_role("button", name="Clear").click()
    for answer in opened.locator(".laboratory .answer").all():
        expect(answer).to_have_text("Draw a digit")
    draw(opened)
    expect(opened.locator(".laboratory .answer").first).to_contain_text("1, with")


def test_a_drawing_survives_a_reload_and_a_link_to_a_section(opened):
    draw(opened)
    before = seen(opened)
    opened.reload()
    told = opened.locator(".laboratory .told")
    expect(told).to_contain_text(re.compile(r"1, with \d+%\."))  # no digit to be right about
    np.testing.assert_array_equal(seen(opened), before)
    opened.evaluate("location.hash = 'sources'")
    opened.wait_for_timeout(200)
    np.testing.assert_array_equal(seen(opened), before)


def test_a_wrong_link_shows_what_is_shown_at_first(opened):
    wrong = ["layer=nope", "overlay=zzz", "scale=40", "scale=", "digit=10", "digit=1.5", "rotation=x", "offsets=yes"]
    names = ["scale", "width", "down", "right", "rotation", "layer", "overlay", "offsets", "centred"]
    values = "names => names.map(name => document.querySelector(`[name=${name}]`)).map(x => x.value + x.checked)"
    first = opened.evaluate(values, names)
    for number, link in enumerate([*wrong, "drawing=a!", "drawing=AAAA"], 2):
        opened.evaluate("link => { location.hash = link; }", link)
        expect(opened.locator(".laboratory")).to_have_attribute("data-ready", str(number))
        assert opened.evaluate(values, names) == first, link
        expect(opened.get_by_role("button", name="1", exact=True)).to_have_attribute("aria-pressed", "true")
    opened.goto(f"{opened.url.split('#')[0]}#layer=nope&overlay=zzz&digit=x")
    opened.reload()
    expect(opened.locator(".laboratory .answer").first).to_contain_text("with")


def test_on_a_phone_the_answers_are_next_to_the_pad(opened):
    opened.set_viewport_size({"width": 390, "height": 844})
    pad = opened.locator("canvas.pad").bounding_box()
    for answer in opened.locator(".laboratory .answers").all():
        box = answer.bounding_box()
        assert box["x"] >= pad["x"] + pad["width"]
        assert abs(box["y"] - pad["y"]) < 20
        assert box["x"] + box["width"] <= 390
    below = opened.locator("[name=rotation]").bounding_box()
    assert below["y"] + below["height"] - pad["y"] < 844  # one sees them while one slides


def test_the_small_form_shows_one_preset(page, path):
    page.goto(path.with_name("small.html").as_uri() + "#digit=3")
    expect(page.locator(".laboratory[data-ready]")).to_be_attached()
    expect(page.get_by_role("button", name="Break the CNN")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".laboratory .answer").first).to_contain_text("wrong")
    expect(page.locator("[name=rotation]")).to_be_hidden()
    page.locator("[name=scale]").fill("1")
    expect(page.locator(".laboratory .answer").first).to_contain_text("right")
    assert page.url.endswith("#digit=3")


def test_other_networks_are_refused(images):
    moving = deformable_cnn()
    moving.get_layer("conv12_offset").kernel.assign(np.ones((3, 3, 32, 64), "float32"))
    for model, message in (
        (moving, "offsets of ConvOffset2D layers must be zero. Received: conv12_offset"),
        (mini_resnet(), "layers must be those of the paper's CNNs"),
        (arms.dilated_cnn(), "convolutions must be plain, 3x3, 'same'. Received: conv21"),
    ):
        with pytest.raises(ValueError, match=message):
            laboratory.laboratory({"cnn": model}, images[:1], [7], SHOWN)
