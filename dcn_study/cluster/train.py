"""Trains the runs of a plan on the workers of a Dask cluster."""

from __future__ import annotations

import hashlib
import queue
import shutil
import time
import uuid
from collections.abc import Callable, Container, Mapping, Sequence

from distributed import CancelledError, Client, Future, Scheduler, TimeoutError
from tqdm import tqdm

from dcn_study.cluster.connection import GONE, connected
from dcn_study.cluster.display import Display
from dcn_study.cluster.plan import Task
from dcn_study.cluster.process import installed
from dcn_study.cluster.worker import MARK, TOPIC, Request, read, train, write
from dcn_study.errors import ClusterError, RecordError, StudyError
from dcn_study.runs import records
from dcn_study.runs.files import file_sha256, locked, project_root, replacing
from dcn_study.runs.records import Record

__all__ = ["train_all"]

LOOK = 30.0  # seconds between looks at whether there is a worker
FETCH = 60.0  # seconds for a finished result to arrive


def train_all(
    client: Client,
    tasks: Sequence[Task],
    *,
    threads: int = 1,
    force: bool = False,
    finished: Callable[[Record], object] = lambda record: None,
) -> dict[str, str]:
    """Trains all runs of a plan on the workers of a cluster, and writes their records as they come.

    Dask does the scheduling: each thread of a worker takes the first run of the plan that is ready. A run whose worker
    dies is given to another one, where it resumes. A run gets the files of the run that it starts from as its argument.

    Args:
        client: of the cluster. Workers may come and go.
        tasks: the plan, see `plan.plan`.
        threads: for an operation of TensorFlow, in each run.
        force: whether to train from nothing, although there may be records or checkpoints.
        finished: called with each record once it is written.

    Returns:
        The reason of each run that failed, by name.

    Raises:
        ClusterError: if the scheduler is gone, or a worker has other software or data than this client.
        LockedError: if `force`, and another process trains one of the runs.
    """
    arrivals: queue.SimpleQueue[dict | str] = queue.SimpleQueue()  # events of runs, and names of those that have ended
    by_name, failures, look = {task.name: task for task in tasks}, dict[str, str](), 0.0
    with Display(by_name) as display:
        with connected():
            client.run_on_scheduler(_set_up)
            client.subscribe_topic(TOPIC, lambda event: arrivals.put(event[1]))
        futures = _submitted(client, tasks, threads, force)
        for future in futures.values():
            future.add_done_callback(lambda future: arrivals.put(future.key[1]))
        while futures:
            if time.monotonic() >= look:
                look = time.monotonic() + LOOK
                with connected():
                    if not client.nthreads():
                        display.say("no worker yet, waiting")
            try:
                arrived = arrivals.get(timeout=1.0)
            except queue.Empty:
                continue
            if isinstance(arrived, dict):
                display.show(arrived["run"], arrived["text"], arrived.get("whole", True))
                continue
            try:
                record = _received(by_name[arrived], futures, failures)
            except TimeoutError:  # its worker died before the result arrived, and Dask has the run done again
                futures[arrived].add_done_callback(lambda future: arrivals.put(future.key[1]))
                continue
            except ClusterError:
                raise
            except Exception as error:  # whatever the run raised
                failures[arrived] = str(error)
            futures.pop(arrived).release()  # a result that Dask remembers is made again if its worker dies
            display.finish(arrived, failures.get(arrived, ""))
            if arrived not in failures:
                with tqdm.external_write_mode():  # what it prints goes above the bars
                    finished(record)
    return failures


def _set_up(dask_scheduler: Scheduler) -> None:
    """Makes a scheduler hold runs back until a worker is free, and then give it the first one.

    By default Dask would share out all runs at once, as it does with tasks that take seconds. And after a run has lost
    three workers Dask would give it up, which is too early where workers have a time limit.
    """
    dask_scheduler.WORKER_SATURATION = 1.0
    dask_scheduler.rootish_tg_threshold = dask_scheduler.rootish_tg_dependencies_threshold = 1_000_000
    dask_scheduler.allowed_failures = 100


def _submitted(client: Client, tasks: Sequence[Task], threads: int, force: bool) -> dict[str, Future]:
    """Submits all runs of a plan; returns their futures by name."""
    futures, mark = dict[str, Future](), project_root() / MARK
    if not mark.is_file():
        with replacing(mark) as temporary:
            temporary.write_text(uuid.uuid4().hex, encoding="utf-8")
    for number, task in enumerate(tasks):
        run, replaces = task.run, ""
        if force:
            replaces = file_sha256(run.path) if run.path.is_file() else "nothing"
            with locked(run.lock, f"run {run.name}"):
                shutil.rmtree(run.checkpoint, ignore_errors=True)
        request = Request(
            name=run.name,
            configuration=run.config.to_dict(),
            installed=installed(run.config).model_dump(),
            threads=threads,
            replaces=replaces,
            root=str(project_root()),
            mark=mark.read_text(encoding="utf-8"),
        )
        first = None if task.after else records.initial_record(run.config)
        initial = futures[task.after] if task.after else read(first.path) if first else None
        digest = hashlib.sha256(repr(request).encode()).hexdigest()[:12]  # the same request is trained only once
        with connected():
            key = ("run", task.name, digest)  # all are of one group, which `_set_up` has Dask queue
            futures[task.name] = client.submit(train, request, initial, key=key, priority=-number)
    return futures


def _received(task: Task, futures: Mapping[str, Future], failures: Container[str]) -> Record:
    """Returns the record of a run that has ended, after writing it and the files next to it.

    Raises:
        StudyError: if the run failed, or if its record does not hold here. Dask passes on other errors of the run too.
        ClusterError: if the scheduler is gone or the worker cannot be used.
        TimeoutError: if the result does not arrive.
    """
    if task.after in failures or (task.after in futures and futures[task.after].status == "error"):
        raise StudyError(f"it starts from {task.after}, which failed")
    try:
        files = futures[task.name].result(timeout=FETCH)
    except CancelledError as error:
        raise ClusterError(GONE) from error
    config, path = task.run.config, task.run.path
    record = records.parse(files[path.name], path, Record)
    changes = record.provenance.inputs.changes(records.current_inputs(config))
    if record.config != config:
        changes.append("configuration")
    for name, digest in (
        (record.weights_path.name, record.provenance.weights),
        (record.predictions_path.name, record.provenance.predictions),
    ):
        if digest and hashlib.sha256(files.get(name, b"")).hexdigest() != digest:
            changes.append(name)
    if changes:
        raise RecordError(f"the worker sent a record that does not hold here: {'; '.join(changes)}")
    write(files, path.parent)
    return record
