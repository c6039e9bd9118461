"""The resampling in the way of the paper's published code, to be timed next to ours."""

from __future__ import annotations

import keras
import tensorflow as tf

from dcn.layers import ConvOffset2D

__all__ = ["PublishedConvOffset2D", "resample_as_published"]


def resample_as_published(inputs: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
    """Computes `resample_by_offsets` in the way of the published code: one plane per channel.

    Features and offsets are transposed to planes, the four corners are read by `tf.gather_nd` with stacked indices, and
    the result is transposed back. Square images only, as published.
    """
    batch, side, _, channels = inputs.shape
    planes = tf.reshape(tf.transpose(inputs, (0, 3, 1, 2)), (batch * channels, side, side))
    pairs = tf.reshape(tf.transpose(offsets, (0, 3, 1, 2)), (batch * channels, side * side, 2))
    grid = tf.stack(tf.meshgrid(tf.range(side), tf.range(side), indexing="ij"), axis=2)
    points = pairs + tf.cast(tf.reshape(grid, (side * side, 2)), inputs.dtype)
    points = tf.clip_by_value(points, 0, side - 1)
    first, last = tf.cast(tf.floor(points), tf.int32), tf.cast(tf.math.ceil(points), tf.int32)
    plane = tf.repeat(tf.range(batch * channels), side * side)

    def read(y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        places = tf.stack((plane, tf.reshape(y, (-1,)), tf.reshape(x, (-1,))), axis=1)
        return tf.reshape(tf.gather_nd(planes, places), (batch * channels, side * side))

    beyond = points - tf.cast(first, inputs.dtype)
    left = read(first[..., 0], first[..., 1])
    left += (read(last[..., 0], first[..., 1]) - left) * beyond[..., 0]
    right = read(first[..., 0], last[..., 1])
    right += (read(last[..., 0], last[..., 1]) - right) * beyond[..., 0]
    moved = left + (right - left) * beyond[..., 1]
    return tf.transpose(tf.reshape(moved, (batch, channels, side, side)), (0, 2, 3, 1))


class PublishedConvOffset2D(ConvOffset2D):
    """The layer with the published way of resampling."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        offsets = keras.ops.conv(inputs, self.kernel, padding="same", data_format="channels_last")
        return resample_as_published(inputs, offsets)
