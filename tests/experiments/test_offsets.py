import numpy as np
import pytest
from helpers import keep, make

from dcn import models
from dcn.ops import resample_by_offsets
from dcn_study.experiments import identity, offsets, pairing
from dcn_study.names import RANDOM_START
from dcn_study.runs import weights
from dcn_study.runs.catalogue import find_run
from dcn_study.show import diagrams, figures

RUN = find_run("deformable_cnn", test_size=20)


@pytest.fixture
def trained(monkeypatch):
    """A deformable CNN in the place of the stored one."""
    model = models.deformable_cnn()
    monkeypatch.setattr(weights, "load_model", lambda record: model)
    return model


def test_the_control_with_a_random_start_is_trained_from_the_start_that_is_followed():
    assert find_run("random_start_cnn", offset_stddev=0.0, epochs=20).config == find_run("deformable_cnn").config
    assert find_run("random_start_cnn").config.offset_stddev == RANDOM_START


def test_zero_kernels_leave_every_bit_of_the_logits(trained):
    compared = identity.compare_with_identity(make(RUN), "scaled")
    assert compared == {
        "images": 20, "logits": 200, "different": 0, "largest_difference": 0.0, "largest_kernel": 0.0
    }  # fmt: skip


def test_other_kernels_do_not(trained, random):
    kernel = trained.get_layer("conv21_offset").kernel
    kernel.assign(0.01 * random.normal(size=kernel.shape))
    compared = identity.compare_with_identity(make(RUN), "plain")
    assert compared["different"] > 100
    assert compared["largest_difference"] > 0
    assert compared["largest_kernel"] == pytest.approx(float(np.abs(kernel).max()))


def test_the_mini_resnet_is_compared_with_its_own_regular_form(monkeypatch):
    model = models.deformable_mini_resnet(chained=True)
    monkeypatch.setattr(weights, "load_model", lambda record: model)
    compared = identity.compare_with_identity(make(find_run("chained_deformable_mini_resnet", test_size=3)), "plain")
    assert (compared["logits"], compared["different"]) == (30, 0)


def test_the_pairs_are_those_that_the_layer_takes(random):
    predicted = random.normal(size=(1, 5, 4, 6)).astype("float32")
    sources = pairing.pairing_sources(5, 4, 3)
    paired = predicted[0][tuple(np.moveaxis(sources, -1, 0))]  # (5, 4, 3, 2): dy and dx of every value
    features = random.uniform(size=(1, 5, 4, 3)).astype("float32")
    own = paired.reshape(1, 5, 4, 6)  # the same pairs, laid out for a layer that takes them from the pixel itself
    np.testing.assert_array_equal(
        resample_by_offsets(features, predicted), resample_by_offsets(features, own, pairing="per_pixel")
    )
    assert len(diagrams.offset_pairing(sources, channel=1)) == 3


def test_the_first_steps_are_followed(project, monkeypatch):
    keep(find_run("cnn", seed=1))
    untrained = models.cnn()
    monkeypatch.setattr(weights, "load_model", lambda record: untrained)
    small = {"run": "deformable_cnn", "steps": 2, "seed": 1}
    traces = offsets.trace_offsets(**small)["traces"]
    layers = {"conv12_offset", "conv21_offset", "conv22_offset"}
    for name, trace in traces.items():
        assert set(trace["layers"]) == layers
        assert len(trace["loss"]) == 2
        for values in trace["layers"].values():
            for quantity in ("gradient", "kernel"):
                assert len(values[quantity]) == 2
                assert all((value == 0) == (name == "as published") for value in values[quantity])
    assert figures.offset_traces(traces).shape == (2, 4)
