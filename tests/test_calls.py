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
from dcn_study.runs import files
from dcn_study.runs.catalogue import SMOKE, find_run
from dcn_study.runs.data import KEYS, load_digits


@pytest.fixture
def calls(monkeypatch):
    """Notes what would be executed."""
    made = []

    def run(page, parameters, output):
        made.append((page, parameters, output))
        return Executed({}, (), (), 0)

    monkeypatch.setattr(build, "run", run)
    return made


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "dnn"], ["NAME must be one of paper, verdict, offsets, gain,", "Received: dnn"]),
        (["run", "cnn_scaled-seed2"], ["is a run, not a page", "dcn run cnn -p run=cnn_scaled -p seed=2"]),
        (["run", "pilot_cnn_0.001"], ["dcn run cnn -p run=pilot_cnn_0.001 -p seed=6"]),  # whose seed is not 0
        (["run", "cnn", "-p", "epoch=1"], ["unknown parameter epoch, did you mean epochs?", "train_size (int)"]),
        (["run", "cnn", "-p", "epochs=few"], ["epochs must be of type int", "epochs='few'"]),
        (["run", "cnn", "-p", "learning_rate=fast"], ["learning_rate must be of type float"]),
        (["run", "cnn", "-p", "force=perhaps"], ["force must be of type bool"]),
        (["run", "cnn", "-p", "epochs"], ["KEY=VALUE", "'epochs'"]),
        (["run", "cnn", "-p", "epochs=-1"], ["epochs must be from 1 to 100000", "epochs=-1"]),
        (["run", "cnn", "-p", "learning_rate=nan"], ["from 0 to 1e38. Received: learning_rate=nan"]),
        (["run", "cnn", "-p", "train_size=70000"], ["train_size must be at most the number of images, 60000"]),
        (["run", "robustness", "-p", "digit=10000"], ["digit must be from 0 to 9999. Received: digit=10000"]),
        (["run", "multiverse", "-p", "effects=-inf"], ["effects must be from 0.001 to 99. Received: effects=-inf"]),
        (["run", "multiverse", "-p", "effects=0.1,x"], ["effects must be of type float. Received: effects='x'"]),
        (["run", "runtime", "-p", "sizes=28,x"], ["sizes must be of type int. Received: sizes='x'"]),
        (["run", "runtime", "-p", "device=/GPU:9"], ["device must be one of", "CPU:0", "device='/GPU:9'"]),
        (["run", "registration", "-p", "arms=cnn,dnn"], ["arms must be 'all' or some of cnn,", "arms='cnn,dnn'"]),
        (["run", "cluster", "-p", "workers=0"], ["workers must be from 1 to 1000. Received: workers=0"]),
        (["run", "study", "-p", "test_images=blurred"], ["test_images must be one of plain, scaled"]),
        (["run", "deformable_cnn", "-p", "seed=77"], ["initial_run must have been trained", "cnn-seed77.json"]),
        (["run", "paper", "-p", "seeds=0"], ["seeds must be from 1 to 1000. Received: seeds=0"]),
        (["run", "method", "--force"], ["--force is for pages that train or measure. Received: method"]),
        (["confirm", "dnn"], ["run must be one of"]),
        (["train", "cnn", "dnn"], ["run must be one of cnn, ", "Received: run='dnn'"]),
        (["train", "--force"], ["--force is for named runs"]),
        (["train", "--workers", "0"], ["--workers must be from 1 to 1000. Received: --workers 0"]),
        (["train", "--threads", "-1"], ["--threads must be from 1 to 1000. Received: --threads -1"]),
        (["run", "CNN"], ["Received: CNN, did you mean cnn?"]),
        (["run", "cnn", "-p", "run=deformable_cn"], ["run='deformable_cn', did you mean deformable_cnn?"]),
        (["run", "cnn", "-p", "qqq=1"], ["unknown parameter qqq. Valid parameters are: run (str)"]),
        (["run", "method", "-p", "count=1000000000"], ["count must be from 1 to 100. Received: count=1000000000"]),
        (["run", "again", "-p", "template=nosuch"], ["template must be one of again, cluster,", "template=nosuch"]),
        (["run", "offsets", "-p", "run=cnn"], ["run must be one of deformable_cnn, deformable_mini_resnet. Received"]),
        (["run", "runtime", "-p", "batches=1,9999999"], ["batches must be from 1 to 1024. Received: batches=9999999"]),
        (["run", "cnn", "-p", "train_on=Scald"], ["train_on=Scald, did you mean scaled?"]),
        (["run", "method", "--out", "page.html"], ["--out must end in .ipynb. Received: --out page.html"]),
        (["run", "method", "--out", "folder.ipynb"], ["--out must be a file. Received: --out folder.ipynb, which is"]),
        (["run", "method", "-f", "nothing.yaml"], ["-f must name a YAML file: nothing.yaml: ", "No such file"]),
        (["run", "method", "-f", "_config.yml"], ["-f must name a YAML file of KEY: VALUE. Received: _config.yml"]),
        (["train", "paper"], ["paper is a page, not a run. Execute it with: dcn run paper"]),
        (["train", "cnn-seed4294967296"], ["seed must be from 0 to 4294967295"]),
        (["train", "-p", "epochs=1"], ["parameters are for named runs. Received: no NAME"]),
        (["train", "cnn", "-p", "seed=1"], ["unknown parameter seed"]),
        (["build", "--cell-seconds", "0"], ["--cell-seconds must be from 1 to 86400. Received: --cell-seconds 0"]),
        (["measure", "ofsets"], ["NAME must be one of", "Received: ofsets, did you mean offsets?"]),
        (["bench", "--repeats", "1001"], ["--repeats must be from 1 to 1000"]),
        (["bench", "--peer-python", "/nonexistent"], ["--peer-python must be a program", "/nonexistent"]),
    ],
)
def test_wrong_calls_exit_2_before_anything_begins(clone, calls, capsys, arguments, words):
    (clone / "folder.ipynb").mkdir(exist_ok=True)
    assert cli.main(arguments) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    for word in words:
        assert word in message
    assert calls == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["burn"], ["run"], ["build", "--profile", "tiny"], ["train", "--workers", "2", "--scheduler", "tcp://h:1"]],
)
def test_wrong_syntax_exits_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2


def test_run_hands_typed_parameters_to_the_notebook_and_those_of_files_too(clone, calls, capsys):
    (clone / "few.yaml").write_text("epochs: 2\nlearning_rate: 1e-4\ntrainable: false\nseeds: null\ntrain_on: scaled\n")
    arguments = ["run", "cnn", "-f", "few.yaml", "-p", "epochs=3", "-p", "batch_size=8"]
    assert cli.main([*arguments, "--profile", "smoke", "--force"]) == 0
    given = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-4, "trainable": False, "train_on": "scaled"}
    given |= {"seeds": None}
    ((page, parameters, output),) = calls
    assert page == "cnn"
    assert parameters == {**SMOKE, "run": "cnn", **given, "force": True}
    assert output.parent == clone / "runs"
    assert f"notebook: {output.relative_to(clone)}\n" in capsys.readouterr().out


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


def test_own_data_need_one_parameter_and_are_looked_for_in_the_folder_of_the_project(clone, calls, monkeypatch):
    digits = load_digits()
    np.savez(clone / "own.npz", **{key: getattr(digits, key)[:60] for key in KEYS})
    (clone / "elsewhere").mkdir()
    monkeypatch.chdir(clone / "elsewhere")
    assert cli.main(["run", "cnn", "-p", "data=own.npz"]) == 0
    assert calls[0][1] == {"run": "cnn", "data": "own.npz"}
    own = find_run("cnn", data="own.npz", train_size=50)
    assert (own.config.train_size, own.config.test_size) == (50, 0)
    assert find_run("cnn", data="") == find_run("cnn")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted. Complete epochs are kept: call again, without --force, to resume"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            1,
            "[Errno 28] No space left on device: on the disk of the project, or on that of temporary files (TMPDIR), "
            + tempfile.gettempdir(),
        ),
    ],
)
def test_what_stops_a_command_is_one_line(clone, monkeypatch, capsys, error, code, words):
    def stop(*given):
        raise error

    monkeypatch.setattr(build, "run", stop)
    assert cli.main(["run", "method"]) == code
    assert capsys.readouterr().err == f"dcn: {words}\n"


def test_a_folder_whose_name_cannot_be_read_is_one_line(tmp_path):
    folder = tmp_path / "clé"
    folder.mkdir()
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "dcn_study.cli", "run", "method"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch("dcn: names of files must be readable as UTF-8. .* set PYTHONUTF8=1\n", done.stderr)
