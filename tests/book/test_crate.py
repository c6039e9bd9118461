"""The description of the book for programs, of records that were never trained."""

import copy
import json
import shutil

import pytest
from crates import check_crate, references
from helpers import ROOT, keep, keep_measurement

from dcn_study.book.crate import crate, repository
from dcn_study.book.sources import Source
from dcn_study.runs import measurements, records
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.inputs import code_sha256


def source_of(run):
    record, status = records.inspect(run)
    return Source(record.path, status, record)


@pytest.fixture
def described(project):
    """The crate of a page that shows a run, the run that it starts from, and a measurement; and its folder."""
    for name in (".zenodo.json", "CITATION.cff"):
        shutil.copy(ROOT / name, project)
    found = []
    for config in (find_run("cnn"), find_run("deformable_cnn")):
        keep(config)
        found.append(source_of(config))
    measured = keep_measurement("runtime")
    found.append(Source(measured.path, measurements.status("runtime"), measured))
    html = project / "html"
    shutil.copytree(project / "book" / "records", html / "records")
    for name in ("index.html", "executed/cnn.html", "executed/cnn.values.json", "_sources/executed/cnn.ipynb"):
        (html / name).parent.mkdir(parents=True, exist_ok=True)
        (html / name).write_text(name)
    return crate(project, html, {"cnn": found}), html


def test_it_conforms_to_process_run_crate(described):
    check_crate(*described)


def test_it_names_code_data_configuration_and_initial_weights(described):
    entities = check_crate(*described)
    action = entities["#deformable_cnn"]
    code = entities[references(action["instrument"])[0]]
    assert code["sha256"] == code_sha256()
    project = entities[code["isPartOf"]["@id"]]
    assert project["name"] == "deformable-conv-digits"
    assert project["version"] == json.loads((ROOT / ".zenodo.json").read_text())["version"]
    settings, data, weights = (entities[each] for each in references(action["object"]))
    assert json.loads(settings["value"]) == find_run("deformable_cnn").config.to_dict()
    assert data["sha256"].startswith("a016")
    assert weights["@id"] == "records/cnn.weights.h5"
    assert references(action["result"]) == ["records/deformable_cnn.json", "records/deformable_cnn.weights.h5"]
    assert references(entities["executed/cnn.values.json"]["isBasedOn"]) == [
        "records/cnn.json",
        "records/deformable_cnn.json",
        "records/runtime.json",
    ]
    assert "object" in entities["#runtime"]


def test_initial_weights_that_are_not_in_the_book_are_named_by_their_digest(described, project):
    _, html = described
    (html / "records" / "cnn.weights.h5").write_bytes(b"other weights")
    source = source_of(find_run("deformable_cnn"))
    entities = check_crate(crate(project, html, {"cnn": [source]}), html)
    weights = entities[references(entities["#deformable_cnn"]["object"])[-1]]
    assert weights["@type"] == "CreativeWork"
    assert weights["sha256"] == source.record.provenance.inputs.weights["cnn"]


@pytest.mark.parametrize(
    ("identifier", "name"),
    [("./", "conformsTo"), ("#cnn", "instrument"), ("#cnn", "agent"), ("./", "license"), ("cnn.json", "sha256")],
)
def test_the_check_finds_what_is_missing(described, identifier, name):
    damaged, folder = copy.deepcopy(described[0]), described[1]
    identifier = f"records/{identifier}" if identifier.endswith(".json") else identifier
    next(entity for entity in damaged["@graph"] if entity["@id"] == identifier).pop(name)
    with pytest.raises((AssertionError, KeyError)):
        check_crate(damaged, folder)


@pytest.mark.parametrize(
    "line", ['repository-code: "https://example.org/a/b"', "repository-code: https://example.org/a/b"]
)
def test_the_address_of_the_repository_comes_from_the_citation(tmp_path, line):
    citation = tmp_path / "CITATION.cff"
    citation.write_text("cff-version: 1.2.0\n")
    assert repository(tmp_path) == ""
    citation.write_text(f"cff-version: 1.2.0\n{line}\n")
    assert repository(tmp_path) == "https://example.org/a/b"
