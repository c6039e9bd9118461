"""Deformable operators as pure TensorFlow functions.

Conventions, everywhere in this package: tensors are NHWC; coordinates are in pixels, in (y, x) order, with the origin
at the centre of pixel (0, 0), so that an integer coordinate reads a pixel without interpolation; boxes alone start at
its outer corner. Coordinates are computed in float32 or better, whatever the type of the tensors.
"""

from dcn.ops.convolution import deform_conv2d
from dcn.ops.resampling import resample_by_offsets
from dcn.ops.roi_pooling import deform_roi_pool

__all__ = ["deform_conv2d", "deform_roi_pool", "resample_by_offsets"]
