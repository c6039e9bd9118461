"""Outcomes of claims with choices to switch."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path

from dcn_study.experiments.multiverse import GROUPS, LETTERS, Multiverse, option

__all__ = ["switches"]

TEMPLATE = Path(__file__).with_suffix(".html")
STATED = "These are the outcomes with the stated choices."


def switches(found: Mapping[str, Multiverse]) -> str:
    """Returns HTML that shows the outcomes of claims in one universe: one switches each choice, from the stated one.

    Without scripts it shows the outcomes with the stated choices. It loads neither a script nor a style sheet.

    Args:
        found: group of claims, a key of `multiverse.GROUPS` → its outcomes.
    """
    data = {
        "letters": LETTERS,
        "stated": STATED,
        "groups": {
            group: {"choices": each.choices, "stated": each.stated, "outcomes": each.outcomes}
            for group, each in found.items()
        },
    }
    groups = "\n".join(_group(group, each) for group, each in found.items())
    return TEMPLATE.read_text(encoding="utf-8").replace("GROUPS", groups).replace("DATA", json.dumps(data))


def _group(group: str, found: Multiverse) -> str:
    title = GROUPS[group].capitalize()
    controls = "".join(
        f"<label>{name.capitalize()}: <select>{_options(found, name)}</select></label>" for name in found.choices
    )
    rows = "".join(
        f'<tr><th scope="row">{html.escape(claim)}</th>'
        f'<td><span class="outcome {found.outcome(claim)}">{found.outcome(claim)}</span></td></tr>'
        for claim in found.outcomes
    )
    return (
        f'<fieldset data-group="{group}"><legend>{title}</legend>'
        f'<div class="controls" hidden>{controls}<button type="button">Back to the stated choices</button></div>'
        '<table><thead><tr><th scope="col">claim</th><th scope="col">outcome</th>'
        f"</tr></thead><tbody>{rows}</tbody></table>"
        f'<p aria-live="polite">{STATED}</p></fieldset>'
    )


def _options(found: Multiverse, name: str) -> str:
    options = []
    for each in found.choices[name]:
        text, stated = html.escape(option(name, each)), each == found.stated[name]
        options.append(f"<option selected>{text} (stated)</option>" if stated else f"<option>{text}</option>")
    return "".join(options)
