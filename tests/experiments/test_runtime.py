import os

import numpy as np
import pytest
import tensorflow as tf

from dcn_study import names
from dcn_study.experiments import runtime, timing
from dcn_study.experiments.ratios import runtimes
from dcn_study.runs import measurements
from dcn_study.show import figures, tables

SMALL = {"batches": "2,3", "sizes": "8,9", "batch": 2, "repeats": 2, "threads": 0, "device": "/CPU:0", "memory": True}
CHOSEN = ("CNN", "deformable CNN, ours without XLA")  # which is compiled soonest


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(runtime, "CONTESTANTS", {name: runtime.CONTESTANTS[name] for name in CHOSEN})
    monkeypatch.setattr(runtime, "peak_memory", lambda *measure: 7_000_000)


def test_a_comparison_measures_all_and_is_kept(project, few):
    measured = measurements.result("runtime", SMALL)
    assert measured.path.parent == project / "runs"
    table = runtimes(measured)
    assert len(table) == len(CHOSEN) * 3 * 2  # batches 2 and 3 at side 8, batch 2 at side 9; two measurements each
    assert (table["ratio"][table["model"] == "CNN"] == 1).all()
    assert (table["low"] <= table["milliseconds"]).all()
    assert (table["milliseconds"] <= table["high"]).all()
    assert len(figures.runtime_ratios(table[table["size"] == 8])) == 2
    assert len(figures.cost_by_size(table[table["batch"] == 2])) == 2
    shown = tables.runtime(table[table["size"] == 8])
    assert shown.shape == (2 * len(CHOSEN), 6)
    assert shown["batch 2", "ratio"]["forward", "CNN"] == 1


def test_all_ways_of_resampling_compute_the_same(random):
    """What is timed side by side must be the same function of the same weights."""
    images, _ = runtime.random_data(2, 8)
    chosen = [name for name in runtime.CONTESTANTS if name.startswith("deformable CNN")]
    outputs = {}
    for name in chosen:
        runtime.keras.utils.set_random_seed(0)
        outputs[name] = runtime.contestant_call(name, "forward", images, None)()
    for name in chosen[1:]:
        np.testing.assert_allclose(outputs[name], outputs[chosen[0]], atol=1e-5, err_msg=name)


def test_every_contestant_can_be_built_and_classifies(random):
    images = tf.constant(random.uniform(size=(2, 8, 8, 1)), tf.float32)
    for name, contestant in runtime.CONTESTANTS.items():
        assert contestant.build((8, 8, 1))(images).shape == (2, 10), name


def test_the_regular_models_are_contestants_too():
    assert set(map(names.regular, runtime.CONTESTANTS)) <= set(runtime.CONTESTANTS)
    assert set(names.TIMED.values()) <= set(runtime.CONTESTANTS)


def test_peak_memory_is_measured_in_a_process_of_its_own():
    assert timing.peak_memory(os.getpid) not in (None, os.getpid())


def test_a_time_ends_when_the_device_has_finished(monkeypatch):
    """On a graphics processor a call returns before its result is there."""
    events = []
    monkeypatch.setattr(tf.test.experimental, "sync_devices", lambda: events.append("finished"))
    timing.times({"one": lambda: events.append("one"), "two": lambda: events.append("two")}, 2)
    assert events[4:] == ["one", "finished", "two", "finished"] * 2  # after two calls of each to warm up


def test_peak_memory_sees_what_a_call_needs():
    size = 50_000_000
    assert timing.peak_memory_here(lambda: lambda: np.ones(size // 8).sum()) > 0.8 * size
