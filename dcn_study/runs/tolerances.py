"""How far a replay may be from its record: what another processor changes, and no more."""

from __future__ import annotations

import math

from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.records.schema import Witness

__all__ = ["FAST_TOLERANCES", "TOLERANCES", "compare", "violations"]

EARLY = 3
# Largest differences that another processor may cause; all but those of pixels and accuracies are relative. Sums in
# another order differ by some 1e-7. Adam, whose first steps are nearly the signs of the gradients, lets that grow fast,
# most of all where offsets learn. Measured between an AMD EPYC and an Intel Xeon, with instruction sets of other
# processors, and without oneDNN: 1e-5 in the first three losses, 1.5e-1 in all twenty, 1.5e-2 in the norms, 2.6e-1 in
# Adam's variables; 2e-6, 3e-6, 4e-4 and 1e-4 for the residual networks. Between two AMD EPYC, with and without AVX-512,
# the third loss of one CNN differs by 2.7e-4 with unchanged code, those of the nine others by less than 3e-5.
TOLERANCES = {
    "first losses": 1e-3,
    "losses": 3e-1,
    "norms": 5e-2,
    "slots": 5e-1,
    "labels": 0.0,
    "pixels": 1e-3,  # absolute, for sums over one batch
    "test loss": 1e-4,  # of stored weights
    "test accuracy": 3e-4,  # absolute, of stored weights: 3 of 10,000 images may be on the edge between two classes
}
# Larger steps and wider networks let differences grow faster. Measured between an AMD EPYC and an Intel Xeon for arms
# of the study, at rates from 1e-3 to 3e-2: 2.2e-3 in the first three losses, 1.9e-1 in the norms. And between each of
# these and an AMD EPYC without AVX-512: 8.3e-1 and 6.8e-1 in one of Adam's variables of two runs, where 4.3e-1 is the
# most in all others; and with unchanged code 4.1e-1 in a norm of a run at 3e-2, and 9.3e-1 to 1.2 in one of Adam's
# variables of a run with shared offsets, from call to call. Such runs are held by their first losses and their norms.
FAST = 1e-3  # the highest rate with the tolerances above, except in the study
FAST_TOLERANCES = {"first losses": 1e-2, "norms": 6e-1, "slots": 2.0}
SMALL_NORM = 0.01  # differences of smaller norms are taken relative to this: they may be sums of rounding errors


def compare(found: Witness, recorded: Witness) -> dict[str, float]:
    """Returns the largest difference of each kind of number in two witnesses, for the epochs that the second has.

    It is infinite where one has other weights, steps or epochs.
    """
    batches = found.epochs[: len(recorded.epochs)]
    same_labels = [each.labels for each in batches] == [each.labels for each in recorded.epochs]
    return {
        "first losses": _relative(_numbered(found.losses[:EARLY]), _numbered(recorded.losses[:EARLY]), 0.0),
        "losses": _relative(_numbered(found.losses), _numbered(recorded.losses), 0.0),
        "norms": _relative(found.norms, recorded.norms, SMALL_NORM),
        "slots": _relative(_numbered(found.slots), _numbered(recorded.slots), SMALL_NORM),
        "labels": 0.0 if same_labels else math.inf,
        "pixels": max((abs(a.pixels - b.pixels) for a, b in zip(batches, recorded.epochs, strict=False)), default=0.0),
    }


def violations(differences: dict[str, float], config: RunConfig) -> list[str]:
    """Returns, in words, the differences that are beyond their tolerance.

    Args:
        differences: as `compare` returns them.
        config: the run, on whose learning rate and task the tolerances depend.
    """
    fast = config.task != "mnist" or config.learning_rate > FAST
    tolerances = TOLERANCES | (FAST_TOLERANCES if fast else {})
    return [
        f"{kind} differ by {value:.1e}, tolerance {tolerances[kind]:.0e}"
        for kind, value in differences.items()
        if not value <= tolerances[kind]
    ]


def _numbered(values: list[float]) -> dict[str, float]:
    return {str(number): value for number, value in enumerate(values)}


def _relative(found: dict[str, float], recorded: dict[str, float], floor: float) -> float:
    if set(found) != set(recorded):
        return math.inf
    return max(
        (abs(found[name] - value) / max(abs(value), floor, 1e-12) for name, value in recorded.items()), default=0
    )
