"""The table of the paper's claims."""

from __future__ import annotations

import html
from collections.abc import Sequence

import pandas as pd

from dcn_study.experiments.claims import OUTCOMES, Claim
from dcn_study.show.tables.layout import by_row

__all__ = ["claims", "tally"]


def claims(found: Sequence[Claim], *groups: str) -> str:
    """Returns the claims of groups as an HTML table, with links to the pages with the evidence.

    The attribute `data-csv` of the table holds all fields of the claims as CSV, which the page offers as a file.

    Args:
        found: all claims.
        *groups: of `claims.GROUPS`.
    """
    chosen = [claim for group in groups for claim in found if claim.group == group]
    frame = pd.DataFrame(map(_row, chosen))
    if not frame["paper"].any():
        frame = frame.drop(columns="paper")
    with pd.option_context("display.max_colwidth", None):
        shown = frame.to_html(index=False, escape=False, classes="claims")
    content = pd.DataFrame(chosen).to_csv(index=False)
    return shown.replace("<table ", f'<table data-csv="{html.escape(content)}" ', 1)


def tally(found: Sequence[Claim]) -> pd.DataFrame:
    """Returns one row per outcome: how many claims have it, and what it means."""
    rows = {
        outcome: {"claims": sum(claim.outcome == outcome for claim in found), "meaning": meaning}
        for outcome, meaning in OUTCOMES.items()
    }
    return by_row(rows, "outcome")


def _row(claim: Claim) -> dict[str, str]:
    words = f"{html.escape(claim.words)} ({html.escape(claim.place)})"
    if claim.group != "accuracies":  # which have one rule for all
        words += f' <span class="rule">{html.escape(claim.rule)}</span>'
    return {
        "claim and its test": f'<span id="claim-{claim.name}">{words}</span>',
        "paper": f'<span class="paper">{html.escape(claim.published)}</span>' if claim.published else "",
        "here": f'<span class="here">{html.escape(claim.ours)}</span>',
        "outcome": f'<span class="outcome {claim.outcome.replace(" ", "-")}">{claim.outcome}</span>',
        "evidence": ", ".join(f'<a href="{page}.html">{page}</a>' for page in claim.pages.split()),
    }
