"""Confirmation of measurements: a part of one is repeated, and must give what its record holds."""

from __future__ import annotations

import importlib
from typing import Any

from dcn_study.runs import records
from dcn_study.runs.catalogue import REMEASURE
from dcn_study.runs.files import now
from dcn_study.runs.inputs import machine
from dcn_study.runs.records import Confirmation, Measurement

__all__ = ["REPEATED", "confirm", "differences"]

# Measurement → module and function that take it, and what a repetition changes in its parameters: so that its results
# are the beginning of those on record. Measurements of time, and short ones, are not among them: they are taken again.
REPEATED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "offsets": ("offsets", "trace_offsets", {"steps": 20}),
    "sensitivity": ("sensitivity", "sensitivity", {"draws": 1}),
    "mechanism": ("mechanism", "mechanism", {"realisations": 1}),
    "regions": ("regions", "regions", {"realisations": 1}),
}
TOLERANCE = 1e-3  # absolute for numbers up to one, relative for greater ones


def confirm(measured: Measurement) -> list[str]:
    """Repeats a part of a measurement with the current code, and adds a confirmation if it gives what is on record.

    Returns:
        The differences found, in words; none if the measurement is confirmed.
    """
    if measured.name not in REPEATED:
        return [f"it is taken again, not confirmed, with: {REMEASURE[measured.name]}"]
    module, function, changes = REPEATED[measured.name]
    take = getattr(importlib.import_module(f"dcn_study.experiments.{module}"), function)
    again = take(**{**measured.parameters, **changes}, force=True)
    current = measured.inputs.model_copy(update={"code": again.inputs.code, "versions": again.inputs.versions})
    found = ["data"] if again.inputs.data != current.data else []
    found += [f"weights of {run}" for run, digest in again.inputs.weights.items() if current.weights.get(run) != digest]
    apart = differences(again.results, measured.results)
    found += [f"{place} differs by {apart[place]:.1e}" for place in apart if not apart[place] <= TOLERANCE][:5]
    if not found:
        largest = {"results": max(apart.values(), default=0.0)}
        confirmation = Confirmation(inputs=current, machine=machine(), date=now(), differences=largest)
        measured.confirmations = [*measured.confirmations, confirmation]
        records.write(measured)
    return found


def differences(found: Any, recorded: Any, place: str = "results") -> dict[str, float]:
    """Returns by how much the results of a repetition differ from the beginning of those on record, by place.

    Lists of a repetition may be shorter. What is of another form differs by infinity.
    """
    if isinstance(found, dict) and isinstance(recorded, dict) and set(found) == set(recorded):
        parts = [differences(found[name], recorded[name], f"{place}.{name}") for name in found]
    elif isinstance(found, list) and isinstance(recorded, list) and len(found) <= len(recorded):
        parts = [differences(a, b, f"{place}.{i}") for i, (a, b) in enumerate(zip(found, recorded, strict=False))]
    elif isinstance(found, int | float) and isinstance(recorded, int | float):
        return {place: abs(found - recorded) / max(1.0, abs(recorded))}
    else:
        return {} if found == recorded else {place: float("inf")}
    return {name: value for part in parts for name, value in part.items()}
