"""Training on Dask workers gives the records of serial training, whatever dies meanwhile."""

import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, inside, keep, make, started, weights_of
from train_small import SMALL

from dcn_study import cli
from dcn_study.cluster import train, worker
from dcn_study.cluster.dispatch import ClusterError
from dcn_study.cluster.plan import Task, plan
from dcn_study.cluster.train import connect, train_all
from dcn_study.errors import RecordError
from dcn_study.runs import records
from dcn_study.runs.catalogue import record_name, run_config

PROGRAM = Path(__file__).with_name("train_small.py")
DASK = Path(sys.executable).with_name("dask")
# At how many random moments each kind of process is killed, in trials of their own; 0: all kinds in one trial.
KILLS = int(os.environ.get("DCN_KILLS", "0"))
ALL_VICTIMS = ("scheduler", "client", "worker")


def new_project(root):
    (root / "book" / "records").mkdir(parents=True)
    (root / "_config.yml").touch()
    return root


def results(root):
    """All that the records of small runs hold, but times and versions of the machine."""
    with inside(root):
        found = [records.read(config) for config in SMALL]
    return [record and (timeless(record.history), record.evaluations, record.witness) for record in found]


def timeless(history):
    return [epoch.model_copy(update={"seconds": 0}) for epoch in history]


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """The results of training in one process, with one thread."""
    root = new_project(tmp_path_factory.mktemp("serial"))
    subprocess.run([sys.executable, PROGRAM, "here"], cwd=root, check=True, capture_output=True)
    found = results(root)
    assert all(found)
    return found


@pytest.fixture
def apart(monkeypatch):
    """Makes workers unable to see the client's folder."""
    see = worker.describe

    def describe(token, dask_worker):
        return dataclasses.replace(see(token, dask_worker), shares=False)

    monkeypatch.setattr(train, "describe", describe)


def test_without_a_shared_folder_the_client_writes_and_sends_what_a_run_starts_from(client, project, apart):
    shutil.copytree(ROOT / "book" / "records", project / "book" / "records", ignore=lambda _, names: {
        name for name in names if name not in ("cnn.json", "cnn.weights.h5")
    })  # fmt: skip
    config = run_config("cnn_batch_norm", epochs=1, train_size=32, test_size=20)
    tasks = plan([config])
    assert train_all(client, tasks) == {}
    record = records.read(config)
    assert str(records.standing(config, record)) in ("fresh", "confirmed")
    assert record.provenance.inputs.weights == {"cnn": records.read(run_config("cnn")).provenance.weights}
    assert not (project / "logs").exists()
    written = record.path.stat().st_mtime_ns
    assert train_all(client, tasks) == {}  # the workers have kept it, and the client has it already
    assert record.path.stat().st_mtime_ns == written


def test_a_record_that_does_not_hold_here_is_not_written(project, monkeypatch):
    config = SMALL[0]
    made = make(config)
    work = object.__new__(train._Training)  # noqa: SLF001
    weights = weights_of(config)
    records.write(made)
    content = made.path.read_bytes()
    made.path.unlink()
    for record, given, told in (
        (content, b"other", "does not hold here: weights"),
        (content[:-9], weights, "is not a valid record"),
    ):
        with pytest.raises(RecordError, match=told):
            work.finish(Task(config, made.name, "key"), worker.Files(made.path.name, record, given))
    other = run_config("mini_resnet", epochs=1, train_size=64, test_size=40)
    with pytest.raises(RecordError, match="must hold the record of run mini_resnet-.* Received: that of "):
        work.finish(Task(other, "other", "key"), worker.Files(made.path.name, content, weights))
    monkeypatch.setattr("dcn_study.runs.records.runs.versions", lambda: {"Keras": "99.0"})
    with pytest.raises(RecordError, match=r"does not hold here: .*Keras .*, now 99\.0"):
        work.finish(Task(config, made.name, "key"), worker.Files(made.path.name, content, weights))
    assert not list(made.path.parent.iterdir())


def test_a_run_that_fails_says_which_and_why_and_where_its_log_is(client, project, capsys):
    keep(run_config("cnn"))  # its weights are no weights
    small = {"epochs": 1, "train_size": 32, "test_size": 20}
    bad, good = run_config("cnn_batch_norm", **small), run_config("mini_resnet", **small)
    failures = train_all(client, plan([bad, good]))
    name = record_name(bad)
    assert set(failures) == {name}
    log = project / "logs" / f"{name}.log"
    assert f"; log: {log} on " in failures[name]
    assert "Traceback" in log.read_text()
    assert f"{name}: failed: {failures[name]}" in capsys.readouterr().err
    assert records.read(good) is not None


def test_workers_with_other_software_are_refused_by_name(client, project, monkeypatch, capsys):
    here = worker.installed()
    monkeypatch.setattr(train, "installed", lambda: {**here, "TensorFlow": "99.0", "data": "other"})
    with pytest.raises(ClusterError, match="no worker of the cluster may be used"):
        train_all(client, plan(SMALL))
    told = capsys.readouterr().err
    assert f"is refused: it has TensorFlow {here['TensorFlow']}, here 99.0; data {here['data']}, here other" in told


def hear_interrupts():
    """Undoes what a shell does to its background jobs, whose children would ignore the signal like the tests."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_the_command_gives_the_records_of_serial_runs_bit_by_bit_although_it_was_interrupted(project, serial):
    """The signal reaches all processes of a terminal, as this one does all processes of a group."""
    command = [sys.executable, PROGRAM, "command"]
    with subprocess.Popen(
        command,
        cwd=project,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    ) as training:
        while not list((project / "checkpoints").glob("*/state.json")):
            assert training.poll() is None
            time.sleep(0.02)
        os.killpg(training.pid, signal.SIGINT)
        told = training.communicate()[1]
    assert training.returncode == 130
    assert "Traceback" not in told
    assert any(records.interrupted(config) for config in SMALL)
    done = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True)
    assert results(project) == serial
    assert {records.read(config).provenance.machine.threads for config in SMALL} == {1}
    assert plan(SMALL) == []
    names = [record_name(config) for config in SMALL]
    assert {line.split()[0] for line in done.stdout.splitlines()} == set(names)
    assert f"{done.stdout.split()[0]}: epoch 6 of 6, accuracy " in done.stderr
    assert all((project / "logs" / f"{name}.log").is_file() for name in names)


def test_the_command_says_if_nobody_answers(project, monkeypatch, capsys):
    monkeypatch.setattr(cli, "_chosen", lambda names: SMALL)
    monkeypatch.setattr(train, "ANSWER", 0.5)
    assert cli.main(["train", "--scheduler", "tcp://127.0.0.1:9"]) == 1
    assert "no scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err


SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
SCHEDULER = ("scheduler", "--host", "127.0.0.1", "--port", "0")
WORKER = ("worker", "ADDRESS", "--nworkers", "2", "--nthreads", "1", "--memory-limit", "0")


@pytest.mark.parametrize("tested", [SCHEDULER, WORKER])
def test_the_commands_of_the_page_are_the_tested_ones(tested):
    page = json.loads((ROOT / "notebooks" / "cluster.ipynb").read_text(encoding="utf-8"))
    text = "".join(line for cell in page["cells"] for line in cell["source"])
    (command,) = re.findall(rf"^\.venv/bin/dask {tested[0]} (.*)$", text, flags=re.MULTILINE)
    assert re.findall(r"--[a-z-]+", command) == [part for part in tested if part.startswith("--")]


@contextlib.contextmanager
def scheduler(root):
    """A scheduler as the page on clusters starts it; gives its process and its address."""
    file = root / "scheduler.json"
    file.unlink(missing_ok=True)
    with started([DASK, *SCHEDULER, "--no-dashboard", "--scheduler-file", file], root, **SILENT) as process:
        while not (file.is_file() and file.read_text().endswith("}")):
            assert process.poll() is None
            time.sleep(0.05)
        yield process, json.loads(file.read_text())["address"]


def workers(root, address):
    """Two workers, each with a nanny."""
    command = [address if part == "ADDRESS" else part for part in WORKER]
    return started([DASK, *command, "--no-dashboard", "--local-directory", root / "scratch"], root, **SILENT)


@contextlib.contextmanager
def train_here(root, address):
    """The client, as a process; gives it once a run has a checkpoint, or all are finished."""
    with subprocess.Popen([sys.executable, PROGRAM, address], cwd=root, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list((root / "checkpoints").glob("*/state.json")):
            time.sleep(0.02)
        yield process


def kill_a_worker(address, random):
    with connect(address) as client:
        found = client.run(os.getpid)
    if found:
        os.kill(random.choice(sorted(found.values())), signal.SIGKILL)


@pytest.mark.parametrize("number", range(max(1, KILLS)))
@pytest.mark.parametrize("victims", [("scheduler",), ("client",), ("worker",)] if KILLS else [ALL_VICTIMS])
def test_whatever_is_killed_the_records_equal_serial_ones(tmp_path, serial, victims, number):
    """Processes are killed at random moments; where one ends the command, the same command is given again."""
    chance, root = random.Random(f"{victims} {number}"), new_project(tmp_path)
    for victim in victims:
        with (
            scheduler(root) as (scheduling, address),
            workers(root, address),
            train_here(root, address) as training,
        ):
            time.sleep(chance.uniform(0, 1 if len(victims) > 1 else 4))
            if victim == "worker":
                kill_a_worker(address, chance)
            else:
                {"scheduler": scheduling, "client": training}[victim].kill()
            told = training.communicate()[1]
            finished = [result for result in results(root) if result]
            assert all(result in serial for result in finished)
            if victim == "worker":
                assert training.returncode == 0, told
            elif victim == "scheduler" and training.returncode != 0:
                assert "the scheduler is gone" in told
    if victims[-1] != "worker":
        with scheduler(root) as (_, address), workers(root, address), train_here(root, address) as training:
            told = training.communicate()[1]
            assert training.returncode == 0, told
    assert results(root) == serial
