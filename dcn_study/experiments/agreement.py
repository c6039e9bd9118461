"""Whether a published accuracy agrees with runs of our own: the first rule, and the one that replaced it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from dcn_study.experiments.statistics import CONFIDENCE

__all__ = ["MOST", "Agreement", "agreement", "first_rule"]

MOST = 5.0  # percentage points: an interval that reaches further from our mean tests too little
TOLERANCE = 0.5  # of the first rule, in percentage points


@dataclasses.dataclass(frozen=True)
class Agreement:
    """A published accuracy next to ours, in percent.

    Attributes:
        mean: of our runs, on the logit scale.
        low, high: the prediction interval for one more run.
        outcome: "agrees", "differs" or "undecided".
    """

    mean: float
    low: float
    high: float
    outcome: str


def agreement(accuracies: Sequence[float], images: int, published: float) -> Agreement:
    """Judges a published accuracy as one more run with an unknown seed.

    It differs if it is outside the 95% prediction interval of our runs, computed on the logit scale, which has no
    accuracy below 0 or above 100%. Inside, it agrees if the interval reaches at most `MOST` percentage points to
    either side of our mean. A wider interval leaves it undecided, and so does a single run.

    Args:
        accuracies: of our runs, as shares.
        images: how many test images each is measured on.
        published: the accuracy, as a share.
    """
    correct = np.asarray(accuracies) * images
    logits = np.log((correct + 0.5) / (images - correct + 0.5))
    mean, count = float(logits.mean()), len(logits)
    if count < 2:
        return Agreement(_percent(mean), 0.0, 100.0, "undecided")
    half = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * logits.std(ddof=1) * math.sqrt(1 + 1 / count)
    middle, low, high = (_percent(mean + part) for part in (0.0, -half, half))
    if not low <= 100 * published <= high:
        outcome = "differs"
    else:
        outcome = "agrees" if max(middle - low, high - middle) <= MOST else "undecided"
    return Agreement(middle, low, high, outcome)


def first_rule(accuracies: Sequence[float], published: float) -> tuple[float, str]:
    """Returns the tolerance of the first rule, in percentage points, and its outcome, "agrees" or "differs".

    It takes the prediction interval on the scale of accuracies, and at least half a point.
    """
    ours = 100 * np.asarray(accuracies)
    tolerance = TOLERANCE
    if len(ours) > 1:
        half = stats.t.ppf((1 + CONFIDENCE) / 2, len(ours) - 1) * ours.std(ddof=1) * math.sqrt(1 + 1 / len(ours))
        tolerance = max(tolerance, float(half))
    agrees = abs(ours.mean() - 100 * published) <= tolerance + 1e-9
    return tolerance, "agrees" if agrees else "differs"


def _percent(logit: float) -> float:
    return 100 / (1 + math.exp(-logit))
