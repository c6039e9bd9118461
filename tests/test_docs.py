"""The examples of docstrings and README run."""

import doctest
import importlib
import json
import re
import subprocess

import pytest
from helpers import ROOT, inside

import dcn
from dcn_study.runs import records
from dcn_study.runs.catalogue import PAPER, seeds_of
from dcn_study.show import tables


@pytest.mark.parametrize(
    "module",
    [
        "dcn.diagnostics",
        "dcn.interchange",
        "dcn.layers.conv_offset",
        "dcn.layers.deformable_conv",
        "dcn.layers.roi_pooling",
        "dcn.ops.convolution",
        "dcn.ops.roi_pooling",
    ],
)
def test_docstrings(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("page", ["README.md", "book/migration.md"])
def test_the_lines_of_a_page_run(page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})


def test_the_results_of_the_readme_are_those_on_record():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    with inside(ROOT):
        table = tables.agreement({run: [records.read(config) for config in seeds_of(run)] for run in PAPER})
    model = ""
    for (name, kind), row in table.iterrows():
        shown = "" if name == model else f" {name}"
        interval = f"{row['low']:.1f} to {row['high']:.1f}"
        cells = f"|{shown} | {kind} | {row['published']:.2f} | {row['mean']:.2f} | {interval} | {row['outcome']} |"
        assert cells in text
        model = name
    commands = re.findall(r"`dcn train (.*)` \|\n", text)
    for run, names in zip(PAPER, commands, strict=True):
        expanded = subprocess.run(["bash", "-c", f"echo {names}"], capture_output=True, text=True, check=True).stdout
        assert expanded.split() == [config.name for config in seeds_of(run)]


def test_all_metadata_names_one_version_and_one_title():
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {dcn.__version__}\n" in citation
    assert f'\ntitle: "{zenodo["title"]}"\n' in citation
    assert zenodo["version"] == dcn.__version__
    front = (ROOT / "book" / "intro.md").read_text(encoding="utf-8")
    assert f"\nVersion {dcn.__version__}, " in front
    assert f"version = {{{dcn.__version__}}}" in front
    assert f"title   = {{{zenodo['title']}}}" in front
    study = (ROOT / "dcn_study" / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{dcn.__version__}"\n' in study
    assert f'"deformable-conv-digits=={dcn.__version__}"' in study


def test_nothing_is_deployed_unless_all_records_hold():
    workflow = (ROOT / ".github" / "workflows" / "publish.yml").read_text(encoding="utf-8")
    assert workflow.index("dcn check") < workflow.index("dcn build") < workflow.index("deploy-pages")
