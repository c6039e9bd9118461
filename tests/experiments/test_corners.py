"""The row of pixels that explains the corners: its drawing and its interactive form compute what the layer computes."""

import functools

import numpy as np
import pytest
from gradients import gradients

from dcn import resample_by_offsets
from dcn_study.experiments.corners import interpolated
from dcn_study.show import corners, diagrams

ROW = np.array([0.0, 0.1, 0.9, 1.0, 0.4, 0.0])
BETWEEN = np.array([0.25, 1.5, 2.75, 4.9])
WHOLE = np.arange(5)


@pytest.mark.parametrize("kind", ["published", "bilinear"])
def test_it_is_what_the_operator_of_the_layer_computes(kind):
    positions = np.concatenate([WHOLE, BETWEEN])
    images = np.tile(ROW, (len(positions), 1))[:, None, :, None]
    moves = np.zeros((len(positions), 1, len(ROW), 2))
    moves[:, 0, 0, 1] = positions  # the first pixel is moved to the position
    operator = functools.partial(resample_by_offsets, corners=kind, pairing="per_pixel", jit_compile=False)
    resampled, _, found = gradients(operator, images, moves)
    values, slopes = interpolated(ROW, positions, kind)
    np.testing.assert_allclose(values, resampled[:, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(slopes, found[:, 0, 0, 1], atol=1e-12)


def test_positions_are_in_the_row():
    with pytest.raises(ValueError, match=r"positions must be from 0 to 5. Received: \[5.5\]"):
        interpolated(ROW, np.array([5.5]), "published")


def test_the_drawing_shows_the_slopes_of_the_layer():
    axes = diagrams.equal_corners(ROW, 1)
    for ax, slopes in zip(axes[2:], (np.zeros(5), np.diff(ROW)), strict=True):
        points = ax.collections[-1].get_offsets()  # those at pixels
        np.testing.assert_allclose(points, np.column_stack([WHOLE, slopes]), atol=1e-12)


@pytest.fixture
def opened(page):
    page.set_content(f'<!doctype html><html lang="en"><body>{corners.corners(ROW, 1)}')
    return page


def test_the_interactive_form_computes_what_the_layer_computes(opened):
    positions = np.concatenate([WHOLE, BETWEEN[:3]])
    script = "positions => positions.map(p => document.getElementById('corners').read(p))"
    found = opened.evaluate(script, positions.tolist())
    for name, kind in (("published", "published"), ("repaired", "bilinear")):
        values, slopes = interpolated(ROW, positions, kind)
        np.testing.assert_allclose([each[name]["value"] for each in found], values, atol=1e-4)
        np.testing.assert_allclose([each[name]["slope"] for each in found], slopes, atol=1e-4)


def test_the_interactive_form_answers_to_keyboard_and_pointer(opened):
    shown = {name: opened.locator(f".corners output[name={name}]") for name in ("position", "published", "repaired")}
    assert [each.inner_text() for each in shown.values()] == ["1.00", "0.00", "0.80"]
    opened.locator(".corners input").press("ArrowRight")
    assert [each.inner_text() for each in shown.values()] == ["1.05", "0.80", "0.80"]
    box = opened.locator(".corners svg").bounding_box()
    opened.mouse.move(box["x"] + 3.55 / 6 * box["width"], box["y"] + 10)  # 0.05 beside the centre of pixel 3
    opened.mouse.down()
    assert [each.inner_text() for each in shown.values()] == ["3.00", "0.00", "-0.60"]
    opened.mouse.up()
