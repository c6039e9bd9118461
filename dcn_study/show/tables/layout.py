"""The form that the tables share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dcn_study.experiments.statistics import interval

__all__ = ["by_row", "captioned", "with_corner", "with_interval"]


def by_row(rows: Mapping[Any, Any], *names: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Returns a table of rows by name, or by a tuple of as many names as `names` says what they are."""
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    if len(names) == 1:
        return with_corner(table, names[0])
    return table.set_axis(pd.MultiIndex.from_tuples(rows, names=names))


def with_corner(frame: pd.DataFrame, corner: str) -> pd.DataFrame:
    """Names the column of row names in the header itself, where pandas would add a row for it."""
    return frame.rename_axis(index=None, columns=corner)


def captioned(frame: pd.DataFrame, caption: str) -> pd.DataFrame:
    """Returns a table with a caption: what it shows, then what to see in it."""
    frame = frame.copy()
    frame.attrs["caption"] = caption
    return frame


def with_interval(differences: Sequence[float]) -> str:
    """Returns a mean with its 95% t-interval, as text; a dash where there is no value."""
    if not differences:
        return "–"
    found = interval(differences)
    return f"{found:+.2f}" if len(differences) > 1 else f"{found.mean:+.2f}"
