"""The first registered study: what is compared, when a verdict is given, and what its pilots chose."""

import dataclasses
import re
import subprocess
from datetime import datetime

import numpy as np
import pytest
from helpers import ROOT, evaluations, history, inside, make

from dcn_study.experiments import study, unseen
from dcn_study.experiments.statistics import interval
from dcn_study.runs import catalogue, measurements, mnist_scale, records
from dcn_study.runs.catalogue import PILOTS, REALISATIONS, SPREAD, STUDY, TWO_BY_TWO, all_seeds, find_run
from dcn_study.runs.catalogue import unseen as unseen_runs
from dcn_study.runs.records import Evaluation
from dcn_study.show import figures, tables

RETUNED = "5838b8a4ae6e357fd432e747c3f8a4d704df979c"  # the commit of the amendment on learning rates
LEFT = "797d2bc1376fd4a2ae79881aa7b01693160d0c09"  # the commit of the amendment on what was left to be run


def keep(run, accuracy):
    record = make(run)
    record.evaluations |= evaluations(accuracy)
    record.history = history(validation_accuracy=[0.5] * (run.config.epochs - 1) + [accuracy])
    records.write(record)
    return record


def test_no_verdict_before_all_pairs_are_there(project, random):
    runs = sorted({run for pair in study.PRIMARY.values() for run in pair})
    shift = {"scale_deform_conv_cnn": 0.01}
    for number in range(REALISATIONS):
        assert all(each.contrast is None for each in study.compared(study.recorded_runs()).values())
        for run in runs:
            keep(find_run(run, seed=number), 0.97 + shift.get(run, 0.0) + random.normal(0, 1e-4))
    found = study.compared(study.recorded_runs())
    assert found["at equal time per step"].contrast.verdict == "better"
    assert found["at equal time per step"].numbers == tuple(range(REALISATIONS))
    assert found["beyond scale augmentation"].contrast.verdict == "equivalent"
    assert found["at equal multiply-adds"].contrast.difference.mean == pytest.approx(1.0, abs=0.05)
    verdicts = tables.contrast_results(found)["verdict"].tolist()
    assert verdicts == ["better", "better", "better", "better", "equivalent"]
    assert [text.get_text() for text in figures.differences(found).texts] == verdicts
    table = tables.contrast_checks(found)
    assert (table["p (Holm)"] < 0.05).all()
    assert table["p, not zero (Holm)"].tolist() == [each.contrast.zero_p_value for each in found.values()]
    assert set(table["pairs to decide"]) == {"decided"}
    for pairs, told in ((9, "9"), (0, "over 1000")):
        each = found["at equal time per step"]
        undecided = dataclasses.replace(each.contrast, verdict="undecided", runs_to_decide=pairs)
        table = tables.contrast_checks({"one": dataclasses.replace(each, contrast=undecided)})
        assert table["pairs to decide"].item() == told


def test_the_best_rate_is_that_of_the_highest_validation_accuracy(project):
    tried = PILOTS["cnn"]
    assert study.best_rate(study.pilots()["cnn"]) is None
    for rate, accuracy in ((3e-4, 0.95), (1e-3, 0.97), (3e-3, 0.97)):
        keep(tried[rate], accuracy)
    assert study.best_rate(study.pilots()["cnn"]) == 1e-3  # the lower one of equals
    table = tables.pilots(study.pilots())
    assert table["best"].tolist() == ["0.001", *(4 * ["not run yet"]), "dropped", *(5 * ["not run yet"])]
    assert list(table) == ["0.0003", "0.001", "0.003", "best"]
    keep(tried[3e-3], 0.98)
    assert study.best_rate(study.pilots()["cnn"]) is None  # it may be a higher one
    keep(tried[1e-2], 0.99)
    assert study.best_rate(study.pilots()["cnn"]) is None
    keep(tried[3e-2], 0.1)
    assert study.best_rate(study.pilots()["cnn"]) == 1e-2


def test_the_best_rate_of_all_runs_is_chosen_on_validation_images_of_common_realisations(project):
    def at(rate, number, validated, tested):
        run = {3e-3: STUDY["scale_cnn"], **catalogue.RETUNED["cnn"]}[rate]
        record = keep(run.seeded(number), validated)
        record.evaluations |= evaluations(tested)
        records.write(record)

    assert study.best_of(study.rates_tried()["scale_cnn"]) == 3e-3  # as chosen, as long as there is nothing to compare
    for number in range(2):
        at(3e-3, number, 0.96, 0.99)  # no test image chooses a rate
        at(1e-2, number, 0.97, 0.95)
    at(3e-3, 2, 0.999, 0.99)  # has no counterpart
    tried = study.rates_tried()["scale_cnn"]
    assert study.best_of(tried) == 1e-2
    for number in (1, 2):
        keep(find_run("scale_deform_conv_cnn", seed=number), 0.98)
    best, found = study.at_best_rates()
    assert best["scale_cnn"] == 1e-2
    assert found["in place of the convolutions"].numbers == (1,)  # the realisations that both have
    assert found["in place of the convolutions"].differences == pytest.approx((3.0,))
    assert all(each.contrast is None for each in found.values())
    at(1e-2, 0, 0.95, 0.95)
    assert study.best_of(study.rates_tried()["scale_cnn"]) == 3e-3  # the lower one of equals
    table = tables.rates_tried(study.rates_tried())
    assert table["chosen by"].tolist() == ["pilots and all runs", ""]
    table = tables.contrasts_side_by_side({"as chosen": study.compared(study.recorded_runs()), "at the best": found})
    first = table.loc["in place of the convolutions"]
    assert (first["pairs, as chosen"], first["pairs, at the best"], first["at the best"]) == (2, 1, "+3.00")


def test_the_spread_is_that_of_each_source_alone(project):
    for source in ("weights", "realisation"):
        for number in range(3):
            keep(SPREAD[source][number], 0.9 + 0.01 * number)
    found = study.spread()
    assert found["weights"] == pytest.approx([90.0, 91.0, 92.0])
    assert found["order"] == [90.0]  # the run that all sources share
    table = tables.spread(found)
    assert list(table.index) == ["weights", "realisation"]
    assert table["standard deviation"].tolist() == pytest.approx([1.0, 1.0])


def test_the_rates_of_the_arms_are_those_that_the_committed_pilots_chose():
    with inside(ROOT):
        chosen = {arm: study.best_rate(tried) for arm, tried in study.pilots().items()}
        begun = {arm for arm in PILOTS for run in (f"scale_{arm}", f"rescaled_{arm}") if study.recorded_runs().get(run)}
    assert chosen["cnn"] is not None
    assert begun <= {arm for arm, rate in chosen.items() if rate is not None}  # pilots come first
    for arm, rate in chosen.items():
        assert rate is None or STUDY[f"scale_{arm}"].config.learning_rate == rate, arm


def test_every_run_of_the_study_has_one_name():
    runs = catalogue.study_runs()
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    assert [catalogue.find_run(name) for name in names] == runs
    assert not {run.name for run in catalogue.book_runs()} & set(names)


def test_weights_are_kept_where_a_page_evaluates_them():
    kept = [run.name for run in catalogue.study_runs() if run.keeps_weights]
    assert len(kept) == 2 * REALISATIONS
    assert find_run("cnn").keeps_weights
    assert not find_run("mini_resnet", seed=7).keeps_weights
    assert find_run("cnn", seed=7).keeps_weights  # from which others start
    starts = {run.config.initial_run for run in catalogue.RUNS.values()}
    others = [run for run in catalogue.book_runs() if run.entry not in starts]
    assert {run.seed for run in others if run.keeps_weights} == set(range(catalogue.CONTROL_SEEDS))
    assert find_run("cnn", epochs=1).keeps_weights


def test_git_ignores_the_weights_that_need_not_be_kept():
    runs = [*catalogue.study_runs(), *catalogue.book_runs()]
    runs += [find_run(run, seed=7) for run in ("cnn", "cnn_batch_norm", "mini_resnet")]
    paths = {f"book/records/{run.name}.weights.h5": run.keeps_weights for run in runs}
    command = ["git", "-C", ROOT, "check-ignore", "--no-index", *paths]
    ignored = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    assert set(ignored) == {path for path, kept in paths.items() if not kept}


def test_a_record_without_weights_that_need_not_be_kept_holds(project):
    run = find_run("scale_wide_cnn")
    record = keep(run, 0.9)
    assert records.status(run, record).holds
    record.provenance.predictions = "0" * 64
    assert str(records.status(run, record)) == "stale: scale_wide_cnn.predictions.npz is missing"
    evaluated = find_run("scale_cnn")
    assert "weights.h5 is missing" in str(records.status(evaluated, keep(evaluated, 0.9)))


def test_the_primary_contrasts_are_five_of_registered_runs():
    assert len(study.PRIMARY) == 5
    assert {run for pair in study.PRIMARY.values() for run in pair} <= set(STUDY)
    assert np.unique([STUDY[run].config.epochs for run in STUDY]) == [30]


LEFT_ARMS = [
    f"{kind}_{arm}"
    for arm in ("conv_offset_cnn", "mini_resnet", "deform_conv_mini_resnet", "transformer_cnn", "modulated_cnn")
    for kind in ("pilot", "scale", "rescaled")
] + ["rescaled_wider_cnn"]
LARGEST = "fe01fc3e8fa5d44b924621a91e12bf5db7a3ec1a"  # the commit of the amendment on tied rates
OTHER_DATA = "000c76fa2797a64b04a67dcb996e490fa687cbb8"  # of that on a second data set
# What was registered or amended, by commit → the runs that must have started later.
REGISTERED = {
    study.REGISTERED: all_seeds(STUDY.values()),
    RETUNED: all_seeds(run for rates in catalogue.RETUNED.values() for run in rates.values()),
    unseen.REGISTERED: [run for run in catalogue.study_runs() if run.entry.startswith(("unseen_", "fresh_"))],
    LARGEST: all_seeds(unseen_runs.RETUNED.values()),
    OTHER_DATA: all_seeds(unseen_runs.FASHION.values()),
    LEFT: [run for run in catalogue.study_runs() if run.entry.startswith(("spread_", *LEFT_ARMS))],
}


@pytest.mark.parametrize("commit", REGISTERED)
def test_runs_started_after_their_registration(commit):
    command = ["git", "-C", ROOT, "show", "--no-patch", "--format=%cI", commit]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    if shown.returncode != 0:
        pytest.skip("the history of this clone does not reach back so far")
    registered = datetime.fromisoformat(shown.stdout.strip())
    with inside(ROOT):
        for record in records.recorded(REGISTERED[commit]):
            assert datetime.fromisoformat(record.provenance.started) > registered, record.name


def test_results_are_shown_without_a_verdict_until_all_pairs_are_there(project):
    for number in range(2):
        keep(find_run("scale_deform_conv_cnn", seed=number), 0.95)
        keep(find_run("scale_cnn", seed=number), 0.94 - 0.01 * number)
    recorded = study.recorded_runs()
    found = {run: study.accuracies(runs) for run, runs in recorded.items()}
    compared = study.compared(recorded)
    table = tables.contrast_results(compared)
    first = table.loc["in place of the convolutions"]
    assert (first["pairs"], first["difference"], first["verdict"]) == (2, pytest.approx(1.5), "not yet")
    assert first["95% from"] < 1.0 < 2.0 < first["to"]
    assert table.loc["at equal multiply-adds", "pairs"] == 0
    table = tables.contrast_checks(compared)
    first = table.loc["in place of the convolutions"]
    assert (first["A above B"], first["pairs to decide"]) == ("2 of 2", "not yet")
    assert first["standard deviation"] == pytest.approx(2**-0.5)
    assert (first["bootstrap from"], first["to"]) == (pytest.approx(1), pytest.approx(2))
    assert table[["p (Holm)", "p, not zero (Holm)"]].isna().all(axis=None)
    table = tables.study_accuracies(found)
    assert table["realisations"].tolist() == ["2 of 6", "2 of 6"]
    assert table["minus the CNN"].tolist() == ["–", "+1.50 (-4.85 to +7.85)"]
    drawn = figures.differences(compared)
    assert not drawn.texts
    dots = [line for line in drawn.get_lines() if line.get_marker() == "o" and line.get_markersize() == 4]
    assert sorted(dots[0].get_xdata()) == pytest.approx([1, 2])
    drawn = figures.accuracy_and_cost(found, dict.fromkeys(STUDY, 1000.0), "parameters")
    assert [text.get_text() for text in drawn.texts] == ["CNN", "deformable convolutions"]


def test_the_pages_say_what_the_records_say():
    """The words of the first page and the study, as conditions on the committed records."""
    with inside(ROOT):
        recorded = study.recorded_runs()
    compared = study.compared(recorded)
    verdicts = {name: each.contrast.verdict for name, each in compared.items()}
    for name in ("offsets that depend on the image", "beyond scale augmentation"):
        assert verdicts.pop(name) == "equivalent"
    assert set(verdicts.values()) == {"undecided"}
    for name in ("in place of the convolutions", "at equal multiply-adds", "at equal time per step"):
        assert compared[name].contrast.difference.low > 0, name  # ahead
    assert compared["in place of the convolutions"].contrast.difference.low > study.SMALLEST  # without a verdict
    means = {run: np.mean(list(study.accuracies(recorded[run]).values())) for run in TWO_BY_TWO}
    assert means["rescaled_cnn"] > means["scale_deform_conv_cnn"]  # augmentation does more
    unseen, unregistered = study.compared(recorded, "scaled"), study.compared(recorded, "scaled", study.UNREGISTERED)
    for name, each in unseen.items():
        assert each.contrast is None, name  # not registered
        assert min(each.differences) > 0, name  # ahead in every pair
        assert interval(each.differences).low > interval(compared[name].differences).high, name  # and by more
        assert interval(each.differences).low > study.EXPLORATORY, name
    deformable, augmented = (study.accuracies(recorded[run], "scaled") for run in TWO_BY_TWO[1:3])
    assert all(deformable[number] > augmented[number] for number in range(REALISATIONS))  # ahead of the CNN with it
    for name in ("the paper's layer over the CNN", "the mini-ResNet over the CNN"):  # they gain
        assert interval(unregistered[name].differences).low > study.EXPLORATORY, name
    inside_blocks = study.compared(recorded, asked=study.UNREGISTERED)["the mini-ResNet, deformable over regular"]
    over_cnn = compared["in place of the convolutions"].contrast.difference
    assert interval(inside_blocks.differences).low > over_cnn.high  # more in the mini-ResNet
    transformer = study.accuracies(recorded["scale_transformer_cnn"])
    for run, runs in recorded.items():  # does better, and is above all others without augmentation
        if runs and run.startswith("scale_") and run != "scale_transformer_cnn":
            others = study.accuracies(runs)
            assert interval([transformer[number] - accuracy for number, accuracy in others.items()]).low > 0, run
    differ = [each.contrast.zero_p_value < 0.05 for each in compared.values()]
    assert differ == [True, True, True, False, False]  # from zero
    for ours, theirs in study.PRIMARY.values():  # pilots chose more for the others
        assert STUDY[ours].config.learning_rate < STUDY[theirs].config.learning_rate
    large = {run: study.beyond(runs)["scale"][1.6] for run, runs in recorded.items() if runs}
    for run in ("scale_cnn", "scale_shared_offsets_cnn"):  # with larger digits every run is ahead of every other
        assert min(large["scale_deform_conv_cnn"]) > max(large[run])
    for ours, theirs in (("scale_deform_conv_cnn", "scale_cnn"), ("rescaled_deform_conv_cnn", "rescaled_cnn")):
        changed, regular = study.beyond(recorded[ours]), study.beyond(recorded[theirs])
        over = {
            (kind, size): interval(np.subtract(values, regular[kind][size]).tolist())
            for kind, by_size in changed.items()
            for size, values in by_size.items()
        }
        leads = [("scale", size) for size in (1.2, 1.4, 1.6)] + [("rotation", size) for size in (-30, 30)]
        assert all(over[each].low > 0 for each in [*leads, *(("shift", size) for size in (-6, -2, 2, 6))])
        assert over["scale", 0.4].high < 0  # they trail
    for run, runs in recorded.items():  # networks that move points make up for strides
        if len(runs) == REALISATIONS:
            lost, moves = interval(study.lost_between_strides(runs)), re.search("offset|deform|transformer", run)
            assert lost.high < 0.5 if moves else lost.low > 0.5, run


def test_the_captions_say_what_the_figures_show():
    """Those of the study's answer and of accuracy against time."""
    with inside(ROOT):
        recorded, costs = study.recorded_runs(), measurements.result("arms").results
    sets = ("plain", "scaled")
    answers = {kind: {run: study.accuracies(runs, kind) for run, runs in recorded.items()} for kind in sets}
    like, unlike = ([float(text.get_text()) for text in ax.texts] for ax in figures.answer(answers))
    assert [round(max(means) - min(means)) for means in (like, unlike)] == [1, 5]  # the spans
    assert set(np.argsort(unlike)[-2:]) == {2, 5}  # deformable convolutions lead
    steps = {arm: times[1] for arm, times in costs["step_ms"].items()}
    assert steps["cnn"] < steps["transformer_cnn"] < 1.2 * steps["cnn"]  # about the CNN's time


def test_the_answer_shows_every_run_and_each_mean():
    runs = (
        "scale_cnn",
        "scale_shared_offsets_cnn",
        "scale_deform_conv_cnn",
        "scale_transformer_cnn",
        "rescaled_cnn",
        "rescaled_deform_conv_cnn",
    )
    found = {run: {0: 90.0 + height, 3: 92.0 + height} for height, run in enumerate(runs)}
    axes = figures.answer({"these": found, "those": found})
    assert [ax.get_title() for ax in axes] == ["these", "those"]
    for ax in axes:
        dots = [line.get_xdata().tolist() for line in ax.get_lines() if line.get_markersize() == 4]
        assert dots == [[90 + height, 92 + height] for height in range(6)]
        assert [text.get_text() for text in ax.texts] == ["91.00", "92.00", "93.00", "94.00", "95.00", "96.00"]


def test_reports_of_others_stand_beside_the_means_of_common_realisations(project):
    table = tables.reported_gains(study.recorded_runs())
    ours = [name for name in table.index if name.startswith("this study")]
    assert table.loc[ours, "runs"].tolist() == [0, 0]
    assert table.loc["Lau (2017)", "difference"] == pytest.approx(35.54)
    for number in range(3):
        keep(find_run("scale_deform_conv_cnn", seed=number), 0.95)
    keep(find_run("scale_cnn", seed=1), 0.94)
    table = tables.reported_gains(study.recorded_runs())
    assert table.loc[ours, "runs"].tolist() == [1, 1]
    assert table.loc[ours[0], "difference"] == pytest.approx(1.0)


def test_sizes_of_changes_are_those_of_the_test_sets():
    record = make(find_run("scale_cnn"))
    record.evaluations |= {name: Evaluation(accuracy=0.5, loss=1.0, images=3) for name in mnist_scale.OUT_OF_RANGE}
    found = study.beyond({0: record, 1: record})
    assert set(found) == {"scale", "rotation", "shift"}
    assert list(found["rotation"]) == [-90, -60, -30, 30, 60, 90]
    assert found["scale"][1.6] == [50.0, 50.0]
    drawn = figures.beyond_training({kind: {"scale_cnn": by_size} for kind, by_size in found.items()})
    assert len(drawn) == 3
    less = study.minus_the_cnn({"scale": {"scale_cnn": {1.6: [50.0, 40.0]}, "scale_wide_cnn": {1.6: [51.0, 43.0]}}})
    assert less == {"scale": {"scale_wide_cnn": {1.6: [1.0, 3.0]}}}


def test_tables_of_what_the_offsets_do():
    table = tables.replaced_offsets({"as learned": [0.9, 0.8], "zero": [0.5, 0.6]})
    assert table.loc["zero", "change"] == pytest.approx(-30)
    assert table.loc["zero", "± (95%)"] > 0
    assert table.loc["as learned", "± (95%)"] == 0
    assert len(figures.replaced_offsets({"as learned": [0.9, 0.8], "zero": [0.5, 0.6]}).get_yticklabels()) == 2
    found = {"scale_cnn": {"conv22": {"gradient": {"0.5": {"0.4": [10, 20], "1.0": [30, 50]}}}}}
    table = tables.areas(found, {"scale_cnn": "CNN"})
    assert table.loc[("CNN", "conv22", "gradient", "50%")].tolist() == [15, 40]
    drawn = figures.by_size({"conv22": {"scale_cnn": {"0.4": [10, 20]}}}, "scale", "pixels", {"scale_cnn": "CNN"})
    assert drawn[0].get_xlabel() == "scale"
