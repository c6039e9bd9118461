"""Conversion of models to ONNX, which has an operator for deformable convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from dcn.layers import DeformableConv2D

if TYPE_CHECKING:
    import onnx

__all__ = ["OPSETS", "to_onnx"]

OPSETS = (19, 22)  # the one that introduced `DeformConv`, and the last one that changed it
ACTIVATIONS = {
    keras.activations.relu: "Relu",
    keras.activations.sigmoid: "Sigmoid",
    keras.activations.tanh: "Tanh",
    keras.activations.softmax: "Softmax",
}
# Options that change what a layer computes, with the only value that is converted.
OPTIONS = {"data_format": "channels_last", "keepdims": False, "max_value": None, "negative_slope": 0, "threshold": 0}


def to_onnx(model: keras.Model, *, opset: int = 22) -> onnx.ModelProto:
    """Returns a model for ONNX runtimes, with `DeformConv` in place of each `DeformableConv2D`.

    Inputs and outputs are those of the Keras model, channels last, with any batch size. Needs the package `onnx`.

    Args:
        model: with one input and one output, float32, made of `DeformableConv2D`, `Conv2D`, `BatchNormalization`,
            `Dense`, `ReLU`, `Activation`, `ZeroPadding2D`, `MaxPooling2D`, `GlobalAveragePooling2D`, `Flatten`,
            `Dropout` and `Add`, not of classes derived from these; channels last, heights and widths known.
        opset: 19 or 22.

    Raises:
        ImportError: if `onnx` is not installed.
        ValueError: if the opset is another one, or a layer cannot be converted.

    Example:
        >>> inputs = keras.Input((6, 5, 2))
        >>> model = keras.Model(inputs, DeformableConv2D(3, 3)(inputs))
        >>> [node.op_type for node in to_onnx(model).graph.node]
        ['Transpose', 'Conv', 'DeformConv', 'Transpose']

    Source of the operator: ONNX operator schemas, `DeformConv`, https://onnx.ai/onnx/operators.
    """
    if opset not in OPSETS:
        raise ValueError(f"opset must be one of {OPSETS}. Received: opset={opset!r}")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(f"model must have one input and one output. Received: {model.inputs}, {model.outputs}")
    graph = _Graph(model)
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            graph.add_layer(layer)
    return graph.finish(opset)


class _Graph:
    """An ONNX graph under construction; maps are channels first in it, and channels last outside."""

    def __init__(self, model: keras.Model) -> None:
        import onnx

        self.onnx = onnx
        self.model = model
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.names: dict[int, str] = {}  # id of a Keras tensor → name in the graph
        self.names[id(model.inputs[0])] = self._turned("input", model.inputs[0].shape, inwards=True)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node and returns the name of its output."""
        name = f"value{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def weight(self, values: Any) -> str:
        name = f"weight{len(self.weights)}"
        self.weights.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add_layer(self, layer: keras.layers.Layer) -> None:
        convert = CONVERTERS.get(type(layer))  # a derived class may compute something else
        if convert is None:
            raise ValueError(f"layer {layer.name} has no counterpart. Received: {type(layer).__name__}")
        if len(layer._inbound_nodes) != 1 or layer.compute_dtype != "float32":  # noqa: SLF001
            raise ValueError(f"layer {layer.name} must be used once, in float32. Received: {layer.compute_dtype}")
        given = layer.input if isinstance(layer.input, list) else [layer.input]
        for tensor in given:
            if None in tensor.shape[1:]:
                raise ValueError(f"layer {layer.name} must have known sizes. Received: {tensor.shape}")
        for option, needed in OPTIONS.items():
            if getattr(layer, option, needed) != needed:
                raise ValueError(f"layer {layer.name} must have {option}={needed}. Received: {getattr(layer, option)}")
        self.names[id(layer.output)] = convert(self, layer, *(self.names[id(tensor)] for tensor in given))

    def activate(self, layer: keras.layers.Layer, x: str) -> str:
        if layer.activation is keras.activations.linear:
            return x
        if layer.activation not in ACTIVATIONS:
            known = ", ".join(operator.lower() for operator in ACTIVATIONS.values())
            raise ValueError(
                f"layer {layer.name} must have one of the activations {known}. Received: {layer.activation}"
            )
        operator = ACTIVATIONS[layer.activation]
        return self.add(operator, x, **({"axis": 1} if operator == "Softmax" else {}))

    def _turned(self, x: str, shape: tuple[int | None, ...], *, inwards: bool) -> str:
        """Returns a map with its channels first or last; anything else as it is."""
        if len(shape) != 4:
            return x
        return self.add("Transpose", x, perm=(0, 3, 1, 2) if inwards else (0, 2, 3, 1))

    def finish(self, opset: int) -> onnx.ModelProto:
        output = self.model.outputs[0]
        last = self._turned(self.names[id(output)], output.shape, inwards=False)
        if not self.nodes or last not in self.nodes[-1].output:
            last = self.add("Identity", last)
        self.nodes[-1].output[0] = "output"
        helper, number = self.onnx.helper, self.onnx.TensorProto.FLOAT
        described = [
            helper.make_tensor_value_info(name, number, ["batch", *tensor.shape[1:]])
            for name, tensor in (("input", self.model.inputs[0]), ("output", output))
        ]
        graph = helper.make_graph(self.nodes, self.model.name, described[:1], described[1:], self.weights)
        built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        self.onnx.checker.check_model(built)
        return built


def _pads(layer: Any) -> list[int]:
    """Returns the zeros that TensorFlow's padding adds before and after each axis: (top, left, bottom, right)."""
    before, after = [], []
    size = layer.kernel_size if hasattr(layer, "kernel_size") else layer.pool_size
    rates = getattr(layer, "dilation_rate", (1, 1))
    for length, kernel, stride, rate in zip(layer.input.shape[1:3], size, layer.strides, rates, strict=True):
        span = (kernel - 1) * rate + 1
        total = max((-(-length // stride) - 1) * stride + span - length, 0) if layer.padding == "same" else 0
        before.append(total // 2)
        after.append(total - total // 2)
    return before + after


def _spatial(layer: Any, groups: int) -> dict[str, Any]:
    return {
        "kernel_shape": layer.kernel_size,
        "strides": layer.strides,
        "dilations": layer.dilation_rate,
        "pads": _pads(layer),
        "group": groups,
    }


def _conv(graph: _Graph, layer: keras.layers.Conv2D, x: str) -> str:
    weights = [graph.weight(np.transpose(layer.kernel, (3, 2, 0, 1)))]
    weights += [graph.weight(np.asarray(layer.bias))] if layer.use_bias else []
    return graph.activate(layer, graph.add("Conv", x, *weights, **_spatial(layer, layer.groups)))


def _deform_conv(graph: _Graph, layer: DeformableConv2D, x: str) -> str:
    factor = layer.offset_learning_rate_multiplier  # the weights are stored divided by it
    predicting = np.transpose(layer.offset_kernel, (3, 2, 0, 1)) * factor
    offsets = graph.add(
        "Conv", x, graph.weight(predicting), graph.weight(np.asarray(layer.offset_bias) * factor), **_spatial(layer, 1)
    )
    mask = []
    if layer.modulated:
        count = predicting.shape[0] // 3
        start, middle, end, axis = (graph.weight(np.array([place])) for place in (0, 2 * count, 3 * count, 1))
        logits = graph.add("Slice", offsets, middle, end, axis)
        offsets = graph.add("Slice", offsets, start, middle, axis)
        mask = [graph.add("Mul", graph.add("Sigmoid", logits), graph.weight(np.array([2], np.float32)))]
    if layer.max_offset is not None:
        limits = (graph.weight(np.float32(limit)) for limit in (-layer.max_offset, layer.max_offset))
        offsets = graph.add("Clip", offsets, *limits)
    bias = np.asarray(layer.bias) if layer.use_bias else np.zeros(layer.filters, np.float32)
    kernel = graph.weight(np.transpose(layer.kernel, (3, 2, 0, 1)))
    inputs = [x, kernel, offsets, graph.weight(bias), *mask]
    attributes = {**_spatial(layer, layer.groups), "offset_group": layer.offset_groups}
    return graph.activate(layer, graph.add("DeformConv", *inputs, **attributes))


def _batch_normalization(graph: _Graph, layer: keras.layers.BatchNormalization, x: str) -> str:
    if layer.axis not in (-1, len(layer.input.shape) - 1):
        raise ValueError(f"layer {layer.name} must have axis=-1. Received: {layer.axis}")
    mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
    scale = np.asarray(layer.gamma) if layer.scale else np.ones_like(mean)
    shift = np.asarray(layer.beta) if layer.center else np.zeros_like(mean)
    weights = [graph.weight(values) for values in (scale, shift, mean, variance)]
    return graph.add("BatchNormalization", x, *weights, epsilon=layer.epsilon)


def _dense(graph: _Graph, layer: keras.layers.Dense, x: str) -> str:
    if len(layer.input.shape) != 2:
        raise ValueError(f"layer {layer.name} must have an input of rank 2. Received: {layer.input.shape}")
    weights = [graph.weight(np.asarray(values)) for values in (layer.kernel, layer.bias) if values is not None]
    return graph.activate(layer, graph.add("Gemm", x, *weights))


def _max_pooling(graph: _Graph, layer: keras.layers.MaxPooling2D, x: str) -> str:
    return graph.add("MaxPool", x, kernel_shape=layer.pool_size, strides=layer.strides, pads=_pads(layer))


def _zero_padding(graph: _Graph, layer: keras.layers.ZeroPadding2D, x: str) -> str:
    (top, bottom), (left, right) = layer.padding
    return graph.add("Pad", x, graph.weight(np.array([0, 0, top, left, 0, 0, bottom, right])))


def _flatten(graph: _Graph, layer: keras.layers.Flatten, x: str) -> str:
    if len(layer.input.shape) == 4:
        x = graph.add("Transpose", x, perm=(0, 2, 3, 1))
    return graph.add("Flatten", x)


def _add(graph: _Graph, layer: keras.layers.Add, x: str, *others: str) -> str:
    for other in others:
        x = graph.add("Add", x, other)
    return x


CONVERTERS: dict[type, Callable[..., str]] = {
    DeformableConv2D: _deform_conv,
    keras.layers.Conv2D: _conv,
    keras.layers.BatchNormalization: _batch_normalization,
    keras.layers.Dense: _dense,
    keras.layers.ReLU: lambda graph, layer, x: graph.add("Relu", x),
    keras.layers.Activation: lambda graph, layer, x: graph.activate(layer, x),
    keras.layers.MaxPooling2D: _max_pooling,
    keras.layers.ZeroPadding2D: _zero_padding,
    keras.layers.GlobalAveragePooling2D: lambda graph, layer, x: graph.add(
        "Flatten", graph.add("GlobalAveragePool", x)
    ),
    keras.layers.Flatten: _flatten,
    keras.layers.Dropout: lambda graph, layer, x: x,
    keras.layers.Add: _add,
}
