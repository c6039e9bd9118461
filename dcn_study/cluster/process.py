"""One run in a process of its own: `python -m dcn_study.cluster.process`, which a worker starts.

The request is one line of JSON on the standard input. Messages, one line of JSON each, go to the standard output; all
other output goes to the standard error. The process ends at once when its standard input is closed: when the worker
stops the run, or is gone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
import traceback
from typing import Any, TextIO

from dcn_study.errors import LockedError
from dcn_study.runs.catalogue import is_named
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.files import project_root

__all__ = ["main"]

PATIENCE = 1.0  # seconds between attempts to lock a run that another process is about to leave


def main() -> int:
    request = json.loads(sys.stdin.readline())
    messages = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print does not mix with the messages
    threading.Thread(target=_end_with_the_worker, daemon=True).start()
    try:
        path = _train(RunConfig(**request["configuration"]), request["force"], request["threads"], messages)
    except Exception as error:
        traceback.print_exc()
        _send(messages, error=f"{type(error).__name__}: {error}")
        return 1
    _send(messages, record=path)
    return 0


def _train(config: RunConfig, force: bool, threads: int, messages: TextIO) -> str:
    from dcn_study.runs import training

    training.use_threads(threads)
    while True:
        try:
            record = training.train(
                config,
                book=is_named(config),
                force=force,
                report=lambda progress: _send(messages, progress=dataclasses.asdict(progress)),
            )
        except LockedError as error:  # the process of a worker that has just been stopped, or of another cluster
            _send(messages, waiting=str(error))
            time.sleep(PATIENCE)
        else:
            return str(record.path.relative_to(project_root()))


def _send(messages: TextIO, **message: Any) -> None:
    messages.write(json.dumps(message) + "\n")


def _end_with_the_worker() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
