"""How much the accuracy of a network depends on which scaled test set it is tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["differences", "spreads"]


def spreads(accuracies: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Returns the highest minus the lowest of several accuracies, in percentage points, by model."""
    return {model: 100 * float(np.ptp(values)) for model, values in accuracies.items()}


def differences(accuracies: Mapping[str, Mapping[str, Sequence[float]]], kind: str) -> dict[str, float]:
    """Returns the mean accuracy on test sets of a kind minus that on our own, in percentage points, by model.

    Args:
        accuracies: model → kind of test sets, "ours" among them → one accuracy per test set.
        kind: of the test sets that are compared with ours.
    """
    return {
        model: 100 * float(np.mean(by_kind[kind]) - np.mean(by_kind["ours"])) for model, by_kind in accuracies.items()
    }
