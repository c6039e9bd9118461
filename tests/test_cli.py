import json
import re
import subprocess
import sys

import pytest
from helpers import ROOT, keep, make

from dcn_study import cli
from dcn_study.book import build
from dcn_study.book.pages import PAGES
from dcn_study.errors import BookError, ConfigurationError, RecordError
from dcn_study.runs import confirmation, records, training
from dcn_study.runs.catalogue import NOT_RUN, RUNS, book_runs, find_run, study_runs
from dcn_study.runs.inputs import versions
from dcn_study.runs.measurements import MEASUREMENTS


def statuses(lines):
    """The printed name → status."""
    return {line.split()[0]: " ".join(line.split()[1:]) for line in lines.splitlines() if len(line.split()) > 1}


def test_check_names_what_is_missing(clone, capsys):
    assert cli.main(["check"]) == 1
    found = statuses("\n".join(capsys.readouterr().out.splitlines()[:-1]))
    assert set(found.values()) == {"missing"}
    assert {"cnn-seed1", "chained_mini_resnet", *MEASUREMENTS} <= set(found)


def test_check_counts_the_records_and_prints_all_if_asked_to(complete, capsys):
    assert cli.main(["check"]) == 0
    (summary,) = capsys.readouterr().out.splitlines()
    count = len(records.shown()) + len(MEASUREMENTS)
    assert summary == f"{count} records: {count} fresh"
    assert cli.main(["check", "--verbose"]) == 0
    *lines, again = capsys.readouterr().out.splitlines()
    assert again == summary
    found = statuses("\n".join(lines))
    assert list(found.values()) == ["fresh"] * count
    assert "scale_modulated_cnn" not in found  # dropped


def test_a_record_of_a_finished_study_that_is_gone_is_an_error(complete, capsys):
    config = find_run("scale_wide_cnn", seed=3)
    for path in config.path.parent.glob("scale_wide_cnn-seed3.*"):
        path.unlink()
    assert cli.main(["check"]) == 1
    assert statuses(capsys.readouterr().out)["scale_wide_cnn-seed3"] == "missing"
    with pytest.raises(BookError, match=r"scale_wide_cnn-seed3.json is missing. Train it with: dcn train scale_wide"):
        build._require_records()  # noqa: SLF001


def test_runs_of_the_studies_have_their_records_except_those_that_are_said_not_to(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert {run.entry for run in study_runs() if not run.path.is_file()} == NOT_RUN


def test_a_record_of_a_dropped_run_is_shown_all_the_same(project):
    run = find_run("scale_modulated_cnn", seed=1)
    assert run not in records.shown()
    keep(run)
    assert run in records.shown()


@pytest.mark.parametrize("command", ["check", "list"])
def test_a_damaged_record_is_one_line(complete, capsys, command):
    find_run("cnn").path.write_text("")
    assert cli.main([command]) == (1 if command == "check" else 0)
    lines = {line.split()[0]: line for line in reversed(capsys.readouterr().out.splitlines()) if line}
    assert re.search("damaged: .*cnn.json is not a valid record", lines["cnn"])
    assert lines["cnn_batch_norm"].endswith("stale: cnn, from which it starts, is damaged")


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
    assert cli.main(["train", "cnn-seed7", "--force"]) == 0
    assert trained[2:] == [("cnn-seed7", {"force": True})]


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


def test_train_does_not_pass_over_a_stale_record_in_silence(clone, capsys):
    run = find_run("cnn")
    keep(run, inputs=make(run).provenance.inputs.model_copy(update={"code": "earlier"}))
    assert cli.main(["train", "cnn"]) == 1
    told = capsys.readouterr().out
    assert "stale: code. Not trained: dcn confirm cnn, or train again: dcn train --force cnn" in told


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
    assert cli.main(["confirm", "mini_resnet"]) == 1
    assert "missing. Nothing of this configuration to confirm" in capsys.readouterr().out
    assert cli.main(["confirm", "bench"]) == 1
    assert "missing" in capsys.readouterr().out


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


def test_a_reader_that_stops_reading_is_no_error():
    program = f"{sys.executable} -m dcn_study.cli list | head -1"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.startswith("run ")
    assert done.stderr == ""
