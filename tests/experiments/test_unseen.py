"""The second registered study: which rate its pilots choose, and when a verdict is given."""

import dataclasses
import re

import numpy as np
import pytest
from helpers import ROOT, evaluations, history, inside, make
from scipy import stats

from dcn_study.experiments import unseen
from dcn_study.experiments.statistics import contrasts, detectable, interval
from dcn_study.experiments.study import Comparison
from dcn_study.runs import catalogue, records
from dcn_study.runs.catalogue.unseen import (
    FASHION,
    FRESH,
    FRESH_REALISATIONS,
    PILOT_RATES,
    PILOT_REALISATIONS,
    PILOTS,
    REALISATIONS,
    RETUNED,
    UNSEEN,
)
from dcn_study.runs.mnist_scale import OUT_OF_RANGE
from dcn_study.runs.records import Evaluation
from dcn_study.show import figures, tables


def keep(run, number, accuracy, validated=0.9, fields=None):
    record = make(run.seeded(number))
    record.evaluations |= evaluations(0.97, accuracy)
    record.history = history(validation_accuracy=[0.5] * (record.config.epochs - 1) + [validated])
    record.field_areas = fields or {}
    if record.config.re_estimate:
        record.evaluations["validation, re-estimated"] = Evaluation(accuracy=validated + 0.01, loss=0.1, images=10)
    records.write(record)


def chosen(arm, **rates):
    tried = {float(rate): values if isinstance(values, list) else [values] * 2 for rate, values in rates.items()}
    return unseen.chosen_rate(arm, tried)


def test_the_smallest_rate_near_the_best_is_chosen():
    assert unseen.chosen_rate("cnn", {}) is None
    assert chosen("cnn", **{"1e-3": 96.0, "3e-3": 97.95, "1e-2": 98.0}) == 3e-3  # a tie
    assert chosen("cnn", **{"1e-3": 96.0, "3e-3": 97.0, "1e-2": 98.0}) is None  # the next rate is missing
    assert chosen("cnn", **{"1e-3": 96.0, "3e-3": 97.0, "1e-2": 98.0, "3e-2": 98.05}) == 1e-2
    assert chosen("cnn", **{"1e-3": 96.0, "3e-3": 97.0, "1e-2": 98.0, "3e-2": 98.5}) == 3e-2
    assert chosen("cnn", **{"1e-3": 98.0, "3e-3": 98.0, "1e-2": 98.0, "3e-4": 97.0}) == 1e-3
    assert chosen("deform_conv_cnn", **{"3e-4": 98.0, "1e-3": 97.0, "3e-3": 97.0}) is None
    assert chosen("cnn", **{"1e-3": 96.0, "3e-3": [97.95], "1e-2": 98.0}) is None  # one realisation is missing


def test_pilots_are_read_from_their_records(project):
    run = PILOTS["cnn"][3e-3]
    keep(run, PILOT_REALISATIONS[0], 0.5, validated=0.97)
    assert unseen.validated(unseen.pilot_runs()["cnn"]) == {3e-3: [pytest.approx(97.0)]}
    keep(run, PILOT_REALISATIONS[1], 0.5, validated=0.98)
    found = unseen.pilot_runs()
    assert unseen.validated(found["cnn"]) == {3e-3: [pytest.approx(97.0), pytest.approx(98.0)]}
    table = tables.unseen_pilots(found)
    row = table.loc[("CNN", "0.003")]
    assert row["realisations"] == "2 of 2"
    assert (row["validation"], row["re-estimated"]) == (pytest.approx(97.5), pytest.approx(98.5))
    assert row["unseen"] == pytest.approx(50.0)
    assert set(table["choice"]) == {"not yet"}
    assert len(table) == sum(map(len, PILOT_RATES.values()))


def test_the_table_of_pilots_shows_the_rate_that_they_choose(project):
    for rate, accuracy in ((1e-3, 0.95), (3e-3, 0.96), (1e-2, 0.98), (3e-2, 0.9)):
        for number in PILOT_REALISATIONS:
            keep(PILOTS["antialiased_cnn"][rate], number, 0.5, validated=accuracy)
    table = tables.unseen_pilots(unseen.pilot_runs()).loc["CNN, anti-aliased"]
    assert table["choice"].to_dict() == {"0.001": "", "0.003": "", "0.01": "chosen", "0.03": ""}


def test_no_verdict_before_all_realisations_of_all_arms_are_there(project, random):
    gains = {"cnn": 0.0, "shared_offsets_cnn": 0.03, "deform_conv_cnn": 0.05, "antialiased_cnn": 0.049}
    for number in REALISATIONS:
        assert all(each.contrast is None for each in unseen.compared(unseen.recorded_runs()).values())
        for arm, gain in gains.items():
            keep(UNSEEN[arm], number, 0.7 + gain + random.normal(0, 1e-4))
    recorded = unseen.recorded_runs()
    found = unseen.compared(recorded)
    told = unseen.so_far(recorded)
    assert told.startswith("All 40 primary runs are finished. In percentage points, with 95% intervals: ")
    assert re.search(r"; deformable convolutions over the anti-aliased CNN \+0\.1\d \(.*?\), equivalent; ", told)
    axes = figures.differences(found, unseen.SMALLEST)
    assert [text.get_text() for text in axes.texts] == [each.contrast.verdict for each in found.values()]
    assert tables.contrast_checks(found)["p, not zero (Holm)"].notna().all()
    assert [each.contrast.verdict for each in found.values()] == ["better", "better", "equivalent", "better"]
    assert all(each.numbers == REALISATIONS for each in found.values())
    assert all(each.contrast is None for each in unseen.compared(unseen.recorded_runs(), "plain").values())


def test_a_verdict_depends_on_the_rates_if_its_difference_is_too_small_or_reversed_at_the_others(project):
    gains = {"cnn": 0.0, "shared_offsets_cnn": -0.05, "deform_conv_cnn": 0.05, "antialiased_cnn": 0.049}
    at_largest = {"cnn": 0.0, "shared_offsets_cnn": 0.03, "deform_conv_cnn": 0.0101, "antialiased_cnn": 0.01}
    for number in REALISATIONS:
        for arm, gain in gains.items():
            keep(UNSEEN[arm], number, 0.7 + gain + number * 1e-5)
    compared = unseen.compared(unseen.recorded_runs())
    assert [each.contrast.verdict for each in compared.values()] == ["better", "better", "equivalent", "worse"]

    def judged():
        at_others = unseen.compared(unseen.recorded_runs(RETUNED))
        table = tables.verdicts_by_rates(compared, at_others)["there within 1 point, or reversed"]
        means = figures.differences(compared, unseen.SMALLEST, at_others).containers
        lines = [each.lines[0] for each in means if each.lines[0].get_markerfacecolor() == "white"]
        return table.tolist(), [float(line.get_xdata()[0]) for line in lines]

    for number in REALISATIONS[:6]:
        assert judged()[0] == ["not yet"] * 4  # until all of them are there
        for arm, gain in at_largest.items():
            keep(RETUNED[arm], number, 0.7 + gain + number * 1e-5)
    # barely beyond; on the other side; no verdict that one side could reverse; on the other side of "worse"
    assert judged() == (["no", "yes", "no", "yes"], pytest.approx([1.01, -1.99, 0.01, 3.0]))


@pytest.mark.parametrize(("reached", "share"), [(3.0, 0.007), (0.0, 0.89)])
def test_how_often_a_verdict_is_said_to_depend_on_rates_that_change_nothing_or_everything(reached, share, random):
    """For a true difference of 3 points at the chosen rates, and pairs that spread by 2 points as the widest did."""
    found = []
    for _ in range(1000):
        drawn = random.normal(3.0, 2.0, len(REALISATIONS))
        (judged,) = contrasts([(drawn, [0.0] * len(drawn))], unseen.SMALLEST)
        others = tuple(random.normal(reached, 2.0, len(FRESH_REALISATIONS)))
        compared = Comparison(("a", "b"), REALISATIONS, tuple(drawn), judged)
        if judged.verdict == "better":
            found.append(unseen.depends_on_rates(compared, Comparison(("a", "b"), FRESH_REALISATIONS, others, None)))
    assert len(found) > 500
    assert np.mean(found) == pytest.approx(share, abs=0.03)


def test_realisations_are_fresh_and_each_run_has_a_name_of_its_own():
    runs = [run for run in catalogue.study_runs() if run.entry.startswith(("unseen_", "fresh_"))]
    before = [run for run in catalogue.study_runs() if run not in runs and run.config.task == "mnist_scale"]
    assert not {run.seed for run in before} & {run.seed for run in runs}
    assert not set(PILOT_REALISATIONS) & set(REALISATIONS)
    names = {run.name for run in runs}
    assert len(names) == len(runs)
    assert names >= {"unseen_cnn-seed9", "unseen_pilot_cnn_0.003-seed7", "fresh_deform_conv_cnn-seed14"}
    assert all(run.in_book and not run.keeps_weights for run in runs)


def test_the_power_that_the_registration_states():
    """With a standard deviation of 0.7 points between pairs, Holm's strictest step among the primary contrasts."""
    runs, spread = len(REALISATIONS), 0.7
    assert detectable(spread, runs) == pytest.approx(0.7, abs=0.01)
    critical = stats.t.isf(0.025 / len(unseen.PRIMARY), runs - 1)
    drawn = np.random.default_rng(0).normal(0, spread, (20_000, runs))
    half = critical * drawn.std(axis=1, ddof=1) / runs**0.5
    better = np.mean(1.9 + drawn.mean(axis=1) - half > unseen.SMALLEST)
    equivalent = np.mean(np.abs(drawn.mean(axis=1)) + half < unseen.SMALLEST)
    assert (better, equivalent) == (pytest.approx(0.80, abs=0.02), pytest.approx(0.78, abs=0.02))


def test_results_appear_as_records_come_in(project):
    costs = {"parameters": {"cnn": 7}, "step_ms": {"cnn": [1.0, 2.0, 3.0]}, "memory": {"cnn": None}}
    costs = costs, dict.fromkeys(UNSEEN, 2_000_000)
    nothing = unseen.recorded_runs()
    assert unseen.so_far(nothing).startswith("So far 0 of 40 primary runs are finished.")
    assert set(tables.unseen_accuracies(nothing, *costs)["plain"]) == {"–"}
    assert tables.unseen_changes(nothing).isna().all(axis=None)
    assert not any(ax.get_lines() for ax in figures.field_and_accuracy(nothing))
    for number in REALISATIONS[:2]:
        keep(UNSEEN["cnn"], number, 0.6 + number / 100, fields={"plain": 50, "scaled": 40})
    keep(UNSEEN["deform_conv_cnn"], REALISATIONS[0], 0.8, fields={"plain": 180, "scaled": 160})
    keep(UNSEEN["shared_offsets_cnn"], REALISATIONS[0], 0.7)  # from before fields were kept
    found = unseen.recorded_runs()
    assert unseen.so_far(found).startswith("So far 4 of 40 primary runs are finished. No verdict")
    table = tables.unseen_accuracies(found, *costs)
    row = table.loc["CNN", ["realisations", "scaled and translated", "million multiply-adds", "ms per step"]]
    assert row.tolist() == [2, "69.50 ± 6.35", 2.0, 2.0]
    assert table.loc["deformable convolutions", "scaled and translated"] == "80.00"
    changes = tables.unseen_changes(found)
    assert changes.loc[("scale", "1.6"), "CNN"] == pytest.approx(80.0)
    assert changes["CNN, anti-aliased"].isna().all()
    assert len(changes) == len(OUT_OF_RANGE)
    plain, scaled = figures.field_and_accuracy(found)
    assert tables.unseen_rates(found, unseen.recorded_runs(RETUNED)).empty
    keep(RETUNED["cnn"], REALISATIONS[1], 0.9, validated=0.95, fields={"plain": 45, "scaled": 35})
    keep(RETUNED["cnn"], REALISATIONS[2], 0.1)
    retuned = unseen.recorded_runs(RETUNED)
    table = tables.unseen_rates(found, retuned)
    assert table.index.tolist() == [("CNN", "0.003"), ("CNN", "0.01")]
    assert table["scaled and translated"].tolist() == pytest.approx([70.0, 90.0])  # of the realisation that both have
    assert table[["validation", "field, plain"]].to_numpy().tolist() == [
        [pytest.approx(90), 50],
        [pytest.approx(95), 45],
    ]
    opened = figures.field_and_accuracy(found, retuned)[0].get_lines()[1]
    assert (opened.get_xdata().tolist(), opened.get_markerfacecolor()) == ([45], "white")
    points = {line.get_label(): line.get_xydata().tolist() for line in plain.get_lines()}
    assert points == {
        "CNN": [[50, pytest.approx(69)], [50, pytest.approx(70)]],
        "deformable convolutions": [[180, pytest.approx(80)]],
    }
    assert [line.get_xdata().tolist() for line in scaled.get_lines()] == [[40, 40], [160]]


def test_fields_and_accuracies_correlate_over_all_runs_or_within_arms(project):
    assert np.isnan(unseen.field_correlations("plain", {})).all()
    for arm, field, step in (("cnn", 50, 0.01), ("deform_conv_cnn", 150, -0.01)):
        for number in range(3):
            accuracy = field / 200 + number * step
            keep(UNSEEN[arm], REALISATIONS[number], accuracy, fields={"plain": field + number, "scaled": 50 - number})
    found = unseen.recorded_runs()
    over_all, within = unseen.field_correlations("plain", found)
    assert (over_all, within) == (pytest.approx(1, abs=0.01), pytest.approx(0, abs=1e-6))
    assert unseen.field_correlations("scaled", {"cnn": found["cnn"]}) == (pytest.approx(-1), pytest.approx(-1))
    # at another rate, the same arm: a larger field goes with a lower accuracy, which is not counted within the arm
    for number in range(2):
        keep(RETUNED["cnn"], REALISATIONS[number], 0.1 + number / 100, fields={"plain": 90 + number, "scaled": 49})
    over_all, within = unseen.field_correlations("plain", {"cnn": found["cnn"]}, unseen.recorded_runs(RETUNED))
    assert (over_all < -0.9, within) == (True, pytest.approx(1))


def test_fresh_runs_are_compared_without_a_verdict(project):
    for number in REALISATIONS[:6]:
        for arm, accuracy in (("cnn", 0.9), ("shared_offsets_cnn", 0.93), ("deform_conv_cnn", 0.95)):
            keep(FRESH[arm], number, accuracy)
    found = unseen.compared(unseen.recorded_runs(FRESH))
    assert list(found) == [name for name in unseen.PRIMARY if name != "against a low-pass filter"]
    assert all(each.contrast is None and len(each.numbers) == 6 for each in found.values())
    assert tables.contrast_results(found)["difference"].tolist() == pytest.approx([5.0, 2.0, 3.0])


def test_runs_on_another_data_set_are_shown_beside_those_on_mnist_scale(project):
    for arm, accuracy in (("cnn", 0.5), ("deform_conv_cnn", 0.52)):
        keep(FRESH[arm], REALISATIONS[0], 0.9)
        for number in REALISATIONS[:2]:
            assert FASHION[arm].config == dataclasses.replace(UNSEEN[arm].config, data="fashion_mnist")
            keep(FASHION[arm], number, accuracy)
    found = {"a": unseen.recorded_runs(FRESH), "b": unseen.recorded_runs(FASHION)}
    table = tables.contrasts_side_by_side({name: unseen.compared(runs) for name, runs in found.items()})
    assert table.loc["in place of the convolutions"].tolist() == ["+0.00", 1, "+2.00 (+2.00 to +2.00)", 2]
    assert table.loc["offsets that ignore the image"].tolist() == ["–", 0, "–", 0]
    table = tables.unseen_on_other_data(found)
    assert table.loc[("b", "CNN"), "like those of training"] == "97.00 ± 0.00"
    assert table.loc[("b", "CNN"), "scaled and translated"] == "50.00 ± 0.00"
    assert table.loc[("b", "CNN"), "realisations"] == 2
    assert table.loc[("b", "deformable, same offsets for all images"), "scaled and translated"] == "–"


def test_the_pages_say_what_the_records_say():
    """The words of the first page, of the README and of this study's page, as conditions on the committed records."""
    with inside(ROOT):
        found, retuned = unseen.recorded_runs(), unseen.recorded_runs(RETUNED)
        fresh, clothing = (unseen.compared(unseen.recorded_runs(runs)) for runs in (FRESH, FASHION))
    assert all(interval(each.differences).low > 0 for each in fresh.values())  # gains recur
    assert [len(each.numbers) for each in clothing.values()] == [3, 3, 3]
    assert all(interval(each.differences).low < 0 < interval(each.differences).high for each in clothing.values())
    compared, at_largest = unseen.compared(found), unseen.compared(retuned)
    assert {name: each.contrast.verdict for name, each in compared.items()} == dict.fromkeys(unseen.PRIMARY, "better")
    depends = [unseen.depends_on_rates(compared[name], at_largest[name]) for name in unseen.PRIMARY]
    assert depends == [False] * 4
    mixed = unseen.compared(found | {"antialiased_cnn": retuned["antialiased_cnn"]})["against a low-pass filter"]
    assert interval(mixed.differences).low < 0 < interval(mixed.differences).high  # uncertain
    changes = tables.unseen_changes(found)
    leads = changes["deformable convolutions"] - changes.drop(columns="deformable convolutions").max(axis=1)
    assert leads.idxmax() == ("scale", "0.4")  # lead most
    faster = tables.unseen_changes(retuned)
    for scale in ("1.4", "1.6"):
        assert changes.loc[("scale", scale)].idxmax() == "deformable, same offsets for all images"  # do best
        assert faster.loc[("scale", scale)].idxmax() == "deformable convolutions"
    for turned in ("-60", "60"):
        assert changes.loc[("rotation", turned)].idxmin() == "deformable convolutions"  # are last
        assert faster.loc[("rotation", turned)].idxmin() != "deformable convolutions"
    for kind in ("plain", "scaled"):
        over_all, within = unseen.field_correlations(kind, found, retuned)
        assert over_all > 0.5 > within  # less is left


def test_a_record_of_another_configuration_is_not_counted_among_the_runs(project):
    run = UNSEEN["cnn"]
    keep(run, REALISATIONS[0], 0.6)
    assert list(records.by_seed(run)) == [REALISATIONS[0]]
    other = dataclasses.replace(run, config=dataclasses.replace(run.config, learning_rate=1e-2))
    assert other.seeded(REALISATIONS[0]).path == run.seeded(REALISATIONS[0]).path  # as if the catalogue had changed
    assert records.by_seed(other) == {}


def test_the_rates_of_arms_are_those_that_the_committed_pilots_chose_and_none_is_trained_before():
    with inside(ROOT):
        found, piloted = unseen.recorded_runs(), unseen.pilot_runs()
    chosen = {arm: unseen.chosen_rate(arm, unseen.validated(tried)) for arm, tried in piloted.items()}
    assert {arm for arm, runs in found.items() if runs} <= {arm for arm, rate in chosen.items() if rate}
    for arm in (arm for arm, rate in chosen.items() if rate):
        assert UNSEEN[arm].config.learning_rate == chosen[arm], arm
        assert RETUNED[arm].config.learning_rate == unseen.tied_rates(arm, unseen.validated(piloted[arm]))[-1], arm
