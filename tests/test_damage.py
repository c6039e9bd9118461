"""Damaged files of every kind are one line that names the file and the way out, and nothing else is raised."""

import json
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from helpers import ROOT, current_inputs, keep, keep_measurement, make

from dcn_study import cli
from dcn_study.book import build, parameters
from dcn_study.errors import DataError, PageError, RecordError
from dcn_study.runs import data as data_sets
from dcn_study.runs import measurements, records, training, weights
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.data import KEYS, load_digits
from dcn_study.runs.files import file_sha256
from dcn_study.runs.run import CHECKPOINT

FLIPS = 200
RUN = find_run("cnn", epochs=2)


def data(root):
    path = root / "own.npz"
    np.savez_compressed(path, **{key: getattr(load_digits(), key)[:60] for key in KEYS})
    return path, lambda: load_digits(path).sha256


def record(root):
    return keep(find_run("cnn")).path, lambda: records.read(find_run("cnn"))


def measurement(root):
    made = keep_measurement("bench", {"repeats": 3}, {"milliseconds": [1.5, 2, None], "name": "sum"})
    return made.path, lambda: measurements.read("bench", {"repeats": 3})


def state(root):
    path, inputs = checkpoint(), current_inputs(RUN)
    return path, lambda: training._resume(RUN, None, inputs)  # noqa: SLF001


def model(root):
    path = checkpoint().with_name("epoch-002.keras")
    digest = file_sha256(path)
    # Stands in for a model: whatever is not the file that was written is refused before it is loaded.
    return path, lambda: digest if training._checked(RUN, path, digest) else None  # noqa: SLF001


def checkpoint():
    """The checkpoint of a run after two epochs."""
    made = make(RUN)
    found = training._State(  # noqa: SLF001
        configuration=RUN.config.to_dict(),
        inputs=made.provenance.inputs,
        started="2026-01-02T03:00:00",
        history=made.history,
        witness=made.witness,
        model="epoch-002.keras",
    )
    kept = types.SimpleNamespace(save=lambda path: path.write_bytes(bytes(range(256))))
    training._save(RUN.checkpoint, found, kept)  # noqa: SLF001
    return RUN.checkpoint / CHECKPOINT


def trained_weights(root):
    made = keep(find_run("cnn"))
    return made.weights_path, lambda: str(records.status(made.run, made))


def predictions(root):
    made = make(find_run("scale_cnn"))
    made.predictions_path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(made.predictions_path, predicted=np.arange(60, dtype=np.uint8))
    made.provenance.predictions = file_sha256(made.predictions_path)
    keep(made.run, predictions=made.provenance.predictions)
    return made.predictions_path, lambda: str(records.status(made.run, made))


def template(root):
    path = shutil.copytree(ROOT / "notebooks", root / "notebooks") / "training.ipynb"
    return path, lambda: parameters.notebook_parameters("training")


KINDS = (data, record, measurement, state, model, trained_weights, predictions, template)
TEXT = (record, measurement, state, template)


def read(function):
    """What a reading function gives: its result, or the one line of an error of the study."""
    try:
        return function()
    except (DataError, RecordError, PageError) as error:
        return error


def named(found, path):
    """Whether a result is an error, or a status, of one line that names the file."""
    return path.name in str(found) and "\n" not in str(found) and (isinstance(found, Exception) or "stale" in found)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_flipped_bit_is_found_or_changes_nothing(project, kind):
    path, function = kind(project)
    whole, intact = path.read_bytes(), function()
    assert not isinstance(intact, Exception)
    random = np.random.default_rng(20191215)
    found = []
    for bit in random.integers(8 * len(whole), size=FLIPS):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        found.append(read(function))
    caught = [named(each, path) for each in found]
    if kind is template:  # its text is not sealed: a word of its prose may change
        assert all(isinstance(each, dict) for each, known in zip(found, caught, strict=True) if not known)
    else:
        assert all(each == intact for each, known in zip(found, caught, strict=True) if not known)
    assert sum(caught) > FLIPS / 10


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_file_that_is_cut_short(project, kind, share):
    path, function = kind(project)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    found = read(function)
    assert named(found, path)
    if isinstance(found, Exception) and kind is not data:
        assert re_made(str(found))


def re_made(message):
    """Whether a message ends in a command that brings the file back."""
    return any(f"with: {command}" in message for command in ("git checkout", "dcn train --force", "dcn run, with"))


@pytest.mark.parametrize("kind", TEXT, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("content", [b"[" * 200_000, b"\xff\xfe", b"null", b"[]", b'{"a": ' * 900 + b"1" + b"}" * 900])
def test_text_that_is_something_else(project, kind, content):
    path, function = kind(project)
    path.write_bytes(content)
    assert named(read(function), path)


def test_results_nested_too_deeply_are_a_damaged_record(project):
    path, function = measurement(project)
    whole = json.loads(path.read_text())
    for depth in (300, 900, 2_000, 100_000):
        nested = '"results": {"a": ' + "[" * depth + "]" * depth + "}"
        path.write_text(json.dumps({**whole, "results": 0}).replace('"results": 0', nested))
        assert named(read(function), path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"witness": None}, "history and witness must have the same epochs"),
        ({"history": []}, "history and witness must have the same epochs"),
        ({"model": "../../epoch-002.keras"}, "model must be epoch-002.keras. Received: '../../epoch-002.keras'"),
        ({"configuration": {"model": "cnn"}}, "TypeError: .*missing 3 required"),
    ],
)
def test_a_sealed_state_must_hold_what_training_gives(project, change, words):
    path, function = state(project)
    content = json.loads(path.read_text()) | change
    del content["sha256"]
    path.write_text(json.dumps({**content, "sha256": records.seal(content)}))
    with pytest.raises(RecordError, match=f"{path} is damaged: .*{words}.* Train from nothing with: dcn run"):
        function()


def test_a_model_that_is_missing(project):
    path, function = model(project)
    path.unlink()
    with pytest.raises(RecordError, match=f"{path} is missing. Train from nothing with: dcn run, with --force"):
        function()


def test_other_or_missing_weights_and_predictions_are_named_with_the_command_that_makes_them(project):
    made = keep(find_run("cnn"))
    made.weights_path.write_bytes(b"others")
    with pytest.raises(RecordError, match=f"{made.weights_path} is not what run cnn wrote: expected .* --force cnn"):
        weights.load_model(made)
    made.weights_path.unlink()
    with pytest.raises(RecordError, match=f"{made.weights_path} is missing.* with: dcn train --force cnn"):
        weights.load_model(made)
    path, function = predictions(project)
    path.unlink()
    assert function() == f"stale: {path.name} is missing"


@pytest.mark.parametrize("page", ["cnn", "method"])
def test_a_damaged_file_of_data_is_one_line_of_the_command(clone, capsys, page):
    (clone / "own.npz").write_bytes(b"\x93NUMPY")
    assert cli.main(["run", page, "-p", "data=own.npz"]) == 1
    told = capsys.readouterr().err
    assert f"{clone / 'own.npz'} must be a readable .npz with the keys" in told
    assert told.count("\n") == 1


@pytest.fixture
def changed(clone, monkeypatch):
    """A project whose MNIST has one other pixel, and in which no page may begin."""
    (clone / "book" / "_toc.yml").touch()
    arrays = {key: getattr(load_digits(), key).copy() for key in KEYS}
    arrays["x_test"][7, 3, 5] ^= 1
    np.savez(clone / "mnist.npz", **arrays)
    monkeypatch.setattr(data_sets, "MNIST", clone / "mnist.npz")
    monkeypatch.setattr(build, "_executed", lambda *given: pytest.fail("began"))
    return clone


@pytest.mark.parametrize(
    "command",
    ["build", "build --profile smoke", "train --dry-run", "train cnn", "check", "run cnn", "run method"],
)
def test_damaged_images_end_a_command_before_it_begins(changed, capsys, command):
    assert cli.main(command.split()) == 1
    told = capsys.readouterr()
    assert (
        f"{changed / 'mnist.npz'} is damaged: expected SHA-256 {data_sets.MNIST_SHA256}, found" in told.out + told.err
    )
    assert f"Restore it with: git checkout {changed / 'mnist.npz'}" in told.out + told.err
    assert told.err.count("\n") <= 1


def test_a_damaged_template_ends_a_build_before_it_begins(clone, monkeypatch, capsys):
    (clone / "book" / "_toc.yml").touch()
    path = clone / "notebooks" / "verdict.ipynb"
    path.write_text(path.read_text()[:-100])
    monkeypatch.setattr(build, "_executed", lambda *given: pytest.fail("began"))
    assert cli.main(["build"]) == 1
    assert f"{path} is not a valid notebook: " in capsys.readouterr().err


@pytest.mark.slow
def test_the_campaign_finds_nothing_when_small():
    command = [sys.executable, str(ROOT / "tests" / "campaign.py"), "--damages", "2", "--inputs", "5", "--kills", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
