"""Conversion of models to ONNX, which has an operator for deformable convolution.

tf2onnx converts the TensorFlow graph of a model. In that graph a node that only exists for export represents each
deformable convolution, and becomes `DeformConv`.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from dcn.ops.geometry import Geometry, is_integer

if TYPE_CHECKING:
    import onnx

__all__ = ["to_onnx"]

OPSETS = range(19, 23)  # from the one that introduced `DeformConv` to the last one that changed it
TF2ONNX_OPSET = 18  # the last one that tf2onnx supports; the operators that it uses are the same in OPSETS
UPSAMPLE = keras.layers.UpSampling2D.call


def to_onnx(model: keras.Model, *, opset: int = 22) -> onnx.ModelProto:
    """Converts a model to ONNX, with one `DeformConv` per deformable convolution.

    Converts every layer whose TensorFlow operations tf2onnx converts, as `model.export(format="onnx")` does. Inputs
    keep their names and shapes; the batch, heights and widths may be unknown. Outputs are named output_0, output_1, ...
    in the order of `model.outputs`. Layers in half precision become float32.

    Requires the packages `onnx` and `tf2onnx`. To run `DeformConv` on a CPU, onnxruntime must be 1.25 or later.

    Args:
        model: a built Functional or Sequential model. Wrap a subclassed model in one first:
            `keras.Model(inputs, model(inputs))` with `inputs = keras.Input(...)`.
        opset: version of the ONNX operators, 19 to 22.

    Raises:
        ImportError: if `onnx` or `tf2onnx` is missing.
        ValueError: if an argument breaks its rule, or tf2onnx cannot convert an operation.

    Example:
        >>> import dcn
        >>> inputs = keras.Input((6, 5, 2))
        >>> model = keras.Model(inputs, dcn.DeformableConv2D(3, 3)(inputs))
        >>> [node.op_type for node in dcn.to_onnx(model).graph.node]
        ['Transpose', 'Conv', 'DeformConv', 'Transpose']

    Source of the operator: ONNX operator schemas, `DeformConv`, https://onnx.ai/onnx/operators.
    """
    if not is_integer(opset) or opset not in OPSETS:
        raise ValueError(f"opset must be from {OPSETS[0]} to {OPSETS[-1]}. Received: opset={opset!r}")
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ValueError(f"model must be a built Functional or Sequential keras.Model. Received: model={model!r}")
    names = [f"output_{number}" for number in range(len(model.outputs))]
    if taken := [tensor.name for tensor in model.inputs if tensor.name in names]:
        raise ValueError(f"inputs must not have the names of outputs. Received: {', '.join(taken)}")
    try:
        import onnx
        from tf2onnx import optimizer, tf_loader, tfonnx
    except ImportError as error:
        raise ImportError(
            f"to_onnx requires onnx and tf2onnx, this package's extra 'onnx'. Received: {error}"
        ) from error

    with _exportable(model):
        traced = _traced(model)
    inputs = [tensor.name for tensor in traced.inputs[: len(model.inputs)]]  # then come the weights
    outputs = [tensor.name for tensor in traced.outputs]
    renamed = {name: tensor.name for name, tensor in zip(inputs, model.inputs, strict=True)}
    renamed |= dict(zip(outputs, names, strict=True))
    frozen = tf_loader.from_function(traced, inputs, outputs)
    _allow_inlining(frozen)
    logger = logging.getLogger("tf2onnx")
    with contextlib.ExitStack() as stack, tf.Graph().as_default() as graph:
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)  # what matters of its messages becomes an exception
        tf.import_graph_def(tf_loader.tf_optimize(inputs, outputs, frozen), name="")
        converted = tfonnx.process_tf_graph(
            graph,
            opset=TF2ONNX_OPSET,
            custom_op_handlers={operation: (handler, []) for operation, handler in HANDLERS.items()},
            input_names=inputs,
            output_names=outputs,
            tensors_to_rename=renamed,
        )
        exported = optimizer.optimize_graph(converted).make_model(model.name)
    del exported.opset_import[:]
    exported.opset_import.append(onnx.helper.make_opsetid("", opset))
    exported.ir_version = onnx.helper.find_min_ir_version_for(exported.opset_import)
    try:
        onnx.checker.check_model(exported)
    except onnx.checker.ValidationError as error:
        raise ValueError(f"model must consist of operations that tf2onnx converts. Received: {error}") from error
    return exported


class _Float32(keras.DTypePolicy):
    """Computes in float32, whatever the type of the weights."""

    @property
    def compute_dtype(self) -> str:
        return "float32"


@contextlib.contextmanager
def _exportable(model: keras.Model) -> Iterator[None]:
    """Makes layers compute in float32, and `UpSampling2D` accept unknown sizes."""
    layers = [layer for layer in model._flatten_layers() if layer.compute_dtype in ("float16", "bfloat16")]  # noqa: SLF001
    policies = [layer.dtype_policy for layer in layers]
    try:
        keras.layers.UpSampling2D.call = _upsample
        for layer in layers:
            layer.dtype_policy = _Float32(layer.variable_dtype)
        yield
    finally:
        keras.layers.UpSampling2D.call = UPSAMPLE
        for layer, policy in zip(layers, policies, strict=True):
            layer.dtype_policy = policy


def _upsample(layer: keras.layers.UpSampling2D, inputs: tf.Tensor) -> tf.Tensor:
    """Interpolates like `UpSampling2D.call`, which Keras 3.14 and 3.15 cannot trace if sizes are unknown."""
    if layer.interpolation == "nearest" or layer.data_format != "channels_last":
        return UPSAMPLE(layer, inputs)
    return tf.image.resize(inputs, tf.shape(inputs)[1:3] * layer.size, layer.interpolation)


def _traced(model: keras.Model) -> Any:
    """Returns the model as a concrete function from its flat inputs to its flat outputs."""
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input

    @tf.function(autograph=False)
    def infer(*inputs: tf.Tensor) -> list[tf.Tensor]:
        # Not in the graphs of inner functions: they outlive the export, and TensorFlow cannot run the node.
        tf.compat.v1.get_default_graph().deform_conv2d = _deform_conv
        outputs = model(keras.tree.pack_sequence_as(structure, inputs), training=False)
        return [tf.identity(output) for output in keras.tree.flatten(outputs)]

    return infer.get_concrete_function(*(tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in model.inputs))


def _allow_inlining(graph: Any) -> None:
    """Turns XLA clusters into ordinary functions. Keras compiles grouped convolutions, for example."""
    functions = graph.library.function
    for owner in (*graph.node, *functions, *(node for function in functions for node in function.node_def)):
        for attribute in ("_XlaMustCompile", "_noinline"):
            owner.attr.pop(attribute, None)


def _deform_conv(
    geometry: Geometry,
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    offsets: tf.Tensor,
    mask: tf.Tensor | None,
    bias: tf.Tensor | None,
) -> tf.Tensor:
    """Returns the output of a node with the inputs and, in its token, the attributes of `DeformConv`."""
    pads = [_padding(geometry, axis, size or tf.shape(inputs)[axis + 1]) for axis, size in enumerate(inputs.shape[1:3])]
    if any(tf.is_tensor(number) for pair in pads for number in pair):
        inputs = tf.pad(inputs, [(0, 0), *pads, (0, 0)])
        pads = [(0, 0), (0, 0)]
    attributes = {
        "kernel_shape": geometry.kernel_size,
        "strides": geometry.strides,
        "dilations": geometry.dilation_rate,
        "pads": [pads[axis][side] for side in (0, 1) for axis in (0, 1)],  # top, left, bottom, right
        "group": geometry.groups,
        "offset_group": geometry.offset_groups,
    }
    x, offset, *masks = (
        tf.transpose(tf.cast(tensor, inputs.dtype), (0, 3, 1, 2))
        for tensor in (inputs, offsets, mask)
        if tensor is not None
    )
    bias = tf.zeros(kernel.shape[3], inputs.dtype) if bias is None else bias
    (outputs,) = tf.raw_ops.PyFunc(
        input=[x, tf.transpose(kernel, (3, 2, 0, 1)), offset, bias, *masks],
        token=f"DeformConv {json.dumps(attributes)}",
        Tout=[inputs.dtype],
    )
    outputs = tf.ensure_shape(outputs, (offsets.shape[0], kernel.shape[3], *offsets.shape[1:3]))
    return tf.transpose(outputs, (0, 2, 3, 1))


def _padding(geometry: Geometry, axis: int, size: int | tf.Tensor) -> tuple[int | tf.Tensor, int | tf.Tensor]:
    """Returns the number of zeros before and after an axis. Divides no negative number: tf2onnx rounds them up."""
    if not isinstance(geometry.padding, str):
        return geometry.padding[axis]
    if geometry.padding == "valid":
        return 0, 0
    stride = geometry.strides[axis]
    last_step = 1 if stride == 1 else (size - 1) % stride + 1
    total = (geometry.kernel_size[axis] - 1) * geometry.dilation_rate[axis] + 1 - last_step
    total = max(total, 0) if isinstance(total, int) else tf.maximum(total, 0)
    return total // 2, total - total // 2


# What follows converts nodes that tf2onnx does not convert.


def _to_deform_conv(graph: Any, node: Any, name: str, arguments: list[Any]) -> None:
    operator, _, attributes = node.get_attr_str("token").partition(" ")
    if operator == "DeformConv":  # not a `tf.py_function` of the model
        node.type = operator
        node.attr.clear()
        for key, value in json.loads(attributes).items():
            node.set_attr(key, value)


def _erfc(graph: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """Replaces Erfc(x), which TensorFlow uses for `gelu`, by 1 - Erf(x)."""
    erf = graph.make_node("Erf", node.input)
    node.type = "Sub"
    graph.replace_inputs(node, [_constant(graph, node, 1), erf.output[0]])


def _multiply_no_nan(graph: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """Replaces MulNoNan(x, y), which `ConvOffset2D` uses, by 0 where y is 0 and x·y elsewhere."""
    zero = _constant(graph, node, 0)
    is_zero = graph.make_node("Equal", [node.input[1], zero])
    product = graph.make_node("Mul", node.input)
    node.type = "Where"
    graph.replace_inputs(node, [is_zero.output[0], zero, product.output[0]])


def _constant(graph: Any, node: Any, number: float) -> str:
    """Returns the name of a constant of the type of the node's first input."""
    from onnx.helper import tensor_dtype_to_np_dtype

    dtype = tensor_dtype_to_np_dtype(graph.get_dtype(node.input[0]))
    return graph.make_const(f"{node.name}_constant", np.array(number, dtype)).output[0]


HANDLERS = {"PyFunc": _to_deform_conv, "Erfc": _erfc, "MulNoNan": _multiply_no_nan}
