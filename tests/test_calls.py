"""How `dcn` is called: from which folder, with which values, and what it refuses before anything begins."""

import errno
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from helpers import ROOT

from dcn_study import cli
from dcn_study.book import build, pages
from dcn_study.book.execution import Executed
from dcn_study.book.parameters import notebook_parameters
from dcn_study.errors import BookError
from dcn_study.runs import files, records
from dcn_study.runs.catalogue import FINISHED, find_run, study_runs
from dcn_study.runs.data import KEYS, load_digits
from dcn_study.runs.measurements import MEASUREMENTS
from dcn_study.runs.splits import splits


@pytest.fixture
def calls(monkeypatch):
    """Notes what would be executed."""
    made = []

    def run(page, parameters, output):
        made.append((page, parameters, output))
        return Executed({}, (), ())

    monkeypatch.setattr(build, "run", run)
    return made


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["confirm", "paper"], ["paper is a page, not a run. Execute it with: dcn run paper"]),
        (["run", "CNN"], ["Received: CNN, did you mean cnn?"]),
        (["run", "cnn", "-p", "run=deformable_cn"], ["run='deformable_cn', did you mean deformable_cnn?"]),
        (["run", "cnn", "-p", "qqq=1"], ["unknown parameter qqq. Valid parameters are: run (str)"]),
        (["run", "cnn", "-p", "batch_size=100000000"], ["batch_size must be from 1 to 4096"]),
        (["run", "method", "-p", "count=1000000000"], ["count must be from 1 to 100. Received: count=1000000000"]),
        (["run", "again", "-p", "template=nosuch"], ["template must be one of again, cluster,", "template=nosuch"]),
        (["run", "offsets", "-p", "run=cnn"], ["run must be one of deformable_cnn, deformable_mini_resnet. Received"]),
        (["run", "runtime", "-p", "batches=1,9999999"], ["batches must be from 1 to 1024. Received: batches=9999999"]),
        (["run", "cnn", "-p", "train_on=Scald"], ["train_on=Scald, did you mean scaled?"]),
        (["run", "method", "--out", "page.html"], ["--out must end in .ipynb. Received: --out page.html"]),
        (["run", "method", "-f", "nothing.yaml"], ["-f must name a YAML file: nothing.yaml: ", "No such file"]),
        (["run", "method", "-f", "_config.yml"], ["-f must name a YAML file of KEY: VALUE. Received: _config.yml"]),
        (["train", "paper"], ["paper is a page, not a run. Execute it with: dcn run paper"]),
        (["train", "cnn-seed01"], ["a seed must be a whole number as in cnn-seed1. Received: cnn-seed01"]),
        (["train", "cnn-seed" + "9" * 5000], ["a seed must be a whole number"]),
        (["train", "cnn-seed4294967296"], ["seed must be from 0 to 4294967295"]),
        (["train", "-p", "epochs=1"], ["parameters are for named runs. Received: no NAME"]),
        (["train", "cnn", "-p", "seed=1"], ["unknown parameter seed"]),
        (
            ["train", "--workers", "1000000", "--dry-run"],
            ["--workers must be from 1 to 1000. Received: --workers 1000"],
        ),
        (["build", "--cell-seconds", "0"], ["--cell-seconds must be from 1 to 86400. Received: --cell-seconds 0"]),
        (["measure", "ofsets"], ["NAME must be one of", "Received: ofsets, did you mean offsets?"]),
        (["bench", "--repeats", "1001"], ["--repeats must be from 1 to 1000"]),
        (["bench", "--peer-python", "/nonexistent"], ["--peer-python must be a program", "/nonexistent"]),
    ],
)
def test_wrong_calls_exit_2_before_anything_begins(clone, calls, capsys, arguments, words):
    assert cli.main(arguments) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    for word in words:
        assert word in message
    assert calls == []


def statuses(lines):
    """The printed name → status."""
    return {line.split()[0]: " ".join(line.split()[1:]) for line in lines.splitlines() if len(line.split()) > 1}


def test_check_counts_the_records_and_prints_all_if_asked_to(complete, capsys):
    assert cli.main(["check"]) == 0
    summary, _ = capsys.readouterr().out.splitlines()
    count = len(records.shown()) + len(MEASUREMENTS)
    assert summary == f"{count} records: {count} fresh"
    assert cli.main(["check", "--verbose"]) == 0
    *lines, again, _ = capsys.readouterr().out.splitlines()
    assert again == summary
    found = statuses("\n".join(lines))
    assert set(found.values()) == {"fresh", "not run"}
    assert len([name for name, status in found.items() if status == "fresh"]) == count
    assert found["scale_mini_resnet"] == "not run"
    assert "scale_modulated_cnn" not in found  # dropped


def test_a_record_of_a_finished_study_that_is_gone_is_an_error(complete, capsys):
    """A run that was never trained is not, and neither is one of several that are under way."""
    config = find_run("scale_wide_cnn", seed=3)
    for path in config.path.parent.glob("scale_wide_cnn-seed3.*"):
        path.unlink()
    assert cli.main(["check"]) == 1
    assert statuses(capsys.readouterr().out)["scale_wide_cnn-seed3"] == "missing"
    with pytest.raises(BookError, match=r"scale_wide_cnn-seed3.json is missing. Train it with: dcn train scale_wide"):
        build._require_records()  # noqa: SLF001


def test_finished_runs_have_all_of_their_records(monkeypatch):
    monkeypatch.chdir(ROOT)
    there = {}
    for config in study_runs():
        there.setdefault(config.name.partition("-seed")[0], []).append(config.path.is_file())
    assert set(FINISHED) <= {name for name, found in there.items() if all(found)}


def test_a_reader_that_stops_reading_is_no_error():
    program = f"{sys.executable} -m dcn_study.cli list | head -1"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.startswith("run ")
    assert done.stderr == ""


def test_parameters_come_from_a_file_too(clone, calls):
    (clone / "few.yaml").write_text("epochs: 2\nlearning_rate: 1e-4\ntrainable: false\nseeds: null\ntrain_on: scaled\n")
    assert cli.main(["run", "cnn", "-f", "few.yaml", "-p", "epochs=1"]) == 0
    given = {"epochs": 1, "learning_rate": 1e-4, "trainable": False, "seeds": None, "train_on": "scaled"}
    assert calls[0][1] == {"run": "cnn", **given}


def test_the_executed_notebook_goes_where_it_is_asked_for(clone, calls, monkeypatch, capsys):
    (clone / "in").mkdir()
    monkeypatch.chdir(clone / "in")
    assert cli.main(["run", "method", "--out", "my/page.ipynb"]) == 0
    assert calls[0][2] == clone / "in" / "my" / "page.ipynb"
    assert capsys.readouterr().out.splitlines()[0] == "notebook: my/page.ipynb"


def test_runs_with_other_parameters_are_trained_apart_from_the_book(clone, trained, capsys):
    assert cli.main(["train", "cnn-seed3", "-p", "epochs=1", "-p", "train_size=2000"]) == 0
    name = find_run("cnn", seed=3, epochs=1, train_size=2000).name
    assert trained == [(name, {"force": False})]
    assert cli.main(["train", "cnn-seed3", "-p", "epochs=1", "-p", "train_size=2000"]) == 0
    assert len(trained) == 1
    assert (clone / "runs" / f"{name}.json").is_file()


def test_from_any_other_folder_the_installed_clone_is_meant(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "cnn", "--dry-run"]) == 0
    assert "0 runs, done after 0 s" in capsys.readouterr().out  # the clone of these tests has its record
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    for arguments in (["check"], ["list"], ["train", "--dry-run"], ["build"], ["run", "method"], ["confirm"]):
        assert cli.main(arguments) == 2
        assert capsys.readouterr().err.startswith(f"dcn: not a clone of the project: {tmp_path} has no")


def test_every_whole_number_has_bounds_unless_the_data_bound_it():
    for page in pages.PAGES.values():
        for name, parameter in notebook_parameters(page.notebook).items():
            if parameter.type == "int" or parameter.values.startswith("several"):
                bounded = len(parameter.values.removeprefix("several ").split(" to ")) == 2
                assert bounded or name in ("train_size", "test_size", "validation_size"), (page.notebook, name)


def test_own_data_need_one_parameter(clone, calls):
    digits = load_digits()
    np.savez(clone / "own.npz", **{key: getattr(digits, key)[:60] for key in KEYS})
    assert cli.main(["run", "cnn", "-p", "data=own.npz"]) == 0
    assert calls[0][1] == {"run": "cnn", "data": "own.npz"}
    found = splits(find_run("cnn", data="own.npz").config)
    assert (found.run.train_size, found.run.test_size) == (60, 60)
    own = find_run("cnn", data="own.npz", train_size=50)
    assert (own.config.train_size, own.config.test_size) == (50, 0)
    assert find_run("cnn", data="") == find_run("cnn")


def test_a_full_disk_is_one_line_that_says_which_it_may_be(clone, monkeypatch, capsys):
    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(build, "run", full)
    assert cli.main(["run", "method"]) == 1
    told = capsys.readouterr().err
    assert told.endswith(f"or on that of temporary files (TMPDIR), {tempfile.gettempdir()}\n")
    assert told.startswith("dcn: [Errno 28] No space left on device: on the disk of the project, ")


def test_a_folder_whose_name_cannot_be_read_is_one_line(tmp_path):
    folder = tmp_path / "clé"
    folder.mkdir()
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "dcn_study.cli", "run", "method"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch("dcn: names of files must be readable as UTF-8. .* set PYTHONUTF8=1\n", done.stderr)
