"""Plans a set of runs: which are left to train, in which order, and how long that takes."""

from __future__ import annotations

import collections
import dataclasses
import heapq
import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from dcn_study.runs import records
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.records import Record
from dcn_study.runs.run import Run

__all__ = ["Slot", "Task", "plan", "schedule"]


@dataclasses.dataclass(frozen=True)
class Task:
    """A run that is left to train.

    Attributes:
        run: what is trained.
        after: name of the run of the plan that it starts from; empty if there is none.
        seconds: expected duration, from earlier records; None if there is no record of a similar run.
    """

    run: Run
    after: str = ""
    seconds: float | None = None

    @property
    def name(self) -> str:
        return self.run.name


@dataclasses.dataclass(frozen=True)
class Slot:
    """When and where a planned run is expected to train, in seconds from now; workers are numbered from 0."""

    task: Task
    worker: int
    start: float
    end: float


def plan(runs: Iterable[Run], *, force: bool = False) -> list[Task]:
    """Returns the runs that are left to train, in the order in which workers take them.

    Lower seeds come first, so that every run has its first seeds early. Within a seed, the run whose own duration and
    that of the runs after it take longest comes first. A run comes after the one that it starts from.

    Args:
        runs: those wanted.
        force: whether to train runs that have a record as well.

    Raises:
        ConfigurationError: if a run starts from one that has no record and is not in the plan.
        DataError, RecordError: if the data or a record are damaged.
    """
    left = [run for run in dict.fromkeys(runs) if force or records.matching(run) is None or run.interrupted]
    expected = _expected(records.existing())
    tasks: dict[str, Task] = {}
    for run in sorted(left, key=lambda run: bool(run.config.initial_run)):  # the runs that others start from first
        initial = records.initial_run(run.config)
        after = initial.name if initial and initial.name in tasks else ""
        if not after:
            records.current_inputs(run.config)  # raises an error if something is missing or damaged
        tasks[run.name] = Task(run, after, expected(run))
    paths = _paths(tasks)
    return sorted(tasks.values(), key=lambda task: (task.run.seed, -paths[task.name], bool(task.after), task.name))


def schedule(tasks: Sequence[Task], workers: int) -> list[Slot]:
    """Returns the expected timetable of a plan on a number of workers, in the order of the starts.

    A free worker takes the first run of the plan whose predecessor, if it has one, is finished. Runs of unknown
    duration are taken to last as long as the median of the known ones.
    """
    usual = statistics.median([task.seconds for task in tasks if task.seconds is not None] or [0.0])
    free = [(0.0, worker) for worker in range(workers)]
    waiting, ends, slots = list(tasks), {"": 0.0}, list[Slot]()
    while waiting:
        now, worker = heapq.heappop(free)
        task = next((task for task in waiting if ends.get(task.after, math.inf) <= now), None)
        if task is None:  # waits for the next run to end
            heapq.heappush(free, (min(end for end in ends.values() if end > now), worker))
            continue
        waiting.remove(task)
        ends[task.name] = now + (usual if task.seconds is None else task.seconds)
        slots.append(Slot(task, worker, now, ends[task.name]))
        heapq.heappush(free, (ends[task.name], worker))
    return slots


def _expected(known: Iterable[Record]) -> Callable[[Run], float | None]:
    """Returns what gives the expected duration of a run: its epochs times their median in the records most like it.

    These are the records of the same run with any seed, or else those of its model.
    """
    rates: dict[RunConfig | str, list[float]] = collections.defaultdict(list)
    for record in known:
        for kind in (_alike(record.config), record.config.model):
            rates[kind].append(record.provenance.seconds / len(record.history))

    def expected(run: Run) -> float | None:
        found = rates.get(_alike(run.config)) or rates.get(run.config.model)
        return run.config.epochs * statistics.median(found) if found else None

    return expected


def _alike(config: RunConfig) -> RunConfig:
    return dataclasses.replace(config, epochs=1, seed=0)


def _paths(tasks: dict[str, Task]) -> dict[str, float]:
    """Returns for each task its duration and that of the longest run that waits for it."""
    longest = dict.fromkeys(tasks, 0.0)
    for task in tasks.values():
        if task.after:
            longest[task.after] = max(longest[task.after], task.seconds or 0.0)
    return {name: longest[name] + (task.seconds or 0.0) for name, task in tasks.items()}
