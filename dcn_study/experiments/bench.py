"""Times of the operators and of their peers: in one process, in turn, as ratios of medians."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dcn.ops import deform_conv2d, resample_by_offsets
from dcn_study.errors import ConfigurationError
from dcn_study.experiments.as_published import resample_as_published
from dcn_study.experiments.ratios import ratios
from dcn_study.experiments.timing import peak_memory, peak_memory_here, quartiles, times
from dcn_study.runs import measurements
from dcn_study.runs.files import project_root
from dcn_study.runs.inputs import machine
from dcn_study.runs.records import Measurement

__all__ = ["bench", "elsewhere", "forward_and_backward_here", "measure", "processor"]

# batch, input channels, height and width, filters; 3x3 kernels, stride 1
SHAPES = ((32, 32, 28, 64), (32, 64, 14, 128), (32, 128, 14, 128), (4, 256, 56, 256))
OFFSET_SPREAD = 2.0  # standard deviation of the offsets, in pixels
MEMORY_SHAPE = SHAPES[-1]
VECTOR_FLAGS = ("sse4", "avx", "fma", "amx")  # instructions that decide how fast a product is
PEER_PYTHON = "/usr/bin/python3"  # where Debian's package python3-torchvision installs


def bench(repeats: int, peer_python: str = PEER_PYTHON) -> dict[str, Any]:
    """Returns the times of the operators, as `measure` does, and next to them those on record from other processors.

    Args:
        repeats: measurements of each, taken in turn.
        peer_python: interpreter that has torchvision; what is not installed there is not measured.

    Raises:
        ConfigurationError: if `repeats` is not positive.
        RecordError: if the former record is damaged.
    """
    _require_positive(repeats)
    earlier = measurements.read("bench", {"repeats": repeats})
    results = {**measure(repeats, peer_python), "processor": processor()}
    return {**results, "elsewhere": elsewhere(earlier, results["processor"]["name"])}


def processor() -> dict[str, Any]:
    """Returns the name of this processor, its vector instructions and its caches, where Linux reports them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", maxsplit=1)[0].splitlines()
    except OSError:
        lines = []
    known = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    place = "".join(
        f", {field.removeprefix('cpu ')} {known[field]}" for field in ("cpu family", "model") if field in known
    )
    flags = [flag for flag in known.get("flags", "").split() if flag.startswith(VECTOR_FLAGS)]
    caches = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / field).read_text().strip() for field in ("level", "type", "size"))
        caches[f"L{level} {kind.lower()}"] = size
    return {"name": machine().processor + place, "flags": sorted(flags), "caches": caches}


def elsewhere(earlier: Measurement | None, here: str) -> dict[str, Any]:
    """Returns a measurement's results from processors other than this one.

    Args:
        earlier: the record that a new one is about to replace, if there is one.
        here: the name of this processor.

    Returns:
        By processor "date", digest of the "code", "versions" of libraries and peers, and the geometric "means" of
        `ratios`.
    """
    if earlier is None:
        return {}
    results = earlier.results
    name = results.get("processor", {}).get("name", earlier.machine.processor)
    known = {
        **results.get("elsewhere", {}),
        name: {
            "date": earlier.started[:10],
            "code": earlier.inputs.code,
            "versions": {**earlier.inputs.versions, **results["peers"]},
            "means": {label: values[-1] for label, values in ratios(results).items()},
        },
    }
    return {other: result for other, result in known.items() if other != here}


def measure(repeats: int, peer_python: str = PEER_PYTHON) -> dict[str, Any]:
    """Times the operators and their peers on all shapes, and stores nothing.

    Args:
        repeats: measurements of each, taken in turn.
        peer_python: as for `bench`.

    Returns:
        "shapes": one entry per shape, with quartiles in milliseconds by contestant; "peers": the version of each peer
        that was measured; "peak_memory_bytes" of forward and backward, the same without XLA, and "im2col_bytes" to
        compare them with.

    Raises:
        ConfigurationError: if `repeats` is not positive.
    """
    _require_positive(repeats)
    results = []
    peers: dict[str, str] = {}
    for shape in tqdm(SHAPES, desc="shapes"):
        tensors = _tensors(shape)
        contestants = _contestants(tensors)
        if "onnxruntime" in contestants:
            peers["onnxruntime"] = importlib.metadata.version("onnxruntime")
        measured = times(contestants, repeats)
        torchvision = _torchvision(tensors, max(3, repeats // 5), peer_python)
        if torchvision:
            measured["torchvision, forward + backward"] = quartiles(torchvision["seconds"])
            peers["torchvision"] = torchvision["version"]
        results.append({"shape": list(shape), "milliseconds": measured})
    return {
        "shapes": results,
        "peers": peers,
        "peak_memory_bytes": peak_memory(forward_and_backward_here, True),
        "peak_memory_without_xla_bytes": peak_memory(forward_and_backward_here, False),
        "im2col_bytes": _im2col_bytes(MEMORY_SHAPE),
    }


def _require_positive(repeats: int) -> None:
    if repeats < 1:
        raise ConfigurationError(f"repeats must be at least 1. Received: repeats={repeats}")


def _tensors(shape: tuple[int, int, int, int]) -> dict[str, tf.Tensor]:
    batch, channels, side, filters = shape
    random = np.random.default_rng(0)
    drawn = {
        "x": random.normal(size=(batch, side, side, channels)),
        "k": random.normal(size=(3, 3, channels, filters)),
        "o": OFFSET_SPREAD * random.normal(size=(batch, side, side, 18)),
        "g": random.normal(size=(batch, side, side, filters)),
        "every": OFFSET_SPREAD * random.normal(size=(batch, side, side, 2 * channels)),
    }
    return {name: tf.constant(array, tf.float32) for name, array in drawn.items()}


def _contestants(tensors: dict[str, tf.Tensor]) -> dict[str, Callable[[], Any]]:
    x, k, o, every = (tensors[name] for name in ("x", "k", "o", "every"))
    operators: dict[str, tuple[Callable, list[tf.Tensor], tf.Tensor | None]] = {
        "conv2d": (lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), [x, k], tensors["g"]),
        "deform_conv2d": (lambda x, k, o: deform_conv2d(x, k, o, padding="same"), [x, k, o], tensors["g"]),
        "deform_conv2d without XLA": (
            lambda x, k, o: deform_conv2d(x, k, o, padding="same", jit_compile=False),
            [x, k, o],
            tensors["g"],
        ),
        "matmul alone": (tf.matmul, [*_matrices(x, k)], tf.reshape(tensors["g"], (-1, k.shape[3]))),
        "row reads alone": (*_row_reads(x), None),
        "value reads alone": (*_value_reads(x), None),
        "coordinates alone": (_coordinates, [every], None),
        "resampling": (resample_by_offsets, [x, every], x),
        "resampling as published": (resample_as_published, [x, every], x),
    }
    contestants = _onnxruntime(x, k, o)
    for name, (function, arguments, upstream) in operators.items():
        contestants[name] = _forward(function, arguments)
        if upstream is not None:
            contestants[f"{name}, forward + backward"] = _both(function, arguments, upstream)
    return contestants


def _matrices(x: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns an im2col matrix and a kernel matrix, whose product every method has to compute."""
    height, width, channels, filters = k.shape
    columns = tf.image.extract_patches(x, (1, height, width, 1), (1, 1, 1, 1), (1, 1, 1, 1), "SAME")
    return tf.reshape(columns, (-1, height * width * channels)), tf.reshape(k, (-1, filters))


# The parts that every arrangement of TensorFlow operations needs, each by itself, with its inputs computed beforehand.


def _row_reads(x: tf.Tensor) -> tuple[Callable, list[tf.Tensor]]:
    """Four weighted reads of all channels for each of 9 kernel points: the matrix that `deform_conv2d` multiplies."""
    batch, height, width, channels = x.shape
    random, pixels = np.random.default_rng(1), batch * height * width
    steps = np.rint(OFFSET_SPREAD * random.normal(size=(2, pixels, 9))).astype(int)
    first = np.clip(np.arange(pixels)[:, None] + steps[0] * width + steps[1], 0, pixels - 1)
    corners = tf.constant([np.minimum(first + step, pixels - 1) for step in (0, 1, width, width + 1)], tf.int32)
    weights = tf.constant(random.uniform(size=(4, pixels, 9, 1)), x.dtype)

    @tf.function(jit_compile=True, autograph=False)
    def read(rows: tf.Tensor, corners: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return sum(weights[corner] * tf.gather(rows, corners[corner]) for corner in range(4))

    return read, [tf.reshape(x, (pixels, channels)), corners, weights]


def _value_reads(x: tf.Tensor) -> tuple[Callable, list[tf.Tensor]]:
    """Four reads for each value of the input: what the resampling of `ConvOffset2D` interpolates between."""
    batch, height, width, channels = x.shape
    size = batch * height * width * channels
    steps = np.rint(OFFSET_SPREAD * np.random.default_rng(1).normal(size=(2, size))).astype(int)
    first = np.clip(np.arange(size) + (steps[0] * width + steps[1]) * channels, 0, size - 1)
    corners = [0, channels, width * channels, (width + 1) * channels]

    @tf.function(jit_compile=True, autograph=False)
    def read(values: tf.Tensor, *corners: tf.Tensor) -> tf.Tensor:
        return tf.add_n([tf.gather(values, corner) for corner in corners])

    indices = [tf.constant(np.minimum(first + step, size - 1), tf.int32) for step in corners]
    return read, [tf.reshape(x, (-1,)), *indices]


@tf.function(jit_compile=True, autograph=False)
def _coordinates(offsets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the resampling of `ConvOffset2D` reads: its offsets, paired as published, on the grid of pixels."""
    batch, height, width, doubled = tf.unstack(tf.shape(offsets))
    pairs = tf.reshape(offsets, (batch, height * width, doubled // 2, 2))
    pairs = tf.reshape(tf.transpose(pairs, (0, 3, 1, 2)), (batch, height * width, 2, doubled // 2))
    pixels = tf.range(height * width)[:, None]
    y = pairs[:, :, 0] + tf.cast(pixels // width, offsets.dtype)
    x = pairs[:, :, 1] + tf.cast(pixels % width, offsets.dtype)
    return tf.clip_by_value(y, 0, tf.cast(height - 1, y.dtype)), tf.clip_by_value(x, 0, tf.cast(width - 1, x.dtype))


def _forward(function: Callable, arguments: list[tf.Tensor]) -> Callable[[], Any]:
    compiled = tf.function(function, autograph=False)
    return lambda: compiled(*arguments)


def _both(function: Callable, arguments: list[tf.Tensor], upstream: tf.Tensor) -> Callable[[], Any]:
    @tf.function(autograph=False)
    def compiled(upstream: tf.Tensor, *arguments: tf.Tensor) -> tuple[tf.Tensor, ...]:
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            outputs = function(*arguments)
        return (outputs, *tape.gradient(outputs, arguments, upstream))

    return lambda: compiled(upstream, *arguments)


def _onnxruntime(x: tf.Tensor, k: tf.Tensor, o: tf.Tensor) -> dict[str, Callable[[], Any]]:
    """Returns onnxruntime's kernel for the CPU, at as many threads, not spinning while others are measured.

    Empty for a version without the kernel: the last one for Python 3.10 has none.
    """
    import onnx
    import onnxruntime

    node = onnx.helper.make_node("DeformConv", ["X", "W", "O"], ["Y"], kernel_shape=(3, 3), pads=(1, 1, 1, 1))
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "XWOY"]
    graph = onnx.helper.make_graph([node], "bench", values[:3], values[3:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = machine().threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return {}
    feed = {name: np.ascontiguousarray(array) for name, array in zip("XWO", _channels_first(x, k, o), strict=True)}
    return {"onnxruntime": lambda: session.run(None, feed)}


def _channels_first(x: tf.Tensor, k: tf.Tensor, o: tf.Tensor) -> tuple[np.ndarray, ...]:
    return x.numpy().transpose(0, 3, 1, 2), k.numpy().transpose(3, 2, 0, 1), o.numpy().transpose(0, 3, 1, 2)


def _torchvision(tensors: dict[str, tf.Tensor], repeats: int, python: str) -> dict[str, Any]:
    """Returns seconds and version of torchvision on the CPU, by another interpreter; nothing if it is not installed."""
    program = project_root() / "benchmarks" / "torchvision_times.py"
    x, k, o = _channels_first(*(tensors[name] for name in "xko"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tensors.npz"
        np.savez(path, x=x, k=k, o=o, g=tensors["g"].numpy().transpose(0, 3, 1, 2))
        try:
            command = [python, str(program), str(path), str(repeats), str(machine().threads)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            return {}
    return json.loads(done.stdout) if done.returncode == 0 else {}


def _im2col_bytes(shape: tuple[int, int, int, int]) -> int:
    batch, channels, side, _ = shape
    return 4 * batch * side * side * 9 * channels


def forward_and_backward_here(jit_compile: bool) -> int:
    """Returns the bytes that forward + backward take at their peak, in this process, with or without XLA."""
    tensors = _tensors(MEMORY_SHAPE)
    operands = [tensors[name] for name in "xko"]
    return peak_memory_here(
        lambda: _both(
            lambda x, k, o: deform_conv2d(x, k, o, padding="same", jit_compile=jit_compile), operands, tensors["g"]
        )
    )


# what is added up, peer, what is compared; below 1 the peer is slower
