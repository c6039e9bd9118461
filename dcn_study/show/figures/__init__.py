"""Figures from arrays and records. Nothing here trains, reads or saves."""

from dcn_study.show.figures.experiments import (
    block_changes,
    controls,
    draws,
    effective_fields,
    finding,
    offset_traces,
    receptive_fields,
    robustness,
)
from dcn_study.show.figures.runs import (
    accuracies,
    digits,
    selection,
    training_curve,
    transform_distribution,
    validation_curves,
)
from dcn_study.show.figures.style import COLOURS, as_image, as_table, use_style
from dcn_study.show.figures.times import cost_by_size, runtime_ratios

__all__ = [
    "COLOURS",
    "accuracies",
    "as_image",
    "as_table",
    "block_changes",
    "controls",
    "cost_by_size",
    "digits",
    "draws",
    "effective_fields",
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
