"""Deformable convolution for TensorFlow and Keras 3, in pure TensorFlow."""

import keras

from dcn._version import __version__

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "dcn needs Keras with TensorFlow: set KERAS_BACKEND=tensorflow in the environment, before Keras is imported. "
        f"Received: backend {keras.backend.backend()}"
    )

from dcn.diagnostics import dead_weights, sampling_points
from dcn.interchange import to_onnx
from dcn.layers import ConvOffset2D, DeformableConv1D, DeformableConv2D, DeformableRoIPooling2D
from dcn.models import (
    cnn,
    copy_weights_by_name,
    deform_conv_cnn,
    deformable_cnn,
    deformable_mini_resnet,
    mini_resnet,
)
from dcn.ops import deform_conv2d, deform_roi_pool, resample_by_offsets

__all__ = [
    "ConvOffset2D",
    "DeformableConv1D",
    "DeformableConv2D",
    "DeformableRoIPooling2D",
    "__version__",
    "cnn",
    "copy_weights_by_name",
    "dead_weights",
    "deform_conv2d",
    "deform_conv_cnn",
    "deform_roi_pool",
    "deformable_cnn",
    "deformable_mini_resnet",
    "mini_resnet",
    "resample_by_offsets",
    "sampling_points",
    "to_onnx",
]
