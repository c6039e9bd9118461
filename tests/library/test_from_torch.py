"""Layers with the weights of PyTorch's modules compute what these compute."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from dcn.layers import DeformableConv2D

HERE = Path(__file__).parent
STORED = HERE / "torch_cases.npz"
GIVEN = {
    "torchvision": {"dilation_rate": (1, 2), "groups": 2},
    "pack": {},
    "pack, strided": {"strides": (2, 1), "groups": 2},
    "modulated pack": {"groups": 2, "modulated": True},
}


def state_of(name, path=STORED):
    with np.load(path) as arrays:
        return {key.split("/")[1]: arrays[key] for key in arrays if key.startswith(f"{name}/")}


def compare(name, path=STORED, **arguments):
    state = state_of(name, path)
    x, y = (state.pop(key).transpose(0, 2, 3, 1) for key in "xy")
    layer = DeformableConv2D.from_torch(state, **GIVEN[name], **arguments)
    np.testing.assert_allclose(layer(x), y, rtol=1e-4, atol=1e-5)
    return layer


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("arguments", [{}, {"offset_learning_rate_multiplier": 0.1}, {"freeze_kernel": True}], ids=str)
def test_stored_cases(name, arguments):
    layer = compare(name, **arguments)
    assert layer.use_bias == (name != "torchvision")
    assert ("kernel" in {weight.name for weight in layer.trainable_weights}) == ("freeze_kernel" not in arguments)


def test_the_torchvision_that_is_installed_here(tmp_path):
    path = tmp_path / "cases.npz"
    try:
        done = subprocess.run(["/usr/bin/python3", HERE / "torch_cases.py", path], capture_output=True, check=False)
    except OSError:
        pytest.skip("there is no /usr/bin/python3")
    if not path.exists():
        pytest.skip(f"torchvision is not installed: {done.stderr.decode().splitlines()[-1]}")
    for name in GIVEN:
        compare(name, path)


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        ({"weight": np.zeros((4, 6, 3))}, {}, "state must have a weight of rank 4. Received: ['bias', 'conv_offset."),
        ({"conv_offset.weight": np.zeros((53, 6, 3, 3))}, {}, "must have a multiple of 18 filters. Received: 53"),
        ({"conv_offset.bias": None}, {}, "must have both conv_offset.weight and conv_offset.bias. Received: ['bias', "),
        ({"bias": np.zeros(5)}, {}, "bias must have shape (4,). Received: (5,)"),
        ({"conv_offset.weight": np.zeros((18, 5, 3, 3))}, {}, "weight must have shape (18, 6, 3, 3). Received: (18, 5"),
        ({"conv_offset.bias": np.zeros(3)}, {}, "conv_offset.bias must have shape"),
        ({}, {"offset_groups": 4}, "offset_groups must be that of state, 3. Received: offset_groups=4"),
        ({}, {"use_bias": False}, "use_bias must be that of state, True. Received: use_bias=False"),
        ({}, {"kernel_size": 5}, "kernel_size must be that of state, (3, 3). Received: kernel_size=5"),
        ({}, {"modulated": "yes"}, "modulated must be True or False. Received: modulated='yes'"),
        ({}, {"strides": 2, "dilation_rate": 2}, "`strides > 1` not supported in conjunction with `dilation_rate > 1`"),
    ],
)
def test_a_state_that_does_not_fit(change, arguments, words):
    state = {**state_of("pack"), **change}
    state = {key: value for key, value in state.items() if key not in "xy" and value is not None}
    with pytest.raises(ValueError) as error:  # noqa: PT011
        DeformableConv2D.from_torch(state, **arguments)
    assert words in str(error.value)
