"""Functions called in a process of their own, which ends with the command that started it, however that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from dcn_study.errors import StudyError

__all__ = ["WAS_KILLED", "apart", "end_with_parent", "interruptible"]

WAS_KILLED = "its process was killed, as the system does when memory runs out"

LOOK = 1.0  # seconds between looks at whether the parent is there

Result = TypeVar("Result")


def apart(function: Callable[..., Result], argument: Any) -> Result:
    """Calls a function in a process of its own: training leaves TensorFlow set to be deterministic, which shows.

    Raises:
        StudyError: if the process is killed. The function's own errors are passed on.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    with interruptible(), ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, argument).result()
        except BrokenProcessPool as error:
            raise StudyError(WAS_KILLED) from error


def _kill_children() -> None:
    import multiprocessing

    for child in multiprocessing.active_children():
        child.kill()


@contextlib.contextmanager
def interruptible(kill: Callable[[], None] = _kill_children) -> Iterator[None]:
    """Has Ctrl-C kill the processes that this one has started and would wait for.

    Args:
        kill: ends them; by default those started through `multiprocessing`.
    """

    def interrupt(*_: object) -> None:
        kill()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_with_parent() -> None:
    """Has this process end with the one that started it through `multiprocessing`, if any, and leave Ctrl-C to it.

    To be called when modules are imported: the processes of a pool import the one of the command before anything else.
    """
    if "--multiprocessing-fork" not in sys.orig_argv:
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(1)

    signal.signal(signal.SIGINT, lambda *_: None)  # what is ignored, programs that it starts would ignore too
    threading.Thread(target=watch, daemon=True).start()
