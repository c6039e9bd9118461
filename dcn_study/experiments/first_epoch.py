"""The author's log against our runs: what the first epoch says of whether the offsets of the published run learned.

The module that reads the corners is missing from the author's repository, so that its code alone does not tell.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from dcn_study.experiments.agreement import agreement
from dcn_study.experiments.statistics import prediction
from dcn_study.runs import published, records
from dcn_study.runs.catalogue import seeds_of
from dcn_study.runs.records import Record

__all__ = ["INERT", "LEARNING", "FirstEpoch", "first_epoch", "recorded"]

INERT = "deformable_cnn"
LEARNING = ("random_start_cnn", "scrambled_cnn", "repaired_cnn")  # the paper's layer, made to learn in three ways


@dataclasses.dataclass(frozen=True)
class FirstEpoch:
    """A number of the first epoch of the deformable CNN: in the author's log and in our runs.

    Attributes:
        published: in the log.
        inert: of our runs of the layer as published, whose offsets stay at zero.
        learning: of our runs of the same layer with offsets that learn.
        low, high: the 95% prediction interval of one more run whose offsets stay at zero.
    """

    published: float
    inert: tuple[float, ...]
    learning: tuple[float, ...]
    low: float
    high: float

    @property
    def as_inert(self) -> bool:
        """Whether the log's number is inside the interval of the inert layer and beyond all runs that learn."""
        return self.low <= self.published <= self.high and not self.as_learning

    @property
    def as_learning(self) -> bool:
        """Whether the log's number is among those of the runs that learn."""
        return min(self.learning) <= self.published <= max(self.learning)


def recorded() -> dict[str, list[Record]]:
    """Returns the records of the runs that are compared, by name."""
    return {run: records.recorded(seeds_of(run)) for run in (INERT, *LEARNING)}


def first_epoch(runs: Mapping[str, Sequence[Record]]) -> dict[str, FirstEpoch]:
    """Returns training accuracy, in percent, and training loss after the first epoch.

    Intervals are computed on the logit scale for the accuracy and on the logarithmic one for the loss.

    Args:
        runs: as `recorded` returns them.
    """
    curve, images = published.curve(INERT), runs[INERT][0].config.train_size
    inert, learning = ([record.history[0] for run in names for record in runs[run]] for names in ((INERT,), LEARNING))
    stated = {name: curve[f"train_{name}"][0] for name in ("accuracy", "loss")}
    judged = agreement([epoch.accuracy for epoch in inert], images, stated["accuracy"])
    loss = prediction(np.log([epoch.loss for epoch in inert]))
    found = {}
    for name, scale, low, high in (
        ("accuracy", 100, judged.low, judged.high),
        ("loss", 1, math.exp(loss.low), math.exp(loss.high)),
    ):
        zero, learned = (tuple(scale * getattr(epoch, name) for epoch in epochs) for epochs in (inert, learning))
        found[f"training {name}"] = FirstEpoch(scale * stated[name], zero, learned, low, high)
    return found
