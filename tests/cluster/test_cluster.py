"""Training on Dask workers gives the records of serial training, whatever dies meanwhile."""

import contextlib
import functools
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import dask
import distributed
import pytest
from helpers import ROOT, cluster_here, inside, keep, make, new_project, results_of, started, weights_of
from train_small import SMALL

import dcn_study.runs
from dcn_study import cli
from dcn_study.cluster import connection, display, process, train, worker
from dcn_study.cluster.connection import connect
from dcn_study.cluster.plan import Task, plan
from dcn_study.cluster.train import train_all
from dcn_study.errors import ClusterError, RecordError, StudyError
from dcn_study.runs import records
from dcn_study.runs.catalogue import find_run, run_of, seeds_of
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.progress import Progress
from dcn_study.runs.run import CHECKPOINT

PROGRAM = Path(__file__).with_name("train_small.py")
DASK = Path(sys.executable).with_name("dask")
# At how many random moments each kind of process is killed, in trials of their own; 0: all kinds in one trial.
KILLS = int(os.environ.get("DCN_KILLS", "0"))
ALL_VICTIMS = ("scheduler", "client", "worker")


def results(root):
    """All that the records of small runs hold, but times and versions of the machine."""
    with inside(root):
        found = [records.read(run) for run in SMALL]
    return [record and results_of(record) for record in found]


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """The results of training in one process, with one thread."""
    root = new_project(tmp_path_factory.mktemp("serial"))
    subprocess.run([sys.executable, PROGRAM, "here"], cwd=root, check=True, capture_output=True)
    found = results(root)
    assert all(found)
    return found


STARTED = []  # requests and the names of the files that they came with


def made_up(request, initial, seconds, fails):
    """Takes the place of `worker.train`: makes a record up, or fails."""
    STARTED.append((request, sorted(initial or {})))
    time.sleep(seconds)
    if request.name in fails:
        raise StudyError("no luck; log: here")
    run = run_of(request.name, RunConfig(**request.configuration))
    return worker.read(keep(run).path)


@pytest.fixture
def fake(monkeypatch):
    """Has workers, which are threads of this process, train nothing."""
    STARTED.clear()

    def replace(seconds=0.0, fails=()):
        monkeypatch.setattr(train, "train", functools.partial(made_up, seconds=seconds, fails=fails))

    return replace


def test_lower_seeds_start_first(client, project, fake):
    """By default Dask shares out runs that start from others at once, and a worker that is done early takes any."""
    fake(seconds=0.05)
    names = ("cnn", "cnn_batch_norm", "cnn_scaled", "mini_resnet")
    assert train_all(client, plan(run for name in names for run in seeds_of(name, 6))) == {}
    seeds = [request.configuration["seed"] for request, _ in STARTED]
    assert all(seed <= later + 1 for place, seed in enumerate(seeds) for later in seeds[place:]), str(seeds)


def test_a_run_gets_the_files_of_the_one_that_it_starts_from(client, project, fake):
    fake()
    assert train_all(client, plan([find_run("cnn"), find_run("cnn_batch_norm")])) == {}
    assert train_all(client, plan([find_run("cnn_scaled")])) == {}  # the first is on record now
    files = ["cnn.json", "cnn.weights.h5"]
    assert [(request.name, names) for request, names in STARTED] == [
        *(("cnn", []), ("cnn_batch_norm", files), ("cnn_scaled", files))
    ]


def test_a_run_that_fails_takes_only_those_along_that_start_from_it(client, project, fake, capsys):
    fake(fails=["cnn"])
    tasks = plan(run for name in ("cnn", "cnn_batch_norm") for run in seeds_of(name, 2))
    failures = {"cnn": "no luck; log: here", "cnn_batch_norm": "it starts from cnn, which failed"}
    assert train_all(client, tasks) == failures
    assert "cnn: failed: no luck; log: here" in capsys.readouterr().err
    assert plan(task.run for task in tasks if task.name not in failures) == []


def test_a_cluster_without_workers_is_said_until_there_is_one(project, fake, monkeypatch, capsys):
    fake()
    monkeypatch.setattr(train, "LOOK", 0.2)
    with cluster_here(0) as cluster, distributed.Client(cluster) as client:
        threading.Timer(2.5, cluster.scale, [1]).start()
        assert train_all(client, plan([find_run("cnn")])) == {}
    assert capsys.readouterr().err.count("no worker yet, waiting") > 1


def test_a_scheduler_that_is_gone_is_said(project, fake):
    fake(seconds=2.0)
    with cluster_here(1) as cluster, distributed.Client(cluster, timeout=3) as client:
        threading.Timer(0.5, cluster.close).start()
        with pytest.raises(ClusterError, match=r"the scheduler is gone\. Start it and call again"):
            train_all(client, plan([find_run("cnn")]))


def die_once(path):
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_starts_again_slowly_is_not_given_up(tmp_path):
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1ms"}), connection.local(1) as client:
        client.submit(die_once, tmp_path / "died").result(timeout=60)


def test_without_a_shared_folder_the_client_writes_and_sends_what_a_run_starts_from(client, project, monkeypatch):
    monkeypatch.setattr(train, "MARK", "checkpoints/.other")  # which the workers do not look for
    shutil.copytree(ROOT / "book" / "records", project / "book" / "records", ignore=lambda _, names: {
        name for name in names if name not in ("cnn.json", "cnn.weights.h5")
    })  # fmt: skip
    run = find_run("cnn_batch_norm", epochs=1, train_size=32, test_size=20)
    tasks = plan([run])
    assert train_all(client, tasks) == {}
    record = records.read(run)
    assert str(records.status(run, record)) in ("fresh", "confirmed")
    assert record.provenance.inputs.weights == {"cnn": records.read(find_run("cnn")).provenance.weights}
    assert not (project / "logs").exists()


def test_without_a_shared_folder_runs_from_other_weights_find_no_files_of_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "get_worker", lambda: types.SimpleNamespace(local_directory=tmp_path))
    run = find_run("cnn_batch_norm")
    one, other = (
        worker.Request(run.name, run.config.to_dict(), {}, threads=1, replaces=replaces, root="", mark="")
        for replaces in ("", "a record")
    )
    weights = [{"cnn.weights.h5": content} for content in (b"one", b"other")]
    folders = [worker._own_project(*given) for given in ((one, weights[0]), (one, weights[1]), (other, weights[0]))]  # noqa: SLF001
    assert len(set(folders)) == 3
    assert worker._own_project(one, weights[0]) == folders[0]  # noqa: SLF001
    assert (folders[0] / "book" / "records" / "cnn.weights.h5").read_bytes() == b"one"
    beyond = find_run("cnn_batch_norm", seed=99)  # starts from a run that the book does not show
    request = worker.Request(beyond.name, beyond.config.to_dict(), {}, threads=1, replaces="", root="", mark="")
    folder = worker._own_project(request, {"cnn-seed99.weights.h5": b"its"})  # noqa: SLF001
    with inside(folder):
        assert records.initial_run(beyond.config).path.with_suffix(".weights.h5").read_bytes() == b"its"


def test_without_a_shared_folder_stored_predictions_come_along(client, project, monkeypatch):
    run, predictions = find_run("scale_cnn", epochs=1), b"classes"

    def train_elsewhere(request, initial):
        record = keep(run, predictions=hashlib.sha256(predictions).hexdigest())
        record.predictions_path.write_bytes(predictions)
        files = worker.read(record.path)
        shutil.rmtree(record.path.parent)
        return files

    monkeypatch.setattr(train, "train", train_elsewhere)
    assert train_all(client, plan([run])) == {}
    record = records.read(run)
    assert str(records.status(run, record)) == "fresh"
    assert record.predictions_path.read_bytes() == predictions


def test_a_record_that_does_not_hold_here_is_not_written(project, monkeypatch):
    made = make(SMALL[0])
    records.write(made)
    content = made.path.read_bytes()
    made.path.unlink()

    def receive(run, record, weights):
        files = {made.weights_path.name: weights, f"{run.name}.json": record}
        ended = types.SimpleNamespace(status="finished", result=lambda timeout: files)
        train._received(Task(run), {run.name: ended}, {})  # noqa: SLF001

    other, weights = find_run("mini_resnet", epochs=1, train_size=64, test_size=40), weights_of(SMALL[0])
    for sent, told in (
        ((SMALL[0], content, b"other"), "does not hold here: mini_resnet-.*weights.h5"),
        ((SMALL[0], content[:-9], weights), "is not a valid record"),
        ((other, content, weights), "must hold the record of run mini_resnet-.* Received: that of "),
    ):
        with pytest.raises(RecordError, match=told):
            receive(*sent)
    monkeypatch.setattr(records, "versions", lambda: {"Keras": "99.0"})
    with pytest.raises(RecordError, match=r"does not hold here: .*Keras .*, now 99\.0"):
        receive(SMALL[0], content, weights)
    assert not made.path.exists()


def test_a_run_that_fails_says_why_and_where_its_log_is(client, project, capsys):
    keep(find_run("cnn"))  # its weights are no weights
    bad = find_run("cnn_batch_norm", epochs=1, train_size=32, test_size=20)
    failures = train_all(client, plan([bad]))
    name = bad.name
    assert set(failures) == {name}
    log = project / "logs" / f"{name}.log"
    assert f"; log: {log} on " in failures[name]
    assert "Traceback" in log.read_text()
    assert f"{name}: failed: {failures[name]}" in capsys.readouterr().err


def test_a_run_that_the_system_kills_says_so(client, project, monkeypatch):
    program = project / "python"  # in place of the process that trains
    program.write_text("#!/bin/sh\nkill -KILL $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    config = find_run("cnn", epochs=1)
    (failure,) = train_all(client, plan([config])).values()
    assert failure.startswith("its process was killed, as the system does when memory runs out; log: ")


def test_a_worker_with_other_software_ends_the_command_which_names_it(client, project, monkeypatch):
    other = process.installed(SMALL[0].config).model_copy(update={"versions": {"Keras": "99.0"}})
    monkeypatch.setattr(train, "installed", lambda config: other)
    with pytest.raises(ClusterError, match=r"worker .* is not like this client: .*Keras 99\.0, now "):
        train_all(client, plan(SMALL))


def test_force_replaces_the_record_that_is_there_once(client, project, fake, monkeypatch):
    """A run that has lost its worker is started again by the same request, and must not start from nothing then."""
    fake()
    run, forced = find_run("cnn"), []
    record = keep(run)
    checkpoint = run.checkpoint / CHECKPOINT
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    train_all(client, plan([run], force=True), force=True)
    assert not checkpoint.exists()
    (request, _), *_ = STARTED
    stub = types.SimpleNamespace(use_threads=len, train=lambda run, force, **_: forced.append(force) or record)
    monkeypatch.setattr(dcn_study.runs, "training", stub, raising=False)

    def attempt():
        process._train(run, [], request.replaces, print)  # noqa: SLF001

    attempt()
    checkpoint.parent.mkdir()
    checkpoint.touch()
    attempt()
    checkpoint.unlink()
    keep(run, seconds=1.0)
    attempt()
    assert forced == [True, False, False]


def test_an_evaluation_on_a_worker_is_reported(project, monkeypatch):
    run, told = find_run("cnn"), []
    record = keep(run)

    def evaluate(run, report, **given):
        report(Progress("cnn", 2, 10, 3, 10))
        return record

    stub = types.SimpleNamespace(use_threads=len, train=evaluate)
    monkeypatch.setattr(dcn_study.runs, "training", stub, raising=False)
    process._train(run, [], "", lambda **message: told.append(message))  # noqa: SLF001
    assert told == [{"text": "epoch 2 of 10, evaluating, 30%", "whole": False}]


def test_a_log_has_a_line_at_each_epoch_and_one_a_minute(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: clock[0])
    with display.Display(["cnn"]) as shown:
        for seconds, text, whole in (
            *((0, "starts", True), (1, "step 1", False), (1, "epoch 1", True), (1, "epoch 1", True)),
            *((58, "step 2", False), (2, "step 3", False)),
        ):
            clock[0] += seconds
            shown.show("cnn", text, whole)
        shown.show("another client's", "starts")
    assert capsys.readouterr().err.split("\n") == ["cnn: starts", "cnn: epoch 1", "cnn: step 3", ""]


def hear_interrupts():
    """Undoes what a shell does to its background jobs, whose children would ignore the signal like the tests."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_the_command_gives_the_records_of_serial_runs_bit_by_bit_although_it_was_interrupted(project, serial):
    """The signal reaches all processes of a terminal, as this one does all processes of a group."""
    command = [sys.executable, PROGRAM, "command"]
    with subprocess.Popen(
        command, cwd=project, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=hear_interrupts
    ) as training:
        while not list((project / "checkpoints").glob("*/state.json")):
            assert training.poll() is None
            time.sleep(0.02)
        os.killpg(training.pid, signal.SIGINT)
        told = training.communicate()[1]
    assert training.returncode == 130
    assert "Traceback" not in told
    assert any(run.interrupted for run in SMALL)
    done = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True)
    assert results(project) == serial
    assert {records.read(run).provenance.machine.threads for run in SMALL} == {1}
    assert plan(SMALL) == []
    names = [run.name for run in SMALL]
    assert {line.split()[0] for line in done.stdout.splitlines()} == set(names)
    assert done.stderr.startswith("starting workers: ")
    assert f"{done.stdout.split()[0]}: epoch 6 of 6, accuracy " in done.stderr
    assert all((project / "logs" / f"{name}.log").is_file() for name in names)


def test_the_command_says_if_nobody_answers(project, monkeypatch, capsys):
    monkeypatch.setattr(cli, "_chosen", lambda *_: SMALL)
    monkeypatch.setattr(connection, "ANSWER", 0.5)
    assert cli.main(["train", "--scheduler", "tcp://127.0.0.1:9"]) == 1
    assert "no scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err


SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
HERE = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
SCHEDULER = ("scheduler", *HERE, "--port", "0")
WORKER = ("worker", "ADDRESS", *HERE, "--nworkers", "2", "--nthreads", "1", "--memory-limit", "0")


@pytest.mark.parametrize("tested", [SCHEDULER, WORKER])
def test_the_commands_of_the_page_are_the_tested_ones(tested):
    page = json.loads((ROOT / "notebooks" / "cluster.ipynb").read_text(encoding="utf-8"))
    text = "".join(line for cell in page["cells"] for line in cell["source"])
    (command,) = re.findall(rf"^\.venv/bin/dask {tested[0]} (.*)$", text.replace("\\\n", ""), flags=re.MULTILINE)
    assert re.findall(r"--[a-z-]+", command) == [part for part in tested if part.startswith("--")]


@contextlib.contextmanager
def scheduler(root):
    """A scheduler as the page on clusters starts it; gives its process and its address."""
    file = root / "scheduler.json"
    file.unlink(missing_ok=True)
    with started([DASK, *SCHEDULER, "--scheduler-file", file], root, **SILENT) as process:
        while not (file.is_file() and file.read_text().endswith("}")):
            assert process.poll() is None
            time.sleep(0.05)
        yield process, json.loads(file.read_text())["address"]


def workers(root, address):
    """Two workers, each with a nanny."""
    command = [address if part == "ADDRESS" else part for part in WORKER]
    return started([DASK, *command, "--local-directory", root / "scratch"], root, **SILENT)


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


def processes_of(root):
    """The processes of runs that work in this folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                b"dcn_study.cluster.process" in (folder / "cmdline").read_bytes()
                and (folder / "cwd").readlink() == root
            ):
                found.append(folder.name)
    return found


@pytest.mark.parametrize("number", range(max(1, KILLS)))
@pytest.mark.parametrize("victims", [("scheduler",), ("client",), ("worker",)] if KILLS else [ALL_VICTIMS])
def test_whatever_is_killed_the_records_equal_serial_ones(tmp_path, serial, victims, number):
    """Processes are killed at random moments; where one ends the command, the same command is given again."""
    chance, root = random.Random(f"{victims} {number}"), new_project(tmp_path)
    for victim in victims:
        with scheduler(root) as (scheduling, address), workers(root, address), train_here(root, address) as training:
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
                assert "Traceback" not in told
    if victims[-1] != "worker":
        with scheduler(root) as (_, address), workers(root, address), train_here(root, address) as training:
            told = training.communicate()[1]
            assert training.returncode == 0, told
    assert results(root) == serial
    deadline = time.monotonic() + 30
    while processes_of(root):  # of runs whose worker, client or scheduler was killed
        assert time.monotonic() < deadline
        time.sleep(0.1)
