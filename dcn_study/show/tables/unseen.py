"""Tables of the second study, on unseen digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dcn_study.experiments import unseen
from dcn_study.experiments.statistics import interval
from dcn_study.experiments.study import Comparison, accuracies
from dcn_study.names import ARMS, TEST_IMAGES
from dcn_study.runs.catalogue.unseen import PILOT_REALISATIONS
from dcn_study.runs.mnist_scale import OUT_OF_RANGE
from dcn_study.runs.records import Record
from dcn_study.show.tables.layout import by_row
from dcn_study.show.tables.study import contrasts_side_by_side

__all__ = [
    "unseen_accuracies",
    "unseen_changes",
    "unseen_on_other_data",
    "unseen_pilots",
    "unseen_rates",
    "verdicts_by_rates",
]


def unseen_pilots(found: Mapping[str, Mapping[float, Sequence[Record]]]) -> pd.DataFrame:
    """Returns one row per arm and learning rate: mean accuracies in percent, and the choice.

    The accuracy on unseen digits is there to be seen, and chooses nothing.

    Args:
        found: as `unseen.pilot_runs` returns it.
    """
    rows = {}
    for arm, tried in found.items():
        accuracy = unseen.validated(tried)
        chosen = unseen.chosen_rate(arm, accuracy)
        for rate in sorted({*unseen.asked_rates(arm, accuracy), *tried}):
            runs = tried.get(rate, ())
            rows[ARMS[arm], f"{rate:g}"] = {
                "realisations": f"{len(runs)} of {len(PILOT_REALISATIONS)}",
                "validation": np.mean(accuracy[rate]) if runs else np.nan,
                "re-estimated": np.mean(again) if (again := unseen.re_estimated(runs)) else np.nan,
                "unseen": 100 * np.mean([run.evaluations["scaled"].accuracy for run in runs]) if runs else np.nan,
                "choice": "chosen" if rate == chosen else "" if chosen else "not yet",
            }
    return by_row(rows, "arm", "learning rate")


def unseen_accuracies(
    found: Mapping[str, Mapping[int, Record]],
    costs: Mapping[str, Mapping[str, Any]],
    multiply_adds: Mapping[str, int],
) -> pd.DataFrame:
    """Returns one row per arm: realisations, accuracies in percent with 95% intervals, and what the arm costs.

    Args:
        found: arm → realisation → record.
        costs: results of `experiments.arms.arm_costs`, which may lack some.
        multiply_adds: by arm, for one image.
    """
    rows = {}
    for arm, runs in found.items():
        steps, memory = (costs[name].get(arm) for name in ("step_ms", "memory"))
        rows[ARMS[arm]] = {
            "realisations": len(runs),
            **{label: _mean([*accuracies(runs, kind).values()]) for kind, label in TEST_IMAGES.items()},
            "parameters": costs["parameters"].get(arm, 0),
            "million multiply-adds": multiply_adds[arm] / 1e6,
            "ms per step": steps[1] if steps else np.nan,
            "MB": memory / 1e6 if memory else np.nan,
        }
    return by_row(rows, "arm")


def unseen_changes(found: Mapping[str, Mapping[int, Record]]) -> pd.DataFrame:
    """Returns one row per kind of change and its size: each arm's mean accuracy in percent on digits so changed.

    Args:
        found: arm → realisation → record.
    """
    rows = {}
    for name in OUT_OF_RANGE:
        kind, size = name.split()
        values = {arm: [*accuracies(runs, name).values()] for arm, runs in found.items()}
        rows[kind, size] = {ARMS[arm]: np.mean(each) if each else np.nan for arm, each in values.items()}
    return by_row(rows, "change", "size")


def unseen_on_other_data(found: Mapping[str, Mapping[str, Mapping[int, Record]]]) -> pd.DataFrame:
    """Returns one row per data set and arm: realisations, and accuracies in percent with 95% intervals.

    Args:
        found: name of the data set → arm → realisation → record.
    """
    rows = {}
    for data, arms in found.items():
        for arm, runs in arms.items():
            reached = {kind: _mean([*accuracies(runs, kind).values()]) for kind in ("plain", "scaled")}
            rows[data, ARMS[arm]] = {
                "realisations": len(runs),
                "like those of training": reached["plain"],
                TEST_IMAGES["scaled"]: reached["scaled"],
            }
    return by_row(rows, "trained on", "arm")


def verdicts_by_rates(compared: Mapping[str, Comparison], at_largest: Mapping[str, Comparison]) -> pd.DataFrame:
    """Returns one row per primary contrast: its mean difference at both rates, and whether the second undoes the first.

    Args:
        compared: the contrasts at the chosen rates, as `unseen.compared` returns them.
        at_largest: the same of the runs at the largest tied rates.
    """
    table = contrasts_side_by_side({"as chosen": compared, "at the largest tied rates": at_largest})
    words = {True: "yes", False: "no", None: "not yet"}
    depends = [words[unseen.depends_on_rates(compared[name], at_largest[name])] for name in table.index]
    return table.assign(**{f"there within {unseen.SMALLEST:g} point, or reversed": depends})


def unseen_rates(
    found: Mapping[str, Mapping[int, Record]], at_largest: Mapping[str, Mapping[int, Record]]
) -> pd.DataFrame:
    """Returns two rows per arm, one for each of its rates: mean accuracies in percent and receptive fields in pixels.

    Args:
        found: the runs at the chosen rates: arm → realisation → record.
        at_largest: those at the largest tied rates. Means are over the realisations that both have.
    """
    rows = {}
    for arm in found:
        shared = sorted(set(found[arm]) & set(at_largest[arm]))
        for runs in (found[arm], at_largest[arm]) if shared else ():
            chosen = [runs[number] for number in shared]
            rows[ARMS[arm], f"{chosen[0].config.learning_rate:g}"] = {
                "realisations": len(shared),
                "validation": 100 * np.mean([record.history[-1].validation_accuracy for record in chosen]),
                **{
                    label: 100 * np.mean([record.evaluations[kind].accuracy for record in chosen])
                    for kind, label in TEST_IMAGES.items()
                },
                **{
                    f"field, {label}": round(np.mean([record.field_areas[kind] for record in chosen]))
                    for kind, label in TEST_IMAGES.items()
                    if all(record.field_areas for record in chosen)
                },
            }
    return by_row(rows, "arm", "learning rate")


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "–"
    found = interval(values)
    return f"{found.mean:.2f}" + (f" ± {found.half:.2f}" if len(values) > 1 else "")
