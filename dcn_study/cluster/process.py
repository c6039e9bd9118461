"""One run in a process of its own: `python -m dcn_study.cluster.process REQUEST`, which a worker starts.

The request is JSON. Messages, one line of JSON each, go to the standard output, an empty one every second; all other
output goes to the standard error. The process ends when nobody reads its messages any more: when its worker is gone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dcn_study.cluster.display import duration
from dcn_study.errors import LockedError
from dcn_study.runs.catalogue import run_of
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.data import data_sha256
from dcn_study.runs.files import file_sha256
from dcn_study.runs.inputs import Inputs, code_sha256, versions
from dcn_study.runs.run import Run

if TYPE_CHECKING:
    from dcn_study.runs.progress import Progress

__all__ = ["installed", "main"]

BEAT = 1.0  # seconds between empty messages, and between attempts to lock a run that another process is about to leave


def installed(config: RunConfig) -> Inputs:
    """Returns what must be the same on client and workers: the code that computes a run, the libraries, the data."""
    return Inputs(code=code_sha256(), versions=versions(), data=data_sha256(config.data))


def main(request: dict[str, Any]) -> int:
    send = _sender()
    try:
        config = RunConfig(**request["configuration"])
        if changes := Inputs(**request["installed"]).changes(installed(config)):
            send(changes="; ".join(changes))
        else:
            send(record=_train(run_of(request["name"], config), request["threads"], request["replaces"], send))
    except Exception as error:
        traceback.print_exc()
        send(error=f"{type(error).__name__}: {error}")
        return 1
    return 0


def _sender() -> Callable[..., None]:
    """Returns a function that sends a message; sends empty ones too from now on."""
    messages, lock = os.fdopen(os.dup(1), "w", buffering=1), threading.Lock()
    os.dup2(2, 1)  # what libraries print does not mix with the messages

    def send(**message: Any) -> None:
        try:
            with lock:
                messages.write(json.dumps(message) + "\n")
        except OSError:  # nobody reads it
            os._exit(1)

    def beat() -> None:
        while True:
            send()
            time.sleep(BEAT)

    threading.Thread(target=beat, daemon=True).start()
    return send


def _train(run: Run, threads: int, replaces: str, send: Callable[..., None]) -> str:
    from dcn_study.runs import training

    began: list[tuple[float, int]] = []  # the time and the step of the first report

    def report(progress: Progress) -> None:
        epoch = f"epoch {progress.epoch} of {progress.epochs}"
        if progress.accuracy is None:
            send(text=f"{epoch}, evaluating, {100 * progress.step // progress.steps}%", whole=False)
            return
        done = (progress.epoch - 1) * progress.steps + progress.step
        began.append((time.monotonic(), done))
        since, first = began[0]
        text = f"{epoch}, accuracy {100 * progress.accuracy:.2f}%"
        if done > first:
            left = (progress.epochs * progress.steps - done) * (time.monotonic() - since) / (done - first)
            text += f", {duration(left)} left"
        send(text=text, whole=progress.step == progress.steps)

    training.use_threads(threads)
    while True:
        # A run that replaces a record and has lost its worker resumes, or is finished already.
        force = run.path.is_file() and file_sha256(run.path) == replaces and not run.interrupted
        try:
            return str(training.train(run, force=force, report=report).path)
        except LockedError as error:  # by the process of a worker that has just gone, or of another cluster
            send(text=str(error), whole=True)
            time.sleep(BEAT)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
