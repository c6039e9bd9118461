"""Trains the runs of a plan on Dask workers: on this machine, or on any running cluster."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import queue
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster
from tqdm import tqdm

from dcn_study.cluster.dispatch import ClusterError, dispatch
from dcn_study.cluster.display import Display
from dcn_study.cluster.plan import Task
from dcn_study.cluster.worker import Files, Request, Visit, describe, installed, train
from dcn_study.errors import RecordError
from dcn_study.runs import records
from dcn_study.runs.catalogue import is_named
from dcn_study.runs.files import project_root
from dcn_study.runs.records import Record

__all__ = ["connect", "local", "train_all"]

ANSWER = 10.0  # seconds for a scheduler to answer
# A nanny would set OMP_NUM_THREADS and the like in the environment of this process, for good. Dask looks at itself a
# hundred times a second, which takes a tenth of a processor from the runs. And it gives up a worker that died if none
# has started in its place after 15 seconds, which may take longer while runs keep all processors busy.
LOCAL = {
    "distributed.nanny.pre-spawn-environ": {},
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.deploy.lost-worker-timeout": "1000 days",
}


@contextlib.contextmanager
def local(workers: int, threads: int) -> Iterator[Client]:
    """Gives a client of a new cluster on this machine, reachable from this machine alone."""
    with dask.config.set(LOCAL):
        with _deaf_to_interrupts():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=threads,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                memory_limit=0,  # runs have processes of their own, and Dask does not weigh them
                silence_logs=logging.CRITICAL,  # a worker that dies is reported here
            )
        with cluster, Client(cluster) as client:
            yield client


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Makes processes started meanwhile ignore Ctrl+C, which a terminal sends to all of its processes.

    This process ends them itself.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def connect(address: str) -> Iterator[Client]:
    """Gives a client of a running cluster.

    Raises:
        ClusterError: if no scheduler answers there.
    """
    try:
        client = Client(address, timeout=ANSWER)
    except (OSError, ValueError, TimeoutError) as error:
        raise ClusterError(f"no scheduler answers at {address}: {error}") from error
    with client:
        yield client


def train_all(
    client: Client,
    tasks: Sequence[Task],
    *,
    threads: int = 0,
    force: bool = False,
    finished: Callable[[Record], object] = lambda record: None,
) -> dict[str, str]:
    """Trains all runs of a plan on the workers of a cluster, and writes their records as they come.

    Args:
        client: of the cluster.
        tasks: the plan.
        threads: for an operation of TensorFlow; 0 for as many as the worker has.
        force: whether to train from nothing, although there may be records or checkpoints.
        finished: called with each record once it is written.

    Returns:
        The reason of each run that failed, by name.

    Raises:
        ClusterError: if the scheduler is gone or no worker may be used.
    """
    topic = f"dcn {client.id}"
    events: queue.SimpleQueue = queue.SimpleQueue()
    with tempfile.NamedTemporaryFile(dir=_checkpoints(), prefix=".client.") as token, Display(tasks) as display:
        if importlib.util.find_spec("bokeh") and "dashboard" in client.scheduler_info()["services"]:
            display.say(f"dashboard: {client.dashboard_link}")
        client.subscribe_topic(topic, lambda event: events.put(event[1]))
        try:
            work = _Training(client, token.name, topic, threads, force, display, finished)
            dispatch(client, tasks, work, events)
        finally:
            with contextlib.suppress(OSError, ValueError):
                client.unsubscribe_topic(topic)
    return work.failures


def _checkpoints() -> Path:
    folder = project_root() / "checkpoints"
    folder.mkdir(exist_ok=True)
    return folder


class _Training:
    """Training as the work of a dispatch."""

    def __init__(
        self,
        client: Client,
        token: str,
        topic: str,
        threads: int,
        force: bool,
        display: Display,
        finished: Callable[[Record], object],
    ) -> None:
        self.client, self.token, self.topic = client, token, topic
        self.threads, self.force, self.display, self.finished = threads, force, display, finished
        self.here = installed()
        self.visits: dict[str, Visit] = {}
        self.failures: dict[str, str] = {}

    def welcome(self, workers: Sequence[str]) -> set[str]:
        found = self.client.run(describe, self.token, workers=list(workers), on_error="return")
        accepted = set()
        for worker, visit in found.items():
            if isinstance(visit, BaseException):
                self.display.say(f"worker {worker} is refused: {type(visit).__name__}: {visit}")
                continue
            differences = [
                f"{name} {visit.installed[name]}, here {version}"
                for name, version in self.here.items()
                if visit.installed[name] != version
            ]
            if differences:
                self.display.say(f"worker {worker} is refused: it has {'; '.join(differences)}")
            else:
                self.visits[worker] = visit
                accepted.add(worker)
        if not self.visits:
            raise ClusterError("no worker of the cluster may be used: each has other software or data than this client")
        return accepted

    def start(self, job: Task, worker: str, attempt: int) -> tuple[Callable, tuple]:
        visit, root = self.visits[worker], project_root()
        initial = records.initial_record(job.config)
        request = Request(
            name=job.name,
            configuration=job.config.to_dict(),
            root=str(root) if visit.shares else "",
            threads=self.threads or visit.threads,
            # A later attempt resumes what an earlier one has begun from nothing.
            force=self.force and not (attempt and visit.shares and records.interrupted(job.config)),
            initial=Files.read(initial.path) if initial and not visit.shares else None,
            topic=self.topic,
        )
        self.display.start(job.name, worker)
        return train, (request,)

    def finish(self, job: Task, result: Files) -> None:
        path = records.record_path(job.config, book=is_named(job.config))
        record = records.parse(result.record, path)
        changes = record.provenance.inputs.changes(records.current_inputs(job.config))
        if record.config != job.config:
            changes.append("configuration")
        if record.provenance.weights != hashlib.sha256(result.weights).hexdigest():
            changes.append("weights")
        if changes:
            raise RecordError(f"the worker sent a record that does not hold here: {'; '.join(changes)}")
        result.write(path)
        self.display.finish(job.name)
        with tqdm.external_write_mode():  # what it prints goes above the bars
            self.finished(record)

    def fail(self, job: Task, reason: str) -> None:
        self.failures[job.name] = reason
        self.display.fail(job.name, reason)

    def hear(self, event: dict[str, Any]) -> None:
        self.display.hear(event)
