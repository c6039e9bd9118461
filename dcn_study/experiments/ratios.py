"""Ratios of measured times: of operators to their peers, of networks to the regular one of their family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dcn_study.names import regular
from dcn_study.runs.records import Measurement

__all__ = ["ratios", "runtimes"]

RATIOS = (
    (("deform_conv2d",), "onnxruntime", "deform_conv2d forward / onnxruntime"),
    (("matmul alone",), "onnxruntime", "  its matrix product alone / onnxruntime"),
    (("matmul alone", "row reads alone"), "onnxruntime", "  product and row reads alone / onnxruntime"),
    (("deform_conv2d",), "conv2d", "deform_conv2d forward / conv2d"),
    (("matmul alone", "row reads alone"), "conv2d", "  product and row reads alone / conv2d"),
    (("deform_conv2d, forward + backward",), "conv2d, forward + backward", "forward + backward / conv2d"),
    (("deform_conv2d, forward + backward",), "torchvision, forward + backward", "forward + backward / torchvision"),
    (("deform_conv2d without XLA",), "deform_conv2d", "deform_conv2d forward without XLA / with it"),
    (
        ("deform_conv2d without XLA, forward + backward",),
        "deform_conv2d, forward + backward",
        "forward + backward without XLA / with it",
    ),
    (("resampling",), "resampling as published", "ConvOffset2D resampling forward / as published"),
    (("value reads alone",), "resampling as published", "  its value reads alone / as published"),
    (
        ("value reads alone", "coordinates alone"),
        "resampling as published",
        "  value reads and coordinates alone / as published",
    ),
    (
        ("resampling, forward + backward",),
        "resampling as published, forward + backward",
        "ConvOffset2D resampling forward + backward / as published",
    ),
)


def ratios(measured: dict[str, Any]) -> dict[str, list[float]]:
    """Returns ratios of medians by what is compared: one per shape, then their geometric mean.

    Names that start with spaces are near the least that the one above them can take: the time of parts that it cannot
    do without. The product is `tf.matmul`, which the operator's own product may beat. What could not be measured is
    left out.

    Args:
        measured: as `measure` returns it.
    """
    medians = [{name: times[1] for name, times in result["milliseconds"].items()} for result in measured["shapes"]]
    found = {}
    for parts, peer, label in RATIOS:
        if all({*parts, peer} <= times.keys() for times in medians):
            values = [sum(times[part] for part in parts) / times[peer] for times in medians]
            found[label] = [*values, float(np.exp(np.mean(np.log(values))))]
    return found


def runtimes(measured: Measurement) -> pd.DataFrame:
    """Returns the times of the measurement "runtime", one row each.

    Returns:
        Columns model, regular (the model it is compared with), batch, size, what, low, milliseconds, high (quartiles
        and median), ratio (of the medians, to the regular model).
    """
    frame = pd.DataFrame(measured.results["rows"])
    frame["regular"] = frame["model"].map(regular)
    unit = frame.set_index(["model", "batch", "size", "what"])["milliseconds"]
    keys = frame[["regular", "batch", "size", "what"]].itertuples(index=False, name=None)
    frame["ratio"] = frame["milliseconds"] / [unit[key] for key in keys]
    return frame
