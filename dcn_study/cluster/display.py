"""Progress of many runs in one terminal, or as lines of a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

__all__ = ["Display", "duration"]

PAUSE = 60.0  # most seconds between two lines on a run in a log


def duration(seconds: float) -> str:
    """Returns a duration in hours and minutes, or in seconds below one minute."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


class Display:
    """Shows one line per run in a terminal; elsewhere a line at each epoch, and at least one a minute.

    Args:
        runs: names of all runs of the plan. Events of other runs are ignored.
    """

    def __init__(self, runs: Iterable[str]) -> None:
        self.left = set(runs)
        self.terminal = sys.stderr.isatty()
        self.total = tqdm(total=len(self.left), desc="all runs", unit="run", disable=not self.terminal)
        self.bars: dict[str, tqdm] = {}
        self.lines: dict[str, tuple[str, float]] = {}  # last text of each run, and when it was printed

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *exception: Any) -> None:
        for bar in (*self.bars.values(), self.total):
            bar.close()

    def say(self, text: str) -> None:
        """Prints a line above the bars."""
        tqdm.write(text, file=sys.stderr)

    def show(self, run: str, text: str, whole: bool = True) -> None:
        """Shows what a run does; in a log only `whole` news, and anything once a minute."""
        if run not in self.left:
            return
        before, shown = self.lines.get(run, ("", 0.0))
        if self.terminal:
            if run not in self.bars:
                self.bars[run] = tqdm(bar_format="{desc}", leave=False)
            self.bars[run].set_description_str(f"{run}: {text}")
        elif (whole and text != before) or time.monotonic() - shown >= PAUSE:
            self.say(f"{run}: {text}")
            shown = time.monotonic()
        self.lines[run] = (text, shown)

    def finish(self, run: str, failure: str = "") -> None:
        """Removes a run's line; prints why it failed, if it did."""
        self.left.discard(run)
        self.lines.pop(run, None)
        if run in self.bars:
            self.bars.pop(run).close()
        self.total.update()
        if failure:
            self.say(f"{run}: failed: {failure}")
