"""Slow, obviously right versions of the operators: plain loops, float64."""

import math

import numpy as np


def bilinear(plane, y, x):
    """Reads a plane (H, W) between pixels; coordinates outside are moved to the border."""
    height, width = plane.shape
    return zero_outside(plane, min(max(y, 0), height - 1), min(max(x, 0), width - 1))


def resample_by_offsets(inputs, offsets, pairing="published"):
    batch, height, width, channels = inputs.shape
    output = np.zeros(inputs.shape)
    for b in range(batch):
        for c in range(channels):
            flat = [offsets[b, y, x, 2 * c + s] for s in (0, 1) for y in range(height) for x in range(width)]
            for y in range(height):
                for x in range(width):
                    if pairing == "published":
                        pixel = y * width + x
                        dy, dx = flat[2 * pixel], flat[2 * pixel + 1]
                    else:
                        dy, dx = offsets[b, y, x, 2 * c], offsets[b, y, x, 2 * c + 1]
                    output[b, y, x, c] = bilinear(inputs[b, :, :, c], y + dy, x + dx)
    return output


def deform_conv2d(
    inputs, kernel, offsets, mask=None, bias=None, *, strides, padding, dilation_rate, groups, offset_groups
):
    """Padding as ((top, bottom), (left, right))."""
    channels = inputs.shape[3]
    kernel_height, kernel_width, group_channels, filters = kernel.shape
    points = kernel_height * kernel_width
    output = np.zeros((*offsets.shape[:3], filters))
    for b, oy, ox, f in np.ndindex(output.shape):
        group = f // (filters // groups)
        for i in range(group_channels):
            c = group * group_channels + i
            offset_group = c // (channels // offset_groups)
            for k in range(points):
                channel = offset_group * points + k
                dy, dx = offsets[b, oy, ox, 2 * channel], offsets[b, oy, ox, 2 * channel + 1]
                y = oy * strides[0] - padding[0][0] + (k // kernel_width) * dilation_rate[0] + dy
                x = ox * strides[1] - padding[1][0] + (k % kernel_width) * dilation_rate[1] + dx
                factor = 1 if mask is None else mask[b, oy, ox, channel]
                weight = kernel[k // kernel_width, k % kernel_width, i, f]
                output[b, oy, ox, f] += weight * factor * zero_outside(inputs[b, :, :, c], y, x)
        if bias is not None:
            output[b, oy, ox, f] += bias[f]
    return output


def zero_outside(plane, y, x):
    """Reads a plane (H, W) between pixels; a pixel outside counts as zero."""
    height, width = plane.shape
    if not (-1 < y < height and -1 < x < width):
        return 0.0
    value = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                value += max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - column)) * plane[row, column]
    return value


def deform_roi_pool(inputs, boxes, box_indices, offsets, output_size, spatial_scale, sampling_ratio, gamma):
    height, width = inputs.shape[1:3]
    output = np.zeros((len(boxes), *output_size, inputs.shape[3]))
    for r, py, px, c in np.ndindex(output.shape):
        y1, x1, y2, x2 = boxes[r] * spatial_scale - 0.5
        box_height, box_width = y2 - y1, x2 - x1
        bin_height, bin_width = box_height / output_size[0], box_width / output_size[1]
        down = sampling_ratio or math.ceil(bin_height)
        across = sampling_ratio or math.ceil(bin_width)
        top, left = y1 + py * bin_height, x1 + px * bin_width
        if offsets is not None:
            top += gamma * box_height * offsets[r, py, px, 0]
            left += gamma * box_width * offsets[r, py, px, 1]
        for i in range(down):
            for j in range(across):
                y = top + (i + 0.5) * bin_height / down
                x = left + (j + 0.5) * bin_width / across
                if -1 <= y <= height and -1 <= x <= width:
                    output[r, py, px, c] += bilinear(inputs[box_indices[r], :, :, c], y, x) / (down * across)
    return output
