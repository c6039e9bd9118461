import json
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from helpers import keep, make

from dcn_study import cli
from dcn_study.book import build
from dcn_study.book.execution import Executed
from dcn_study.book.pages import PAGES
from dcn_study.errors import ConfigurationError, RecordError
from dcn_study.runs import confirmation, measurements, training
from dcn_study.runs.catalogue import RUNS, SMOKE, book_runs, find_run
from dcn_study.runs.data import MNIST
from dcn_study.runs.inputs import versions
from dcn_study.runs.measurements import MEASUREMENTS


@pytest.fixture
def no_kernel(monkeypatch):
    def refuse(*given, **named):
        pytest.fail("a notebook was executed")

    monkeypatch.setattr(build, "run", refuse)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["run", "dnn"],
            [
                "NAME must be one of paper, verdict, multiverse, method, runs, sampling, laboratory, cnn",
                "Received: dnn",
            ],
        ),
        (["run", "papre"], ["Received: papre, did you mean paper?"]),
        (["run", "cnn_scaled-seed2"], ["is a run, not a page", "dcn run cnn -p run=cnn_scaled -p seed=2"]),
        (["run", "pilot_cnn_0.001"], ["dcn run cnn -p run=pilot_cnn_0.001 -p seed=6"]),  # whose seed is not 0
        (
            ["run", "cnn", "-p", "epoch=1"],
            ["unknown parameter epoch, did you mean epochs?", "train_size (int)"],
        ),
        (["run", "cnn", "-p", "epochs=few"], ["epochs must be of type int", "epochs='few'"]),
        (["run", "cnn", "-p", "learning_rate=fast"], ["learning_rate must be of type float"]),
        (["run", "cnn", "-p", "force=perhaps"], ["force must be of type bool"]),
        (["run", "cnn", "-p", "epochs"], ["KEY=VALUE", "'epochs'"]),
        (["run", "cnn", "-p", "epochs=-1"], ["epochs must be from 1 to 100000", "epochs=-1"]),
        (["run", "cnn", "-p", "learning_rate=inf"], ["learning_rate must be from 0 to 1e38"]),
        (
            ["run", "cnn", "-p", "learning_rate=nan"],
            ["from 0 to 1e38. Received: learning_rate=nan"],
        ),
        (["run", "cnn", "-p", "optimizer=rmsprop"], ["optimizer must be one of adam, sgd"]),
        (["run", "cnn", "-p", "train_size=70000"], ["train_size must be at most the number of images, 60000"]),
        (["run", "robustness", "-p", "digit=10000"], ["digit must be from 0 to 9999. Received: digit=10000"]),
        (["run", "robustness", "-p", "digit=-1"], ["digit must be from 0 to 9999. Received: digit=-1"]),
        (["run", "runtime", "-p", "batches=0,1"], ["batches must be from 1 to 1024. Received: batches=0"]),
        (["run", "runtime", "-p", "sizes=28,x"], ["sizes must be of type int. Received: sizes='x'"]),
        (["run", "runtime", "-p", "device=/GPU:9"], ["device must be one of", "CPU:0", "device='/GPU:9'"]),
        (["run", "registration", "-p", "arms=cnn,dnn"], ["arms must be 'all' or some of cnn,", "arms='cnn,dnn'"]),
        (["run", "cluster", "-p", "workers=0"], ["workers must be from 1 to 1000. Received: workers=0"]),
        (["run", "study", "-p", "test_images=blurred"], ["test_images must be one of plain, scaled"]),
        (["run", "deformable_cnn", "-p", "seed=77"], ["initial_run must have been trained", "cnn-seed77.json"]),
        (["run", "cnn", "-p", "run=dnn"], ["run must be one of"]),
        (["run", "paper", "-p", "seeds=0"], ["seeds must be from 1 to 1000. Received: seeds=0"]),
        (["run", "method", "--force"], ["--force is for pages that train or measure. Received: method"]),
        (["confirm", "dnn"], ["run must be one of"]),
        (["train", "cnn", "dnn"], ["run must be one of cnn, ", "Received: run='dnn'"]),
        (["train", "--force"], ["--force is for named runs"]),
        (["train", "--workers", "0"], ["--workers must be from 1 to 1000. Received: --workers 0"]),
        (["train", "--threads", "-1"], ["--threads must be from 1 to 1000. Received: --threads -1"]),
    ],
)
def test_wrong_calls_exit_2_before_a_kernel_starts(clone, no_kernel, capsys, arguments, words):
    assert cli.main(arguments) == 2
    message = capsys.readouterr().err
    for word in words:
        assert word in message


@pytest.mark.parametrize("page", ["cnn", "method"])
def test_missing_data_end_a_run_before_a_kernel_starts(clone, no_kernel, capsys, page):
    assert cli.main(["run", page, "-p", "data=nowhere.npz"]) == 1
    assert "nowhere.npz must be a readable .npz" in capsys.readouterr().err


def test_data_are_looked_for_in_the_folder_of_the_project(clone, monkeypatch):
    called = []
    monkeypatch.setattr(
        build, "run", lambda *given: called.append(given) or Executed(nbformat.v4.new_notebook(), (), ())
    )
    shutil.copy(MNIST, clone / "digits.npz")
    (clone / "elsewhere").mkdir()
    monkeypatch.chdir(clone / "elsewhere")
    assert cli.main(["run", "method", "-p", "data=digits.npz"]) == 0
    assert called


@pytest.mark.parametrize(
    "arguments",
    [[], ["burn"], ["run"], ["build", "--profile", "tiny"], ["train", "--workers", "2", "--scheduler", "tcp://h:1"]],
)
def test_wrong_syntax_exits_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2


def statuses(lines):
    """The printed name → status."""
    return {line.split()[0]: " ".join(line.split()[1:]) for line in lines.splitlines() if len(line.split()) > 1}


def test_check_names_what_is_missing(clone, capsys):
    assert cli.main(["check"]) == 1
    found = statuses("\n".join(capsys.readouterr().out.splitlines()[:-2]))
    assert set(found.values()) == {"missing"}
    assert {"cnn-seed1", "chained_mini_resnet", *MEASUREMENTS} <= set(found)


def test_check_passes_if_every_record_holds(complete, capsys):
    assert cli.main(["check"]) == 0
    assert re.match(r"\d+ records: \d+ fresh\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text.replace('"accuracy": 0.8', '"accuracy": 0.9', 1), "damaged: .*cnn.json was edited"),
        (lambda text: text.replace('"provenance"', '"origin"'), "damaged: .*cnn.json is not a valid .* provenance: "),
        (lambda text: "", "damaged: .*cnn.json is not a valid record"),
    ],
)
@pytest.mark.parametrize("command", ["check", "list"])
def test_a_damaged_record_is_one_line(complete, capsys, damage, told, command):
    path = find_run("cnn").path
    path.write_text(damage(path.read_text()))
    assert cli.main([command]) == (1 if command == "check" else 0)
    lines = {line.split()[0]: line for line in reversed(capsys.readouterr().out.splitlines()) if line}
    assert re.search(told, lines["cnn"])
    assert lines["cnn_batch_norm"].endswith("stale: cnn, from which it starts, is damaged")


def test_a_damaged_measurement_is_one_line(complete, capsys):
    path = measurements.path_of("offsets", {})
    path.write_text(path.read_text().replace('"parameters"', '"arguments"'))
    assert cli.main(["check"]) == 1
    assert "parameters: Field required" in statuses(capsys.readouterr().out)["offsets"]


def test_check_names_the_input_that_changed(complete, capsys, monkeypatch):
    here = versions()
    for module in ("records", "measurements"):
        monkeypatch.setattr(f"dcn_study.runs.{module}.versions", lambda: {**here, "Keras": "99.0"})
    assert cli.main(["check"]) == 1
    found = statuses(capsys.readouterr().out)
    assert found["cnn"] == found["bench"] == f"stale: Keras {here['Keras']}, now 99.0"


def test_list_shows_runs_pages_and_parameters(clone, capsys):
    keep(RUNS["cnn"], seconds=600.0)
    assert cli.main(["list"]) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    lines = {line.split()[0]: line for line in first.splitlines()}
    assert lines["cnn"].split()[1:] == ["10", "min", "fresh"]
    assert "missing" in lines["mini_resnet-seed1"]
    lines = {line.split()[0]: line for line in second.splitlines()}
    assert set(lines) == {"page", *PAGES}
    assert "epochs" in lines["cnn"]


def test_train_trains_named_runs_with_any_seed(clone, trained, capsys):
    assert cli.main(["train", "cnn_batch_norm-seed7", "cnn-seed7"]) == 0
    assert trained == [(name, {"force": False}) for name in ("cnn-seed7", "cnn_batch_norm-seed7")]
    assert "plain 80.00%" in capsys.readouterr().out
    assert cli.main(["train", "cnn-seed7"]) == 0
    assert len(trained) == 2  # it is there
    assert "plain 80.00%" in capsys.readouterr().out


def test_train_trains_every_run_of_the_book_after_the_one_that_it_starts_from(clone, trained):
    assert cli.main(["train"]) == 0
    names = [name for name, _ in trained]
    assert set(names) == {config.name for config in book_runs()}
    for run, seed in (("deformable_cnn", ""), ("cnn_batch_norm", "-seed1")):
        assert names.index(f"cnn{seed}") < names.index(f"{run}{seed}")


def test_a_run_that_fails_leaves_the_others_alone_and_exits_1(clone, trained, monkeypatch, capsys):
    train = training.train

    def fail(run, **how):
        if run == find_run("cnn"):
            raise RecordError("no luck")
        return train(run, **how)

    monkeypatch.setattr(training, "train", fail)
    assert cli.main(["train", "cnn", "cnn_batch_norm", "cnn-seed1", "cnn_batch_norm-seed1"]) == 1
    assert [name for name, _ in trained] == ["cnn-seed1", "cnn_batch_norm-seed1"]
    told = capsys.readouterr().err
    assert "dcn: cnn failed: no luck" in told
    assert "dcn: cnn_batch_norm failed: it starts from cnn, which failed" in told


def test_threads_are_set_before_anything_is_computed(clone, trained, monkeypatch):
    monkeypatch.setattr(training, "use_threads", lambda threads: trained.append(threads))
    assert cli.main(["train", "cnn", "--threads", "3"]) == 0
    assert trained[0] == 3


def test_a_dry_run_prints_the_plan_and_trains_nothing(clone, trained, capsys):
    keep(find_run("cnn", seed=9), seconds=600.0)
    keep(find_run("mini_resnet", seed=9), seconds=1800.0)
    assert cli.main(["train", "cnn", "cnn_batch_norm", "mini_resnet", "--dry-run", "--workers", "2"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:4] == [
        ["cnn", "0", "0", "s", "10", "min"],
        ["mini_resnet", "1", "0", "s", "30", "min"],
        ["cnn_batch_norm", "0", "10", "min", "20", "min", "cnn"],
    ]
    assert " ".join(lines[5]) == "3 runs, done after 30 min on 2 workers"
    assert cli.main(["train", "--dry-run", "--force"]) == 0
    assert f"{len(book_runs())} runs, done after " in capsys.readouterr().out
    assert trained == []


def test_train_with_force_says_so(clone, trained):
    assert cli.main(["train", "cnn", "--force"]) == 0
    assert trained == [("cnn", {"force": True})]


def test_train_does_not_pass_over_a_stale_record_in_silence(clone, capsys):
    run = find_run("cnn")
    keep(run, inputs=make(run).provenance.inputs.model_copy(update={"code": "earlier"}))
    assert cli.main(["train", "cnn"]) == 1
    told = capsys.readouterr().out
    assert "stale: code. Not trained: dcn confirm cnn, or train again: dcn train --force cnn" in told


def test_confirm_without_a_record_fails(clone, capsys):
    assert cli.main(["confirm", "cnn"]) == 1
    assert "missing. Nothing of this configuration to confirm" in capsys.readouterr().out


def test_confirm_replays_fresh_records_only_if_asked_to(clone, monkeypatch, capsys):
    keep(RUNS["cnn"])
    replayed = []
    monkeypatch.setattr(
        confirmation, "confirm", lambda record, every_seed: replayed.append(record.name) or ["norms differ"]
    )
    assert cli.main(["confirm", "cnn"]) == 0
    assert replayed == []
    assert cli.main(["confirm", "cnn", "--all"]) == 1
    assert replayed == ["cnn"]
    assert "differs: norms differ" in capsys.readouterr().out
    assert cli.main(["confirm", "bench"]) == 1
    assert "missing" in capsys.readouterr().out


def test_run_hands_typed_parameters_to_the_notebook(clone, monkeypatch, capsys):
    calls = []
    nothing = Executed(nbformat.v4.new_notebook(), (), ())
    monkeypatch.setattr(build, "run", lambda *given: calls.append(given) or nothing)
    arguments = ["run", "cnn", "-p", "epochs=1", "-p", "learning_rate=1e-4", "-p", "train_on=scaled"]
    assert cli.main([*arguments, "--profile", "smoke", "--force"]) == 0
    page, parameters, output = calls[0]
    assert page == "cnn"
    assert parameters == {
        **SMOKE, "run": "cnn", "seeds": None, "learning_rate": 1e-4, "train_on": "scaled", "force": True,
    }  # fmt: skip
    assert output.parent == clone / "runs"
    assert f"notebook: {output.relative_to(clone)}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("run", "changes"),
    [
        ("cnn", {"epochs": 1}),
        ("cnn", {"seed": len(RUNS["cnn"].seeds)}),
        ("deformable_cnn", {"seed": len(RUNS["deformable_cnn"].seeds)}),
    ],
)
def test_other_parameters_never_write_among_the_records_of_the_book(clone, run, changes):
    """Seeds beyond the book's are other parameters too; those of the book are read where they are."""
    assert find_run(run, **changes).path.parent == clone / "runs"
    assert find_run(run).path.parent == clone / "book" / "records"


def test_an_interruption_exits_130(clone, monkeypatch, capsys):
    def interrupt(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "run", interrupt)
    assert cli.main(["run", "method"]) == 130
    assert "call again, without --force, to resume" in capsys.readouterr().err


def test_an_error_of_the_study_is_one_line_and_a_traceback_if_asked_for(clone, capsys):
    record = keep(find_run("cnn"))
    record.path.write_text(json.dumps({"format": 7}))
    assert cli.main(["train", "cnn"]) == 1
    assert capsys.readouterr().err.startswith(f"dcn: {record.path} is not a valid record: ")
    with pytest.raises(ConfigurationError, match="run must be one of"):
        cli.main(["train", "dnn", "--debug"])


def test_a_defect_is_not_disguised_as_an_error_of_the_user(clone, monkeypatch):
    def broken():
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr("dcn_study.runs.records.shown", broken)
    with pytest.raises(ValueError, match="broadcast"):
        cli.main(["check"])


def test_the_command_answers_without_loading_anything_slow():
    program = "import sys\nfrom dcn_study.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    program += "slow = {'tensorflow', 'keras', 'numpy', 'pandas', 'pydantic', 'papermill', 'dcn'} & set(sys.modules)\n"
    program += "sys.exit(f'loaded: {slow}' if slow else 0)"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == "0.1.0\n"


def test_tensorflow_is_loaded_without_its_messages():
    program = "from dcn_study.runs.libraries import load_tensorflow\nload_tensorflow()\n"
    program += "import keras, numpy\nfor _ in range(9):\n"  # new functions for each of several networks
    program += "    keras.Sequential([keras.layers.Flatten()]).predict(numpy.zeros((1, 1)), verbose=0)\n"
    program += "raise SystemExit('heard')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == "heard\n"


def test_an_interruption_after_the_end_changes_nothing():
    program = "import os, signal, sys\nfrom dcn_study import cli\nsys.argv = ['dcn', 'measure', 'nosuch']\n"
    program += "code = cli.main()\nos.kill(os.getpid(), signal.SIGINT)\nsys.exit(code)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
