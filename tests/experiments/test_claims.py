"""The paper's claims: complete, computed, and true of the committed records."""

import copy
import csv
import dataclasses
import html
import itertools
import re

import numpy as np
import pytest
from helpers import ROOT, history, inside

from dcn_study.book.pages import PAGES
from dcn_study.experiments import blocks, claims, study, test_sets
from dcn_study.experiments.agreement import Agreement
from dcn_study.experiments.evidence import Evidence
from dcn_study.experiments.first_epoch import first_epoch
from dcn_study.experiments.statistics import Interval, interval
from dcn_study.names import CONTROLS, LONGER, RESIDUAL
from dcn_study.runs import measurements, published, reading, records
from dcn_study.runs.catalogue import PAPER, RUNS, TWO_BY_TWO, find_run, seeds_of
from dcn_study.runs.networks import build_model
from dcn_study.show import figures, tables


@pytest.fixture(scope="module", autouse=True)
def committed():
    """Works on the committed records, and trains nothing."""
    with inside(ROOT), pytest.MonkeyPatch.context() as patch:
        patch.setenv(reading.RECORDS_ONLY, "1")
        yield


@pytest.fixture(scope="module")
def evidence():
    return Evidence()


@pytest.fixture(scope="module")
def found(evidence):
    return by_name(evidence)


def by_name(evidence):
    return {claim.name: claim for claim in claims.claims(evidence)}


def test_every_claim_is_complete_and_in_the_order_of_groups(evidence, found):
    assert [claim.name for claim in claims.claims(evidence)] == list(found)  # no two have one name
    assert len(found) > 25
    assert list(dict.fromkeys(claim.group for claim in found.values())) == list(claims.GROUPS)
    for claim in found.values():
        assert all(claim[:-1]), claim  # only the paper may state no value
        assert claim.outcome in claims.OUTCOMES
        assert set(claim.pages.split()) <= set(PAGES), claim.name


# What the pages say in words, each as a condition on the committed records that would fail if it were false.
def test_nothing_deforms(evidence):
    assert evidence.largest_kernel == 0
    assert evidence.largest_gradient == 0
    repaired = measurements.result("offsets").results["traces"]["corners repaired"]["layers"]
    assert max(max(layer["gradient"]) for layer in repaired.values()) > 0.1


def test_the_published_run_began_as_runs_whose_offsets_stay_at_zero(evidence):
    numbers = first_epoch({**evidence.runs, **evidence.controls}).values()
    for each in numbers:
        assert min(each.inert) < each.published < max(each.inert)
        assert each.as_inert
        assert not each.low < min(each.learning) < each.high
        assert not each.low < max(each.learning) < each.high
    assert [(len(each.inert), len(each.learning)) for each in numbers] == [(10, 9), (10, 9)]


def test_batch_normalisation_makes_all_of_the_gain(evidence):
    assert evidence.runs["deformable_cnn"][0].evaluations == evidence.controls["cnn_batch_norm"][0].evaluations
    assert evidence.gains["deformable_cnn", "scaled"].low > 0


def test_scrambled_pairs_are_not_below_the_others_after_an_epoch():
    scaled = {
        run: np.mean([records.read(config).history[0].validation_accuracy for config in seeds_of(run)])
        for run in ("random_start_cnn", "scrambled_cnn", "repaired_cnn", "deform_conv_cnn")
    }
    assert min(scaled["random_start_cnn"], scaled["scrambled_cnn"]) > max(
        scaled["repaired_cnn"], scaled["deform_conv_cnn"]
    )


def first_epochs(*names):
    """Returns accuracies in validation and in training, by run: first five epochs of three seeds, of shape (3, 5)."""
    found = {name: [records.read(config).history[:5] for config in seeds_of(name, 3)] for name in names}
    return (
        {name: np.array([[getattr(epoch, key) for epoch in each] for each in runs]) for name, runs in found.items()}
        for key in ("validation_accuracy", "accuracy")
    )


def test_true_deformable_convolutions_lose_their_lead_at_the_published_rate_and_keep_one_at_a_falling_rate():
    validation, training = first_epochs(
        "cnn_batch_norm", "deform_conv_cnn", "decayed_cnn_batch_norm", "decayed_deform_conv_cnn"
    )
    lead = validation["deform_conv_cnn"] - validation["cnn_batch_norm"]
    assert np.all(lead[:, 0] > 0)
    assert np.mean(lead[:, -1]) < 0
    assert np.all(training["deform_conv_cnn"][:, 1] < training["deform_conv_cnn"][:, 0])
    assert np.all(validation["decayed_deform_conv_cnn"][:, -1] > validation["decayed_cnn_batch_norm"][:, -1] + 0.02)
    assert np.all(validation["decayed_deform_conv_cnn"][:, -1] > validation["deform_conv_cnn"][:, -1] + 0.02)
    assert np.all(validation["decayed_cnn_batch_norm"][:, -1] < validation["cnn_batch_norm"][:, -1])


def test_the_repaired_layer_leads_at_a_falling_rate_true_deformable_convolutions_included():
    """The page of the gain, the caption of its figure and the verdict say so."""
    names = ("cnn_batch_norm", "deform_conv_cnn", "scrambled_cnn", "repaired_cnn")
    validation, _ = first_epochs(*(f"decayed_{name}" for name in names))
    plain, deformable, scrambled, layer = (each[:, -1] for each in validation.values())
    ahead = ((layer, deformable), (layer, scrambled), (deformable, scrambled), (deformable, plain), (scrambled, plain))
    for leader, other in ahead:
        assert interval(leader - other).low > 0
    assert interval(scrambled - plain - (layer - plain) / 2).low > 0


def test_scrambled_and_own_pairs_train_as_many_weights_on_two_processors():
    """The page of the gain says so, and its caption."""
    names = ("cnn_batch_norm", "deform_conv_cnn", "scrambled_cnn", "repaired_cnn")
    models = [build_model(find_run(f"decayed_{name}").config) for name in names]
    plain, deformable, scrambled, own = (
        sum(weight.value.shape.num_elements() for weight in model.trainable_weights) for model in models
    )
    assert 10 * plain < deformable < scrambled == own
    there, here = (
        {read.provenance.machine.processor for read in map(records.read, seeds_of(f"decayed_{name}"))}
        for name in names[2:]
    )
    assert not there & here


def test_the_lead_of_the_repaired_layer_shrinks_as_batch_normalisation_catches_up():
    validation, training = first_epochs("cnn_batch_norm", "repaired_cnn")
    lead = validation["repaired_cnn"] - validation["cnn_batch_norm"]
    assert np.all(lead[:, 0] > lead[:, -1])
    left = interval(lead[:, -1])
    assert left.low < 0 < left.high
    by_epoch = {name: each.mean(axis=0) for name, each in training.items()}
    assert np.all(np.diff(by_epoch["repaired_cnn"]) > 0)  # unlike those of true deformable convolutions, which fall
    assert np.ptp(by_epoch["repaired_cnn"]) < np.ptp(by_epoch["cnn_batch_norm"]) / 3


def test_scrambled_pairs_keep_a_shrinking_lead_and_pairing_shows_no_difference():
    names = ("cnn_batch_norm", "scrambled_cnn", "repaired_cnn")
    validation, training = first_epochs(*names)
    lead = validation["scrambled_cnn"] - validation["cnn_batch_norm"]
    assert np.all(np.diff(lead.mean(axis=0)) < 0)
    assert interval(lead[:, -1]).low > 0
    assert np.ptp(training["scrambled_cnn"].mean(axis=0)) < np.ptp(training["cnn_batch_norm"].mean(axis=0)) / 3
    scaled, plain = (
        {name: np.array([records.read(run).evaluations[kind].accuracy for run in seeds_of(name)]) for name in names}
        for kind in ("scaled", "plain")
    )
    assert scaled["cnn_batch_norm"].mean() > max(scaled["scrambled_cnn"].mean(), scaled["repaired_cnn"].mean())
    assert np.all(plain["scrambled_cnn"] < plain["repaired_cnn"])
    for accuracies in (scaled, plain):
        between = interval(accuracies["scrambled_cnn"] - accuracies["repaired_cnn"])
        assert between.low < 0 < between.high


def test_half_of_each_block_is_dead_and_the_other_half_frozen(evidence):
    regular = evidence.runs["mini_resnet"][0]
    layers = {part for path in regular.witness.norms for part in path.split("/")}
    assert layers & set(claims.BLOCKS) == {"block1_conv2", "block2_conv2"}
    assert regular.config.trainable
    assert not evidence.runs["deformable_mini_resnet"][0].config.trainable


def test_frozen_blocks_alone_set_the_deformable_mini_resnet_apart(evidence):
    """The dead half is in both networks, and the offsets are at zero: what differs is what trains."""
    names = ("mini_resnet", *(f"{kind}deformable_mini_resnet" for kind in ("unfrozen_", "", "repaired_")))
    regular, unfrozen, frozen, repaired = (
        records.read(find_run(name)).history[4].validation_accuracy for name in names
    )
    assert abs(unfrozen - regular) < 0.005
    assert unfrozen > frozen + 0.2
    assert repaired > unfrozen + 0.2
    assert all(evidence.gains["deformable_mini_resnet", kind].high < -20 for kind in ("plain", "scaled"))


def test_more_epochs_help_the_mini_resnet_and_do_not_settle_the_deformable_one():
    longer = {name: records.read(find_run(name)).history for name in LONGER}
    short = {name: records.read(find_run(name)).history for name in ("mini_resnet", "deformable_mini_resnet")}
    for many, few in zip(longer.values(), short.values(), strict=True):
        assert len(many) == 4 * len(few)
        assert [epoch.validation_accuracy for epoch in many[: len(few)]] == [epoch.validation_accuracy for epoch in few]
    plain, frozen = longer.values()
    assert plain[-1].validation_accuracy > 0.9
    assert np.all(np.diff([epoch.accuracy for epoch in frozen]) > 0)  # in training it rises steadily
    first, *later = (epoch.validation_accuracy for epoch in frozen[len(frozen) // 4 - 1 :])
    assert max(later[-10:]) - min(later[-10:]) > 0.5  # in validation it jumps
    assert min(later) < first < max(later)


@pytest.mark.slow
def test_the_running_averages_of_batch_normalisation_make_the_residual_networks_jump():
    longer, *seeds = map(records.read, (find_run("long_frozen_mini_resnet"), *seeds_of("mini_resnet", 3)))
    by_batch = [blocks.accuracy_by_batch(record) for record in seeds]
    assert blocks.accuracy_by_batch(longer) > longer.evaluations["plain"].accuracy + 0.3
    own = [record.evaluations["plain"].accuracy for record in seeds]
    assert np.ptp(by_batch) < np.ptp(own) / 2
    assert np.all(np.subtract(by_batch, own) > 0)


def test_the_baseline_falls_by_its_running_averages_alone():
    runs = list(map(records.read, seeds_of("cnn_scaled")))
    lowest = min(runs, key=lambda record: record.evaluations["scaled"].accuracy)
    by_batch = measurements.read("batch_statistics").results["accuracies"][runs.index(lowest)]
    best = max(epoch.validation_accuracy for epoch in lowest.history)
    assert lowest.evaluations["scaled"].accuracy < best - 0.05
    assert by_batch == pytest.approx(best, abs=0.01)


def changed(evidence, **attributes):
    """The evidence with other attributes; what follows from its runs is computed again."""
    other = copy.copy(evidence)
    for name in ("accuracies", "gains"):
        vars(other).pop(name, None)
    vars(other).update(attributes)
    return other


def fields(part):
    return part if isinstance(part, dict) else vars(part)


def edited(evidence, run, path, value):
    """The evidence with another value at a place in the records of a run."""
    kind = "runs" if run in evidence.runs else "controls"
    found = {**getattr(evidence, kind)}
    found[run] = [record.model_copy(deep=True) for record in found[run]]
    *steps, last = path.split()
    for part in found[run]:
        for step in steps:
            part = part[int(step)] if isinstance(part, list) else fields(part)[step]
        fields(part)[last] = value
    return changed(evidence, **{kind: found})


@pytest.mark.parametrize(
    ("run", "path", "value", "name", "outcome"),
    [
        ("cnn", "evaluations plain accuracy", 0.95, "cnn-plain", "differs"),
        ("cnn", "evaluations scaled accuracy", 0.12, "blind", "supported"),
        ("cnn_batch_norm", "evaluations scaled accuracy", 0.5, "cause", "supported"),
        ("random_start_cnn", "history 0 accuracy", 0.8, "log", "undecided"),
        ("deformable_mini_resnet", "configuration trainable", True, "too-simple", "supported"),
        ("deformable_mini_resnet", "history 9 loss", 9.0, "not-settled", "contradicted"),
        ("long_frozen_mini_resnet", "history 9 validation_accuracy", 0.1, "ten-epochs", "supported"),
        ("long_frozen_mini_resnet", "history 9 validation_accuracy", 0.9, "ten-epochs", "contradicted"),
        ("deformable_cnn", "configuration train_on", "plain", "unseen", "supported"),
        ("mini_resnet", "configuration validation_size", 100, "three-groups", "supported"),
        ("mini_resnet", "witness norms", dict.fromkeys(claims.BLOCKS, 1.0), "both-convolutions", "supported"),
    ],
)
def test_another_record_gives_another_outcome(evidence, found, run, path, value, name, outcome):
    assert found[name].outcome != by_name(edited(evidence, run, path, value))[name].outcome == outcome


def test_the_log_is_that_of_a_layer_that_learns_if_accuracy_and_loss_are(evidence):
    curve, moved = published.curve("deformable_cnn"), evidence
    for name in ("accuracy", "loss"):
        moved = edited(moved, "random_start_cnn", f"history 0 {name}", curve[f"train_{name}"][0])
    assert by_name(moved)["log"].outcome == "supported"


def test_one_run_whose_loss_rises_has_settled(evidence, found):
    first, *others = evidence.runs["deformable_mini_resnet"]
    risen = first.model_copy(update={"history": [*first.history[:-1], first.history[0]]})
    after = by_name(changed(evidence, runs={**evidence.runs, "deformable_mini_resnet": [risen, *others]}))
    assert (found["not-settled"].outcome, after["not-settled"].outcome) == ("supported", "contradicted")


@pytest.mark.parametrize(
    ("model", "kind", "bounds", "name", "outcome"),
    [
        ("deformable_cnn", "scaled", (-1.0, 3.0), "gain", "undecided"),
        ("deformable_cnn", "scaled", (-3.0, -1.0), "gain", "contradicted"),
        ("deformable_mini_resnet", "plain", (1.0, 3.0), "contrast", "contradicted"),
        ("deformable_mini_resnet", "plain", (-3.0, 1.0), "contrast", "undecided"),
        ("deformable_cnn", "plain", (-50.0, -45.0), "contrast", "contradicted"),
        ("deformable_mini_resnet", "plain", (1.0, 3.0), "too-simple", "supported"),
    ],
)
def test_another_gain_gives_another_outcome(evidence, found, model, kind, bounds, name, outcome):
    gains = {**evidence.gains, (model, kind): Interval(0.0, *bounds)}
    assert found[name].outcome != by_name(changed(evidence, gains=gains))[name].outcome == outcome


@pytest.mark.parametrize(("verdict", "outcome"), [("worse", "contradicted"), ("equivalent", "undecided")])
def test_another_verdict_on_unseen_digits_gives_another_outcome(evidence, found, verdict, outcome):
    name, before = "in place of the convolutions", evidence.on_unseen_digits
    judged = dataclasses.replace(before[name].contrast, verdict=verdict)
    other = {**before, name: dataclasses.replace(before[name], contrast=judged)}
    after = by_name(changed(evidence, on_unseen_digits=other))
    assert (found["improves"].outcome, after["improves"].outcome) == ("supported", outcome)
    for contrast, told in ((None, "no verdict"), (judged, verdict)):
        some = {**before, name: dataclasses.replace(before[name], contrast=contrast)}
        assert f", {told}; " in by_name(changed(evidence, on_unseen_digits=some))["improves"].ours


def test_offsets_that_move_give_other_outcomes(evidence, found):
    moved = by_name(changed(evidence, offset_kernels=[np.full((3, 3, 32, 18), 0.1)]))
    learning = by_name(changed(evidence, largest_gradient=1e-9))
    for name in ("in-all-layers", "unoptimised", "drop-in", "too-simple"):
        assert found[name].outcome == "contradicted"
        assert moved[name].outcome == learning[name].outcome == "supported"
    assert moved["receptive-field"].outcome == learning["receptive-field"].outcome == "not tested"
    assert (found["one-per-point"].outcome, moved["one-per-point"].outcome) == ("contradicted", "supported")


@pytest.mark.parametrize(
    ("constant", "value", "name", "rule", "stated", "outcome"),
    [
        ("STABLE", 50.0, "not-settled", "accuracy by more than {} points on average", ("2", "50"), "contradicted"),
        ("STABLE", -60.0, "ten-epochs", "better by more than {} points", ("2", "-60"), "supported"),
        ("FASTER", 7.0, "inefficient", "at more than {} times its speed", ("1.5", "7"), "contradicted"),
        ("BLIND", 7.0, "blind", "may be at most {} as good as guessing", ("twice", "7 times"), "supported"),
        ("OUTSIDE", 5, "cnn-curve", "at most one epoch in {} may be outside", ("ten", "five"), "agrees"),
        ("MOST", 7.0, "cnn-plain", "at most {} points from our mean", ("5", "7"), "agrees"),
        ("CONFIDENCE", 0.9, "gain", "the {} interval of the paired differences", ("95%", "90%"), "supported"),
        ("TWO_BY_TWO", TWO_BY_TWO[:2], "two-by-two", "all {} combinations", ("four", "two"), "supported"),
    ],
)
def test_a_rule_states_its_threshold(evidence, found, monkeypatch, constant, value, name, rule, stated, outcome):
    monkeypatch.setattr(claims, constant, value)
    after = by_name(evidence)[name]
    assert rule.format(stated[0]) in found[name].rule
    assert rule.format(stated[1]) in after.rule
    assert after.outcome == outcome


def test_other_measurements_and_curves_give_other_outcomes(evidence, found, monkeypatch):
    names = ("mechanism", "offsets", "residual", "robustness", "runtime")
    read = {name: measurements.result(name).model_copy(deep=True) for name in names}
    read["robustness"].results["accuracies"]["cnn"][-1] = [0.5] * len(read["robustness"].results["shifts"])
    for row in read["runtime"].results["rows"]:
        row["milliseconds"] = 1.0
    areas, curve = read["mechanism"].results["areas"], published.curve
    areas["scale_cnn"] = areas["scale_deform_conv_cnn"]
    monkeypatch.setattr(measurements, "result", read.get)
    monkeypatch.setattr(published, "curve", lambda model: {**curve(model), "epoch": [*model]})
    after = by_name(evidence)
    other = {"inefficient": "contradicted", "wider-field": "undecided", "same-epochs": "contradicted"}
    for name, outcome in other.items():
        assert (found[name].outcome, after[name].outcome) == ("supported", outcome)
    assert (found["blind"].outcome, after["blind"].outcome) == ("undecided", "contradicted")


def test_the_longer_run_is_told_with_the_epochs_that_it_has(evidence):
    told, without = (
        by_name(edited(evidence, "long_frozen_mini_resnet", "history", history(validation_accuracy=accuracies)))
        for accuracies in ([0.4] * 10 + [0.5, 0.124], [0.4] * 10)
    )
    assert told["ten-epochs"].ours.startswith(
        "from 40%, 2 more epochs reach between 12 and 50%, the last 12% (one seed); with the statistics of"
    )
    assert "each batch 58%, and 79% after all of them" in told["ten-epochs"].ours
    assert without["ten-epochs"].outcome == "undecided"


def test_the_study_is_told_in_the_order_of_its_runs(evidence):
    studied = copy.deepcopy(evidence.studied)
    for name, value in zip((*TWO_BY_TWO, "scale_dilated_cnn"), (0.91, 0.92, 0.93, 0.94, 0.9), strict=True):
        for run in studied[name].values():
            run.evaluations["plain"].accuracy = value
    told = by_name(changed(evidence, studied=studied))
    assert "91.00% and 92.00% without and with deformable" in told["two-by-two"].ours
    assert told["two-by-two"].ours.endswith("with augmentation 93.00% and 94.00%")
    assert "+2.00 (+2.00 to +2.00) points over a dilated network" in told["atrous"].ours


def test_a_curve_differs_if_many_epochs_are_outside_and_is_undecided_if_most_are_wide(evidence, monkeypatch):
    inside, outside, wide = (
        Agreement(90.0, 90.0 - half, 91.0, 1.0, 0.5, outcome, outcome)
        for half, outcome in ((1.0, "agrees"), (1.0, "differs"), (9.0, "undecided"))
    )
    for judged, outcome in (
        ([inside] * 9 + [outside], "agrees"),
        ([inside] * 8 + [outside] * 2, "differs"),
        ([wide] * 6 + [inside] * 4, "undecided"),
        ([wide] * 5 + [inside] * 5, "agrees"),
    ):
        monkeypatch.setattr(claims, "_epochs", lambda *given, judged=judged: judged)
        assert by_name(evidence)["cnn-curve"].outcome == outcome


def test_of_our_own_curves_one_apart_from_the_others_would_differ(evidence):
    *alike, apart = (
        evidence.runs["cnn"][0].model_copy(
            update={"history": history(accuracy=[share] * 10, validation_accuracy=[share] * 10)}
        )
        for share in (0.9, 0.901, 0.902, 0.903, 0.5)
    )
    assert claims.curves_left_out(alike) == 0
    assert claims.curves_left_out([*alike, apart]) == 1


def test_the_table_links_to_the_evidence_is_safe_and_holds_all_fields_as_csv(found):
    first = next(iter(found.values()))._replace(words='a < "b"')
    table = tables.claims([first], "accuracies")
    assert "a &lt; &quot;b&quot; (V)" in table
    assert '<a href="runs.html">runs</a>' in table
    assert 'class="outcome agrees"' in table
    assert f'<span class="paper">{first.published}</span>' in table
    text = html.unescape(re.search('data-csv="([^"]*)"', table)[1])
    assert list(csv.DictReader(text.splitlines())) == [first._asdict()]
    rows = [tables.claims(list(found.values()), group).count("<tr") - 1 for group in claims.GROUPS]
    assert sum(rows) == len(found)
    assert np.all(rows)


def test_pages_that_once_contradicted_each_other_rest_on_one_fact(evidence, found):
    """Each pair of sentences, on two pages, and the fact that both state."""
    outcomes = {name: claim.outcome for name, claim in found.items()}
    # method and paper: one of several accuracies may be outside, but not significantly
    assert found["deformable_cnn-plain"].ours.endswith("; outside, as one of 8 not significantly (p = 0.24)")
    # offsets: "neither be credited with the gain ... nor be blamed"; the verdict on cause and implementation
    assert evidence.nothing_deforms
    assert outcomes["cause"] == outcomes["unoptimised"] == outcomes["drop-in"] == "contradicted"
    # runtime and paper: the ratio of the paper is not tested
    assert outcomes["thirty-times"] == "not tested"
    assert float(found["thirty-times"].ours.split()[0]) < float(found["thirty-times"].published.split()[0])
    # verdict and residual: frozen blocks alone, not the dead half that both networks have
    assert outcomes["too-simple"] == "contradicted"
    assert outcomes["contrast"] == "supported"
    # verdict and mechanism, verdict and unseen: the paper's layer widens and improves nothing, one that works does
    assert (outcomes["receptive-field"], outcomes["wider-field"]) == ("contradicted", "supported")
    assert (outcomes["cause"], outcomes["improves"]) == ("contradicted", "supported")
    # verdict and validation: the transformations are trained on, and the test images validate
    assert found["unseen"].ours == "it trains on scaled images"
    assert found["three-groups"].ours == "the test images validate"


def test_another_test_set_may_change_an_accuracy_by_more_than_an_interval_reaches(evidence):
    """The method says that its rule makes no allowance for this, and no longer that it is smaller."""
    measured = measurements.read("sensitivity").results["accuracies"]
    largest = max(test_sets.spreads({model: by_kind["ours"] for model, by_kind in measured.items()}).values())
    reach = [each["scaled"] for each in evidence.accuracies.values()]
    assert largest > min(min(each.mean - each.low, each.high - each.mean) for each in reach)


def test_training_the_blocks_brings_the_deformable_network_near_the_mini_resnet(evidence):
    """The residual page says so of three seeds, and that each change raises the accuracy by more than they differ."""
    reached = {
        run: [100 * records.read(RUNS[run].seeded(seed)).history[4].validation_accuracy for seed in range(3)]
        for run in RESIDUAL
    }
    regular, drawn = reached.pop("mini_resnet"), reached.pop("chained_mini_resnet")
    published, trained, *_ = reached.values()
    assert np.abs(np.subtract(trained, regular)).max() < np.subtract(regular, published).min() / 4
    for before, after in [*itertools.pairwise(reached.values()), (regular, drawn)]:
        assert np.mean(after) - np.mean(before) > max(np.ptp(before), np.ptp(after))
    assert {RUNS[run].config.epochs for run in reached if run not in PAPER} == {5}  # none trained for longer


def test_the_former_centre_does_not_explain_the_published_accuracy_on_plain_digits():
    """The validation page says so of three seeds that differ from others in the centre alone."""
    runs = RUNS["cnn_batch_norm"], RUNS["former_centre_cnn_batch_norm"]
    assert runs[1].changed(zoom_centre="image").config == runs[0].config
    regular, former = (
        [100 * records.read(run.seeded(seed)).evaluations["plain"].accuracy for seed in runs[1].seeds] for run in runs
    )
    missing = np.mean(regular) - 100 * published.ACCURACY["deformable_cnn"]["plain"]
    assert missing > 0
    assert interval(np.subtract(regular, former)).high < missing / 2


def test_offsets_that_ignore_the_image_do_at_least_as_well_on_digits_like_those_of_training(evidence):
    """The first page, the study, the mechanism and the README say so."""
    contrast = study.compared(evidence.studied)["offsets that depend on the image"]
    assert np.mean(contrast.differences) < 0
    assert contrast.contrast.verdict == "equivalent"


def test_the_first_figure_tells_stand_ins_from_runs(evidence):
    controls = {run: [records.read(config) for config in seeds_of(run)] for run in CONTROLS}
    figure = figures.finding(tables.controls(controls), np.zeros((2, 5, 4)), np.zeros((2, 5, 4)))
    drawn = [line for line in figure.axes[-1].get_lines() if line.get_markersize() == 4 and len(line.get_xdata())]
    open_dots, filled = (
        [line for line in drawn if (line.get_fillstyle() == "none") is hollow] for hollow in (True, False)
    )
    (stand_ins,) = open_dots
    assert len(stand_ins.get_xdata()) == len(evidence.runs["deformable_cnn"]) - RUNS["deformable_cnn"].stand_in[1]
    assert [len(line.get_xdata()) for line in filled] == [10, 1, 10, 3]
