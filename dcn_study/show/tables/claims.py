"""The table of the paper's claims."""

from __future__ import annotations

import html
from collections.abc import Sequence

import pandas as pd

from dcn_study.experiments.claims import Claim
from dcn_study.names import MODELS

__all__ = ["claims"]


def claims(found: Sequence[Claim], group: str) -> str:
    """Returns the claims of a group as an HTML table, with links to the pages with the evidence.

    Args:
        found: all claims.
        group: one of `claims.GROUPS`.
    """
    rows = [_row(claim) for claim in found if claim.group == group]
    frame = pd.DataFrame(rows)
    if not frame["paper"].any():
        frame = frame.drop(columns="paper")
    with pd.option_context("display.max_colwidth", None):
        return frame.to_html(index=False, escape=False, classes="claims")


def _row(claim: Claim) -> dict[str, str]:
    words = f"{html.escape(claim.words)} ({html.escape(claim.place)})"
    if claim.group != "accuracies":  # which have one rule for all
        words += f' <span class="rule">{html.escape(claim.rule)}</span>'
    return {
        "claim and its test": f'<span id="claim-{claim.name}">{words}</span>',
        "paper": f'<span class="paper">{html.escape(claim.published)}</span>' if claim.published else "",
        "here": f'<span class="here">{html.escape(claim.ours)}</span>',
        "outcome": f'<span class="outcome {claim.outcome.replace(" ", "-")}">{claim.outcome}</span>',
        "evidence": ", ".join(f'<a href="{page}.html">{MODELS.get(page, page)}</a>' for page in claim.pages),
    }
