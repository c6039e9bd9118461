"""The numbers that the text of a page pastes in, with a table of them for who opens its notebook."""

from __future__ import annotations

from typing import Any

import pandas as pd
from myst_nb import glue

__all__ = ["Numbers"]


class Numbers(dict[str, Any]):
    """Numbers and texts by name, each glued when it is set: `{glue:text}` in the text pastes it in.

    As the last line of a cell it is a table of those that were set since the last such line.
    """

    def __setitem__(self, name: str, value: Any) -> None:
        glue(name, value, display=False)
        super().__setitem__(name, value)

    def _repr_html_(self) -> str:
        table = pd.DataFrame({"in the text": self.keys(), "value": self.values()}).to_html(index=False)
        self.clear()
        return table
