"""A run as a Dask task: starts the run's process, passes on its progress, and returns its files.

The worker itself stays light and answers the scheduler while TensorFlow computes, however long a step takes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from distributed import Status, get_worker

from dcn_study.errors import ClusterError, StudyError
from dcn_study.processes import WAS_KILLED
from dcn_study.runs import records
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.files import replacing

__all__ = ["MARK", "TOPIC", "Files", "Request", "read", "train", "write"]

TOPIC = "dcn train"  # where all runs report their progress
MARK = "checkpoints/.folder"  # identifies a project's folder: who finds it at the same path shares the folder
# The nanny of a worker sets these to 1; a run has the environment of the command `dcn train` without workers.
SET_BY_NANNY = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_")

Files = dict[str, bytes]  # the files of a run by name: weights, predictions if it has any, record


@dataclasses.dataclass(frozen=True)
class Request:
    """A run to be trained.

    Attributes:
        name: name of its record.
        configuration: all fields of its `RunConfig`.
        installed: what the client has, see `process.installed`.
        threads: for an operation of TensorFlow.
        replaces: digest of the record that is to be replaced, or "nothing"; empty if any valid record will do.
        root: the project's folder on the client.
        mark: content of its `MARK`.
    """

    name: str
    configuration: dict[str, Any]
    installed: dict[str, Any]
    threads: int
    replaces: str
    root: str
    mark: str


def read(record: Path) -> Files:
    """Returns the files of a run whose record is at this path."""
    paths = (record.with_suffix(suffix) for suffix in (".weights.h5", ".predictions.npz", ".json"))
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def write(files: Files, folder: Path) -> None:
    """Writes files that a folder does not have, each whole or not at all, the record last."""
    for name, content in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            with replacing(path) as temporary:
                temporary.write_bytes(content)


def train(request: Request, initial: Files | None) -> Files:
    """Trains a run in a process of its own, with reports to `TOPIC`, and returns its files.

    A valid record that is already in the folder is returned at once. If the task is cancelled or the worker closes, the
    process is killed; the last complete epoch stays.

    Args:
        request: the run.
        initial: files of the run that it starts from, if any.

    Raises:
        StudyError: if the run fails; the message says why and where its log is.
        ClusterError: if this worker has other software or data than the client.
    """
    worker, mark = get_worker(), Path(request.root, MARK)
    key, last = worker.get_current_task(), {"text": f"starts on {worker.address}"}
    shares = mark.is_file() and mark.read_text(encoding="utf-8") == request.mark
    root = Path(request.root) if shares else _own_project(request, initial or {})
    log = root / "logs" / f"{request.name}.log"
    log.parent.mkdir(exist_ok=True)
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            [sys.executable, "-m", "dcn_study.cluster.process", json.dumps(dataclasses.asdict(request))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            cwd=root,
            env={name: value for name, value in os.environ.items() if name not in SET_BY_NANNY},
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:  # at least one a second
            task = worker.state.tasks.get(key)
            if task is None or task.state != "executing" or worker.status in (Status.closing, Status.closed):
                process.kill()  # cancelled, or the scheduler is gone; Dask cannot stop this thread
            last = json.loads(line) or last
            if "text" in last:
                worker.log_event(TOPIC, {"run": request.name, **last})
    where = f"log: {log} on {worker.address}"
    if "changes" in last:
        raise ClusterError(
            f"worker {worker.address} is not like this client: {last['changes']}. Stop it and call again"
        )
    if "record" not in last:
        killed = process.returncode == -signal.SIGKILL
        ended = WAS_KILLED if killed else f"its process ended with exit code {process.returncode}"
        raise StudyError(f"{last.get('error', ended)}; {where}")
    return read(Path(last["record"]))


def _own_project(request: Request, initial: Files) -> Path:
    """Returns a project in the folder of this worker, kept while the worker lives.

    Runs that start from other weights or replace another record have another one, and find no files of each other.
    """
    origin = request.replaces.encode() + b"".join(initial.values())
    root = Path(get_worker().local_directory, f"project-{hashlib.sha256(origin).hexdigest()[:12]}")
    (root / "book").mkdir(parents=True, exist_ok=True)
    (root / "_config.yml").touch()
    first = records.initial_run(RunConfig(**request.configuration))
    if first is not None:
        write(initial, root / first.folder)
    return root
