"""Tables of the study on MNIST-Scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dcn_study.experiments.statistics import MOST_RUNS, Contrast, Interval, contrast, contrasts, detectable, interval
from dcn_study.experiments.study import (
    PRIMARY,
    REPORTED,
    SMALLEST,
    Comparison,
    accuracies,
    arm_label,
    best_of,
    best_rate,
)
from dcn_study.names import ARMS
from dcn_study.runs.catalogue import DROPPED, LADDER, PILOT_RATES, REALISATIONS, STUDY
from dcn_study.runs.records import Measurement, Record
from dcn_study.show.tables.layout import by_row, with_interval

__all__ = [
    "areas",
    "arms",
    "contrast_checks",
    "contrast_results",
    "contrasts_side_by_side",
    "pilots",
    "primary_contrasts",
    "rates_tried",
    "regions",
    "replaced_offsets",
    "reported_gains",
    "spread",
    "study_accuracies",
]


def arms(costs: Measurement) -> pd.DataFrame:
    """Returns one row per arm of the first study: parameters, step's time and memory, learning rate, realisations.

    Args:
        costs: as `experiments.arms.arm_costs` returns it.
    """
    steps = costs.results["step_ms"]
    regular = steps.get("cnn", [np.nan] * 3)[1]
    rows = {
        ARMS[arm]: {
            "parameters": parameters,
            "ms per step": steps[arm][1],
            "ratio to the CNN": steps[arm][1] / regular,
            "MB": np.nan if (size := costs.results["memory"][arm]) is None else size / 1e6,
            "learning rate": f"{STUDY[f'scale_{arm}'].config.learning_rate:g}",
            "plain": len(STUDY[f"scale_{arm}"].seeds),
            "rescaled": len(STUDY[f"rescaled_{arm}"].seeds) if f"rescaled_{arm}" in STUDY else 0,
        }
        for arm, parameters in costs.results["parameters"].items()
        if f"scale_{arm}" in STUDY
    }
    return by_row(rows, "arm")


def pilots(found: Mapping[str, Mapping[float, Record | None]]) -> pd.DataFrame:
    """Returns one row per arm: the validation accuracy in percent with each learning rate, and the best rate."""
    rates = [rate for rate in LADDER if rate in PILOT_RATES or any(tried[rate] for tried in found.values())]
    rows = {}
    for arm, tried in found.items():
        chosen = best_rate(tried)
        rows[ARMS[arm]] = {
            **{
                f"{rate:g}": 100 * record.history[-1].validation_accuracy if (record := tried[rate]) else np.nan
                for rate in rates
            },
            "best": f"{chosen:g}" if chosen else "dropped" if f"scale_{arm}" in DROPPED else "not run yet",
        }
    return by_row(rows, "arm")


def primary_contrasts(asked: Mapping[str, tuple[str, str]] = PRIMARY) -> pd.DataFrame:
    """Returns registered primary contrasts, one row each: by default those of the first study."""
    rows = {name: {"A": arm_label(a), "B": arm_label(b)} for name, (a, b) in asked.items()}
    return by_row(rows, "A - B")


def spread(found: Mapping[str, list[float]]) -> pd.DataFrame:
    """Returns one row per source of chance: the standard deviation of accuracies, and what could be detected with it.

    Args:
        found: accuracies in percent, by source; sources with fewer than two are left out.
    """
    rows = {}
    for source, values in found.items():
        if len(values) > 1:
            deviation = float(np.std(values, ddof=1))
            rows[source] = (len(values), deviation, detectable(2**0.5 * deviation, REALISATIONS))
    return by_row(rows, "varied", columns=["runs", "standard deviation", "detectable difference"])


def contrast_results(compared: Mapping[str, Comparison]) -> pd.DataFrame:
    """Returns one row per primary contrast: the mean difference with its interval, and the verdict once there is one.

    Args:
        compared: as `study.compared` returns it.
    """
    rows = {}
    for name, each in compared.items():
        pairs = len(each.differences)
        mean = interval(each.differences) if pairs else Interval(np.nan, np.nan, np.nan)
        rows[name] = {
            "B": arm_label(each.runs[1]),
            "pairs": pairs,
            "difference": mean.mean,
            "95% from": mean.low if pairs > 1 else np.nan,
            "to": mean.high if pairs > 1 else np.nan,
            "verdict": each.contrast.verdict if each.contrast else "not yet",
        }
    return by_row(rows, "A - B")


def rates_tried(tried: Mapping[str, Mapping[float, Mapping[int, Record]]]) -> pd.DataFrame:
    """Returns one row per run and learning rate: mean validation and test accuracy in percent.

    Args:
        tried: as `study.rates_tried` returns it. The means are over the realisations that all rates of a run have.
    """
    rows = {}
    for run, rates in tried.items():
        shared = sorted(set.intersection(*(set(runs) for runs in rates.values())))
        choices = {"pilots": next(iter(rates)), "all runs": best_of(rates)}
        for rate, runs in rates.items() if len(rates) > 1 and shared else ():
            rows[arm_label(run), f"{rate:g}"] = {
                "realisations": len(shared),
                "validation": 100 * np.mean([runs[number].history[-1].validation_accuracy for number in shared]),
                "test": 100 * np.mean([runs[number].evaluations["plain"].accuracy for number in shared]),
                "chosen by": " and ".join(chooser for chooser, chosen in choices.items() if chosen == rate),
            }
    return by_row(rows, "arm", "learning rate")


def contrasts_side_by_side(found: Mapping[str, Mapping[str, Comparison]]) -> pd.DataFrame:
    """Returns one row per contrast: its mean difference with interval in different groups of runs.

    Args:
        found: name of the group → contrasts, as `study.compared` returns them, the same ones for all.
    """
    rows: dict[str, dict[str, Any]] = {}
    for group, compared in found.items():
        for name, each in compared.items():
            told = {group: with_interval(each.differences), f"pairs, {group}": len(each.differences)}
            rows.setdefault(name, {}).update(told)
    return by_row(rows, "A - B")


def contrast_checks(compared: Mapping[str, Comparison]) -> pd.DataFrame:
    """Returns one row per primary contrast: how the pairs spread, and the interval of their mean by resampling.

    Once the contrasts are judged, also the p-values of the verdict and of a difference from zero, both by Holm's
    method, and how many pairs would decide.

    Args:
        compared: as `study.compared` returns it.
    """
    rows = {}
    for name, each in compared.items():
        pairs = len(each.differences)
        single = contrast(each.differences, [0.0] * pairs, SMALLEST) if pairs > 1 else None
        resampled = single.bootstrap() if single else None
        rows[name] = {
            "standard deviation": np.std(each.differences, ddof=1) if pairs > 1 else np.nan,
            "A above B": f"{single.wins * pairs:g} of {pairs}" if single else "–",
            "bootstrap from": resampled.low if resampled else np.nan,
            "to": resampled.high if resampled else np.nan,
            "p (Holm)": each.contrast.p_value if each.contrast else np.nan,
            "p, not zero (Holm)": each.contrast.zero_p_value if each.contrast else np.nan,
            "pairs to decide": _pairs_to_decide(each.contrast),
        }
    return by_row(rows, "A - B")


def _pairs_to_decide(judged: Contrast | None) -> str:
    if judged is None:
        return "not yet"
    if judged.verdict != "undecided":
        return "decided"
    return str(judged.runs_to_decide or f"over {MOST_RUNS}")


def reported_gains(found: Mapping[str, Mapping[int, Record]]) -> pd.DataFrame:
    """Returns one row per report of what deformable convolution gains on scaled digits; the last two are the study's.

    Args:
        found: run → realisation → record.
    """
    rows = {
        who: {"trained on such digits": which, "runs": 1, "without": without, "with": deformable}
        for who, (without, deformable, which) in REPORTED.items()
    }
    for kind, digits, which in (
        ("plain", "digits as in training", "both"),
        ("scaled", "also squeezed and shifted", "both, on scaled ones"),
    ):
        deformable, regular = (accuracies(found[run], kind) for run in PRIMARY["in place of the convolutions"])
        common = sorted(set(regular) & set(deformable))
        rows[f"this study, {digits}"] = {
            "trained on such digits": which,
            "runs": len(common),
            "without": float(np.mean([regular[number] for number in common])) if common else np.nan,
            "with": float(np.mean([deformable[number] for number in common])) if common else np.nan,
        }
    table = by_row(rows, "report")
    return table.assign(difference=table["with"] - table["without"])


def study_accuracies(found: Mapping[str, Mapping[int, float]]) -> pd.DataFrame:
    """Returns one row per run of the study: accuracies in percent, and the paired difference to the CNN, with interval.

    Args:
        found: run → realisation → accuracy in percent; runs without any are left out.
    """
    rows = {}
    for run, values in found.items():
        if not values:
            continue
        mean = interval(list(values.values()))
        regular = found.get(f"{run.partition('_')[0]}_cnn", found.get("cnn", {}))
        pairs = [values[number] - regular[number] for number in values if number in regular]
        rows[arm_label(run)] = {
            "realisations": f"{len(values)} of {len(STUDY[run].seeds)}",
            "accuracy": mean.mean,
            "± (95%)": mean.half if len(values) > 1 else np.nan,
            "minus the CNN": "–" if values is regular else with_interval(pairs),
        }
    columns = ["realisations", "accuracy", "± (95%)", "minus the CNN"]
    return by_row(rows, "arm", columns=columns)


def replaced_offsets(accuracies: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """Returns one row per replacement of the offsets: accuracy in percent, and the paired loss with its interval.

    Args:
        accuracies: what the offsets are → accuracies, one per realisation; the first are the network's own.
    """
    own = np.asarray(next(iter(accuracies.values())))
    rows = {}
    for name, values in accuracies.items():
        loss = interval(100 * (np.asarray(values) - own))
        rows[name] = {
            "accuracy": 100 * float(np.mean(values)),
            "change": loss.mean,
            "± (95%)": loss.half if len(values) > 1 else np.nan,
        }
    return by_row(rows, "offsets")


def areas(found: Mapping[str, Any], labels: Mapping[str, str]) -> pd.DataFrame:
    """Returns one row per network, layer, way and share: pixels of the effective receptive field by the digit's scale.

    Means over realisations, as whole pixels.

    Args:
        found: as `mechanism.mechanism` measures them.
        labels: what the networks are called.
    """
    rows = {
        (labels[run], layer, way, f"{100 * float(share):g}%"): {
            f"scale {scale}": round(float(np.mean(each))) for scale, each in by_scale.items()
        }
        for run, by_layer in found.items()
        for layer, by_way in by_layer.items()
        for way, by_share in by_way.items()
        for share, by_scale in by_share.items()
    }
    return by_row(rows, "network", "layer", "by", "share")


def regions(accuracies: Mapping[str, Mapping[str, Sequence[float]]], smallest: float) -> pd.DataFrame:
    """Returns one row per jitter of the boxes: accuracies in percent, and the paired difference with its verdict.

    Args:
        accuracies: "average" and "deformable" pooling → jitter → accuracies, one per realisation.
        smallest: the smallest difference of interest, in percentage points.
    """
    average, deformable = (
        {jitter: [100 * value for value in values] for jitter, values in accuracies[pooling].items()}
        for pooling in ("average", "deformable")
    )
    several = all(len(values) > 1 for values in average.values())
    judged = contrasts([(deformable[jitter], average[jitter]) for jitter in average], smallest) if several else []
    rows = {}
    for number, jitter in enumerate(average):
        rows[f"{100 * float(jitter):g}%"] = {
            "average": float(np.mean(average[jitter])),
            "deformable": float(np.mean(deformable[jitter])),
            "difference": float(np.mean(deformable[jitter]) - np.mean(average[jitter])),
            "± (95%)": judged[number].difference.half if judged else np.nan,
            "verdict": judged[number].verdict if judged else "not with one realisation",
        }
    return by_row(rows, "edges moved by up to")
