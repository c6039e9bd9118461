"""Outcomes under other choices: the stated ones are the verdict's, single changes are found, the page shows both."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest
from helpers import ROOT, evaluations, inside, make
from playwright.sync_api import expect

from dcn_study.experiments import study
from dcn_study.experiments.agreement import first_rule, of_runs, published_and_ours
from dcn_study.experiments.multiverse import Multiverse, altered_by, multiverse, multiverses, told
from dcn_study.experiments.statistics import contrast
from dcn_study.runs import measurements, published, records
from dcn_study.runs.catalogue import REALISATIONS, RETUNED, STUDY, find_run, seeds_of
from dcn_study.runs.measurements import MEASUREMENTS
from dcn_study.show import figures, tables
from dcn_study.show.multiverse import switches

# Two choices of two options: the first claim changes with the scale alone, the second with none by itself.
TWO = Multiverse(
    {"scale": ["logit", "linear"], "level": [95.0, 99.0]},
    {"scale": "logit", "level": 95.0},
    {"fragile": "aadd", "robust": "aaad"},
)


@pytest.fixture(scope="module")
def taken():
    """The runs of the paper's models, and all outcomes, computed from the records of the book."""
    with inside(ROOT):
        runs = {model: [records.read(run) for run in seeds_of(model)] for model in published.ACCURACY}
        return runs, multiverse(**MEASUREMENTS["multiverse"].parameters)


def test_the_record_is_what_its_function_gives_or_is_known_to_be_stale(taken):
    with inside(ROOT):
        measured = measurements.read("multiverse")
        behind = any("weights of" in change for change in measurements.status("multiverse").changes)
    assert behind or measured.results == json.loads(json.dumps(taken[1]))
    assert measured.path.stat().st_size < 50_000


def test_the_stated_choices_give_the_outcomes_of_the_verdict(taken):
    runs, results = taken
    found = multiverses(results)["accuracies"]
    judged = [each for kinds in of_runs(runs).values() for each in kinds.values()]
    assert [found.outcome(claim) for claim in found.outcomes] == [each.outcome for each in judged]
    alone = [found.outcome(claim, correction="none") for claim in found.outcomes]
    assert alone == [each.alone for each in judged]
    first = [found.outcome(claim, rule="first", scale="linear", correction="none") for claim in found.outcomes]
    compared = published_and_ours(runs).values()
    assert first == [first_rule(ours, theirs)[1] for ours, _, theirs in compared]
    assert first != alone


def test_the_stated_choices_give_the_verdicts_of_the_study(taken):
    found = multiverses(taken[1])["contrasts"]
    with inside(ROOT):
        compared, (_, best) = study.compared(study.recorded_runs()), study.at_best_rates()
    assert list(found.outcomes) == list(study.PRIMARY)
    for claim, each in compared.items():
        assert found.outcome(claim) == each.contrast.verdict
        judged = contrast(each.differences[:4], [0.0] * 4, 0.5)
        changes = {"number of realisations": 4, "smallest effect": 0.5, "correction": "none"}
        assert found.outcome(claim, **changes) == judged.verdict
        at_best = contrast(best[claim].differences, [0.0] * len(best[claim].differences), study.SMALLEST)
        assert found.outcome(claim, correction="none", **{"learning rates": "best"}) == at_best.verdict


def test_it_is_known_which_single_choice_changes_an_outcome():
    assert [TWO.outcome("robust", **changes) for changes in ({}, {"scale": "linear"}, {"level": 99.0})] == [
        "agrees"
    ] * 3
    assert TWO.outcome("robust", scale="linear", level=99.0) == "differs"
    assert TWO.flips("fragile") == {"scale": {"linear": "differs"}}
    assert TWO.flips("robust") == {}
    assert (TWO.share("fragile"), TWO.share("robust"), TWO.universes) == (0.5, 0.75, 4)
    assert altered_by(TWO) == {"scale": 1, "level": 0}
    assert told(TWO) == (
        "Whatever single choice is changed, 1 of 2 outcomes stay: robust (agrees). "
        "One choice alone can alter 1: fragile (scale)."
    )
    both = dataclasses.replace(TWO, outcomes={"fragile": "addd"})
    assert told(both) == (
        "A single change of a choice can alter each of 1 outcomes. "
        "Each of several choices can alter 1: fragile (scale, level)."
    )
    assert told(dataclasses.replace(TWO, outcomes={"robust": "aaad"})).endswith("robust (agrees).")


def test_the_table_names_options_in_a_row_together():
    seeds = Multiverse({"number of seeds": [3, 4, 5, 6, 7]}, {"number of seeds": 7}, {"one": "aauda"})
    row = tables.single_changes(seeds).loc["one"]
    assert row.tolist() == ["agrees", 60, "number of seeds 5: undecided; number of seeds 6: differs"]
    row = tables.single_changes(dataclasses.replace(seeds, outcomes={"one": "uuaua"})).loc["one"]
    assert row["altered by"] == "number of seeds 3 to 4: undecided; number of seeds 6: undecided"
    assert tables.single_changes(TWO)["altered by"].tolist() == ["scale linear: differs", "no single change"]


def test_the_curve_begins_with_the_stated_universe_and_marks_its_options():
    ax = figures.specification_curve(TWO)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["fragile", "robust", "scale: logit ◂", "scale: linear", "level: 95% ◂", "level: 99%"]
    starts = {bar.get_paths()[0].vertices[:, 0].min() for bar in ax.collections if len(bar.get_paths())}
    assert 0 in starts
    assert {text.get_text() for text in ax.figure.legends[0].get_texts()} == {"agrees", "differs"}


def test_a_measurement_goes_stale_with_the_runs_whose_results_it_reads(project, random):
    studied = [find_run(run, seed=seed) for run in STUDY for seed in range(REALISATIONS)]
    for config in [*(each for model in published.ACCURACY for each in seeds_of(model)), *studied]:
        record = make(config)
        record.evaluations |= evaluations(0.9 + random.normal(0, 0.01))
        records.write(record)
    read = measurements.result("multiverse").inputs.weights
    assert {"cnn", "cnn_batch_norm-seed9", "scale_wider_cnn-seed5", "rescaled_cnn"} <= set(read)
    assert read["scale_cnn_0.01"] == ""  # not run yet
    assert "scale_dilated_cnn" not in read
    assert not [change for change in measurements.status("multiverse").changes if "weights of" in change]
    records.write(make(RETUNED["cnn"][1e-2]))
    assert "weights of scale_cnn_0.01" in measurements.status("multiverse").changes
    records.write(make(find_run("cnn"), weights="trained again"))
    assert "weights of cnn" in measurements.status("multiverse").changes


def test_it_is_computed_and_shown_without_tensorflow():
    program = "import sys\nfrom dcn_study.experiments import multiverse\nfrom dcn_study.runs import measurements\n"
    program += "from dcn_study.show import multiverse as shown\ndeclared = measurements.MEASUREMENTS['multiverse']\n"
    program += "results = declared.measure({'fewest': 6, 'levels': '95', 'effects': '0.25'})\n"
    program += "shown.switches(multiverse.multiverses(results))\nsys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_the_switches_hold_all_that_they_show():
    page = switches({"accuracies": TWO})
    assert not re.search(r"https?://|src=", page)
    data = json.loads(re.search(r"const data = (.*);", page)[1])
    assert data["groups"] == {"accuracies": json.loads(json.dumps(vars(TWO)))}
    for text in ("logit (stated)", "linear", "95% (stated)", "99%"):
        assert f">{text}</option>" in page
    assert page.count('<span class="outcome agrees">agrees</span>') == 2


@pytest.fixture
def shown(page, tmp_path):
    """The switches of both groups, opened from a file on a phone."""
    path = tmp_path / "page.html"
    content = switches({"accuracies": TWO, "contrasts": TWO})
    path.write_text(f'<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=390">{content}')
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(path.as_uri())
    return page


def test_a_switch_changes_outcomes_and_a_button_takes_it_back(shown):
    group = shown.locator("[data-group=contrasts]")
    outcomes, said = group.locator("tbody td"), group.locator("[aria-live]")
    assert outcomes.all_inner_texts() == ["agrees", "agrees"]
    expect(said).to_have_text("These are the outcomes with the stated choices.")
    group.get_by_label("Scale").focus()
    shown.keyboard.press("ArrowDown")
    assert outcomes.all_inner_texts() == ["differs (stated: agrees)", "agrees"]
    expect(said).to_have_text("1 of 2 outcomes are other than with the stated choices.")
    group.get_by_label("Level").select_option("99%")
    assert outcomes.all_inner_texts() == ["differs (stated: agrees)"] * 2
    assert shown.locator("[data-group=accuracies] tbody td").all_inner_texts() == ["agrees", "agrees"]
    group.get_by_role("button").press("Enter")
    assert outcomes.all_inner_texts() == ["agrees", "agrees"]
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390


def test_without_scripts_a_table_shows_the_stated_outcomes(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(switches({"accuracies": TWO}), encoding="utf-8")
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(path.as_uri())
        expect(page.locator("select").first).to_be_hidden()
        assert page.locator("tbody td").all_inner_texts() == ["agrees", "agrees"]
