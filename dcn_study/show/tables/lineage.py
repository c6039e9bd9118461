"""Tables of public implementations and of what the probes find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from dcn_study.experiments.implementations import Field, Implementation
from dcn_study.show.tables.layout import by_row

__all__ = ["descriptions", "fields", "probes", "sources"]

_AXES = {"(dy, dx)": "y", "(dx, dy)": "x", "neither": "neither"}


def probes(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> pd.DataFrame:
    """Returns one row per implementation and one column per probe, each cell with its outcome and number.

    Args:
        found: as `experiments.lineage.probe` returns it.
    """
    rows = {
        name: {
            "gradient at zero offsets": f"{each['gradient at zero']['number']:.2g}"
            + (", dead" if each["gradient at zero"]["outcome"] == "dead" else ""),
            "pairs from their own pixel": _percent(each["pairing"]["number"]),
            "error of derivatives": f"{each['finite differences']['number']:.0e}",
            "read wrongly at zero offsets": _percent(each["border"]["number"]),
            "derivative beyond the border": "yes" if each["border"]["beyond"] else "no",
            "first number moves": _AXES[each["shift by one pixel"]["outcome"]],
            "factor of a new layer": f"{each['start']['number']:.2f}",
        }
        for name, each in found.items()
    }
    return by_row(rows, "implementation")


def sources(found: Mapping[str, Implementation]) -> pd.DataFrame:
    """Returns one row per implementation: where it was read, which lines decided, and by when it existed."""
    rows = {
        name: {
            "repository and commit": f"{each.repository} {each.commit[:7] or '(commit not known)'}",
            "lines": "; ".join(f"{choice}: {place}" for choice, place in each.lines.items()),
            "existed by": f"{each.by} ({each.dated})" if each.by else "no date found",
        }
        for name, each in found.items()
    }
    return by_row(rows, "implementation")


def descriptions(found: Mapping[str, Implementation]) -> pd.DataFrame:
    """Returns one row per implementation: what it says of itself, what it gets right, and which issues ask about it."""
    rows = {
        name: {
            "says of itself": each.says,
            "gets right": each.right,
            "issues": "; ".join(f"{number}: {asked}" for number, asked in each.asked.items()) or "none found",
        }
        for name, each in found.items()
    }
    return by_row(rows, "implementation")


def fields(found: Iterable[Field]) -> pd.DataFrame:
    """Returns one row per file of another field: its source, its second pixel, and where its displacements start."""
    rows = {
        each.field: {
            "source": each.source,
            "second pixel": each.second,
            "displacements start as": each.starts,
            "learned from whole pixels": "yes" if each.zero else "no",
        }
        for each in found
    }
    return by_row(rows, "field")


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
