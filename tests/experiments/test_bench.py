import importlib.metadata
import sys

import numpy as np
import pytest
import tensorflow as tf
from gradients import gradients

from dcn.ops import resample_by_offsets
from dcn_study import cli
from dcn_study.experiments import as_published, bench
from dcn_study.experiments.ratios import ratios
from dcn_study.runs import measurements
from dcn_study.runs.inputs import machine
from dcn_study.show import tables


def test_the_published_way_computes_the_same(random):
    inputs = tf.constant(random.normal(size=(2, 5, 5, 3)), tf.float32)
    offsets = tf.constant(2 * random.normal(size=(2, 5, 5, 6)), tf.float32)
    functions = as_published.resample_as_published, resample_by_offsets
    results = (gradients(function, inputs, offsets, upstream=inputs) for function in functions)
    for published, ours in zip(*results, strict=True):
        np.testing.assert_allclose(ours, published, atol=1e-5)


TINY = (2, 4, 5, 3)


@pytest.fixture
def tiny(monkeypatch):
    """One small shape, and no process of its own for the memory."""
    monkeypatch.setattr(bench, "SHAPES", (TINY,))
    monkeypatch.setattr(bench, "MEMORY_SHAPE", TINY)
    monkeypatch.setattr(bench, "peak_memory", lambda measure, jit_compile: 7200)
    monkeypatch.setattr(bench, "PEER_PYTHON", "nothing")
    monkeypatch.setattr(bench.bench, "__defaults__", ("nothing",))


def test_bench_measures_every_contestant_and_names_its_peers(project, tiny, capsys):
    assert cli.main(["bench", "--repeats", "2"]) == 0
    printed = capsys.readouterr().out
    assert "deform_conv2d forward / conv2d" in printed
    assert "torchvision is not installed, not measured" in printed
    assert "in im2col matrices: 1.00" in printed
    measured = measurements.result("bench", {"repeats": 2})
    assert measured.path.parent == project / "runs"  # the book's has more repeats
    assert "torchvision" not in measured.results["peers"]
    if "onnxruntime" in measured.results["shapes"][0]["milliseconds"]:
        assert measured.results["peers"]["onnxruntime"] == importlib.metadata.version("onnxruntime")
        assert "deform_conv2d forward / onnxruntime" in printed


def test_bench_stores_nothing(project, tiny, capsys):
    assert cli.main(["bench", "--repeats", "1", "--peer-python", sys.executable]) == 0
    assert not (project / "runs").exists()
    assert [path.name for path in (project / "book").iterdir()] == []


def test_a_peer_with_its_own_interpreter_is_measured_by_it(project, tiny, monkeypatch):
    """The program of the peer is a file; any interpreter that prints what it prints will do."""
    (project / "benchmarks").mkdir()
    program = "import json; print(json.dumps({'seconds': [0.1, 0.2, 0.3], 'version': '9'}))"
    (project / "benchmarks" / "torchvision_times.py").write_text(program)
    results = bench.measure(1, sys.executable)
    assert results["peers"]["torchvision"] == "9"
    assert results["shapes"][0]["milliseconds"]["torchvision, forward + backward"] == [150, 200, 250]


def test_bench_refuses_no_repeats(capsys):
    assert cli.main(["bench", "--repeats", "0"]) == 2
    assert "--repeats must be from 1 to 1000" in capsys.readouterr().err


def test_what_another_processor_measured_is_kept(project, tiny, monkeypatch):
    for name in ("one", "other", "one"):
        monkeypatch.setattr(bench, "processor", lambda name=name: {"name": name, "flags": [], "caches": {}})
        measured = measurements.result("bench", {"repeats": 1}, force=True)
    assert list(measured.results["elsewhere"]) == ["other"]
    other = measured.results["elsewhere"]["other"]
    assert other["code"] == measured.inputs.code
    assert other["means"].keys() == ratios(measured.results).keys()
    table = tables.processors(measured)
    assert table.shape == (len(other["means"]), 2)
    assert "one" in table.columns[0]
    assert "other" in table.columns[1]


def test_the_processor_is_described_as_far_as_it_is_known():
    found = bench.processor()
    assert found["name"].startswith(machine().processor)
    assert set(found) == {"name", "flags", "caches"}
