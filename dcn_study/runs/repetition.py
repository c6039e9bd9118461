"""Confirmation of measurements: a part of one is repeated, and must give what its record holds."""

from __future__ import annotations

from typing import Any

from dcn_study.errors import RecordError
from dcn_study.names import regular
from dcn_study.runs import records
from dcn_study.runs.files import locked, now
from dcn_study.runs.inputs import machine
from dcn_study.runs.measurements import MEASUREMENTS, current_weights, lock_of, take
from dcn_study.runs.records import Confirmation, Measurement

__all__ = ["confirm", "differences", "ratio_differences"]

TOLERANCE = 1e-3  # absolute for numbers up to one, relative for greater ones
TIMES_TOLERANCE = 0.3  # relative, of the ratio of a time to that of the same regular network: machines differ


def confirm(measured: Measurement) -> list[str]:
    """Repeats a part of a measurement with the current code, and adds a confirmation if it gives what is on record.

    Returns:
        The differences found, in words; none if the measurement is confirmed.

    Raises:
        LockedError: if another process takes or confirms it.
        RecordError: if the record is damaged, or another one by now.
    """
    if MEASUREMENTS[measured.name].repeat is None:
        return [f"it is taken again, not confirmed, with: dcn measure {measured.name}"]
    with locked(lock_of(measured.path), f"measurement {measured.path.stem}"):
        if records.read_file(measured.path, Measurement).started != measured.started:
            raise RecordError(f"the record of {measured.path.stem} was replaced meanwhile. Confirm it again")
        return _confirm(measured)


def _confirm(measured: Measurement) -> list[str]:
    declared = MEASUREMENTS[measured.name]
    assert declared.repeat is not None
    again = take(measured.name, {**measured.parameters, **declared.repeat})
    current = measured.inputs.model_copy(update={"code": again.inputs.code, "versions": again.inputs.versions})
    found = ["data"] if again.inputs.data != current.data else []
    weights = {**current_weights(measured), **again.inputs.weights}  # of all that it evaluates, repeated or not
    found += [f"weights of {run}" for run, digest in weights.items() if current.weights.get(run) != digest]
    times = "rows" in measured.results
    apart = (ratio_differences if times else differences)(again.results, measured.results)
    tolerance = TIMES_TOLERANCE if times else TOLERANCE
    found += [f"{place} differs by {apart[place]:.1e}" for place in apart if not apart[place] <= tolerance][:5]
    if not found:
        largest = {"results": max(apart.values(), default=0.0)}
        confirmation = Confirmation(inputs=current, machine=machine(), date=now(), differences=largest)
        records.add_confirmation(measured, confirmation)
    return found


def ratio_differences(found: dict[str, Any], recorded: dict[str, Any]) -> dict[str, float]:
    """Returns by how much ratios of times differ, relatively, for the rows that both results have.

    Args:
        found: with "rows" of milliseconds, as `runtime.compare` measures them.
        recorded: the same, with more rows.
    """
    ratios = [_ratios(results["rows"]) for results in (found, recorded)]
    return {
        " ".join(map(str, row)): abs(ratio / ratios[1][row] - 1) if row in ratios[1] else float("inf")
        for row, ratio in ratios[0].items()
    }


def _ratios(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], float]:
    """Returns the time of each row, relative to that of the CNN or mini-ResNet without deformation."""
    times = {(row["model"], row["batch"], row["size"], row["what"]): row["milliseconds"] for row in rows}
    return {(model, *where): time / times[(regular(model), *where)] for (model, *where), time in times.items()}


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
