"""Progress of a cluster's training in one terminal: a line per running run, and one for all of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from dcn_study.cluster.plan import Task

__all__ = ["Display", "duration"]


def duration(seconds: float) -> str:
    """Returns a duration in hours and minutes, or in seconds below one minute."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


class Display:
    """Progress of many runs. Where the output is not a terminal, one line per epoch.

    Args:
        tasks: the plan.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.terminal = sys.stderr.isatty()
        self.total = tqdm(total=len(tasks), desc="all runs", unit="run", disable=not self.terminal)
        self.bars: dict[str, tqdm] = {}
        self.begun: dict[str, tuple[float, int]] = {}  # when the first message came, and how many steps were done then

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *exception: Any) -> None:
        for bar in [*self.bars.values(), self.total]:
            bar.close()

    def say(self, text: str) -> None:
        """Prints a line above the bars."""
        tqdm.write(text, file=sys.stderr)

    def start(self, run: str, worker: str) -> None:
        if self.terminal:
            self.bars[run] = tqdm(bar_format="{desc}", leave=False)
            self._show(run, f"starts on {worker}")
        else:
            self.say(f"{run}: starts on {worker}")

    def hear(self, event: dict[str, Any]) -> None:
        """Shows a message of the process that trains a run, see `dcn_study.cluster.process`."""
        run = event["run"]
        if "waiting" in event:
            self._show(run, event["waiting"])
        if "progress" not in event:
            return
        progress = event["progress"]
        done = (progress["epoch"] - 1) * progress["steps"] + progress["step"]
        since, first = self.begun.setdefault(run, (time.monotonic(), done))
        text = f"epoch {progress['epoch']} of {progress['epochs']}, accuracy {100 * progress['accuracy']:.2f}%"
        if done > first:
            left = progress["epochs"] * progress["steps"] - done
            text += f", {duration(left * (time.monotonic() - since) / (done - first))} left"
        self._show(run, text, whole=progress["step"] == progress["steps"])

    def finish(self, run: str) -> None:
        self._remove(run)
        self.total.update()

    def fail(self, run: str, reason: str) -> None:
        self._remove(run)
        self.total.update()
        self.say(f"{run}: failed: {reason}")

    def _show(self, run: str, text: str, whole: bool = True) -> None:
        if run in self.bars:
            self.bars[run].set_description_str(f"{run}: {text}")
        elif not self.terminal and whole:
            self.say(f"{run}: {text}")

    def _remove(self, run: str) -> None:
        self.begun.pop(run, None)
        if run in self.bars:
            self.bars.pop(run).close()
