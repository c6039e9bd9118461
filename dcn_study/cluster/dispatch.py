"""Hands jobs to the workers of a Dask cluster, one job per worker at a time.

Runs last from minutes to hours, so the client itself chooses which run a free worker takes next. Dask starts workers,
finds out when one is gone, and carries requests and results. A worker that dies costs only the job that it had: jobs
that wait are known to the client alone.
"""

from __future__ import annotations

import contextlib
import heapq
import queue
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from distributed import CancelledError, Client, Future
from distributed.client import ClosedClientError

from dcn_study.errors import StudyError

__all__ = ["ClusterError", "Job", "Work", "dispatch"]

LOOK = 1.0  # seconds between looks at which workers there are
DEATHS = 3  # a job fails if so many workers have died with it
FETCH = 60.0  # seconds for a finished result to arrive


GONE = "the scheduler is gone. Start it and call again: runs resume"


class ClusterError(StudyError):
    """The cluster is gone or has no usable worker; the message says which, and what to do."""


class Job(Protocol):
    """A piece of work: its unique key, and the name of the job that it waits for, if any."""

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def after(self) -> str: ...


class Work(Protocol):
    """Callbacks of a dispatch."""

    def welcome(self, workers: Sequence[str]) -> set[str]:
        """Returns those of the newly found workers that may take jobs."""

    def start(self, job: Any, worker: str, attempt: int) -> tuple[Callable, tuple]:
        """Returns the function that the worker calls, and its arguments; attempts are numbered from 0."""

    def finish(self, job: Any, result: Any) -> None:
        """Takes the result of a job.

        Raises:
            StudyError: if it is of no use; the job has then failed.
        """

    def fail(self, job: Any, reason: str) -> None:
        """Handles a job that has failed, or whose predecessor has."""

    def hear(self, event: dict[str, Any]) -> None:
        """Handles a worker's report on a job."""


def dispatch(client: Client, jobs: Sequence[Job], work: Work, events: queue.SimpleQueue | None = None) -> None:
    """Has workers do all jobs, earlier ones first; returns when each has finished or failed.

    Args:
        client: of the cluster. Workers may come and go.
        jobs: in the order in which free workers take them. A job waits for the one that it names in `after`.
        work: what is done with them.
        events: where reports of workers arrive, for `work.hear`. Finished jobs are announced there too.

    Raises:
        ClusterError: if the scheduler is gone.
    """
    _Dispatch(client, jobs, work, events or queue.SimpleQueue()).run()


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Turns Dask's various errors for a lost scheduler into a `ClusterError`."""
    try:
        yield
    except (ClosedClientError, OSError, TimeoutError) as error:
        raise ClusterError(f"{GONE} ({type(error).__name__}: {error})") from error


class _Dispatch:
    def __init__(self, client: Client, jobs: Sequence[Job], work: Work, events: queue.SimpleQueue) -> None:
        self.client, self.work, self.events = client, work, events
        self.ready: list[tuple[int, Job]] = []  # a heap, in the order of the jobs
        self.waiting: dict[str, list[tuple[int, Job]]] = defaultdict(list)  # by the job that they wait for
        for place in enumerate(jobs):
            if place[1].after:
                self.waiting[place[1].after].append(place)
            else:
                heapq.heappush(self.ready, place)
        self.left = len(jobs)
        self.attempts: dict[str, int] = defaultdict(int)
        self.known: set[str] = set()
        self.free: set[str] = set()
        self.running: dict[str, tuple[tuple[int, Job], Future]] = {}  # by worker

    def run(self) -> None:
        looked = -LOOK
        try:
            while self.left:
                if time.monotonic() - looked >= LOOK:
                    self._look()
                    looked = time.monotonic()
                while self.ready and self.free:
                    self._start(self.free.pop(), heapq.heappop(self.ready))
                try:
                    event = self.events.get(timeout=LOOK)
                except queue.Empty:
                    continue
                if isinstance(event, Future):
                    self._end(event)
                else:
                    self.work.hear(event)
        finally:
            for _, future in self.running.values():
                future.cancel()

    def _look(self) -> None:
        """Finds new and lost workers."""
        with _connected():
            if self.client.status == "connecting":
                return  # Dask tries for a while to reach the scheduler again
            if self.client.status != "running":
                raise ClusterError(GONE)
            # Asked anew, because `Client.scheduler_info` may return an earlier answer without workers.
            scheduler: Any = self.client.scheduler
            present = set(self.client.sync(scheduler.identity, n_workers=-1)["workers"])
            new = present - self.known
            self.known = present
            self.free = (self.free & present) | (self.work.welcome(sorted(new)) if new else set())
        for worker in set(self.running) - present:
            self._lost(worker, "its worker is gone")

    def _start(self, worker: str, place: tuple[int, Job]) -> None:
        job = place[1]
        attempt = self.attempts[job.name]
        try:
            function, arguments = self.work.start(job, worker, attempt)
        except StudyError as error:
            self.free.add(worker)
            self._fail(job, str(error))
            return
        key = f"{job.key}-{attempt}" if attempt else job.key
        with _connected():
            future = self.client.submit(function, *arguments, key=key, workers=[worker], pure=False)
        self.running[worker] = (place, future)
        future.add_done_callback(self.events.put)

    def _end(self, future: Future) -> None:
        worker = next((each for each, (_, other) in self.running.items() if other is future), None)
        if worker is None:  # of a worker that was given up
            return
        try:
            result = future.result(timeout=FETCH)
        except (TimeoutError, CancelledError) as error:
            self._lost(worker, f"its worker or the scheduler is gone ({type(error).__name__})")
            return
        except Exception as error:  # whatever the job raised
            (_, job), _ = self.running.pop(worker)
            self.free.add(worker)
            self._fail(job, str(error))
            return
        (_, job), _ = self.running.pop(worker)
        self.free.add(worker)
        try:
            self.work.finish(job, result)
        except StudyError as error:
            self._fail(job, str(error))
            return
        self.left -= 1
        for place in self.waiting.pop(job.name, ()):
            heapq.heappush(self.ready, place)

    def _lost(self, worker: str, why: str) -> None:
        """Queues the job of a lost worker again, unless too many workers have died with it."""
        place, future = self.running.pop(worker)
        future.cancel()
        self.known.discard(worker)  # if it is there after all, it is welcomed anew
        job = place[1]
        self.attempts[job.name] += 1
        if self.attempts[job.name] < DEATHS:
            heapq.heappush(self.ready, place)
        else:
            self._fail(job, f"{why}; so many died with this run: {DEATHS}")

    def _fail(self, job: Job, reason: str) -> None:
        self.left -= 1
        self.work.fail(job, reason)
        for _, later in self.waiting.pop(job.name, ()):
            self._fail(later, f"it starts from {job.name}, which failed")
