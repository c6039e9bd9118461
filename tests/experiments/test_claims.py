"""The paper's claims: complete, computed, and true of the committed records."""

import csv
import dataclasses

import numpy as np
import pytest
from helpers import ROOT, inside

from dcn_study.book.pages import PAGES
from dcn_study.experiments import blocks, claims, first_epoch, study, test_sets
from dcn_study.experiments.agreement import Agreement
from dcn_study.experiments.statistics import Interval, interval
from dcn_study.names import CONTROLS, LONGER
from dcn_study.runs import measurements, published, records
from dcn_study.runs.catalogue import PAPER, RUNS, find_run, seeds_of
from dcn_study.show import figures, tables


@pytest.fixture(scope="module")
def runs():
    with inside(ROOT):
        several = (*PAPER, "cnn_scaled", *first_epoch.LEARNING)
        found = {name: [records.read(run) for run in seeds_of(name)] for name in several}
        single = ("cnn_batch_norm", "long_frozen_mini_resnet")
        return found | {name: [records.read(find_run(name))] for name in single}


@pytest.fixture(scope="module")
def facts(runs):
    with inside(ROOT):
        return claims.gather(runs)


def outcomes(facts):
    return {claim.name: claim.outcome for claim in claims.claims(facts)}


def test_every_claim_has_an_outcome_a_rule_and_pages(facts):
    found = claims.claims(facts)
    with claims.CLAIMS.open() as file:
        assert [claim.name for claim in found] == [row["name"] for row in csv.DictReader(file)]
    assert len({claim.name for claim in found}) == len(found) > 25
    for claim in found:
        assert claim.outcome in claims.OUTCOMES
        assert claim.group in claims.GROUPS
        assert claim.words
        assert claim.rule
        assert claim.ours
        assert claim.pages
        assert set(claim.pages) <= set(PAGES), claim.name


# What the pages say in words, each as a condition on the committed records that would fail if it were false.
def test_nothing_deforms(facts):
    assert facts.largest_kernel == 0
    assert facts.largest_gradient == 0
    assert facts.learning_gradient > 0.1


def test_the_published_run_began_as_runs_whose_offsets_stay_at_zero(facts):
    for each in facts.first_epoch.values():
        assert min(each.inert) < each.published < max(each.inert)
        assert each.as_inert
        assert not each.low < min(each.learning) < each.high
        assert not each.low < max(each.learning) < each.high
    assert [len(each.inert) for each in facts.first_epoch.values()] == [10, 10]
    assert [len(each.learning) for each in facts.first_epoch.values()] == [9, 9]


def test_batch_normalisation_makes_all_of_the_gain(facts):
    assert facts.stand_in_difference == 0
    assert facts.gain.low > 0


def test_scrambled_pairs_are_not_below_the_others_after_an_epoch():
    with inside(ROOT):
        scaled = {
            run: np.mean([records.read(config).history[0].validation_accuracy for config in seeds_of(run)])
            for run in ("random_start_cnn", "scrambled_cnn", "repaired_cnn", "deform_conv_cnn")
        }
    assert min(scaled["random_start_cnn"], scaled["scrambled_cnn"]) > max(
        scaled["repaired_cnn"], scaled["deform_conv_cnn"]
    )


def first_epochs(names, key):
    """Returns one number of the first five epochs of three seeds, by run: arrays of shape (3, 5)."""
    with inside(ROOT):
        found = {name: [records.read(config).history[:5] for config in seeds_of(name, 3)] for name in names}
    return {name: np.array([[getattr(epoch, key) for epoch in each] for each in runs]) for name, runs in found.items()}


def test_true_deformable_convolutions_lose_their_lead_at_the_published_rate_and_keep_one_at_a_falling_rate():
    names = ("cnn_batch_norm", "deform_conv_cnn", "decayed_cnn_batch_norm", "decayed_deform_conv_cnn")
    validation, training = (first_epochs(names, key) for key in ("validation_accuracy", "accuracy"))
    lead = validation["deform_conv_cnn"] - validation["cnn_batch_norm"]
    assert np.all(lead[:, 0] > 0)
    assert np.mean(lead[:, -1]) < 0
    assert np.all(training["deform_conv_cnn"][:, 1] < training["deform_conv_cnn"][:, 0])
    assert np.all(validation["decayed_deform_conv_cnn"][:, -1] > validation["decayed_cnn_batch_norm"][:, -1] + 0.02)
    assert np.all(validation["decayed_deform_conv_cnn"][:, -1] > validation["deform_conv_cnn"][:, -1] + 0.02)
    assert np.all(validation["decayed_cnn_batch_norm"][:, -1] < validation["cnn_batch_norm"][:, -1])


def test_the_lead_of_the_repaired_layer_shrinks_as_batch_normalisation_catches_up():
    validation, training = (
        first_epochs(("cnn_batch_norm", "repaired_cnn"), key) for key in ("validation_accuracy", "accuracy")
    )
    lead = validation["repaired_cnn"] - validation["cnn_batch_norm"]
    assert np.all(lead[:, 0] > lead[:, -1])
    left = interval(lead[:, -1])
    assert left.low < 0 < left.high
    by_epoch = {name: each.mean(axis=0) for name, each in training.items()}
    assert np.all(np.diff(by_epoch["repaired_cnn"]) > 0)  # unlike those of true deformable convolutions, which fall
    assert np.ptp(by_epoch["repaired_cnn"]) < np.ptp(by_epoch["cnn_batch_norm"]) / 3


def test_scrambled_pairs_keep_a_shrinking_lead_and_pairing_shows_no_difference():
    names = ("cnn_batch_norm", "scrambled_cnn", "repaired_cnn")
    validation, training = (first_epochs(names, key) for key in ("validation_accuracy", "accuracy"))
    lead = validation["scrambled_cnn"] - validation["cnn_batch_norm"]
    assert np.all(np.diff(lead.mean(axis=0)) < 0)
    assert interval(lead[:, -1]).low > 0
    assert np.ptp(training["scrambled_cnn"].mean(axis=0)) < np.ptp(training["cnn_batch_norm"].mean(axis=0)) / 3
    with inside(ROOT):
        found = {name: [records.read(run).evaluations for run in seeds_of(name)] for name in names}
    scaled, plain = (
        {name: np.array([each[kind].accuracy for each in seeds]) for name, seeds in found.items()}
        for kind in ("scaled", "plain")
    )
    assert scaled["cnn_batch_norm"].mean() > max(scaled["scrambled_cnn"].mean(), scaled["repaired_cnn"].mean())
    assert np.all(plain["scrambled_cnn"] < plain["repaired_cnn"])
    for accuracies in (scaled, plain):
        between = interval(accuracies["scrambled_cnn"] - accuracies["repaired_cnn"])
        assert between.low < 0 < between.high


def test_half_of_each_block_is_dead_and_the_other_half_frozen(facts, runs):
    assert facts.dead_layers == ("block1_conv1", "block2_conv1")
    assert facts.frozen_blocks
    assert runs["mini_resnet"][0].config.trainable


def test_frozen_blocks_alone_set_the_deformable_mini_resnet_apart(facts):
    """The dead half is in both networks, and the offsets are at zero: what differs is what trains."""
    with inside(ROOT):
        names = (
            "mini_resnet",
            "unfrozen_deformable_mini_resnet",
            "deformable_mini_resnet",
            "repaired_deformable_mini_resnet",
        )
        regular, unfrozen, frozen, repaired = (
            records.read(find_run(name)).history[4].validation_accuracy for name in names
        )
    assert abs(unfrozen - regular) < 0.005
    assert unfrozen > frozen + 0.2
    assert repaired > unfrozen + 0.2
    assert all(each.high < -20 for each in facts.residual_gain.values())


def test_more_epochs_help_the_mini_resnet_and_do_not_settle_the_deformable_one(facts):
    with inside(ROOT):
        longer = {name: records.read(find_run(name)).history for name in LONGER}
        short = {name: records.read(find_run(name)).history for name in ("mini_resnet", "deformable_mini_resnet")}
    for many, few in zip(longer.values(), short.values(), strict=True):
        assert len(many) == 4 * len(few)
        assert [epoch.validation_accuracy for epoch in many[: len(few)]] == [epoch.validation_accuracy for epoch in few]
    plain, frozen = longer.values()
    assert plain[-1].validation_accuracy > 0.9
    assert np.all(np.diff([epoch.accuracy for epoch in frozen]) > 0)  # in training it rises steadily
    last = [epoch.validation_accuracy for epoch in frozen[-10:]]
    assert max(last) - min(last) > 0.5  # in validation it jumps
    assert min(facts.longer) < facts.longer[0] < max(facts.longer)


@pytest.mark.slow
def test_the_running_averages_of_batch_normalisation_make_the_residual_networks_jump():
    with inside(ROOT):
        longer, *seeds = [
            records.read(find_run("long_frozen_mini_resnet")),
            *map(records.read, seeds_of("mini_resnet", 3)),
        ]
        by_batch = [blocks.accuracy_by_batch(record) for record in seeds]
        assert blocks.accuracy_by_batch(longer) > longer.evaluations["plain"].accuracy + 0.3
    own = [record.evaluations["plain"].accuracy for record in seeds]
    assert np.ptp(by_batch) < np.ptp(own) / 2
    assert np.all(np.subtract(by_batch, own) > 0)


def test_the_baseline_falls_by_its_running_averages_alone():
    with inside(ROOT):
        runs = list(map(records.read, seeds_of("cnn_scaled")))
        lowest = min(runs, key=lambda record: record.evaluations["scaled"].accuracy)
        by_batch = measurements.read("batch_statistics").results["accuracies"][runs.index(lowest)]
    best = max(epoch.validation_accuracy for epoch in lowest.history)
    assert lowest.evaluations["scaled"].accuracy < best - 0.05
    assert by_batch == pytest.approx(best, abs=0.01)


def test_the_transformations_are_trained_on_and_the_test_images_validate(facts):
    assert facts.trained_on == "scaled"
    assert not facts.validated_apart


def with_accuracy(facts, model, kind, **changes):
    changed = dataclasses.replace(facts.accuracies[model][kind], **changes)
    return dataclasses.replace(
        facts, accuracies={**facts.accuracies, model: {**facts.accuracies[model], kind: changed}}
    )


@pytest.mark.parametrize(
    ("change", "name", "outcome"),
    [
        ({"largest_kernel": 0.1}, "in-all-layers", "supported"),
        ({"largest_gradient": 1e-9}, "in-all-layers", "supported"),
        ({"largest_kernel": 0.1}, "receptive-field", "not tested"),
        ({"largest_kernel": 0.1}, "unoptimised", "supported"),
        ({"largest_kernel": 0.1}, "drop-in", "supported"),
        ({"stand_in_difference": 0.01}, "cause", "supported"),
        ({"gain": Interval(1.0, -1.0, 3.0)}, "gain", "undecided"),
        ({"gain": Interval(-2.0, -3.0, -1.0)}, "gain", "contradicted"),
        ({"plain_gain": Interval(1.0, 0.5, 1.5)}, "robust", "supported"),
        ({"fields": (9.0, 9.0, Interval(0.0, -1.0, 1.0))}, "wider-field", "undecided"),
        ({"residual_gain": dict.fromkeys(("plain", "scaled"), Interval(2.0, 1.0, 3.0))}, "contrast", "contradicted"),
        ({"residual_gain": dict.fromkeys(("plain", "scaled"), Interval(2.0, 1.0, 3.0))}, "too-simple", "supported"),
        ({"dead_layers": ()}, "both-convolutions", "supported"),
        ({"frozen_blocks": False}, "too-simple", "supported"),
        ({"last_changes": (0.1, 0.2), "last_losses": (0.1, -0.1)}, "not-settled", "contradicted"),
        ({"longer": (50.0, 55.0, 60.0)}, "ten-epochs", "supported"),
        ({"longer": (50.0, 45.0, 40.0)}, "ten-epochs", "contradicted"),
        ({"offset_channels": (18, 18)}, "one-per-point", "supported"),
        ({"published_epochs": (10, 20)}, "same-epochs", "contradicted"),
        ({"combinations": 4}, "two-by-two", "supported"),
        ({"trained_on": "plain"}, "unseen", "supported"),
        ({"validated_apart": True}, "three-groups", "supported"),
        ({"speedup": 1.0}, "inefficient", "contradicted"),
    ],
)
def test_another_fact_gives_another_outcome(facts, change, name, outcome):
    before = outcomes(facts)
    after = outcomes(dataclasses.replace(facts, **change))
    assert before[name] != after[name] == outcome


def test_another_accuracy_gives_another_outcome(facts):
    assert outcomes(with_accuracy(facts, "cnn", "plain", outcome="differs"))["cnn-plain"] == "differs"
    chance = with_accuracy(facts, "cnn", "plain", outcome="undecided", alone="differs", p_value=0.2)
    (told,) = (claim.ours for claim in claims.claims(chance) if claim.name == "cnn-plain")
    assert told.endswith("; outside, by chance likely among 8 (p = 0.20)")
    assert outcomes(facts)["blind"] == "contradicted"
    assert outcomes(with_accuracy(facts, "cnn", "scaled", mean=12.0))["blind"] == "supported"


def test_a_log_among_runs_that_learn_gives_another_outcome(facts):
    changed = {name: dataclasses.replace(each, published=each.learning[0]) for name, each in facts.first_epoch.items()}
    assert outcomes(facts)["log"] == "contradicted"
    assert outcomes(dataclasses.replace(facts, first_epoch=changed))["log"] == "supported"


def test_both_kinds_of_network_are_compared_with_and_without_augmentation(facts):
    assert list(facts.two_by_two) == sorted(facts.two_by_two)  # in the order of the committed records' accuracies
    changed = dataclasses.replace(facts, two_by_two=(91.0, 92.0, 93.0, 94.0))
    (told,) = (claim.ours for claim in claims.claims(changed) if claim.name == "two-by-two")
    assert "91.00% and 92.00% without and with deformable" in told
    assert told.endswith("with augmentation 93.00% and 94.00%")


def test_claims_name_the_longer_run_and_the_dilated_network(facts):
    changed = dataclasses.replace(facts, longer=(40.0, 50.0, 12.4), over_dilated=Interval(1.0, -2.0, 4.0))
    told = {claim.name: claim.ours for claim in claims.claims(changed)}
    assert told["ten-epochs"] == "from 40%, 2 more epochs reach between 12 and 50%, the last 12% (one seed)"
    assert "+1.00 points over a dilated network on digits (-2.00 to +4.00)" in told["atrous"]


def test_without_later_epochs_nothing_is_said_of_them(facts):
    assert outcomes(dataclasses.replace(facts, longer=(50.0,)))["ten-epochs"] == "undecided"


def test_a_curve_differs_if_many_epochs_are_outside_and_is_undecided_if_most_are_wide(facts):
    inside, outside, wide = (
        Agreement(90.0, 90.0 - half, 91.0, 1.0, 0.5, outcome, outcome)
        for half, outcome in ((1.0, "agrees"), (1.0, "differs"), (9.0, "undecided"))
    )
    for epochs, outcome in (
        ([inside] * 9 + [outside], "agrees"),
        ([inside] * 8 + [outside] * 2, "differs"),
        ([wide] * 6 + [inside] * 4, "undecided"),
        ([wide] * 5 + [inside] * 5, "agrees"),
    ):
        curves = {"training": epochs, "validation": epochs}
        changed = dataclasses.replace(facts, curves={**facts.curves, "cnn": curves})
        assert outcomes(changed)["cnn-curve"] == outcome


def test_another_record_gives_another_outcome(runs, facts):
    changed = [record.model_copy(deep=True) for record in runs["cnn"]]
    for record in changed:
        record.evaluations["plain"].accuracy = 0.95
    with inside(ROOT):
        after = claims.gather({**runs, "cnn": changed})
    assert (outcomes(facts)["cnn-plain"], outcomes(after)["cnn-plain"]) == ("agrees", "differs")


def test_the_table_links_to_the_evidence_and_is_safe(facts):
    found = claims.claims(facts)
    table = tables.claims([dataclasses.replace(found[0], words="a < b")], "accuracies")
    assert "a &lt; b" in table
    assert '<a href="runs.html">runs</a>' in table
    assert 'class="outcome agrees"' in table
    assert f'<span class="paper">{found[0].published}</span>' in table
    rows = [tables.claims(found, group).count("<tr") - 1 for group in claims.GROUPS]
    assert sum(rows) == len(found)
    assert np.all(rows)
    assert isinstance(facts.accuracies["cnn"]["plain"], Agreement)


def test_pages_that_once_contradicted_each_other_rest_on_one_fact(facts):
    """Each pair of sentences, on two pages, and the fact that both state."""
    found = outcomes(facts)
    # offsets: "neither be credited with the gain ... nor be blamed"; the verdict on cause and implementation
    assert facts.nothing_deforms
    assert found["cause"] == found["unoptimised"] == found["drop-in"] == "contradicted"
    # runtime and paper: the ratio of the paper is not tested
    assert found["thirty-times"] == "not tested"
    assert facts.forward_ratio < published.FORWARD["deformable"] / published.FORWARD["regular"]
    # verdict and residual: frozen blocks alone, not the dead half that both networks have
    assert found["too-simple"] == "contradicted"
    assert found["contrast"] == "supported"
    # verdict and mechanism: the paper's layer widens nothing, one that works does
    assert (found["receptive-field"], found["wider-field"]) == ("contradicted", "supported")
    # first page and mechanism: the same two numbers, of the last convolution and a digit of full size
    assert facts.fields[2].mean == pytest.approx(facts.fields[0] - facts.fields[1])


def test_another_test_set_may_change_an_accuracy_by_more_than_an_interval_reaches(facts):
    """The method says that its rule makes no allowance for this, and no longer that it is smaller."""
    with inside(ROOT):
        found = measurements.read("sensitivity").results["accuracies"]
    largest = max(test_sets.spreads({model: by_kind["ours"] for model, by_kind in found.items()}).values())
    reach = [each["scaled"] for each in facts.accuracies.values()]
    assert largest > min(min(each.mean - each.low, each.high - each.mean) for each in reach)


def test_offsets_that_ignore_the_image_do_at_least_as_well_on_digits_like_those_of_training():
    """The first page, the study, the mechanism and the README say so."""
    with inside(ROOT):
        contrast = study.compared(study.recorded_runs())["offsets that depend on the image"]
    assert np.mean(contrast.differences) < 0
    assert contrast.contrast.verdict == "equivalent"


def test_the_first_figure_tells_stand_ins_from_runs(runs):
    with inside(ROOT):
        controls = {run: [records.read(config) for config in seeds_of(run)] for run in CONTROLS}
    figure = figures.finding(tables.controls(controls), np.zeros((2, 5, 4)), np.zeros((2, 5, 4)))
    drawn = [line for line in figure.axes[-1].get_lines() if line.get_markersize() == 4 and len(line.get_xdata())]
    open_dots, filled = (
        [line for line in drawn if (line.get_fillstyle() == "none") is hollow] for hollow in (True, False)
    )
    (stand_ins,) = open_dots
    assert len(stand_ins.get_xdata()) == len(runs["deformable_cnn"]) - RUNS["deformable_cnn"].stand_in[1]
    assert [len(line.get_xdata()) for line in filled] == [10, 1, 10, 3]
