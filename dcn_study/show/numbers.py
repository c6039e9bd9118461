"""The numbers that the text of a page pastes in, with a table of them for who opens its notebook."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pandas as pd
from myst_nb import glue

__all__ = ["Numbers"]


class Numbers(MutableMapping[str, Any]):
    """Numbers and texts by name, each glued when it is set: `{glue:text}` in the text pastes it in.

    As the last line of a cell it is a table of those that were set since the last such line.
    """

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._shown: set[str] = set()

    def __setitem__(self, name: str, value: Any) -> None:
        glue(name, value, display=False)
        self._values[name] = value
        self._shown.discard(name)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __delitem__(self, name: str) -> None:
        raise TypeError("what is glued stays")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def _repr_html_(self) -> str:
        new = {name: value for name, value in self.items() if name not in self._shown}
        self._shown.update(new)
        return pd.DataFrame({"in the text": new.keys(), "value": new.values()}).to_html(index=False)
