"""Tables of the study on MNIST-Scale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from dcn_study.experiments.statistics import detectable
from dcn_study.experiments.study import PRIMARY, best_rate
from dcn_study.names import ARMS
from dcn_study.runs.catalogue import LADDER, PILOT_RATES, REALISATIONS, STUDY, realisations_of
from dcn_study.runs.records import Measurement, Record
from dcn_study.show.tables.layout import with_corner

__all__ = ["arms", "pilots", "primary_contrasts", "spread"]


def arms(costs: Measurement) -> pd.DataFrame:
    """Returns one row per arm: parameters, milliseconds per training step, learning rate, number of realisations.

    Args:
        costs: as `experiments.arms.arm_costs` returns it.
    """
    steps = costs.results["step_ms"]
    regular = steps.get("cnn", [np.nan] * 3)[1]
    rows = {
        ARMS[arm]: {
            "parameters": parameters,
            "ms per step": round(steps[arm][1], 1),
            "ratio to the CNN": round(steps[arm][1] / regular, 2),
            "learning rate": f"{STUDY[f'scale_{arm}'].learning_rate:g}",
            "without augmentation": realisations_of(f"scale_{arm}"),
            "with scale augmentation": realisations_of(f"rescaled_{arm}") if f"rescaled_{arm}" in STUDY else 0,
        }
        for arm, parameters in costs.results["parameters"].items()
    }
    return with_corner(pd.DataFrame.from_dict(rows, orient="index"), "arm")


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
            "best": "not run yet" if chosen is None else f"{chosen:g}",
        }
    return with_corner(pd.DataFrame.from_dict(rows, orient="index"), "arm")


def primary_contrasts() -> pd.DataFrame:
    """Returns the registered primary contrasts, one row each."""
    rows = {name: {"A": _arm(a), "B": _arm(b)} for name, (a, b) in PRIMARY.items()}
    return with_corner(pd.DataFrame.from_dict(rows, orient="index"), "A - B")


def spread(found: Mapping[str, list[float]]) -> pd.DataFrame:
    """Returns one row per source of chance: the standard deviation of accuracies, and what could be detected with it.

    Args:
        found: accuracies in percent, by source; sources with fewer than two are left out.
    """
    rows = {
        source: {
            "runs": len(values),
            "standard deviation": float(np.std(values, ddof=1)),
            "detectable difference": detectable(2**0.5 * float(np.std(values, ddof=1)), REALISATIONS),
        }
        for source, values in found.items()
        if len(values) > 1
    }
    columns = ["runs", "standard deviation", "detectable difference"]
    return with_corner(pd.DataFrame.from_dict(rows, orient="index", columns=columns), "varied")


def _arm(run: str) -> str:
    kind, _, arm = run.partition("_")
    return ARMS[arm] + (", with scale augmentation" if kind == "rescaled" else "")
