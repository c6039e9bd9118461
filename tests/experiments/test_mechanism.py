"""What the offsets of trained networks do: changed offsets, and fields by scale."""

import json

import keras
import numpy as np
import pytest
from helpers import ROOT, keep

from dcn import models
from dcn.layers import DeformableConv2D
from dcn_study.experiments.mechanism import SCALES, SHARES, expansion, mechanism, with_offsets
from dcn_study.experiments.statistics import interval
from dcn_study.names import SHOWN_LAYERS
from dcn_study.runs import weights
from dcn_study.runs.catalogue import EVALUATED_ARMS, find_run

SIZES = {"realisations": 1, "images": 6, "digits": 2, "occluded": 0}


@pytest.fixture(scope="module")
def deformed():
    """A network whose offsets depend on the image."""
    keras.utils.set_random_seed(0)
    model = models.deform_conv_cnn()
    for layer in model.layers:
        if isinstance(layer, DeformableConv2D):
            layer.offset_kernel.assign(keras.random.normal(layer.offset_kernel.shape, stddev=0.3, seed=1))
    return model


def test_changed_offsets_are_used(random, deformed):
    images = random.random((4, 28, 28, 1)).astype("float32")
    same = with_offsets(deformed, lambda _, offsets: offsets)
    np.testing.assert_array_equal(same(images), deformed(images))
    regular = models.cnn()
    for layer in regular.layers:
        layer.set_weights(deformed.get_layer(layer.name).get_weights()[: len(layer.weights)])
    zero = with_offsets(deformed, lambda _, offsets: 0 * offsets)
    np.testing.assert_allclose(zero(images), regular(images), atol=1e-6)
    asked = []
    with_offsets(deformed, lambda layer, offsets: asked.append(layer) or offsets)(images)
    assert set(asked) == set(SHOWN_LAYERS)


@pytest.mark.parametrize("size", [(3, 3), (5, 3), (1, 3)])
def test_the_expansion_is_that_of_an_enlarged_grid(random, size):
    taps = np.stack(np.meshgrid(*(np.arange(side) - side // 2 for side in size), indexing="ij"), axis=-1).ravel()
    assert expansion(0.7 * taps, size) == pytest.approx(1.7)
    assert expansion(np.tile([2.0, -3.0], size[0] * size[1]), size) == pytest.approx(1.0)  # moved as a whole
    offsets = random.normal(size=(2, 4, taps.size))
    factors = np.linspace(0, 2, 2001)
    distances = [(((factor - 1) * taps - offsets[1, 2]) ** 2).sum() for factor in factors]
    assert expansion(offsets, size)[1, 2] == pytest.approx(factors[np.argmin(distances)], abs=1e-3)


def test_it_is_measured(project, monkeypatch, deformed):
    runs = {name: find_run(name) for name in ("scale_cnn", "scale_deform_conv_cnn")}
    for config in runs.values():
        keep(config)
    built = {"cnn": models.cnn(), "deform_conv_cnn": deformed}
    monkeypatch.setattr(weights, "load_model", lambda record: built[record.config.model])
    found = mechanism(**SIZES)
    assert len(found["accuracies"]) == 5
    assert set(found["expansions"]) == set(found["offsets"]) == set(SHOWN_LAYERS)
    assert set(found["expansions"]["conv21"]) == set(map(str, SCALES))
    for run in runs:
        areas = found["areas"][run]
        assert set(areas) == set(SHOWN_LAYERS)
        by_share = {share: areas["conv22"]["gradient"][str(share)]["1.0"] for share in SHARES}
        assert all(len(values) == 1 for values in by_share.values())
        assert sorted(by_share.values()) == list(by_share.values())
        assert set(areas["conv22"]) == {"gradient"}
    assert found["offsets"]["conv12"]["1.0"][0] > 0


@pytest.fixture
def on_record():
    return json.loads((ROOT / "book" / "records" / "mechanism.json").read_text(encoding="utf-8"))["results"]


def test_grids_follow_the_digit_in_part_on_record(on_record):
    """What the page says: in every realisation, the second and third convolutions; in the fourth either way."""
    factors, smallest, largest = {}, SCALES[0], SCALES[-1]
    for layer, expansions in on_record["expansions"].items():
        factors[layer] = np.divide(expansions[str(largest)], expansions[str(smallest)])
    last = SHOWN_LAYERS[-1]
    for layer in factors.keys() - {last}:
        assert 1 < factors[layer].min() < factors[layer].max() < largest / smallest, layer
    changes = np.subtract(*(on_record["expansions"][last][str(scale)] for scale in (largest, smallest)))
    assert changes.min() < 0 < changes.max()


def test_deformable_convolutions_enlarge_the_receptive_field_on_record(on_record):
    """What the first page and the conclusions say: in every realisation and at every scale; with the digit's size."""
    areas = on_record["areas"]
    regular, deformable = (
        np.array([areas[run][SHOWN_LAYERS[-1]]["gradient"]["0.5"][str(scale)] for scale in SCALES])
        for run in EVALUATED_ARMS
    )
    assert np.all(deformable > regular)
    constant, growing = (interval(np.polyfit(SCALES, np.sqrt(fields), 1)[0]) for fields in (regular, deformable))
    assert constant.low < 0 < constant.high
    assert growing.low > 0
