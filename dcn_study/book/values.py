"""The numbers of a page for programs: every glued value as JSON, with the records that the page shows.

The next major version of Jupyter Book cannot glue; a page that reads this file does not depend on it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

from dcn_study.runs.files import file_sha256

if TYPE_CHECKING:
    from dcn_study.book.sources import Source

__all__ = ["glued", "values_file", "write_values"]


def values_file(page: str) -> str:
    """Returns the path of a page's values in the rendered book."""
    return f"executed/{page}.values.json"


def glued(notebook: nbformat.NotebookNode) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Returns what an executed notebook has glued.

    Returns:
        The values by name, as numbers and texts; and for figures and tables, by name, the media types of their forms.
    """
    values: dict[str, Any] = {}
    displays: dict[str, list[str]] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            scrap = output.get("metadata", {}).get("scrapbook")
            if scrap is None:
                continue
            forms = {kind.removeprefix(scrap["mime_prefix"]): content for kind, content in output.data.items()}
            if forms.keys() == {"text/plain"}:
                values[scrap["name"]] = _value(forms["text/plain"])
            else:
                displays[scrap["name"]] = sorted(forms)
    return values, displays


def _value(text: str) -> Any:
    """Returns the number or text that Python shows as this text, or, of any other object, the text itself."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
    return value if isinstance(value, bool | int | float | str | None) else text


def write_values(
    page: str, parameters: Mapping[str, Any], shown: Iterable[Source], notebook: nbformat.NotebookNode, target: Path
) -> None:
    """Writes the values of an executed page, with its parameters and the records that it shows."""
    values, displays = glued(notebook)
    content = {
        "page": page,
        "parameters": dict(parameters),
        "records": [
            {"path": f"records/{source.path.name}", "status": str(source.status), "sha256": file_sha256(source.path)}
            for source in shown
        ],
        "values": values,
        "displays": displays,
    }
    target.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
