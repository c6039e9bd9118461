"""The second registered study: its contrasts, how pilots choose learning rates, and what its runs have found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from dcn_study.experiments import study
from dcn_study.experiments.statistics import contrasts
from dcn_study.experiments.study import Comparison
from dcn_study.runs import records
from dcn_study.runs.catalogue.unseen import (
    FRESH_REALISATIONS,
    LADDER,
    PILOT_RATES,
    PILOT_REALISATIONS,
    PILOTS,
    REALISATIONS,
    UNSEEN,
)
from dcn_study.runs.records import Record
from dcn_study.runs.run import Run

__all__ = [
    "PRIMARY",
    "REGISTERED",
    "SMALLEST",
    "TIE",
    "asked_rates",
    "chosen_rate",
    "compared",
    "depends_on_rates",
    "field_correlations",
    "pilot_runs",
    "re_estimated",
    "recorded_runs",
    "so_far",
    "tied_rates",
    "validated",
]

REGISTERED = "ae6a281b13a197c02f6d02b97f10c8d4835901af"  # the commit of the registration
SMALLEST = 1.0  # the smallest effect of interest, in percentage points of accuracy on scaled and translated digits
TIE = 0.1  # percentage points of validation accuracy: rates that are no further from the best are as good

# The registered primary contrasts: what is asked → the two arms whose accuracies are subtracted.
PRIMARY = {
    "in place of the convolutions": ("deform_conv_cnn", "cnn"),
    "offsets that depend on the image": ("deform_conv_cnn", "shared_offsets_cnn"),
    "against a low-pass filter": ("deform_conv_cnn", "antialiased_cnn"),
    "offsets that ignore the image": ("shared_offsets_cnn", "cnn"),
}

_SPOKEN = {
    "cnn": "the CNN",
    "antialiased_cnn": "the anti-aliased CNN",
    "shared_offsets_cnn": "the same offsets for all images",
    "deform_conv_cnn": "deformable convolutions",
}


def pilot_runs() -> dict[str, dict[float, list[Record]]]:
    """Returns the records of the pilots: arm → rate → one per realisation that there is; rates without any left out."""
    return {
        arm: {rate: list(found.values()) for rate, run in tried.items() if (found := records.by_seed(run))}
        for arm, tried in PILOTS.items()
    }


def validated(found: Mapping[float, Sequence[Record]]) -> dict[float, list[float]]:
    """Returns the validation accuracies of an arm's pilots, in percent, by rate."""
    return {rate: [100 * each.history[-1].validation_accuracy for each in runs] for rate, runs in found.items()}


def re_estimated(found: Sequence[Record]) -> list[float]:
    """Returns validation accuracies in percent with averages of batch normalisation estimated anew, where recorded."""
    results = [record.evaluations.get("validation, re-estimated") for record in found]
    return [100 * each.accuracy for each in results if each]


def chosen_rate(arm: str, tried: Mapping[float, list[float]]) -> float | None:
    """Returns the learning rate that the pilots of an arm choose; None as long as one of them is missing.

    It is the smallest rate whose mean validation accuracy is at most `TIE` below the highest. If this is the lowest or
    the highest of the three that are tried first, the next rate beyond it is tried too, once.
    """
    return next(iter(tied_rates(arm, tried)), None)


def tied_rates(arm: str, tried: Mapping[float, list[float]]) -> list[float]:
    """Returns the learning rates at most `TIE` below the best, from the smallest; none while a pilot is missing."""
    asked, complete = asked_rates(arm, tried), _complete(tried)
    return _near_the_best(complete, asked) if set(asked) <= set(complete) else []


def asked_rates(arm: str, tried: Mapping[float, list[float]]) -> tuple[float, ...]:
    """Returns the learning rates that the pilots of an arm must have so far: three, then a fourth if an end is best."""
    first, complete = PILOT_RATES[arm], _complete(tried)
    if not set(first) <= set(complete):
        return first
    best = _near_the_best(complete, first)[0]
    place = LADDER.index(best)
    beyond = {first[0]: place - 1, first[-1]: place + 1}.get(best, len(LADDER))
    return (*first, LADDER[beyond]) if 0 <= beyond < len(LADDER) else first


def _complete(tried: Mapping[float, list[float]]) -> dict[float, float]:
    """Returns the mean validation accuracies of those rates that all pilot realisations have."""
    return {rate: sum(values) / len(values) for rate, values in tried.items() if len(values) == len(PILOT_REALISATIONS)}


def _near_the_best(found: Mapping[float, float], rates: Sequence[float]) -> list[float]:
    highest = max(found[rate] for rate in rates)
    return sorted(rate for rate in rates if found[rate] >= highest - TIE)


def recorded_runs(runs: Mapping[str, Run] = UNSEEN) -> dict[str, dict[int, Record]]:
    """Returns the records of this study by arm and number of the realisation.

    Args:
        runs: `unseen.UNSEEN`; `unseen.RETUNED` for those at other rates; `unseen.FRESH` for those on MNIST-Scale;
            `unseen.FASHION` for those on Fashion-MNIST.
    """
    return {arm: records.by_seed(run) for arm, run in runs.items()}


def compared(found: Mapping[str, Mapping[int, Record]], kind: str = "scaled") -> dict[str, Comparison]:
    """Returns the contrasts on a test set. On scaled digits they are judged, together, once all realisations are there.

    Args:
        found: as `recorded_runs` returns it.
        kind: the test set, see `splits.KINDS`.
    """
    asked = {name: pair for name, pair in PRIMARY.items() if set(pair) <= set(found)}
    comparisons = study.compared(found, kind, asked)
    complete = asked == PRIMARY and all(each.numbers == REALISATIONS for each in comparisons.values())
    if not complete or kind != "scaled":
        return comparisons
    judged = contrasts([(each.differences, [0.0] * len(REALISATIONS)) for each in comparisons.values()], SMALLEST)
    return {
        name: dataclasses.replace(each, contrast=verdict)
        for (name, each), verdict in zip(comparisons.items(), judged, strict=True)
    }


def depends_on_rates(compared: Comparison, at_largest: Comparison) -> bool | None:
    """Returns whether the verdict on a contrast is said to depend on the learning rates, as amended.

    It is if the verdict is "better" or "worse" and the mean difference at the largest tied rates is within `SMALLEST`,
    or beyond it on the other side. None while a verdict or a run at these rates is missing.

    Args:
        compared: the contrast at the chosen rates, as `compared` returns it.
        at_largest: the same contrast of the runs at the largest tied rates.
    """
    if not compared.contrast or at_largest.numbers != FRESH_REALISATIONS:
        return None
    ahead = {"better": 1, "worse": -1}.get(compared.contrast.verdict)
    return ahead is not None and ahead * float(np.mean(at_largest.differences)) <= SMALLEST


def field_correlations(kind: str, *found: Mapping[str, Mapping[int, Record]]) -> tuple[float, float]:
    """Returns how the receptive fields of runs correlate with their accuracies on scaled digits.

    Args:
        kind: the digits on which the fields were measured, see `splits.KINDS`.
        found: as `recorded_runs` returns it, at one or more learning rates; runs without `field_areas` are left out.

    Returns:
        Pearson's correlation over all runs, and with the mean of its arm at its rate subtracted from each; NaN for
        fewer than two runs.
    """
    points = [
        np.array([(each.field_areas[kind], each.evaluations["scaled"].accuracy) for each in measured])
        for group in found
        for runs in group.values()
        if (measured := [record for record in runs.values() if record.field_areas])
    ]
    if sum(map(len, points)) < 2:
        return np.nan, np.nan
    within = np.concatenate([each - each.mean(axis=0) for each in points])
    over_all, inside = (float(np.corrcoef(each.T)[0, 1]) for each in (np.concatenate(points), within))
    return over_all, inside


def so_far(found: Mapping[str, Mapping[int, Record]]) -> str:
    """Returns in words what the primary runs have shown: nothing before all of them are there."""
    finished, registered = sum(map(len, found.values())), len(UNSEEN) * len(REALISATIONS)
    judged = {name: each.contrast for name, each in compared(found).items() if each.contrast}
    if not judged:
        return f"So far {finished} of {registered} primary runs are finished. No verdict is given before all are."
    told = [
        f"{' over '.join(_SPOKEN[arm] for arm in PRIMARY[name])} {each.difference:+.2f}, {each.verdict}"
        for name, each in judged.items()
    ]
    return f"All {registered} primary runs are finished. In percentage points, with 95% intervals: {'; '.join(told)}."
