"""The table of all registered runs."""

from __future__ import annotations

import html
from collections.abc import Mapping

import pandas as pd

from dcn_study.experiments.registered import State
from dcn_study.names import ARMS

__all__ = ["registered"]

LABELS = ARMS | {"small_cnn": "CNN with a quarter of its filters"}


def registered(found: Mapping[tuple[str, str, str], State]) -> str:
    """Returns the registered runs as an HTML table, one row per study and arm, the names folded below the arm.

    A state in which no run is has no column.

    Args:
        found: as `experiments.registered.registered` returns it, or a part of it.
    """
    arms: dict[tuple[str, str], dict[str, State]] = {}
    for (study, what, arm), state in found.items():
        arms.setdefault((study, arm), {})[what] = state
    rows = [
        {
            "study": study,
            "arm": f"{html.escape(LABELS[arm])}<details><summary>names</summary>{_names(states)}</details>",
            "done": sum(len(state.done) for state in states.values()),
            "to be run": sum(len(state.waiting) for state in states.values()),
            "dropped": sum(len(state.dropped) for state in states.values()),
        }
        for (study, arm), states in arms.items()
    ]
    table = pd.DataFrame(rows)
    with pd.option_context("display.max_colwidth", None):
        return table.loc[:, table.any()].to_html(index=False, escape=False, classes="registered")


def _names(states: Mapping[str, State]) -> str:
    """Returns the names of an arm's runs, a line for each kind of run and state."""
    return "".join(
        f"<div>{html.escape(what)}, {state}: {', '.join(f'<code>{html.escape(name)}</code>' for name in names)}</div>"
        for what, each in states.items()
        for state, names in (("done", each.done), ("to be run", each.waiting), ("dropped", each.dropped))
        if names
    )
