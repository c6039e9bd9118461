"""What the controls of the gain say: leads over a baseline, paired by seed, and whether a run is its stand-in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dcn_study.experiments.statistics import Interval, interval
from dcn_study.runs.records import Record

__all__ = ["lead", "same_epochs", "share_of_gain"]


def lead(runs: Sequence[Record], baseline: Sequence[Record], epoch: int | None = None) -> Interval:
    """Returns the difference in validation accuracy after an epoch, paired by seed, in percentage points.

    Args:
        runs: in the order of their seeds.
        baseline: the same; runs beyond the shorter of the two are left out.
        epoch: by default the last one of `runs`.
    """
    place = (epoch or len(runs[0].history)) - 1
    pairs = zip(runs, baseline, strict=False)
    return interval(
        [
            100 * (run.history[place].validation_accuracy - other.history[place].validation_accuracy)
            for run, other in pairs
        ]
    )


def share_of_gain(part: Sequence[Record], nothing: Sequence[Record], all_of_it: Sequence[Record]) -> float:
    """Returns which share of a gain on scaled digits a part of it makes, in percent, for the seeds that all have.

    NaN if there is no gain.

    Args:
        part: what changes a part.
        nothing: what changes nothing.
        all_of_it: what changes all.
    """
    count = min(map(len, (part, nothing, all_of_it)))
    some, none, full = (
        float(np.mean([record.evaluations["scaled"].accuracy for record in runs[:count]]))
        for runs in (part, nothing, all_of_it)
    )
    return 100 * (some - none) / (full - none) if full != none else math.nan


def same_epochs(run: Record, stand_in: Record) -> tuple[int, int]:
    """Returns how many epochs have the same losses and accuracies to full precision, and how many both runs have."""
    names = ("loss", "accuracy", "validation_loss", "validation_accuracy")
    both = list(zip(run.history, stand_in.history, strict=False))
    return sum(all(getattr(one, name) == getattr(other, name) for name in names) for one, other in both), len(both)
