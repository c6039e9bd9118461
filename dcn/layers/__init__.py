"""Thin Keras layers over `dcn.ops`: they own weights and configuration, and leave the arithmetic to the operators."""

from dcn.layers.conv_offset import ConvOffset2D
from dcn.layers.deformable_conv import DeformableConv1D, DeformableConv2D
from dcn.layers.roi_pooling import DeformableRoIPooling2D

__all__ = ["ConvOffset2D", "DeformableConv1D", "DeformableConv2D", "DeformableRoIPooling2D"]
