"""The choices that make up a sampler, and what its first outputs say of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["Choices", "is_neutral"]


@dataclasses.dataclass(frozen=True)
class Choices:
    """What a sampler does, as named choices. The defaults are those of torchvision's operator, with offsets of zero.

    Attributes:
        points: 9 for a 3x3 kernel whose offsets all channels share, 1 for one offset per channel and pixel.
        pairing: which two numbers are (dy, dx). "interleaved": channels 2n and 2n + 1 of the pixel. "halves": channels
            n and N + n. "swapped": interleaved, as (dx, dy). "neighbours": two neighbouring numbers of one channel of
            the offsets, from reshaping (B, 2C, H, W) to (B, C, H, W, 2).
        images: whose offsets a channel takes. "own": those of its image. "cycled": with images and channels in one
            axis of B·C, image by image, those of image k mod B for number k.
        second: the pixel after floor(p) on each axis. "next": floor(p) + 1. "ceil": ceil(p). "ceil_shared": ceil(p)
            with weights of 1 - |p - q|, divided by two where both pixels are the same. "both": floor and floor + 1,
            averaged with ceil - 1 and ceil, which differs only in the derivative at whole numbers.
        border: what is read outside. "zeros": zeros. "clip": coordinates are clipped to the image. "clip_by_height":
            so, both axes by the height. "clip_corners": coordinates and both pixels are clipped, and the weights are
            distances to the clipped pixels. "pad": the image is padded by one zero, then pixels and coordinates are
            clipped. "pad_and_round": so, and coordinates outside the image are rounded down.
        padding: "same", or "valid" for outputs only where all nine points are inside.
        grid: positions of the nine points. "rows": row by row. "unstacked": (2, 3, 3) positions reshaped to (9, 2).
        start: of the layer that predicts the offsets. "zeros"; "normal": a kernel with standard deviation 0.01;
            "truncated_normal": one with 0.02; "uniform_bias": a kernel of zeros, and the bias of a new PyTorch
            convolution; "uniform": that kernel too; "directions": a kernel of zeros and a bias of whole pixels.
        mask: factor of each point. "none"; "half": the sigmoid of a layer of zeros; "one": twice that; "sum": the
            sigmoid of a convolution whose weights are all 0.5.
    """

    points: Literal[1, 9] = 9
    pairing: Literal["interleaved", "halves", "swapped", "neighbours"] = "interleaved"
    images: Literal["own", "cycled"] = "own"
    second: Literal["next", "ceil", "ceil_shared", "both"] = "next"
    border: Literal["zeros", "clip", "clip_by_height", "clip_corners", "pad", "pad_and_round"] = "zeros"
    padding: Literal["same", "valid"] = "same"
    grid: Literal["rows", "unstacked"] = "rows"
    start: Literal["zeros", "normal", "truncated_normal", "uniform", "uniform_bias", "directions"] = "zeros"
    mask: Literal["none", "half", "one", "sum"] = "none"

    def numbers(self, channels: int) -> int:
        """Returns how many channels the offsets have, for images with so many channels."""
        return 2 * (channels if self.points == 1 else self.points)


def is_neutral(found: Mapping[str, Any]) -> bool:
    """Returns whether a new layer computes what it takes the place of, by what `state` found."""
    return bool(abs(found["number"] - 1) < 1e-9 and found["rest"] < 1e-9)
