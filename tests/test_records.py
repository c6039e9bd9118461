import dataclasses
import json

import pytest

from dcn.study import records
from dcn.study.config import run_config
from dcn.study.records import Record, RecordError


def make(config, **provenance):
    return Record(
        name=records.record_name(config),
        configuration=config.to_dict(),
        history=[{"epoch": 1, "loss": 0.1, "accuracy": 0.9, "validation_loss": 0.2, "validation_accuracy": 0.8}],
        evaluations={"plain": {"accuracy": 0.8, "loss": 0.2, "images": 10}},
        witness=[2.3, 2.2],
        provenance={"code_sha256": records.code_sha256(), **provenance},
    )


def test_a_record_survives_writing_and_reading(project):
    config = run_config("cnn", seed=3)
    record = make(config)
    path = records.write(record)
    assert path == project / "book/records/cnn-seed3.json"
    assert records.read(config) == record
    assert records.read(config).config == config
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_other_configurations_are_kept_apart(project):
    path = records.write(make(run_config("cnn", epochs=1)))
    assert path.parent == project / "runs"


def test_standing(project):
    config = run_config("cnn")
    record = make(config)
    assert records.standing(config, None) == "missing"
    assert records.standing(config, record) == "fresh"
    assert records.standing(dataclasses.replace(config, epochs=3), record) == "stale"
    record.provenance["code_sha256"] = "earlier"
    assert records.standing(config, record) == "stale"
    record.confirmations.append({"code_sha256": "another"})
    assert records.standing(config, record) == "stale"
    record.confirmations.append({"code_sha256": records.code_sha256()})
    assert records.standing(config, record) == "confirmed"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', '{"schema": 99, "name": "cnn"}'])
def test_a_damaged_record_is_an_error_that_names_the_file(project, content):
    config = run_config("cnn")
    path = records.write(make(config))
    path.write_text(content)
    with pytest.raises(RecordError, match=f"{path} is not a record"):
        records.read(config)


def test_a_failed_write_leaves_the_former_record(project):
    config = run_config("cnn")
    records.write(make(config))
    broken = make(config)
    broken.witness = [object()]
    with pytest.raises(TypeError, match="not JSON serializable"):
        records.write(broken)
    assert records.read(config) == make(config)
    assert len(list((project / "book/records").iterdir())) == 1


def test_the_project_is_found_from_a_folder_inside_it(project, monkeypatch):
    (project / "notebooks").mkdir()
    monkeypatch.chdir(project / "notebooks")
    assert records.project_root() == project


def test_the_code_digest_covers_what_computes(monkeypatch, tmp_path):
    before = records.code_sha256()
    for name in records.COMPUTES:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text((records.PACKAGE / name).read_text())
    monkeypatch.setattr(records, "PACKAGE", tmp_path)
    records.code_sha256.cache_clear()
    assert records.code_sha256() == before
    for name in records.COMPUTES:
        content = (tmp_path / name).read_text()
        (tmp_path / name).write_text(content + "\n")
        records.code_sha256.cache_clear()
        assert records.code_sha256() != before, name
        (tmp_path / name).write_text(content)
    records.code_sha256.cache_clear()


def test_the_environment_is_complete():
    found = records.environment()
    assert set(found) == {"tensorflow", "keras", "numpy", "python", "processor", "threads"}
    assert json.dumps(found)
