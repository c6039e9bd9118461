"""The table of the paper's claims."""

from __future__ import annotations

import html
from collections.abc import Sequence

import pandas as pd

from dcn_study.experiments.claims import Claim

__all__ = ["claims"]


def claims(found: Sequence[Claim], group: str) -> str:
    """Returns the claims of a group as an HTML table, with links to the pages with the evidence.

    Args:
        found: all claims.
        group: one of `claims.GROUPS`.
    """
    rows = [
        {
            "claim": f'<span id="claim-{claim.name}">{html.escape(claim.words)}</span>',
            "place": html.escape(claim.place),
            "paper": html.escape(claim.published or "–"),
            "here": html.escape(claim.ours),
            "outcome": f'<span class="outcome {claim.outcome.replace(" ", "-")}">{claim.outcome}</span>',
            "rule": html.escape(claim.rule),
            "evidence": ", ".join(f'<a href="{page}.html">{page}</a>' for page in claim.pages),
        }
        for claim in found
        if claim.group == group
    ]
    with pd.option_context("display.max_colwidth", None):
        return pd.DataFrame(rows).to_html(index=False, escape=False, classes="claims")
