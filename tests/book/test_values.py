"""The numbers of a page for programs."""

import hashlib
import json

import nbformat
import pytest
from helpers import keep

from dcn_study.book import values
from dcn_study.book.sources import Source
from dcn_study.runs import records
from dcn_study.runs.catalogue import find_run

GLUES = """
import numpy as np
import pandas as pd
from IPython.display import Markdown
from myst_nb import glue
glue("share", 12.345678901234567, display=False)
glue("many", 60_000, display=False)
glue("told", "it's 3 of 4", display=False)
glue("holds", True, display=False)
glue("nothing", None, display=False)
glue("shown", 7)
glue("unknown", float("nan"), display=False)
glue("array", np.arange(2), display=False)
glue("table", pd.DataFrame({"a": [1]}), display=False)
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A notebook that has glued values of all kinds, executed as a page is."""
    import papermill

    folder = tmp_path_factory.mktemp("values")
    cells = [nbformat.v4.new_code_cell("print('no value')"), nbformat.v4.new_code_cell(GLUES)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(notebook, folder / "template.ipynb")
    papermill.execute_notebook(
        folder / "template.ipynb", folder / "page.ipynb", kernel_name="python3", progress_bar=False
    )
    return nbformat.read(folder / "page.ipynb", as_version=4)


def test_every_glued_value_is_there_as_it_was(executed):
    found, displays = values.glued(executed)
    assert found == {
        "share": 12.345678901234567,
        "many": 60_000,
        "told": "it's 3 of 4",
        "holds": True,
        "nothing": None,
        "shown": 7,
        "unknown": "nan",
        "array": "array([0, 1])",
    }
    assert displays == {"table": ["text/html", "text/plain"]}


def test_a_page_has_its_values_with_its_records(executed, project):
    record = keep(find_run("cnn"))
    target = project / "cnn.values.json"
    shown = [Source(record.path, records.inspect(record.run)[1], record)]
    values.write_values("cnn", {"run": "cnn", "seeds": None}, shown, executed, target)
    content = json.loads(target.read_text(encoding="utf-8"))
    assert content["page"] == "cnn"
    assert content["parameters"] == {"run": "cnn", "seeds": None}
    digest = hashlib.sha256(record.path.read_bytes()).hexdigest()
    assert content["records"] == [{"path": "records/cnn.json", "status": "fresh", "sha256": digest}]
    assert content["values"]["share"] == 12.345678901234567
