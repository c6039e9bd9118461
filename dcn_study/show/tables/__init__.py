"""Tables from models and records, as data frames. Nothing here trains, reads or saves."""

from dcn_study.show.tables.accuracies import (
    accuracy,
    agreement,
    controls,
    draws,
    seen,
    selection,
    side_by_side,
    split,
)
from dcn_study.show.tables.claims import claims
from dcn_study.show.tables.lineage import fields, probes, sources
from dcn_study.show.tables.networks import layers, models, multiply_adds
from dcn_study.show.tables.origin import cards, durations, measurements, parameters, provenance, status
from dcn_study.show.tables.study import (
    areas,
    arms,
    contrast_checks,
    contrast_results,
    pilots,
    primary_contrasts,
    regions,
    replaced_offsets,
    reported_gains,
    spread,
    study_accuracies,
    unseen_pilots,
)
from dcn_study.show.tables.times import bench, logged_ratio, memory, processors, runtime, scale, training_cost

__all__ = [
    "accuracy",
    "agreement",
    "areas",
    "arms",
    "bench",
    "cards",
    "claims",
    "contrast_checks",
    "contrast_results",
    "controls",
    "draws",
    "durations",
    "fields",
    "layers",
    "logged_ratio",
    "measurements",
    "memory",
    "models",
    "multiply_adds",
    "parameters",
    "pilots",
    "primary_contrasts",
    "probes",
    "processors",
    "provenance",
    "regions",
    "replaced_offsets",
    "reported_gains",
    "runtime",
    "scale",
    "seen",
    "selection",
    "side_by_side",
    "sources",
    "split",
    "spread",
    "status",
    "study_accuracies",
    "training_cost",
    "unseen_pilots",
]
