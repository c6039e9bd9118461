"""Rewritten samplers and their probes: a right one passes all, and each defect is caught by its probe."""

import dataclasses
import functools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from gradients import gradients
from helpers import ROOT

import dcn
from dcn_study.experiments import lineage
from dcn_study.experiments.choices import Choices, is_neutral
from dcn_study.experiments.implementations import FIELDS, FOUND, ROOTS
from dcn_study.show import diagrams, tables

RIGHT = Choices()
PUBLISHED = Choices(points=1, pairing="neighbours", second="ceil", border="clip")
OUTCOMES = {
    "gradient at zero": "alive",
    "pairing": "own pixel",
    "finite differences": "agree",
    "border": "right",
    "shift by one pixel": "(dy, dx)",
}


@pytest.fixture(scope="module")
def found():
    return lineage.probe({name: each.choices for name, each in FOUND.items()})


@pytest.mark.parametrize("seed", [0, 1])
def test_a_right_sampler_passes_all_probes(seed):
    found = lineage.probe({"right": RIGHT}, seed)["right"]
    assert {probe: found[probe]["outcome"] for probe in lineage.PROBES} == OUTCOMES
    assert found["gradient at zero"]["number"] > 1
    assert found["gradient at zero"]["dead"] == []
    assert found["border"]["beyond"] == 1
    assert is_neutral(found["start"])


@pytest.mark.parametrize(
    ("probe", "change", "outcome"),
    [
        ("gradient at zero", {"second": "ceil"}, "dead"),
        ("gradient at zero", {"second": "ceil_shared"}, "dead"),
        ("gradient at zero", {"second": "ceil", "start": "normal"}, "zero"),
        ("pairing", {"points": 1, "pairing": "neighbours"}, "other pixels"),
        ("pairing", {"images": "cycled"}, "other images"),
        ("border", {"border": "clip_by_height"}, "wrong"),
        ("border", {"border": "clip_corners", "padding": "valid"}, "wrong"),
        ("border", {"grid": "unstacked"}, "wrong"),
        ("shift by one pixel", {"pairing": "swapped"}, "(dx, dy)"),
        ("shift by one pixel", {"points": 1, "pairing": "neighbours"}, "neither"),
    ],
)
def test_each_defect_is_caught_by_its_probe(probe, change, outcome):
    assert lineage.PROBES[probe](dataclasses.replace(RIGHT, **change), 0)["outcome"] == outcome


def test_finite_differences_catch_a_wrong_derivative(monkeypatch):
    right = lineage.sample

    def halved(choices, images, moved):
        return right(choices, images, moved / 2 + tf.stop_gradient(moved / 2))

    monkeypatch.setattr(lineage, "sample", halved)
    assert lineage.PROBES["finite differences"](RIGHT, 0)["outcome"] == "differ"


def test_a_mask_that_halves_the_output_shows_in_a_new_layer():
    assert lineage.state(dataclasses.replace(RIGHT, mask="half"))["number"] == pytest.approx(0.5)
    assert is_neutral(lineage.state(dataclasses.replace(RIGHT, mask="one")))
    assert not is_neutral(lineage.state(dataclasses.replace(RIGHT, mask="sum")))


@pytest.mark.parametrize(("border", "goes_on"), [("zeros", 1), ("pad", 1), ("clip", 0), ("pad_and_round", 0)])
def test_derivatives_beyond_the_border(border, goes_on):
    assert lineage.PROBES["border"](dataclasses.replace(RIGHT, border=border), 0)["beyond"] == goes_on


def test_the_rewritten_example_is_the_published_layer(random):
    """On square images and on wide ones, which our operator clips by their own size."""
    for published, corners, pairing in (
        (PUBLISHED, "published", "published"),
        (dataclasses.replace(PUBLISHED, second="next", pairing="interleaved"), "bilinear", "per_pixel"),
    ):
        images, offsets = random.normal(size=(2, 5, 6, 3)), random.normal(scale=2, size=(2, 5, 6, 6))

        def rewritten(images, offsets, choices=published):
            return lineage.sample(choices, images, lineage.moves(choices, offsets, 3))[:, :, :, 0]

        ours = functools.partial(dcn.resample_by_offsets, corners=corners, pairing=pairing)
        results = (gradients(function, images, offsets, upstream=images) for function in (ours, rewritten))
        for one, other in zip(*results, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("second", ["next", "both"])
def test_the_rewritten_operator_is_that_of_the_library(second, random):
    choices = dataclasses.replace(RIGHT, second=second)
    images, offsets = tf.constant(random.normal(size=(2, 5, 4, 3))), tf.constant(random.normal(size=(2, 5, 4, 18)))
    kernel = random.normal(size=(3, 3, 3, 2))
    found = lineage.sample(choices, images, lineage.moves(choices, offsets, 3))
    rewritten = tf.einsum("bhwnc,nco->bhwo", found, kernel.reshape(9, 3, 2))
    ours = dcn.deform_conv2d(images, kernel, offsets, padding=((1, 1), (1, 1)))
    np.testing.assert_allclose(ours, rewritten, atol=1e-10)


def test_both_slopes_are_averaged_at_whole_numbers():
    images = tf.constant(np.arange(25.0).reshape(1, 5, 5, 1) ** 2)
    for second, slope in (("next", 13**2 - 12**2), ("both", (13**2 - 11**2) / 2)):
        sample = functools.partial(lineage.sample, Choices(points=1, second=second), images)
        assert gradients(sample, np.zeros((1, 5, 5, 1, 1, 2)))[1][0, 2, 2, 0, 0, 1] == slope


def test_what_the_page_says_of_the_implementations(found):
    outcomes = {name: each["gradient at zero"]["outcome"] for name, each in found.items()}
    assert [name for name, outcome in outcomes.items() if outcome == "dead"] == ["kastnerkyle", "Oza"]
    assert [name for name, outcome in outcomes.items() if outcome == "zero"] == [
        "oeway", "TensorLayer", "ChunhuanLin (early)"
    ]  # fmt: skip
    assert all(each["gradient at zero"]["dead"] == [] for name, each in found.items() if outcomes[name] != "dead")
    assert all(each["finite differences"]["outcome"] == "agree" for each in found.values())
    assert len(found) >= 10


def test_a_defect_is_stated_only_with_the_line_that_it_was_read_from(found):
    for name, implementation in FOUND.items():
        assert set(implementation.lines) >= {"second pixel", "start"}, name
        each = found[name]
        if each["pairing"]["outcome"] != "own pixel":
            assert {"pairing", "images"} & set(implementation.lines), name
        if each["border"]["outcome"] != "right":
            assert {"border", "grid"} & set(implementation.lines), name
        if implementation.choices.mask != "none":
            assert "mask" in implementation.lines, name


def test_origins_and_dates():
    for name, each in FOUND.items():
        assert each.after in {"", *FOUND, *ROOTS}, name
        assert bool(each.by) == bool(each.dated), name
        assert re.fullmatch(r"[0-9a-f]{40}|", each.commit), name
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", each.repository), name
        before = {**ROOTS, **{name: each.by for name, each in FOUND.items()}}.get(each.after, "")
        assert not each.by or before <= each.by, name


def test_tables_and_tree(found):
    probed = tables.probes(found)
    assert list(probed.index) == list(FOUND)
    assert probed.loc["kastnerkyle", "gradient at zero offsets"] == "0, dead"
    assert probed.loc["oeway", "gradient at zero offsets"] == "0"
    assert list(probed.loc[["oeway", "DHZS", "KerasHub"], "first number moves"]) == ["neither", "y", "x"]
    assert tables.sources(FOUND).loc["mvoelk", "repository and commit"].endswith("(commit not known)")
    assert tables.descriptions(FOUND).loc["oeway", "issues"].startswith("14: ")
    assert len(tables.fields(FIELDS)) == len(FIELDS)
    outcomes = {name: each["gradient at zero"]["outcome"] for name, each in found.items()}
    dates = {**ROOTS, **{name: each.by for name, each in FOUND.items()}}
    ax = diagrams.family_tree(dates, {name: each.after for name, each in FOUND.items()}, outcomes)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(dates)
    assert ax.get_xticklabels()[-1].get_text() == "no date"


def test_the_checks_of_the_guide_run_and_can_fail():
    text = (ROOT / "book" / "checks.md").read_text(encoding="utf-8")
    setup, *checks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(checks) == 3
    names = {}
    exec(setup, names)
    for check in checks:
        exec(check, names)
    with pytest.raises(AssertionError):
        exec(checks[0], names | {"layer": dcn.ConvOffset2D(3)})
    with pytest.raises(AssertionError):
        exec(checks[1], names | {"output": names["output"] / 2})
    scrambled = checks[2].replace("dcn.deform_conv2d(", "scrambled(")
    scrambling = {"scrambled": lambda images, kernel, offsets, **given: dcn.deform_conv2d(
        images, kernel, tf.reshape(tf.transpose(offsets, (0, 3, 1, 2)), offsets.shape), **given
    )}  # fmt: skip
    with pytest.raises(AssertionError):
        exec(scrambled, names | scrambling)


def test_the_first_check_names_the_weights_of_the_rewritten_example():
    images = keras.random.uniform((2, 5, 5, 3), seed=1, dtype="float64")
    assert dcn.dead_weights(lineage.RewrittenLayer(PUBLISHED), images) == ["rewritten/offset_kernel"]
    assert dcn.dead_weights(lineage.RewrittenLayer(RIGHT), images) == []
