"""Jobs on the workers of a Dask cluster: order, failures, workers that come and go."""

import dataclasses
import functools
import os
import queue
import signal
import time

import dask
import distributed
import pytest

from dcn_study.cluster.dispatch import DEATHS, ClusterError, dispatch
from dcn_study.cluster.train import local
from dcn_study.errors import StudyError


@dataclasses.dataclass(frozen=True)
class Job:
    name: str
    after: str = ""

    @property
    def key(self):
        return f"{self.name}-key"


class Noted:
    """Work that notes what happens; jobs call the functions in `calls`, by name, and return at once by default."""

    def __init__(self, **calls):
        self.calls, self.started, self.finished, self.failed, self.heard = calls, [], [], {}, []
        self.accepted, self.welcomed = None, []

    def welcome(self, workers):
        self.welcomed += workers
        return set(workers) if self.accepted is None else set(workers) & self.accepted

    def start(self, job, worker, attempt):
        self.started.append((job.name, worker, attempt))
        return self.calls.get(job.name, len), ("",)

    def finish(self, job, result):
        self.finished.append(job.name)

    def fail(self, job, reason):
        self.failed[job.name] = reason

    def hear(self, event):
        self.heard.append(event)


def test_earlier_jobs_are_taken_first_and_each_worker_has_one(client):
    work = Noted(**{f"job{number}": lambda _: time.sleep(0.05) for number in range(8)})
    jobs = [Job(f"job{number}") for number in range(8)]
    dispatch(client, jobs, work)
    assert [name for name, _, _ in work.started] == [job.name for job in jobs]
    assert sorted(work.finished) == [job.name for job in jobs]
    assert {worker for _, worker, _ in work.started} == set(work.welcomed)
    assert len(work.welcomed) == 2


def test_a_job_waits_for_the_one_that_it_names(client):
    work = Noted(first=lambda _: time.sleep(0.2))
    dispatch(client, [Job("later", after="first"), Job("first"), Job("other")], work)
    assert [name for name, _, _ in work.started] == ["first", "other", "later"]
    assert work.finished.index("first") < work.finished.index("later")


def fail(_):
    raise StudyError("no luck; log: here")


def test_a_job_that_fails_takes_only_those_along_that_wait_for_it(client):
    work = Noted(bad=fail)
    jobs = [Job("bad"), Job("next", after="bad"), Job("last", after="next"), Job("good"), Job("fine", after="good")]
    dispatch(client, jobs, work)
    assert sorted(work.finished) == ["fine", "good"]
    assert work.failed == {
        "bad": "no luck; log: here",
        "next": "it starts from bad, which failed",
        "last": "it starts from next, which failed",
    }


def test_a_result_or_a_start_that_is_refused_is_a_failure(client):
    work = Noted()
    work.finish = lambda job, result: fail(job)
    dispatch(client, [Job("one"), Job("two", after="one")], work)
    assert set(work.failed) == {"one", "two"}
    work = Noted()
    work.start = lambda job, worker, attempt: fail(job)
    dispatch(client, [Job("three")], work)
    assert work.failed == {"three": "no luck; log: here"}


def test_refused_workers_take_no_jobs(client):
    work = Noted()
    work.accepted = {next(iter(client.scheduler_info()["workers"]))}
    dispatch(client, [Job(f"some{number}") for number in range(5)], work)
    assert {worker for _, worker, _ in work.started} == work.accepted
    assert len(work.finished) == 5


def test_a_worker_is_not_taken_for_gone_because_the_client_asked_without_workers(client, monkeypatch):
    """Dask's client asks the scheduler every two seconds, without workers, and `scheduler_info` may return that."""
    update = client._update_scheduler_info  # noqa: SLF001
    monkeypatch.setattr(client, "_update_scheduler_info", lambda n_workers=0: update(0))
    assert not client.scheduler_info()["workers"]
    work = Noted(**{f"slow{number}": lambda _: time.sleep(1.5) for number in range(2)})
    dispatch(client, [Job(f"slow{number}") for number in range(2)], work)
    assert sorted(work.finished) == ["slow0", "slow1"]
    assert {attempt for _, _, attempt in work.started} == {0}


def test_reports_are_heard(client):
    events = queue.SimpleQueue()
    client.subscribe_topic("reports", lambda event: events.put(event[1]))
    work = Noted(talk=lambda _: report())

    def report():
        from distributed import get_worker

        get_worker().log_event("reports", {"said": "hello"})
        time.sleep(0.3)

    dispatch(client, [Job("talk")], work, events)
    assert [event["said"] for event in work.heard] == ["hello"]


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(path, _):
    if not path.exists():
        path.touch()
        die(_)


@pytest.fixture
def processes():
    """Two workers in processes of their own, which are started again if they die."""
    with local(2, 1) as client:
        yield client


def test_a_worker_that_dies_costs_only_its_own_job_and_not_for_ever(processes, tmp_path):
    work = Noted(deadly=die, unlucky=functools.partial(die_once, tmp_path / "died"))
    jobs = [Job("deadly"), Job("unlucky"), *(Job(f"safe{number}") for number in range(4)), Job("heir", after="deadly")]
    dispatch(processes, jobs, work)
    assert sorted(work.finished) == ["safe0", "safe1", "safe2", "safe3", "unlucky"]
    assert [attempt for name, _, attempt in work.started if name == "deadly"] == list(range(DEATHS))
    assert f"so many died with this run: {DEATHS}" in work.failed["deadly"]
    assert work.failed["heir"] == "it starts from deadly, which failed"


def test_a_worker_that_starts_again_slowly_is_not_given_up(tmp_path):
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1ms"}), local(1, 1) as client:
        client.submit(die_once, tmp_path / "died", "").result(timeout=60)


def test_a_scheduler_that_is_gone_is_said(tmp_path):
    cluster = distributed.LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0", silence_logs=50)
    client = distributed.Client(cluster, timeout=3)
    work = Noted(long=lambda _: time.sleep(2))
    start = work.start

    def stop(*given):
        cluster.close()
        return start(*given)

    work.start = stop
    with pytest.raises(ClusterError, match="the scheduler is gone"):
        dispatch(client, [Job("long")], work)
    client.close()
