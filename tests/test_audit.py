import json

import numpy as np
import pytest
from test_records import make

from dcn import models
from dcn.ops import resampling
from dcn.study import audit, diagrams, figures, records, training
from dcn.study.config import ConfigurationError, run_config

CONFIG = run_config("deformable_cnn", test_size=20)


@pytest.fixture
def trained(monkeypatch):
    """A deformable CNN in the place of the stored one."""
    model = models.deformable_cnn()
    monkeypatch.setattr(training, "load_model", lambda record: model)
    return model


def test_zero_kernels_leave_every_bit_of_the_logits(trained):
    compared = audit.compare_with_identity(make(CONFIG), "scaled")
    assert compared == {
        "images": 20, "logits": 200, "different": 0, "largest_difference": 0.0, "largest_kernel": 0.0
    }  # fmt: skip


def test_other_kernels_do_not(trained, random):
    kernel = trained.get_layer("conv21_offset").kernel
    kernel.assign(0.01 * random.normal(size=kernel.shape))
    compared = audit.compare_with_identity(make(CONFIG), "plain")
    assert compared["different"] > 100
    assert compared["largest_difference"] > 0
    assert compared["largest_kernel"] == pytest.approx(float(np.abs(kernel).max()))


def test_the_mini_resnet_is_compared_with_its_own_regular_form(monkeypatch):
    model = models.deformable_mini_resnet(chained=True)
    monkeypatch.setattr(training, "load_model", lambda record: model)
    compared = audit.compare_with_identity(make(run_config("chained_deformable_mini_resnet", test_size=3)), "plain")
    assert (compared["logits"], compared["different"]) == (30, 0)


def test_the_pairs_are_those_that_the_layer_takes(random):
    offsets = random.normal(size=(1, 5, 4, 6)).astype("float32")
    sources = audit.pairing_sources(5, 4, 3)
    paired = offsets[0][tuple(np.moveaxis(sources, -1, 0))]  # (5, 4, 3, 2)
    dy, dx = resampling._split_pairs(offsets, False)
    np.testing.assert_array_equal(paired[..., 0].reshape(20, 3), dy[0])
    np.testing.assert_array_equal(paired[..., 1].reshape(20, 3), dx[0])
    assert len(diagrams.offset_pairing(sources, channel=1)) == 3


def test_the_first_steps_are_followed_once_and_kept(project, monkeypatch):
    fresh = models.deformable_cnn(trainable=False)
    monkeypatch.setattr(training, "load_model", lambda record: fresh)
    monkeypatch.setattr(training, "_initial_record", lambda config: None)
    small = {"run": "deformable_cnn", "steps": 2, "seed": 1}
    measured = audit.trace_offsets(**small)
    path = records.measurement_path(small, "offsets")
    assert path.parent == project / "runs"
    assert json.loads(path.read_text()) == measured
    layers = {"conv12_offset", "conv21_offset", "conv22_offset"}
    for name, trace in measured["traces"].items():
        assert set(trace["layers"]) == layers
        assert len(trace["loss"]) == 2
        for values in trace["layers"].values():
            for quantity in ("gradient", "kernel"):
                assert len(values[quantity]) == 2
                assert all((value == 0) == (name == "as published") for value in values[quantity])
    assert figures.offset_traces(measured["traces"]).shape == (2, 4)
    monkeypatch.setattr(audit, "_trace", None)
    assert audit.trace_offsets(**small) == measured


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be from 1 to 1875. Received: steps=0"),
        ({"steps": 1876}, "steps must be from 1 to 1875"),
        ({"run": "cnn"}, "corners must be 'published' for model cnn, which has no ConvOffset2D"),
        ({"run": "dnn"}, "run must be one of"),
    ],
)
def test_wrong_parameters(project, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        audit.trace_offsets(**{"run": "deformable_cnn", "steps": 2, "seed": 0, **changes})
