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

__all__ = [
    "FIRST",
    "MOST",
    "STATED",
    "Agreement",
    "Choices",
    "agreement",
    "agreements",
    "first_bounds",
    "first_rule",
    "left_out",
    "of_runs",
    "published_and_ours",
]

MOST = 5.0  # percentage points: an interval that reaches further from our mean tests too little
TOLERANCE = 0.5  # of the first rule, in percentage points


@dataclasses.dataclass(frozen=True)
class Choices:
    """Choices on which an outcome rests, by default as the rule states them.

    Attributes:
        amended: whether a wide interval leaves an accuracy undecided. Otherwise, as in the first rule, it agrees if it
            is inside the interval or at most `TOLERANCE` from our mean, and differs if it is not.
        logit: whether the interval is computed on the logit scale rather than that of accuracies.
        one_more: whether it is the prediction interval of one more run rather than the confidence interval of the mean.
        confidence: of the interval.
        corrected: whether the p-values of several accuracies are adjusted by Holm's method.
    """

    amended: bool = True
    logit: bool = True
    one_more: bool = True
    confidence: float = CONFIDENCE
    corrected: bool = True


STATED = Choices()
FIRST = Choices(amended=False, logit=False, corrected=False)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """A published accuracy next to ours, in percent; by other choices than those stated, as they say.

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
    def insignificant(self) -> bool:
        """Whether the accuracy is outside its interval, but as one of several not significantly."""
        return self.alone == "differs" != self.outcome


def agreement(accuracies: Sequence[float], images: int, published: float, choices: Choices = STATED) -> Agreement:
    """Judges a published accuracy by itself, as one more run with an unknown seed.

    It differs if it is outside the 95% prediction interval of our runs, computed on the logit scale, which has no
    accuracy below 0 or above 100%. Inside, it agrees if the interval reaches at most `MOST` percentage points to
    either side of our mean. A wider interval leaves it undecided, and so does a single run.

    Args:
        accuracies: of our runs, as shares.
        images: how many test images each is measured on.
        published: the accuracy, as a share.
        choices: those that the outcome rests on.
    """
    values = _logits(accuracies, images) if choices.logit else np.asarray(accuracies, float)
    back = _percent if choices.logit else _hundredfold
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Agreement(back(mean), 0.0, 100.0, math.nan, 1.0, "undecided", "undecided")
    spread, own = float(values.std(ddof=1)), 1.0 if choices.one_more else 0.0
    error = spread * math.sqrt(own + 1 / count)
    half = float(stats.t.ppf((1 + choices.confidence) / 2, count - 1)) * error
    least = own * float(stats.norm.ppf((1 + choices.confidence) / 2)) * spread
    middle, low, high = (back(mean + part) for part in (0.0, -half, half))
    limit = max(middle - back(mean - least), back(mean + least) - middle)
    inside, wide = low <= 100 * published <= high, max(middle - low, high - middle) > MOST
    if not choices.amended:
        outcome = "agrees" if inside or abs(middle - 100 * published) <= TOLERANCE + 1e-9 else "differs"
    elif not inside:
        outcome = "differs"
    else:
        outcome = "undecided" if wide else "agrees"
    p_value = _p_value(_distance(published, mean, choices.logit), error, count)
    return Agreement(middle, low, high, limit, p_value, outcome, outcome)


def agreements(several: Sequence[tuple[Sequence[float], int, float]], choices: Choices = STATED) -> list[Agreement]:
    """Judges several published accuracies together: one that is outside differs if its adjusted p-value is below 0.05.

    If it is not, the accuracy is undecided.

    Args:
        several: the first three arguments of `agreement` for each.
        choices: those that the outcomes rest on. By the first rule, which leaves none undecided, an accuracy that is
            outside, but not significantly, agrees.
    """
    alone = [agreement(*each, choices) for each in several]
    if not choices.corrected:
        return alone
    otherwise = "undecided" if choices.amended else "agrees"
    adjusted = holm([each.p_value for each in alone])
    return [
        dataclasses.replace(
            each,
            p_value=p_value,
            outcome=otherwise if each.alone == "differs" and p_value >= 1 - choices.confidence else each.outcome,
        )
        for each, p_value in zip(alone, adjusted, strict=True)
    ]


def published_and_ours(runs: Mapping[str, Sequence[Record]]) -> dict[tuple[str, str], tuple[list[float], int, float]]:
    """Returns what `agreement` compares, by model and kind of test images: ours, the number of images, the published.

    Args:
        runs: by model, the records of all seeds.
    """
    return {
        (model, kind): (
            [record.evaluations[kind].accuracy for record in found],
            found[0].evaluations[kind].images,
            published.ACCURACY[model][kind],
        )
        for model, found in runs.items()
        for kind in TEST_IMAGES
    }


def of_runs(runs: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, Agreement]]:
    """Returns the agreement of the published accuracies of models, judged together: model → kind of test images.

    Args:
        runs: by model, the records of all seeds.
    """
    compared = published_and_ours(runs)
    by_key = dict(zip(compared, agreements(list(compared.values())), strict=True))
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
    without_spread = 2 if len(accuracies) == 1 else 1  # a single run has an interval without width
    found = agreement([*accuracies] * without_spread, 1, published, FIRST)
    return max(TOLERANCE, found.high - found.mean), found.outcome


def first_bounds(accuracies: Sequence[float]) -> tuple[float, float]:
    """Returns the lowest and the highest accuracy, in percent, that agrees with runs by the first rule."""
    mean = 100 * float(np.mean(accuracies))
    tolerance, _ = first_rule(accuracies, mean / 100)
    return mean - tolerance, mean + tolerance


def _logits(accuracies: Sequence[float], images: int) -> np.ndarray:
    correct = np.asarray(accuracies) * images
    return np.log((correct + 0.5) / (images - correct + 0.5))


def _distance(published: float, mean: float, logit: bool) -> float:
    """Returns how far a published accuracy is from our mean, on the scale of the mean."""
    if not logit:
        return abs(published - mean)
    if not 0 < published < 1:
        return math.inf  # no finite logit: outside every interval
    return abs(math.log(published / (1 - published)) - mean)


def _p_value(distance: float, error: float, count: int) -> float:
    """Returns the p-value of a distance from the mean of so many runs: below 0.05 outside the 95% interval."""
    if math.isinf(distance) or error == 0:
        return 0.0 if distance > 1e-9 else 1.0
    return float(2 * stats.t.sf(distance / error, count - 1))


def _percent(logit: float) -> float:
    return 100 / (1 + math.exp(-logit))


def _hundredfold(share: float) -> float:
    return 100 * share
