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
from dcn_study.show.tables.lineage import descriptions, fields, probes, sources
from dcn_study.show.tables.multiverse import single_changes
from dcn_study.show.tables.networks import layers, models, totals
from dcn_study.show.tables.origin import cards, measurements, parameters, provenance, status
from dcn_study.show.tables.registered import registered
from dcn_study.show.tables.study import (
    areas,
    arms,
    contrast_checks,
    contrast_results,
    contrasts_by_rates,
    pilots,
    primary_contrasts,
    rates_tried,
    regions,
    replaced_offsets,
    reported_gains,
    spread,
    study_accuracies,
)
from dcn_study.show.tables.times import bench, logged_ratio, memory, processors, runtime, training_cost
from dcn_study.show.tables.unseen import unseen_accuracies, unseen_changes, unseen_pilots

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
    "contrasts_by_rates",
    "controls",
    "descriptions",
    "draws",
    "fields",
    "layers",
    "logged_ratio",
    "measurements",
    "memory",
    "models",
    "parameters",
    "pilots",
    "primary_contrasts",
    "probes",
    "processors",
    "provenance",
    "rates_tried",
    "regions",
    "registered",
    "replaced_offsets",
    "reported_gains",
    "runtime",
    "seen",
    "selection",
    "side_by_side",
    "single_changes",
    "sources",
    "split",
    "spread",
    "status",
    "study_accuracies",
    "totals",
    "training_cost",
    "unseen_accuracies",
    "unseen_changes",
    "unseen_pilots",
]
