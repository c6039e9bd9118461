"""Slow, obviously right versions of the operators: plain loops, float64."""

import math

import numpy as np


def bilinear(plane, y, x):
    """Reads a plane (H, W) between pixels; coordinates outside are moved to the border."""
    height, width = plane.shape
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = math.floor(y), math.floor(x)
    value = 0.0
    for row in (top, top + 1):
        for column in (left, left + 1):
            weight = max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - column))
            if weight > 0:
                value += weight * plane[row, column]
    return value


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


def finite_differences(function, argument, step=1e-6):
    """Returns the gradient of a scalar function at an array, by central differences."""
    gradient = np.zeros(argument.shape)
    for index in np.ndindex(argument.shape):
        ahead, behind = argument.copy(), argument.copy()
        ahead[index] += step
        behind[index] -= step
        gradient[index] = (function(ahead) - function(behind)) / (2 * step)
    return gradient
