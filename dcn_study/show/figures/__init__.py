"""Figures from arrays and records. Nothing here trains, reads or saves."""

from dcn_study.show.figures.experiments import (
    controls,
    draws,
    effective_fields,
    finding,
    offset_traces,
    receptive_fields,
    robustness,
)
from dcn_study.show.figures.multiverse import specification_curve
from dcn_study.show.figures.narrow import NARROW, narrow
from dcn_study.show.figures.runs import (
    accuracies,
    digits,
    published_curves,
    selection,
    training_curve,
    validation_curves,
)
from dcn_study.show.figures.study import (
    accuracy_and_cost,
    answer,
    beyond_training,
    by_size,
    differences,
    field_and_accuracy,
    moved_bins,
    replaced_offsets,
)
from dcn_study.show.figures.style import COLOURS, as_image, as_table, colour_of, use_style
from dcn_study.show.figures.times import cost_by_size, runtime_ratios

__all__ = [
    "COLOURS",
    "NARROW",
    "accuracies",
    "accuracy_and_cost",
    "answer",
    "as_image",
    "as_table",
    "beyond_training",
    "by_size",
    "colour_of",
    "controls",
    "cost_by_size",
    "differences",
    "digits",
    "draws",
    "effective_fields",
    "field_and_accuracy",
    "finding",
    "moved_bins",
    "narrow",
    "offset_traces",
    "published_curves",
    "receptive_fields",
    "replaced_offsets",
    "robustness",
    "runtime_ratios",
    "selection",
    "specification_curve",
    "training_curve",
    "use_style",
    "validation_curves",
]
