"""The templates: their form, and that plain papermill runs them."""

import re
import subprocess
import sys

import nbformat
import pytest
from helpers import ROOT

from dcn_study.book import execution, pages
from dcn_study.book.parameters import notebook_parameters
from dcn_study.runs import records
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.measurements import MEASUREMENTS

TEMPLATES = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_form(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) <= 12
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    for cell in code:
        assert not cell.outputs
        assert cell.execution_count is None
        assert not any(line.lstrip().startswith(("def ", "class ")) for line in cell.source.splitlines())
        shown = cell.metadata.get("mystnb", {})
        if "figure" in shown:
            assert shown["figure"]["caption"]
            assert len(shown["image"]["alt"]) >= 20
    for parameter in notebook_parameters(path.stem).values():
        assert parameter.meaning, parameter.name
        assert parameter.values or parameter.type in ("str", "bool"), parameter.name
        parameter.parse(parameter.default.strip("\"'"))  # which checks that the default is valid
        used = [cell for cell in code if re.search(rf"\b{parameter.name}\b", cell.source)]
        assert len(used) > 1, f"{parameter.name} is declared and not used"


def test_every_template_is_a_page():
    assert {path.stem for path in TEMPLATES} == {page.notebook for page in pages.PAGES.values()} >= set(pages.SMALL)


def test_the_defaults_of_notebooks_are_those_of_the_book():
    """Otherwise a page of the book would ask for another measurement than the one on record."""
    for page, content in pages.PAGES.items():
        declared = notebook_parameters(content.notebook)
        defaults = {name: parameter.parse(parameter.default.strip("\"'")) for name, parameter in declared.items()}
        executed = {**defaults, **pages.page_parameters(page)}
        assert executed.get("seeds") is defaults.get("seeds") is None, page
        measurement = {"registration": "arms", "operators": "bench"}.get(page, page)
        if measurement in MEASUREMENTS:
            for name, value in MEASUREMENTS[measurement].parameters.items():
                assert executed[name] == value, f"{page}: {name}"


def test_a_small_book_changes_parameters_and_a_call_changes_them_again():
    for page, content in pages.PAGES.items():
        assert pages.page_parameters(page, "smoke").items() >= content.smoke.items(), page
        assert pages.page_parameters(page, "smoke", {"seeds": 3})["seeds"] == 3


def run_papermill(project, notebook, *parameters):
    command = [sys.executable, "-m", "papermill", str(ROOT / "notebooks" / f"{notebook}.ipynb"), "out.ipynb"]
    command += ["-k", "python3", *(word for text in parameters for word in ("-p", *text.split("=")))]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


def test_plain_papermill_trains_an_arm_of_the_study_small(project):
    small = {"epochs": 1, "train_size": 130, "validation_size": 20, "test_size": 50, "optimizer": "sgd"}
    given = [f"{name}={value}" for name, value in small.items()]
    done = run_papermill(project, "training", "run=scale_dilated_cnn", *given)
    assert done.returncode == 0, done.stderr
    record = records.read(find_run("scale_dilated_cnn", **small))
    assert record.evaluations["plain"].images == 50
    assert record.predictions_path.is_file()
    execution.reject_unfinished(project / "out.ipynb")


def test_plain_papermill_shows_other_digits(project):
    assert run_papermill(project, "method", "count=3", "seed=5").returncode == 0
    execution.reject_unfinished(project / "out.ipynb")


def test_a_wrong_value_fails_before_training(project):
    done = run_papermill(project, "training", "epochs=-1")
    assert done.returncode != 0
    assert "epochs must be from 1 to 100000. Received: epochs=-1" in done.stderr
    assert not (project / "checkpoints").exists()
