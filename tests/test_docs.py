"""The examples of docstrings and README run."""

import doctest
import importlib
import json
import re
from pathlib import Path

import pytest

import dcn

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("module", ["dcn.diagnostics", "dcn.layers", "dcn.ops.convolution", "dcn.ops.roi_pooling"])
def test_docstrings(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_readme():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})


def test_all_metadata_names_one_version_and_one_title():
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {dcn.__version__}\n" in citation
    assert f'\ntitle: "{zenodo["title"]}"\n' in citation
    assert zenodo["version"] == dcn.__version__
