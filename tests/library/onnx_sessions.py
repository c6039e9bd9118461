"""Sessions of onnxruntime for one `DeformConv`."""

import onnx
import onnxruntime
import pytest


def onnx_session(case, kernel, names):
    (top, bottom), (left, right) = case["padding"]
    node = onnx.helper.make_node(
        "DeformConv",
        names,
        ["Y"],
        kernel_shape=kernel,
        strides=case["strides"],
        dilations=case["dilation_rate"],
        pads=[top, left, bottom, right],
        group=case["groups"],
        offset_group=case["offset_groups"],
    )
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in (*names, "Y") if name]
    graph = onnx.helper.make_graph([node], "case", values[:-1], values[-1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def onnxruntime_has_the_kernel():
    case = {"padding": ((0, 0), (0, 0)), "strides": (1, 1), "dilation_rate": (1, 1), "groups": 1, "offset_groups": 1}
    try:
        onnx_session(case, (1, 1), ["X", "W", "offset"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return False
    return True


needs_deform_conv = pytest.mark.skipif(
    not onnxruntime_has_the_kernel(), reason="the onnxruntime for Python 3.10 has no DeformConv"
)
