"""Tables from models and records, as data frames. Nothing here trains, reads or saves."""

from dcn.study.tables.accuracies import (
    KINDS,
    accuracy,
    agreement,
    controls,
    draws,
    seen,
    selection,
    side_by_side,
    split,
)
from dcn.study.tables.networks import layers, models, multiply_adds
from dcn.study.tables.origin import parameters, provenance, status
from dcn.study.tables.times import OURS, memory, runtime, training_cost

__all__ = [
    "KINDS",
    "OURS",
    "accuracy",
    "agreement",
    "controls",
    "draws",
    "layers",
    "memory",
    "models",
    "multiply_adds",
    "parameters",
    "provenance",
    "runtime",
    "seen",
    "selection",
    "side_by_side",
    "split",
    "status",
    "training_cost",
]
