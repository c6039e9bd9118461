"""What XLA compiles, what runs without it, and what is kept in memory of either."""

import functools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from gradients import gradients

from dcn.ops import compilation, deform_conv2d, deform_roi_pool, resample_by_offsets

AWKWARD = {"strides": (2, 1), "padding": ((1, 2), (0, 1)), "dilation_rate": (2, 1), "groups": 2, "offset_groups": 3}


def convolution(shape, kernel, offsets, given=0, dtype="float64", **settings):
    points = offsets[-1] // 2
    shapes = [shape, kernel, offsets, (*offsets[:3], points), kernel[3:]]
    return functools.partial(deform_conv2d, **settings), shapes[: 3 + given], dtype


def resampling(shape, dtype="float64", spread=1, **settings):
    def operator(inputs, offsets, jit_compile=None):
        return resample_by_offsets(inputs, spread * offsets, jit_compile=jit_compile, **settings)

    return operator, [shape, (*shape[:3], 2 * shape[3])], dtype


def pooling(shape, boxes, size, dtype="float64", **settings):
    def operator(inputs, boxes, offsets, jit_compile=None):
        boxes = tf.concat([boxes[:, :2], boxes[:, :2] + tf.abs(boxes[:, 2:]) * 3], 1)
        index = tf.range(len(boxes)) % shape[0]
        return deform_roi_pool(inputs, boxes, index, offsets, output_size=size, jit_compile=jit_compile, **settings)

    return operator, [shape, (boxes, 4), (boxes, *size, 2)], dtype


CASES = {
    "plain": convolution((2, 5, 4, 3), (3, 3, 3, 2), (2, 5, 4, 18), padding="same"),
    "awkward": convolution((2, 5, 4, 6), (3, 2, 3, 4), (2, 2, 4, 36), 2, **AWKWARD),
    "1x1": convolution((3, 6, 7, 4), (1, 1, 2, 4), (3, 6, 7, 4), 1, groups=2, offset_groups=2),
    "no images": convolution((0, 5, 4, 3), (3, 3, 3, 2), (0, 3, 2, 18), 2),
    "half precision": convolution((2, 5, 4, 4), (3, 3, 4, 2), (2, 5, 4, 18), 2, "float16", padding="same"),
    "published": resampling((2, 5, 4, 3)),
    "repaired": resampling((2, 5, 4, 3), corners="bilinear", pairing="per_pixel"),
    "far offsets": resampling((2, 5, 4, 3), spread=4, corners="bilinear"),
    "offsets of zero": resampling((2, 5, 4, 3), spread=0, corners="bilinear"),  # last neighbours beyond the border
    "one pixel": resampling((1, 1, 1, 2)),
    "no images to resample": resampling((0, 5, 4, 3)),
    "resampling in half precision": resampling((2, 5, 4, 3), "float16", corners="bilinear"),
    "boxes": pooling((2, 7, 6, 3), 4, (3, 2), sampling_ratio=2),
    "as many samples as pixels": pooling((2, 7, 6, 3), 5, (2, 2)),
    "one bin": pooling((1, 4, 5, 2), 3, (1, 1), sampling_ratio=1, spatial_scale=0.5),
    "no boxes": pooling((1, 4, 5, 2), 0, (2, 1)),
    "boxes in half precision": pooling((2, 7, 6, 3), 4, (3, 2), "float16", sampling_ratio=2),
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_with_and_without_xla_agree(random, case):
    operator, shapes, dtype = CASES[case]
    tensors = [tf.cast(random.normal(size=shape), dtype) for shape in shapes]
    with_and_without = [functools.partial(operator, jit_compile=choice) for choice in (True, False)]
    upstream = tf.cast(random.normal(size=with_and_without[1](*tensors).shape), dtype)
    results = (gradients(each, *tensors, upstream=upstream) for each in with_and_without)
    for with_xla, without in zip(*results, strict=True):
        assert with_xla.dtype == without.dtype
        scale = max(1, np.abs(tf.cast(with_xla, "float64")).max(initial=0))
        error = np.abs(tf.cast(with_xla - without, "float64")).max(initial=0)
        assert error <= {"float64": 1e-12, "float16": 4e-3}[dtype] * scale


@pytest.mark.parametrize("case", ["plain", "published", "boxes"])
@pytest.mark.parametrize("wrong", [1, 0, "no", np.True_])
def test_the_choice_is_a_bool_or_none(case, wrong):
    operator, shapes, dtype = CASES[case]
    with pytest.raises(ValueError, match="jit_compile must be True, False or None. Received: jit_compile="):
        operator(*(tf.zeros(shape, dtype) for shape in shapes), jit_compile=wrong)


@pytest.mark.parametrize("case", ["plain", "awkward", "published", "repaired"])
def test_without_xla_a_graph_consists_of_plain_operations(case):
    operator, shapes, dtype = CASES[case]
    signature = [tf.TensorSpec(shape, dtype) for shape in shapes]  # sizes that are known late are checked when run
    traced = tf.function(functools.partial(operator, jit_compile=False), signature, autograph=False)
    found = traced.get_concrete_function().graph.as_graph_def()
    assert not found.library.function
    assert not {node.op for node in found.node} & {
        "While",
        "StatelessWhile",
        "PartitionedCall",
        "StatefulPartitionedCall",
    }


@pytest.mark.parametrize("operator", [deform_conv2d, resample_by_offsets])
def test_by_default_xla_serves_known_sizes_and_the_first_shapes_of_eager_calls(operator, monkeypatch):
    monkeypatch.setattr(compilation, "_eager_shapes", {})
    kernel, channels = ([tf.zeros((1, 1, 2, 1))], 2) if operator is deform_conv2d else ([], 4)

    def traced(*size, **choice):
        kernels = map(tf.TensorSpec.from_tensor, kernel)
        signature = [tf.TensorSpec((*size, 2)), *kernels, tf.TensorSpec((*size, channels))]
        function = tf.function(functools.partial(operator, **choice), signature)
        return "_XlaMustCompile" in str(function.get_concrete_function().graph.as_graph_def().library)

    assert traced(None, 5, 4)
    assert traced(1, 5, 4)
    assert not traced(None, None, 4)
    assert not traced(None, None, None)
    assert traced(None, None, None, jit_compile=True)
    assert not traced(1, 5, 4, jit_compile=False)

    compiled = []
    for name in ("convolution", "resampling"):
        module = sys.modules[f"dcn.ops.{name}"]
        choose = module.uses_xla
        monkeypatch.setattr(module, "uses_xla", lambda *given, choose=choose: compiled.append(choose(*given)) or False)
    for height in (3, 4, 5, 6, 7, 8, 3, 8):
        operator(tf.zeros((1, height, 4, 2)), *kernel, tf.zeros((1, height, 4, channels)))
    assert compiled == [True, True, True, True, False, False, True, False]


MEMORY = """
import gc, sys
import tensorflow as tf
from dcn.ops import deform_conv2d, resample_by_offsets

def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4 / 1024

kernel = tf.ones((3, 3, 2, 2))

def step(inputs, offsets):
    with tf.GradientTape() as tape:
        tape.watch([inputs, kernel, offsets])
        if sys.argv[1] == "convolve":
            outputs = deform_conv2d(inputs, kernel, offsets, padding="same")
        else:
            outputs = resample_by_offsets(inputs, offsets[..., :4])
    return tape.gradient(outputs, [inputs, kernel, offsets])

if sys.argv[2] == "graph":
    step = tf.function(step, reduce_retracing=True)
for size in range(9, 40):
    step(tf.zeros((1, size, 9, 2)), tf.zeros((1, size, 9, 18)))
    if size == 9:
        start = resident()
print(resident() - start)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("within", ["eager", "graph"])
@pytest.mark.parametrize("operator", ["convolve", "resample"])
def test_thirty_more_sizes_take_little_memory(operator, within):
    command = [sys.executable, "-c", MEMORY, operator, within]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(output) < 60  # megabytes
