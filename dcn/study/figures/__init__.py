"""Figures from arrays and records. Nothing here trains, reads or saves."""

from dcn.study.figures.audit import (
    block_changes,
    controls,
    draws,
    finding,
    offset_traces,
    receptive_fields,
    robustness,
)
from dcn.study.figures.runs import (
    accuracies,
    digits,
    selection,
    training_curve,
    transform_distribution,
    validation_curves,
)
from dcn.study.figures.style import COLOURS, NAMES, as_image, as_table, use_style
from dcn.study.figures.times import cost_by_size, runtime_ratios

__all__ = [
    "COLOURS",
    "NAMES",
    "accuracies",
    "as_image",
    "as_table",
    "block_changes",
    "controls",
    "cost_by_size",
    "digits",
    "draws",
    "finding",
    "offset_traces",
    "receptive_fields",
    "robustness",
    "runtime_ratios",
    "selection",
    "training_curve",
    "transform_distribution",
    "use_style",
    "validation_curves",
]
