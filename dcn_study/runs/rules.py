"""Rules for the values of parameters: fields of a run's configuration, and what notebooks state in comments."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from typing import Any

__all__ = ["Rule"]


@dataclasses.dataclass(frozen=True)
class Rule:
    """The valid values of a parameter.

    Attributes:
        text: "1 to 10000" or "from 1", for finite numbers; or names separated by commas.
    """

    text: str

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The valid names; none if the values are numbers."""
        return () if self._bounds else tuple(self.text.split(", "))

    @functools.cached_property
    def words(self) -> str:
        """The rule as it follows "must be" in a message."""
        if self.names:
            return f"one of {self.text}"
        if self.text.startswith("from "):
            return f"at least {self.text.removeprefix('from ')}"
        return f"from {self.text}"

    @functools.cached_property
    def _bounds(self) -> tuple[float, float] | None:
        first, *rest = self.text.split()
        if first == "from":
            return float(rest[0]), math.inf
        return (float(first), float(rest[1])) if rest[:1] == ["to"] else None

    def holds(self, value: Any) -> bool:
        """Returns whether a value is valid."""
        bounds = self._bounds
        if bounds is None:
            return value in self.names
        low, high = bounds
        return low <= value <= min(high, sys.float_info.max)
