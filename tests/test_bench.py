import numpy as np
import tensorflow as tf

from dcn.ops import resample_by_offsets
from dcn.study import bench, cli, runtime


def test_the_published_way_computes_the_same(random):
    inputs = tf.constant(random.normal(size=(2, 5, 5, 3)), tf.float32)
    offsets = tf.constant(2 * random.normal(size=(2, 5, 5, 6)), tf.float32)
    gradients = []
    for function in (runtime.resample_as_published, resample_by_offsets):
        with tf.GradientTape() as tape:
            tape.watch([inputs, offsets])
            outputs = function(inputs, offsets)
        gradients.append([outputs, *tape.gradient(outputs, [inputs, offsets], inputs)])
    for published, ours in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, published, atol=1e-5)


def test_bench_measures_every_contestant(project, monkeypatch, capsys):
    monkeypatch.setattr(bench, "SHAPES", ((2, 4, 5, 3),))
    monkeypatch.setattr(bench, "MEMORY_SHAPE", (2, 4, 5, 3))
    monkeypatch.setattr(bench, "peak_memory", lambda setup: 7200)
    monkeypatch.setattr(bench, "SYSTEM_PYTHON", "nothing")
    assert cli.main(["bench", "--repeats", "2", "--record"]) == 0
    printed = capsys.readouterr().out
    assert "deform_conv2d forward / onnxruntime" in printed
    assert "not measured: the peer is not installed" in printed
    assert "in im2col matrices: 1.00" in printed
    assert (project / "book/records/bench.json").is_file()


def test_bench_refuses_no_repeats(capsys):
    assert cli.main(["bench", "--repeats", "0"]) == 2
    assert "repeats must be at least 1" in capsys.readouterr().err
