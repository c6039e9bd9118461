"""The form that the tables share."""

from __future__ import annotations

import pandas as pd

__all__ = ["with_corner"]


def with_corner(frame: pd.DataFrame, corner: str) -> pd.DataFrame:
    """Names the column of row names in the header itself, where pandas would add a row for it."""
    return frame.rename_axis(index=None, columns=corner)
