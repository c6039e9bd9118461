"""Deformable convolution for TensorFlow and Keras 3, in pure TensorFlow."""

from dcn._version import __version__
from dcn.layers import ConvOffset2D
from dcn.models import cnn, copy_weights_by_name, deformable_cnn
from dcn.ops import resample_by_offsets

__all__ = [
    "ConvOffset2D",
    "__version__",
    "cnn",
    "copy_weights_by_name",
    "deformable_cnn",
    "resample_by_offsets",
]
