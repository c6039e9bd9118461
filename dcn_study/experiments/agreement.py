"""Whether published accuracies agree with runs of our own: the rule, and the two that it replaced."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from dcn_study.experiments.statistics import CONFIDENCE, holm
from dcn_study.names import TEST_IMAGES
from dcn_study.runs import published
from dcn_study.runs.records import Record

__all__ = ["MOST", "Agreement", "agreement", "agreements", "first_bounds", "first_rule", "left_out", "of_runs"]

MOST = 5.0  # percentage points: an interval that reaches further from our mean tests too little
TOLERANCE = 0.5  # of the first rule, in percentage points


@dataclasses.dataclass(frozen=True)
class Agreement:
    """A published accuracy next to ours, in percent.

    Attributes:
        mean: of our runs, on the logit scale.
        low, high: the 95% prediction interval for one more run.
        limit: how far that interval would reach from the mean, to the side where it reaches further, if the spread of
            our runs were known exactly, as with infinitely many seeds; NaN for a single run.
        p_value: of the published accuracy as one more run; adjusted by Holm's method if it is one of several.
        outcome: "agrees", "differs" or "undecided".
        alone: the same by the second rule, which judged each accuracy alone.
    """

    mean: float
    low: float
    high: float
    limit: float
    p_value: float
    outcome: str
    alone: str

    @property
    def wide(self) -> bool:
        """Whether the interval reaches more than `MOST` percentage points from the mean."""
        return max(self.mean - self.low, self.high - self.mean) > MOST

    @property
    def by_chance(self) -> bool:
        """Whether the accuracy is outside its interval, as one of several may be by chance."""
        return self.alone == "differs" != self.outcome


def agreement(accuracies: Sequence[float], images: int, published: float) -> Agreement:
    """Judges a published accuracy by itself, as one more run with an unknown seed.

    It differs if it is outside the 95% prediction interval of our runs, computed on the logit scale, which has no
    accuracy below 0 or above 100%. Inside, it agrees if the interval reaches at most `MOST` percentage points to
    either side of our mean. A wider interval leaves it undecided, and so does a single run.

    Args:
        accuracies: of our runs, as shares.
        images: how many test images each is measured on.
        published: the accuracy, as a share.
    """
    logits = _logits(accuracies, images)
    mean, count = float(logits.mean()), len(logits)
    if count < 2:
        return Agreement(_percent(mean), 0.0, 100.0, math.nan, 1.0, "undecided", "undecided")
    spread = float(logits.std(ddof=1))
    half, least = _half(spread, count), float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * spread
    middle, low, high = (_percent(mean + part) for part in (0.0, -half, half))
    limit = max(middle - _percent(mean - least), _percent(mean + least) - middle)
    if not low <= 100 * published <= high:
        outcome = "differs"
    else:
        outcome = "agrees" if max(middle - low, high - middle) <= MOST else "undecided"
    return Agreement(middle, low, high, limit, _p_value(mean, spread, count, published), outcome, outcome)


def agreements(several: Sequence[tuple[Sequence[float], int, float]]) -> list[Agreement]:
    """Judges several published accuracies together: one that is outside differs if its adjusted p-value is below 0.05.

    If it is not, chance is likely to put one of so many outside, and the accuracy is undecided.

    Args:
        several: the arguments of `agreement` for each.
    """
    alone = [agreement(*each) for each in several]
    adjusted = holm([each.p_value for each in alone])
    return [
        dataclasses.replace(
            each,
            p_value=p_value,
            outcome="undecided" if each.alone == "differs" and p_value >= 1 - CONFIDENCE else each.outcome,
        )
        for each, p_value in zip(alone, adjusted, strict=True)
    ]


def of_runs(runs: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, Agreement]]:
    """Returns the agreement of the published accuracies of models, judged together: model → kind of test images.

    Args:
        runs: by model, the records of all seeds.
    """
    keys = [(model, kind) for model in runs for kind in TEST_IMAGES]
    judged = agreements(
        [
            (
                [record.evaluations[kind].accuracy for record in runs[model]],
                runs[model][0].evaluations[kind].images,
                published.ACCURACY[model][kind],
            )
            for model, kind in keys
        ]
    )
    by_key = dict(zip(keys, judged, strict=True))
    return {model: {kind: by_key[model, kind] for kind in TEST_IMAGES} for model in runs}


def left_out(accuracies: Sequence[float], images: int) -> int:
    """Returns how many of our own runs are outside the prediction interval of all others, of which 5% are expected.

    Args:
        accuracies: of our runs, as shares; at least three.
        images: how many test images each is measured on.
    """
    return sum(
        agreement([*accuracies[:number], *accuracies[number + 1 :]], images, accuracies[number]).outcome == "differs"
        for number in range(len(accuracies))
    )


def first_rule(accuracies: Sequence[float], published: float) -> tuple[float, str]:
    """Returns the tolerance of the first rule, in percentage points, and its outcome, "agrees" or "differs".

    It takes the prediction interval on the scale of accuracies, and at least half a point.
    """
    ours = 100 * np.asarray(accuracies)
    tolerance = TOLERANCE
    if len(ours) > 1:
        tolerance = max(tolerance, _half(float(ours.std(ddof=1)), len(ours)))
    agrees = abs(ours.mean() - 100 * published) <= tolerance + 1e-9
    return tolerance, "agrees" if agrees else "differs"


def first_bounds(accuracies: Sequence[float]) -> tuple[float, float]:
    """Returns the lowest and the highest accuracy, in percent, that agrees with runs by the first rule."""
    mean = 100 * float(np.mean(accuracies))
    tolerance, _ = first_rule(accuracies, mean / 100)
    return mean - tolerance, mean + tolerance


def _logits(accuracies: Sequence[float], images: int) -> np.ndarray:
    correct = np.asarray(accuracies) * images
    return np.log((correct + 0.5) / (images - correct + 0.5))


def _half(spread: float, count: int) -> float:
    """Returns the half-width of the prediction interval for one more of so many values with this deviation."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * spread * math.sqrt(1 + 1 / count)


def _p_value(mean: float, spread: float, count: int, published: float) -> float:
    """Returns the p-value of an accuracy as one more run: below 0.05 where it is outside the prediction interval."""
    if not 0 < published < 1:
        return 0.0  # no finite logit: outside every interval
    distance = abs(math.log(published / (1 - published)) - mean)
    if spread == 0:
        return 0.0 if distance > 1e-9 else 1.0
    return float(2 * stats.t.sf(distance / (spread * math.sqrt(1 + 1 / count)), count - 1))


def _percent(logit: float) -> float:
    return 100 / (1 + math.exp(-logit))
