"""Code that runs on a Dask worker: reports what is installed, and trains a run in a separate process.

The worker itself stays light and answers the scheduler while TensorFlow computes, however long a step takes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distributed import Worker, get_worker

from dcn_study.errors import StudyError
from dcn_study.runs.data import data_sha256
from dcn_study.runs.files import replacing
from dcn_study.runs.inputs import RUN_CODE, code_sha256, versions

__all__ = ["Files", "Request", "RunError", "Visit", "describe", "installed", "train"]

# What decides how a run is trained, resumed and recorded.
CODE = (
    *RUN_CODE,
    *(f"dcn_study.runs.{name}" for name in ("catalogue", "configuration", "data", "files", "training", "weights")),
    *(f"dcn_study.runs.records.{name}" for name in ("form", "measurements", "runs")),
)
# The nanny of a worker sets these to 1; a run has the environment of the command `dcn train` without workers.
SET_BY_NANNY = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_")


class RunError(StudyError):
    """A run failed; the message says why and where its log is."""


@dataclasses.dataclass(frozen=True)
class Files:
    """The content of a record and of the weights next to it; `name` is the record's file name."""

    name: str
    record: bytes
    weights: bytes

    @classmethod
    def read(cls, record: Path) -> Files:
        return cls(record.name, record.read_bytes(), record.with_suffix(".weights.h5").read_bytes())

    def write(self, record: Path) -> None:
        """Writes both, each whole or not at all, the weights first: a record without its weights would not hold."""
        for path, content in ((record.with_suffix(".weights.h5"), self.weights), (record, self.record)):
            if not path.is_file() or path.read_bytes() != content:
                with replacing(path) as temporary:
                    temporary.write_bytes(content)

    def sha256(self) -> str:
        return hashlib.sha256(self.record + self.weights).hexdigest()


@dataclasses.dataclass(frozen=True)
class Visit:
    """A worker as the client finds it: versions and digests by name, threads, whether it shares the client's folder."""

    installed: dict[str, str]
    threads: int
    shares: bool


@dataclasses.dataclass(frozen=True)
class Request:
    """A run to be trained.

    Attributes:
        name: name of its record.
        configuration: all fields of its `RunConfig`.
        root: the project's folder on the client; empty if the worker does not share it.
        threads: for an operation of TensorFlow.
        force: whether to train from nothing, although there may be a record or a checkpoint.
        initial: the run that it starts from, if any; for workers that do not share the folder.
        topic: where progress is reported.
    """

    name: str
    configuration: dict[str, Any]
    root: str
    threads: int
    force: bool
    initial: Files | None
    topic: str


def installed() -> dict[str, str]:
    """Returns what must be the same on client and workers, by name."""
    packages = {"dcn": "deformable-conv-digits", "dcn_study": "deformable-conv-digits-study"}
    found = {name: importlib.metadata.version(package) for name, package in packages.items()}
    return {**found, "code": code_sha256(CODE)[:12], **versions(), "data": data_sha256()[:12]}


def describe(token: str, dask_worker: Worker) -> Visit:
    """Returns what a client finds on a worker.

    Args:
        token: path of a file of the client, which the worker sees only if it shares the folder.
        dask_worker: the worker; Dask fills this in.
    """
    return Visit(installed(), dask_worker.state.nthreads, Path(token).is_file())


def train(request: Request) -> Files:
    """Trains a run in a new process, reports its progress, and returns its record and weights.

    A valid record that is already in the folder is returned at once. If the run is cancelled, its process is ended;
    its last complete epoch stays.

    Raises:
        RunError: if the run fails.
    """
    worker, key = get_worker(), _current_key()
    root = Path(request.root) if request.root else _own_project(Path(worker.local_directory), request.initial)
    log = root / "logs" / f"{request.name}.log"
    log.parent.mkdir(exist_ok=True)
    last: dict[str, Any] = {}
    with _process(root, log, request) as process, _ended_if_cancelled(worker, key, process):
        assert process.stdout is not None
        for line in process.stdout:
            last = json.loads(line)
            worker.log_event(request.topic, {"run": request.name, **last})
    where = f"log: {log} on {worker.address}"
    if "error" in last:
        raise RunError(f"{last['error']}; {where}")
    if "record" not in last:
        raise RunError(f"its process ended with exit code {process.returncode}; {where}")
    return Files.read(root / last["record"])


def _current_key() -> str:
    from distributed.worker import thread_state

    return thread_state.key


def _own_project(folder: Path, initial: Files | None) -> Path:
    """Returns a project in the folder of this worker, kept while the worker lives.

    There is one for each run from whose weights others start, so that a record made from other weights is not found.
    """
    root = folder / (f"project-{initial.sha256()[:12]}" if initial else "project")
    (root / "book").mkdir(parents=True, exist_ok=True)
    (root / "_config.yml").touch()
    if initial is not None:
        initial.write(root / "book" / "records" / initial.name)
    return root


@contextlib.contextmanager
def _process(root: Path, log: Path, request: Request) -> Iterator[subprocess.Popen]:
    content = {"configuration": request.configuration, "force": request.force, "threads": request.threads}
    environment = {name: value for name, value in os.environ.items() if name not in SET_BY_NANNY}
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "dcn_study.cluster.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            cwd=root,
            env=environment,
        )
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(content) + "\n")
            process.stdin.flush()
            yield process
            process.wait()
        finally:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def _ended_if_cancelled(worker: Worker, key: str, process: subprocess.Popen) -> Iterator[None]:
    """Kills the process of a cancelled task, because Dask cannot stop the thread that waits for it."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            task = worker.state.tasks.get(key)
            if task is None or task.state != "executing":
                process.kill()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
