"""What it costs to hand out runs to Dask workers: empty and sleeping jobs on local clusters of several sizes."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import time
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from dcn_study.cluster.dispatch import dispatch
from dcn_study.errors import ConfigurationError, StudyError
from dcn_study.runs import records
from dcn_study.runs.records import Measurement

__all__ = ["scale"]


def scale(*, workers: int, empty_jobs: int, sleeping_jobs: int, sleep: float, force: bool = False) -> Measurement:
    """Measures how many jobs the client and the scheduler hand out, with one process per worker on this machine.

    Args:
        workers: the largest number of worker processes; the smaller ones are 1, 2, 4 and so on.
        empty_jobs: how many jobs that do nothing.
        sleeping_jobs: how many jobs that sleep.
        sleep: for how long each, in seconds.
        force: whether to measure although there is a record.

    Returns:
        A measurement with the results "dask", its version, and "rows", one per number of workers: seconds for all
        empty and for all sleeping jobs, milliseconds per empty job, the share of the workers' time spent asleep, and
        the resident memory of scheduler and client after all jobs, in bytes.

    Raises:
        ConfigurationError: if a parameter breaks its rule.
    """
    for name, value in (("workers", workers), ("empty_jobs", empty_jobs), ("sleeping_jobs", sleeping_jobs)):
        if value < 1:
            raise ConfigurationError(f"{name} must be at least 1. Received: {name}={value}")
    if not sleep > 0:
        raise ConfigurationError(f"sleep must be above 0. Received: sleep={sleep}")

    sizes = [2**power for power in range(workers.bit_length())]

    def measure() -> dict[str, Any]:
        rows = [_measure(size, empty_jobs, sleeping_jobs, sleep) for size in tqdm(sizes, desc="clusters")]
        return {"dask": importlib.metadata.version("distributed"), "rows": rows}

    parameters = {"workers": workers, "empty_jobs": empty_jobs, "sleeping_jobs": sleeping_jobs, "sleep": sleep}
    return records.measurement("scale", parameters, measure, force=force)


@dataclasses.dataclass(frozen=True)
class _Job:
    name: str
    key: str
    after: str = ""


class _Nap:
    """The work of a dispatch whose jobs sleep, or return at once."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.failures = seconds, list[str]()

    def welcome(self, workers: Sequence[str]) -> set[str]:
        return set(workers)

    def start(self, job: _Job, worker: str, attempt: int) -> tuple[Callable, tuple]:
        return time.sleep, (self.seconds,)

    def finish(self, job: _Job, result: None) -> None:
        pass

    def fail(self, job: _Job, reason: str) -> None:
        self.failures.append(reason)

    def hear(self, event: dict[str, Any]) -> None:
        pass


def _measure(size: int, empty_jobs: int, sleeping_jobs: int, sleep: float) -> dict[str, Any]:
    from distributed import Client
    from distributed.deploy.subprocess import SubprocessCluster

    with (
        SubprocessCluster(
            host="127.0.0.1", n_workers=size, threads_per_worker=1, worker_kwargs={"memory_limit": 0}
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(size)
        empty = _seconds(client, "empty", empty_jobs, 0.0)
        sleeping = _seconds(client, "sleeping", sleeping_jobs, sleep)
        return {
            "workers": size,
            "empty_seconds": empty,
            "milliseconds": 1000 * empty / empty_jobs,
            "sleeping_seconds": sleeping,
            "utilisation": sleeping_jobs * sleep / (size * sleeping),
            "scheduler_bytes": client.run_on_scheduler(resident_bytes),
            "client_bytes": resident_bytes(),
        }


def _seconds(client: Any, kind: str, count: int, sleep: float) -> float:
    jobs = [_Job(f"{kind} {number}", f"{kind}-{number}") for number in range(count)]
    nap = _Nap(sleep)
    started = time.perf_counter()
    dispatch(client, jobs, nap)
    seconds = time.perf_counter() - started
    if nap.failures:
        raise StudyError(f"{len(nap.failures)} of {count} jobs failed: {nap.failures[0]}")
    return seconds


def resident_bytes() -> int:
    """Returns the resident memory of this process."""
    import psutil

    return psutil.Process().memory_info().rss
