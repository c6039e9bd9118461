"""Statistics over a few paired runs: intervals, contrasts with verdicts, and how many runs would decide.

All values are accuracies or differences of accuracies, in any unit; pairs are runs with the same seed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

__all__ = [
    "CONFIDENCE",
    "MOST_RUNS",
    "Contrast",
    "Interval",
    "contrast",
    "contrasts",
    "detectable",
    "holm",
    "interval",
    "prediction",
]

CONFIDENCE = 0.95
MOST_RUNS = 1000  # that would decide: more are not looked for


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its t-interval; without bounds (infinite) for a single value."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2

    def __format__(self, form: str) -> str:
        """Returns mean and bounds, each in this form: "0.30 (0.18 to 0.42)" for ".2f"; "0.30 (no interval)" without."""
        if self.half == math.inf:
            return f"{self.mean:{form}} (no interval)"
        return f"{self.mean:{form}} ({self.low:{form}} to {self.high:{form}})"


@dataclasses.dataclass(frozen=True)
class Contrast:
    """The paired difference of two arms, A - B.

    Attributes:
        differences: of each pair.
        difference: their mean with its t-interval.
        wins: share of pairs in which A is above B; ties count half.
        p_value: of the stronger of two statements, that the difference is beyond the smallest effect of interest or
            within it; adjusted by Holm's method if it is one of several.
        zero_p_value: of a difference from zero, adjusted likewise; no part of the verdict.
        verdict: "better" or "worse", by more than the smallest effect of interest; "equivalent", within it;
            "undecided".
        runs_to_decide: for an undecided contrast, the number of pairs that would decide with the same mean and spread,
            even if its p-value is multiplied by the number of all undecided ones; 0 if it needs more than `MOST_RUNS`.
    """

    differences: np.ndarray
    difference: Interval
    wins: float
    p_value: float
    zero_p_value: float
    verdict: str
    runs_to_decide: int

    def bootstrap(self) -> Interval:
        """Returns the 95% interval from resampled pairs, as a check of the t-interval."""
        mean = self.difference.mean
        if self.differences.std() == 0:
            return Interval(mean, mean, mean)
        resampled = stats.bootstrap(
            (self.differences,), np.mean, confidence_level=CONFIDENCE, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
        return Interval(mean, float(resampled.low), float(resampled.high))


def interval(values: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """Returns the mean of values and its t-interval.

    Args:
        values: at least one.
        confidence: of the interval.

    Raises:
        ValueError: if there is no value.
    """
    if not len(values):
        raise ValueError("values must hold at least one number")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, -np.inf, np.inf)
    half = _standard_error(values) * _critical(len(values), confidence)
    return Interval(mean, mean - half, mean + half)


def prediction(values: Sequence[float] | np.ndarray) -> Interval:
    """Returns the mean of values and the interval in which one more value is expected, of the same distribution.

    Raises:
        ValueError: if there is no value.
    """
    mean = interval(values)
    if len(values) == 1:
        return mean
    half = float(np.std(values, ddof=1)) * _critical(len(values)) * (1 + 1 / len(values)) ** 0.5
    return Interval(mean.mean, mean.mean - half, mean.mean + half)


def _standard_error(values: Sequence[float] | np.ndarray) -> float:
    return float(np.std(values, ddof=1)) / len(values) ** 0.5


@functools.cache
def _critical(runs: int, confidence: float = CONFIDENCE) -> float:
    """Returns the quantile of Student's distribution for the interval of a mean over a number of runs."""
    return float(stats.t.ppf((1 + confidence) / 2, runs - 1))


def contrast(first: Sequence[float], second: Sequence[float], smallest: float) -> Contrast:
    """Returns the paired difference of two arms, judged by itself.

    Args:
        first: one value per run.
        second: the same, in the same order of seeds.
        smallest: the smallest effect of interest.

    Raises:
        ValueError: if the arms have not the same number of values, at least two, or `smallest` is not positive.
    """
    return contrasts([(first, second)], smallest)[0]


def contrasts(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]],
    smallest: float,
    *,
    confidence: float = CONFIDENCE,
    corrected: bool = True,
) -> list[Contrast]:
    """Returns the paired differences of several pairs of arms, judged together: p-values are adjusted for their number.

    Args:
        pairs: the first two arguments of `contrast` for each.
        smallest: the smallest effect of interest.
        confidence: of the verdicts and of the intervals.
        corrected: whether p-values are adjusted; otherwise each pair is judged by itself.

    Raises:
        ValueError: as `contrast`.
    """
    for first, second in pairs:
        if len(first) != len(second) or len(first) < 2:
            raise ValueError(
                f"arms must have the same number of runs, at least 2. Received: {len(first)} and {len(second)}"
            )
    if not smallest > 0:
        raise ValueError(f"smallest must be positive. Received: smallest={smallest}")
    differences = [np.subtract(first, second) for first, second in pairs]
    p_values = [_p_values(each, smallest) for each in differences]
    adjusted = [min(both) for both in p_values]
    from_zero = [2 * _one_sided(each, abs(float(each.mean()))) for each in differences]
    if corrected:
        adjusted, from_zero = holm(adjusted), holm(from_zero)
    undecided = sum(p_value >= 1 - confidence for p_value in adjusted) if corrected else 1
    return [
        _judge(each, smallest, within < beyond, (p_value, zero), undecided, confidence)
        for each, (beyond, within), p_value, zero in zip(differences, p_values, adjusted, from_zero, strict=True)
    ]


def _p_values(differences: np.ndarray, smallest: float) -> tuple[float, float]:
    """Returns the p-values of the statements that the mean is beyond, and that it is within, plus or minus `smallest`.

    Each is below 0.05 exactly where the 95% t-interval lies beyond, or within.
    """
    mean = float(differences.mean())
    beyond = min(_one_sided(differences, distance) for distance in (mean - smallest, -smallest - mean))
    within = max(_one_sided(differences, distance) for distance in (mean + smallest, smallest - mean))
    return min(1.0, 2 * beyond), min(1.0, 2 * within)


def _one_sided(differences: np.ndarray, distance: float) -> float:
    """Returns the p-value of the statement that the mean is on the side of a bound from which it is this far."""
    spread = _standard_error(differences)
    if spread == 0:  # all pairs differ alike
        return 0.0 if distance > 0 else 1.0
    return float(stats.t.sf(distance / spread, len(differences) - 1))


def _judge(
    differences: np.ndarray,
    smallest: float,
    within: bool,
    p_values: tuple[float, float],
    undecided: int,
    confidence: float,
) -> Contrast:
    p_value, zero_p_value = p_values
    found, needed = interval(differences, confidence), 0
    if p_value >= 1 - confidence:
        verdict = "undecided"
        needed = _runs_to_decide(found.mean, float(differences.std(ddof=1)), smallest, undecided, confidence)
    elif within:
        verdict = "equivalent"
    else:
        verdict = "better" if found.mean > 0 else "worse"
    wins = float(((differences > 0) + (differences == 0) / 2).mean())
    return Contrast(differences, found, wins, p_value, zero_p_value, verdict, needed)


def _runs_to_decide(mean: float, deviation: float, smallest: float, undecided: int, confidence: float) -> int:
    runs, halves = _halves(undecided, confidence)
    distance = abs(abs(mean) - smallest)
    decides = deviation * halves < distance
    return int(runs[decides.argmax()]) if decides.any() else 0


@functools.cache
def _halves(undecided: int, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns numbers of runs, and for a deviation of one the half-widths of the intervals that decide."""
    runs = np.arange(2, MOST_RUNS + 1)
    return runs, stats.t.isf((1 - confidence) / 2 / undecided, runs - 1) / np.sqrt(runs)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for their number by Holm's method.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    count, highest = len(p_values), 0.0
    adjusted = [0.0] * count
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def detectable(deviation: float, runs: int, power: float = 0.8) -> float:
    """Returns the smallest true mean difference that a paired t-test at the 5% level finds with this probability.

    Args:
        deviation: standard deviation of the differences.
        runs: number of pairs, at least two.
        power: the probability.
    """
    critical = _critical(runs)
    low, high = 0.0, 1e3
    for _ in range(60):  # halves the range of the noncentrality until it is a number
        middle = (low + high) / 2
        low, high = (middle, high) if stats.nct.sf(critical, runs - 1, middle) < power else (low, middle)
    return high * deviation / runs**0.5
