"""Clients of a Dask cluster: of a new one on this machine, or of any that runs."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker

import dask
from distributed import CancelledError, Client, LocalCluster, TimeoutError
from distributed.client import ClosedClientError
from distributed.utils import silence_logging_cmgr

from dcn_study.errors import ClusterError

__all__ = ["GONE", "connect", "connected", "local"]

GONE = "the scheduler is gone. Start it and call again: runs resume"
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
def local(workers: int) -> Iterator[Client]:
    """Gives a client of a new cluster on this machine, reachable from this machine alone."""
    with dask.config.set(LOCAL), contextlib.ExitStack() as stack:
        with _deaf_to_interrupts():
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    worker_dashboard_address="127.0.0.1:0",
                    memory_limit=0,  # runs have processes of their own, and Dask does not weigh them
                    silence_logs=logging.CRITICAL,  # a worker that dies is reported here
                )
            )
        yield stack.enter_context(Client(cluster))


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Keeps Ctrl+C, which a terminal sends to all of its processes, from processes and threads started meanwhile.

    This process ends them itself. It hears a Ctrl+C at the end of the block.
    """
    resource_tracker.ensure_running()  # which would lift the block where it is started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def connect(address: str) -> Iterator[Client]:
    """Gives a client of a running cluster.

    Raises:
        ClusterError: if no scheduler answers there.
    """
    with silence_logging_cmgr(logging.CRITICAL):
        try:
            client = Client(address, timeout=ANSWER)
        except (OSError, ValueError, TimeoutError) as error:
            raise ClusterError(f"no scheduler answers at {address}: {error}") from error
        with client:
            yield client


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Turns Dask's various errors for a lost scheduler into a `ClusterError`. Surrounds only calls of Dask."""
    try:
        yield
    except (CancelledError, ClosedClientError, OSError, TimeoutError) as error:
        raise ClusterError(GONE) from error
