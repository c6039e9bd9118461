"""The table of outcomes under other choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dcn_study.experiments.multiverse import Multiverse, option
from dcn_study.show.tables.layout import by_row

__all__ = ["single_changes"]


def single_changes(found: Multiverse) -> pd.DataFrame:
    """Returns one row per claim: its stated outcome, how many universes share it, and the single changes that alter it.

    Args:
        found: the outcomes of a group of claims.
    """
    rows = {
        claim: {
            "outcome": found.outcome(claim),
            "universes with it (%)": round(100 * found.share(claim)),
            "altered by": "; ".join(
                f"{choice} {words}"
                for choice, options in found.flips(claim).items()
                for words in _grouped(choice, options, found.choices[choice])
            )
            or "no single change",
        }
        for claim in found.outcomes
    }
    return by_row(rows, "claim")


def _grouped(choice: str, outcomes: Mapping[Any, str], options: Sequence[Any]) -> list[str]:
    """Returns "first to last: outcome" for options in a row with the same outcome, in their order."""
    groups: list[list[Any]] = []
    previous = None
    for each in options:
        outcome = outcomes.get(each)
        if outcome is not None:
            if outcome == previous:
                groups[-1].append(each)
            else:
                groups.append([each])
        previous = outcome
    return [
        f"{' to '.join(option(choice, end) for end in dict.fromkeys((group[0], group[-1])))}: {outcomes[group[0]]}"
        for group in groups
    ]
