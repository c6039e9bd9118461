import json
import shutil
from pathlib import Path

import pytest
from test_records import make

from dcn.study import book, cli, pages, records
from dcn.study.config import MEASUREMENTS, RUNS, SEEDS, run_config

ROOT = Path(__file__).parents[1]


@pytest.fixture
def clone(project):
    """A project with the notebooks and no records."""
    shutil.copytree(ROOT / "notebooks", project / "notebooks")
    return project


@pytest.fixture
def no_kernel(monkeypatch):
    def refuse(*given, **named):
        pytest.fail("a notebook was executed")

    monkeypatch.setattr(book, "execute", refuse)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "dnn"], ["NAME must be one of data, models, sampling, cnn", "Received: dnn"]),
        (
            ["run", "cnn", "-p", "epoch=1"],
            ["unknown parameter epoch, did you mean epochs?", "train_size (int)"],
        ),
        (["run", "cnn", "-p", "epochs=few"], ["epochs must be of type int", "epochs='few'"]),
        (["run", "cnn", "-p", "learning_rate=fast"], ["learning_rate must be of type float"]),
        (["run", "cnn", "-p", "force=perhaps"], ["force must be of type bool"]),
        (["run", "cnn", "-p", "epochs"], ["NAME=VALUE", "'epochs'"]),
        (["run", "cnn", "-p", "epochs=-1"], ["epochs must be at least 1", "epochs=-1"]),
        (["run", "cnn", "-p", "learning_rate=nan"], ["learning_rate must be finite"]),
        (["run", "cnn", "-p", "run=dnn"], ["run must be one of"]),
        (["run", "accuracy", "-p", "seeds=0"], ["seeds must be at least 1. Received: seeds=0"]),
        (["run", "data", "--force"], ["--force is for pages that train or measure. Received: data"]),
        (["confirm", "dnn"], ["NAME must be one of"]),
        (["train", "cnn", "dnn"], ["NAME must be one of cnn, ", "Received: dnn"]),
    ],
)
def test_wrong_calls_exit_2_before_a_kernel_starts(clone, no_kernel, capsys, arguments, words):
    assert cli.main(arguments) == 2
    message = capsys.readouterr().err
    for word in words:
        assert word in message


@pytest.mark.parametrize("arguments", [[], ["burn"], ["run"], ["build", "--profile", "tiny"]])
def test_wrong_syntax_exits_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2


def stand(lines):
    """The printed name → standing."""
    return {line.split()[0]: line.split()[1] for line in lines.splitlines() if len(line.split()) > 1}


def test_check_needs_every_record_to_stand(clone, capsys):
    assert cli.main(["check"]) == 1
    assert set(stand(capsys.readouterr().out).values()) == {"missing"}
    for config in pages.needed():
        records.write(make(config))
    assert cli.main(["check"]) == 1
    assert stand(capsys.readouterr().out)["runtime"] == "missing"
    path = clone / "book/records/runtime.json"
    for name, files in records.MEASURED_BY.items():
        content = {"code_sha256": records.code_sha256(files), "parameters": MEASUREMENTS[name]}
        path.with_name(f"{name}.json").write_text(json.dumps(content))
    assert cli.main(["check"]) == 0
    path.write_text(json.dumps({**json.loads(path.read_text()), "parameters": {"repeats": 1}}))
    capsys.readouterr()
    assert cli.main(["check"]) == 1
    assert stand(capsys.readouterr().out)["runtime"] == "stale"
    stale = make(RUNS["cnn"])
    stale.provenance["code_sha256"] = "earlier"
    records.write(stale)
    assert cli.main(["check"]) == 1
    assert stand(capsys.readouterr().out)["cnn"] == "stale"
    records.write(make(RUNS["cnn"]))
    path.write_text(json.dumps({"code_sha256": "earlier", "parameters": MEASUREMENTS["runtime"]}))
    assert cli.main(["check"]) == 1
    assert stand(capsys.readouterr().out)["runtime"] == "stale"


def test_list_shows_runs_pages_and_parameters(clone, capsys):
    records.write(make(RUNS["cnn"], seconds=600))
    assert cli.main(["list"]) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    lines = {line.split()[0]: line for line in first.splitlines()}
    assert "fresh" in lines["cnn"]
    assert "10 min" in lines["cnn"]
    assert "missing" in lines["mini_resnet-seed1"]
    lines = {line.split()[0]: line for line in second.splitlines()}
    assert set(lines) == {"page", *pages.PAGES}
    assert "epochs" in lines["cnn"]


def test_train_trains_what_is_missing_in_order(clone, monkeypatch, capsys):
    from dcn.study import training

    trained = []
    monkeypatch.setattr(training, "train", lambda config: trained.append(records.record_name(config)) or make(config))
    assert cli.main(["train", "cnn_batch_norm-seed1", "cnn-seed1"]) == 0
    assert trained == ["cnn-seed1", "cnn_batch_norm-seed1"]
    assert "plain 80.00 %" in capsys.readouterr().out
    trained.clear()
    assert cli.main(["train"]) == 0
    assert trained == [records.record_name(config) for config in pages.needed()]
    for run, seed in (("deformable_cnn", ""), ("cnn_batch_norm", "-seed1")):
        assert trained.index(f"cnn{seed}") < trained.index(f"{run}{seed}")  # it starts from those weights


def test_confirm_without_a_record_fails(clone, capsys):
    assert cli.main(["confirm", "cnn"]) == 1
    assert "missing: nothing of this configuration to confirm" in capsys.readouterr().out


def test_confirm_does_not_touch_a_fresh_record(clone, monkeypatch):
    path = records.write(make(RUNS["cnn"]))
    before = path.read_bytes()
    assert cli.main(["confirm", "cnn"]) == 0
    assert path.read_bytes() == before


def test_run_hands_typed_parameters_to_the_notebook(clone, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(book, "execute", lambda page, parameters, output: calls.append((page, parameters, output)))
    arguments = ["run", "cnn", "-p", "epochs=1", "-p", "learning_rate=1e-4", "-p", "train_on=scaled"]
    assert cli.main([*arguments, "--profile", "smoke", "--force"]) == 0
    page, parameters, output = calls[0]
    assert page == "cnn"
    assert parameters == {
        "run": "cnn", "seeds": SEEDS, "epochs": 1, "train_size": 1000, "test_size": 500, "learning_rate": 1e-4,
        "train_on": "scaled", "force": True,
    }  # fmt: skip
    assert output.parent == clone / "runs"
    assert str(output) in capsys.readouterr().out


def test_a_page_that_measures_a_run_names_its_sources(clone):
    names = [path.name for path in pages.sources("offsets", {"run": "deformable_mini_resnet", "steps": 5})]
    assert names[0] == "deformable_mini_resnet.json"
    assert names[1].startswith("offsets-")


def test_a_changed_run_never_has_the_path_of_the_published_record(clone):
    published = records.record_path(RUNS["cnn"])
    for profile, changes in (("paper", {"epochs": 1}), ("smoke", {}), ("smoke", {"epochs": 10})):
        for config in pages.runs_of("accuracy", pages.page_parameters("accuracy", profile, {"seeds": 3, **changes})):
            assert records.record_path(config).parent.name == "runs"
        (config,) = pages.runs_of("cnn", pages.page_parameters("cnn", profile, changes))
        assert records.record_path(config) != published
    assert [records.record_path(config) for config in pages.runs_of("cnn", pages.page_parameters("cnn"))] == [published]


def test_an_interruption_exits_130(clone, monkeypatch, capsys):
    def interrupt(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(book, "execute", interrupt)
    assert cli.main(["run", "data"]) == 130
    assert "goes on from there" in capsys.readouterr().err


def test_a_damaged_record_exits_1(clone, capsys):
    path = records.write(make(run_config("cnn")))
    path.write_text(json.dumps({"schema": 7}))
    assert cli.main(["check"]) == 1
    assert str(path) in capsys.readouterr().err
